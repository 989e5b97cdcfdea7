//! What becomes of a command: an effect, a refusal, or a failure to decide.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ProblemCode;
use crate::wallet::{Hold, Op, Rejection, Wallet, WalletId};

/// What a command did.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub op: Op,
    pub transaction_id: Uuid,
    /// The command's wallets as it left them, in the order of its footprint.
    pub wallets: Vec<Wallet>,
    /// The hold that it was about.
    pub hold: Option<Box<Hold>>,
    /// The first answer as it was given, where it cannot be made again of the events.
    pub kept: Option<Kept>,
}

/// An answer that was kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub body: Arc<str>,
    /// Of the command's wallets.
    pub versions: Vec<(WalletId, i64)>,
}

/// Why a command was refused. Its serialized form is what a key keeps of it: a replay is answered
/// with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub rejection: Rejection,
    /// Which operation of an atomic request was refused, and with it the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<usize>,
    /// The request that was refused first.
    pub request_id: Arc<str>,
}

/// What a decided command is answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub result: Result<Effect, Refusal>,
    /// The first answer under the key, given again.
    pub replayed: bool,
}

/// Why a command was not decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The lane's queue is full. Nothing happened.
    Overloaded,
    /// Postgres cannot be reached. Nothing happened.
    Unavailable,
    /// The database's schema does not fit this build. Nothing happened.
    Schema,
    /// The command may have taken effect; the same key will tell.
    OutcomeUnknown,
    /// Another transaction has locked the wallet. Nothing happened.
    WalletBusy,
    /// A request with the same key is still running. Nothing happened.
    KeyInFlight,
    /// The key belongs to another request. Nothing happened.
    KeyReused,
    /// The first answer is no longer kept; it was about this transaction. Nothing happened again.
    KeyExpired { transaction_id: Uuid },
    /// Another operation of the same atomic request was refused. Nothing happened.
    Abandoned,
    /// A defect of the service. Nothing happened.
    Broken,
}

pub type Outcome = Result<Reply, Failure>;

impl Effect {
    pub fn new(op: Op, transaction_id: Uuid, wallets: Vec<Wallet>) -> Self {
        Self { op, transaction_id, wallets, hold: None, kept: None }
    }

    /// Wallets and the versions that the command left them at.
    pub fn versions(&self) -> impl Iterator<Item = (WalletId, i64)> {
        let kept = self.kept.iter().flat_map(|kept| kept.versions.iter().cloned());
        self.wallets.iter().map(|wallet| (wallet.id.clone(), wallet.version)).chain(kept)
    }
}

impl Refusal {
    pub fn status(&self) -> u16 {
        ProblemCode::of(&self.rejection).status()
    }
}

impl Reply {
    /// The first answer.
    pub fn new(result: Result<Effect, Refusal>) -> Self {
        Self { result, replayed: false }
    }

    pub fn again(result: Result<Effect, Refusal>) -> Self {
        Self { result, replayed: true }
    }
}

impl Failure {
    /// Whether the same request may still be decided.
    pub fn is_undecided(&self) -> bool {
        match self {
            Self::Overloaded
            | Self::Unavailable
            | Self::Schema
            | Self::OutcomeUnknown
            | Self::WalletBusy
            | Self::KeyInFlight
            | Self::Broken => true,
            Self::KeyReused | Self::KeyExpired { .. } | Self::Abandoned => false,
        }
    }
}
