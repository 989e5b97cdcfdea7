//! Many operations in one request: each is read by itself, so that one bad one can be told apart.

use serde_json::value::RawValue;

use super::{Fields, commands};
use crate::answer::Problem;
use crate::wallet::{Command, Movement, WalletId};

/// Operations in one request.
pub const BULK_MAX: usize = 1000;

/// The body of `POST /bulk`.
#[derive(Debug)]
pub struct Bulk {
    /// All of them or none.
    pub atomic: bool,
    operations: Vec<Box<RawValue>>,
}

/// One operation: what the single route would be sent, with its key.
#[derive(Debug, Clone)]
pub struct BulkItem {
    pub command: Command,
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Create,
    Credit,
    Debit,
    Transfer,
}

const OPS: &[(&str, Op)] = &[
    ("create", Op::Create),
    ("credit", Op::Credit),
    ("debit", Op::Debit),
    ("transfer", Op::Transfer),
];

impl Bulk {
    pub fn parse(mut fields: Fields) -> Result<Self, Problem> {
        let atomic = fields.flag("atomic");
        let operations = fields.list("operations", BULK_MAX);
        fields.finish()?;
        Ok(Self { atomic, operations })
    }

    /// Each operation in order, or the problem with it; `make_id` gives the ids that callers left out.
    pub fn items(&self, mut make_id: impl FnMut() -> WalletId) -> Vec<Result<BulkItem, Problem>> {
        let numbered = self.operations.iter().enumerate();
        numbered.map(|(at, raw)| BulkItem::parse(raw, place(at), &mut make_id)).collect()
    }
}

/// Where an operation stands in the body, as a JSON Pointer.
pub fn place(at: usize) -> String {
    format!("/operations/{at}")
}

impl BulkItem {
    fn parse(
        raw: &RawValue,
        place: String,
        make_id: impl FnOnce() -> WalletId,
    ) -> Result<Self, Problem> {
        let mut fields = Fields::at(raw.get(), place)?;
        let key = fields.key("idempotencyKey");
        Ok(Self { command: operation(fields, make_id)?, key })
    }
}

/// The command that `op` and the fields beside it give.
pub(super) fn operation(
    mut fields: Fields,
    make_id: impl FnOnce() -> WalletId,
) -> Result<Command, Problem> {
    Ok(match fields.word("op", OPS) {
        // Which fields belong here is not known: what is wrong so far is all that can be said.
        None => return Err(fields.refuse()),
        Some(Op::Create) => commands::create(fields, make_id())?,
        Some(Op::Credit) => Command::Credit(movement(fields)?),
        Some(Op::Debit) => Command::Debit(movement(fields)?),
        Some(Op::Transfer) => {
            let from = fields.required_wallet_id("walletId");
            commands::transfer(fields, from, None)?
        }
    })
}

fn movement(mut fields: Fields) -> Result<Movement, Problem> {
    let wallet_id = fields.required_wallet_id("walletId");
    commands::movement(fields, wallet_id, None)
}
