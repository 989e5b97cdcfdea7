//! The write path's statements: claim the batch, lock wallets, look keys up, write, all set-based.
//!
//! Lock order in every transaction of every instance: the batch's id; existing wallets by tenant and
//! id in C order; keys, sorted; new wallets in the same order; outbox rows last.

mod answers;
mod further;
mod read;
mod rows;
mod write;

pub use answers::{StoredAnswer, StoredKey, StoredKeys};
pub(in crate::store) use further::{HoldRow, hold_columns};
pub use further::{Wanted, batch_further};
pub(in crate::store) use read::wallet_of;
pub use read::{
    BatchStart, KeyPlace, Loaded, WalletsAtVersion, batch_claim, batch_start, wallets_at,
    wallets_existing,
};
pub use write::{HoldWrite, KeyWrite, WalletWrite, Writes, write_batch};

/// What to do about a wallet that another transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Leave it out: another transaction must not stall the batch.
    Skip,
    /// Wait for it, up to the session's lock timeout.
    Wait,
}
