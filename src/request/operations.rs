//! Every kind of command as an operation: by its `op` in `POST /bulk` and in a record of the inbound
//! topic, where the ids of a route's path are fields.

use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::body::{Body, Value, property, schema_of};
use super::holds::OnHold;
use super::values::{one_of, words};
use super::{
    AdjustBody, CaptureBody, CloseBody, CreateWalletBody, Fault, Fields, HoldBody, LimitsBody,
    MetadataBody, MovementBody, ReleaseBody, StatusBody, TransferBody,
};
use crate::wallet::{Command, NewStatus, Op, Rejection, WalletId};

/// Gives an id to a wallet whose caller gave none.
pub type MakeId<'a> = &'a mut dyn FnMut() -> WalletId;

/// One kind of command.
#[derive(Debug)]
pub struct Operation {
    /// Its `op`.
    pub name: &'static str,
    pub about: &'static str,
    take: fn(&mut Fields, MakeId<'_>) -> Option<Result<Command, Rejection>>,
    describe: fn(ObjectBuilder) -> ObjectBuilder,
    schema: fn(&[&str]) -> Schema,
}

macro_rules! operation {
    ($op:ident, $about:literal, $body:ty, $command:expr) => {
        Operation {
            name: Op::$op.as_str(),
            about: $about,
            take: |fields, make_id| {
                let command: fn($body, MakeId<'_>) -> Result<Command, Rejection> = $command;
                Some(command(<$body>::take(fields)?, make_id))
            },
            describe: <$body>::describe,
            schema: schema_of::<$body>,
        }
    };
}

/// All of them. A new command is a body and a line here.
#[rustfmt::skip]
pub static OPERATIONS: &[Operation] = &[
    operation!(Create, "Opens a wallet", CreateWalletBody, |body, make_id| Ok(body.command(make_id))),
    operation!(Credit, "Money comes in", OnWallet<MovementBody>,
        |on, _| Ok(Command::Credit(on.body.movement(on.wallet_id, None)))),
    operation!(Debit, "Money goes out", OnWallet<MovementBody>,
        |on, _| Ok(Command::Debit(on.body.movement(on.wallet_id, None)))),
    operation!(Transfer, "Money goes to another wallet", OnWallet<TransferBody>,
        |on, _| on.body.command(on.wallet_id, None)),
    operation!(Hold, "Money is put on hold", OnWallet<HoldBody>,
        |on, make_id| on.body.command(on.wallet_id, None, make_id)),
    operation!(Adjust, "A hold gets other terms", OnHold<AdjustBody>,
        |on, _| on.body.command(on.hold, None)),
    operation!(Capture, "Money of a hold is taken", OnHold<CaptureBody>,
        |on, _| Ok(on.body.command(on.hold, None))),
    operation!(Release, "What remains of a hold is given back", OnHold<ReleaseBody>,
        |on, _| Ok(on.body.command(on.hold, None))),
    operation!(Freeze, "A wallet does nothing any more", OnWallet<StatusBody>,
        |on, _| Ok(on.body.command(on.wallet_id, NewStatus::Frozen, None))),
    operation!(Suspend, "A wallet takes money only", OnWallet<StatusBody>,
        |on, _| Ok(on.body.command(on.wallet_id, NewStatus::Suspended, None))),
    operation!(Activate, "A wallet does everything again", OnWallet<StatusBody>,
        |on, _| Ok(on.body.command(on.wallet_id, NewStatus::Active, None))),
    operation!(Close, "A wallet is closed for ever", OnWallet<CloseBody>,
        |on, _| Ok(on.body.command(on.wallet_id, None))),
    operation!(Limits, "A wallet gets other limits", OnWallet<LimitsBody>,
        |on, _| Ok(on.body.command(on.wallet_id, None))),
    operation!(Metadata, "A wallet gets other metadata", OnWallet<MetadataBody>,
        |on, _| Ok(on.body.command(on.wallet_id, None))),
];

impl Operation {
    /// Takes the operation's fields out, and what they make. None: one of them is wrong.
    pub(super) fn take(
        &self,
        fields: &mut Fields,
        make_id: MakeId<'_>,
    ) -> Option<Result<Command, Rejection>> {
        (self.take)(fields, make_id)
    }

    /// Its fields but for `op`, and no others.
    pub fn schema(&self) -> Schema {
        (self.schema)(&[self.about])
    }

    /// Adds `op` and its fields to a schema.
    pub(super) fn describe(&self, object: ObjectBuilder) -> ObjectBuilder {
        let op = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([self.name]));
        (self.describe)(object.property("op", op).required("op"))
    }
}

impl Value for &'static Operation {
    fn read(token: &str) -> Result<Self, Fault> {
        one_of(token, OPERATIONS.iter().map(|operation| (operation.name, operation)))
    }

    fn schema() -> Schema {
        words(OPERATIONS.iter().map(|operation| operation.name))
    }
}

/// The body of a route that has the wallet in its path.
#[derive(Debug)]
struct OnWallet<B> {
    wallet_id: WalletId,
    body: B,
}

impl<B: Body> Body for OnWallet<B> {
    fn take(fields: &mut Fields) -> Option<Self> {
        let wallet_id = fields.take("walletId");
        let body = B::take(fields);
        Some(Self { wallet_id: wallet_id?, body: body? })
    }

    fn describe(object: ObjectBuilder) -> ObjectBuilder {
        B::describe(property::<WalletId>(object, "walletId", &[]))
    }
}
