-- Whose transaction numbers a place holds, a wallet's totals in constant time, and who holds the oldest
-- snapshot.

-- `feed_xid` is a transaction number, and so of one Postgres cluster: a dump that is restored elsewhere
-- brings numbers that mean nothing there. The cluster's own identifier stands beside them. Null: not
-- noted yet, or the server does not tell.
alter table projector_checkpoints add column cluster bigint;

-- What a wallet's entries sum to, moved with the version: no other row is written for it. They count
-- where `totals_at` is the version. Where it is behind (an instance of an earlier version moved the
-- version), the entries between are added at the next move; a reader adds them for itself.
-- Worked out before the columns are there: that takes long, and holds nobody up.
create unlogged table totals_before as
    select v.tenant_id, v.wallet_id, v.version, coalesce(e.credits, 0) as credits,
        coalesce(e.debits, 0) as debits, coalesce(e.entries, 0) as entries
    from projected_versions v
    left join (select tenant_id, wallet_id,
            sum(amount) filter (where side = 'CREDIT') as credits,
            sum(amount) filter (where side = 'DEBIT') as debits, count(*) as entries
        from ledger_entries where wallet_id is not null group by tenant_id, wallet_id) e
        on e.tenant_id = v.tenant_id and e.wallet_id = v.wallet_id
    where v.projector = 'ledger-projector';

alter table projected_versions
    add column totals_at bigint,
    -- Sums may have more digits than an amount.
    add column total_credits numeric,
    add column total_debits numeric,
    add column transaction_count bigint;

update projected_versions v
    set totals_at = t.version, total_credits = t.credits, total_debits = t.debits,
        transaction_count = t.entries
    from totals_before t
    where v.tenant_id = t.tenant_id and v.projector = 'ledger-projector'
        and v.wallet_id = t.wallet_id;
drop table totals_before;

-- Who keeps the server from cleaning up: sessions, prepared transactions, replication slots. The service's
-- role may not look into sessions of others; it is shown their ages and names, nothing of what they do.
create function wallex_snapshots()
    returns table (kind text, pid integer, name text, database text, seconds bigint, transactions bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select 'session', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text),
        a.datname::text, extract(epoch from clock_timestamp() - a.xact_start)::bigint,
        greatest(age(a.backend_xmin), age(a.backend_xid))::bigint
    from pg_stat_activity a
    where (a.backend_xmin is not null or a.backend_xid is not null)
        and a.pid <> pg_backend_pid() and a.backend_type not like 'autovacuum%'
    union all
    select 'prepared transaction', null, p.gid, p.database::text,
        extract(epoch from clock_timestamp() - p.prepared)::bigint, age(p.transaction)::bigint
    from pg_prepared_xacts p
    union all
    select 'replication slot', s.active_pid, s.slot_name::text, s.database::text, null,
        greatest(age(s.xmin), age(s.catalog_xmin))::bigint
    from pg_replication_slots s where s.xmin is not null or s.catalog_xmin is not null
$$;
revoke execute on function wallex_snapshots() from public;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant execute on function wallex_snapshots() to wallex_app;
    end if;
end $$;
