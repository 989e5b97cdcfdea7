//! Requests as JSON → typed commands, pure: what every way in (HTTP, bulk, a topic) reads alike.
//!
//! A body is declared once ([`body!`]): its type, its reader and its schema are made of the same list
//! of fields. A kind of command is one line of [`OPERATIONS`]. docs/openapi.json and the JSON Schema
//! of inbound commands follow.

mod bodies;
mod body;
mod bulk;
mod fields;
mod holds;
mod inbound;
mod operations;
mod trace;
mod values;

pub use bodies::*;
pub(crate) use body::body;
pub use body::*;
pub use bulk::*;
pub use fields::*;
pub use holds::*;
pub use inbound::*;
pub use operations::*;
pub use trace::*;
pub use values::*;
