//! Faults that were reported of other wallets, outboxes, Kafka consumers and Postgres services, each tried
//! on the real parts as its reporter met it. A test for each report, named for it.

mod books;
mod broker;
mod letters;
mod postgres;
mod requests;
mod settings;
mod topics;
mod wire;
