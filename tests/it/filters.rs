//! Lists with filters: right, in pages, and by an index however many rows there are.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
const WALLETS: i64 = 200_000;
const ENTRIES: i64 = 300_000;

async fn ids(app: &App, query: &str) -> Vec<String> {
    let answer = app.get(&format!("/wallets?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let wallets = answer.json();
    wallets.as_array().unwrap().iter().map(|w| w["id"].as_str().unwrap().to_owned()).collect()
}

async fn amounts(app: &App, query: &str) -> Vec<Value> {
    let answer = app.get(&format!("/ledger/transactions?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let entries = answer.json();
    entries["transactions"].as_array().unwrap().iter().map(|of| of["amount"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_are_found_by_members_of_their_metadata() {
    let app = Setup::without_kafka().start().await;
    for (id, owner, metadata) in [
        ("a", "x", json!({"tier": "gold", "n": 5})),
        ("b", "y", json!({"tier": "gold", "n": "5", "nested": {"deep": [1, 2]}})),
        ("c", "x", json!({"tier": "silver", "long": "ä".repeat(2000), "a=b": "c", "a": "b=c"})),
        ("d", "y", Value::Null),
        ("e", "y", json!({"tier": null, "on": true, "big": 1e300})),
    ] {
        let body = match metadata {
            Value::Null => json!({"walletId": id, "ownerId": owner}),
            metadata => json!({"walletId": id, "ownerId": owner, "metadata": metadata}),
        };
        assert_eq!(app.post("/wallets", body).await.status, 201);
    }
    app.drain().await;
    for (query, found) in [
        ("metadata.tier=gold", vec!["b", "a"]),
        ("metadata.tier=gold&ownerId=x", vec!["a"]),
        // A number and a text are alike in a query.
        ("metadata.n=5", vec!["b", "a"]),
        ("metadata.n=5&metadata.tier=gold", vec!["b", "a"]),
        ("metadata.n=6&metadata.tier=gold", vec![]),
        ("metadata.on=true", vec!["e"]),
        ("metadata.tier=silver&currency=USD&status=active", vec!["c"]),
        ("metadata.tier=silver&currency=EUR", vec![]),
        ("metadata.a%3Db=c", vec!["c"]),
        ("metadata.a=b%3Dc", vec!["c"]),
        ("metadata.tier=GOLD", vec![]),
        ("metadata.none=x", vec![]),
    ] {
        assert_eq!(ids(&app, query).await, found, "{query}");
    }
    let long = format!("metadata.long={}", "%C3%A4".repeat(2000));
    assert_eq!(ids(&app, &long).await, ["c"]);
    // In pages, by the link of each.
    let mut path = "/wallets?metadata.tier=gold&limit=1".to_owned();
    for id in ["b", "a"] {
        let page = app.get(&path).await;
        assert_eq!(page.json()[0]["id"], id);
        path = page.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(app.get(&path).await.json(), json!([]));
    // A projection that is made again finds them as before.
    let rebuilt = app.wallex(&["projections", "rebuild", "read-model", "--yes"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert_eq!(ids(&app, "metadata.tier=gold").await, ["b", "a"]);
    let terms: i64 =
        sqlx::query_scalar("select count(*) from wallet_terms").fetch_one(&app.pool).await.unwrap();
    // Two of "c" are of one term.
    assert_eq!(terms, 2 + 3 + 3 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_by_what_they_moved() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "10").await;
    let yen = json!({"walletId": "y", "ownerId": "it", "currency": "JPY", "initialBalance": "12"});
    assert_eq!(app.post("/wallets", yen).await.status, 201);
    for amount in ["12.5", "12", "3.01", "12.50"] {
        let body = json!({"amount": amount, "reference": "r"});
        assert_eq!(app.post("/wallets/w/credit", body).await.status, 201);
    }
    app.drain().await;
    let today = "startDate=2026-01-01T00:00:00Z&endDate=2026-03-01";
    let now = chrono::Utc::now().format("startDate=%Y-%m-%d").to_string();
    for (query, found) in [
        ("amount=12.50", vec!["12.50", "12.50"]),
        ("amount=12.5&reference=r", vec!["12.50", "12.50"]),
        ("amount=12", vec!["12.00", "12"]),
        ("amount=12&currency=JPY", vec!["12"]),
        ("currency=JPY", vec!["12"]),
        ("minAmount=10&maxAmount=12&currency=USD", vec!["12.00", "10.00"]),
        ("maxAmount=3.01", vec!["3.01"]),
        ("maxAmount=3.00", vec![]),
        ("minAmount=12.51", vec![]),
    ] {
        assert_eq!(amounts(&app, &format!("{query}&{now}")).await, found, "{query}");
        assert_eq!(amounts(&app, &format!("{query}&{today}")).await, [""; 0], "{query}");
    }
    let of_wallet = app.get("/ledger/wallet/w?amount=12.5").await.json();
    assert_eq!(of_wallet["count"], 2);
    // All entries of all times are not searched for it.
    for query in ["amount=1", "currency=USD", "minAmount=1", "amount=1&startDate=2020-01-01"] {
        let refused = app.get(&format!("/ledger/transactions?{query}")).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_value"), "{query}");
    }
    for query in ["amount=x", "amount=-1", "minAmount=1e3", "currency=usd"] {
        assert_eq!(app.get(&format!("/ledger/transactions?{query}&{now}")).await.status, 400);
    }
    assert_eq!(amounts(&app, "amount=12&reference=r").await, ["12.00"]);
}

async fn fill(app: &App) {
    let sql = format!(
        "insert into wallets_read_model (tenant_id, id, owner_id, currency, status, balance, version, metadata, \
             created_at, updated_at) \
         select 'default', 'f' || g, 'o' || g % 5000, case when g % 10000 = 7 then 'JPY' else 'USD' end, \
             case when g % 20000 = 9 then 'frozen' else 'active' end, 0, 1, \
             json_build_object('tier', g % 2, 'customer', g), now() - g * interval '1 s', now() \
         from generate_series(1, {WALLETS}) g; \
         insert into postings (tenant_id, wallet_id, version, id, event_id, transaction_id, created_at, \
             transaction_type, side, amount, currency, counter_account, balance_before, balance_after, \
             reference_id) \
         select 'default', 'f' || g % 1000, 1 + g / 1000, gen_random_uuid(), gen_random_uuid(), \
             gen_random_uuid(), now() - interval '80 days' + g * interval '20 s', 'CREDIT', 'CREDIT', \
             1 + g % 997, 'USD', 'external', 0, 0, 'r' || g from generate_series(1, {ENTRIES}) g; \
         analyze"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&app.pool).await.unwrap();
}

async fn scans(app: &App) -> i64 {
    let sql = "select sum(seq_scan)::bigint from pg_stat_user_tables \
        where relname in ('wallets_read_model', 'wallet_terms', 'postings')";
    sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_filter_reads_a_whole_table() {
    let app = Setup::without_kafka().start().await;
    // Its sessions have planned all of it while there was nothing.
    assert_eq!(ids(&app, "metadata.customer=17&limit=50").await.len(), 0);
    fill(&app).await;
    let before = scans(&app).await;
    let start = (chrono::Utc::now() - chrono::TimeDelta::days(81)).format("%Y-%m-%d");
    for (path, found) in [
        ("/wallets?limit=50".to_owned(), 50),
        ("/wallets?metadata.customer=17&limit=50".to_owned(), 1),
        ("/wallets?metadata.tier=1&limit=50".to_owned(), 50),
        ("/wallets?metadata.tier=1&metadata.customer=17&limit=50".to_owned(), 1),
        ("/wallets?ownerId=o17&limit=50".to_owned(), 40),
        ("/wallets?currency=JPY&limit=50".to_owned(), 20),
        ("/wallets?status=frozen&limit=50".to_owned(), 10),
        ("/wallets?status=closed&limit=50".to_owned(), 0),
        (format!("/ledger/transactions?reference=r17&startDate={start}"), 1),
        (format!("/ledger/transactions?amount=500&currency=USD&startDate={start}"), 50),
        (format!("/ledger/transactions?minAmount=500&startDate={start}"), 50),
        ("/ledger/wallet/f17?amount=500".to_owned(), 0),
    ] {
        let mut took = Vec::new();
        for _ in 0..10 {
            let begun = Instant::now();
            let answer = app.get(&path).await;
            took.push(begun.elapsed());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            let json = answer.json();
            let rows = json.as_array().or_else(|| json["transactions"].as_array()).unwrap().len();
            assert!(rows == found || found == 0, "{path}: {rows}");
        }
        took.sort();
        println!("{path}: {:?}", took[5]);
    }
    // What the sessions counted arrives a second later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = eventually("counted", PATIENCE, async || Some(scans(&app).await)).await;
    assert_eq!(after, before, "a table was read whole");
}
