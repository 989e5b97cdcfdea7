//! Holds: money is promised, and captured or given back later. A hold never brings what is available
//! below zero, and closes once.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use rust_decimal::Decimal;

use super::transfer::same_currency;
use super::{Rules, Use, at_version, in_scale, next, still, told};
use crate::wallet::{
    AdjustHold, CaptureHold, Change, ChangeType, ClosedBy, Details, EventType, Expected, Expiry,
    Facts, Hold, HoldRef, HoldStatus, HoldTaken, HoldTerms, NewEvent, PlaceHold, Rejection,
    ReleaseHold, Status, Wallet, WalletState,
};

/// Open holds of one wallet.
const OPEN_HOLDS_MAX: i64 = 10_000;
/// No hold lives for longer.
const LIFE_MAX: TimeDelta = TimeDelta::days(366);

impl<'a> Rules<'a> {
    pub(super) fn place_hold(&self, place: &PlaceHold) -> Result<Vec<NewEvent>, Rejection> {
        let PlaceHold { wallet_id, hold_id: (id, _), details, .. } = place;
        let wallet = self.usable(wallet_id, place.expected_version.as_ref(), Use::Out)?;
        let to = place.to.as_ref();
        if to == Some(wallet_id) {
            return Err(Rejection::SameWallet);
        }
        if let Some(to) = to {
            let missing = || Rejection::WalletNotFound { wallet: to.clone() };
            let destination = self.world.wallet(to).ok_or_else(missing)?;
            // What it may take is asked again when money comes.
            if destination.status == Status::Closed {
                return Err(Rejection::WalletClosed { wallet: to.clone() });
            }
            same_currency(wallet, destination)?;
        }
        if self.world.hold(*id).is_some() {
            return Err(Rejection::HoldExists { hold: *id });
        }
        if self.world.open_holds(wallet_id) >= OPEN_HOLDS_MAX {
            return Err(Rejection::TooManyHolds { max: OPEN_HOLDS_MAX });
        }
        let amount = in_scale(place.amount, wallet.currency)?;
        let max_capture = match place.max_capture {
            Some(most) => in_scale(most, wallet.currency)?,
            None => amount,
        };
        let expires_at = self.expiry(place.expiry.as_ref())?;
        if amount > wallet.available() {
            return Err(self.insufficient(wallet, amount));
        }
        let changed = still(wallet, |after| after.held_balance += amount);
        let facts = Facts::Hold(Box::new(HoldTerms {
            hold_id: *id,
            amount,
            previous_amount: None,
            max_capture,
            expires_at,
            to: to.cloned(),
            reserved: Vec::new(),
        }));
        Ok(vec![next(wallet, EventType::WalletHoldPlaced, facts, changed, details)])
    }

    pub(super) fn adjust_hold(&self, adjust: &AdjustHold) -> Result<Vec<NewEvent>, Rejection> {
        let expected = adjust.expected_version.as_ref();
        if adjust.amount.is_none() && adjust.expiry.is_none() {
            let rule = "or expiresIn or expiresAt is required".to_owned();
            return Err(Rejection::MissingField { field: "amount".to_owned(), rule });
        }
        let (wallet, hold) = self.open_hold(&adjust.hold, expected, Use::Out)?;
        let amount = match adjust.amount {
            Some(amount) => in_scale(amount, wallet.currency)?,
            None => hold.amount,
        };
        if adjust.amount.is_some() && amount <= hold.captured {
            return Err(Rejection::BelowCaptured { amount, captured: hold.captured });
        }
        let expires_at = match &adjust.expiry {
            None => hold.expires_at,
            expiry => self.expiry(expiry.as_ref())?,
        };
        let remaining = (amount - hold.captured).max(wallet.currency.scaled(Decimal::ZERO));
        let rise = remaining - hold.remaining();
        if rise > wallet.available() {
            return Err(self.insufficient(wallet, rise));
        }
        let changed = still(wallet, |after| after.held_balance += rise);
        let facts = Facts::Hold(Box::new(HoldTerms {
            hold_id: hold.id,
            amount,
            previous_amount: Some(hold.amount),
            max_capture: hold.max_capture.max(amount),
            expires_at,
            to: hold.to.clone(),
            reserved: hold.reserved.clone(),
        }));
        let details = Details { reference: hold.reference.clone(), ..Details::default() };
        Ok(vec![next(wallet, EventType::WalletHoldAdjusted, facts, changed, &details)])
    }

    pub(super) fn capture_hold(&self, capture: &CaptureHold) -> Result<Vec<NewEvent>, Rejection> {
        let expected = capture.expected_version.as_ref();
        let (wallet, hold) = self.open_hold(&capture.hold, expected, Use::Captured)?;
        let remaining = hold.remaining();
        let amount = match capture.amount {
            Some(amount) => in_scale(amount, wallet.currency)?,
            None => remaining,
        };
        let left = hold.max_capture - hold.captured;
        if amount > left || amount.is_zero() {
            return Err(Rejection::AmountExceedsHold { amount, left });
        }
        let over = (amount - remaining).max(wallet.currency.scaled(Decimal::ZERO));
        if over > wallet.available() {
            return Err(self.insufficient(wallet, over));
        }
        let still_held = remaining - amount.min(remaining);
        let released =
            if capture.is_final { still_held } else { wallet.currency.scaled(Decimal::ZERO) };
        let before = wallet.state();
        let after = WalletState {
            balance: self.moved(wallet, amount, ChangeType::Debit)?,
            held_balance: wallet.held_balance - amount.min(remaining) - released,
            ..before
        };
        let direction = ChangeType::Debit;
        let change = Change { previous_balance: wallet.balance, amount, direction };
        let facts = Facts::Capture(Box::new(HoldTaken {
            hold_id: hold.id,
            captured_total: hold.captured + amount,
            released,
            remaining: still_held - released,
            status: if capture.is_final { HoldStatus::Captured } else { HoldStatus::Open },
            to: hold.to.clone(),
        }));
        let details = of_hold(&capture.details, hold);
        let changed = (change, told(after, wallet.overdraft_limit));
        let mut events =
            vec![next(wallet, EventType::WalletHoldCaptured, facts, changed, &details)];
        if hold.to.is_some() {
            events.push(self.captured_into(&capture.hold, hold, amount, &details)?);
        }
        Ok(events)
    }

    /// The other side of a capture whose hold has a destination.
    fn captured_into(
        &self,
        named: &HoldRef,
        hold: &Hold,
        amount: Decimal,
        details: &Details,
    ) -> Result<NewEvent, Rejection> {
        let Some(to) = hold.to.as_ref().filter(|to| named.to.as_ref() == Some(to)) else {
            return Err(Rejection::Unlocked { hold: hold.id });
        };
        let destination = self.usable(to, None, Use::In)?;
        let direction = ChangeType::Credit;
        let balance = self.moved(destination, amount, direction)?;
        let before = destination.state();
        let available_balance = before.available_balance.map(|a| a + amount);
        let after = WalletState { balance, available_balance, ..before };
        let change = Change { previous_balance: destination.balance, amount, direction };
        let facts = Facts::Transfer { other: hold.wallet_id.clone() };
        let kind = EventType::WalletTransferCompleted;
        Ok(next(destination, kind, facts, (change, after), details))
    }

    pub(super) fn release_hold(&self, release: &ReleaseHold) -> Result<Vec<NewEvent>, Rejection> {
        let expected = release.expected_version.as_ref();
        let (wallet, hold) = self.open_hold(&release.hold, expected, Use::Released)?;
        let released = hold.remaining();
        let changed = still(wallet, |after| after.held_balance -= released);
        let facts = Facts::Release(Box::new(HoldTaken {
            hold_id: hold.id,
            captured_total: hold.captured,
            released,
            remaining: wallet.currency.scaled(Decimal::ZERO),
            status: match hold.captured.is_zero() {
                true => HoldStatus::Released,
                false => HoldStatus::Captured,
            },
            to: None,
        }));
        let details = Details {
            description: release.reason.clone(),
            reference: hold.reference.clone(),
            metadata: None,
        };
        Ok(vec![next(wallet, EventType::WalletHoldReleased, facts, changed, &details)])
    }

    /// The hold and its wallet, where it is open, and the wallet may be used like this.
    fn open_hold(
        &self,
        named: &HoldRef,
        expected: Option<&Expected>,
        purpose: Use,
    ) -> Result<(&'a Wallet, &'a Hold), Rejection> {
        let missing = || Rejection::HoldNotFound { hold: named.id };
        let hold = self.world.hold(named.id).filter(|hold| hold.wallet_id == named.wallet_id);
        let hold = hold.ok_or_else(missing)?;
        let wallet = self.world.wallet(&hold.wallet_id).ok_or_else(missing)?;
        at_version(wallet, expected)?;
        let Some(closed_by) = hold.closed_by.filter(|_| !hold.is_open()) else {
            return Ok((self.usable(&wallet.id, None, purpose)?, hold));
        };
        let (hold, status, closed_at) = (hold.id, hold.status, hold.updated_at);
        Err(match closed_by {
            ClosedBy::Expiry => Rejection::HoldExpired { hold, status, closed_by, closed_at },
            _ => Rejection::HoldClosed { hold, status, closed_by, closed_at },
        })
    }

    /// When a hold expires: ahead, and within what is allowed.
    fn expiry(&self, expiry: Option<&Expiry>) -> Result<DateTime<Utc>, Rejection> {
        let at = self.world.at(&self.command.footprint());
        let ttl = TimeDelta::from_std(self.policy.hold_ttl).unwrap_or(LIFE_MAX);
        let (field, expires_at) = match expiry {
            None => ("expiresIn", at.checked_add_signed(ttl)),
            Some(Expiry::In(seconds)) => {
                ("expiresIn", at.checked_add_signed(TimeDelta::seconds(i64::from(*seconds))))
            }
            Some(Expiry::At(moment)) => {
                ("expiresAt", moment.duration_trunc(TimeDelta::milliseconds(1)).ok())
            }
        };
        let fits = |moment: &DateTime<Utc>| *moment > at && *moment - at <= LIFE_MAX;
        let rule = "must lie ahead, and by 366 days at most";
        let refused = || Rejection::InvalidField { field: field.to_owned(), rule: rule.to_owned() };
        expires_at.filter(fits).ok_or_else(refused)
    }
}

/// The caller's own words, else the reference of the hold.
fn of_hold(details: &Details, hold: &Hold) -> Details {
    let reference = details.reference.clone().or_else(|| hold.reference.clone());
    Details { reference, ..details.clone() }
}
