//! The tool's own account of what it did: one balance and one count of entries per wallet.
//!
//! Only definite answers are booked. A wallet with an operation whose outcome stayed unknown is
//! marked, and its balance is then held against its ledger only.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rust_decimal::Decimal;

use super::plan::{Kind, Operation};

/// What every new wallet starts with, in cents.
pub const OPENING_CENTS: i64 = 10_000;

/// One wallet as the tool knows it.
#[derive(Debug)]
pub struct Account {
    pub id: String,
    cents: AtomicI64,
    entries: AtomicI64,
    uncertain: AtomicBool,
}

/// All wallets of the run.
#[derive(Debug)]
pub struct Books {
    pub accounts: Vec<Account>,
    opened: i64,
    credited: AtomicI64,
    debited: AtomicI64,
}

impl Account {
    pub fn new(id: String, cents: i64, entries: i64) -> Self {
        Self {
            id,
            cents: AtomicI64::new(cents),
            entries: AtomicI64::new(entries),
            uncertain: AtomicBool::new(false),
        }
    }

    /// Balance and number of entries that the wallet must have; none where that is not known.
    pub fn expected(&self) -> Option<(Decimal, i64)> {
        let known = !self.uncertain.load(Ordering::Relaxed);
        let cents = self.cents.load(Ordering::Relaxed);
        known.then(|| (Decimal::new(cents, 2), self.entries.load(Ordering::Relaxed)))
    }

    fn book(&self, cents: i64) {
        self.cents.fetch_add(cents, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
    }
}

impl Books {
    pub fn new(accounts: Vec<Account>) -> Self {
        let opened = accounts.iter().map(|account| account.cents.load(Ordering::Relaxed)).sum();
        Self { accounts, opened, credited: AtomicI64::new(0), debited: AtomicI64::new(0) }
    }

    pub fn account(&self, number: u64) -> Option<&Account> {
        self.accounts.get(usize::try_from(number).ok()?)
    }

    /// Books an operation that the service answered as done.
    pub fn apply(&self, operation: &Operation) {
        let (wallet, other) = (self.account(operation.wallet), self.account(operation.other));
        let (Some(wallet), Some(other)) = (wallet, other) else { return };
        let cents = operation.cents;
        match operation.kind {
            Kind::Credit => {
                wallet.book(cents);
                self.credited.fetch_add(cents, Ordering::Relaxed);
            }
            Kind::Debit => {
                wallet.book(-cents);
                self.debited.fetch_add(cents, Ordering::Relaxed);
            }
            Kind::Transfer => {
                wallet.book(-cents);
                other.book(cents);
            }
        }
    }

    /// Marks the wallets of an operation whose outcome stayed unknown.
    pub fn doubt(&self, operation: &Operation) {
        for number in [operation.wallet, operation.other] {
            if let Some(account) = self.account(number) {
                account.uncertain.store(true, Ordering::Relaxed);
            }
        }
    }

    /// What was there before, credited, debited.
    pub fn totals(&self) -> [Decimal; 3] {
        [
            Decimal::new(self.opened, 2),
            Decimal::new(self.credited.load(Ordering::Relaxed), 2),
            Decimal::new(self.debited.load(Ordering::Relaxed), 2),
        ]
    }

    pub fn uncertain(&self) -> usize {
        self.accounts.iter().filter(|account| account.expected().is_none()).count()
    }
}

/// `12.30` as cents.
pub fn cents(balance: Decimal) -> Option<i64> {
    let cents = balance.checked_mul(Decimal::ONE_HUNDRED)?;
    i64::try_from(cents).ok().filter(|whole| Decimal::from(*whole) == cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_moves_money_and_makes_none() {
        let open = |id: &str| Account::new(id.to_owned(), OPENING_CENTS, 1);
        let books = Books::new(vec![open("a"), open("b")]);
        let operation = Operation { kind: Kind::Transfer, wallet: 0, other: 1, cents: 250 };
        books.apply(&operation);
        assert_eq!(books.accounts[0].expected(), Some((Decimal::new(9_750, 2), 2)));
        assert_eq!(books.accounts[1].expected(), Some((Decimal::new(10_250, 2), 2)));
        assert_eq!(books.totals(), [Decimal::new(20_000, 2), Decimal::ZERO, Decimal::ZERO]);
        books.doubt(&operation);
        assert_eq!(books.uncertain(), 2);
    }

    #[test]
    fn only_whole_cents_are_cents() {
        assert_eq!(cents("12.30".parse().unwrap()), Some(1_230));
        assert_eq!(cents("0.001".parse().unwrap()), None);
    }
}
