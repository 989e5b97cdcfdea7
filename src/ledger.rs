//! Double entry, pure: one event → postings, each of two entries that sum to zero.
//!
//! Wallets are what we owe their owners, so a credit raises a wallet with a CREDIT entry and takes
//! a DEBIT on `external`, the outside world. Between the two events of a transfer the money stands
//! on `transfers_in_flight`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::wallet::{ChangeType, CounterAccount, Counterpart, Event, EventType, Metadata};

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
    Capture,
    ReversalCredit,
    ReversalDebit,
    ConversionOut,
    ConversionIn,
    Grant,
    GrantExpired,
    GrantVoided,
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
    /// The grant that it comes out of, or goes into.
    pub grant_id: Option<Uuid>,
    /// The hold that it is of.
    pub hold_id: Option<Uuid>,
    /// When it counts from; none: when it was recorded.
    pub effective_at: Option<DateTime<Utc>>,
    /// The transaction that it reverses.
    pub reverses: Option<Uuid>,
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
    pub const ALL: [Self; 12] = [
        Self::Credit,
        Self::Debit,
        Self::TransferOut,
        Self::TransferIn,
        Self::Capture,
        Self::ReversalCredit,
        Self::ReversalDebit,
        Self::ConversionOut,
        Self::ConversionIn,
        Self::Grant,
        Self::GrantExpired,
        Self::GrantVoided,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "CREDIT",
            Self::Debit => "DEBIT",
            Self::TransferOut => "TRANSFER_OUT",
            Self::TransferIn => "TRANSFER_IN",
            Self::Capture => "CAPTURE",
            Self::ReversalCredit => "REVERSAL_CREDIT",
            Self::ReversalDebit => "REVERSAL_DEBIT",
            Self::ConversionOut => "CONVERSION_OUT",
            Self::ConversionIn => "CONVERSION_IN",
            Self::Grant => "GRANT",
            Self::GrantExpired => "GRANT_EXPIRED",
            Self::GrantVoided => "GRANT_VOIDED",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What the books call the money of an event, and the account that it has on its other side unless the
/// event says another. None: no money moves. The one table of this: postings are made of it, and what
/// `wallex reconcile` expects.
pub fn booked(kind: EventType, direction: ChangeType) -> Option<(TransactionType, CounterAccount)> {
    let account = match kind.counterpart() {
        Counterpart::Nowhere => return None,
        Counterpart::Outside => CounterAccount::External,
        Counterpart::Wallet => CounterAccount::TransfersInFlight,
    };
    let called = match (kind, kind.counterpart(), direction) {
        (EventType::WalletHoldCaptured, ..) => TransactionType::Capture,
        (_, Counterpart::Wallet, ChangeType::Debit) => TransactionType::TransferOut,
        (_, Counterpart::Wallet, ChangeType::Credit) => TransactionType::TransferIn,
        (_, _, ChangeType::Credit) => TransactionType::Credit,
        (_, _, ChangeType::Debit) => TransactionType::Debit,
    };
    Some((called, account))
}

/// The same table as columns: type of event, type of change, what it is called, the account. A kind that
/// moves money one way only has no row for the other.
pub fn booked_columns() -> [Vec<&'static str>; 4] {
    let mut columns = <[Vec<&'static str>; 4]>::default();
    for kind in EventType::ALL {
        let change = match kind.direction() {
            ChangeType::Credit => "CREDIT",
            ChangeType::Debit => "DEBIT",
        };
        let Some((called, account)) = booked(*kind, kind.direction()) else { continue };
        let row = [kind.as_str(), change, called.as_str(), account.as_str()];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    columns
}

/// The postings of one event, numbered as pairs: none where no money moves. What came out of grants has
/// a pair for each, before that of the wallet's own.
pub fn postings(event: &Event) -> Vec<Posting> {
    let body = &event.body;
    let Some((transaction_type, _)) = booked(body.kind, body.change.direction) else {
        return Vec::new();
    };
    let Some(counter_account) = body.counter_account() else { return Vec::new() };
    let side = match body.change.direction {
        ChangeType::Credit => Side::Credit,
        ChangeType::Debit => Side::Debit,
    };
    let drawn = &body.booking.drawn;
    let own = body.change.amount - drawn.iter().map(|slice| slice.amount).sum::<Decimal>();
    let slices = drawn.iter().map(|slice| (Some(slice.grant_id), slice.amount));
    // Of an event without an amount there is one of zero all the same, which the table refuses.
    let parts = slices.chain((drawn.is_empty() || !own.is_zero()).then_some((None, own)));
    let mut balance = body.change.previous_balance;
    let posting = |(pair, (grant_id, amount)): (i16, (Option<Uuid>, Decimal))| {
        let balance_before = balance;
        balance += match side {
            Side::Credit => amount,
            Side::Debit => -amount,
        };
        Posting {
            id: Uuid::new_v5(&event.event_id, &(2 * pair).to_be_bytes()),
            pair,
            counter_account,
            related_wallet_id: body.related_wallet().map(|id| id.as_str().to_owned()),
            transaction_type,
            side,
            amount,
            currency: body.currency.code(),
            balance_before,
            balance_after: balance,
            description: body.reason.clone(),
            reference_id: { body.reference.clone() }
                .unwrap_or_else(|| event.transaction_id.to_string()),
            metadata: body.metadata.clone(),
            grant_id,
            hold_id: body.facts.hold_id(),
            effective_at: body.booking.effective_at,
            reverses: None,
        }
    };
    (0..).zip(parts).map(posting).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wallet::{
        Booking, Change, Currency, EventBody, Facts, Form, HoldStatus, HoldTaken, Origin, Slice,
        Status, TenantId, WalletId, WalletState,
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
                _ => Facts::Capture(Box::new(HoldTaken {
                    hold_id: Uuid::from_u128(9),
                    captured_total: amount,
                    released: Decimal::ZERO,
                    remaining: Decimal::ZERO,
                    status: HoldStatus::Captured,
                    to: None,
                })),
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
            booking: Booking::default(),
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
            (EventType::WalletHoldCaptured, TransactionType::Capture, Dr, outside, None),
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
                grant_id: None,
                hold_id: event.body.facts.hold_id(),
                effective_at: None,
                reverses: None,
            };
            assert_eq!(postings(&event), [posting]);
        }
    }

    #[test]
    fn what_came_out_of_grants_has_pairs_of_its_own_before_the_rest() {
        let mut body = moved(EventType::WalletDebited, cents(1000), cents(250), None);
        let slice = |id, amount| Slice { grant_id: Uuid::from_u128(id), amount: cents(amount) };
        body.booking.drawn = vec![slice(5, 100), slice(6, 50)];
        let pairs: Vec<_> = postings(&recorded(body.clone()))
            .into_iter()
            .map(|p| (p.pair, p.grant_id.map(|id| id.as_u128()), p.amount, p.balance_after))
            .collect();
        let expected = [
            (0, Some(5), cents(100), cents(900)),
            (1, Some(6), cents(50), cents(850)),
            (2, None, cents(100), cents(750)),
        ];
        assert_eq!(pairs, expected);
        body.booking.drawn = vec![slice(5, 250)];
        body.booking.counter_account = Some(CounterAccount::Receivables);
        let whole = postings(&recorded(body));
        assert_eq!((whole.len(), whole[0].counter_account), (1, CounterAccount::Receivables));
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
