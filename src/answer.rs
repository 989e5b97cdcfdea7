//! What becomes of a command, and what its caller is answered. Pure.
//!
//! The lanes give an [`Outcome`]: data, made while rows are locked. Its JSON is made here, by the
//! edge that has the caller: HTTP, or the consumer of inbound commands.

mod dead_letters;
mod failure;
mod hold;
mod members;
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
pub use hold::HoldView;
pub use members::Members;
pub use outcome::{Effect, Failure, Kept, Outcome, Refusal, Reply};
pub use outcomes::{Marks, Outcomes, Verdict, Whole};
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
                Self { status: 201, body: effect.body(), versions: effect.versions().collect() }
            }
            Err(refusal) => {
                let problem = Problem::of_refusal(refusal);
                Self { status: problem.status(), body: problem.to_json(), versions: Vec::new() }
            }
        }
    }
}

impl Effect {
    /// The wallet; a movement adds its transaction, a transfer shows both of its wallets, and what is
    /// about a hold shows that, with its wallet.
    pub fn body(&self) -> String {
        let id = self.transaction_id;
        if let Some(kept) = &self.kept {
            return (*kept.body).to_owned();
        }
        match (self.op, self.wallets.as_slice(), &self.hold) {
            (op, [wallet, ..], Some(hold)) => {
                let shown = Some(id).filter(|_| op == Op::Capture);
                HoldView::new(hold).of_command(wallet, shown).to_json()
            }
            (Op::Transfer, [from, to, ..], None) => wallet::transfer_json(id, from, to),
            (op, [wallet, ..], None) => {
                let shown = Some(id).filter(|_| op != Op::Create);
                WalletView::new(wallet).with_transaction(shown).to_json()
            }
            (_, [], _) => String::from("{}"),
        }
    }
}

/// The answer to a request that was only tried: the body says so.
pub fn of_dry_run(answer: Answer) -> Answer {
    let Answer { status: 201, body, .. } = answer else { return answer };
    let body = match body.strip_prefix('{') {
        Some("}") | None => String::from(r#"{"dryRun":true}"#),
        Some(rest) => format!(r#"{{"dryRun":true,{rest}"#),
    };
    Answer { status: 200, body, versions: Vec::new() }
}
