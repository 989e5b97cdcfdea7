//! The write path's statements: claim the batch, lock wallets, look keys up, write, all set-based.
//!
//! Lock order in every transaction of every instance: the batch's id; existing wallets by id in C
//! order; keys, sorted; new wallets in id order; outbox rows last.

mod read;
mod write;

pub(in crate::store) use read::wallet_of;
pub use read::{
    Begun, Kept, KeyRow, Locked, Past, Taken, batch_claim, claim_and_read, wallets_at,
    wallets_existing,
};
pub use write::{KeptAs, KeyWrite, Writes, write_batch};

/// What to do about a wallet that another transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Leave it out: a stranger must not stall the batch.
    Skip,
    /// Wait for it, up to the session's lock timeout.
    Wait,
}
