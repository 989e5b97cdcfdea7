//! Records that are no event of this service, or no command, kept whole with the reason and with what was
//! done about them since. One record is one dead letter, whichever consumer read it and however often. It is of no
//! tenant: what is no event names none that could be believed.

pub mod delivery;
pub mod letter;
pub mod requests;
mod view;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::checkpoints::Subscription;
use super::{Connection, PIPELINE, Pool, Result};

/// A record to be set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// A JSON object, name to value.
    pub headers: String,
    /// Tells it from the record at the same offset of another topic of this name.
    pub record_hash: [u8; 16],
    pub error_class: &'static str,
    pub error_message: String,
    /// What it says of itself where it is a replay.
    pub replay: Option<Replay>,
}

/// Which dead letter a record is a replay of, and the number of that replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    pub id: i64,
    pub count: i32,
}

/// What a dead letter was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An event: its projectors read it.
    Events,
    /// An inbound command.
    Commands,
}

impl Source {
    pub const WORDS: [&str; 2] = ["events", "commands"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Commands => "commands",
        }
    }
}

/// What has become of a dead letter. In SQL: [`STATE`].
pub const STATES: [&str; 4] = ["open", "requested", "replayed", "quarantined"];

/// Replayed: no failure of the last replay is known.
pub(super) const STATE: &str = "case when d.quarantined_at is not null then 'quarantined' \
     when d.replay_requested_at is not null then 'requested' \
     when d.replay_count > d.failed_replay then 'replayed' else 'open' end";

/// The states that need an operator, as the index `dead_letters_open` has it.
const OPEN: &str = "d.quarantined_at is null \
     and (d.replay_requested_at is not null or d.replay_count <= d.failed_replay)";

/// One dead letter as operators list it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Kept {
    pub id: i64,
    pub state: String,
    /// One of [`Source::WORDS`].
    pub source: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub error_class: String,
    pub error_message: String,
    pub attempts: i32,
    pub replay_count: i32,
    pub created_at: DateTime<Utc>,
    pub failed_at: DateTime<Utc>,
}

/// One dead letter with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetterDetail {
    #[sqlx(flatten)]
    pub kept: Kept,
    pub projectors: Vec<String>,
    pub value: Option<Vec<u8>>,
    pub headers: Option<String>,
    pub published_at: Option<DateTime<Utc>>,
    pub replay_requested_at: Option<DateTime<Utc>>,
    pub replayed_at: Option<DateTime<Utc>>,
    pub refusal: Option<String>,
    pub quarantined_at: Option<DateTime<Utc>>,
    pub note: Option<String>,
}

/// Which dead letters are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those whose key is this wallet's id.
    pub wallet: Option<String>,
    pub cause: Option<String>,
    /// One of [`Source::WORDS`].
    pub source: Option<String>,
    /// One of [`STATES`].
    pub state: Option<String>,
    /// Those older than this id.
    pub before: Option<i64>,
    pub limit: i64,
}

/// Counts of what waits for an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    /// Dead letters that no operator has replayed or settled.
    pub open: i64,
    /// Wallets parked by some projector.
    pub parked: i64,
}

/// What came of setting records aside.
#[derive(Debug, Default)]
pub struct Inserted<'a> {
    /// The number that the projector had not read before.
    pub met: u64,
    /// Those that are new to all, and those that have failed again.
    pub news: Vec<&'a DeadLetter>,
}

/// Sets records aside. A replay that fails goes on with the story of its dead letter, where that has the
/// same bytes.
pub async fn insert<'a>(
    connection: &mut Connection,
    of: &Subscription,
    source: Source,
    letters: &[&'a DeadLetter],
) -> Result<Inserted<'a>> {
    // In one order for all: two projectors that read the same records must not wait for each
    // other in a circle.
    let mut letters = letters.to_vec();
    letters.sort_by_key(|letter| (letter.partition, letter.offset));
    let mut known = failed_again(connection, of, &letters).await?;
    let (mut inserted, mut unknown) = (Inserted::default(), Vec::new());
    for (place, letter) in letters.into_iter().enumerate() {
        match known.remove(&i64::try_from(place).unwrap_or(-1)) {
            Some(true) => inserted.news.push(letter),
            Some(false) => {}
            None => unknown.push(letter),
        }
    }
    inserted.met = u64::try_from(inserted.news.len()).unwrap_or(0);
    if !unknown.is_empty() {
        add(connection, of, source, &unknown, &mut inserted).await?;
    }
    Ok(inserted)
}

/// Those that are no replay of what is kept here.
async fn add<'a>(
    connection: &mut Connection,
    of: &Subscription,
    source: Source,
    letters: &[&'a DeadLetter],
    inserted: &mut Inserted<'a>,
) -> Result<()> {
    // Both projectors read a record at the same time. The second waits here and finds it:
    // a conflict would use up an id, and ids are what operators type.
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('dead_letters ' || $1, 0))")
        .bind(PIPELINE)
        .execute(&mut *connection)
        .await?;
    let partitions: Vec<i32> = letters.iter().map(|l| l.partition).collect();
    let offsets: Vec<i64> = letters.iter().map(|l| l.offset).collect();
    let hashes: Vec<&[u8]> = letters.iter().map(|l| l.record_hash.as_slice()).collect();
    let met = sqlx::query(
        "update dead_letters d set projectors = d.projectors || $2 \
         from unnest($4::int[], $5::bigint[], $6::bytea[]) r(partition, place, hash) \
         where d.tenant_id = $1 and d.topic = $3 and d.partition = r.partition \
           and d.\"offset\" = r.place and d.record_hash = r.hash \
           and not d.projectors @> array[$2]",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(&partitions)
    .bind(&offsets)
    .bind(&hashes)
    .execute(&mut *connection)
    .await?;
    // The consumer of commands has sent them to their topic by now; those of events are yet to go.
    let new: Vec<(i32, i64)> = sqlx::query_as(
        "insert into dead_letters (tenant_id, projectors, topic, source, published_at, partition, \
             \"offset\", record_hash, key, value, headers, error_class, error_message) \
         select $1, array[$2], $3, $12::text, case $12::text when 'commands' then clock_timestamp() end, r.* \
         from unnest($4::int[], $5::bigint[], $6::bytea[], \
             $7::bytea[], $8::bytea[], $9::json[], $10::text[], $11::text[]) \
             r(partition, place, hash, key, value, headers, class, message) \
         where not exists (select from dead_letters d where d.tenant_id = $1 and d.topic = $3 \
             and d.partition = r.partition and d.\"offset\" = r.place and d.record_hash = r.hash) \
         on conflict on constraint dead_letters_record do nothing \
         returning partition, \"offset\"",
    )
    .bind(PIPELINE)
    .bind(of.projector)
    .bind(&of.topic)
    .bind(&partitions)
    .bind(&offsets)
    .bind(&hashes)
    .bind(letters.iter().map(|l| l.key.as_deref()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.value.as_deref()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.headers.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| l.error_class).collect::<Vec<_>>())
    .bind(letters.iter().map(|l| printable(&l.error_message)).collect::<Vec<_>>())
    .bind(source.as_str())
    .fetch_all(connection)
    .await?;
    inserted.met += met.rows_affected() + u64::try_from(new.len()).unwrap_or(0);
    let new: HashSet<(i32, i64)> = new.into_iter().collect();
    let is_new = |letter: &&&DeadLetter| new.contains(&(letter.partition, letter.offset));
    inserted.news.extend(letters.iter().filter(is_new));
    Ok(())
}

/// Notes replays that failed; returns the places of those letters that are replays of what is kept here
/// already, and whether that is news.
async fn failed_again(
    connection: &mut Connection,
    of: &Subscription,
    letters: &[&DeadLetter],
) -> Result<HashMap<i64, bool>> {
    let replays: Vec<(i64, &DeadLetter, Replay)> = letters
        .iter()
        .enumerate()
        .filter_map(|(place, letter)| Some((i64::try_from(place).ok()?, *letter, letter.replay?)))
        .collect();
    if replays.is_empty() {
        return Ok(HashMap::new());
    }
    // The header may be anybody's: only the same bytes are the same story.
    let rows: Vec<(i64, bool)> = sqlx::query_as(
        "with given as ( \
             select * from unnest($3::bigint[], $4::bigint[], $5::int[], $6::int[], $7::bytea[], \
                 $8::bytea[], $9::text[], $10::text[]) \
                 r(place, id, replay, partition, key, value, error_class, error_message)), \
         same as materialized ( \
             select r.* from given r join dead_letters d on d.tenant_id = $1 and d.id = r.id \
               and d.topic = $2 and d.partition = r.partition \
               and d.key is not distinct from r.key and d.value is not distinct from r.value \
             order by d.id for no key update of d), \
         failed as ( \
             update dead_letters d set attempts = d.attempts + 1, failed_replay = s.replay, \
                 replay_count = greatest(d.replay_count, s.replay), \
                 failed_at = clock_timestamp(), error_class = s.error_class, \
                 error_message = s.error_message, refusal = null, published_at = \
                     case d.source when 'commands' then clock_timestamp() end \
             from (select distinct on (id) * from same order by id, replay desc) s \
             where d.tenant_id = $1 and d.id = s.id and d.failed_replay < s.replay \
             returning d.id) \
         select s.place, s.id in (select id from failed) from same s",
    )
    .bind(PIPELINE)
    .bind(&of.topic)
    .bind(replays.iter().map(|(place, _, _)| *place).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, _, replay)| replay.id).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, _, replay)| replay.count).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, l, _)| l.partition).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, l, _)| l.key.as_deref()).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, l, _)| l.value.as_deref()).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, l, _)| l.error_class).collect::<Vec<_>>())
    .bind(replays.iter().map(|(_, l, _)| printable(&l.error_message)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// The newest dead letters that a filter lets through.
pub async fn list(connection: &mut Connection, filter: &Filter) -> Result<Vec<Kept>> {
    // The text is made of constants; values are bound.
    let sql = format!(
        "select {STATE} as state, d.id, d.source, d.topic, d.partition, d.\"offset\", d.key, \
             d.error_class, d.error_message, d.attempts, d.replay_count, d.created_at, \
             d.failed_at \
         from dead_letters d \
         where d.tenant_id = $1 and ($2::bytea is null or d.key = $2) \
           and ($3::text is null or d.error_class = $3) \
           and ($4::text is null or {STATE} = $4) and ($5::bigint is null or d.id < $5) \
           and ($7::text is null or d.source = $7) \
         order by d.id desc limit $6"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(PIPELINE)
        .bind(filter.wallet.as_deref().map(str::as_bytes))
        .bind(&filter.cause)
        .bind(&filter.state)
        .bind(filter.before)
        .bind(filter.limit)
        .bind(&filter.source)
        .fetch_all(connection)
        .await?)
}

/// One dead letter, whole.
pub async fn show(connection: &mut Connection, id: i64) -> Result<Option<DeadLetterDetail>> {
    let sql = format!(
        "select {STATE} as state, d.headers::text as headers, d.id, d.source, d.topic, d.partition, \
             d.\"offset\", d.key, d.error_class, d.error_message, d.attempts, d.replay_count, \
             d.created_at, d.failed_at, d.value, d.published_at, \
             array(select met from unnest(d.projectors) met order by met) as projectors, \
             d.replay_requested_at, d.replayed_at, d.refusal, d.quarantined_at, d.note \
         from dead_letters d where d.tenant_id = $1 and d.id = $2"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(PIPELINE)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

/// What the gauges and the health page say.
pub async fn counts(pool: &Pool) -> Result<Counts> {
    let sql = format!(
        "select (select count(*) from dead_letters d where d.tenant_id = $1 \
                and {OPEN}) as open, \
             (select count(distinct (tenant_id, wallet_id)) from parked_wallets) as parked"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(PIPELINE).fetch_one(pool).await?)
}

/// Postgres takes no NUL in text, and a message may quote anything.
pub(super) fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
