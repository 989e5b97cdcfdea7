//! What callers may ask of wallets.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Amount, Currency, DUE_MAX, Metadata, SWEEP_MAX, Status, WalletId};

/// One request to change wallets. Its serialized form is what an idempotency key's fingerprint
/// covers: equal requests serialize equally, whatever their JSON looked like.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Command {
    Create(CreateWallet),
    Credit(Movement),
    Debit(Movement),
    Transfer(Transfer),
    Hold(PlaceHold),
    Adjust(AdjustHold),
    Capture(CaptureHold),
    Release(ReleaseHold),
    Status(SetStatus),
    Close(CloseWallet),
    Limits(SetLimits),
    Metadata(SetMetadata),
    /// Lets happen what is due on a wallet, and nothing else.
    Touch(WalletId),
}

/// Which command: the `op` of a bulk operation and of an inbound command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Credit,
    Debit,
    Transfer,
    Hold,
    Adjust,
    Capture,
    Release,
    Freeze,
    Suspend,
    Activate,
    Close,
    Limits,
    Metadata,
    Touch,
}

/// All that a command needs to be decided. What it names is in the [`World`](super::World) by then.
#[derive(Debug, Clone)]
pub struct Footprint<'a> {
    first: &'a WalletId,
    others: Vec<&'a WalletId>,
    needs: Needs,
    due_max: usize,
}

/// What a command needs beside its wallets: it is read by a statement after the one that locks them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The hold that it names.
    pub hold: Option<Uuid>,
    /// How many open holds its first wallet has.
    pub open_holds: bool,
}

impl<'a> Footprint<'a> {
    /// The wallets to lock. Answers show them in this order, and keys keep their versions in it.
    pub fn wallets(&self) -> impl Iterator<Item = &'a WalletId> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// How much of what is due may happen before the command.
    pub fn due_max(&self) -> usize {
        self.due_max
    }
}

/// Opens a wallet, with its opening balance as a first credit.
#[derive(Debug, Clone, Serialize)]
pub struct CreateWallet {
    /// Sent by the caller, else made for it; made ids are no part of the fingerprint.
    #[serde(serialize_with = "only_given")]
    pub id: (WalletId, IdOrigin),
    pub owner_id: String,
    pub currency: Currency,
    pub initial_balance: Option<Amount>,
    /// How far below zero the wallet may go, at least 0.
    pub overdraft_limit: Decimal,
    pub metadata: Option<Metadata>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOrigin {
    Given,
    Generated,
}

/// Raises or lowers one wallet.
#[derive(Debug, Clone, Serialize)]
pub struct Movement {
    pub wallet_id: WalletId,
    pub amount: Amount,
    pub details: Details,
    /// The versions that the wallet may be at (`If-Match`); no part of the fingerprint.
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Moves money from one wallet to another of the same currency.
#[derive(Debug, Clone, Serialize)]
pub struct Transfer {
    pub from: WalletId,
    pub to: WalletId,
    pub amount: Amount,
    pub details: Details,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Promises money of a wallet, to be captured later.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceHold {
    pub wallet_id: WalletId,
    /// Sent by the caller, else made for it; made ids are no part of the fingerprint.
    #[serde(serialize_with = "only_given")]
    pub hold_id: (Uuid, IdOrigin),
    pub amount: Amount,
    /// None: as long as the operator lets holds live.
    pub expiry: Option<Expiry>,
    /// None: the amount.
    pub max_capture: Option<Amount>,
    /// The wallet that captures go to; none: they leave.
    pub to: Option<WalletId>,
    pub details: Details,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// When a hold expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Seconds after the command.
    In(u32),
    At(DateTime<Utc>),
}

/// Which hold. The wallet and the destination follow from it: they are no part of the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HoldRef {
    pub id: Uuid,
    #[serde(skip)]
    pub wallet_id: WalletId,
    /// The wallet that captures go to, as far as it was known when the command was queued.
    #[serde(skip)]
    pub to: Option<WalletId>,
}

/// Changes the terms of a hold: what is none stays.
#[derive(Debug, Clone, Serialize)]
pub struct AdjustHold {
    pub hold: HoldRef,
    /// The new total, what was captured included.
    pub amount: Option<Amount>,
    pub expiry: Option<Expiry>,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Takes money of a hold.
#[derive(Debug, Clone, Serialize)]
pub struct CaptureHold {
    pub hold: HoldRef,
    /// None: what remains.
    pub amount: Option<Amount>,
    /// Gives back what then remains.
    pub is_final: bool,
    pub details: Details,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Gives back what remains of a hold.
#[derive(Debug, Clone, Serialize)]
pub struct ReleaseHold {
    pub hold: HoldRef,
    pub reason: Option<String>,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Lets a wallet do more, or less, than before.
#[derive(Debug, Clone, Serialize)]
pub struct SetStatus {
    pub wallet_id: WalletId,
    pub status: NewStatus,
    pub reason: String,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// A status that a wallet comes out of again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NewStatus {
    Active,
    Suspended,
    Frozen,
}

/// Closes a wallet for ever.
#[derive(Debug, Clone, Serialize)]
pub struct CloseWallet {
    pub wallet_id: WalletId,
    pub reason: String,
    /// The wallet that its balance goes to first.
    pub sweep_to: Option<WalletId>,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Gives a wallet other limits.
#[derive(Debug, Clone, Serialize)]
pub struct SetLimits {
    pub wallet_id: WalletId,
    /// None: as before.
    pub overdraft_limit: Option<Decimal>,
    pub reason: String,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// Gives a wallet other metadata: all of them.
#[derive(Debug, Clone, Serialize)]
pub struct SetMetadata {
    pub wallet_id: WalletId,
    pub metadata: Metadata,
    #[serde(skip)]
    pub expected_version: Option<Expected>,
}

/// The versions of which a wallet must have one; it never has one of none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected(Box<[i64]>);

impl Expected {
    pub fn any_of(versions: Vec<i64>) -> Self {
        Self(versions.into())
    }

    pub fn includes(&self, version: i64) -> bool {
        self.0.contains(&version)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(i64::to_string).collect();
        match words.is_empty() {
            true => f.write_str("none that a wallet has"),
            false => f.write_str(&words.join(" or ")),
        }
    }
}

/// What a caller may note beside an amount.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Details {
    pub description: Option<String>,
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
}

impl Op {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Transfer => "transfer",
            Self::Hold => "hold",
            Self::Adjust => "adjust",
            Self::Capture => "capture",
            Self::Release => "release",
            Self::Freeze => "freeze",
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::Close => "close",
            Self::Limits => "limits",
            Self::Metadata => "metadata",
            Self::Touch => "touch",
        }
    }
}

impl Command {
    pub fn op(&self) -> Op {
        match self {
            Self::Create(_) => Op::Create,
            Self::Credit(_) => Op::Credit,
            Self::Debit(_) => Op::Debit,
            Self::Transfer(_) => Op::Transfer,
            Self::Hold(_) => Op::Hold,
            Self::Adjust(_) => Op::Adjust,
            Self::Capture(_) => Op::Capture,
            Self::Release(_) => Op::Release,
            Self::Status(set) => set.status.op(),
            Self::Close(_) => Op::Close,
            Self::Limits(_) => Op::Limits,
            Self::Metadata(_) => Op::Metadata,
            Self::Touch(_) => Op::Touch,
        }
    }

    /// What is locked and read before the command is decided.
    pub fn footprint(&self) -> Footprint<'_> {
        let plain =
            |first, others| Footprint { first, others, needs: Needs::default(), due_max: DUE_MAX };
        match self {
            Self::Create(create) => plain(&create.id.0, vec![]),
            Self::Credit(movement) | Self::Debit(movement) => plain(&movement.wallet_id, vec![]),
            Self::Transfer(transfer) => plain(&transfer.from, vec![&transfer.to]),
            Self::Hold(place) => Footprint {
                first: &place.wallet_id,
                others: place.to.iter().collect(),
                needs: Needs { hold: Some(place.hold_id.0), open_holds: true },
                due_max: DUE_MAX,
            },
            Self::Adjust(AdjustHold { hold, .. }) | Self::Release(ReleaseHold { hold, .. }) => {
                hold.footprint(vec![])
            }
            Self::Capture(capture) => capture.hold.footprint(capture.hold.to.iter().collect()),
            Self::Status(set) => plain(&set.wallet_id, vec![]),
            Self::Close(close) => Footprint {
                needs: Needs { hold: None, open_holds: true },
                ..plain(&close.wallet_id, close.sweep_to.iter().collect())
            },
            Self::Limits(set) => plain(&set.wallet_id, vec![]),
            Self::Metadata(set) => plain(&set.wallet_id, vec![]),
            Self::Touch(wallet) => Footprint { due_max: SWEEP_MAX, ..plain(wallet, vec![]) },
        }
    }

    /// The hold that the command names by its id alone, to be found before it is queued.
    pub fn hold_mut(&mut self) -> Option<&mut HoldRef> {
        match self {
            Self::Adjust(adjust) => Some(&mut adjust.hold),
            Self::Capture(capture) => Some(&mut capture.hold),
            Self::Release(release) => Some(&mut release.hold),
            _ => None,
        }
    }

    /// The wallet that decides the command's lane: the first of its footprint.
    pub fn wallet_id(&self) -> &WalletId {
        self.footprint().first
    }

    /// Whether the command opens a wallet whose id was generated: no retry can name it.
    pub fn has_generated_id(&self) -> bool {
        matches!(self, Self::Create(create) if create.id.1 == IdOrigin::Generated)
    }

    /// About how many bytes the command adds to a batch.
    pub fn weight(&self) -> usize {
        let of = |details: &Details| {
            details.description.as_ref().map_or(0, String::len)
                + details.metadata.as_ref().map_or(0, |m| m.as_str().len())
        };
        1024 + match self {
            Self::Create(create) => create.metadata.as_ref().map_or(0, |m| m.as_str().len()),
            Self::Credit(movement) | Self::Debit(movement) => of(&movement.details),
            Self::Transfer(transfer) => 2 * of(&transfer.details),
            Self::Hold(place) => of(&place.details),
            Self::Capture(capture) => 2 * of(&capture.details),
            Self::Release(release) => release.reason.as_ref().map_or(0, String::len),
            Self::Status(set) => set.reason.len(),
            Self::Close(close) => 2 * close.reason.len(),
            Self::Limits(set) => set.reason.len(),
            Self::Metadata(set) => 2 * set.metadata.as_str().len(),
            Self::Adjust(_) | Self::Touch(_) => 0,
        }
    }
}

impl NewStatus {
    pub fn status(self) -> Status {
        match self {
            Self::Active => Status::Active,
            Self::Suspended => Status::Suspended,
            Self::Frozen => Status::Frozen,
        }
    }

    fn op(self) -> Op {
        match self {
            Self::Active => Op::Activate,
            Self::Suspended => Op::Suspend,
            Self::Frozen => Op::Freeze,
        }
    }
}

impl HoldRef {
    fn footprint<'a>(&'a self, others: Vec<&'a WalletId>) -> Footprint<'a> {
        let needs = Needs { hold: Some(self.id), ..Needs::default() };
        Footprint { first: &self.wallet_id, others, needs, due_max: DUE_MAX }
    }
}

fn only_given<T: Serialize, S: serde::Serializer>(
    (id, origin): &(T, IdOrigin),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match origin {
        IdOrigin::Given => serializer.serialize_some(id),
        IdOrigin::Generated => serializer.serialize_none(),
    }
}
