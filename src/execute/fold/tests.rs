//! A batch in memory: what it decides, what it would write, and what a refusal leaves behind.

use rust_decimal::Decimal;

use super::*;
use crate::execute::Key;
use crate::store::commands::StoredKeys;
use crate::wallet::{
    Amount, CreateWallet, Currency, Details, IdOrigin, Movement, Rejection, Transfer,
};

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn id(text: &str) -> WalletId {
    WalletId::stored(text)
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

/// An active wallet in USD at version 1.
fn wallet(name: &str, balance: i64) -> Wallet {
    let currency = Currency::USD;
    Wallet {
        id: id(name),
        owner_id: "o".to_owned(),
        currency,
        status: wallet::Status::Active,
        balance: currency.scaled(balance.into()),
        held_balance: currency.scaled(Decimal::ZERO),
        overdraft_limit: currency.scaled(Decimal::ZERO),
        version: 1,
        metadata: None,
        created_at: NOW,
        updated_at: NOW,
        upkeep: wallet::Upkeep::default(),
    }
}

fn create(origin: IdOrigin) -> Command {
    Command::Create(CreateWallet {
        id: (id("new"), origin),
        owner_id: "o".to_owned(),
        currency: Currency::USD,
        initial_balance: Some(amount("5")),
        overdraft_limit: Decimal::ZERO,
        metadata: None,
    })
}

fn movement(name: &str, value: &str) -> Movement {
    let (details, expected_version) = (Details::default(), None);
    Movement { wallet_id: id(name), amount: amount(value), details, expected_version }
}

fn credit(name: &str, value: &str) -> Command {
    Command::Credit(movement(name, value))
}

fn debit(name: &str, value: &str) -> Command {
    Command::Debit(movement(name, value))
}

fn transfer(from: &str, to: &str, value: &str) -> Command {
    let (details, expected_version) = (Details::default(), None);
    let (from, to, amount) = (id(from), id(to), amount(value));
    Command::Transfer(Transfer { from, to, amount, details, expected_version })
}

/// A request named `name`; each command has a key where one is given.
fn request(name: &str, atomic: bool, commands: Vec<(Command, Option<&str>)>) -> Request {
    let operation = |(command, key): (Command, Option<&str>)| {
        let key = key.map(|key| Key::new(key, &command));
        Operation { command, key, context: None }
    };
    Request {
        tenant: TenantId::stored("t"),
        operations: commands.into_iter().map(operation).collect(),
        atomic,
        context: Context { request_id: name.to_owned(), ..Context::default() },
        key: None,
        dry_run: false,
    }
}

fn one(name: &str, command: Command) -> Request {
    request(name, false, vec![(command, Some("k"))])
}

fn over<'a>(tenant: &'a TenantId, wallets: Vec<Wallet>, keys: StoredKeys) -> Fold<'a> {
    let keys = KnownKeys::new(keys, HashMap::new());
    Fold::new(tenant, 10, World::new(NOW, wallets), keys, HashSet::new())
}

/// The balances that an outcome shows, or the rejection.
fn shown(outcome: &Outcome) -> Result<Vec<String>, Rejection> {
    match &outcome.as_ref().unwrap().result {
        Ok(effect) => Ok(effect.wallets.iter().map(|wallet| wallet.balance.to_string()).collect()),
        Err(refusal) => Err(refusal.rejection.clone()),
    }
}

fn balances<'a>(shown: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, Rejection> {
    Ok(shown.into_iter().map(str::to_owned).collect())
}

#[test]
fn each_command_sees_what_the_ones_before_it_did() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![wallet("a", 10), wallet("b", 0)], StoredKeys::new());
    let all = vec![
        (credit("a", "5"), None),
        (transfer("a", "b", "15"), None),
        (debit("a", "0.01"), None),
        (debit("b", "1"), None),
    ];
    let outcomes = fold.request(&request("r", false, all)).unwrap().each;
    assert_eq!(shown(&outcomes[0]), balances(["15.00"]));
    assert_eq!(shown(&outcomes[1]), balances(["0.00", "15.00"]));
    assert!(matches!(shown(&outcomes[2]), Err(Rejection::InsufficientFunds { .. })));
    assert_eq!(shown(&outcomes[3]), balances(["14.00"]));
    let writes = fold.finish();
    let versions: Vec<_> =
        writes.events.iter().map(|e| (e.wallet_id.as_str(), e.version)).collect();
    assert_eq!(versions, [("a", 2), ("a", 3), ("b", 2), ("b", 3)]);
    assert_eq!((writes.inserted.len(), writes.updated.len(), writes.keys.len()), (0, 2, 0));
}

#[test]
fn a_wallet_that_the_batch_opened_is_inserted_once_in_its_last_state() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![], StoredKeys::new());
    let all = vec![(create(IdOrigin::Given), None), (credit("new", "2"), None)];
    fold.request(&request("r", false, all)).unwrap();
    let writes = fold.finish();
    let inserted: Vec<_> =
        writes.inserted.iter().map(|(_, w)| (w.balance.to_string(), w.version)).collect();
    assert_eq!((inserted, writes.updated.len()), (vec![("7.00".to_owned(), 3)], 0));
}

#[test]
fn a_refused_atomic_request_leaves_no_trace_and_says_which_operation_it_was() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![wallet("a", 10), wallet("b", 0)], StoredKeys::new());
    fold.request(&one("before", credit("a", "1"))).unwrap();
    let all = vec![
        (create(IdOrigin::Given), Some("c")),
        (transfer("a", "b", "11"), Some("t")),
        (debit("b", "12"), Some("d")),
        (credit("a", "1"), None),
    ];
    let outcomes = fold.request(&request("whole", true, all)).unwrap().each;
    let abandoned: Vec<bool> =
        outcomes.iter().map(|o| matches!(o, Err(Failure::Abandoned))).collect();
    assert_eq!(abandoned, [true, true, false, true]);
    let refusal = outcomes[2].as_ref().unwrap().result.as_ref().unwrap_err();
    assert_eq!((refusal.operation, &*refusal.request_id), (Some(2), "whole"));
    // The wallet that it opened is gone, the others are as they were, and its keys are free.
    assert_eq!(fold.world.wallet(&id("new")), None);
    let after = request(
        "after",
        false,
        vec![(debit("a", "11"), None), (create(IdOrigin::Given), Some("c"))],
    );
    let after = fold.request(&after).unwrap().each;
    assert_eq!((shown(&after[0]), shown(&after[1])), (balances(["0.00"]), balances(["5.00"])));
    let writes = fold.finish();
    assert_eq!(writes.events.len(), 1 + 1 + 2);
    assert_eq!((writes.inserted.len(), writes.updated.len(), writes.keys.len()), (1, 1, 2));
}

/// A stand-in for an expiry: a command on wallet `a` at version 1 finds 3 USD that have expired.
fn three_dollars_expired(footprint: &Footprint<'_>, world: &World) -> Vec<NewEvent> {
    let wallets = footprint.wallets().filter_map(|id| world.wallet(id));
    let due = wallets.filter(|wallet| wallet.id == id("a") && wallet.version == 1);
    let expiry = |wallet: &Wallet| {
        let world = World::new(NOW, [wallet.clone()]);
        wallet::decide(&debit("a", "3"), &world, &Policy::default()).unwrap().events
    };
    due.flat_map(expiry).collect()
}

#[test]
fn what_was_due_happens_though_the_command_is_refused() {
    for atomic in [false, true] {
        let tenant = TenantId::stored("t");
        let mut fold = over(&tenant, vec![wallet("a", 10), wallet("b", 0)], StoredKeys::new());
        fold.rules.due = three_dollars_expired;
        let all = vec![(debit("a", "8"), Some("k")), (credit("b", "1"), None)];
        let outcomes = fold.request(&request("r", atomic, all)).unwrap().each;
        let Err(Rejection::InsufficientFunds { available, .. }) = shown(&outcomes[0]) else {
            panic!("{outcomes:?}");
        };
        assert_eq!(available.to_string(), "7.00");
        assert_eq!(fold.world.wallet(&id("a")).unwrap().version, 2);
        let writes = fold.finish();
        assert!(!writes.is_empty(), "the batch has something to commit");
        let by: Vec<_> = writes.events.iter().map(|e| e.origin.actor.as_deref()).collect();
        assert_eq!(by.first(), Some(&Some("system")));
        // The atomic request did nothing else; without, the other operation succeeded.
        assert_eq!(
            (writes.events.len(), writes.updated.len()),
            if atomic { (1, 1) } else { (2, 2) }
        );
    }
}

#[test]
fn what_was_due_and_the_command_are_two_transactions_in_that_order() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![wallet("a", 10)], StoredKeys::new());
    fold.rules.due = three_dollars_expired;
    let outcome = fold.request(&one("r", debit("a", "7"))).unwrap().only();
    assert_eq!(shown(&outcome), balances(["0.00"]));
    let writes = fold.finish();
    let [expiry, debit] = writes.events.as_slice() else { panic!("{:?}", writes.events) };
    assert_eq!((expiry.version, debit.version), (2, 3));
    assert_ne!(expiry.transaction_id, debit.transaction_id);
    assert_eq!(writes.keys[0].transaction_id, debit.transaction_id);
}

#[test]
fn a_request_with_a_contended_wallet_waits_whole() {
    let tenant = TenantId::stored("t");
    let other = id("b");
    let keys = KnownKeys::default();
    let world = World::new(NOW, [wallet("a", 10)]);
    let mut fold = Fold::new(&tenant, 10, world, keys, HashSet::from([&other]));
    assert!(fold.request(&one("r", transfer("a", "b", "1"))).is_none());
    assert!(fold.request(&one("r", credit("a", "1"))).is_some());
    let writes = fold.finish();
    assert_eq!((writes.events.len(), writes.keys.len()), (1, 1));
}

#[test]
fn a_key_keeps_versions_in_the_order_of_the_footprint_and_the_id_that_no_retry_can_name() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![wallet("a", 10), wallet("b", 0)], StoredKeys::new());
    let all = vec![
        (credit("b", "1"), None),
        (transfer("a", "b", "1"), Some("t")),
        (create(IdOrigin::Generated), Some("c")),
        (debit("a", "99"), Some("d")),
    ];
    fold.request(&request("r", false, all)).unwrap();
    let kept: Vec<StoredAnswer> = fold.finish().keys.into_iter().map(|key| key.answer).collect();
    let effect = |version, other_versions, wallet_id| StoredAnswer::Effect {
        version,
        other_versions,
        text: None,
        wallet_id,
    };
    assert_eq!(kept[..2], [effect(2, vec![3], None), effect(2, vec![], Some(id("new")))]);
    let StoredAnswer::Refusal(refusal) = &kept[2] else { panic!("{kept:?}") };
    assert_eq!((&*refusal.request_id, refusal.operation), ("r", None));
}

#[test]
fn what_the_caller_can_mend_is_not_kept() {
    let tenant = TenantId::stored("t");
    let mut fold = over(&tenant, vec![], StoredKeys::new());
    let outcome = fold.request(&one("r", credit("nowhere", "1"))).unwrap().only();
    assert!(matches!(shown(&outcome), Err(Rejection::WalletNotFound { .. })));
    assert!(fold.finish().is_empty());
}

#[test]
fn tenants_with_the_same_ids_and_keys_do_not_meet() {
    let tenants = ["t", "u"].map(TenantId::stored);
    let mut folds = HashMap::new();
    for tenant in &tenants {
        folds.insert(tenant, over(tenant, vec![wallet("a", 10)], StoredKeys::new()));
    }
    let (first, second) = (one("1", debit("a", "10")), one("2", debit("a", "10")));
    let second = Request { tenant: tenants[1].clone(), ..second };
    let requests = [first, second].map(QueuedRequest::unanswered);
    let Folded { outcomes, writes } = fold(folds, &requests);
    for outcome in outcomes {
        let outcome = outcome.unwrap().only();
        assert_eq!(shown(&outcome), balances(["0.00"]));
        assert!(!outcome.unwrap().replayed);
    }
    assert_eq!((writes.events.len(), writes.updated.len(), writes.keys.len()), (2, 2, 2));
}
