//! A hold: money of a wallet that is promised, and captured or given back later.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Currency, Event, Facts, Metadata, WalletId};

/// Where a hold is in its life. It closes as captured where anything of it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum HoldStatus {
    Open,
    Captured,
    Released,
    Expired,
}

/// What closed a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ClosedBy {
    Capture,
    Release,
    Expiry,
}

/// A part of an amount that comes out of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Slice {
    pub grant_id: Uuid,
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub amount: Decimal,
}

/// One hold as the events of its wallet left it. Decimals are in the currency's scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    pub id: Uuid,
    pub wallet_id: WalletId,
    pub currency: Currency,
    /// What is promised in all, what was captured of it included.
    pub amount: Decimal,
    /// The most that may be captured, at least the amount.
    pub max_capture: Decimal,
    pub captured: Decimal,
    pub released: Decimal,
    pub status: HoldStatus,
    pub closed_by: Option<ClosedBy>,
    /// From this moment on it is expired.
    pub expires_at: DateTime<Utc>,
    /// The wallet that captures go to; none: they leave.
    pub to: Option<WalletId>,
    pub reserved: Vec<Slice>,
    pub description: Option<String>,
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    /// The wallet's version that placed it.
    pub place_version: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The terms of a hold from an event on: it was placed, or they were changed.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldTerms {
    pub hold_id: Uuid,
    pub amount: Decimal,
    /// None: it was placed.
    pub previous_amount: Option<Decimal>,
    pub max_capture: Decimal,
    pub expires_at: DateTime<Utc>,
    pub to: Option<WalletId>,
    pub reserved: Vec<Slice>,
}

/// What an event took or gave back of a hold, and how it leaves it.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldTaken {
    pub hold_id: Uuid,
    /// With what was captured before.
    pub captured_total: Decimal,
    /// Given back by this event.
    pub released: Decimal,
    /// What is still on hold.
    pub remaining: Decimal,
    pub status: HoldStatus,
    pub to: Option<WalletId>,
}

impl HoldStatus {
    pub const ALL: [Self; 4] = [Self::Open, Self::Captured, Self::Released, Self::Expired];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Captured => "captured",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl ClosedBy {
    pub const ALL: [Self; 3] = [Self::Capture, Self::Release, Self::Expiry];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Release => "release",
            Self::Expiry => "expiry",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == name)
    }
}

impl Hold {
    pub fn is_open(&self) -> bool {
        self.status == HoldStatus::Open
    }

    /// What is on hold for it now.
    pub fn remaining(&self) -> Decimal {
        let left = self.amount - self.captured;
        match self.is_open() {
            true => left.max(self.currency.scaled(Decimal::ZERO)),
            false => self.currency.scaled(Decimal::ZERO),
        }
    }

    /// The hold that an event places; none for any other event.
    pub fn placed(event: &Event) -> Option<Self> {
        let Facts::Hold(terms) = &event.body.facts else { return None };
        if terms.previous_amount.is_some() {
            return None;
        }
        let zero = event.body.currency.scaled(Decimal::ZERO);
        Some(Self {
            id: terms.hold_id,
            wallet_id: event.wallet_id.clone(),
            currency: event.body.currency,
            amount: terms.amount,
            max_capture: terms.max_capture,
            captured: zero,
            released: zero,
            status: HoldStatus::Open,
            closed_by: None,
            expires_at: terms.expires_at,
            to: terms.to.clone(),
            reserved: terms.reserved.clone(),
            description: event.body.reason.clone(),
            reference: event.body.reference.clone(),
            metadata: event.body.metadata.clone(),
            place_version: event.version,
            created_at: event.created_at,
            updated_at: event.created_at,
        })
    }

    /// Takes what an event of this hold did to it.
    pub fn apply(&mut self, event: &Event) {
        match &event.body.facts {
            Facts::Hold(terms) => {
                self.amount = terms.amount;
                self.max_capture = terms.max_capture;
                self.expires_at = terms.expires_at;
                self.reserved.clone_from(&terms.reserved);
            }
            Facts::Capture(taken) => self.take(taken, ClosedBy::Capture),
            Facts::Release(taken) => self.take(taken, ClosedBy::Release),
            Facts::Expiry(taken) => self.take(taken, ClosedBy::Expiry),
            _ => return,
        }
        self.updated_at = event.created_at;
    }

    fn take(&mut self, taken: &HoldTaken, by: ClosedBy) {
        self.captured = taken.captured_total;
        self.released += taken.released;
        self.status = taken.status;
        if !self.is_open() {
            self.closed_by = Some(by);
            self.reserved.clear();
        }
    }
}

impl Facts {
    /// The hold that the event is about, where it is about one.
    pub fn hold_id(&self) -> Option<Uuid> {
        match self {
            Self::Hold(terms) => Some(terms.hold_id),
            Self::Capture(taken) | Self::Release(taken) | Self::Expiry(taken) => {
                Some(taken.hold_id)
            }
            _ => None,
        }
    }
}
