//! Idempotency keys that are version 7 UUIDs lie with those of their month.

use chrono::{DateTime, Months, Utc};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::support::app::Setup;

fn key_of(at: DateTime<Utc>) -> String {
    let millis = u128::try_from(at.timestamp_millis()).unwrap();
    let random = Uuid::now_v7().as_u128() & ((1 << 80) - 1);
    Uuid::from_u128((millis << 80) | random).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_any_time_has_one_effect() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "0").await;
    let now = Utc::now();
    let (month, ages) = (now.format("idempotency_keys_%Y_%m").to_string(), Months::new(12 * 200));
    let cases = [
        (key_of(now), month.as_str()),
        (key_of(now.checked_sub_months(ages).unwrap_or(now).max(DateTime::UNIX_EPOCH)), "default"),
        (key_of(now.checked_add_months(ages).unwrap()), "default"),
        ("9f0c8d52-1f5c-4c1f-8d7e-3f6f0c9b2a11".to_owned(), "other"),
        ("order-19".to_owned(), "other"),
    ];
    for (n, (key, place)) in cases.iter().enumerate() {
        let body = json!({"amount": "1.00"});
        let first = app.post_with_key("/wallets/w/credit", key, &body).await.unwrap();
        let again = app.post_with_key("/wallets/w/credit", &key.to_uppercase(), &body).await;
        let third = app.post_with_key("/wallets/w/credit", key, &body).await.unwrap();
        assert_eq!((first.status, third.status), (201, 201), "{key}");
        assert_eq!(first.json(), third.json(), "{key}");
        assert_eq!(third.header("idempotency-replayed"), "true");
        assert_eq!(again.unwrap().status, 201, "other letters are another key");
        let found: Vec<String> = sqlx::query_scalar(
            "select tableoid::regclass::text from idempotency_keys order by created_at desc limit 2",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap();
        let wanted = match *place {
            place if place.starts_with("idempotency_keys") => place.to_owned(),
            place => format!("idempotency_keys_{place}"),
        };
        assert_eq!(found, [wanted.clone(), wanted], "{n}: {key}");
    }
    let one = app.get("/wallets/w").await.json();
    assert_eq!(one["balance"], json!("10.00"));
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_keys_goes_when_none_of_them_was_used_since() {
    let books = Books::open().await;
    let mut partitions = hasty(&books);
    let old = Utc::now().checked_sub_months(Months::new(20)).unwrap();
    sqlx::query("select wallex_add_month('idempotency_keys', $1)")
        .bind(old)
        .execute(&books.pool)
        .await
        .unwrap();
    let insert = |used_ago: &str| {
        format!(
            "insert into idempotency_keys (tenant_id, scope_hash, keyed_at, fingerprint, transaction_id, \
                 status, answer, created_at) select 'default', decode(md5('{used_ago}' || n), 'hex'), \
                 '{old}'::timestamptz, '\\x00', gen_random_uuid(), 400, '{{}}', \
                 now() - interval '{used_ago}' from generate_series(1, 100) n",
            old = old.to_rfc3339()
        )
    };
    run(&books, &insert("20 months")).await;
    // A caller keeps a key for months before it uses it.
    run(&books, &insert("3 months")).await;
    assert_eq!(partitions.step().await.unwrap().dropped, 0);
    run(&books, "update idempotency_keys set created_at = now() - interval '13 months'").await;
    assert_eq!(partitions.step().await.unwrap().dropped, 1);
    assert_eq!(count(&books, "select count(*) from idempotency_keys").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_refusals_under_keys_with_a_time_are_dropped_like_the_others() {
    let books = Books::open().await;
    run(
        &books,
        "insert into idempotency_keys (tenant_id, scope_hash, keyed_at, fingerprint, transaction_id, \
             status, answer, created_at) select 'default', decode(md5('k' || n), 'hex'), t, '\\x00', \
             gen_random_uuid(), 400, '{}', t from generate_series(1, 2500) n \
         cross join lateral (select now() - n * interval '2 minutes' as t) t",
    )
    .await;
    let old = "select count(*) from idempotency_keys where created_at < now() - interval '1 day'";
    let old = count(&books, old).await;
    assert_eq!(hasty(&books).step().await.unwrap().texts, old);
    let left = "select count(*) from idempotency_keys where answer is not null";
    assert_eq!(count(&books, left).await, 2500 - old);
    assert_eq!(count(&books, "select count(*) from idempotency_keys").await, 2500);
}
