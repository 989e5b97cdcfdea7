//! Requests as JSON → typed commands, pure: what every way in (HTTP, bulk, a topic) reads alike.

mod bulk;
mod commands;
mod fields;

pub use bulk::{BULK_MAX, Bulk, BulkItem, place};
pub use commands::{create, movement, transfer};
pub use fields::Fields;
