//! Repairs of the outbox: refused rows tried again, events sent again in order, and a health page
//! that says when somebody has to ask for it.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use wallex::projector::Projection;
use wallex::republisher;
use wallex::store::leases::{self, Leased, Member};
use wallex::store::outbox::floors::Floor;
use wallex::store::outbox::marks::{Mark, mark};
use wallex::store::outbox::repair::{self, RetrySelector};
use wallex::store::outbox::republish::{OUTSTANDING_MAX, RepublishSelector, Step};
use wallex::store::outbox::{OutboxRow, claim};
use wallex::wallet::TenantId;

use crate::projectors::books::{
    Books, PARTITIONS, TOPIC, create, credit, id, some_history, transfer,
};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers, topic};

mod batches;
mod floors;

const PATIENCE: Duration = Duration::from_secs(60);

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Sends as the publisher does, without Kafka: claims, and marks what it claimed.
struct Sender {
    leased: Leased,
    /// By partition.
    epochs: BTreeMap<i32, i64>,
    /// Every record, by wallet.
    sent: BTreeMap<String, Vec<i64>>,
}

impl Sender {
    async fn new(books: &Books) -> Self {
        let leased = Leased {
            tenant: "default".to_owned(),
            role: leases::PUBLISHER,
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
        };
        let lease = Duration::from_secs(600);
        let member = Member { owner: "sender".to_owned(), session: None, lease };
        let mut connection = books.pool.acquire().await.unwrap();
        leases::open(&mut connection, &leased).await.unwrap();
        let renewed = leases::renew(&mut connection, &leased, &member).await.unwrap();
        let epochs: BTreeMap<i32, i64> =
            renewed.leases.iter().map(|lease| (lease.partition, lease.epoch)).collect();
        assert_eq!(epochs.len(), PARTITIONS as usize);
        Self { leased, epochs, sent: BTreeMap::new() }
    }

    async fn claim(books: &Books, limit: i64) -> Vec<OutboxRow> {
        let all: Vec<Floor> = (0..PARTITIONS).map(Floor::none).collect();
        claim(&books.pool, TOPIC, &all, limit).await.unwrap()
    }

    async fn mark(&mut self, books: &Books, rows: Vec<OutboxRow>) -> usize {
        self.confirm(books, &rows).await;
        let count = rows.len();
        for row in rows {
            self.sent.entry(row.wallet_id).or_default().push(row.version);
        }
        count
    }

    /// Marks, as after a request that was answered.
    async fn confirm(&self, books: &Books, rows: &[OutboxRow]) {
        let mut marks: BTreeMap<i32, Mark> = BTreeMap::new();
        for row in rows {
            let (partition, epoch) = (row.partition, self.epochs[&row.partition]);
            let of = || Mark { partition, epoch, ..Mark::default() };
            marks.entry(partition).or_insert_with(of).events.push(row.slot.clone());
        }
        let marks: Vec<Mark> = marks.into_values().collect();
        let standing = mark(&books.pool, &self.leased, &marks).await.unwrap();
        assert_eq!(standing.len(), marks.len());
    }

    async fn send(&mut self, books: &Books, limit: i64) -> usize {
        let rows = Self::claim(books, limit).await;
        self.mark(books, rows).await
    }

    async fn send_all(&mut self, books: &Books) {
        while self.send(books, 500).await > 0 {}
    }

    /// What a consumer has that begins here and only ever takes the next version.
    fn taken(&self) -> BTreeMap<&str, i64> {
        let taken = |versions: &Vec<i64>| {
            versions.iter().fold(0, |last, version| last + i64::from(*version == last + 1))
        };
        self.sent.iter().map(|(wallet, versions)| (wallet.as_str(), taken(versions))).collect()
    }
}

async fn step(books: &Books) -> Step {
    republisher::step(&books.pool, &tenant(), TOPIC).await.unwrap()
}

async fn ask(books: &Books, selection: RepublishSelector) -> (i64, i64) {
    let dry = republisher::ask(&books.pool, &tenant(), &selection, true).await.unwrap();
    let counts = republisher::ask(&books.pool, &tenant(), &selection, false).await.unwrap();
    assert_eq!(dry, counts);
    (counts.wallets, counts.events)
}

fn last_versions(books: &Books) -> BTreeMap<&str, i64> {
    books.wallets.iter().map(|(id, wallet)| (id.as_str(), wallet.version)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wallet_is_sent_again_whole_and_in_order_whatever_goes_on_meanwhile() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    // Longer than a step and than what may wait at once: it is sent again in parts.
    let mut commands = vec![create("long", "USD", Some("1"))];
    commands.extend((0..OUTSTANDING_MAX + 1500).map(|_| credit("long", "0.01")));
    for batch in commands.chunks(1000) {
        books.write(batch).await;
    }
    Sender::new(&books).await.send_all(&books).await;
    books.write(&[credit("w1", "1"), transfer("w2", "w3", "1"), credit("long", "1")]).await;

    let before: i64 = books.wallets.values().map(|wallet| wallet.version).sum();
    assert_eq!(ask(&books, RepublishSelector::All).await, (22, before));
    let mut topic = Sender::new(&books).await;
    // Claimed before anything was written, sent and marked after.
    let in_flight = Sender::claim(&books, 100).await;
    assert_eq!(in_flight.len(), 4);
    let mut in_flight = Some(in_flight);
    let mut full = 0;
    let mut held = 0;
    for round in 0.. {
        assert!(round < 10_000);
        match step(&books).await {
            Step::Idle => break,
            Step::Wrote(events) => assert!(events <= 1000, "{events} in one step"),
            Step::Full => full += 1,
        }
        if let Some(rows) = in_flight.take() {
            topic.mark(&books, rows).await;
        }
        let wallets = ["w1", "w7", "long"];
        books.write(&wallets.map(|wallet| credit(wallet, "0.01"))).await;
        let begun = books.count("select count(*) from outbox_republications where begun").await;
        let rows = Sender::claim(&books, 700).await;
        if begun > 0 {
            held += 1;
            assert!(rows.iter().all(|row| row.wallet_id != "long" || row.is_again()), "held back");
        }
        if round % 2 == 0 {
            topic.mark(&books, rows).await;
        }
    }
    assert!(full + held > 5, "full {full}, held {held}");
    topic.send_all(&books).await;
    assert_eq!(topic.taken(), last_versions(&books));
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_begins_where_it_says_and_leaves_nothing_out_behind_it() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let middle = chrono::Utc::now();
    books.write(&[credit("w1", "1"), credit("w4", "1")]).await;
    Sender::new(&books).await.send_all(&books).await;
    let rest = |wallet: &str| books.wallets[&id(wallet)].version;
    assert_eq!(ask(&books, RepublishSelector::Since(middle)).await, (2, 2));
    // Asked for twice, from further back: it is listed once.
    assert_eq!(ask(&books, RepublishSelector::Wallet(id("w4"))).await, (1, rest("w4")));
    assert_eq!(ask(&books, RepublishSelector::Wallet(id("nobody"))).await, (0, 0));
    while step(&books).await != Step::Idle {}
    let mut topic = Sender::new(&books).await;
    topic.send_all(&books).await;
    let expected = BTreeMap::from([
        ("w1".to_owned(), vec![rest("w1")]),
        ("w4".to_owned(), (1..=rest("w4")).collect()),
    ]);
    assert_eq!(topic.sent, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_back_marks_no_row_that_sends_an_event_again() {
    let mut books = Books::open().await;
    books.write(&[create("w", "USD", Some("5"))]).await;
    Sender::new(&books).await.send_all(&books).await;
    books.write(&[credit("w", "1")]).await;
    ask(&books, RepublishSelector::All).await;
    step(&books).await;
    let found: Vec<wallex::store::outbox::Found> = Sender::claim(&books, 10)
        .await
        .into_iter()
        .map(|row| wallex::store::outbox::Found {
            tenant_id: row.slot.tenant_id,
            wallet_id: row.wallet_id,
            version: row.version,
            event_id: row.event_id,
        })
        .collect();
    assert_eq!(found.len(), 4, "three again, and the new one");
    let here = crate::projectors::books::partition(&id("w"));
    let marked = wallex::store::outbox::waiting(&books.pool, TOPIC, here, 0, &found).await.unwrap();
    assert!(marked.len() == 1 && marked[0].id > 0, "{marked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_holds_its_wallet_until_it_is_tried_again() {
    let mut books = Books::open().await;
    books.write(&[create("a", "USD", Some("5")), create("b", "USD", None)]).await;
    books.write(&[credit("a", "1")]).await;
    sqlx::query(
        "insert into outbox_refusals select tenant_id, aggregate_id, event_version, id, 3, 'too large' \
         from outbox where aggregate_id = 'a' and event_version = 2",
    )
    .execute(&books.pool)
    .await
    .unwrap();
    let wallets = |rows: Vec<OutboxRow>| -> Vec<String> {
        rows.into_iter().map(|row| row.wallet_id).collect()
    };
    assert_eq!(wallets(Sender::claim(&books, 100).await), ["b"]);
    let mut connection = books.pool.acquire().await.unwrap();
    let state = repair::state(&mut connection, &tenant()).await.unwrap();
    assert_eq!(state.backlog, 4);
    let [refused] = state.refused.as_slice() else { panic!("{state:?}") };
    assert_eq!((refused.wallet_id.as_str(), refused.version, refused.waiting), ("a", 2, 1));
    assert!(refused.held);
    let retried = async |which: RetrySelector, dry_run| {
        repair::retried(&books.pool, &tenant(), &which, dry_run).await.unwrap()
    };
    assert_eq!(retried(RetrySelector::Wallet(id("b")), false).await, 0);
    assert_eq!(retried(RetrySelector::Ids(vec![refused.id, 99]), true).await, 1);
    assert_eq!(wallets(Sender::claim(&books, 100).await), ["b"], "it was only a count");
    assert_eq!(retried(RetrySelector::Ids(vec![refused.id, 99]), false).await, 1);
    assert_eq!(retried(RetrySelector::All, false).await, 0);
    let versions: Vec<i64> = Sender::claim(&books, 100)
        .await
        .into_iter()
        .filter(|row| row.wallet_id == "a")
        .map(|row| row.version)
        .collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_events_sent_again_are_settled_like_others() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for kind in Projection::ALL {
        books.project(kind).await;
    }
    books.project(Projection::LEDGER).await;
    let unpublished =
        "select count(*) from outbox where processed_at is not null and not published";
    let events = books.count("select count(*) from events").await;
    assert_eq!(books.count(unpublished).await, events);
    assert_eq!(ask(&books, RepublishSelector::Unpublished).await, (21, events));
    while step(&books).await != Step::Idle {}
    assert_eq!(books.count(unpublished).await, 0, "what was never sent is in rows that wait");
    assert_eq!(books.count("select count(*) from outbox where processed_at is null").await, events);
    books.project(Projection::LEDGER).await;
    assert_eq!(books.count(unpublished).await, events);
    books.assert_clean().await;
}

async fn health(app: &App) -> (String, bool) {
    let health = app.get("/health/kafka").await.json();
    let awaits = health["publisher"]["awaitsRepublication"].as_bool().unwrap();
    (health["status"].as_str().unwrap().to_owned(), awaits)
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_enabled_later_gets_what_it_missed_once_somebody_asks() {
    let mut app = Setup::shared().with("KAFKA_ENABLED", false).start().await;
    for number in 0..30 {
        app.open(&format!("w{number}"), "10").await;
    }
    app.drain().await;
    let refused = app.post("/admin/outbox/republish", json!({"unpublished": true})).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "kafka_disabled"));
    assert!(!app.wallex(&["outbox", "republish", "--unpublished", "--yes"]).status.success());
    assert_eq!(health(&app).await.0, "disabled");

    app.stop();
    app.set("KAFKA_ENABLED", true);
    app.restart().await;
    eventually("degraded although all is connected", PATIENCE, async || {
        let page = app.get("/health/kafka").await.json();
        let connected = page["kafka"]["status"] == "connected";
        (connected && health(&app).await == ("degraded".to_owned(), true)).then_some(())
    })
    .await;
    let counted = app.post("/admin/outbox/republish", json!({"unpublished": true, "dryRun": true}));
    let counted = counted.await;
    assert_eq!(counted.json(), json!({"wallets": 30, "events": 60, "dryRun": true}));
    let unasked = app.wallex(&["outbox", "republish", "--unpublished"]);
    assert!(!unasked.status.success(), "nobody can be asked");
    assert_eq!(app.get("/admin/outbox").await.json()["unpublished"], 60);

    let done = app.wallex(&["outbox", "republish", "--unpublished", "--yes"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    eventually("healthy again", PATIENCE, async || {
        (health(&app).await == ("healthy".to_owned(), false)).then_some(())
    })
    .await;
    app.drain().await;
    let found = topic::assert_same(&servers::kafka().bootstrap, &app).await;
    assert_eq!(found.duplicates, 0);
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_topic_is_filled_again_by_whoever_is_left_alive() {
    let mut app = Setup::shared().start().await;
    for number in 0..20 {
        app.open(&format!("w{number}"), "10").await;
    }
    app.drain().await;
    app.stop();
    let class = "org.apache.kafka.tools.TopicCommand";
    let deleted = servers::kafka_tool(class, &["--delete", "--topic", &app.topic]);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    // Asked for while no service runs, by a command that does not wait: the next start does it.
    let asked = app.wallex(&["outbox", "republish", "--all", "--yes", "--no-wait"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    app.restart().await;
    // Killed while it is at it; whoever comes next goes on.
    app.kill(Signal::SIGKILL);
    app.restart().await;
    for number in 0..20 {
        app.open(&format!("v{number}"), "10").await;
    }
    eventually("all of it sent again", PATIENCE, async || {
        let state = app.get("/admin/outbox").await.json();
        (state["backlog"] == 0 && state["republication"]["wallets"] == 0).then_some(())
    })
    .await;
    app.drain().await;
    topic::assert_same(&servers::kafka().bootstrap, &app).await;
    app.assert_reconciled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_the_routes_show_and_retry_refused_rows() {
    let app = Setup::shared().start().await;
    app.open("w", "10").await;
    let credited = app.post("/wallets/w/credit", json!({"amount": "1"})).await;
    assert_eq!(credited.status, 201);
    app.drain().await;
    let refuse = async || {
        sqlx::raw_sql(
            "insert into outbox_refusals select tenant_id, aggregate_id, event_version, id, 3, \
                 'the broker did not take it' from outbox where event_version = 3; \
             update outbox_batches set processed_at = null, published = false where versions = '{3}'",
        )
        .execute(&app.pool)
        .await
        .unwrap();
    };
    refuse().await;
    let said = String::from_utf8(app.wallex(&["outbox", "status"]).stdout).unwrap();
    assert!(said.contains("1 events wait") && said.contains("did not take it"), "{said}");
    let state: serde_json::Value =
        serde_json::from_slice(&app.wallex(&["outbox", "status", "--json"]).stdout).unwrap();
    assert_eq!(state["refused"][0]["walletId"], "w");
    let usage = |arguments: &[&str]| app.wallex(arguments).status.code();
    assert_eq!(usage(&["outbox", "retry"]), Some(2));
    assert_eq!(usage(&["outbox", "republish"]), Some(2));
    assert_eq!(usage(&["outbox", "republish", "--all", "--unpublished"]), Some(2));
    let done = app.wallex(&["outbox", "retry", "--wallet", "w"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "1 refused rows are tried again\n");
    app.drain().await;
    refuse().await;
    for wrong in [json!({}), json!({"all": true, "walletId": "w"}), json!({"ids": ["x"]})] {
        let answer = app.post("/admin/outbox/retry", wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_value"));
    }
    let answer = app.post("/admin/outbox/retry", json!({"all": true})).await;
    assert_eq!(answer.json(), json!({"rows": 1, "dryRun": false}));
    app.drain().await;
    assert_eq!(app.get("/admin/outbox").await.json()["refused"], json!([]));
}
