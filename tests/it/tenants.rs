//! Tenants share the tables, the topic and the pipeline, and see nothing of each other.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wallex::app::{Caller, Callers, Scopes};
use wallex::cli::dev::child::free_port;
use wallex::config::{self, DatabaseSettings, Overrides, Secret};
use wallex::store::{self, Pools, Way};
use wallex::wallet::TenantId;

use crate::support::app::{Answer, App, Setup};
use crate::support::eventually;

const COUNT: &str = "select (select count(*) from wallets), (select count(*) from events), \
    (select count(*) from ledger_entries), (select count(*) from wallets_read_model), \
    (select count(*) from projected_versions)";

const PATIENCE: Duration = Duration::from_secs(60);
/// Says whose request it is, to this test's service alone.
const TENANT: &str = "x-tenant-of-the-test";
/// Tenants, and who owns their wallets.
const TENANTS: [(&str, &str); 2] = [("default", "it"), ("b", "b")];

/// The service in this process, with callers that are told apart. The binary has no such way.
struct Shared {
    base: String,
    client: reqwest::Client,
    stop: CancellationToken,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Shared {
    async fn start(app: &App) -> Self {
        let port = free_port().unwrap();
        let mut variables = app.variables().clone();
        variables.insert("PORT".to_owned(), port.to_string());
        let variables = variables.into_iter().collect();
        let (settings, _) = config::load_from(&variables, &Overrides::new()).unwrap();
        let callers = Callers::new(|headers| {
            let tenant = headers.get(TENANT).and_then(|value| value.to_str().ok());
            let tenant = TenantId::stored(tenant.unwrap_or("default"));
            Caller { tenant, actor: None, scopes: Scopes::All }
        });
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let stop = CancellationToken::new();
        let running = wallex::app::run_for(callers, settings, metrics, stop.clone());
        let service = tokio::spawn(running);
        let base = format!("http://127.0.0.1:{port}");
        let client = app.client.clone();
        eventually("ready", PATIENCE, async || {
            let answer = client.get(format!("{base}/readyz")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        Self { base, client, stop, service }
    }

    async fn get(&self, tenant: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base)).header(TENANT, tenant);
        Answer::of(request.send().await.unwrap()).await
    }

    async fn post(&self, tenant: &str, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base)).header(TENANT, tenant);
        let request = request.header("idempotency-key", key).json(body);
        Answer::of(request.send().await.unwrap()).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.service.await.unwrap().unwrap();
    }
}

/// The same commands for each tenant, with the same ids and keys, at the same time: four events each.
async fn some_history(service: &Shared) {
    for (path, body) in [
        ("/wallets", json!({"walletId": "w", "initialBalance": "5"})),
        ("/wallets", json!({"walletId": "v"})),
        ("/wallets/w/credit", json!({"amount": "7", "reference": "r"})),
        ("/wallets/w/transfer", json!({"toWalletId": "v", "amount": "2"})),
    ] {
        let answers = TENANTS.map(async |(tenant, owner)| {
            let mut body = body.clone();
            if path == "/wallets" {
                body["ownerId"] = json!(owner);
            }
            let key = format!("{path}-{}", body["walletId"].as_str().unwrap_or_default());
            let first = service.post(tenant, path, &key, &body).await;
            assert_eq!(first.status, 201, "{tenant}: {}", first.text);
            assert_eq!(first.header("idempotency-replayed"), "", "{tenant}: a key of its own");
            let again = service.post(tenant, path, &key, &body).await;
            assert_eq!(again.header("idempotency-replayed"), "true", "{tenant}");
            assert_eq!(again.text, first.text, "{tenant}");
        });
        futures_util::future::join_all(answers).await;
    }
}

/// Everything that a caller can read of two wallets, without the ids that differ.
async fn seen(service: &Shared, tenant: &str) -> Value {
    let wallet = service.get(tenant, "/wallets/w").await.json();
    let list = service.get(tenant, "/wallets").await.json();
    let owners: Vec<&Value> = list.as_array().unwrap().iter().map(|w| &w["ownerId"]).collect();
    let events = service.get(tenant, "/wallets/w/events").await.json();
    let events = events["events"].as_array().unwrap();
    let tenants: Vec<&Value> = events.iter().map(|event| &event["tenantId"]).collect();
    let summary = service.get(tenant, "/ledger/wallet/w/summary").await.json();
    let count = async |path: &str| service.get(tenant, path).await.json()["count"].clone();
    json!({
        "owner": wallet["ownerId"],
        "balance": wallet["balance"],
        "owners": owners,
        "tenants": tenants,
        "credits": summary["totalCredits"],
        "entries": [
            count("/ledger/wallet/w").await,
            count("/ledger/transactions").await,
            count("/ledger/reference/r").await,
        ],
    })
}

async fn assert_apart(app: &App, service: &Shared) {
    for (tenant, owner) in TENANTS {
        let expected = json!({
            "owner": owner, "balance": "10.00", "owners": [owner, owner],
            "tenants": [tenant, tenant, tenant, tenant], "credits": "12.00", "entries": [3, 4, 1],
        });
        assert_eq!(seen(service, tenant).await, expected, "{tenant}");
    }
    assert_eq!(service.get("c", "/wallets/w").await.status, 404);
    // The transaction of another tenant is as one that is not there.
    let events = service.get("b", "/wallets/w/events").await.json();
    let id = events["events"][0]["data"]["transactionId"].as_str().unwrap();
    let path = format!("/transactions/{id}");
    assert_eq!(service.get("b", &path).await.json()["events"][0]["walletId"], "w");
    let foreign = service.get("default", &path).await;
    assert_eq!((foreign.status, foreign.code().as_str()), (404, "transaction_not_found"));
    let statement = "/wallets/w/statement?from=2020-01-01";
    assert_eq!(service.get("b", statement).await.json()["closingBalance"], "10.00");
    assert_eq!(service.get("c", statement).await.status, 404);
    assert_eq!(service.get("c", "/wallets").await.json(), json!([]));
    assert_eq!(service.get("c", "/ledger/transactions").await.json()["count"], 0);
    app.assert_reconciled();
}

async fn one_pipeline_serves_two(setup: Setup) {
    let app = setup.migrated();
    let service = Shared::start(&app).await;
    some_history(&service).await;
    app.drain().await;
    assert_apart(&app, &service).await;
    let status = service.get("default", "/health/kafka").await.json();
    for (group, state) in status["consumers"].as_object().unwrap() {
        assert_eq!(state["lag"], 0, "{group}: {status}");
    }
    // No task, lease or checkpoint is a tenant's.
    let rows = "select (select count(distinct tenant_id) from projector_checkpoints), \
        (select count(distinct tenant_id) from partition_leases)";
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(rows).fetch_one(&app.pool).await.unwrap(), (1, 1));
    let letters: i64 =
        sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&app.pool).await.unwrap();
    assert_eq!(letters, 0);
    // Lost and made again, of both.
    sqlx::query("delete from postings where wallet_id = 'w'").execute(&app.pool).await.unwrap();
    let (clean, said) = app.reconcile();
    assert!(!clean && said.contains("tenant b: ") && said.contains("tenant default: "), "{said}");
    for projection in ["ledger", "read-model"] {
        let rebuilt = app.wallex(&["projections", "rebuild", projection, "--yes"]);
        assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    }
    assert_apart(&app, &service).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_with_the_same_wallets_see_their_own_through_kafka() {
    one_pipeline_serves_two(Setup::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_with_the_same_wallets_see_their_own_without_kafka() {
    one_pipeline_serves_two(Setup::without_kafka()).await;
}

/// The same rows as the default tenant has, of another one.
async fn copy(app: &App, tenant: &str) {
    for table in ["wallets", "events", "postings", "wallets_read_model", "projected_wallets"] {
        let columns: String = sqlx::query_scalar(
            "select string_agg(quote_ident(column_name), ', ') from information_schema.columns \
             where table_schema = current_schema() and table_name = $1 and column_name <> 'tenant_id'",
        )
        .bind(table)
        .fetch_one(&app.pool)
        .await
        .unwrap();
        let copied = format!(
            "insert into {table} (tenant_id, {columns}) select $1, {columns} from {table} \
             where tenant_id = 'default'"
        );
        sqlx::query(sqlx::AssertSqlSafe(copied)).bind(tenant).execute(&app.pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_forgets_its_tenant_sees_its_own_rows_only() {
    let app = Setup::without_kafka().start().await;
    app.open("w", "5").await;
    app.open("v", "0").await;
    app.drain().await;
    copy(&app, "b").await;
    copy(&app, "c").await;
    let url = Secret::new(app.variable("DATABASE_URL"));
    let settings =
        DatabaseSettings { url: url.clone(), migration_url: url.clone(), max_connections: 2 };
    let pools = Pools::new(&Way::new(&url), &settings).unwrap();

    type Counts = (i64, i64, i64, i64, i64);
    let own: Counts = (2, 3, 2, 2, 4);
    // One connection, which serves tenants by turns.
    for (tenant, expected) in [
        ("b", own),
        ("default", own),
        ("c", own),
        ("d", Counts::default()),
        ("", Counts::default()),
    ] {
        let mut session = store::session(&pools.reads, &TenantId::stored(tenant)).await.unwrap();
        let seen: Counts = sqlx::query_as(COUNT).fetch_one(&mut *session).await.unwrap();
        assert_eq!(seen, expected, "{tenant:?}");
    }
    // What carries events on serves all of them.
    let all: Counts = sqlx::query_as(COUNT).fetch_one(&pools.pipeline).await.unwrap();
    assert_eq!(all, (6, 9, 6, 6, 12));
    // A connection that died while it was idle is no caller's trouble.
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name = 'wallex-reads' and datname = current_database()",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    store::session(&pools.reads, &TenantId::stored("b")).await.unwrap();
    pools.close().await;
}
