//! A statement of a wallet: the balance at the beginning of a period, what moved, and the balance at its end,
//! line by line, so that one of any length takes no more memory than one of a day. Pure.
//!
//! Each line is held against the one before, and the last against the balance that is known from the event that ends
//! the period: what does not add up is a [`Mismatch`], and the statement ends without an end.

mod forms;
mod json;
mod page;
mod table;

use chrono::{DateTime, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use crate::envelope::timestamp;
use crate::ledger::{Posting, Side, Totals, TransactionType, postings};
use crate::wallet::{Currency, Event, WalletId};

pub use forms::Form;
pub use json::StatementView;

/// What stands above the lines.
#[derive(Debug, Clone)]
pub struct Heading {
    pub wallet_id: WalletId,
    pub owner_id: String,
    pub currency: Currency,
    pub basis: &'static str,
    pub zone: TimeZone,
    /// The first moment that counts, and the first that does not.
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// The wallet's versions before the period, and at its end.
    pub opening_version: i64,
    pub closing_version: i64,
    pub opening_balance: Decimal,
    pub closing_balance: Decimal,
    /// Nothing can be added any more: no transaction is running that began in the period.
    pub is_final: bool,
}

/// One entry of the wallet.
#[derive(Debug)]
pub struct Line<'e> {
    pub event: &'e Event,
    pub posting: Posting,
}

/// A statement on its way: how far it has come, and what it came to.
#[derive(Debug)]
pub struct Statement {
    pub heading: Heading,
    version: i64,
    balance: Decimal,
    totals: Vec<(TransactionType, Totals)>,
}

/// The lines do not lead from one balance to the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("version {found} comes where version {expected} should")]
    Version { expected: i64, found: i64 },
    #[error("version {version} begins or ends with another balance than the entries come to")]
    Balance { version: i64 },
    #[error("the entries come to {sum}, and the balance at the end is {closing}")]
    Closing { sum: Decimal, closing: Decimal },
}

impl Statement {
    pub fn new(heading: Heading) -> Self {
        let (version, balance) = (heading.opening_version, heading.opening_balance);
        Self { heading, version, balance, totals: Vec::new() }
    }

    /// The version that it has come to.
    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn is_at_its_end(&self) -> bool {
        self.version >= self.heading.closing_version
    }

    /// The entries of the wallet's next event.
    pub fn take<'e>(&mut self, event: &'e Event) -> Result<Vec<Line<'e>>, Mismatch> {
        let expected = self.version + 1;
        if event.version != expected {
            return Err(Mismatch::Version { expected, found: event.version });
        }
        let mismatch = Mismatch::Balance { version: event.version };
        let mut lines = Vec::new();
        for posting in postings(event) {
            if posting.balance_before != self.balance {
                return Err(mismatch);
            }
            self.balance = match posting.side {
                Side::Credit => self.balance + posting.amount,
                Side::Debit => self.balance - posting.amount,
            };
            if posting.balance_after != self.balance {
                return Err(mismatch);
            }
            self.count(&posting);
            lines.push(Line { event, posting });
        }
        if event.body.after.balance != self.balance {
            return Err(mismatch);
        }
        self.version = event.version;
        Ok(lines)
    }

    fn count(&mut self, posting: &Posting) {
        let kind = posting.transaction_type;
        match self.totals.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, totals)) => totals.add(posting),
            None => {
                let mut totals = Totals::default();
                totals.add(posting);
                self.totals.push((kind, totals));
            }
        }
    }

    /// Holds the last line against the balance at the end, and all of them against both.
    pub fn close(&self) -> Result<Closing<'_>, Mismatch> {
        let closing = Closing { heading: &self.heading, totals: &self.totals };
        let (sum, wanted) = (self.balance, self.heading.closing_balance);
        let (opening, end) = (units(self.heading.opening_balance), units(wanted));
        let all = closing.all();
        if sum != wanted || opening + all.credits - all.debits != end {
            return Err(Mismatch::Closing { sum, closing: wanted });
        }
        Ok(closing)
    }
}

/// What stands below the lines.
#[derive(Debug)]
pub struct Closing<'s> {
    heading: &'s Heading,
    totals: &'s [(TransactionType, Totals)],
}

impl Closing<'_> {
    fn all(&self) -> Totals {
        let none = Totals::default();
        self.totals.iter().fold(none, |sum, (_, of)| Totals {
            credits: sum.credits + of.credits,
            debits: sum.debits + of.debits,
            entries: sum.entries + of.entries,
        })
    }

    /// Of each type of entry, in the order in which types are listed: its name, what it came to, and how many.
    fn by_type(&self) -> Vec<(&'static str, String, i64)> {
        let mut named: Vec<_> = self.totals.iter().collect();
        named.sort_by_key(|(kind, _)| TransactionType::ALL.iter().position(|of| of == kind));
        let text = |of: &Totals| self.text(of.credits + of.debits);
        named.into_iter().map(|(kind, of)| (kind.as_str(), text(of), of.entries)).collect()
    }

    /// Units of 10^-8 in the currency's scale: nothing finer was ever accepted.
    fn text(&self, units: i128) -> String {
        let scale = self.heading.currency.scale();
        let units = units / 10_i128.pow(8_u32.saturating_sub(scale));
        let one = 10_i128.pow(scale);
        match usize::try_from(scale) {
            Ok(places @ 1..) => format!("{}.{:0places$}", units / one, units % one),
            _ => units.to_string(),
        }
    }
}

/// A balance in units of 10^-8.
fn units(balance: Decimal) -> i128 {
    balance.mantissa() * 10_i128.pow(8_u32.saturating_sub(balance.scale()))
}

/// A moment as the clocks of the zone showed it, with their offset.
fn local_time(at: DateTime<Utc>, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC {
        return timestamp(at);
    }
    let at = jiff::Timestamp::from_millisecond(at.timestamp_millis()).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// The zone as callers name it.
fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

#[cfg(test)]
mod tests;
