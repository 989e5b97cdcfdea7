//! What is watched while a run goes on, and when it has come to rest.
//!
//! Triggers in the database note what no look afterwards would show: a checkpoint that went back,
//! a write under a lease that another owner has taken since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Executor as _, PgPool};
use tokio_util::sync::CancellationToken;

use crate::support::records;
use crate::world::TOPIC;

/// The service ends a silent session after ten seconds.
const OPEN_TOO_LONG: &str = "20 s";

const AUDIT: &str = "
create table chaos_audit (at timestamptz default clock_timestamp(), what text, detail text);
create function chaos_checkpoint() returns trigger language plpgsql security definer as $$
begin
    -- Only a topic made anew begins again.
    if new.next_offset < old.next_offset and not (new.next_offset = 0
        and exists (select from public.chaos_audit where what = 'recreated')) then
        insert into public.chaos_audit (what, detail) values ('checkpoints-only-advance',
            format('%s partition %s from %s to %s', new.projector, new.partition,
                old.next_offset, new.next_offset));
    end if;
    return new;
end $$;
create trigger chaos_checkpoint before update on projector_checkpoints
    for each row execute function chaos_checkpoint();
create function chaos_version() returns trigger language plpgsql security definer as $$
begin
    if new.version < old.version then
        insert into public.chaos_audit (what, detail) values ('versions-only-advance',
            format('%s %s from %s to %s', new.projector, new.wallet_id, old.version, new.version));
    end if;
    return new;
end $$;
create trigger chaos_version before update on projected_wallets
    for each row execute function chaos_version();
create function chaos_read_version() returns trigger language plpgsql security definer as $$
begin
    if new.version < old.version then
        insert into public.chaos_audit (what, detail) values ('versions-only-advance',
            format('read model %s from %s to %s', new.id, old.version, new.version));
    end if;
    return new;
end $$;
create trigger chaos_read_version before update on wallets_read_model
    for each row execute function chaos_read_version();
create function chaos_lease() returns trigger language plpgsql security definer as $$
begin
    -- -1 is for whoever has the partition: in a topic made anew nothing is known to be ours.
    if old.owner = 'chaos-usurper' and new.epoch = old.epoch
        and new.last_offset is distinct from old.last_offset
        and new.last_offset is distinct from -1 then
        insert into public.chaos_audit (what, detail) values ('stale-owner-writes-nothing',
            format('%s partition %s epoch %s: last offset %s to %s', new.role, new.partition,
                new.epoch, old.last_offset, new.last_offset));
    end if;
    return new;
end $$;
create trigger chaos_lease before update on partition_leases
    for each row execute function chaos_lease();
";

/// Puts the triggers in place.
pub async fn install(pool: &PgPool) {
    pool.execute(AUDIT).await.unwrap();
}

/// Looks for transactions that nobody ends; counts the looks at which there was one.
pub fn open_transactions(pool: PgPool, stop: CancellationToken) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // A database that is away has none.
            let open = left_open(&pool, OPEN_TOO_LONG).await.unwrap_or(0);
            count.fetch_add(usize::from(open > 0), Ordering::Relaxed);
        }
    }));
    seen
}

/// Transactions of the service that have been idle for longer.
pub async fn left_open(pool: &PgPool, idle: &str) -> Option<i64> {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and application_name like 'wallex%' and state like 'idle in transaction%' \
         and state_change < clock_timestamp() - $1::interval",
    )
    .bind(idle)
    .fetch_one(pool)
    .await
    .ok()
}

/// Nothing waits in the outbox, both projections have every version, both have read the topic to its
/// end, and no hold expires by itself in a moment: those of a run are for seconds or for an hour.
pub async fn in_step(pool: &PgPool, bootstrap: &str) -> bool {
    let behind: Result<i64, sqlx::Error> = sqlx::query_scalar(
        "select (select count(*) from outbox where processed_at is null) + \
         (select count(*) from holds where status = 'open' \
              and expires_at < now() + interval '1 min') + \
         (select count(*) from wallets w cross join \
              (values ('ledger-projector'), ('read-model-projector')) as p(projector) \
          left join projected_versions v on v.tenant_id = w.tenant_id \
              and v.wallet_id = w.id and v.projector = p.projector \
          where w.version > coalesce(v.version, 0))",
    )
    .fetch_one(pool)
    .await;
    if !matches!(behind, Ok(0)) {
        return false;
    }
    let ends = records::ends(bootstrap, TOPIC).await;
    let places: Vec<(i32, i64)> =
        sqlx::query_as("select partition, next_offset from projector_checkpoints where topic = $1")
            .bind(TOPIC)
            .fetch_all(pool)
            .await
            .unwrap_or_default();
    places.len() == 2 * ends.len()
        && places.iter().all(|(partition, next)| ends.get(partition) == Some(next))
}

/// From now on a checkpoint may begin again.
pub async fn topic_recreated(pool: &PgPool) {
    sqlx::query("insert into chaos_audit (what) values ('recreated')").execute(pool).await.unwrap();
}

/// What the triggers noted.
pub async fn audit(pool: &PgPool) -> Vec<(String, String)> {
    let noted = "select what, detail from chaos_audit where what <> 'recreated' order by at";
    sqlx::query_as(noted).fetch_all(pool).await.unwrap()
}
