//! The tables held against each other, each equation as one statement of plain SQL that returns
//! what contradicts it.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, PgPool};

use super::super::journal::Line;
use super::Findings;

/// The check, how many things it looks at, and what contradicts it.
const EQUATIONS: [(&str, &str, &str); 11] = [
    (
        "versions-without-gap",
        "select count(*) from wallets",
        "select w.id || ' at ' || w.version from wallets w full join \
             (select wallet_id, count(*) as n, min(version) as low, max(version) as high \
              from events group by wallet_id) e on e.wallet_id = w.id \
         where (e.n, e.low, e.high) is distinct from (w.version, 1::bigint, w.version)",
    ),
    (
        "balances-follow-events",
        "select count(*) from events",
        "select wallet_id || ' version ' || version from (select wallet_id, version, \
             (payload ->> 'previousBalance')::numeric as before, \
             (payload ->> 'newBalance')::numeric as after, \
             (payload ->> 'changeAmount')::numeric * \
                 case payload ->> 'changeType' when 'DEBIT' then -1 else 1 end as change, \
             coalesce(lag((payload ->> 'newBalance')::numeric) over chain, 0) as last \
             from events window chain as (partition by wallet_id order by version)) e \
         where (last, last + change) is distinct from (before, after)",
    ),
    (
        "time-follows-versions",
        "select count(*) from events",
        "select wallet_id || ' version ' || version from (select wallet_id, version, created_at, \
             lag(created_at) over (partition by wallet_id order by version) as last from events) e \
         where created_at < last",
    ),
    (
        "available-never-negative",
        "select count(*) from events",
        "select wallet_id || ' version ' || version from events \
         where coalesce(payload ->> 'availableBalance', payload ->> 'newBalance')::numeric < 0 \
         union all select id from wallets where balance - held_balance + overdraft_limit < 0",
    ),
    (
        "wallets-are-their-events",
        "select count(*) from wallets",
        "select w.id || ' has ' || w.balance from wallets w left join events e \
             on e.wallet_id = w.id and e.version = w.version \
         where (e.payload ->> 'newBalance')::numeric is distinct from w.balance \
             or coalesce(e.payload ->> 'heldBalance', '0')::numeric <> w.held_balance",
    ),
    (
        "expiry-is-due",
        "select count(*) from events where event_type like 'WalletHold%'",
        "select e.wallet_id || ' version ' || e.version from events e cross join lateral \
             (select (p.payload ->> 'expiresAt')::timestamptz as due from events p \
              where p.tenant_id = e.tenant_id and p.wallet_id = e.wallet_id and p.version < e.version \
                  and p.event_type in ('WalletHoldPlaced', 'WalletHoldAdjusted') \
                  and p.payload ->> 'holdId' = e.payload ->> 'holdId' \
              order by p.version desc limit 1) t \
         where (e.event_type = 'WalletHoldExpired' and e.created_at < t.due) \
             or (e.event_type in ('WalletHoldAdjusted', 'WalletHoldCaptured', 'WalletHoldReleased') \
                 and e.created_at >= t.due)",
    ),
    (
        "entries-are-events",
        "select count(*) from ledger_entries",
        "select coalesce(e.wallet_id, '') || ' event ' || event_id from \
             (select event_id, wallet_id, (payload ->> 'changeAmount')::numeric as amount, \
                 (payload ->> 'previousBalance')::numeric as before, \
                 (payload ->> 'newBalance')::numeric as after \
              from events where (payload ->> 'changeAmount')::numeric > 0) e \
         full join (select event_id, count(*) as legs, min(amount) as low, max(amount) as high, \
                 count(distinct side) as sides, min(balance_before) as before, \
                 min(balance_after) as after from ledger_entries group by event_id) l \
             using (event_id) \
         where (l.legs, l.low, l.high, l.sides, l.before, l.after) is distinct from \
               (2::bigint, e.amount, e.amount, 2::bigint, e.before, e.after)",
    ),
    (
        "entries-balance",
        "select count(*) from ledger_entries",
        "select event_id::text from ledger_entries group by event_id, currency \
         having sum(case side when 'DEBIT' then amount else -amount end) <> 0 or count(*) < 2 \
             or min(amount) <= 0 \
         union all select currency from ledger_entries group by currency \
         having sum(case side when 'DEBIT' then amount else -amount end) <> 0",
    ),
    (
        "balance-is-sum-of-entries",
        "select count(*) from wallets",
        "select coalesce(w.id, l.wallet_id) || ': ' || coalesce(w.balance, 0) || ', entries ' \
             || coalesce(l.balance, 0) from wallets w full join \
             (select wallet_id, sum(case side when 'CREDIT' then amount else -amount end) as balance from ledger_entries \
              where wallet_id is not null group by wallet_id) l on l.wallet_id = w.id \
         where coalesce(w.balance, 0) <> coalesce(l.balance, 0)",
    ),
    (
        "read-model-is-wallets",
        "select count(*) from wallets",
        "select coalesce(w.id, r.id) from wallets w full join wallets_read_model r \
             using (tenant_id, id) \
         where (w.balance, w.held_balance, w.version, w.owner_id, w.currency, w.status, w.created_at) \
             is distinct from \
             (r.balance, r.held_balance, r.version, r.owner_id, r.currency, r.status, r.created_at)",
    ),
    (
        "outbox-is-events",
        "select count(*) from outbox",
        "select coalesce(e.wallet_id, o.aggregate_id) || ' version ' || \
             coalesce(e.version, o.event_version) from events e full join \
             (select aggregate_id, event_version, count(*) as n, \
                  bool_and(processed_at is not null and published) as settled \
              from outbox group by aggregate_id, event_version) o \
             on o.aggregate_id = e.wallet_id and o.event_version = e.version \
         where e.version is null or o.n is distinct from 1 or not o.settled",
    ),
];

/// How many of them, the first, are of events and wallets alone: they hold while projections are behind.
const OF_EVENTS: usize = 6;

pub async fn check_events(pool: &PgPool, findings: &mut Findings) {
    equations(pool, &EQUATIONS[..OF_EVENTS], findings).await;
}

async fn equations(
    pool: &PgPool,
    equations: &[(&'static str, &'static str, &'static str)],
    findings: &mut Findings,
) {
    for (name, size, contradictions) in equations {
        let size: i64 = sqlx::query_scalar(*size).fetch_one(pool).await.unwrap();
        findings.examined(name, usize::try_from(size).unwrap());
        let found: Vec<Option<String>> =
            sqlx::query_scalar(AssertSqlSafe(*contradictions)).fetch_all(pool).await.unwrap();
        for what in found {
            findings.red(name, what.unwrap_or_default());
        }
    }
}

pub async fn check(pool: &PgPool, lines: &[Line], findings: &mut Findings) {
    equations(pool, &EQUATIONS, findings).await;
    dead_letters(pool, lines, findings).await;
    let parked: Vec<(String, String, String)> =
        sqlx::query_as("select projector, wallet_id, cause from parked_wallets")
            .fetch_all(pool)
            .await
            .unwrap();
    findings.examined("nothing-parked", 1);
    for (projector, wallet, cause) in parked {
        findings.red("nothing-parked", format!("{wallet} by {projector}: {cause}"));
    }
}

/// Each poison record once for each projector, with its place and its bytes; nothing else.
async fn dead_letters(pool: &PgPool, lines: &[Line], findings: &mut Findings) {
    type Letter = (i32, i64, Option<Vec<u8>>);
    let mut wanted: BTreeSet<Letter> = BTreeSet::new();
    for line in lines {
        if let Line::Injected { partition, offset, poison: true, value } = line {
            wanted.insert((*partition, *offset, value.clone()));
        }
    }
    let rows: Vec<(String, i32, i64, Option<Vec<u8>>)> =
        sqlx::query_as("select unnest(projectors), partition, \"offset\", value from dead_letters")
            .fetch_all(pool)
            .await
            .unwrap();
    for projector in ["ledger-projector", "read-model-projector"] {
        let kept: BTreeSet<Letter> = rows
            .iter()
            .filter(|(of, ..)| of == projector)
            .map(|(_, partition, offset, value)| (*partition, *offset, value.clone()))
            .collect();
        findings.examined("dead-letters-keep-records", wanted.len().max(1));
        for (partition, offset, _) in wanted.difference(&kept) {
            let what = format!("{projector} kept nothing of partition {partition} at {offset}");
            findings.red("dead-letters-keep-records", what);
        }
        for (partition, offset, value) in kept.difference(&wanted) {
            let value = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
            let what = format!("{projector} set aside partition {partition} at {offset}: {value}");
            findings.red("dead-letters-keep-records", what);
        }
    }
}
