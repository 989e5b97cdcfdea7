//! What a command is answered, pure: a status and a JSON body.
//!
//! The body is made where the command is decided, inside its transaction, because the idempotency
//! key keeps it: a replay is the first answer to the byte.

mod dead_letters;
mod problem;
mod wallet;

use std::sync::Arc;

use uuid::Uuid;

use crate::wallet::{Rejection, Wallet, WalletId};

pub use dead_letters::{
    Bytes, DeadLetterStoryView, DeadLetterView, DeadLettersView, ParkedWalletName,
    ParkedWalletView, RequestView,
};
pub use problem::{FieldError, Problem, ProblemCode, ProblemDocument};
pub use wallet::{TransferView, WalletView, event_json};

/// A decided outcome as it goes to the caller. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Arc<str>,
    /// Wallets and the versions that the answer speaks of; empty for a refusal.
    pub versions: Vec<(WalletId, i64)>,
}

impl Answer {
    /// 201 with the wallet; `transaction_id` is left out for a creation.
    pub fn wallet(wallet: &Wallet, transaction_id: Option<Uuid>) -> Self {
        let view = WalletView::new(wallet).with_transaction(transaction_id);
        Self {
            status: 201,
            body: view.to_json().into(),
            versions: vec![(wallet.id.clone(), wallet.version)],
        }
    }

    /// 201 with both sides of a transfer.
    pub fn transfer(transfer_id: Uuid, from: &Wallet, to: &Wallet) -> Self {
        let body = wallet::transfer_json(transfer_id, from, to);
        let versions = vec![(from.id.clone(), from.version), (to.id.clone(), to.version)];
        Self { status: 201, body: body.into(), versions }
    }

    /// The problem document of a refusal.
    pub fn rejection(rejection: &Rejection, request_id: &str) -> Self {
        let problem = Problem::of_rejection(rejection).with_request_id(request_id);
        Self { status: problem.status(), body: problem.to_json().into(), versions: Vec::new() }
    }

    /// An answer kept under a key. What it speaks of is read back from its body.
    pub fn stored(status: u16, body: &str) -> Self {
        Self { status, body: body.into(), versions: wallet::versions_in(body) }
    }
}
