//! Books without a service: commands decided by the domain and written as the write path writes
//! them, and a topic in memory that says what Kafka would.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, Utc};
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;
use wallex::config::{ConsumerSettings, DatabaseSettings, Secret};
use wallex::envelope::{AGGREGATE_TYPE, Envelope, partition_of, timestamp};
use wallex::event_cache::EventCache;
use wallex::instance::Instance;
use wallex::kafka::Fetched;
use wallex::projector::apply::{Outcome, apply};
use wallex::projector::chunk::{Chunk, Feed};
use wallex::projector::{
    Job, LEDGER, OpenPartition, Projection, Projector, Projectors, READ_MODEL, Wiring,
};
use wallex::status::Status;
use wallex::store::checkpoints::{Subscription, load};
use wallex::store::reconcile::{Checked, Report};
use wallex::store::{self, Pool};
use wallex::wallet::{
    Amount, Command, CreateWallet, Currency, Details, IdOrigin, Metadata, Movement, NewEvent,
    Policy, SCHEMA_VERSION, Transfer, Wallet, WalletId, World, decide,
};

use crate::support::servers;

pub const TOPIC: &str = "wallet-events";
pub const PARTITIONS: i32 = 10;

/// A database of its own, and the wallets as they should stand.
pub struct Books {
    url: String,
    pub pool: Pool,
    pub wallets: HashMap<WalletId, Wallet>,
    /// Written and not published yet: partition and record.
    pub unpublished: Vec<(i32, Fetched)>,
    /// All projectors are of one process: none has to wait for the lease of another.
    instance: Arc<Instance>,
    /// Wakes projectors, as commits of the service do.
    pub commits: Arc<Notify>,
}

/// One log per partition.
#[derive(Clone)]
pub struct Topic(Vec<Arc<Mutex<Vec<Fetched>>>>);

impl Books {
    pub async fn open() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("books_{}_{number}", std::process::id());
        servers::postgres().ensure_database(&name).unwrap();
        let url = Secret::new(servers::postgres().url_of(&name));
        let settings =
            DatabaseSettings { url: url.clone(), migration_url: url.clone(), max_connections: 10 };
        store::migrate(&settings, |_| {}).await.unwrap();
        // As the owner: these tests alter what the application's role may not.
        let pool = Pool::connect(url.expose()).await.unwrap();
        sqlx::query("insert into topics (tenant_id, name, partitions) values ('default', $1, $2)")
            .bind(TOPIC)
            .bind(PARTITIONS)
            .execute(&pool)
            .await
            .unwrap();
        let url = url.expose().to_owned();
        let instance = Arc::new(Instance::new(Duration::from_secs(10)));
        let (wallets, commits) = (HashMap::new(), Arc::default());
        Self { url, pool, wallets, unpublished: Vec::new(), instance, commits }
    }

    /// The owner's way to the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes commands in one transaction; returns how many events they made.
    pub async fn write(&mut self, commands: &[Command]) -> u64 {
        let mut transaction = self.pool.begin().await.unwrap();
        let events = self.write_in(&mut transaction, commands).await;
        transaction.commit().await.unwrap();
        events
    }

    /// The same in a transaction that the caller ends.
    pub async fn write_in(&mut self, connection: &mut PgConnection, commands: &[Command]) -> u64 {
        let at = Utc::now().trunc_subsecs(6);
        let mut rows: Vec<(NewEvent, Uuid, Uuid)> = Vec::new();
        for command in commands {
            let transaction = Uuid::now_v7();
            let footprint = command.footprint();
            let wallets = footprint.wallets().filter_map(|id| self.wallets.get(id));
            let world = World::new(at, wallets.cloned());
            for event in decide(command, &world, &Policy::default()).unwrap().events {
                self.apply(&event, at);
                rows.push((event, Uuid::now_v7(), transaction));
            }
        }
        for (event, event_id, transaction) in &rows {
            insert_event(connection, event, *event_id, *transaction, at).await;
            let record = record(event, *event_id, *transaction, at);
            self.unpublished.push((partition(&event.wallet_id), record));
        }
        insert_batches(connection, rows.iter().map(|(event, ..)| event), at).await;
        let touched: BTreeSet<&WalletId> = rows.iter().map(|row| &row.0.wallet_id).collect();
        for wallet in touched {
            upsert_wallet(connection, &self.wallets[wallet]).await;
        }
        rows.len() as u64
    }

    fn apply(&mut self, event: &NewEvent, at: DateTime<Utc>) {
        let id = &event.wallet_id;
        if let Some(wallet) = Wallet::opened(id.clone(), &event.body, at) {
            self.wallets.insert(id.clone(), wallet);
        } else {
            self.wallets.get_mut(id).unwrap().apply(event.version, &event.body, at);
        }
    }

    /// Sends what was written since.
    pub fn publish(&mut self, topic: &Topic) {
        for (partition, record) in self.unpublished.drain(..) {
            topic.push(partition, record);
        }
    }

    /// A projector; without readers of Kafka it is fed from Postgres alone.
    pub fn projector(
        &self,
        kind: &'static Projection,
        max: usize,
        kafka: Option<OpenPartition>,
    ) -> Projector {
        Projector::new(self.wiring(kind, max, kafka))
    }

    /// All projectors of an instance, fed from Postgres alone, as `app` runs them. With a pool of their own
    /// they may be killed.
    pub fn projectors(&self, max: usize, pool: &Pool) -> Projectors {
        let wiring = |kind| Wiring { pool: pool.clone(), ..self.wiring(kind, max, None) };
        Projectors::new(Projection::ALL.map(wiring))
    }

    fn wiring(
        &self,
        kind: &'static Projection,
        max: usize,
        kafka: Option<OpenPartition>,
    ) -> Wiring {
        Wiring {
            kind,
            topic: TOPIC.to_owned(),
            consumer: ConsumerSettings {
                max_poll_records: max,
                fetch_bytes: 65_536,
                max_wait: Duration::from_millis(20),
                session_timeout: Duration::from_secs(10),
                group_prefix: String::new(),
                feed_kafka: true,
                feed_outbox: true,
            },
            kafka,
            pool: self.pool.clone(),
            commits: Arc::clone(&self.commits),
            applied: Arc::default(),
            throttle: Default::default(),
            event_cache: EventCache::default(),
            status: Status::default(),
            instance: Arc::clone(&self.instance),
        }
    }

    /// Brings one projection to the end, from Postgres.
    pub async fn project(&self, kind: &'static Projection) -> Outcome {
        catch_up(&mut self.projector(kind, 500, None)).await
    }

    /// Brings one projection to the end of a topic, at most `max` records of a partition at once.
    pub async fn follow(&self, kind: &'static Projection, topic: &Topic, max: usize) -> Outcome {
        let mut follower = Follower::open(self.pool.clone(), kind, topic.clone(), max).await;
        let mut total = Outcome::default();
        while let Some(outcome) = follower.step().await {
            add(&mut total, &outcome);
        }
        total
    }

    /// Gives each event that waits an outbox row of its own.
    pub async fn scatter(&self) {
        sqlx::query(
            "with taken as (delete from outbox_batches where processed_at is null returning *) \
             insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
             select t.tenant_id, t.topic, t.partition, t.created_at, array[e.wallet_id], \
                 array[e.version] \
             from taken t cross join lateral unnest(t.wallets, t.versions) with ordinality \
                 as e(wallet_id, version, place) \
             order by t.id, t.part, e.place",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn report(&self) -> Report {
        let mut connection = self.pool.acquire().await.unwrap();
        store::begin(&mut connection).await.unwrap();
        store::reconcile::snapshot(&mut connection).await.unwrap();
        let report = store::reconcile::report(&mut connection, LEDGER, READ_MODEL).await;
        store::rollback(&mut connection).await.unwrap();
        report.unwrap()
    }

    /// Every event is in the outbox, once and as it is.
    pub async fn assert_events_have_rows(&self) {
        let report = self.report().await;
        let of = |equation: &&Checked| equation.name.contains("outbox row");
        let found: Vec<_> = report.equations.iter().filter(of).collect();
        assert!(found.len() == 1 && found[0].holds, "{found:?}");
    }

    /// The books are right, and all of them are projected.
    pub async fn assert_clean(&self) {
        let report = self.report().await;
        assert!(report.is_clean(), "{report:#?}");
        assert!(report.lag.iter().all(|lag| lag.events == 0), "{:?}", report.lag);
    }
}

/// A reader of the topic through the projectors' way of applying.
pub struct Follower {
    pool: Pool,
    pub job: Job,
    topic: Topic,
    places: BTreeMap<i32, i64>,
    max: usize,
}

impl Follower {
    pub async fn open(pool: Pool, kind: &'static Projection, topic: Topic, max: usize) -> Self {
        let subscription = Subscription { projector: kind.name(), topic: TOPIC.to_owned() };
        let mut connection = pool.acquire().await.unwrap();
        let found = load(&mut connection, &subscription, PARTITIONS).await.unwrap();
        let places = found.into_iter().map(|c| (c.partition, c.next_offset)).collect();
        let event_cache = EventCache::default();
        let partitions = PARTITIONS;
        let job = Job { kind, subscription, partitions, deployment: None, event_cache };
        Self { pool, job, topic, places, max }
    }

    /// Applies what is there; none at the topic's end.
    pub async fn step(&mut self) -> Option<Outcome> {
        let mut chunks = Vec::new();
        for (partition, place) in &self.places {
            let records = self.topic.read(*partition, *place, self.max);
            if !records.is_empty() {
                let records = records.into_iter().map(Arc::new).collect();
                chunks.push(Chunk::of_records(*partition, *place, records));
            }
        }
        if chunks.is_empty() {
            return None;
        }
        let mut connection = self.pool.acquire().await.unwrap();
        let outcome = apply(&mut connection, &self.job, &mut chunks).await.unwrap();
        for chunk in chunks {
            self.places.insert(chunk.partition, chunk.next);
        }
        for (feed, partition, place) in &outcome.stale {
            assert_eq!(*feed, Feed::Kafka);
            self.places.insert(*partition, *place);
        }
        Some(outcome)
    }
}

impl Topic {
    pub fn new() -> Self {
        Self((0..PARTITIONS).map(|_| Arc::default()).collect())
    }

    pub fn push(&self, partition: i32, mut record: Fetched) {
        let mut log = self.0[partition as usize].lock().unwrap();
        record.offset = log.len() as i64;
        log.push(record);
    }

    pub fn read(&self, partition: i32, from: i64, max: usize) -> Vec<Fetched> {
        let log = self.0[partition as usize].lock().unwrap();
        log.iter().skip(from as usize).take(max).cloned().collect()
    }

    /// Every record once more, behind what is there.
    pub fn repeat(&self) {
        for partition in 0..PARTITIONS {
            for record in self.read(partition, 0, usize::MAX) {
                self.push(partition, record);
            }
        }
    }
}

/// Steps until there is nothing left to do.
pub async fn catch_up(projector: &mut Projector) -> Outcome {
    let mut total = Outcome::default();
    let mut idle_since = Instant::now();
    // Twice the tick of the feed from Postgres.
    while idle_since.elapsed() < Duration::from_millis(450) {
        let progress = projector.step().await.unwrap();
        add(&mut total, &progress.outcome);
        if progress.chunks == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            idle_since = Instant::now();
        }
    }
    total
}

fn add(total: &mut Outcome, outcome: &Outcome) {
    total.applied += outcome.applied;
    total.healed += outcome.healed;
    total.duplicates += outcome.duplicates;
    total.parked += outcome.parked;
    total.dead_letters += outcome.dead_letters;
}

pub fn partition(wallet: &WalletId) -> i32 {
    partition_of(wallet.as_str(), PARTITIONS)
}

pub fn id(text: &str) -> WalletId {
    WalletId::parse(text).unwrap()
}

pub fn create(wallet: &str, currency: &str, opening: Option<&str>) -> Command {
    Command::Create(CreateWallet {
        id: (id(wallet), IdOrigin::Given),
        owner_id: format!("owner-{}", &wallet[..1]),
        currency: Currency::parse(currency).unwrap(),
        initial_balance: opening.map(|amount| Amount::parse(amount).unwrap()),
        overdraft_limit: Decimal::ZERO,
        metadata: Some(Metadata::parse(r#"{"tier":"gold","n":1.10}"#).unwrap()),
    })
}

pub fn credit(wallet: &str, amount: &str) -> Command {
    Command::Credit(Movement {
        wallet_id: id(wallet),
        amount: Amount::parse(amount).unwrap(),
        details: Details {
            description: Some("a credit".to_owned()),
            reference: Some(format!("ref-{wallet}")),
            metadata: Some(Metadata::parse(r#"{"k":"v"}"#).unwrap()),
        },
        expected_version: None,
    })
}

pub fn transfer(from: &str, to: &str, amount: &str) -> Command {
    Command::Transfer(Transfer {
        from: id(from),
        to: id(to),
        amount: Amount::parse(amount).unwrap(),
        details: Details::default(),
        expected_version: None,
    })
}

/// Twenty wallets in dollars (w0 to w19) and one in yen (y1), with credits and transfers.
pub fn some_history() -> Vec<Command> {
    let wallets = || (0..20).map(|i| format!("w{i}"));
    let mut commands: Vec<_> = wallets().map(|w| create(&w, "USD", Some("100.00"))).collect();
    commands.extend([create("y1", "JPY", None), credit("y1", "500")]);
    for (i, wallet) in wallets().enumerate() {
        commands.push(credit(&wallet, "1.25"));
        commands.push(transfer(&wallet, &format!("w{}", (i + 7) % 20), "3.10"));
    }
    commands
}

/// The event's data as it is stored and published.
fn data(event: &NewEvent, transaction: Uuid) -> String {
    event.body.to_data(&event.wallet_id, transaction).unwrap()
}

fn record(event: &NewEvent, event_id: Uuid, transaction: Uuid, at: DateTime<Utc>) -> Fetched {
    let data = RawValue::from_string(data(event, transaction)).unwrap();
    let envelope = Envelope {
        event_id,
        event_type: event.body.kind.as_str(),
        aggregate_type: AGGREGATE_TYPE,
        aggregate_id: event.wallet_id.as_str(),
        aggregate_version: event.version,
        schema_version: SCHEMA_VERSION,
        tenant_id: "default",
        timestamp: timestamp(at),
        correlation_id: None,
        causation_id: None,
        data: &data,
    };
    Fetched {
        offset: 0,
        key: Some(event.wallet_id.as_str().as_bytes().to_vec()),
        value: Some(envelope.to_json().unwrap()),
        headers: BTreeMap::new(),
        timestamp: at,
    }
}

async fn insert_event(
    connection: &mut PgConnection,
    event: &NewEvent,
    event_id: Uuid,
    transaction: Uuid,
    at: DateTime<Utc>,
) {
    sqlx::query(
        "insert into events (tenant_id, wallet_id, version, event_id, event_type, payload, \
             transaction_id, partition, created_at) \
         values ('default', $1, $2, $3, $4, $5::json, $6, $7, $8)",
    )
    .bind(event.wallet_id.as_str())
    .bind(event.version)
    .bind(event_id)
    .bind(event.body.kind.as_str())
    .bind(data(event, transaction))
    .bind(transaction)
    .bind(partition(&event.wallet_id))
    .bind(at)
    .execute(connection)
    .await
    .unwrap();
}

/// The outbox's rows of a batch of commands: one for each partition.
async fn insert_batches(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &NewEvent>,
    at: DateTime<Utc>,
) {
    let mut batches: BTreeMap<i32, Vec<(&str, i64)>> = BTreeMap::new();
    for event in events {
        let batch = batches.entry(partition(&event.wallet_id)).or_default();
        batch.push((event.wallet_id.as_str(), event.version));
    }
    for (partition, mut events) in batches {
        events.sort_unstable();
        sqlx::query(
            "insert into outbox_batches (tenant_id, topic, partition, created_at, wallets, versions) \
             values ('default', $1, $2, $3, $4, $5)",
        )
        .bind(TOPIC)
        .bind(partition)
        .bind(at)
        .bind(events.iter().map(|(wallet, _)| *wallet).collect::<Vec<_>>())
        .bind(events.iter().map(|(_, version)| *version).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .unwrap();
    }
}

async fn upsert_wallet(connection: &mut PgConnection, wallet: &Wallet) {
    sqlx::query(
        "insert into wallets (tenant_id, id, owner_id, currency, status, balance, \
             overdraft_limit, version, metadata, created_at, updated_at) \
         values ('default', $1, $2, $3, 'active', $4, $5, $6, $7::json, $8, $9) \
         on conflict (tenant_id, id) do update set balance = excluded.balance, \
             version = excluded.version, updated_at = excluded.updated_at",
    )
    .bind(wallet.id.as_str())
    .bind(&wallet.owner_id)
    .bind(wallet.currency.code())
    .bind(wallet.balance)
    .bind(wallet.overdraft_limit)
    .bind(wallet.version)
    .bind(wallet.metadata.as_ref().map(Metadata::as_str))
    .bind(wallet.created_at)
    .bind(wallet.updated_at)
    .execute(connection)
    .await
    .unwrap();
}
