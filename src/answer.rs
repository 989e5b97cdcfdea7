//! What becomes of a command, and what its caller is answered. Pure.
//!
//! The lanes give an [`Outcome`]: data, made while rows are locked. Its JSON is made here, by the
//! edge that has the caller: HTTP, or the consumer of inbound commands.

mod dead_letters;
mod failure;
mod outcome;
mod outcomes;
mod problem;
mod statement;
mod transaction;
mod wallet;

use crate::wallet::{Op, WalletId};

pub use dead_letters::{
    Bytes, DeadLetterStoryView, DeadLetterView, DeadLettersView, ParkedWalletName,
    ParkedWalletView, RequestView,
};
pub use outcome::{Effect, Failure, Outcome, Refusal, Reply};
pub use outcomes::{Outcomes, Verdict, Whole};
pub use problem::{FieldError, Problem, ProblemCode, ProblemDocument};
pub use statement::{Closing, Form, Heading, Line, Mismatch, Statement, StatementView};
pub use transaction::TransactionView;
pub use wallet::{TransferView, WalletView, event_json};

/// A decided command as its caller gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// Wallets and the versions that the answer speaks of; empty for a refusal.
    pub versions: Vec<(WalletId, i64)>,
}

impl Answer {
    pub fn of(reply: &Reply) -> Self {
        match &reply.result {
            Ok(effect) => {
                Self { status: 201, body: body(effect), versions: effect.versions().collect() }
            }
            Err(refusal) => {
                let problem = Problem::of_refusal(refusal);
                Self { status: problem.status(), body: problem.to_json(), versions: Vec::new() }
            }
        }
    }
}

/// The wallet; a movement adds its transaction, and a transfer shows both of its wallets.
fn body(effect: &Effect) -> String {
    let id = effect.transaction_id;
    match (effect.op, effect.wallets.as_slice()) {
        (Op::Transfer, [from, to, ..]) => wallet::transfer_json(id, from, to),
        (op, [wallet, ..]) => {
            let shown = Some(id).filter(|_| op != Op::Create);
            WalletView::new(wallet).with_transaction(shown).to_json()
        }
        (_, []) => String::from("{}"),
    }
}
