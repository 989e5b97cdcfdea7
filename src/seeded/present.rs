//! The bugs themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive as _, ToPrimitive as _};
use uuid::Uuid;

use super::Bug;
use crate::store::checkpoints::{Advance, Subscription};
use crate::store::commands::{Writes, write_batch};
use crate::store::leases::Leased;
use crate::store::outbox::{Mark, OutboxRow};
use crate::store::{self, Connection, Pool, Way};
use crate::wallet::{TenantId, WalletId};

const NAMES: [(&str, Bug); 12] = [
    ("no-row-lock", Bug::NoRowLock),
    ("unsorted-locks", Bug::UnsortedLocks),
    ("key-after-commit", Bug::KeyAfterCommit),
    ("id-above-last", Bug::IdAboveLast),
    ("rows-skip-locked", Bug::RowsSkipLocked),
    ("mark-before-produce", Bug::MarkBeforeProduce),
    ("checkpoint-first", Bug::CheckpointFirst),
    ("no-version-check", Bug::NoVersionCheck),
    ("no-compare-and-set", Bug::NoCompareAndSet),
    ("answer-before-commit", Bug::AnswerBeforeCommit),
    ("float-amounts", Bug::FloatAmounts),
    ("no-fencing", Bug::NoFencing),
];

/// Whether this process has the bug.
#[allow(clippy::disallowed_methods, reason = "no setting: normal builds do not know of it")]
pub fn on(bug: Bug) -> bool {
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("WALLEX_SEEDED_BUG").ok()?;
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, bug)| bug)
    });
    *chosen == Some(bug)
}

/// A statement without what the bug leaves out. Each call leaks its text: runs are short.
pub fn statement(sql: &'static str) -> &'static str {
    let text = if on(Bug::NoRowLock) && sql.contains(" from wallets ") {
        sql.replace(" for no key update skip locked", "").replace(" for no key update", "")
    } else if on(Bug::UnsortedLocks) {
        sql.replace("for no key update skip locked) w", "for no key update) w").replace(
            "unnest($2::text[]) as wanted(id)",
            "(select id from unnest($2::text[]) as i(id) order by random()) as wanted",
        )
    } else if on(Bug::NoFencing) {
        sql.replace("and held.epoch = given.epoch ", "")
    } else {
        return sql;
    };
    Box::leak(text.into_boxed_str())
}

/// The keys of a batch, in a transaction of their own after the batch's.
#[allow(clippy::disallowed_methods, reason = "a bug is allowed to lose its task")]
pub fn keys_later(
    database: &Way,
    tenant: &TenantId,
    topic: &str,
    now: DateTime<Utc>,
    writes: &mut Writes,
) {
    if !on(Bug::KeyAfterCommit) || writes.keys.is_empty() {
        return;
    }
    let mut late = Writes { keys: std::mem::take(&mut writes.keys), ..Writes::default() };
    let (database, tenant, topic) = (database.clone(), tenant.clone(), topic.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut connection =
            store::connect::connect_lane(&database, Duration::from_secs(2)).await?;
        write_batch(&mut connection, &tenant, &topic, now, &mut late).await
    });
}

/// Of claimed rows: those above the last id that was ever claimed of the partition; or those that
/// no other publisher happens to hold.
pub fn some_rows(mut rows: Vec<OutboxRow>) -> Vec<OutboxRow> {
    static LAST: Mutex<BTreeMap<i32, i64>> = Mutex::new(BTreeMap::new());
    if on(Bug::IdAboveLast) {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|row| last.get(&row.partition).is_none_or(|last| row.id > *last));
        for row in &rows {
            last.insert(row.partition, row.id);
        }
    } else if on(Bug::RowsSkipLocked) {
        rows.retain(|_| Uuid::now_v7().as_u128().is_multiple_of(2));
    }
    rows
}

/// Marks rows that have not been sent yet.
pub async fn mark_first(
    pool: &Pool,
    leased: &Leased,
    partition: i32,
    epoch: i64,
    rows: &[OutboxRow],
) {
    if on(Bug::MarkBeforeProduce) {
        let rows = rows.iter().map(|row| (row.tenant_id.clone(), row.id)).collect();
        let mark = Mark { partition, epoch, last_offset: -1, rows };
        let _ = store::outbox::mark(pool, leased, &[mark]).await;
    }
}

/// Commits the checkpoints, and begins the transaction of the projection some time later.
pub async fn checkpoint_first(
    connection: &mut Connection,
    of: &Subscription,
    moves: &[Advance],
) -> store::Result<()> {
    if !on(Bug::CheckpointFirst) || moves.is_empty() {
        return Ok(());
    }
    store::checkpoints::advance(connection, of, moves).await?;
    store::commit(connection).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    store::begin(connection).await
}

/// Makes every wallet in hand look as if its version had not been applied.
pub fn forget_versions(
    targets: &BTreeMap<WalletId, i64>,
    mut applied: HashMap<WalletId, i64>,
) -> HashMap<WalletId, i64> {
    if on(Bug::NoVersionCheck) {
        for (wallet, version) in &mut applied {
            let target = targets.get(wallet).copied().unwrap_or(*version);
            *version = (target - 1).min(*version);
        }
    }
    applied
}

/// An amount by way of a binary fraction, cut to cents.
#[allow(clippy::float_arithmetic, clippy::cast_possible_truncation, reason = "this is the bug")]
pub fn float(exact: Decimal) -> Decimal {
    if !on(Bug::FloatAmounts) {
        return exact;
    }
    let cents = exact.to_f64().map(|value| (value * 100.0) as i64);
    cents.and_then(Decimal::from_i64).map_or(exact, |cents| cents / Decimal::ONE_HUNDRED)
}
