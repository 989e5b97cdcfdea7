//! Many operations in one request: each is read by itself, so that one bad one can be told apart.

use serde::Serialize;
use serde_json::Value;
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

/// The whole of a request as it was read: what a fingerprint over it covers. Equal requests are equal
/// here, whatever their JSON looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed(Vec<u8>);

/// Neither is a command by itself: no fingerprint of one is that of the other.
#[derive(Serialize)]
struct ParsedBulk<'a> {
    atomic: bool,
    operations: Vec<ParsedItem<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ParsedItem<'a> {
    Read {
        command: &'a Command,
        key: Option<&'a str>,
    },
    /// It does nothing: any form of it that tells it from another will do.
    Unread(String),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
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
    pub fn items(&self, make_id: impl FnMut() -> WalletId) -> Vec<Result<BulkItem, Problem>> {
        self.read(|fields| fields.key("idempotencyKey"), make_id)
    }

    /// The same, where operations have no keys of their own.
    pub(super) fn keyless_items(
        &self,
        make_id: impl FnMut() -> WalletId,
    ) -> Vec<Result<BulkItem, Problem>> {
        self.read(|_| None, make_id)
    }

    fn read(
        &self,
        key: impl Fn(&mut Fields) -> Option<String>,
        mut make_id: impl FnMut() -> WalletId,
    ) -> Vec<Result<BulkItem, Problem>> {
        let item = |(at, raw): (usize, &RawValue)| {
            let mut fields = Fields::at(raw.get(), place(at))?;
            let key = key(&mut fields);
            Ok(BulkItem { command: operation(fields, &mut make_id)?, key })
        };
        self.operations.iter().map(AsRef::as_ref).enumerate().map(item).collect()
    }

    /// The whole request, of which `items` have been read.
    pub fn parsed(&self, items: &[Result<BulkItem, Problem>]) -> Parsed {
        let operations = items.iter().zip(&self.operations).map(|(item, raw)| match item {
            Ok(BulkItem { command, key }) => ParsedItem::Read { command, key: key.as_deref() },
            Err(_) => ParsedItem::Unread(plain(raw)),
        });
        Parsed::of(self.atomic, operations.collect())
    }
}

impl Parsed {
    fn of(atomic: bool, operations: Vec<ParsedItem<'_>>) -> Self {
        // Text, numbers and checked raw JSON always serialize.
        Self(serde_json::to_vec(&ParsedBulk { atomic, operations }).unwrap_or_default())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Without white space, the fields in one order, where it is plain JSON.
fn plain(raw: &RawValue) -> String {
    let value: Result<Value, _> = serde_json::from_str(raw.get());
    value.map_or_else(|_| raw.get().to_owned(), |value| value.to_string())
}

/// Where an operation stands in the body, as a JSON Pointer.
pub fn place(at: usize) -> String {
    format!("/operations/{at}")
}

/// The command that `op` and the fields beside it give.
fn operation(mut fields: Fields, make_id: impl FnOnce() -> WalletId) -> Result<Command, Problem> {
    match fields.word("op", OPS) {
        // Which fields belong here is not known: what is wrong so far is all that can be said.
        None => Err(fields.refuse()),
        Some(op) => operation_of(op, fields, make_id),
    }
}

/// The same, where the `op` has been read.
pub(super) fn operation_of(
    op: Op,
    mut fields: Fields,
    make_id: impl FnOnce() -> WalletId,
) -> Result<Command, Problem> {
    Ok(match op {
        Op::Create => commands::create(fields, make_id())?,
        Op::Credit => Command::Credit(movement(fields)?),
        Op::Debit => Command::Debit(movement(fields)?),
        Op::Transfer => {
            let from = fields.required_wallet_id("walletId");
            commands::transfer(fields, from, None)?
        }
    })
}

fn movement(mut fields: Fields) -> Result<Movement, Problem> {
    let wallet_id = fields.required_wallet_id("walletId");
    commands::movement(fields, wallet_id, None)
}
