//! Requests as JSON → typed commands, pure: what every way in (HTTP, bulk, a topic) reads alike.

mod bulk;
mod commands;
mod fields;
mod inbound;
mod trace;

pub use bulk::{BULK_MAX, Bulk, BulkItem, Parsed, place};
pub use commands::{create, movement, transfer};
pub use fields::{DESCRIPTION_CHARS_MAX, Fields, KEY_BYTES_MAX, REFERENCE_CHARS_MAX};
pub use inbound::{COMMAND_BYTES_MAX, Commanded, Unread, WalletCommand};
pub use trace::{is_plain_id, is_traceparent};
