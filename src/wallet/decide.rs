//! State + command → events or a rejection. The one place that refuses for reasons of the domain.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{
    Amount, BALANCE_MAX, BalanceChange, ChangeType, Command, CreateWallet, Currency, Details,
    EventData, Rejection, Status, Transfer, TransferChange, Wallet, WalletCreated, WalletId,
};

/// An event to be: the wallet's next version and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub wallet_id: WalletId,
    pub version: i64,
    pub data: EventData,
}

/// Decides one command on the wallets as they stand. `wallets` answers with the state of an id, or
/// none where there is no such wallet; `transaction_id` names what happens, if it does.
pub fn decide<'a>(
    command: &Command,
    wallets: impl Fn(&WalletId) -> Option<&'a Wallet>,
    transaction_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    match command {
        Command::Create(create) => open(create, wallets(&create.id.0), transaction_id),
        Command::Credit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version)?;
            let change = changed(wallet, movement.amount, ChangeType::Credit)?;
            let data = balance_change(wallet, &change, &movement.details, transaction_id);
            Ok(vec![next(wallet, EventData::WalletCredited(data))])
        }
        Command::Debit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version)?;
            let change = changed(wallet, movement.amount, ChangeType::Debit)?;
            let data = balance_change(wallet, &change, &movement.details, transaction_id);
            Ok(vec![next(wallet, EventData::WalletDebited(data))])
        }
        Command::Transfer(order) => transfer(order, &wallets, transaction_id),
    }
}

fn open(
    create: &CreateWallet,
    existing: Option<&Wallet>,
    transaction_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    let (id, currency) = (&create.id.0, create.currency);
    if existing.is_some() {
        return Err(Rejection::WalletExists { wallet: id.clone() });
    }
    if create.overdraft_limit.normalize().scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    let zero = currency.scaled(Decimal::ZERO);
    let mut events = vec![NewEvent {
        wallet_id: id.clone(),
        version: 1,
        data: EventData::WalletCreated(WalletCreated {
            transaction_id,
            owner_id: create.owner_id.clone(),
            currency: currency.code().to_owned(),
            overdraft_limit: currency.scaled(create.overdraft_limit),
            previous_balance: zero,
            new_balance: zero,
            change_amount: zero,
            change_type: ChangeType::Credit,
            reason: Some("wallet created".to_owned()),
            metadata: create.metadata.clone(),
        }),
    }];
    if let Some(amount) = create.initial_balance {
        let amount = in_scale(amount, currency)?;
        events.push(NewEvent {
            wallet_id: id.clone(),
            version: 2,
            data: EventData::WalletCredited(BalanceChange {
                transaction_id,
                previous_balance: zero,
                new_balance: amount,
                change_amount: amount,
                change_type: ChangeType::Credit,
                reason: Some("initial balance".to_owned()),
                currency: currency.code().to_owned(),
                reference: None,
                metadata: None,
            }),
        });
    }
    Ok(events)
}

fn transfer<'a>(
    order: &Transfer,
    wallets: &impl Fn(&WalletId) -> Option<&'a Wallet>,
    transfer_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    if order.from == order.to {
        return Err(Rejection::SameWallet);
    }
    let from = usable(&order.from, wallets, order.expected_version)?;
    let to = usable(&order.to, wallets, None)?;
    if from.currency != to.currency {
        return Err(Rejection::CurrencyMismatch { from: from.currency, to: to.currency });
    }
    let out = changed(from, order.amount, ChangeType::Debit)?;
    let into = changed(to, order.amount, ChangeType::Credit)?;
    let data = |wallet: &Wallet, change: &Change| TransferChange {
        transfer_id,
        from_wallet_id: order.from.as_str().to_owned(),
        to_wallet_id: order.to.as_str().to_owned(),
        previous_balance: wallet.balance,
        new_balance: change.new_balance,
        change_amount: change.amount,
        change_type: change.kind,
        reason: order.details.description.clone(),
        currency: wallet.currency.code().to_owned(),
        reference: order.details.reference.clone(),
        metadata: order.details.metadata.clone(),
    };
    Ok(vec![
        next(from, EventData::WalletTransferInitiated(data(from, &out))),
        next(to, EventData::WalletTransferCompleted(data(to, &into))),
    ])
}

/// A change of a balance that is allowed.
struct Change {
    amount: Decimal,
    new_balance: Decimal,
    kind: ChangeType,
}

fn changed(wallet: &Wallet, amount: Amount, kind: ChangeType) -> Result<Change, Rejection> {
    let amount = in_scale(amount, wallet.currency)?;
    let overflow = || Rejection::BalanceOverflow { wallet: wallet.id.clone() };
    let new_balance = match kind {
        ChangeType::Credit => wallet.balance.checked_add(amount),
        ChangeType::Debit if amount > wallet.available() => {
            return Err(Rejection::InsufficientFunds { available: wallet.available(), amount });
        }
        ChangeType::Debit => wallet.balance.checked_sub(amount),
    };
    let new_balance = new_balance.filter(|b| b.abs() <= BALANCE_MAX).ok_or_else(overflow)?;
    Ok(Change { amount, new_balance, kind })
}

fn in_scale(amount: Amount, currency: Currency) -> Result<Decimal, Rejection> {
    if amount.scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    Ok(currency.scaled(amount.value()))
}

fn balance_change(
    wallet: &Wallet,
    change: &Change,
    details: &Details,
    transaction_id: Uuid,
) -> BalanceChange {
    BalanceChange {
        transaction_id,
        previous_balance: wallet.balance,
        new_balance: change.new_balance,
        change_amount: change.amount,
        change_type: change.kind,
        reason: details.description.clone(),
        currency: wallet.currency.code().to_owned(),
        reference: details.reference.clone(),
        metadata: details.metadata.clone(),
    }
}

fn usable<'a>(
    id: &WalletId,
    wallets: &impl Fn(&WalletId) -> Option<&'a Wallet>,
    expected_version: Option<i64>,
) -> Result<&'a Wallet, Rejection> {
    let wallet = wallets(id).ok_or_else(|| Rejection::WalletNotFound { wallet: id.clone() })?;
    if let Some(expected) = expected_version
        && expected != wallet.version
    {
        return Err(Rejection::VersionMismatch { expected, actual: wallet.version });
    }
    match wallet.status {
        Status::Active => Ok(wallet),
        Status::Frozen => Err(Rejection::WalletFrozen { wallet: id.clone() }),
        Status::Closed => Err(Rejection::WalletClosed { wallet: id.clone() }),
    }
}

fn next(wallet: &Wallet, data: EventData) -> NewEvent {
    NewEvent { wallet_id: wallet.id.clone(), version: wallet.version + 1, data }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::wallet::{IdOrigin, Metadata, Movement};

    const ID: Uuid = Uuid::from_u128(7);

    /// The wallets that some events left.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct Given(BTreeMap<WalletId, Wallet>);

    impl Given {
        fn apply(&mut self, event: &NewEvent) {
            let at = DateTime::<Utc>::UNIX_EPOCH;
            if let EventData::WalletCreated(data) = &event.data {
                let currency = Currency::parse(&data.currency).unwrap();
                let wallet = Wallet::open(event.wallet_id.clone(), currency, data, at);
                assert_eq!(self.0.insert(event.wallet_id.clone(), wallet), None, "opened twice");
            } else {
                self.0.get_mut(&event.wallet_id).unwrap().apply(&event.data, at);
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
            decide(command, |id| self.0.get(id), ID)
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

    fn movement(wallet: &str, value: &str, expected_version: Option<i64>) -> Movement {
        let (wallet_id, amount) = (id(wallet), amount(value));
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

    fn change(from: &str, to: &str, by: &str, change_type: ChangeType) -> BalanceChange {
        let Details { description: reason, reference, metadata } = details();
        BalanceChange {
            transaction_id: ID,
            previous_balance: dec(from),
            new_balance: dec(to),
            change_amount: dec(by),
            change_type,
            reason,
            currency: "USD".to_owned(),
            reference,
            metadata,
        }
    }

    fn event(wallet: &str, version: i64, data: EventData) -> NewEvent {
        NewEvent { wallet_id: id(wallet), version, data }
    }

    #[test]
    fn a_wallet_opens_at_zero_and_its_opening_balance_is_a_credit_of_its_own() {
        let created = event(
            "w",
            1,
            EventData::WalletCreated(WalletCreated {
                transaction_id: ID,
                owner_id: "ann".to_owned(),
                currency: "KWD".to_owned(),
                overdraft_limit: dec("1.500"),
                previous_balance: dec("0.000"),
                new_balance: dec("0.000"),
                change_amount: dec("0.000"),
                change_type: ChangeType::Credit,
                reason: Some("wallet created".to_owned()),
                metadata: Metadata::parse(r#"{"tier":"gold"}"#).ok(),
            }),
        );
        let credited = event(
            "w",
            2,
            EventData::WalletCredited(BalanceChange {
                reason: Some("initial balance".to_owned()),
                currency: "KWD".to_owned(),
                reference: None,
                metadata: None,
                ..change("0.000", "2.125", "2.125", ChangeType::Credit)
            }),
        );
        let nothing = Given::default();
        assert_eq!(nothing.when(&create("w", "KWD", "0", "1.5")), Ok(vec![created.clone()]));
        assert_eq!(nothing.when(&create("w", "KWD", "2.125", "1.5")), Ok(vec![created, credited]));
    }

    #[test]
    fn a_credit_and_a_debit_move_the_balance_by_their_amount() {
        let up = EventData::WalletCredited(change("100.00", "100.50", "0.50", ChangeType::Credit));
        assert_eq!(three().when(&credit("a", "0.5")), Ok(vec![event("a", 3, up)]));
        let down = EventData::WalletDebited(change("100.00", "99.00", "1.00", ChangeType::Debit));
        assert_eq!(three().when(&debit("a", "1")), Ok(vec![event("a", 3, down)]));
    }

    #[test]
    fn a_transfer_is_one_event_on_each_side() {
        let side = |previous: &str, new: &str, change_type| {
            let base = change(previous, new, "40.00", change_type);
            TransferChange {
                transfer_id: ID,
                from_wallet_id: "a".to_owned(),
                to_wallet_id: "b".to_owned(),
                previous_balance: base.previous_balance,
                new_balance: base.new_balance,
                change_amount: base.change_amount,
                change_type,
                reason: base.reason,
                currency: base.currency,
                reference: base.reference,
                metadata: base.metadata,
            }
        };
        let out = EventData::WalletTransferInitiated(side("100.00", "60.00", ChangeType::Debit));
        let into = EventData::WalletTransferCompleted(side("5.00", "45.00", ChangeType::Credit));
        let events = vec![event("a", 3, out), event("b", 3, into)];
        assert_eq!(three().when(&transfer("a", "b", "40")), Ok(events));
    }

    #[test]
    fn all_that_is_available_may_be_spent_and_not_a_cent_more() {
        let refused = |available: &str, amount: &str| {
            Err(Rejection::InsufficientFunds { available: dec(available), amount: dec(amount) })
        };
        assert!(three().when(&debit("a", "120.00")).is_ok());
        assert_eq!(three().when(&debit("a", "120.01")), refused("120.00", "120.01"));
        assert!(three().when(&transfer("b", "a", "5.00")).is_ok());
        assert_eq!(three().when(&transfer("b", "a", "5.01")), refused("5.00", "5.01"));
        let held = three().but("a", |wallet| wallet.held_balance = dec("119.00"));
        assert_eq!(held.when(&debit("a", "1.01")), refused("1.00", "1.01"));
        let owing = three().and(&[debit("a", "120")]);
        assert_eq!(owing.when(&debit("a", "0.01")), refused("0.00", "0.01"));
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
            let rejection = Rejection::VersionMismatch { expected, actual: 2 };
            assert_eq!(three().when(&at(expected)), Err(rejection));
        }
        let given = three().and(&[credit("b", "1")]);
        let transfer_at = |version| match transfer("a", "b", "1") {
            Command::Transfer(order) => {
                Command::Transfer(Transfer { expected_version: Some(version), ..order })
            }
            other => other,
        };
        assert!(given.when(&transfer_at(2)).is_ok());
        let rejection = Rejection::VersionMismatch { expected: 3, actual: 2 };
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
            Command::Transfer(_) => Decimal::ZERO,
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
}
