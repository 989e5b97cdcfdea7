//! PostgreSQL and the way to it, as providers and operators have them.

mod durability;
mod managed;
mod poolers;
mod pools;
mod read_only;
mod sessions;
