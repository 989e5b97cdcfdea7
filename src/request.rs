//! Requests as JSON → typed commands, pure: what every way in (HTTP, bulk, a topic) reads alike.
//!
//! A body is declared once ([`body!`]): its type, its reader and its schema are made of the same list
//! of fields. A kind of command is one line of [`OPERATIONS`]. docs/openapi.json and the JSON Schema
//! of inbound commands follow.

mod bodies;
mod body;
mod bulk;
mod fields;
mod inbound;
mod operations;
mod trace;
mod values;

pub use bodies::{CreateWalletBody, MovementBody, TransferBody};
pub(crate) use body::body;
pub use body::{Body, Field, Schemas, Value, property, schema_of};
pub use bulk::{BULK_MAX, BulkBody, BulkItem, Parsed, pointer};
pub use fields::{Fault, Fields};
pub use inbound::{COMMAND_BYTES_MAX, Commanded, InvalidCommand, WalletCommand};
pub use operations::{MakeId, OPERATIONS, Operation};
pub use trace::{is_plain_id, is_traceparent};
pub use values::{Ids, Key, Text, Time, is_key, one_of, words};
