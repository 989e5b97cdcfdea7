//! What other systems read from Kafka, seen with Kafka's own tools: order, keys, headers, schemas.

mod commands;
mod schemas;
mod tools;
mod topic;
