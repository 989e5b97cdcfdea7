//! Given events, when a command, then events or a rejection; and what must hold of any sequence.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::wallet::{BALANCE_MAX, CreateWallet, IdOrigin, Metadata, Movement, Transfer};

/// The wallets that some events left.
#[derive(Debug, Clone, Default, PartialEq)]
struct Given(BTreeMap<WalletId, Wallet>);

impl Given {
    fn apply(&mut self, event: &NewEvent) {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let id = event.wallet_id.clone();
        if let Some(wallet) = Wallet::opened(id.clone(), &event.body, at) {
            assert_eq!(self.0.insert(id, wallet), None, "opened twice");
        } else {
            self.0.get_mut(&id).unwrap().apply(event.version, &event.body, at);
        }
    }

    fn and(mut self, commands: &[Command]) -> Self {
        for command in commands {
            for event in self.when(command).unwrap() {
                self.apply(&event);
            }
        }
        self
    }

    /// The same with a wallet as no command leaves it yet.
    fn but(mut self, wallet: &str, change: impl FnOnce(&mut Wallet)) -> Self {
        change(self.0.get_mut(&id(wallet)).unwrap());
        self
    }

    fn when(&self, command: &Command) -> Result<Vec<NewEvent>, Rejection> {
        let world = World::new(DateTime::UNIX_EPOCH, self.0.values().cloned());
        let decision = decide(command, &world, &Policy::default())?;
        Ok(decision.events)
    }
}

fn id(text: &str) -> WalletId {
    WalletId::stored(text)
}

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

fn create(wallet: &str, currency: &str, balance: &str, overdraft: &str) -> Command {
    Command::Create(CreateWallet {
        id: (id(wallet), IdOrigin::Given),
        owner_id: "ann".to_owned(),
        currency: Currency::parse(currency).unwrap(),
        initial_balance: Amount::parse(balance).ok(),
        overdraft_limit: dec(overdraft),
        metadata: Metadata::parse(r#"{"tier":"gold"}"#).ok(),
    })
}

fn details() -> Details {
    let metadata = Metadata::parse(r#"{"order":17}"#).ok();
    Details { description: Some("rent".into()), reference: Some("r-1".into()), metadata }
}

fn only(version: i64) -> Expected {
    Expected::any_of(vec![version])
}

fn movement(wallet: &str, value: &str, expected_version: Option<i64>) -> Movement {
    let (wallet_id, amount) = (id(wallet), amount(value));
    let expected_version = expected_version.map(only);
    Movement { wallet_id, amount, details: details(), expected_version }
}

fn credit(wallet: &str, value: &str) -> Command {
    Command::Credit(movement(wallet, value, None))
}

fn debit(wallet: &str, value: &str) -> Command {
    Command::Debit(movement(wallet, value, None))
}

fn transfer(from: &str, to: &str, value: &str) -> Command {
    let (from, to, amount) = (id(from), id(to), amount(value));
    Command::Transfer(Transfer { from, to, amount, details: details(), expected_version: None })
}

/// `a` has 100.00 and may owe 20.00, `b` has 5.00, `yen` is in JPY.
fn three() -> Given {
    let commands = [
        create("a", "USD", "100", "20"),
        create("b", "USD", "5", "0"),
        create("yen", "JPY", "100", "0"),
    ];
    Given::default().and(&commands)
}

/// A movement in dollars of a wallet that holds nothing.
fn body(kind: EventType, facts: Facts, from: &str, to: &str, by: &str) -> EventBody {
    let Details { description: reason, reference, metadata } = details();
    let up = dec(to) >= dec(from);
    let direction = if up { ChangeType::Credit } else { ChangeType::Debit };
    EventBody {
        kind,
        facts,
        change: Change { previous_balance: dec(from), amount: dec(by), direction },
        after: WalletState {
            balance: dec(to),
            held_balance: dec("0.00"),
            available_balance: None,
            status: Status::Active,
        },
        currency: Currency::USD,
        reason,
        reference,
        metadata,
        booking: Booking::default(),
    }
}

fn event(wallet: &str, version: i64, body: EventBody) -> NewEvent {
    NewEvent { wallet_id: id(wallet), version, body }
}

#[test]
fn a_wallet_opens_at_zero_and_its_opening_balance_is_a_credit_of_its_own() {
    let currency = Currency::parse("KWD").unwrap();
    let facts = Facts::Creation { owner_id: "ann".to_owned(), overdraft_limit: dec("1.500") };
    let created = EventBody {
        currency,
        reason: Some("wallet created".to_owned()),
        reference: None,
        metadata: Metadata::parse(r#"{"tier":"gold"}"#).ok(),
        ..body(EventType::WalletCreated, facts, "0.000", "0.000", "0.000")
    };
    let credited = EventBody {
        currency,
        reason: Some("initial balance".to_owned()),
        reference: None,
        metadata: None,
        ..body(EventType::WalletCredited, Facts::Balance, "0.000", "2.125", "2.125")
    };
    let (created, credited) = (event("w", 1, created), event("w", 2, credited));
    let nothing = Given::default();
    assert_eq!(nothing.when(&create("w", "KWD", "0", "1.5")), Ok(vec![created.clone()]));
    assert_eq!(nothing.when(&create("w", "KWD", "2.125", "1.5")), Ok(vec![created, credited]));
}

#[test]
fn a_credit_and_a_debit_move_the_balance_by_their_amount() {
    let up = body(EventType::WalletCredited, Facts::Balance, "100.00", "100.50", "0.50");
    assert_eq!(three().when(&credit("a", "0.5")), Ok(vec![event("a", 3, up)]));
    let down = body(EventType::WalletDebited, Facts::Balance, "100.00", "99.00", "1.00");
    assert_eq!(three().when(&debit("a", "1")), Ok(vec![event("a", 3, down)]));
}

#[test]
fn a_transfer_is_one_event_on_each_side() {
    let (to_b, from_a) = (Facts::Transfer { other: id("b") }, Facts::Transfer { other: id("a") });
    let out = body(EventType::WalletTransferInitiated, to_b, "100.00", "60.00", "40.00");
    let into = body(EventType::WalletTransferCompleted, from_a, "5.00", "45.00", "40.00");
    let events = vec![event("a", 3, out), event("b", 3, into)];
    assert_eq!(three().when(&transfer("a", "b", "40")), Ok(events));
}

#[test]
fn an_event_carries_the_whole_state_that_it_leaves() {
    let given = three().but("a", |wallet| wallet.held_balance = dec("30.00"));
    let events = given.when(&debit("a", "1")).unwrap();
    let after = events[0].body.after;
    // 99.00 of which 30.00 is held, and 20.00 may be owed.
    assert_eq!(after.available_balance, Some(dec("89.00")));
    assert_eq!((after.held_balance, after.overdraft_limit()), (dec("30.00"), Some(dec("20.00"))));
    let mut wallet = three().0[&id("a")].clone();
    wallet.apply(3, &events[0].body, DateTime::UNIX_EPOCH);
    assert_eq!(wallet.available(), dec("89.00"));
    assert_eq!((wallet.version, wallet.overdraft_limit), (3, dec("20.00")));
}

#[test]
fn all_that_is_available_may_be_spent_and_not_a_cent_more() {
    let refused = |given: &Given, command: &Command, numbers: [&str; 2]| {
        let Err(Rejection::InsufficientFunds { available, amount, .. }) = given.when(command)
        else {
            panic!("{command:?} was not refused")
        };
        assert_eq!([available, amount], numbers.map(dec), "{command:?}");
    };
    assert!(three().when(&debit("a", "120.00")).is_ok());
    refused(&three(), &debit("a", "120.01"), ["120.00", "120.01"]);
    assert!(three().when(&transfer("b", "a", "5.00")).is_ok());
    refused(&three(), &transfer("b", "a", "5.01"), ["5.00", "5.01"]);
    let held = three().but("a", |wallet| wallet.held_balance = dec("119.00"));
    refused(&held, &debit("a", "1.01"), ["1.00", "1.01"]);
    let owing = three().and(&[debit("a", "120")]);
    refused(&owing, &debit("a", "0.01"), ["0.00", "0.01"]);
    assert!(owing.and(&[credit("a", "0.01")]).when(&debit("a", "0.01")).is_ok());
}

#[test]
fn each_refusal_names_its_cause() {
    let [dollars, yen] = ["USD", "JPY"].map(|code| Currency::parse(code).unwrap());
    let missing = || Rejection::WalletNotFound { wallet: id("x") };
    let fine = |currency| Rejection::AmountScale { currency };
    let cases = [
        (create("a", "USD", "0", "0"), Rejection::WalletExists { wallet: id("a") }),
        (credit("x", "1"), missing()),
        (debit("x", "1"), missing()),
        (transfer("x", "a", "1"), missing()),
        (transfer("a", "x", "1"), missing()),
        (transfer("a", "a", "1"), Rejection::SameWallet),
        (transfer("x", "x", "1"), Rejection::SameWallet),
        (transfer("a", "yen", "1"), Rejection::CurrencyMismatch { from: dollars, to: yen }),
        (transfer("yen", "a", "1"), Rejection::CurrencyMismatch { from: yen, to: dollars }),
        (create("n", "USD", "0.001", "0"), fine(dollars)),
        (create("n", "JPY", "0", "0.5"), fine(yen)),
        (credit("yen", "1.5"), fine(yen)),
        (debit("a", "0.001"), fine(dollars)),
        (transfer("a", "b", "0.001"), fine(dollars)),
    ];
    for (command, rejection) in cases {
        assert_eq!(three().when(&command), Err(rejection), "{command:?}");
    }
}

#[test]
fn frozen_and_closed_wallets_take_no_command_from_either_side() {
    let commands =
        [credit("a", "1"), debit("a", "1"), transfer("a", "b", "1"), transfer("b", "a", "1")];
    for command in commands {
        let stopped = |status| three().but("a", |wallet| wallet.status = status).when(&command);
        let wallet = id("a");
        assert_eq!(
            stopped(Status::Frozen),
            Err(Rejection::WalletFrozen { wallet: wallet.clone() })
        );
        assert_eq!(stopped(Status::Closed), Err(Rejection::WalletClosed { wallet }));
    }
}

#[test]
fn balances_end_at_ten_to_the_eighteenth_on_both_ends() {
    let full = three().but("a", |wallet| wallet.balance = BALANCE_MAX - dec("1.00"));
    let overflow = |wallet: &str| Err(Rejection::BalanceOverflow { wallet: id(wallet) });
    assert!(full.when(&credit("a", "1.00")).is_ok());
    assert_eq!(full.when(&credit("a", "1.01")), overflow("a"));
    assert_eq!(full.when(&transfer("b", "a", "1.01")), overflow("a"));
    let owing = three().but("a", |wallet| {
        wallet.balance = dec("1.00") - BALANCE_MAX;
        wallet.overdraft_limit = BALANCE_MAX + dec("5.00");
    });
    assert!(owing.when(&debit("a", "1.00")).is_ok());
    assert_eq!(owing.when(&debit("a", "1.01")), overflow("a"));
}

#[test]
fn an_expected_version_is_that_of_the_wallet_that_is_spent_from() {
    let at = |version| Command::Debit(movement("a", "1", Some(version)));
    assert!(three().when(&at(2)).is_ok());
    for expected in [1, 3] {
        let rejection = Rejection::VersionMismatch { expected: only(expected), actual: 2 };
        assert_eq!(three().when(&at(expected)), Err(rejection));
    }
    let any_of = |versions: &[i64]| {
        let expected_version = Some(Expected::any_of(versions.to_vec()));
        let order = Movement { expected_version, ..movement("a", "1", None) };
        three().when(&Command::Debit(order))
    };
    assert!(any_of(&[9, 2]).is_ok());
    assert!(any_of(&[9, 3]).is_err());
    assert!(any_of(&[]).is_err(), "a wallet has one of no version");
    let given = three().and(&[credit("b", "1")]);
    let transfer_at = |version| match transfer("a", "b", "1") {
        Command::Transfer(order) => {
            Command::Transfer(Transfer { expected_version: Some(only(version)), ..order })
        }
        other => other,
    };
    assert!(given.when(&transfer_at(2)).is_ok());
    let rejection = Rejection::VersionMismatch { expected: only(3), actual: 2 };
    assert_eq!(given.when(&transfer_at(3)), Err(rejection));
}

/// A command over four wallets, and often one that is refused.
fn any_command() -> impl Strategy<Value = Command> {
    let wallet = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let currency = prop::sample::select(vec!["USD", "USD", "USD", "JPY", "KWD"]);
    let value =
        || (0_i64..20_000, 0_u32..=3).prop_map(|(n, scale)| Decimal::new(n, scale).to_string());
    let positive = || value().prop_filter("positive", |text| Amount::parse(text).is_ok());
    prop_oneof![
        1 => (wallet(), currency, value(), value()).prop_map(|(w, c, v, o)| create(w, c, &v, &o)),
        3 => (wallet(), positive()).prop_map(|(w, v)| credit(w, &v)),
        3 => (wallet(), positive(), prop::option::weighted(0.2, 0_i64..20))
            .prop_map(|(w, v, at)| Command::Debit(movement(w, &v, at))),
        3 => (wallet(), wallet(), positive()).prop_map(|(f, t, v)| transfer(f, t, &v)),
    ]
}

/// What a command that was taken brought in from outside.
fn from_outside(command: &Command) -> Decimal {
    match command {
        Command::Create(create) => create.initial_balance.map_or(Decimal::ZERO, Amount::value),
        Command::Credit(movement) => movement.amount.value(),
        Command::Debit(movement) => -movement.amount.value(),
        _ => Decimal::ZERO,
    }
}

proptest! {
    #[test]
    fn no_sequence_of_commands_makes_loses_or_overspends_money(
        commands in prop::collection::vec(any_command(), 1..80)
    ) {
        let (mut state, mut history) = (Given::default(), Vec::new());
        let mut outside: BTreeMap<&str, Decimal> = BTreeMap::new();
        for command in &commands {
            let Ok(events) = state.when(command) else { continue };
            events.iter().for_each(|event| state.apply(event));
            history.extend(events);
            let currency = state.0[command.wallet_id()].currency.code();
            *outside.entry(currency).or_default() += from_outside(command);

            let mut inside: BTreeMap<&str, Decimal> = BTreeMap::new();
            for wallet in state.0.values() {
                prop_assert!(wallet.available() >= Decimal::ZERO, "{:?}", wallet);
                prop_assert_eq!(wallet.balance.scale(), wallet.currency.scale());
                *inside.entry(wallet.currency.code()).or_default() += wallet.balance;
            }
            prop_assert_eq!(&inside, &outside);
        }
        let mut folded = Given::default();
        let mut versions: BTreeMap<&WalletId, i64> = BTreeMap::new();
        for event in &history {
            let last = versions.entry(&event.wallet_id).or_default();
            prop_assert_eq!(event.version, *last + 1);
            *last = event.version;
            folded.apply(event);
        }
        prop_assert_eq!(&folded, &state);
        prop_assert!(state.0.values().all(|wallet| versions[&wallet.id] == wallet.version));
    }
}
