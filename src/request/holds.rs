//! The bodies of commands on holds.

use uuid::Uuid;

use super::body::{Body, body, property};
use super::values::{Description, HoldId, Seconds, Switch, Time};
use super::{DetailsBody, Fields};
use crate::wallet::{
    AdjustHold, Amount, CaptureHold, Command, Expected, Expiry, HoldRef, IdOrigin, PlaceHold,
    Rejection, ReleaseHold, WalletId,
};
use utoipa::openapi::schema::ObjectBuilder;

body! {
    /// Money to be put on hold.
    pub struct HoldBody {
        amount as "amount": Amount,
        /// Made when left out.
        hold_id as "holdId": Option<HoldId>,
        /// Seconds until it expires; as long as the service lets holds live when both are left out.
        expires_in as "expiresIn": Option<Seconds>,
        /// The moment from which on it is expired, instead of `expiresIn`.
        expires_at as "expiresAt": Option<Time>,
        /// The most that may be captured, at least the amount; the amount when left out.
        max_capture as "maxCapture": Option<Amount>,
        /// The wallet that captures go to; they leave when left out.
        to_wallet_id as "toWalletId": Option<WalletId>,
        ..details: DetailsBody,
    }
}

body! {
    /// New terms of a hold: what is left out stays.
    pub struct AdjustBody {
        /// The new total, more than what is captured.
        amount as "amount": Option<Amount>,
        /// Seconds from now until it expires.
        expires_in as "expiresIn": Option<Seconds>,
        /// The moment from which on it is expired, instead of `expiresIn`.
        expires_at as "expiresAt": Option<Time>,
    }
}

body! {
    /// What to take of a hold.
    pub struct CaptureBody {
        /// What remains, when left out.
        amount as "amount": Option<Amount>,
        /// Gives back what then remains; true when left out.
        is_final as "final": Option<Switch>,
        ..details: DetailsBody,
    }
}

body! {
    /// Why a hold is given back.
    pub struct ReleaseBody {
        reason as "reason": Option<Description>,
    }
}

/// The body of a route that has a hold in its path, among other operations.
#[derive(Debug)]
pub(super) struct OnHold<B> {
    pub hold: HoldRef,
    pub body: B,
}

impl<B: Body> Body for OnHold<B> {
    fn take(fields: &mut Fields) -> Option<Self> {
        let wallet_id = fields.take("walletId");
        let hold_id = fields.take::<HoldId>("holdId");
        let body = B::take(fields);
        let hold = HoldRef { id: hold_id?.0, wallet_id: wallet_id?, to: None };
        Some(Self { hold, body: body? })
    }

    fn describe(object: ObjectBuilder) -> ObjectBuilder {
        let object = property::<WalletId>(object, "walletId", &["The wallet of the hold."]);
        B::describe(property::<HoldId>(object, "holdId", &[]))
    }
}

impl HoldBody {
    /// Puts money of `wallet_id` on hold; `make_id` gives an id where the caller gives none.
    pub fn command(
        self,
        wallet_id: WalletId,
        expected_version: Option<Expected>,
        make_id: impl FnOnce() -> WalletId,
    ) -> Result<Command, Rejection> {
        let hold_id = match self.hold_id {
            Some(HoldId(id)) => (id, IdOrigin::Given),
            None => (id_of(&make_id()), IdOrigin::Generated),
        };
        if self.to_wallet_id.as_ref() == Some(&wallet_id) {
            return Err(Rejection::SameWallet);
        }
        if self.max_capture.is_some_and(|most| most.value() < self.amount.value()) {
            return Err(invalid("maxCapture", "must not be below the amount"));
        }
        Ok(Command::Hold(PlaceHold {
            wallet_id,
            hold_id,
            amount: self.amount,
            expiry: expiry(self.expires_in, self.expires_at)?,
            max_capture: self.max_capture,
            to: self.to_wallet_id,
            details: self.details.into(),
            expected_version,
        }))
    }
}

impl AdjustBody {
    pub fn command(
        self,
        hold: HoldRef,
        expected_version: Option<Expected>,
    ) -> Result<Command, Rejection> {
        let expiry = expiry(self.expires_in, self.expires_at)?;
        Ok(Command::Adjust(AdjustHold { hold, amount: self.amount, expiry, expected_version }))
    }
}

impl CaptureBody {
    pub fn command(self, hold: HoldRef, expected_version: Option<Expected>) -> Command {
        Command::Capture(CaptureHold {
            hold,
            amount: self.amount,
            is_final: self.is_final.is_none_or(|switch| switch.0),
            details: self.details.into(),
            expected_version,
        })
    }
}

impl ReleaseBody {
    pub fn command(self, hold: HoldRef, expected_version: Option<Expected>) -> Command {
        let reason = self.reason.map(|reason| reason.0);
        Command::Release(ReleaseHold { hold, reason, expected_version })
    }
}

fn expiry(
    expires_in: Option<Seconds>,
    expires_at: Option<Time>,
) -> Result<Option<Expiry>, Rejection> {
    match (expires_in, expires_at) {
        (Some(_), Some(_)) => Err(invalid("expiresAt", "cannot stand beside expiresIn")),
        (Some(seconds), None) => Ok(Some(Expiry::In(seconds.0))),
        (None, at) => Ok(at.map(|at| Expiry::At(at.0))),
    }
}

fn invalid(field: &str, rule: &str) -> Rejection {
    Rejection::InvalidField { field: field.to_owned(), rule: rule.to_owned() }
}

/// A made id is a UUID already.
fn id_of(made: &WalletId) -> Uuid {
    let text = made.as_str();
    Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
}
