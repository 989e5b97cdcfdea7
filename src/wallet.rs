//! The domain, pure: what a wallet is, which commands it takes, what they do to it.
//!
//! [`decide`](decide::decide) turns a [`Command`] and the [`World`] that its [`Footprint`] names into a
//! [`Decision`] or a [`Rejection`]. An event carries the state that it left, which [`World::apply`]
//! copies. Nothing here knows time, ids, Postgres, Kafka or HTTP: they are arguments.

mod account;
mod amount;
mod command;
mod currency;
mod decide;
mod event;
mod hold;
mod id;
mod metadata;
mod rejection;
mod state;
mod wire;
mod world;

pub use account::*;
pub use amount::*;
pub use command::*;
pub use currency::*;
pub use decide::*;
pub use event::*;
pub use hold::*;
pub use id::*;
pub use metadata::*;
pub use rejection::*;
pub use state::*;
pub use wire::*;
pub use world::*;
