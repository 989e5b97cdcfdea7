//! Many operations in one request: each is read by itself, so that one bad one can be told apart.

use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, Discriminator, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{Ref, Schema};

use super::body::{Schemas, Value, body, closed, property};
use super::values::Key;
use super::{Fault, Fields, MakeId, OPERATIONS, Operation};
use crate::answer::Problem;
use crate::wallet::{Command, WalletId};

/// Operations in one request.
pub const BULK_MAX: usize = 1000;

body! {
    /// Many operations.
    pub struct BulkBody of 4 MiB {
        /// All of them or none; false when left out.
        atomic as "atomic": bool,
        operations as "operations": Operations,
    }
}

/// The operations as they were sent.
#[derive(Debug)]
pub struct Operations(Vec<Box<RawValue>>);

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

impl BulkBody {
    /// Each operation in order, or the problem with it; `make_id` gives the ids that callers left out.
    pub fn items(&self, make_id: impl FnMut() -> WalletId) -> Vec<Result<BulkItem, Problem>> {
        self.read(|fields| Some(fields.take::<Option<Key>>(OWN_KEY)?.map(|key| key.0)), make_id)
    }

    /// The same, where operations have no keys of their own.
    pub(super) fn keyless_items(
        &self,
        make_id: impl FnMut() -> WalletId,
    ) -> Vec<Result<BulkItem, Problem>> {
        self.read(|_| Some(None), make_id)
    }

    fn read(
        &self,
        key: impl Fn(&mut Fields) -> Option<Option<String>>,
        mut make_id: impl FnMut() -> WalletId,
    ) -> Vec<Result<BulkItem, Problem>> {
        let operations = self.operations.0.iter().map(|raw| &**raw).enumerate();
        let item = |(at, raw): (usize, &RawValue)| item(at, raw, &key, &mut make_id);
        operations.map(item).collect()
    }

    /// The whole request, of which `items` have been read.
    pub fn parsed(&self, items: &[Result<BulkItem, Problem>]) -> Parsed {
        let operations = items.iter().zip(&self.operations.0).map(|(item, raw)| match item {
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
    let value: Result<Json, _> = serde_json::from_str(raw.get());
    value.map_or_else(|_| raw.get().to_owned(), |value| value.to_string())
}

/// Where an operation is in the body, as a JSON Pointer.
pub fn pointer(at: usize) -> String {
    format!("/operations/{at}")
}

/// The operation at a place in the list, with the key that `key` takes out of its fields.
fn item(
    at: usize,
    raw: &RawValue,
    key: impl Fn(&mut Fields) -> Option<Option<String>>,
    make_id: MakeId<'_>,
) -> Result<BulkItem, Problem> {
    let mut fields = Fields::at(raw.get(), pointer(at))?;
    let key = key(&mut fields);
    // Without `op` it is not known which fields belong here: what is wrong so far is all to be said.
    let Some(operation) = fields.take::<&Operation>("op") else { return Err(fields.refuse()) };
    let command = operation.take(&mut fields, make_id);
    let (key, command) = fields.finish(key.zip(command))?;
    let command = command.map_err(|rejection| {
        let problem = Problem::of_rejection(&rejection);
        // In a list of operations it has to be said which one.
        Problem::at(problem.code, pointer(at), problem.detail)
    })?;
    Ok(BulkItem { command, key })
}

/// An operation's own key among its fields.
const OWN_KEY: &str = "idempotencyKey";

impl Value for Operations {
    fn read(token: &str) -> Result<Self, Fault> {
        let list: Vec<Box<RawValue>> = serde_json::from_str(token).unwrap_or_default();
        match (1..=BULK_MAX).contains(&list.len()) {
            true => Ok(Self(list)),
            false => Err(Fault::value(format!("must be an array of 1 to {BULK_MAX} values"))),
        }
    }

    fn schema() -> Schema {
        let items = Ref::from_schema_name("BulkOperation");
        ArrayBuilder::new().items(items).min_items(Some(1)).max_items(Some(BULK_MAX)).into()
    }

    fn referred(schemas: &mut Schemas) {
        let about = "What the single route of `op` takes, with the ids of its path and the key of its \
                     header.";
        let mut by_op = Discriminator::new("op");
        let mut any = OneOfBuilder::new().description(Some(about));
        for operation in OPERATIONS {
            let name = component(operation);
            let reference = Ref::from_schema_name(&name);
            by_op.mapping.insert(operation.name.to_owned(), reference.ref_location.clone());
            any = any.item(reference);
            schemas.push((name, described(operation).into()));
        }
        let any = Schema::from(any.discriminator(Some(by_op)));
        schemas.push(("BulkOperation".to_owned(), any.into()));
    }
}

/// The name of an operation in the OpenAPI document: `BulkCredit`.
fn component(operation: &Operation) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_uppercase() + rest
    };
    format!("Bulk{}", operation.name.split('_').map(capital).collect::<String>())
}

/// An operation of a list, with the key that it may have.
fn described(operation: &Operation) -> Schema {
    let about = [
        "As `Idempotency-Key` of the single route: a retry through either is given the first answer.",
        "Left out, the key of the whole request covers it, where there is one.",
    ];
    let object: ObjectBuilder =
        property::<Option<Key>>(closed(&[operation.about]), OWN_KEY, &about);
    operation.describe(object).into()
}
