//! The topics: created as configured, drift shown and never mended, tenants' own, other names; and a
//! count of partitions that is raised at the broker moves no wallet.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{App, Setup};
use crate::support::checker;
use crate::support::load::{Load, Plan};
use crate::support::servers::kafka_tool_said as tool;
use crate::support::{eventually, servers, topic};

const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

fn wallex(app: &App, arguments: &[&str]) -> String {
    let output = tokio::task::block_in_place(|| app.wallex(arguments));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn describe(app: &App, topic: &str) -> Value {
    serde_json::from_str(&wallex(app, &["topics", "describe", topic, "--json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_shown_and_left_alone() {
    let app = Setup::shared().start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let name = app.topic.as_str();
    assert_eq!(wallex(&app, &["topics", "ensure"]), "all topics are there, as they should be\n");
    let view = describe(&app, name);
    assert_eq!((&view["exists"], &view["hashedOver"]), (&json!(true), &json!(10)), "{view}");
    assert_eq!((&view["key"], &view["drift"]), (&json!("wallet"), &json!([])), "{view}");
    assert_eq!((&view["offline"], &view["underReplicated"]), (&json!(0), &json!(0)), "{view}");
    assert_eq!(view["partitions"].as_array().unwrap().len(), 10);
    let wanted = json!({
        "cleanup.policy": "delete", "compression.type": "gzip", "retention.ms": "604800000",
        "max.message.bytes": "10485760",
    });
    assert_eq!(view["configs"], wanted);

    tool(CONFIGS, &["--alter", "--topic", name, "--add-config", "retention.ms=86400000"]);
    let difference = json!([{
        "topic": name, "what": "retention.ms", "wanted": "604800000", "actual": "86400000",
    }]);
    eventually("the difference is shown", PATIENCE, async || {
        (describe(&app, name)["drift"] == difference).then_some(())
    })
    .await;
    let told = format!("{name}: retention.ms is 86400000, the settings say 604800000\n");
    assert_eq!(wallex(&app, &["topics", "ensure"]), told);
    assert_eq!(describe(&app, name)["drift"], difference, "nothing was changed");
    let listed = wallex(&app, &["topics", "list"]);
    let line = format!("{name}: 10 partitions, hashed over 10, by wallet, healthy, 1 differences");
    assert!(listed.lines().any(|found| found == line), "{listed}");
    let served = app.get("/admin/topics").await;
    assert_eq!((served.status, &served.json()[0]["drift"]), (200, &difference), "{}", served.text);
    let none = app.get("/admin/topics/none").await;
    assert_eq!((none.status, none.code().as_str()), (404, "topic_not_found"));
    let unknown = app.wallex(&["topics", "describe", "none"]);
    assert_eq!(unknown.status.code(), Some(1));

    let asked = "/admin/topics/recommend?rate=5000&consumers=4&keys=3&key=tenant";
    assert_eq!(app.get(asked).await.json()["partitions"], 3);
    assert_eq!(app.get("/admin/topics/recommend?key=colour").await.status, 400);
    let said = wallex(&app, &["topics", "recommend", "--rate", "5000", "--keys", "100000"]);
    assert!(said.starts_with("10 partitions\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_gets_topics_of_its_own_and_loses_them() {
    let app = Setup::shared().start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    let own = format!("{}.acme", app.topic);
    let letters = format!("{own}-dlq");
    let dry = wallex(&app, &["topics", "create-tenant", "acme", "--dry-run"]);
    assert_eq!(dry, format!("{own} would be created\n{letters} would be created\n"));
    let count: i64 = sqlx::query_scalar("select count(*) from topics where tenant_id = 'acme'")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(count, 0, "a dry run writes nothing");
    let made = app.post("/admin/topics/create-tenant", json!({"tenantId": "acme"})).await;
    assert_eq!((made.status, &made.json()["created"]), (200, &json!([own, letters])));
    let again = wallex(&app, &["topics", "create-tenant", "acme"]);
    assert_eq!(again, "all topics are there, as they should be\n");
    let seen = tool(TOPICS, &["--describe", "--topic", &own]);
    assert!(
        seen.contains("PartitionCount: 10") && seen.contains("retention.ms=604800000"),
        "{seen}"
    );
    assert_eq!(describe(&app, &own)["tenant"], "acme");
    assert_eq!(describe(&app, &letters)["partitions"].as_array().unwrap().len(), 5);
    // `ensure` makes again what somebody deleted.
    tool(TOPICS, &["--delete", "--topic", &letters]);
    eventually("the topic is gone", PATIENCE, async || {
        (describe(&app, &letters)["exists"] == false).then_some(())
    })
    .await;
    assert_eq!(wallex(&app, &["topics", "ensure"]), format!("{letters} created\n"));

    let unasked = app.wallex(&["topics", "delete-tenant", "acme"]);
    assert!(!unasked.status.success(), "there is nobody to ask");
    let dry = wallex(&app, &["topics", "delete-tenant", "acme", "--dry-run"]);
    assert_eq!(dry, format!("{own} would be deleted\n{letters} would be deleted\n"));
    assert_eq!(describe(&app, &own)["exists"], true);
    let gone = wallex(&app, &["topics", "delete-tenant", "acme", "--yes"]);
    assert_eq!(gone, format!("{own} deleted\n{letters} deleted\n"));
    let listed = tool(TOPICS, &["--list"]);
    assert!(!listed.contains(&own), "{listed}");
    assert!(!wallex(&app, &["topics", "list"]).contains(&own));
    assert!(listed.lines().any(|line| line == app.topic), "everybody's topic is still there");
    for name in ["default", "acme-dlq", "a b", ""] {
        let refused = app.post("/admin/topics/delete-tenant", json!({"tenantId": name})).await;
        assert_eq!(refused.status, 400, "{name}: {}", refused.text);
    }
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_names_the_topics_and_compaction_is_warned_of() {
    let prefix = format!("billing-engine-{}", uuid::Uuid::now_v7().simple());
    let mut app = Setup::shared()
        .with("KAFKA_TOPIC_TEMPLATE", format!("{prefix}.{{aggregate}}.events"))
        .with("DEFAULT_PARTITIONS", 3)
        .with("MESSAGE_RETENTION_DAYS", 365)
        .with("KAFKA_CLEANUP_POLICY", "compact")
        .start()
        .await;
    app.topic = format!("{prefix}.wallet.events");
    for number in 0..5 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    app.drain().await;
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    let seen = tool(TOPICS, &["--describe", "--topic", &app.topic]);
    for wanted in
        ["PartitionCount: 3", "retention.ms=31536000000", "max.message.bytes=10485760", "=compact"]
    {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    let said = wallex(&app, &["topics", "ensure"]);
    assert!(
        said.contains("warning: KAFKA_CLEANUP_POLICY=compact") && said.contains("compact,delete")
    );
    app.set("KAFKA_TOPIC_TEMPLATE", "billing-engine.events");
    let refused = app.wallex(&["config", "check"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("KAFKA_TOPIC_TEMPLATE"));
}

/// Two instances under load; the broker's count goes from 10 to 16, and an instance starts anew.
#[tokio::test(flavor = "multi_thread")]
async fn more_partitions_at_the_broker_split_no_wallets_order() {
    let first = Setup::shared().start().await;
    let mut second = first.second_instance().await;
    let plan = Plan { workers: 16, think: Duration::from_millis(2), ..Plan::default() };
    let load = Load::start(&[&first.base, &second.base], plan).await;
    load.advance(300).await;
    tool(TOPICS, &["--alter", "--topic", &first.topic, "--partitions", "16"]);
    eventually("the broker has 16", PATIENCE, async || {
        let view = describe(&first, &first.topic);
        (view["partitions"].as_array()?.len() == 16).then_some(())
    })
    .await;
    load.advance(500).await;
    second.restart().await;
    load.advance(500).await;
    let journal = load.settle().await;
    let figures = checker::assert_events(&first.pool, &journal.lines()).await;
    first.drain().await;
    let found = topic::assert_same(&servers::kafka().bootstrap, &first).await;
    let view = describe(&first, &first.topic);
    assert_eq!(view["hashedOver"], 10);
    assert_eq!(view["drift"][0]["what"], "partitions", "{view}");
    let beyond: i64 = sqlx::query_scalar("select count(*) from events where partition > 9")
        .fetch_one(&first.pool)
        .await
        .unwrap();
    assert_eq!(beyond, 0);
    first.assert_reconciled();
    println!("10 to 16 under load: 0 order violations; {figures:?} {found:?}");
}
