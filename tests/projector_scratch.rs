#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use rust_decimal::Decimal;
use sqlx::{Executor, PgPool, Row};
use tokio::sync::Notify;
use uuid::Uuid;
use wallex::cli::reconcile::checked;
use wallex::config::{ConsumerSettings, DatabaseSettings, Secret};
use wallex::envelope::{AGGREGATE_TYPE, Envelope, partition_of, timestamp};
use wallex::kafka::{Fetched, Fetcher, Log};
use wallex::projector::{Kind, OpenPartition, Projector, Wiring};
use wallex::status::Status;
use wallex::store;
use wallex::wallet::*;

const TOPIC: &str = "wallet-events";
const PARTITIONS: i32 = 10;

struct Db {
    pool: PgPool,
    wallets: HashMap<WalletId, Wallet>,
    published: Vec<(i32, Fetched)>,
}

async fn db() -> Db {
    let base = std::env::var("SCRATCH_PG").unwrap();
    let admin = PgPool::connect(&format!("{base}/postgres")).await.unwrap();
    let name = format!("t{}", Uuid::now_v7().simple());
    admin.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    let url = Secret::new(format!("{base}/{name}"));
    let settings = DatabaseSettings { url: url.clone(), migration_url: url, max_connections: 10 };
    store::migrate(&settings).await.unwrap();
    let pool = store::connect_pool(&settings).unwrap();
    sqlx::query("insert into topics (tenant_id, name, partitions) values ('default', $1, $2)")
        .bind(TOPIC)
        .bind(PARTITIONS)
        .execute(&pool)
        .await
        .unwrap();
    Db {
        pool: PgPool::connect(&format!("{base}/{name}")).await.unwrap(),
        wallets: HashMap::new(),
        published: Vec::new(),
    }
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}
fn id(text: &str) -> WalletId {
    WalletId::parse(text).unwrap()
}

fn create(w: &str, currency: &str, initial: Option<&str>) -> Command {
    Command::Create(CreateWallet {
        id: (id(w), IdOrigin::Given),
        owner_id: format!("owner-{}", &w[..1]),
        currency: Currency::parse(currency).unwrap(),
        initial_balance: initial.map(amount),
        overdraft_limit: Decimal::ZERO,
        metadata: Some(Metadata::parse(r#"{"tier":"gold","n":1.10}"#).unwrap()),
    })
}
fn credit(w: &str, a: &str) -> Command {
    Command::Credit(Movement {
        wallet_id: id(w),
        amount: amount(a),
        details: Details {
            description: Some("d".into()),
            reference: Some(format!("ref-{w}")),
            metadata: Some(Metadata::parse(r#"{"k":"v"}"#).unwrap()),
        },
        expected_version: None,
    })
}
fn transfer(from: &str, to: &str, a: &str) -> Command {
    Command::Transfer(Transfer {
        from: id(from),
        to: id(to),
        amount: amount(a),
        details: Details::default(),
        expected_version: None,
    })
}

impl Db {
    /// Writes commands in one transaction as the write path does; returns how many events.
    async fn write(&mut self, commands: &[Command]) -> usize {
        let mut tx = self.pool.begin().await.unwrap();
        let n = self.write_in(&mut tx, commands).await;
        tx.commit().await.unwrap();
        n
    }

    async fn write_in(&mut self, tx: &mut sqlx::PgConnection, commands: &[Command]) -> usize {
        let mut rows: Vec<(NewEvent, Uuid, Uuid)> = Vec::new();
        for command in commands {
            let transaction = Uuid::now_v7();
            let events = decide(command, |id| self.wallets.get(id), transaction).unwrap();
            let at = Utc::now();
            let at = chrono::DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap();
            for event in events {
                match &event.data {
                    EventData::WalletCreated(c) => {
                        let currency = Currency::parse(&c.currency).unwrap();
                        self.wallets.insert(
                            event.wallet_id.clone(),
                            Wallet::open(event.wallet_id.clone(), currency, c, at),
                        );
                    }
                    data => {
                        self.wallets.get_mut(&event.wallet_id).unwrap().apply(data, at);
                    }
                }
                rows.push((event, Uuid::now_v7(), transaction));
            }
        }
        let at = chrono::DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap();
        let part = |w: &WalletId| partition_of(w.as_str(), PARTITIONS);
        sqlx::query("insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, transaction_id, partition, created_at) select 'default', e.* from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::json[], $6::uuid[], $7::int[], $8::timestamptz[]) e")
            .bind(rows.iter().map(|r| r.0.wallet_id.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.0.version).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.1).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.0.data.event_type().as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| serde_json::to_string(&r.0.data).unwrap()).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.2).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| part(&r.0.wallet_id)).collect::<Vec<_>>())
            .bind(rows.iter().map(|_| at).collect::<Vec<_>>())
            .execute(&mut *tx).await.unwrap();
        sqlx::query("insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at) select 'default', e.a, e.t, e.v, 'wallet-events', e.p, e.c from unnest($1::text[], $2::text[], $3::bigint[], $4::int[], $5::timestamptz[]) e(a,t,v,p,c)")
            .bind(rows.iter().map(|r| r.0.wallet_id.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.0.data.event_type().as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| r.0.version).collect::<Vec<_>>())
            .bind(rows.iter().map(|r| part(&r.0.wallet_id)).collect::<Vec<_>>())
            .bind(rows.iter().map(|_| at).collect::<Vec<_>>())
            .execute(&mut *tx).await.unwrap();
        let touched: std::collections::BTreeSet<_> =
            rows.iter().map(|r| r.0.wallet_id.clone()).collect();
        for w in touched {
            let w = self.wallets.get(&w).unwrap();
            sqlx::query("insert into wallets (tenant_id, id, owner_id, currency, status, balance, overdraft_limit, version, metadata, created_at, updated_at) values ('default',$1,$2,$3,'active',$4,$5,$6,$7::json,$8,$8) on conflict (tenant_id, id) do update set balance = excluded.balance, version = excluded.version, updated_at = excluded.updated_at")
                .bind(w.id.as_str()).bind(&w.owner_id).bind(w.currency.code()).bind(w.balance).bind(w.overdraft_limit).bind(w.version)
                .bind(w.metadata.as_ref().map(Metadata::as_str)).bind(at)
                .execute(&mut *tx).await.unwrap();
        }
        for (event, event_id, _) in &rows {
            let data = serde_json::value::to_raw_value(&event.data).unwrap();
            let value = Envelope {
                event_id: *event_id,
                event_type: event.data.event_type().as_str(),
                aggregate_type: AGGREGATE_TYPE,
                aggregate_id: event.wallet_id.as_str(),
                aggregate_version: event.version,
                schema_version: 1,
                tenant_id: "default",
                timestamp: timestamp(at),
                correlation_id: None,
                causation_id: None,
                data: &data,
            }
            .to_json()
            .unwrap();
            let fetched = Fetched {
                offset: 0,
                key: Some(event.wallet_id.as_str().as_bytes().to_vec()),
                value: Some(value),
                headers: BTreeMap::new(),
                timestamp: at,
            };
            self.published.push((part(&event.wallet_id), fetched));
        }
        rows.len()
    }

    fn logs(&self) -> Vec<Log> {
        (0..PARTITIONS).map(|_| Log::default()).collect()
    }

    /// Sends what was written since to the in-memory topic.
    fn publish(&mut self, logs: &[Log]) {
        for (partition, record) in self.published.drain(..) {
            push(&logs[usize::try_from(partition).unwrap()], record);
        }
    }

    fn projector(&self, kind: Kind, kafka: Option<Vec<Log>>) -> Projector {
        self.projector_at(kind, kafka, 500, true)
    }

    fn projector_at(
        &self,
        kind: Kind,
        kafka: Option<Vec<Log>>,
        max: usize,
        outbox: bool,
    ) -> Projector {
        Projector::new(Wiring {
            kind,
            tenant: TenantId::default_tenant(),
            topic: TOPIC.into(),
            consumer: ConsumerSettings {
                max_poll_records: max,
                max_wait: Duration::from_millis(20),
                group_prefix: String::new(),
                feed_kafka: true,
                feed_outbox: outbox,
            },
            kafka: kafka.map(|logs| -> OpenPartition {
                Arc::new(move |p| Fetcher(logs[usize::try_from(p).unwrap()].clone()))
            }),
            pool: self.pool.clone(),
            commits: Arc::new(Notify::new()),
            status: Status::default(),
        })
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn clean(&self) {
        let report = checked(&self.pool, &TenantId::default_tenant()).await.unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert!(report.lag.iter().all(|l| l.events == 0), "{:?}", report.lag);
    }
    async fn red(&self) -> Vec<&'static str> {
        let report = checked(&self.pool, &TenantId::default_tenant()).await.unwrap();
        report.equations.iter().filter(|e| e.count > 0).map(|e| e.name).collect()
    }
}

fn push(log: &Log, mut record: Fetched) -> i64 {
    let mut log = log.lock().unwrap();
    record.offset = log.last().map_or(0, |r: &Fetched| r.offset + 1);
    log.push(record);
    log.last().unwrap().offset
}

/// Steps until nothing is left: at most `n` steps with pauses for the tick.
async fn catch_up(db: &Db, projector: &mut Projector) -> (u64, u64, u64, u64) {
    let (mut a, mut d, mut h, mut l) = (0, 0, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut idle = 0;
    while Instant::now() < deadline && idle < 8 {
        let p = projector.step().await.unwrap();
        a += p.outcome.applied;
        d += p.outcome.duplicates;
        h += p.outcome.healed;
        l += p.outcome.dead_letters;
        if p.chunks == 0 {
            idle += 1;
            tokio::time::sleep(Duration::from_millis(40)).await;
        } else {
            idle = 0;
        }
    }
    let _ = db;
    (a, d, h, l)
}

fn some_commands() -> Vec<Command> {
    let mut c = Vec::new();
    for i in 0..20 {
        c.push(create(&format!("w{i}"), "USD", Some("100.00")));
    }
    c.push(create("y1", "JPY", None));
    c.push(credit("y1", "500"));
    for i in 0..20 {
        c.push(credit(&format!("w{i}"), "1.25"));
        c.push(transfer(&format!("w{i}"), &format!("w{}", (i + 7) % 20), "3.10"));
    }
    c
}

#[tokio::test]
async fn without_kafka_the_books_reach_both_projections_and_the_outbox_is_settled() {
    let mut db = db().await;
    let n = db.write(&some_commands()).await;
    let mut ledger = db.projector(Kind::Ledger, None);
    let mut model = db.projector(Kind::ReadModel, None);
    let (applied, dup, healed, _) = catch_up(&db, &mut ledger).await;
    assert_eq!((applied, dup, healed), (n as u64, 0, 0));
    assert_eq!(db.count("select count(*) from outbox where processed_at is not null").await, 0);
    assert_eq!(catch_up(&db, &mut model).await.0, n as u64);
    catch_up(&db, &mut ledger).await;
    assert_eq!(
        db.count("select count(*) from outbox where processed_at is null or published").await,
        0
    );
    db.clean().await;
    // reads
    let mut c = db.pool.acquire().await.unwrap();
    let t = TenantId::default_tenant();
    let s = store::entries::summary(&mut c, &t, &id("w0")).await.unwrap();
    assert_eq!(
        (s.total_credits.as_str(), s.total_debits.as_str(), s.transaction_count),
        ("104.35", "3.10", 4)
    );
    assert_eq!(s.last.unwrap().version, 5);
    let y = store::entries::summary(&mut c, &t, &id("y1")).await.unwrap();
    assert_eq!((y.total_credits.as_str(), y.total_debits.as_str()), ("500", "0"));
    let none = store::entries::summary(&mut c, &t, &id("nobody")).await.unwrap();
    assert_eq!((none.total_credits.as_str(), none.transaction_count, none.last), ("0.00", 0, None));
    let f = store::entries::EntryFilter { limit: 2, ..Default::default() };
    let page = store::entries::of_wallet(&mut c, &t, &id("w0"), &f, None).await.unwrap();
    assert_eq!(page.iter().map(|e| e.version).collect::<Vec<_>>(), [5, 4]);
    let page = store::entries::of_wallet(&mut c, &t, &id("w0"), &f, Some(4)).await.unwrap();
    assert_eq!(page.iter().map(|e| e.version).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(page[0].amount.to_string(), "1.25");
    assert_eq!(store::entries::of_reference(&mut c, &t, "ref-w0", 50).await.unwrap().len(), 1);
    let shared = store::entries::of_wallet(
        &mut c,
        &t,
        &id("w0"),
        &store::entries::EntryFilter {
            transaction_type: Some(wallex::ledger::TransactionType::TransferOut),
            limit: 9,
            ..Default::default()
        },
        None,
    )
    .await
    .unwrap();
    let both = store::entries::of_reference(&mut c, &t, &shared[0].reference_id, 50).await.unwrap();
    assert_eq!(both.len(), 2);
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let f = store::entries::EntryFilter { limit: 7, ..Default::default() };
        let page = store::entries::of_all(&mut c, &t, &f, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(store::entries::EntryCursor {
            created_at: last.created_at,
            event_id: last.event_id,
        });
        all.extend(page);
    }
    let unique: std::collections::HashSet<_> = all.iter().map(|e| e.event_id).collect();
    assert_eq!(
        (all.len() as i64, unique.len()),
        (db.count("select count(*) from ledger_entries where leg = 0").await, all.len())
    );
    let date = store::entries::EntryFilter {
        start: Some(all[0].created_at),
        end: Some(all[0].created_at),
        limit: 500,
        ..Default::default()
    };
    assert!(!store::entries::of_all(&mut c, &t, &date, None).await.unwrap().is_empty());
    assert_eq!(
        store::entries::projected_version(&mut c, &t, "ledger-projector", &id("w0")).await.unwrap(),
        5
    );
    use store::read_model::{WalletFilter, list};
    let f = WalletFilter {
        limit: 15,
        owner_id: Some("owner-w".into()),
        metadata: vec![("tier".into(), "gold".into())],
        ..Default::default()
    };
    let one = list(&mut c, &t, &f).await.unwrap();
    let l = one.last().unwrap();
    let two =
        list(&mut c, &t, &WalletFilter { after: Some((l.created_at, l.id.clone())), ..f.clone() })
            .await
            .unwrap();
    assert_eq!((one.len(), two.len()), (15, 5));
    assert_eq!(
        list(
            &mut c,
            &t,
            &WalletFilter {
                currency: Currency::parse("JPY"),
                status: Some(wallex::wallet::Status::Active),
                ..WalletFilter { limit: 9, ..Default::default() }
            }
        )
        .await
        .unwrap()
        .len(),
        1
    );
    assert_eq!(
        list(
            &mut c,
            &t,
            &WalletFilter {
                metadata: vec![("tier".into(), "x".into())],
                limit: 5,
                ..Default::default()
            }
        )
        .await
        .unwrap()
        .len(),
        0
    );
    assert_eq!(one[0].balance.scale(), 2);
}

#[tokio::test]
async fn a_late_commit_is_met_later_and_not_skipped() {
    let mut db = db().await;
    db.write(&[create("a", "USD", Some("5")), create("b", "USD", Some("5"))]).await;
    let mut ledger = db.projector(Kind::Ledger, None);
    catch_up(&db, &mut ledger).await;
    // an old transaction that stays open
    let pool = db.pool.clone();
    let mut late = pool.begin().await.unwrap();
    db.write_in(&mut late, &[credit("a", "1")]).await;
    for _ in 0..5 {
        db.write(&[credit("b", "1")]).await;
    }
    assert_eq!(catch_up(&db, &mut ledger).await.0, 5, "a long transaction holds nothing up");
    late.commit().await.unwrap();
    for _ in 0..3 {
        db.write(&[credit("b", "1")]).await;
    }
    assert_eq!(catch_up(&db, &mut ledger).await.0, 4);
    // and it can be followed for more than a window while the long one runs
    let mut long = pool.begin().await.unwrap();
    db.write_in(&mut long, &[credit("a", "1")]).await;
    let mut small = db.projector_at(Kind::Ledger, None, 2, true);
    for _ in 0..9 {
        db.write(&[credit("b", "1")]).await;
    }
    assert_eq!(catch_up(&db, &mut small).await.0, 9);
    long.commit().await.unwrap();
    assert_eq!(catch_up(&db, &mut small).await.0, 1);
    let mut model = db.projector(Kind::ReadModel, None);
    catch_up(&db, &mut model).await;
    db.clean().await;
}

#[tokio::test]
async fn kafka_records_duplicates_gaps_and_garbage() {
    let mut db = db().await;
    let logs = db.logs();
    let n = db.write(&some_commands()).await;
    db.publish(&logs);
    let mut ledger = db.projector_at(Kind::Ledger, Some(logs.clone()), 500, false);
    let mut model = db.projector_at(Kind::ReadModel, Some(logs.clone()), 3, false);
    let (a, d, h, l) = catch_up(&db, &mut ledger).await;
    assert_eq!((a, d, h, l), (n as u64, 0, 0, 0));
    assert_eq!(catch_up(&db, &mut model).await.0, n as u64);
    db.clean().await;
    // the same records again: duplicates, nothing changes
    for log in &logs {
        let again = log.lock().unwrap().clone();
        for r in again {
            push(log, r);
        }
    }
    let (a, d, h, l) = catch_up(&db, &mut ledger).await;
    assert_eq!((a, d, h, l), (0, n as u64, 0, 0));
    // a gap: the first two of three records are lost
    db.write(&[credit("w3", "1"), credit("w3", "2")]).await;
    db.published.clear();
    db.write(&[credit("w3", "3")]).await;
    db.publish(&logs);
    let (a, d, h, l) = catch_up(&db, &mut ledger).await;
    assert_eq!((a, d, h, l), (3, 0, 2, 0));
    // garbage
    let p = usize::try_from(partition_of("w3", PARTITIONS)).unwrap();
    let other = (p + 1) % 10;
    let mut real = logs[p].lock().unwrap().last().unwrap().clone();
    let bad = |v: &[u8]| Fetched {
        offset: 0,
        key: Some(vec![0xff]),
        value: Some(v.to_vec()),
        headers: BTreeMap::from([("h".into(), b"a\0b".to_vec())]),
        timestamp: Utc::now(),
    };
    push(&logs[p], bad(b"{"));
    push(&logs[p], bad(b"\xff\xfe\0"));
    push(&logs[p], Fetched { value: None, key: None, ..bad(b"") });
    push(&logs[other], real.clone()); // a true event in a foreign partition
    let text = String::from_utf8(real.value.clone().unwrap()).unwrap();
    let version = db.wallets[&id("w3")].version;
    real.value = Some(
        text.replace(&format!("\"aggregateVersion\":{version}"), "\"aggregateVersion\":900")
            .into_bytes(),
    );
    push(&logs[p], real.clone()); // not in the books
    db.write(&[credit("w3", "3")]).await;
    db.publish(&logs);
    let (a, _, h, l) = catch_up(&db, &mut ledger).await;
    assert_eq!((a, h, l), (1, 0, 5));
    catch_up(&db, &mut model).await;
    let classes: Vec<(String, i64)> = sqlx::query_as("select error_class, count(*) from dead_letters where projector = 'ledger-projector' group by 1 order by 1").fetch_all(&db.pool).await.unwrap();
    println!("{classes:?}");
    db.clean().await;
    // offsets that are gone: the topic was recreated with fewer records
    sqlx::query("update projector_checkpoints set next_offset = 10000 where partition = $1")
        .bind(p as i32)
        .execute(&db.pool)
        .await
        .unwrap();
    let mut again = db.projector_at(Kind::Ledger, Some(logs.clone()), 500, false);
    let (a, d, _, l) = catch_up(&db, &mut again).await;
    assert_eq!((a, l), (0, 0));
    assert!(d > 0);
    db.clean().await;
}

#[tokio::test]
async fn two_owners_of_the_same_partitions_have_one_effect() {
    let mut db = db().await;
    let logs = db.logs();
    db.write(&some_commands()).await;
    db.publish(&logs);
    let token = tokio_util::sync::CancellationToken::new();
    let mut tasks = Vec::new();
    for i in 0..3 {
        for kind in Kind::ALL {
            let p = if i == 2 {
                db.projector(kind, None)
            } else {
                db.projector_at(kind, Some(logs.clone()), 4, true)
            };
            tasks.push(tokio::spawn(p.run(token.clone())));
        }
    }
    for round in 0..30 {
        let c: Vec<_> = (0..20)
            .map(|i| {
                if (i + round) % 3 == 0 {
                    transfer(&format!("w{i}"), &format!("w{}", (i + 1) % 20), "0.10")
                } else {
                    credit(&format!("w{i}"), "0.01")
                }
            })
            .collect();
        db.write(&c).await;
        db.publish(&logs);
    }
    let start = Instant::now();
    loop {
        let report = checked(&db.pool, &TenantId::default_tenant()).await.unwrap();
        assert!(report.is_clean(), "{report:#?}");
        if report.lag.iter().all(|l| l.events == 0) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", report.lag);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    token.cancel();
    for t in tasks {
        t.await.unwrap();
    }
    db.clean().await;
}

#[tokio::test]
async fn a_wallet_whose_event_cannot_be_applied_is_parked_and_others_flow() {
    let mut db = db().await;
    db.write(&some_commands()).await;
    // unreadable payload at w1 version 3; amount 0 at w2 version 4 (a check of the table refuses it)
    sqlx::query(
        "update events set payload = '{\"nonsense\":1}' where wallet_id = 'w1' and version = 3",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    sqlx::query("update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"0\"')::json where wallet_id = 'w2' and version = 4").execute(&db.pool).await.unwrap();
    sqlx::query("delete from events where wallet_id = 'w4' and version = 2")
        .execute(&db.pool)
        .await
        .unwrap();
    let mut ledger = db.projector(Kind::Ledger, None);
    let mut model = db.projector(Kind::ReadModel, None);
    catch_up(&db, &mut ledger).await;
    catch_up(&db, &mut model).await;
    let parked: Vec<(String, String, i64, String)> = sqlx::query_as(
        "select projector, wallet_id, version, cause from parked_wallets order by 1, 2",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    println!("{parked:#?}");
    let at = |p: &str| {
        parked.iter().filter(|r| r.0 == p).map(|r| (r.1.as_str(), r.2)).collect::<Vec<_>>()
    };
    assert_eq!(at("ledger-projector"), [("w1", 3), ("w2", 4), ("w4", 2)]);
    assert_eq!(at("read-model-projector"), [("w1", 3), ("w4", 2)]);
    let v: Vec<(String, i64)> = sqlx::query_as("select wallet_id, version from projected_versions where projector = 'ledger-projector' and wallet_id in ('w1','w2','w3','w4') order by 1").fetch_all(&db.pool).await.unwrap();
    assert_eq!(v.iter().map(|r| r.1).collect::<Vec<_>>(), [2, 3, 5, 1]);
    let report = checked(&db.pool, &TenantId::default_tenant()).await.unwrap();
    assert_eq!(report.parked.len(), 5);
    assert!(report.lag.iter().all(|l| l.events == 0), "{:?}", report.lag);
    println!("{:?}", db.red().await);
    db.write(&[credit("w5", "1"), credit("w1", "1")]).await;
    assert_eq!(catch_up(&db, &mut ledger).await.0, 1);
}

#[tokio::test]
async fn a_gap_longer_than_a_transaction_is_healed_in_several() {
    let mut db = db().await;
    let logs = db.logs();
    let mut c = vec![create("big", "USD", None)];
    for _ in 0..12_000 {
        c.push(credit("big", "0.01"));
    }
    for chunk in c.chunks(3000) {
        db.write(chunk).await;
    }
    db.published.clear();
    db.write(&[credit("big", "1")]).await;
    db.publish(&logs);
    let mut ledger = db.projector_at(Kind::Ledger, Some(logs), 500, false);
    let (a, d, h, _) = catch_up(&db, &mut ledger).await;
    assert_eq!((a, d, h), (12_002, 0, 12_001));
    let mut model = db.projector(Kind::ReadModel, None);
    catch_up(&db, &mut model).await;
    db.clean().await;
}

#[tokio::test]
async fn the_second_feed_takes_over_and_gives_back() {
    let mut db = db().await;
    let logs = db.logs();
    db.write(&some_commands()).await; // never published: Kafka is "down"
    let mut ledger = db.projector(Kind::Ledger, Some(logs.clone()));
    assert_eq!(ledger.step().await.unwrap().outcome.applied, 0, "younger than 2 s: Kafka's turn");
    let token = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(ledger.run(token.clone()));
    let start = Instant::now();
    while db.count("select coalesce(sum(w.version - coalesce(v.version, 0)), 0)::bigint from wallets w left join projected_versions v on v.wallet_id = w.id").await > 0 {
        assert!(start.elapsed() < Duration::from_secs(8));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("taken over after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(db.count("select count(*) from outbox where processed_at is not null").await, 0);
    // Kafka returns
    db.publish(&logs);
    sqlx::query("update outbox set processed_at = now(), published = true")
        .execute(&db.pool)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    token.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn every_kind_of_alteration_turns_reconcile_red() {
    let mut db = db().await;
    db.write(&some_commands()).await;
    for kind in Kind::ALL {
        let mut p = db.projector(kind, None);
        catch_up(&db, &mut p).await;
    }
    db.clean().await;
    let alterations: &[&'static str] = &[
        "update ledger_entries set amount = amount + 0.00000001 where wallet_id = 'w1' and version = 3",
        "update ledger_entries set amount = amount + 0.01 where event_id = (select event_id from events where wallet_id = 'w1' and version = 3)",
        "update ledger_entries set side = case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end where wallet_id = 'w1' and version = 3",
        "update ledger_entries set side = case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end where event_id = (select event_id from events where wallet_id = 'w1' and version = 3)",
        "update ledger_entries set balance_before = balance_before + 1 where wallet_id = 'w1' and version = 3",
        "update ledger_entries set balance_after = null where wallet_id = 'w1' and version = 3",
        "update ledger_entries set currency = 'EUR' where wallet_id = 'w1' and version = 3",
        "update ledger_entries set currency = 'EUR' where event_id = (select event_id from events where wallet_id = 'w1' and version = 3)",
        "update ledger_entries set wallet_id = 'w2' where wallet_id = 'w1' and version = 3",
        "update ledger_entries set reference_id = 'x' where wallet_id = 'w1' and version = 3",
        "update ledger_entries set account = 'elsewhere' where leg = 1 and event_id = (select event_id from events where wallet_id = 'w1' and version = 3)",
        "update ledger_entries set transaction_type = 'DEBIT' where wallet_id = 'w1' and version = 3",
        "update ledger_entries set metadata = '{\"k\":\"w\"}' where wallet_id = 'w1' and version = 3",
        "update ledger_entries set created_at = created_at + interval '1 us' where wallet_id = 'w1' and version = 3",
        "delete from ledger_entries where wallet_id = 'w1' and version = 3",
        "delete from ledger_entries where event_id = (select event_id from events where wallet_id = 'w1' and version = 3)",
        "delete from ledger_entries where wallet_id = 'w1'",
        "insert into ledger_entries select tenant_id, gen_random_uuid(), transaction_id, account, wallet_id, related_wallet_id, transaction_type, side, amount, currency, balance_before, balance_after, description, reference_id, metadata, gen_random_uuid(), leg, version, created_at from ledger_entries where wallet_id = 'w1' and version = 3",
        "insert into ledger_entries select tenant_id, gen_random_uuid(), transaction_id, account, wallet_id, related_wallet_id, transaction_type, side, amount, currency, balance_before, balance_after, description, reference_id, metadata, event_id, 2, version, created_at from ledger_entries where wallet_id = 'w1' and version = 3",
        "update wallets set balance = balance + 0.00000001 where id = 'w1'",
        "update wallets set version = version + 1 where id = 'w1'",
        "update wallets set currency = 'EUR' where id = 'w1'",
        "delete from wallets where id = 'w1'",
        "insert into wallets select tenant_id, 'ghost', owner_id, currency, status, balance, held_balance, overdraft_limit, version, metadata, created_at, updated_at from wallets where id = 'w1'",
        "update wallets_read_model set balance = balance - 0.00000001 where id = 'w1'",
        "update wallets_read_model set version = version - 1 where id = 'w1'",
        "update wallets_read_model set currency = 'EUR' where id = 'w1'",
        "update wallets_read_model set metadata = null where id = 'w1'",
        "delete from wallets_read_model where id = 'w1'",
        "insert into wallets_read_model select tenant_id, 'ghost', owner_id, currency, status, balance, held_balance, overdraft_limit, version, metadata, created_at, updated_at from wallets where id = 'w1'",
        "delete from events where wallet_id = 'w1' and version = 3",
        "delete from events where wallet_id = 'w1' and version = 5",
        "update events set payload = jsonb_set(payload::jsonb, '{newBalance}', '\"7.00\"')::json where wallet_id = 'w1' and version = 3",
        "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"spoilt\"')::json where wallet_id = 'w1' and version = 3",
        "update events set payload = '{}' where wallet_id = 'w1' and version = 1",
        "delete from projected_versions where wallet_id = 'w1'",
        "delete from outbox where aggregate_id = 'w1' and event_version = 5",
        "insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at) values ('default', 'w1', 'WalletCredited', 99, 'wallet-events', 1, now())",
        "insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at) select tenant_id, aggregate_id, event_type, event_version, topic, partition, created_at from outbox where id = 30",
    ];
    // two transactions' worth of outbox: the mark is older than what is deleted
    sqlx::query(
        "update events set created_at = created_at - interval '1 minute' where wallet_id = 'w0'",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    for t in [
        "update outbox set created_at = created_at - interval '1 minute' where aggregate_id = 'w0'",
        "update ledger_entries l set created_at = e.created_at from events e where e.event_id = l.event_id",
        "update wallets w set created_at = e.created_at from events e where e.wallet_id = w.id and e.version = 1",
        "update wallets_read_model w set created_at = e.created_at from events e where e.wallet_id = w.id and e.version = 1",
        "update wallets_read_model w set updated_at = e.created_at from events e where e.wallet_id = w.id and e.version = w.version",
    ] {
        sqlx::query(t).execute(&db.pool).await.unwrap();
    }
    db.clean().await;
    let mut missed = Vec::new();
    for sql in alterations {
        let mut c = db.pool.acquire().await.unwrap();
        // save, alter, check, restore
        for t in [
            "events",
            "ledger_entries",
            "wallets",
            "wallets_read_model",
            "projected_versions",
            "outbox",
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
                "drop table if exists saved_{t}; create table saved_{t} as select * from {t}"
            )))
            .execute(&mut *c)
            .await
            .unwrap();
        }
        let rows = sqlx::query(*sql).execute(&mut *c).await.unwrap().rows_affected();
        assert!(rows > 0, "{sql}");
        let red = db.red().await;
        println!("{} <- {sql}", red.len());
        for r in &red {
            println!("      {r}");
        }
        if red.is_empty() {
            missed.push(*sql);
        }
        for t in [
            "events",
            "ledger_entries",
            "wallets",
            "wallets_read_model",
            "projected_versions",
            "outbox",
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
                "truncate {t}; insert into {t} overriding system value select * from saved_{t}"
            )))
            .execute(&mut *c)
            .await
            .unwrap();
        }
        drop(c);
    }
    db.clean().await;
    assert!(missed.is_empty(), "{missed:#?}");
    let _ = db.pool.fetch_one("select 1").await.unwrap().get::<i32, _>(0);
}

#[tokio::test]
#[ignore]
async fn figures() {
    let mut db = db().await;
    let wallets = 2000;
    let creates: Vec<_> =
        (0..wallets).map(|i| create(&format!("w{i}"), "USD", Some("1000"))).collect();
    for c in creates.chunks(500) {
        db.write(c).await;
    }
    for round in 0..50 {
        let c: Vec<_> =
            (0..1000).map(|i| credit(&format!("w{}", (i * 7 + round) % wallets), "0.01")).collect();
        db.write(&c).await;
    }
    let logs = db.logs();
    db.publish(&logs);
    let n = db.count("select count(*) from events").await;
    for (name, kafka) in [("postgres", None), ("kafka", Some(logs.clone()))] {
        sqlx::raw_sql("truncate ledger_entries, wallets_read_model, projected_versions, projector_checkpoints").execute(&db.pool).await.unwrap();
        for kind in Kind::ALL {
            let mut p = db.projector_at(kind, kafka.clone(), 500, kafka.is_none());
            let start = Instant::now();
            let mut applied = 0;
            while applied < n as u64 {
                applied += p.step().await.unwrap().outcome.applied;
                if kafka.is_some() {
                    tokio::task::yield_now().await;
                }
            }
            println!("{name} {}: {n} events in {:?}", kind.name(), start.elapsed());
        }
    }
    sqlx::raw_sql("update projector_checkpoints set feed_xid = '0'; analyze")
        .execute(&db.pool)
        .await
        .unwrap();
    let mut c = db.pool.acquire().await.unwrap();
    let of = store::checkpoints::Subscription {
        tenant: TenantId::default_tenant(),
        projector: "ledger-projector",
        topic: TOPIC.into(),
    };
    let start = Instant::now();
    let w = store::feed::walk(&mut c, &of, &[], 1_000_000).await.unwrap();
    println!(
        "walk over {n} applied events: {:?}, pending {}",
        start.elapsed(),
        w.iter().map(|w| w.pending.len()).sum::<usize>()
    );
    let start = Instant::now();
    let w = store::feed::walk(&mut c, &of, &[], 500).await.unwrap();
    println!("walk of 500 x 10: {:?} {}", start.elapsed(), w.len());
    let start = Instant::now();
    db.clean().await;
    println!("reconcile: {:?}", start.elapsed());
    // latency from commit to ledger
    let notify = Arc::new(Notify::new());
    let token = tokio_util::sync::CancellationToken::new();
    let p = Projector::new(Wiring {
        kind: Kind::Ledger,
        tenant: TenantId::default_tenant(),
        topic: TOPIC.into(),
        consumer: ConsumerSettings {
            max_poll_records: 500,
            max_wait: Duration::from_millis(500),
            group_prefix: String::new(),
            feed_kafka: true,
            feed_outbox: true,
        },
        kafka: None,
        pool: db.pool.clone(),
        commits: notify.clone(),
        status: Status::default(),
    });
    let task = tokio::spawn(p.run(token.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    for i in 0..100 {
        let w = format!("w{i}");
        db.write(&[credit(&w, "0.01")]).await;
        let v = db.wallets[&id(&w)].version;
        let start = Instant::now();
        notify.notify_one();
        while store::entries::projected_version(
            &mut c,
            &TenantId::default_tenant(),
            "ledger-projector",
            &id(&w),
        )
        .await
        .unwrap()
            < v
        {}
        times.push(start.elapsed());
    }
    times.sort();
    println!("commit to ledger: p50 {:?} p90 {:?} max {:?}", times[50], times[90], times[99]);
    token.cancel();
    task.await.unwrap();
}
