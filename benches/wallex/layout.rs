//! The tables that the measured service has, which its own `wallex migrate` makes: `--service` may name one
//! of an earlier version, so that both are measured by the same instrument.

use sqlx::PgConnection;

use crate::seed::{EVENT_ID, Seed, TOPIC};

/// Events in an outbox row that stands for several: as a batch of 64 commands leaves them over ten
/// partitions.
const EVENTS_A_ROW: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Layout {
    /// `outbox` is a view of rows that stand for several events each.
    batches: bool,
    /// `ledger_entries` is a view of rows that stand for two entries each.
    postings: bool,
    /// The read model's versions stand in its own table only.
    lean: bool,
}

impl Layout {
    pub async fn of(connection: &mut PgConnection) -> anyhow::Result<Self> {
        Ok(sqlx::query_as(
            "select to_regclass('outbox_batches') is not null as batches, \
                to_regclass('postings') is not null as postings, \
                to_regclass('projected_wallets') is not null as lean",
        )
        .fetch_one(connection)
        .await?)
    }

    /// The table that has the outbox's rows.
    pub fn outbox(self) -> &'static str {
        if self.batches { "outbox_batches" } else { "outbox" }
    }

    /// For pgbench: the outbox row of one event, of the wallet and version that its variables name.
    pub fn outbox_of_one(self) -> String {
        let wallet = "'w-' || lpad(:wallet::text, 6, '0')";
        let rest = format!("'{TOPIC}', :wallet::int % 10, clock_timestamp()");
        match self.batches {
            true => format!(
                "insert into outbox_batches \
                    (tenant_id, topic, partition, created_at, wallets, versions)\n\
                 values ('default', {rest}, array[{wallet}], array[:version::bigint]);"
            ),
            false => format!(
                "insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, \
                    partition, created_at)\n\
                 values ('default', {wallet}, 'WalletCredited', :version, {rest});"
            ),
        }
    }

    /// For the batched writer: the outbox rows of the events whose wallets are `$1`, versions `$2`,
    /// partitions `$3`, of topic `$4` and time `$5`, in one statement.
    pub fn outbox_of_many(self) -> &'static str {
        match self.batches {
            true => {
                "insert into outbox_batches \
                    (tenant_id, topic, partition, created_at, wallets, versions) \
                 select 'default', $4, partition, $5, array_agg(id), array_agg(version) \
                 from unnest($1::text[], $2::bigint[], $3::int[]) as o(id, version, partition) \
                 group by partition"
            }
            false => {
                "insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, \
                    partition, created_at) \
                 select 'default', id, 'WalletCredited', version, $4, partition, $5 \
                 from unnest($1::text[], $2::bigint[], $3::int[]) as o(id, version, partition)"
            }
        }
    }

    /// For a prepared database: the outbox rows of version `v` of all wallets.
    pub fn outbox_of_version(self, seed: Seed) -> String {
        let (topic, waits) = (seed.topic(), seed == Seed::Backlog);
        // A batch's time is that of its events. Old ones are older than any retention.
        let at = if seed == Seed::Aged { "now() - interval '30 days'" } else { "now()" };
        let processed = if waits { "null" } else { at };
        let published = !waits;
        match self.batches {
            true => format!(
                "insert into outbox_batches (tenant_id, topic, partition, created_at, \
                    processed_at, published, wallets, versions) \
                 select 'default', '{topic}', partition, {at}, {processed}, {published}, \
                    array_agg(id order by id), array_agg(v::bigint) \
                 from (select id, partition, (row_number() over (partition by partition \
                    order by id) - 1) / {EVENTS_A_ROW} as part from bench_wallets) w \
                 group by partition, part order by partition, part;"
            ),
            false => format!(
                "insert into outbox (tenant_id, aggregate_id, event_type, event_version, topic, \
                    partition, created_at, processed_at, published) \
                 select 'default', id, 'WalletCredited', v, '{topic}', partition, {at}, \
                    {processed}, {published} from bench_wallets;"
            ),
        }
    }
    /// For a prepared database: what the ledger has of version `v` of all wallets.
    pub fn ledger_of_version(self) -> String {
        match self.postings {
            true => format!(
                "insert into postings (tenant_id, wallet_id, version, id, event_id, \
                    transaction_id, created_at, transaction_type, side, amount, currency, \
                    counter_account, balance_before, balance_after, reference_id) \
                 select 'default', e.id, v, gen_random_uuid(), e.event_id, e.event_id, \
                    clock_timestamp(), 'CREDIT', 'CREDIT', 1, 'USD', 'external', \
                    1000000000 + v - 3, 1000000000 + v - 2, e.event_id::text \
                 from (select id, {EVENT_ID} as event_id from bench_wallets) e;"
            ),
            false => format!(
                "insert into ledger_entries (tenant_id, id, transaction_id, account, wallet_id, \
                    transaction_type, side, amount, currency, balance_before, balance_after, \
                    reference_id, event_id, leg, version, created_at) \
                 select 'default', gen_random_uuid(), e.event_id, \
                    case leg when 0 then 'wallet' else 'external' end, \
                    case leg when 0 then e.id end, 'CREDIT', \
                    case leg when 0 then 'CREDIT' else 'DEBIT' end, 1, 'USD', \
                    case leg when 0 then 1000000000 + v - 3 end, \
                    case leg when 0 then 1000000000 + v - 2 end, \
                    e.event_id::text, e.event_id, leg, v, clock_timestamp() \
                 from (select id, {EVENT_ID} as event_id from bench_wallets) e, \
                    generate_series(0, 1) leg;"
            ),
        }
    }

    /// For a prepared database: both projections have applied so many versions of all wallets.
    pub fn projected(self, version: u64) -> String {
        let (table, projectors) = match self.lean {
            true => ("projected_wallets", "('ledger-projector')"),
            false => ("projected_versions", "('ledger-projector'), ('read-model-projector')"),
        };
        format!(
            "insert into {table} (tenant_id, projector, wallet_id, version) \
             select 'default', projector, id, {version} from bench_wallets, \
                (values {projectors}) as p(projector); "
        )
    }
}
