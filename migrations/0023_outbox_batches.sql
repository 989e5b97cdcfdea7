-- What is to be published has a row for each batch of commands, tenant and partition, no longer one for
-- each event: writing, claiming, marking and purging a row was more than a quarter of an event's cost to
-- Postgres. `outbox` shows a row for each event as before. It is a view: it cannot be updated, and no
-- change capture follows it.

-- An instance of an earlier release may write while its rows are moved: none may come in between.
lock table outbox in exclusive mode;

create table outbox_batches (
    tenant_id    text collate "C" not null,
    -- Taken under the locks of the batch's wallets, so that ids ascend with their versions. Batches that
    -- send events again have ids from `outbox_republished`, below these.
    id           bigint generated always as identity (cache 1),
    -- What is sent of a batch without the rest of it keeps its part, and the rest goes into the next one.
    part         smallint not null default 0,
    topic        text collate "C" not null,
    partition    integer not null,
    -- Of each of its events: those of another time are in a batch of their own.
    created_at   timestamptz not null,
    processed_at timestamptz,
    -- False on a processed batch: it was applied without Kafka and was never sent.
    published    boolean not null default false,
    -- The events in the order in which they are sent: wallets[n] at versions[n].
    wallets      text[] collate "C" not null,
    versions     bigint[] not null,
    constraint outbox_batches_pkey primary key (tenant_id, id, part),
    constraint outbox_batches_events check (cardinality(wallets) = cardinality(versions)
        and cardinality(versions) > 0)
)
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- A batch that is taken apart: what is at some places of an array, and what is not.
create function outbox_at(list anyarray, places bigint[]) returns anyarray
    language sql immutable parallel safe as $$
    select array_agg(e.value order by e.place) from unnest(list) with ordinality e(value, place)
    where e.place = any(places)
$$;
create function outbox_without(list anyarray, places bigint[]) returns anyarray
    language sql immutable parallel safe as $$
    select array_agg(e.value order by e.place) from unnest(list) with ordinality e(value, place)
    where e.place <> all(places)
$$;

-- Events that the broker refused: the publisher asks before each claim which wallets wait behind one.
-- Nearly always empty. A row goes when its event is sent, or is to be tried again.
create table outbox_refusals (
    tenant_id  text collate "C" not null,
    wallet_id  text collate "C" not null,
    version    bigint not null,
    -- The batch that was refused: without a part of it that waits, nothing waits behind this.
    id         bigint not null,
    attempts   integer not null,
    last_error text not null,
    constraint outbox_refusals_pkey primary key (tenant_id, wallet_id, version)
);

-- Rows of before become batches: neighbours in one partition, of one time and in one state. So neither
-- their order nor anything that is known of an event changes.
insert into outbox_batches (tenant_id, id, topic, partition, created_at, processed_at, published,
    wallets, versions) overriding system value
select tenant_id, min(id), topic, partition, created_at, max(processed_at), published,
    array_agg(aggregate_id order by id), array_agg(event_version order by id)
from (select *, (row_number() over (partition by tenant_id, topic, partition, waits, published, again,
            run order by id) - 1) / 500 as slice
    from (select *, sum(begins) over (partition by tenant_id, topic, partition, waits, published, again
            order by id) as run
        from (select *, processed_at is null as waits, id < 0 as again,
                case when lag(created_at) over (partition by tenant_id, topic, partition,
                    processed_at is null, published, id < 0 order by id) = created_at
                    then 0 else 1 end as begins
            from outbox) begun) runs) sliced
group by tenant_id, topic, partition, waits, published, again, run, slice, created_at;

-- The publisher reads the *set* of unsent batches, never "id > last": a transaction that commits late is
-- found later instead of being skipped.
create index outbox_batches_unprocessed on outbox_batches (topic, partition, id, part)
    where processed_at is null;
-- What was applied without Kafka and never sent; its events are found by their time. While Kafka is on, a
-- batch never enters: it is marked processed and published in one.
create index outbox_batches_unpublished on outbox_batches (tenant_id, partition, created_at)
    where processed_at is not null and not published;

-- An event may have been refused in two rows, of which one sends it again: the worse one counts.
insert into outbox_refusals (tenant_id, wallet_id, version, id, attempts, last_error)
select distinct on (o.tenant_id, o.aggregate_id, o.event_version) o.tenant_id, o.aggregate_id,
    o.event_version, b.id, o.attempts, o.last_error
from outbox o cross join lateral (select b.id from outbox_batches b
    where b.tenant_id = o.tenant_id and b.topic = o.topic and b.partition = o.partition
      and b.processed_at is null and b.id <= o.id and b.wallets @> array[o.aggregate_id]
    order by b.id desc limit 1) b
where o.processed_at is null and o.last_error is not null
order by o.tenant_id, o.aggregate_id, o.event_version, o.attempts desc;

-- Ids go on where they were.
do $$
declare
    last bigint;
    called boolean;
begin
    execute format('select last_value, is_called from %s', pg_get_serial_sequence('outbox', 'id'))
        into last, called;
    perform setval(pg_get_serial_sequence('outbox_batches', 'id'), last, called);
end $$;

-- A row for each event, in the columns of before. `id` is the batch's: several events have it. Roles that could
-- read the table can read the view.
do $$
declare
    reader text;
    readers text[] := array(
        select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = 'outbox'::regclass and a.privilege_type = 'SELECT' and a.grantee <> c.relowner);
begin
    drop table outbox;
    create view outbox as
        select b.id, b.tenant_id, e.wallet_id as aggregate_id,
            -- Looked up only where it is asked for, and after a limit.
            (select v.event_type from events v where v.tenant_id = b.tenant_id
                and v.wallet_id = e.wallet_id and v.version = e.version) as event_type,
            e.version as event_version, b.topic, b.partition, b.created_at, b.processed_at, b.published,
            coalesce((select r.attempts from outbox_refusals r where r.tenant_id = b.tenant_id
                and r.wallet_id = e.wallet_id and r.version = e.version), 0) as attempts,
            (select r.last_error from outbox_refusals r where r.tenant_id = b.tenant_id
                and r.wallet_id = e.wallet_id and r.version = e.version) as last_error
        from outbox_batches b cross join lateral unnest(b.wallets, b.versions) e(wallet_id, version);
    foreach reader in array readers loop
        execute format('grant select on outbox to %s', reader);
    end loop;
end $$;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on outbox_batches, outbox_refusals to wallex_app;
        -- The grants of before speak of the table of this name, and are given again where the role comes late.
        revoke all on outbox from wallex_app;
        grant select on outbox to wallex_app;
    end if;
end $$;
