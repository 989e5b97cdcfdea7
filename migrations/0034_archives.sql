-- Months of events and postings that lie in archives, and what stands in the tables for them. Only the owner takes a
-- month away or brings it back: `wallex archive`.

create table archives (
    -- As in the names of the partitions: '2026_01', or 'before'.
    name        text collate "C" not null,
    from_at     timestamptz,
    to_at       timestamptz not null,
    archived_at timestamptz not null default clock_timestamp(),
    -- Where its files were written, as the operator named it.
    place       text not null,
    -- Of the manifest, which has those of the files.
    sha256      text collate "C" not null,
    events      bigint not null,
    postings    bigint not null,
    -- By tenant and currency: entries, credits and debits of wallets.
    sums        json not null,
    constraint archives_pkey primary key (name)
);

-- How far each wallet's events and postings are in archives: what begins after that begins at this balance. The
-- first event of a wallet, and its last one in each archived month, stay in the tables.
create table archived_wallets (
    tenant_id text collate "C" not null,
    wallet_id text collate "C" not null,
    version   bigint not null,
    balance   numeric(28,8) not null,
    credits   numeric not null,
    debits    numeric not null,
    entries   bigint not null,
    constraint archived_wallets_pkey primary key (tenant_id, wallet_id)
);
select wallex_confine('archived_wallets');

-- A table beside a month's partition, with the month's bounds as a constraint: it is attached without being read.
create function wallex_archive_table(parent text, name text, lower_bound timestamptz, upper_bound timestamptz)
    returns void language plpgsql as $$
begin
    execute format('drop table if exists %I', name);
    perform wallex_new_partition(parent, name);
    execute format('alter table %I add constraint %I check (created_at >= %L and created_at < %L)', name,
        name || '_bound', coalesce(lower_bound, '-infinity'), upper_bound);
end $$;

-- Makes what stays of a month: each wallet's first event, and its last one of the month.
create function wallex_archive_stage(month text, lower_bound timestamptz, upper_bound timestamptz)
    returns void language plpgsql as $$
begin
    perform wallex_archive_table('events', 'events_kept', lower_bound, upper_bound);
    perform wallex_archive_table('postings', 'postings_kept', lower_bound, upper_bound);
    execute format('insert into events_kept select e.* from %I e where e.version = 1 or e.version = ('
        'select max(l.version) from %I l where l.tenant_id = e.tenant_id and l.wallet_id = e.wallet_id)',
        'events_' || month, 'events_' || month);
end $$;

-- Puts another table in the place of a month's. Tries again while others hold the locks: commands wait behind each
-- attempt no longer than the session's lock_timeout.
create function wallex_archive_swap(month text, suffix text, lower_bound timestamptz, upper_bound timestamptz)
    returns void language plpgsql as $$
declare
    parent text;
    attempt integer := 0;
begin
    loop
        begin
            lock table only events, only postings in access exclusive mode;
            foreach parent in array array['events', 'postings'] loop
                execute format('alter table %I detach partition %I', parent, parent || '_' || month);
                execute format('drop table %I', parent || '_' || month);
                execute format('alter table %I rename to %I', parent || suffix, parent || '_' || month);
                execute format('alter index %I rename to %I', parent || suffix || '_pkey',
                    parent || '_' || month || '_pkey');
                execute format('alter table %I attach partition %I for values from (%s) to (%L)', parent,
                    parent || '_' || month, coalesce(quote_literal(lower_bound), 'minvalue'), upper_bound);
                execute format('alter table %I drop constraint %I', parent || '_' || month,
                    parent || suffix || '_bound');
            end loop;
            return;
        exception when lock_not_available or deadlock_detected then
            attempt := attempt + 1;
            if attempt > 100 then
                raise;
            end if;
            perform pg_sleep(0.5);
        end;
    end loop;
end $$;

-- Takes a month away whose files are written and read back.
create function wallex_archive_detach(month text, lower_bound timestamptz, upper_bound timestamptz, place text,
    sha256 text, events bigint, postings bigint, sums json) returns void language plpgsql as $$
begin
    execute format('insert into archived_wallets as known (tenant_id, wallet_id, version, balance, credits, debits, '
            'entries) '
        'select k.tenant_id, k.wallet_id, k.version, (k.payload ->> ''newBalance'')::numeric, '
            'coalesce(p.credits, 0), coalesce(p.debits, 0), coalesce(p.entries, 0) '
        'from (select distinct on (tenant_id, wallet_id) * from events_kept '
            'order by tenant_id, wallet_id, version desc) k '
        'left join (select tenant_id, wallet_id, sum(amount) filter (where side = ''CREDIT'') as credits, '
                'sum(amount) filter (where side = ''DEBIT'') as debits, count(*) as entries from %I '
            'group by tenant_id, wallet_id) p on p.tenant_id = k.tenant_id and p.wallet_id = k.wallet_id '
        'on conflict on constraint archived_wallets_pkey do update set version = excluded.version, '
            'balance = excluded.balance, credits = known.credits + excluded.credits, '
            'debits = known.debits + excluded.debits, entries = known.entries + excluded.entries',
        'postings_' || month);
    insert into archives (name, from_at, to_at, place, sha256, events, postings, sums)
        values (month, lower_bound, upper_bound, place, sha256, events, postings, sums);
    perform wallex_archive_swap(month, '_kept', lower_bound, upper_bound);
end $$;

-- Makes the tables that a month's files are read into.
create function wallex_archive_prepare(lower_bound timestamptz, upper_bound timestamptz) returns void
    language plpgsql as $$
begin
    perform wallex_archive_table('events', 'events_back', lower_bound, upper_bound);
    perform wallex_archive_table('postings', 'postings_back', lower_bound, upper_bound);
end $$;

-- Brings a month back that was read into them. Their indexes are made before any lock is asked for.
create function wallex_archive_attach(month text) returns void language plpgsql as $$
declare
    known archives;
    parent text;
    definition text;
begin
    select * into strict known from archives where name = month;
    foreach parent in array array['events', 'postings'] loop
        for definition in select pg_get_indexdef(indexrelid) from pg_index
                where indrelid = parent::regclass and not indisunique loop
            execute regexp_replace(definition, '^CREATE INDEX .* ON ONLY \S+ ',
                format('create index on %I ', parent || '_back'));
        end loop;
    end loop;
    update archived_wallets a set version = e.version - 1, balance = (e.payload ->> 'previousBalance')::numeric,
        credits = a.credits - coalesce(p.credits, 0), debits = a.debits - coalesce(p.debits, 0),
        entries = a.entries - coalesce(p.entries, 0)
    from (select distinct on (tenant_id, wallet_id) * from events_back order by tenant_id, wallet_id, version) e
    left join (select tenant_id, wallet_id, sum(amount) filter (where side = 'CREDIT') as credits,
            sum(amount) filter (where side = 'DEBIT') as debits, count(*) as entries from postings_back
        group by tenant_id, wallet_id) p on p.tenant_id = e.tenant_id and p.wallet_id = e.wallet_id
    where a.tenant_id = e.tenant_id and a.wallet_id = e.wallet_id;
    delete from archived_wallets where version = 0;
    delete from archives where name = month;
    perform wallex_archive_swap(month, '_back', known.from_at, known.to_at);
end $$;

revoke execute on function wallex_archive_table(text, text, timestamptz, timestamptz),
    wallex_archive_stage(text, timestamptz, timestamptz),
    wallex_archive_swap(text, text, timestamptz, timestamptz),
    wallex_archive_detach(text, timestamptz, timestamptz, text, text, bigint, bigint, json),
    wallex_archive_prepare(timestamptz, timestamptz), wallex_archive_attach(text) from public;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select on archives, archived_wallets to wallex_app;
    end if;
end $$;

-- A day begins when the last one began on another day, also on a later one: a clock that was ahead held the
-- next days up for as long.
create or replace function wallex_begin_outbox_day(moment timestamptz, at_least interval) returns integer
    language plpgsql security definer set timezone = 'UTC' as $$
declare
    following integer;
begin
    if (select begun_at::date from outbox_days where begun_at is not null order by number desc limit 1)
            = moment::date then
        return null;
    end if;
    select number into following from outbox_days
    where begun_at is null and attached_at <= clock_timestamp() - at_least
    order by number limit 1 for update;
    if following is null then
        return null;
    end if;
    update outbox_days set begun_at = moment where number = following;
    -- Never back.
    if (select last_value from outbox_batches_id_seq) < following * 1099511627776 then
        perform setval('outbox_batches_id_seq', following * 1099511627776, false);
    end if;
    return following;
end $$;
do $$
begin
    execute format('alter function wallex_begin_outbox_day(timestamptz, interval) set search_path = %I, pg_temp',
        current_schema());
end $$;

-- Earlier builds find rows of the outbox by where they lie in a table, which is not one place in a partitioned one.
update schema_compatibility set min_build = 28 where min_build < 28;
