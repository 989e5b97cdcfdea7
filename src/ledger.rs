//! Double entry, pure: one event → postings, each of two entries that sum to zero.
//!
//! Wallets are what we owe their owners, so a credit raises a wallet with a CREDIT entry and takes
//! a DEBIT on `external`, the outside world. Between the two events of a transfer the money stands
//! on `transfers_in_flight`.

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::wallet::{ChangeType, Counterpart, Event, Facts, Metadata};

/// Where a wallet's money comes from and goes to. System accounts have no row: no command queues for
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterAccount {
    /// The outside world.
    External,
    /// Transfers between their two events.
    TransfersInFlight,
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

/// One immutable row of the books: an amount moves between the event's wallet and a counter account. It
/// stands for two entries, of the same amount on opposite sides; so those of an event sum to zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Posting {
    /// Of the wallet's entry. Derived from event and leg: a rebuilt ledger has the same ids.
    pub id: Uuid,
    /// Among the postings of its event, from 0 on. Its entries are the legs 2 * pair and 2 * pair + 1.
    pub pair: i16,
    pub counter_account: CounterAccount,
    pub related_wallet_id: Option<String>,
    pub transaction_type: TransactionType,
    /// The wallet's.
    pub side: Side,
    /// Greater than zero.
    pub amount: Decimal,
    pub currency: &'static str,
    pub balance_before: Decimal,
    pub balance_after: Decimal,
    pub description: Option<String>,
    /// The caller's reference, else the transaction's or transfer's id.
    pub reference_id: String,
    pub metadata: Option<Metadata>,
}

impl CounterAccount {
    pub fn as_str(self) -> &'static str {
        match self {
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

    /// Counts the wallet's entry of a posting.
    pub fn add(&mut self, posting: &Posting) {
        let (mantissa, scale) = (posting.amount.mantissa(), posting.amount.scale());
        let units = match Self::DECIMALS.checked_sub(scale) {
            Some(missing) => mantissa.saturating_mul(10_i128.pow(missing)),
            // Postgres keeps no more of them either.
            None => mantissa / 10_i128.pow(scale - Self::DECIMALS),
        };
        match posting.side {
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

/// The postings of one event, numbered as pairs: none where no money moves.
pub fn postings(event: &Event) -> Vec<Posting> {
    let body = &event.body;
    let counter_account = match body.kind.counterpart() {
        Counterpart::Nowhere => return Vec::new(),
        Counterpart::Outside => CounterAccount::External,
        Counterpart::Wallet => CounterAccount::TransfersInFlight,
    };
    let transaction_type = match (counter_account, body.change.direction) {
        (CounterAccount::External, ChangeType::Credit) => TransactionType::Credit,
        (CounterAccount::External, ChangeType::Debit) => TransactionType::Debit,
        (CounterAccount::TransfersInFlight, ChangeType::Debit) => TransactionType::TransferOut,
        (CounterAccount::TransfersInFlight, ChangeType::Credit) => TransactionType::TransferIn,
    };
    let related = match &body.facts {
        Facts::Transfer { other } => Some(other),
        Facts::Creation { .. } | Facts::Balance => None,
    };
    let side = match body.change.direction {
        ChangeType::Credit => Side::Credit,
        ChangeType::Debit => Side::Debit,
    };
    let reference = || event.transaction_id.to_string();
    // So far each event moves its money at once: one posting.
    let pair: i16 = 0;
    vec![Posting {
        id: Uuid::new_v5(&event.event_id, &(2 * pair).to_be_bytes()),
        pair,
        counter_account,
        related_wallet_id: related.map(|id| id.as_str().to_owned()),
        transaction_type,
        side,
        amount: body.change.amount,
        currency: body.currency.code(),
        balance_before: body.change.previous_balance,
        balance_after: body.after.balance,
        description: body.reason.clone(),
        reference_id: body.reference.clone().unwrap_or_else(reference),
        metadata: body.metadata.clone(),
    }]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use chrono::DateTime;

    use crate::wallet::{
        Change, Currency, EventBody, EventType, Form, Origin, Status, TenantId, WalletId,
        WalletState,
    };

    const TRANSACTION: Uuid = Uuid::from_u128(7);

    #[test]
    fn totals_are_exact_in_every_scale_and_beyond_what_an_amount_may_be() {
        let posting = |kind: EventType, amount: &str| {
            postings(&recorded(moved(kind, Decimal::ZERO, amount.parse().unwrap(), None))).remove(0)
        };
        let mut totals = Totals::default();
        for amount in
            ["0.1", "12", "99999999999999999999.99999999", "99999999999999999999.00000001"]
        {
            totals.add(&posting(EventType::WalletCredited, amount));
        }
        totals.add(&posting(EventType::WalletDebited, "0.00000001"));
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
        kind: EventType,
        before: Decimal,
        amount: Decimal,
        reference: Option<&str>,
    ) -> EventBody {
        let balance = match kind.direction() {
            ChangeType::Credit => before + amount,
            ChangeType::Debit => before - amount,
        };
        EventBody {
            kind,
            facts: match kind.form() {
                Form::Creation => {
                    Facts::Creation { owner_id: "ann".to_owned(), overdraft_limit: Decimal::ZERO }
                }
                Form::Balance => Facts::Balance,
                Form::Transfer => Facts::Transfer { other: WalletId::stored("b") },
            },
            change: Change { previous_balance: before, amount, direction: kind.direction() },
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

    fn moving() -> Vec<EventType> {
        let all = EventType::ALL.iter().copied();
        all.filter(|kind| kind.counterpart() != Counterpart::Nowhere).collect()
    }

    fn cents(n: i64) -> Decimal {
        Decimal::new(n, 2)
    }

    #[test]
    fn each_type_of_event_has_its_type_of_entry_its_side_and_its_counter_account() {
        use {Side::Credit as Cr, Side::Debit as Dr};
        let (outside, between) = (CounterAccount::External, CounterAccount::TransfersInFlight);
        let table = [
            (EventType::WalletCredited, TransactionType::Credit, Cr, outside, None),
            (EventType::WalletDebited, TransactionType::Debit, Dr, outside, None),
            (
                EventType::WalletTransferInitiated,
                TransactionType::TransferOut,
                Dr,
                between,
                Some("b"),
            ),
            (
                EventType::WalletTransferCompleted,
                TransactionType::TransferIn,
                Cr,
                between,
                Some("b"),
            ),
        ];
        for (kind, transaction_type, side, counter_account, related) in table {
            let event = recorded(moved(kind, cents(1000), cents(250), Some("r-1")));
            let posting = Posting {
                id: Uuid::new_v5(&event.event_id, &[0, 0]),
                pair: 0,
                counter_account,
                related_wallet_id: related.map(str::to_owned),
                transaction_type,
                side,
                amount: cents(250),
                currency: "USD",
                balance_before: cents(1000),
                balance_after: event.body.after.balance,
                description: Some("rent".to_owned()),
                reference_id: "r-1".to_owned(),
                metadata: metadata(),
            };
            assert_eq!(postings(&event), [posting]);
        }
    }

    #[test]
    fn a_creation_has_no_postings() {
        let event = moved(EventType::WalletCreated, Decimal::ZERO, Decimal::ZERO, None);
        assert_eq!(postings(&recorded(event)), []);
    }

    #[test]
    fn without_a_reference_both_sides_of_a_transfer_share_its_id() {
        for kind in moving() {
            let postings = postings(&recorded(moved(kind, cents(900), cents(1), None)));
            assert!(postings.iter().all(|p| p.reference_id == TRANSACTION.to_string()));
        }
    }

    /// Pinned: a ledger rebuilt by any later version must have the ids that callers have seen.
    #[test]
    fn ids_of_entries_never_change() {
        let postings =
            postings(&recorded(moved(EventType::WalletCredited, cents(0), cents(1), None)));
        let ids: Vec<String> = postings.iter().map(|posting| posting.id.to_string()).collect();
        assert_eq!(ids, ["51f45e80-21e4-5621-84c6-44707666318f"]);
    }

    proptest! {
        #[test]
        fn the_postings_of_every_event_lead_from_its_balance_before_to_the_one_after(
            kind in prop::sample::select(moving()),
            before in -1_000_000_000_000_i64..1_000_000_000_000,
            amount in 1_i64..=1_000_000_000_000,
        ) {
            let event = recorded(moved(kind, cents(before), cents(amount), None));
            let mut balance = cents(before);
            for (pair, posting) in (0..).zip(postings(&event)) {
                prop_assert!(posting.amount > Decimal::ZERO);
                prop_assert_eq!((posting.pair, posting.balance_before), (pair, balance));
                balance += match posting.side {
                    Side::Credit => posting.amount,
                    Side::Debit => -posting.amount,
                };
                prop_assert_eq!(posting.balance_after, balance);
            }
            prop_assert_eq!(balance, event.body.after.balance);
        }
    }
}
