//! The same keys at once, on one instance and on two.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use wallex::execute::Key;
use wallex::wallet::{Command, CreateWallet, Currency, IdOrigin, WalletId};

use super::{assert_replay, count, send, wallet};
use crate::support::app::{Answer, Setup};
use crate::support::eventually;

/// Exactly one of the answers is the first; all others are its replays.
#[track_caller]
fn assert_one_effect(answers: &[Answer]) {
    let is_first = |answer: &&Answer| answer.header("idempotency-replayed").is_empty();
    let firsts: Vec<&Answer> = answers.iter().filter(is_first).collect();
    let [first] = firsts[..] else { panic!("{} effects: {firsts:#?}", firsts.len()) };
    assert_eq!(first.status, 201, "{}", first.text);
    answers.iter().filter(|answer| !is_first(answer)).for_each(|again| assert_replay(first, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_under_one_key_are_one_effect() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let body = r#"{"amount":"1"}"#;
    let answers = join_all((0..100).map(|_| send(&app, "/wallets/w/credit", "k", body))).await;
    assert_one_effect(&answers);
    let answers =
        join_all((0..100).map(|_| send(&app, "/wallets", "k", r#"{"ownerId":"o"}"#))).await;
    assert_one_effect(&answers);
    assert_eq!((count(&app, "wallets").await, count(&app, "events").await), (2, 4));
    assert_eq!(wallet(&app, "w").await["balance"], "11.00");
    app.drain().await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_one_set_of_keys() {
    let app = Setup::without_kafka().start().await;
    let other = app.second_instance().await;
    app.open("w", "0").await;
    // The id is made by whoever decides: only the key says that it is the same wallet.
    for round in 0..20 {
        let (key, body) = (format!("make-{round}"), r#"{"ownerId":"o"}"#);
        let answers = join_all([&app, &other].map(|app| send(app, "/wallets", &key, body))).await;
        assert_one_effect(&answers);
    }
    assert_eq!(count(&app, "wallets").await, 21);
    let keys: Vec<String> = (0..500).map(|n| format!("pay-{n}")).collect();
    let pay = async |key: &String| {
        let body = r#"{"amount":"1","metadata":{"a":[1,2]}}"#;
        join_all([&app, &other].map(|app| send(app, "/wallets/w/credit", key, body))).await
    };
    for answers in join_all(keys.iter().map(pay)).await {
        assert_one_effect(&answers);
    }
    let w = wallet(&other, "w").await;
    assert_eq!((&w["balance"], &w["version"]), (&json!("500.00"), &json!(501)));
    app.drain().await;
    app.assert_reconciled();
}

/// Another instance is between its INSERT of the key and its COMMIT: it is waited for, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_first_request_is_held_up_is_in_flight() {
    let app = Setup::without_kafka().start().await;
    let body = r#"{"walletId":"new","ownerId":"o"}"#;
    let command = Command::Create(CreateWallet {
        id: (WalletId::stored("new"), IdOrigin::Given),
        owner_id: "o".to_owned(),
        currency: Currency::USD,
        initial_balance: None,
        overdraft_limit: 0.into(),
        metadata: None,
    });
    let key = Key::new("k", &command);
    let mut twin = app.pool.begin().await.unwrap();
    let refusal =
        r#"{"rejection": {"code": "wallet_exists", "wallet": "new"}, "requestId": "twin"}"#;
    let taken = "insert into idempotency_keys (tenant_id, scope_hash, fingerprint, \
                     transaction_id, status, answer, created_at) \
                 values ('default', $1, $2, $3, 409, $4, now())";
    let insert = sqlx::query(taken).bind(&key.scope[..]).bind(&key.fingerprint[..]);
    let insert = insert.bind(uuid::Uuid::now_v7()).bind(refusal);
    insert.execute(&mut *twin).await.unwrap();
    let begun = Instant::now();
    let waiting = send(&app, "/wallets", "k", body).await;
    assert_eq!((waiting.status, waiting.code().as_str()), (409, "idempotency_key_in_flight"));
    assert_eq!((waiting.header("retry-after"), &waiting.json()["retryable"]), ("1", &json!(true)));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    // Decided while a retry waits: the retry gets that answer.
    let (retry, ()) = tokio::join!(send(&app, "/wallets", "k", body), async {
        let queued = async || {
            let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                         and datname = current_database())";
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&app.pool).await.unwrap().then_some(())
        };
        eventually("the retry to wait", Duration::from_secs(5), queued).await;
        twin.commit().await.unwrap();
    });
    assert_eq!((retry.status, retry.code().as_str()), (409, "wallet_exists"));
    assert_eq!(retry.json()["requestId"], "twin");
    assert_eq!(retry.header("idempotency-replayed"), "true");
    assert_eq!(count(&app, "wallets").await, 0);
}

/// The first request commits after the second has looked for the wallet and before it looks for the
/// key: the answer is made of what is read then.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_that_commits_in_between_is_answered_again() {
    let app = Setup::without_kafka().start().await;
    let body = json!({"walletId": "w", "ownerId": "it", "initialBalance": "3"});
    let first = app.post_with_key("/wallets", "k", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    let mut stranger = app.pool.acquire().await.unwrap();
    for statement in [
        "create temp table w as select * from wallets; create temp table e as select * from events; \
         create temp table k as select * from idempotency_keys",
        "delete from idempotency_keys; delete from events; delete from wallets",
        "begin; lock table idempotency_keys",
    ] {
        sqlx::raw_sql(statement).execute(&mut *stranger).await.unwrap();
    }
    let again = app.post_with_key("/wallets", "k", &body);
    let commit = async {
        eventually("the second request to look for the key", Duration::from_secs(10), async || {
            let asleep = "select exists (select from pg_locks where not granted \
                          and relation = 'idempotency_keys'::regclass)";
            sqlx::query_scalar(asleep).fetch_one(&app.pool).await.unwrap_or(false).then_some(())
        })
        .await;
        let put_back = "insert into wallets select * from w; insert into events select * from e; \
                        insert into idempotency_keys select * from k; commit";
        sqlx::raw_sql(put_back).execute(&mut *stranger).await.unwrap();
    };
    let (again, ()) = tokio::join!(again, commit);
    let again = again.unwrap();
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (201, "true"),
        "{}",
        again.text
    );
    assert_eq!(again.text, first.text);
}
