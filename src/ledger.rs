//! Double entry, pure: one event → entries that sum to zero.
//!
//! Wallets are what we owe their owners, so a credit raises a wallet with a CREDIT entry and takes
//! a DEBIT on `external`, the outside world. Between the two events of a transfer the money stands
//! on `transfers_in_flight`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::wallet::{EventData, Metadata, TenantId, WalletId};

/// The account of the outside world, where money comes from and goes to.
pub const EXTERNAL: &str = "external";
/// The account of transfers between their two events.
pub const TRANSFERS_IN_FLIGHT: &str = "transfers_in_flight";
/// The account of every wallet; `wallet_id` says which.
pub const WALLET: &str = "wallet";

/// An event as it is recorded: the input of every projection.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    pub tenant: TenantId,
    pub wallet_id: WalletId,
    pub version: i64,
    pub event_id: Uuid,
    pub transaction_id: Uuid,
    pub data: EventData,
    pub created_at: DateTime<Utc>,
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
    pub account: &'static str,
    /// Set on the wallet's own leg only.
    pub wallet_id: Option<WalletId>,
    pub related_wallet_id: Option<String>,
    pub transaction_type: TransactionType,
    pub side: Side,
    /// Greater than zero.
    pub amount: Decimal,
    pub currency: String,
    /// Before and after, on the wallet's own leg only.
    pub balances: Option<(Decimal, Decimal)>,
    pub description: Option<String>,
    /// The caller's reference, else the transaction's or transfer's id.
    pub reference_id: String,
    pub metadata: Option<Metadata>,
    pub leg: i16,
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

/// The entries of one event: none for a creation, else the wallet's leg and its counterpart.
pub fn entries(event: &RecordedEvent) -> Vec<Entry> {
    let leg = match &event.data {
        EventData::WalletCreated(_) => return Vec::new(),
        EventData::WalletCredited(change) | EventData::WalletDebited(change) => Leg {
            kind: match event.data {
                EventData::WalletCredited(_) => TransactionType::Credit,
                _ => TransactionType::Debit,
            },
            balances: (change.previous_balance, change.new_balance),
            amount: change.change_amount,
            currency: &change.currency,
            description: change.reason.as_ref(),
            reference: change.reference.as_ref(),
            metadata: change.metadata.as_ref(),
            related: None,
        },
        EventData::WalletTransferInitiated(change) | EventData::WalletTransferCompleted(change) => {
            let out = matches!(event.data, EventData::WalletTransferInitiated(_));
            let (kind, related) = if out {
                (TransactionType::TransferOut, &change.to_wallet_id)
            } else {
                (TransactionType::TransferIn, &change.from_wallet_id)
            };
            Leg {
                kind,
                balances: (change.previous_balance, change.new_balance),
                amount: change.change_amount,
                currency: &change.currency,
                description: change.reason.as_ref(),
                reference: change.reference.as_ref(),
                metadata: change.metadata.as_ref(),
                related: Some(related),
            }
        }
    };
    vec![leg.entry(event, 0), leg.entry(event, 1)]
}

/// What both entries of an event share.
struct Leg<'a> {
    kind: TransactionType,
    balances: (Decimal, Decimal),
    amount: Decimal,
    currency: &'a str,
    description: Option<&'a String>,
    reference: Option<&'a String>,
    metadata: Option<&'a Metadata>,
    related: Option<&'a String>,
}

impl Leg<'_> {
    fn entry(&self, event: &RecordedEvent, leg: i16) -> Entry {
        let (wallet_side, system_account) = match self.kind {
            TransactionType::Credit => (Side::Credit, EXTERNAL),
            TransactionType::Debit => (Side::Debit, EXTERNAL),
            TransactionType::TransferOut => (Side::Debit, TRANSFERS_IN_FLIGHT),
            TransactionType::TransferIn => (Side::Credit, TRANSFERS_IN_FLIGHT),
        };
        let own = leg == 0;
        Entry {
            id: Uuid::new_v5(&event.event_id, &leg.to_be_bytes()),
            account: if own { WALLET } else { system_account },
            wallet_id: own.then(|| event.wallet_id.clone()),
            related_wallet_id: if own { self.related.cloned() } else { None },
            transaction_type: self.kind,
            side: if own { wallet_side } else { wallet_side.opposite() },
            amount: self.amount,
            currency: self.currency.to_owned(),
            balances: own.then_some(self.balances),
            description: self.description.cloned().filter(|_| own),
            reference_id: self
                .reference
                .cloned()
                .unwrap_or_else(|| event.transaction_id.to_string()),
            metadata: self.metadata.cloned().filter(|_| own),
            leg,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wallet::{BalanceChange, ChangeType, EventType, TransferChange, WalletCreated};

    const TRANSACTION: Uuid = Uuid::from_u128(7);

    #[test]
    fn totals_are_exact_in_every_scale_and_beyond_what_an_amount_may_be() {
        let change = |amount: &str, kind: ChangeType| BalanceChange {
            transaction_id: TRANSACTION,
            previous_balance: Decimal::ZERO,
            new_balance: amount.parse().unwrap(),
            change_amount: amount.parse().unwrap(),
            change_type: kind,
            reason: None,
            currency: "USD".to_owned(),
            reference: None,
            metadata: None,
        };
        let mut totals = Totals::default();
        for amount in
            ["0.1", "12", "99999999999999999999.99999999", "99999999999999999999.00000001"]
        {
            let credited = EventData::WalletCredited(change(amount, ChangeType::Credit));
            totals.add(&entries(&recorded(credited))[0]);
        }
        let debited = EventData::WalletDebited(change("0.00000001", ChangeType::Debit));
        totals.add(&entries(&recorded(debited))[0]);
        assert_eq!(Totals::text(totals.credits), "200000000000000000011.10000000");
        assert_eq!((Totals::text(totals.debits).as_str(), totals.entries), ("0.00000001", 5));
    }

    fn recorded(data: EventData) -> RecordedEvent {
        RecordedEvent {
            tenant: TenantId::default_tenant(),
            wallet_id: WalletId::stored("a"),
            version: 3,
            event_id: Uuid::from_u128(42),
            transaction_id: TRANSACTION,
            data,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn metadata() -> Option<Metadata> {
        Metadata::parse(r#"{"order":17}"#).ok()
    }

    /// An event of a kind that moves a balance from `before` by `amount`.
    fn moved(
        kind: EventType,
        before: Decimal,
        amount: Decimal,
        reference: Option<&str>,
    ) -> EventData {
        let up = matches!(kind, EventType::WalletCredited | EventType::WalletTransferCompleted);
        let after = if up { before + amount } else { before - amount };
        let change_type = if up { ChangeType::Credit } else { ChangeType::Debit };
        let change = BalanceChange {
            transaction_id: TRANSACTION,
            previous_balance: before,
            new_balance: after,
            change_amount: amount,
            change_type,
            reason: Some("rent".to_owned()),
            currency: "USD".to_owned(),
            reference: reference.map(str::to_owned),
            metadata: metadata(),
        };
        let side = |change: BalanceChange| TransferChange {
            transfer_id: TRANSACTION,
            from_wallet_id: if up { "b" } else { "a" }.to_owned(),
            to_wallet_id: if up { "a" } else { "b" }.to_owned(),
            previous_balance: change.previous_balance,
            new_balance: change.new_balance,
            change_amount: change.change_amount,
            change_type,
            reason: change.reason,
            currency: change.currency,
            reference: change.reference,
            metadata: change.metadata,
        };
        match kind {
            EventType::WalletCreated => EventData::WalletCreated(WalletCreated {
                transaction_id: TRANSACTION,
                owner_id: "ann".to_owned(),
                currency: "USD".to_owned(),
                overdraft_limit: Decimal::ZERO,
                previous_balance: Decimal::ZERO,
                new_balance: Decimal::ZERO,
                change_amount: Decimal::ZERO,
                change_type,
                reason: None,
                metadata: None,
            }),
            EventType::WalletCredited => EventData::WalletCredited(change),
            EventType::WalletDebited => EventData::WalletDebited(change),
            EventType::WalletTransferInitiated => EventData::WalletTransferInitiated(side(change)),
            EventType::WalletTransferCompleted => EventData::WalletTransferCompleted(side(change)),
        }
    }

    const MOVING: [EventType; 4] = [
        EventType::WalletCredited,
        EventType::WalletDebited,
        EventType::WalletTransferInitiated,
        EventType::WalletTransferCompleted,
    ];

    fn cents(n: i64) -> Decimal {
        Decimal::new(n, 2)
    }

    #[test]
    fn each_type_of_event_has_its_type_of_entry_sides_and_counterpart() {
        use {Side::Credit as Cr, Side::Debit as Dr};
        let table = [
            (MOVING[0], TransactionType::Credit, Cr, EXTERNAL, None),
            (MOVING[1], TransactionType::Debit, Dr, EXTERNAL, None),
            (MOVING[2], TransactionType::TransferOut, Dr, TRANSFERS_IN_FLIGHT, Some("b")),
            (MOVING[3], TransactionType::TransferIn, Cr, TRANSFERS_IN_FLIGHT, Some("b")),
        ];
        for (event, transaction_type, side, counterpart, related) in table {
            let event = recorded(moved(event, cents(1000), cents(250), Some("r-1")));
            let after = event.data.new_balance();
            let own = Entry {
                id: Uuid::new_v5(&event.event_id, &[0, 0]),
                account: WALLET,
                wallet_id: Some(WalletId::stored("a")),
                related_wallet_id: related.map(str::to_owned),
                transaction_type,
                side,
                amount: cents(250),
                currency: "USD".to_owned(),
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
        let event = moved(EventType::WalletCreated, Decimal::ZERO, Decimal::ZERO, None);
        assert_eq!(entries(&recorded(event)), []);
    }

    #[test]
    fn without_a_reference_both_sides_of_a_transfer_share_its_id() {
        for kind in MOVING {
            let entries = entries(&recorded(moved(kind, cents(900), cents(1), None)));
            assert!(entries.iter().all(|e| e.reference_id == TRANSACTION.to_string()), "{kind:?}");
        }
    }

    /// Pinned: a ledger rebuilt by any later version must have the ids that callers have seen.
    #[test]
    fn ids_of_entries_never_change() {
        let ids = entries(&recorded(moved(MOVING[0], cents(0), cents(1), None)));
        let ids: Vec<String> = ids.iter().map(|entry| entry.id.to_string()).collect();
        assert_eq!(
            ids,
            ["51f45e80-21e4-5621-84c6-44707666318f", "f9ae3b5c-353c-52c0-b49b-d40d8666d519"]
        );
    }

    proptest! {
        #[test]
        fn the_entries_of_every_event_sum_to_zero(
            kind in prop::sample::select(MOVING.to_vec()),
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
            prop_assert_eq!((from, to), (cents(before), event.data.new_balance()));
        }
    }
}
