-- Tables that grow for years are partitioned: `events` and `postings` by month, keys that are version 7 UUIDs by
-- the month that they name, the outbox by day. A partition is dropped at once, where the deletion of its rows
-- costs more than their writing did; an old month can be taken to an archive and brought back.
--
-- A unique index of a partitioned table must contain the column that it is partitioned by. That a wallet's version
-- stands once is therefore kept by a unique index of each partition, and across them by the wallet's row, which
-- is locked and has the last version. `wallex reconcile` counts versions.

lock table idempotency_keys, events, outbox_batches, postings in access exclusive mode;

-- The partitions of this schema's tables.
create view table_partitions as
    select p.relname::text collate "C" as parent, c.relname::text collate "C" as name,
        nullif(substring(b.bound from 'FROM \(''?([^'')]*)''?\)'), 'MINVALUE') as from_bound,
        substring(b.bound from 'TO \(''?([^'')]*)''?\)') as to_bound,
        -- Takes what no other partition takes: no row is refused for want of one.
        b.bound = 'DEFAULT' as is_default
    from pg_class p join pg_inherits i on i.inhparent = p.oid join pg_class c on c.oid = i.inhrelid
    cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) b
    where p.relkind = 'p' and p.relnamespace = current_schema()::regnamespace;

-- The days of the outbox. A partition takes ids from number * 2^40 on. A day begins when the sequence is moved there:
-- until it is, the day before goes on, so no clock decides where a row may go.
create table outbox_days (
    number      integer not null,
    attached_at timestamptz not null default clock_timestamp(),
    -- When the first of its ids was given out; null where it is yet to come.
    begun_at    timestamptz,
    constraint outbox_days_pkey primary key (number)
);
insert into outbox_days (number, begun_at) values (0, clock_timestamp());

-- Keys that were stored before they were laid by their time: one of these is looked for in both places. A caller's
-- clock may have been a month ahead.
do $$
begin
    execute format('create function keys_were_unsorted_before() returns timestamptz language sql immutable '
        'parallel safe as $f$ select %L::timestamptz $f$', case when exists (select from idempotency_keys)
        then clock_timestamp() + interval '31 days' else '-infinity'::timestamptz end);
end $$;

-- A table like `parent`, to become its partition `name`: same rights, same row-level security, its own key.
create function wallex_new_partition(parent text, name text) returns void language plpgsql as $$
declare
    given record;
begin
    execute format('create table %I (like %I including defaults including constraints including storage '
        'including comments)', name, parent);
    execute format('alter table %I add constraint %I primary key (%s)', name, name || '_pkey',
        case parent when 'events' then 'tenant_id, wallet_id, version'
            when 'postings' then 'tenant_id, wallet_id, version, pair'
            when 'outbox_batches' then 'tenant_id, id, part'
            -- The time leads: new keys enter at the end of the index.
            when 'idempotency_keys' then 'keyed_at, tenant_id, scope_hash' end);
    if parent = 'outbox_batches' then
        execute format('alter table %I set (autovacuum_vacuum_scale_factor = 0.02, '
            'autovacuum_vacuum_insert_scale_factor = 0.1)', name);
    end if;
    for given in select a.privilege_type, case a.grantee when 0 then 'public'
                else a.grantee::regrole::text end as grantee
            from pg_class c cross join aclexplode(c.relacl) a
            where c.oid = parent::regclass and a.grantee <> c.relowner loop
        execute format('grant %s on %I to %s', given.privilege_type, name, given.grantee);
    end loop;
    if (select relrowsecurity from pg_class where oid = parent::regclass) then
        perform wallex_confine(name::regclass);
    end if;
end $$;

-- Makes the partition of a month, unless partitions that are there reach into it. Takes what waits in the default
-- partition along, and says how many rows that were; null: nothing was to be made. The service's role, which
-- owns no table, makes them by this. Waits for locks no longer than the caller's lock_timeout says.
create function wallex_add_month(parent text, moment timestamptz) returns bigint
    language plpgsql security definer set timezone = 'UTC' as $$
declare
    by_column text := case parent when 'events' then 'created_at' when 'postings' then 'created_at'
        when 'idempotency_keys' then 'keyed_at' end;
    lower_bound timestamptz := date_trunc('month', moment);
    upper_bound timestamptz := date_trunc('month', moment) + interval '1 month';
    partition_name text := parent || to_char(lower_bound, '"_"YYYY"_"MM');
    moved bigint;
begin
    if by_column is null then
        raise exception 'no table of months is called %', parent;
    end if;
    if exists (select from table_partitions t where t.parent = wallex_add_month.parent and not t.is_default
            and coalesce(t.from_bound::timestamptz, '-infinity') < upper_bound
            and t.to_bound::timestamptz > lower_bound) then
        return null;
    end if;
    perform wallex_new_partition(parent, partition_name);
    -- The default partition is looked through when a partition is attached: nothing may come in meanwhile.
    execute format('lock table %I in access exclusive mode', parent || '_default');
    execute format('with moved as (delete from %I where %I >= %L and %I < %L returning *) '
        'insert into %I select * from moved', parent || '_default', by_column, lower_bound, by_column,
        upper_bound, partition_name);
    get diagnostics moved = row_count;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, partition_name,
        lower_bound, upper_bound);
    return moved;
end $$;

-- Makes the outbox's next day, which does not begin by that.
create function wallex_add_outbox_day() returns integer language plpgsql security definer as $$
declare
    following integer := (select max(number) + 1 from outbox_days);
begin
    perform wallex_new_partition('outbox_batches', 'outbox_batches_d' || following);
    execute format('alter table outbox_batches attach partition %I for values from (%s) to (%s)',
        'outbox_batches_d' || following, following * 1099511627776, (following + 1) * 1099511627776);
    insert into outbox_days (number) values (following);
    return following;
end $$;

-- Begins the next day, where the last one began on a day before `moment`'s; null: it is not time. Only where its
-- partition has been there for `at_least`: a statement that was under way when it came does not know it yet.
create function wallex_begin_outbox_day(moment timestamptz, at_least interval) returns integer
    language plpgsql security definer set timezone = 'UTC' as $$
declare
    following integer;
begin
    if (select max(begun_at)::date from outbox_days) >= moment::date then
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

-- Drops a day of the outbox, unless something waits in it. It must have an end: a later one has begun.
create function wallex_drop_outbox_day(day integer) returns boolean language plpgsql security definer as $$
declare
    waits boolean;
begin
    if day < 1 or not exists (select from outbox_days where number > day and begun_at is not null) then
        raise exception 'day % of the outbox has no end', day;
    end if;
    lock table only outbox_batches in access exclusive mode;
    execute format('select exists (select from %I where processed_at is null)', 'outbox_batches_d' || day)
        into waits;
    if waits then
        return false;
    end if;
    execute format('drop table %I', 'outbox_batches_d' || day);
    delete from outbox_days where number = day;
    return true;
end $$;

-- Drops a month of keys.
create function wallex_drop_key_month(partition_name text) returns void language plpgsql security definer as $$
begin
    if not exists (select from table_partitions t where t.parent = 'idempotency_keys' and t.name = partition_name
            and not t.is_default and t.from_bound is not null
            and t.to_bound::timestamptz < clock_timestamp()) then
        raise exception '% is no past month of keys', partition_name;
    end if;
    execute format('drop table %I', partition_name);
end $$;

-- Ids come from a sequence of their own: the partitions of a table share no identity before Postgres 17.
do $$
declare
    last bigint;
    called boolean;
begin
    execute format('select last_value, is_called from %s', pg_get_serial_sequence('outbox_batches', 'id'))
        into last, called;
    alter table outbox_batches alter column id drop identity;
    create sequence outbox_batches_id_seq;
    perform setval('outbox_batches_id_seq', last, called);
    alter table outbox_batches alter column id set default nextval('outbox_batches_id_seq');
end $$;

-- Each table becomes the first partition of one that takes its name, with its indexes, its rights and its views.
do $$
declare
    t record;
    i record;
    v record;
    given record;
begin
    create temporary table kept_indexes (name text, statement text, is_unique boolean) on commit drop;
    create temporary table kept_views (name text, statement text, options text) on commit drop;
    for t in select * from (values
            ('idempotency_keys', 'keyed_at', 'idempotency_keys_other'),
            ('events', 'created_at', 'events_before'),
            ('outbox_batches', 'id', 'outbox_batches_d0'),
            ('postings', 'created_at', 'postings_before')) t(name, by_column, first_partition) loop
        delete from kept_indexes;
        delete from kept_views;
        insert into kept_indexes select c.relname, pg_get_indexdef(x.indexrelid), x.indisunique
            from pg_index x join pg_class c on c.oid = x.indexrelid where x.indrelid = t.name::regclass;
        insert into kept_views select c.oid::regclass::text, pg_get_viewdef(c.oid),
                array_to_string(c.reloptions, ', ')
            from pg_class c where c.relkind = 'v' and c.oid in (select r.ev_class
                from pg_depend d join pg_rewrite r on r.oid = d.objid
                where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                  and d.refobjid = t.name::regclass);
        execute format('alter table %I rename to %I', t.name, t.first_partition);
        for i in select * from kept_indexes loop
            execute format('alter index %I rename to %I', i.name,
                case when starts_with(i.name, t.name) then t.first_partition || substr(i.name, length(t.name) + 1)
                    else t.first_partition || '_' || i.name end);
        end loop;
        execute format('create table %I (like %I including defaults including constraints '
            'including storage including comments) partition by range (%I)', t.name, t.first_partition, t.by_column);
        execute format('alter table %I drop constraint %I', t.name, t.name || '_bound');
        for i in select * from kept_indexes where not is_unique loop
            execute i.statement;
        end loop;
        if t.by_column = 'id' then
            alter table outbox_batches add constraint outbox_batches_pkey primary key (tenant_id, id, part);
        end if;
        for given in select a.privilege_type, case a.grantee when 0 then 'public'
                    else a.grantee::regrole::text end as grantee
                from pg_class c cross join aclexplode(c.relacl) a
                where c.oid = t.first_partition::regclass and a.grantee <> c.relowner loop
            execute format('grant %s on %I to %s', given.privilege_type, t.name, given.grantee);
        end loop;
        if (select relrowsecurity from pg_class where oid = t.first_partition::regclass) then
            perform wallex_confine(t.name::regclass);
        end if;
        for v in select * from kept_views loop
            execute format('create or replace view %s %s as %s', v.name,
                coalesce('with (' || v.options || ')', ''), v.statement);
        end loop;
    end loop;
end $$;

-- The batch's time is that of its events: it says in which month one is looked up.
create or replace view outbox as
    select b.id, b.tenant_id, e.wallet_id as aggregate_id,
        (select v.event_type from events v where v.tenant_id = b.tenant_id and v.wallet_id = e.wallet_id
            and v.version = e.version and v.created_at = b.created_at) as event_type,
        e.version as event_version, b.topic, b.partition, b.created_at, b.processed_at, b.published,
        coalesce((select r.attempts from outbox_refusals r where r.tenant_id = b.tenant_id
            and r.wallet_id = e.wallet_id and r.version = e.version), 0) as attempts,
        (select r.last_error from outbox_refusals r where r.tenant_id = b.tenant_id
            and r.wallet_id = e.wallet_id and r.version = e.version) as last_error
    from outbox_batches b cross join lateral unnest(b.wallets, b.versions) e(wallet_id, version);

alter sequence outbox_batches_id_seq owned by outbox_batches.id;
alter table outbox_batches attach partition outbox_batches_d0 for values from (minvalue) to (1099511627776);
alter table outbox_batches_d0 drop constraint outbox_batches_bound;
alter table idempotency_keys attach partition idempotency_keys_other
    for values from (minvalue) to ('1970-01-01 00:00:00+00');
alter table idempotency_keys_other drop constraint idempotency_keys_bound;

-- Up to the bound that was proven. A table without rows is none of the partitions.
do $$
declare
    parent text;
    has_rows boolean;
    bound text;
begin
    foreach parent in array array['events', 'postings'] loop
        execute format('select exists (select from %I)', parent || '_before') into has_rows;
        if not has_rows then
            execute format('drop table %I', parent || '_before');
            continue;
        end if;
        select substring(pg_get_constraintdef(oid) from '''([^'']+)''') into bound from pg_constraint
        where conrelid = (parent || '_before')::regclass and conname = parent || '_bound';
        execute format('alter table %I attach partition %I for values from (minvalue) to (%L)', parent,
            parent || '_before', bound);
        execute format('alter table %I drop constraint %I', parent || '_before', parent || '_bound');
    end loop;
end $$;

select wallex_new_partition(parent, parent || '_default')
from unnest(array['events', 'postings', 'idempotency_keys']) parent;
alter table events attach partition events_default default;
alter table postings attach partition postings_default default;
alter table idempotency_keys attach partition idempotency_keys_default default;

select wallex_add_month(parent, clock_timestamp() + months * interval '1 month')
from unnest(array['events', 'postings', 'idempotency_keys']) parent, generate_series(0, 2) months;
select wallex_add_outbox_day() from generate_series(1, 2);

-- Functions with the owner's rights find this schema's tables, whatever the caller's session names.
do $$
declare
    function_name text;
begin
    foreach function_name in array array['wallex_add_month(text, timestamptz)', 'wallex_add_outbox_day()',
            'wallex_begin_outbox_day(timestamptz, interval)', 'wallex_drop_outbox_day(integer)',
            'wallex_drop_key_month(text)'] loop
        execute format('alter function %s set search_path = %I, pg_temp', function_name, current_schema());
        execute format('revoke execute on function %s from public', function_name);
    end loop;
    revoke execute on function wallex_new_partition(text, text) from public;
end $$;

do $$
declare
    partition_name text;
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select on table_partitions, outbox_days to wallex_app;
        grant usage on sequence outbox_batches_id_seq to wallex_app;
        grant execute on function wallex_add_month(text, timestamptz), wallex_add_outbox_day(),
            wallex_begin_outbox_day(timestamptz, interval), wallex_drop_outbox_day(integer),
            wallex_drop_key_month(text) to wallex_app;
        -- As on the whole.
        for partition_name in select name from table_partitions where parent in ('events', 'postings') loop
            execute format('grant select, insert on %I to wallex_app', partition_name);
        end loop;
        for partition_name in select name from table_partitions where parent in ('outbox_batches', 'idempotency_keys') loop
            execute format('grant select, insert, update, delete on %I to wallex_app', partition_name);
        end loop;
    end if;
end $$;
