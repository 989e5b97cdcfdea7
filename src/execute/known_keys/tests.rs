//! What a key answers: from this batch, from an earlier one, or not any more.

use rust_decimal::Decimal;

use super::*;
use crate::store::commands::StoredKey;
use crate::wallet::{Amount, Currency, Details, Rejection, Status, Transfer};

const TRANSACTION: Uuid = Uuid::from_u128(7);

fn id(text: &str) -> WalletId {
    WalletId::stored(text)
}

fn transfer(amount: &str) -> Command {
    Command::Transfer(Transfer {
        from: id("a"),
        to: id("b"),
        amount: Amount::parse(amount).unwrap(),
        details: Details::default(),
        expected_version: None,
    })
}

fn wallet(name: &str, version: i64) -> Wallet {
    Wallet {
        id: id(name),
        owner_id: "o".to_owned(),
        currency: Currency::USD,
        status: Status::Active,
        balance: Decimal::ONE,
        held_balance: Decimal::ZERO,
        overdraft_limit: Decimal::ZERO,
        version,
        metadata: None,
        created_at: Default::default(),
        upkeep: Default::default(),
        updated_at: Default::default(),
    }
}

fn refusal() -> Refusal {
    let rejection = Rejection::WalletFrozen { wallet: id("a") };
    Refusal { rejection, operation: None, request_id: "first".into() }
}

/// The key of a transfer of 1, stored with `answer`.
fn stored(answer: StoredAnswer) -> (Key, StoredKeys) {
    let key = Key::new("k", &transfer("1"));
    let fingerprint = key.fingerprint.to_vec();
    let row = StoredKey { fingerprint, transaction_id: TRANSACTION, answer };
    (key.clone(), StoredKeys::from([(key.scope.to_vec(), row)]))
}

fn known(answer: StoredAnswer) -> (Key, KnownKeys) {
    let past = [("a", 4), ("b", 9)];
    let past = past.map(|(name, version)| ((id(name), version), wallet(name, version)));
    let (key, stored) = stored(answer);
    (key, KnownKeys::new(stored, HashMap::from(past)))
}

#[test]
fn an_effect_is_made_of_its_wallets_at_the_kept_versions() {
    let answer =
        StoredAnswer::Effect { version: 4, other_versions: vec![9], text: None, wallet_id: None };
    let (key, keys) = known(answer);
    let reply = keys.outcome(&key, &transfer("1")).unwrap().unwrap();
    let effect = reply.result.unwrap();
    assert!(reply.replayed);
    assert_eq!(effect.transaction_id, TRANSACTION);
    assert_eq!(effect.versions().collect::<Vec<_>>(), [(id("a"), 4), (id("b"), 9)]);
}

#[test]
fn an_effect_whose_events_are_in_an_archive_is_no_longer_told() {
    let answer =
        StoredAnswer::Effect { version: 4, other_versions: vec![10], text: None, wallet_id: None };
    let (key, keys) = known(answer);
    let expired = Failure::KeyExpired { transaction_id: TRANSACTION };
    assert_eq!(keys.outcome(&key, &transfer("1")), Some(Err(expired)));
}

#[test]
fn a_refusal_is_that_of_its_first_request() {
    let (key, keys) = known(StoredAnswer::Refusal(refusal()));
    let reply = keys.outcome(&key, &transfer("1")).unwrap().unwrap();
    assert_eq!((reply.result, reply.replayed), (Err(refusal()), true));
}

#[test]
fn a_dropped_answer_names_its_transaction() {
    let (key, keys) = known(StoredAnswer::Dropped);
    let expired = Failure::KeyExpired { transaction_id: TRANSACTION };
    assert_eq!(keys.outcome(&key, &transfer("1")), Some(Err(expired.clone())));
    assert_eq!(keys.state_of(&key, true), KeyState::Forbidden(expired));
    // The operations of a request that is not atomic have keys of their own.
    assert_eq!(keys.state_of(&key, false), KeyState::Taken { first: "".into() });
}

#[test]
fn another_command_under_the_key_is_refused_whether_stored_or_given() {
    let (_, mut keys) = known(StoredAnswer::Refusal(refusal()));
    let other = Key::new("k", &transfer("2"));
    assert_eq!(keys.outcome(&other, &transfer("2")), Some(Err(Failure::KeyReused)));
    let (given, twin) = (Key::new("n", &transfer("1")), Key::new("n", &transfer("2")));
    keys.give(&given, Err(refusal()));
    assert_eq!(keys.outcome(&twin, &transfer("2")), Some(Err(Failure::KeyReused)));
    assert!(keys.outcome(&given, &transfer("1")).unwrap().unwrap().replayed);
    keys.take_back(&given.scope);
    assert_eq!(keys.outcome(&given, &transfer("1")), None);
}

#[test]
fn the_key_of_a_request_tells_which_came_first() {
    let request_id = "r-1".into();
    let (key, mut keys) = known(StoredAnswer::Request { request_id });
    assert_eq!(keys.state_of(&key, false), KeyState::Taken { first: "r-1".into() });
    let free = Key::new("free", &transfer("1"));
    assert_eq!(keys.state_of(&free, false), KeyState::Free);
    keys.give_request(&free, "r-2".into());
    assert!(keys.is_taken(&free));
    assert_eq!(keys.state_of(&free, false), KeyState::Taken { first: "r-2".into() });
}

#[test]
fn a_generated_id_is_that_of_the_first_request() {
    let answer = StoredAnswer::Effect {
        version: 4,
        other_versions: vec![9],
        text: None,
        wallet_id: Some(id("first")),
    };
    let versions: Vec<_> = versions_of(&transfer("1"), &answer).collect();
    assert_eq!(versions, [(id("first"), 4), (id("b"), 9)]);
}
