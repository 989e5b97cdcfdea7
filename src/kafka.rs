//! Placeholder for the Kafka room: only what the projectors read from it.

mod fetch;

pub use fetch::{FetchError, Fetched, Fetcher, Log};
