//! Double entry, pure: one event → entries that sum to zero.
//!
//! Wallets are what we owe their owners, so a credit raises a wallet with a CREDIT entry and takes
//! a DEBIT on `external`, the outside world. Between the two events of a transfer the money stands
//! on `transfers_in_flight`.

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::wallet::{ChangeType, Event, EventKind, Metadata, WalletId};

/// Where money stands. System accounts have no row: no command queues for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// The wallet of the event.
    Wallet,
    /// The outside world, where money comes from and goes to.
    External,
    /// Transfers between their two events.
    TransfersInFlight,
}

/// One movement of an event's money; those of an event sum to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    pub account: Account,
    pub side: Side,
    /// Greater than zero, in the event's currency.
    pub amount: Decimal,
}

/// The side of the books that an entry stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Debit,
    Credit,
}

/// What an entry is to its wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionType {
    Credit,
    Debit,
    TransferOut,
    TransferIn,
}

/// One immutable line of the books; those of an event sum to zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Derived from event and leg: a rebuilt ledger has the same ids.
    pub id: Uuid,
    pub account: Account,
    /// Set on the wallet's own leg only.
    pub wallet_id: Option<WalletId>,
    pub related_wallet_id: Option<String>,
    pub transaction_type: TransactionType,
    pub side: Side,
    /// Greater than zero.
    pub amount: Decimal,
    pub currency: &'static str,
    /// Before and after, on the wallet's own leg only.
    pub balances: Option<(Decimal, Decimal)>,
    pub description: Option<String>,
    /// The caller's reference, else the transaction's or transfer's id.
    pub reference_id: String,
    pub metadata: Option<Metadata>,
    pub leg: i16,
}

impl Account {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::External => "external",
            Self::TransfersInFlight => "transfers_in_flight",
        }
    }
}

/// What entries of one wallet add to its totals: in units of 10^-8, the last decimal that an amount has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub credits: i128,
    pub debits: i128,
    pub entries: i64,
}

impl Totals {
    const DECIMALS: u32 = 8;

    /// Counts an entry that is the wallet's own.
    pub fn add(&mut self, entry: &Entry) {
        let (mantissa, scale) = (entry.amount.mantissa(), entry.amount.scale());
        let units = match Self::DECIMALS.checked_sub(scale) {
            Some(missing) => mantissa.saturating_mul(10_i128.pow(missing)),
            // Postgres keeps no more of them either.
            None => mantissa / 10_i128.pow(scale - Self::DECIMALS),
        };
        match entry.side {
            Side::Credit => self.credits = self.credits.saturating_add(units),
            Side::Debit => self.debits = self.debits.saturating_add(units),
        }
        self.entries += 1;
    }

    /// Units as decimal text.
    pub fn text(units: i128) -> String {
        let one = 10_i128.pow(Self::DECIMALS);
        format!("{}.{:08}", units / one, units % one)
    }
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debit => "DEBIT",
            Self::Credit => "CREDIT",
        }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Debit => Self::Credit,
            Self::Credit => Self::Debit,
        }
    }
}

impl TransactionType {
    pub const ALL: [Self; 4] = [Self::Credit, Self::Debit, Self::TransferOut, Self::TransferIn];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "CREDIT",
            Self::Debit => "DEBIT",
            Self::TransferOut => "TRANSFER_OUT",
            Self::TransferIn => "TRANSFER_IN",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How an event moves money: none for a creation, else the wallet's posting and its counterpart.
pub fn postings(event: &Event) -> Vec<Posting> {
    let counterpart = match event.body.kind {
        EventKind::Created { .. } => return Vec::new(),
        EventKind::Credited | EventKind::Debited => Account::External,
        EventKind::TransferInitiated { .. } | EventKind::TransferCompleted { .. } => {
            Account::TransfersInFlight
        }
    };
    let amount = event.body.change.amount;
    let side = match event.body.change.direction {
        ChangeType::Credit => Side::Credit,
        ChangeType::Debit => Side::Debit,
    };
    vec![
        Posting { account: Account::Wallet, side, amount },
        Posting { account: counterpart, side: side.opposite(), amount },
    ]
}

/// The entries of one event: a line for each of its postings, numbered as legs.
pub fn entries(event: &Event) -> Vec<Entry> {
    let body = &event.body;
    let (transaction_type, related) = match &body.kind {
        EventKind::Created { .. } => return Vec::new(),
        EventKind::Credited => (TransactionType::Credit, None),
        EventKind::Debited => (TransactionType::Debit, None),
        EventKind::TransferInitiated { to } => (TransactionType::TransferOut, Some(to)),
        EventKind::TransferCompleted { from } => (TransactionType::TransferIn, Some(from)),
    };
    let reference = || event.transaction_id.to_string();
    let entry = |(leg, posting): (i16, Posting)| {
        // What the caller noted stands on the wallet's own line only.
        let own = posting.account == Account::Wallet;
        Entry {
            id: Uuid::new_v5(&event.event_id, &leg.to_be_bytes()),
            account: posting.account,
            wallet_id: own.then(|| event.wallet_id.clone()),
            related_wallet_id: related.filter(|_| own).map(|id| id.as_str().to_owned()),
            transaction_type,
            side: posting.side,
            amount: posting.amount,
            currency: body.currency.code(),
            balances: own.then_some((body.change.previous_balance, body.after.balance)),
            description: body.reason.clone().filter(|_| own),
            reference_id: body.reference.clone().unwrap_or_else(reference),
            metadata: body.metadata.clone().filter(|_| own),
            leg,
        }
    };
    (0..).zip(postings(event)).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use chrono::DateTime;

    use crate::wallet::{Change, Currency, EventBody, Origin, Status, TenantId, WalletState};

    const TRANSACTION: Uuid = Uuid::from_u128(7);

    #[test]
    fn totals_are_exact_in_every_scale_and_beyond_what_an_amount_may_be() {
        let entry = |kind: EventKind, amount: &str| {
            entries(&recorded(moved(kind, Decimal::ZERO, amount.parse().unwrap(), None))).remove(0)
        };
        let mut totals = Totals::default();
        for amount in
            ["0.1", "12", "99999999999999999999.99999999", "99999999999999999999.00000001"]
        {
            totals.add(&entry(EventKind::Credited, amount));
        }
        totals.add(&entry(EventKind::Debited, "0.00000001"));
        assert_eq!(Totals::text(totals.credits), "200000000000000000011.10000000");
        assert_eq!((Totals::text(totals.debits).as_str(), totals.entries), ("0.00000001", 5));
    }

    fn recorded(body: EventBody) -> Event {
        Event {
            tenant: TenantId::default_tenant(),
            wallet_id: WalletId::stored("a"),
            version: 3,
            event_id: Uuid::from_u128(42),
            transaction_id: TRANSACTION,
            partition: 0,
            created_at: DateTime::UNIX_EPOCH,
            origin: std::sync::Arc::new(Origin::default()),
            body,
        }
    }

    fn metadata() -> Option<Metadata> {
        Metadata::parse(r#"{"order":17}"#).ok()
    }

    /// An event of a kind that moves a balance from `before` by `amount`.
    fn moved(
        kind: EventKind,
        before: Decimal,
        amount: Decimal,
        reference: Option<&str>,
    ) -> EventBody {
        let up = matches!(kind, EventKind::Credited | EventKind::TransferCompleted { .. });
        let balance = if up { before + amount } else { before - amount };
        let direction = if up { ChangeType::Credit } else { ChangeType::Debit };
        EventBody {
            kind,
            change: Change { previous_balance: before, amount, direction },
            after: WalletState {
                balance,
                held_balance: Decimal::ZERO,
                available_balance: None,
                status: Status::Active,
            },
            currency: Currency::USD,
            reason: Some("rent".to_owned()),
            reference: reference.map(str::to_owned),
            metadata: metadata(),
        }
    }

    fn moving() -> [EventKind; 4] {
        let b = WalletId::stored("b");
        [
            EventKind::Credited,
            EventKind::Debited,
            EventKind::TransferInitiated { to: b.clone() },
            EventKind::TransferCompleted { from: b },
        ]
    }

    fn cents(n: i64) -> Decimal {
        Decimal::new(n, 2)
    }

    #[test]
    fn each_type_of_event_has_its_type_of_entry_sides_and_counterpart() {
        use {Side::Credit as Cr, Side::Debit as Dr};
        let [credited, debited, out, into] = moving();
        let table = [
            (credited, TransactionType::Credit, Cr, Account::External, None),
            (debited, TransactionType::Debit, Dr, Account::External, None),
            (out, TransactionType::TransferOut, Dr, Account::TransfersInFlight, Some("b")),
            (into, TransactionType::TransferIn, Cr, Account::TransfersInFlight, Some("b")),
        ];
        for (event, transaction_type, side, counterpart, related) in table {
            let event = recorded(moved(event, cents(1000), cents(250), Some("r-1")));
            let after = event.body.after.balance;
            let own = Entry {
                id: Uuid::new_v5(&event.event_id, &[0, 0]),
                account: Account::Wallet,
                wallet_id: Some(WalletId::stored("a")),
                related_wallet_id: related.map(str::to_owned),
                transaction_type,
                side,
                amount: cents(250),
                currency: "USD",
                balances: Some((cents(1000), after)),
                description: Some("rent".to_owned()),
                reference_id: "r-1".to_owned(),
                metadata: metadata(),
                leg: 0,
            };
            let other = Entry {
                id: Uuid::new_v5(&event.event_id, &[0, 1]),
                account: counterpart,
                wallet_id: None,
                related_wallet_id: None,
                side: if side == Dr { Cr } else { Dr },
                balances: None,
                description: None,
                metadata: None,
                leg: 1,
                ..own.clone()
            };
            assert_eq!(entries(&event), [own, other]);
        }
    }

    #[test]
    fn a_creation_has_no_entries() {
        let kind = EventKind::Created { owner_id: "ann".into(), overdraft_limit: Decimal::ZERO };
        let event = moved(kind, Decimal::ZERO, Decimal::ZERO, None);
        assert_eq!(entries(&recorded(event)), []);
    }

    #[test]
    fn without_a_reference_both_sides_of_a_transfer_share_its_id() {
        for kind in moving() {
            let entries = entries(&recorded(moved(kind, cents(900), cents(1), None)));
            assert!(entries.iter().all(|e| e.reference_id == TRANSACTION.to_string()));
        }
    }

    /// Pinned: a ledger rebuilt by any later version must have the ids that callers have seen.
    #[test]
    fn ids_of_entries_never_change() {
        let ids = entries(&recorded(moved(EventKind::Credited, cents(0), cents(1), None)));
        let ids: Vec<String> = ids.iter().map(|entry| entry.id.to_string()).collect();
        assert_eq!(
            ids,
            ["51f45e80-21e4-5621-84c6-44707666318f", "f9ae3b5c-353c-52c0-b49b-d40d8666d519"]
        );
    }

    proptest! {
        #[test]
        fn the_entries_of_every_event_sum_to_zero(
            kind in prop::sample::select(moving().to_vec()),
            before in -1_000_000_000_000_i64..1_000_000_000_000,
            amount in 1_i64..=1_000_000_000_000,
        ) {
            let event = recorded(moved(kind, cents(before), cents(amount), None));
            let entries = entries(&event);
            let signed = |entry: &Entry| match entry.side {
                Side::Credit => entry.amount,
                Side::Debit => -entry.amount,
            };
            prop_assert_eq!(entries.iter().map(signed).sum::<Decimal>(), Decimal::ZERO);
            prop_assert!(entries.iter().all(|entry| entry.amount > Decimal::ZERO));
            let own: Vec<&Entry> = entries.iter().filter(|e| e.wallet_id.is_some()).collect();
            prop_assert_eq!(own.len(), 1);
            let (from, to) = own[0].balances.unwrap();
            prop_assert_eq!(to - from, signed(own[0]));
            prop_assert_eq!((from, to), (cents(before), event.body.after.balance));
        }
    }
}
