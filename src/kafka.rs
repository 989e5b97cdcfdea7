//! Kafka: the only room with Kafka clients. Knows records, offsets and topics; nothing of wallets,
//! of Postgres or of HTTP.
//!
//! rskafka produces and fetches, krafka administers and checks the way in: its errors name the
//! cause, where rskafka's hide it. Every call has a bound of its own, since neither client has.

pub mod admin;
mod breaker;
mod connect;
mod error;
mod fetch;
mod hint;
mod offsets;
mod peek;
mod produce;
mod secure;
mod shared;
mod tail;
pub mod topics;
pub mod verify;

pub use breaker::{Breaker, BreakerState};
pub use connect::Connection;
pub use error::{Class, Error};
pub use fetch::{FetchError, Fetched, Fetcher};
pub use offsets::Committed;
pub use produce::{Copied, Outgoing, ProduceError, Producer};
pub use shared::{SharedReader, SharedTopic};
pub use tail::last_records;
