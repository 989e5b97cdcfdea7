//! The domain, pure: what a wallet is, which commands it takes, what they do to it.
//!
//! [`decide`](decide::decide) turns a [`Command`] and the [`World`] that its [`Footprint`] names into a
//! [`Decision`] or a [`Rejection`]. An event carries the state that it left, which [`World::apply`]
//! copies. Nothing here knows time, ids, Postgres, Kafka or HTTP: they are arguments.

mod amount;
mod command;
mod currency;
mod decide;
mod event;
mod id;
mod metadata;
mod rejection;
mod state;
mod wire;
mod world;

pub use amount::{AMOUNT_MAX, Amount, AmountError, BALANCE_MAX, parse_decimal};
pub use command::{
    Command, CreateWallet, Details, Expected, Footprint, IdOrigin, Movement, Op, Transfer,
};
pub use currency::Currency;
pub use decide::{Decision, decide, due};
pub use event::{
    Change, ChangeType, Event, EventBody, EventKind, EventType, NewEvent, Origin, WalletState,
};
pub use id::{ID_CHARS_MAX, TenantId, WalletId, WalletKey, is_addressable, is_visible};
pub use metadata::{METADATA_BYTES_MAX, Metadata, MetadataError};
pub use rejection::Rejection;
pub use state::{Status, Wallet};
pub use wire::{BalanceChange, DataError, SCHEMA_VERSION, TransferChange, WalletCreated};
pub use world::{Policy, World};
