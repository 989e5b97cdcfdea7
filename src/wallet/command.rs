//! What callers may ask of wallets.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{Amount, Currency, Metadata, WalletId};

/// One request to change wallets. Its serialized form is what an idempotency key's fingerprint
/// covers: equal requests serialize equally, whatever their JSON looked like.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Command {
    Create(CreateWallet),
    Credit(Movement),
    Debit(Movement),
    Transfer(Transfer),
}

/// Which command: the `op` of a bulk operation and of an inbound command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Credit,
    Debit,
    Transfer,
}

/// All that a command needs to be decided. What it names is in the [`World`](super::World) by then.
#[derive(Debug, Clone)]
pub struct Footprint<'a> {
    first: &'a WalletId,
    others: Vec<&'a WalletId>,
}

impl<'a> Footprint<'a> {
    /// The wallets to lock. Answers show them in this order, and keys keep their versions in it.
    pub fn wallets(&self) -> impl Iterator<Item = &'a WalletId> {
        std::iter::once(self.first).chain(self.others.iter().copied())
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
        }
    }

    /// What is locked and read before the command is decided.
    pub fn footprint(&self) -> Footprint<'_> {
        let (first, others) = match self {
            Self::Create(create) => (&create.id.0, vec![]),
            Self::Credit(movement) | Self::Debit(movement) => (&movement.wallet_id, vec![]),
            Self::Transfer(transfer) => (&transfer.from, vec![&transfer.to]),
        };
        Footprint { first, others }
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
        }
    }
}

fn only_given<S: serde::Serializer>(
    (id, origin): &(WalletId, IdOrigin),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match origin {
        IdOrigin::Given => serializer.serialize_some(id),
        IdOrigin::Generated => serializer.serialize_none(),
    }
}
