//! The one integration binary: the real service as a process, over real PostgreSQL and Kafka.
//! A file per guarantee; each test has a database and topics of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    clippy::large_futures,
    reason = "tests fail by panicking, and speak to whoever runs them"
)]

#[allow(dead_code, reason = "the fixture is used by more tests than there are yet")]
mod support;

mod archive;
mod asyncapi;
mod bench;
mod bulk;
mod cluster;
mod commands;
mod concurrency;
mod cutover;
mod dead_letters;
mod docs;
mod events;
mod explain;
mod faults;
mod filters;
mod groups;
mod idempotency;
mod instances;
mod jobs;
mod leases;
mod load_tools;
mod logs;
mod migrations;
mod model;
mod money_races;
mod openapi;
mod outbox;
mod partitions;
mod producing;
mod projectors;
mod rebuild;
mod refusals;
mod registry;
mod reported;
mod retention;
mod security;
mod spine;
mod sql;
mod statements;
mod tenants;
mod tidy;
mod topic_matrix;
mod topics;
mod tour;
mod transactions;
