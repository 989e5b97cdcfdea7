//! What other systems read from Kafka, seen with Kafka's own tools: order, keys, headers, schemas.

mod commands;
mod schemas;
pub mod tools;
mod topic;
