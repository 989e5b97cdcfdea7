//! Wallex: a wallet and billing service over Postgres, with every event in Kafka in order.
//!
//! ```text
//! HTTP → http → execute (lanes: group commit) → wallet::decide (pure) → store, one transaction:
//!     events + wallet state + outbox + idempotency → COMMIT → answer
//! outbox → publisher → Kafka topic → projector → ledger entries, read model
//! ```
//!
//! Modules are in reading order: the pure rooms, then what moves data, then the wiring.

pub mod answer;
pub mod envelope;
pub mod ledger;
pub mod request;
pub mod schemas;
pub mod status;
pub mod wallet;

pub mod background;
pub mod backoff;
pub mod dead_letters;
pub mod event_cache;
pub mod execute;
pub mod group_offsets;
pub mod http;
pub mod inbound;
pub mod instance;
pub mod kafka;
pub mod partitions;
pub mod projector;
pub mod publisher;
pub mod registry;
pub mod republisher;
pub mod retention;
pub mod store;
pub mod sweeper;
pub mod throttle;
pub mod topics;

pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
