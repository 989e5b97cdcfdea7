-- While a snapshot is held for minutes, entries of batches that were processed since stay in the index of those that
-- wait, and a look at a partition without any reads them all. The publisher keeps in mind below which ids all are
-- processed, and notes it here, seldom, for those who only count what waits. A row says too little, never
-- too much: its ids may be processed further.

create table outbox_floors (
    tenant_id text collate "C" not null,
    topic     text collate "C" not null,
    partition integer not null,
    -- All batches that send events again (their ids are negative) with lower ids are processed.
    again     bigint not null,
    -- The same of batches of commands.
    commands  bigint not null,
    noted_at  timestamptz not null default clock_timestamp(),
    constraint outbox_floors_pkey primary key (tenant_id, topic, partition)
);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on outbox_floors to wallex_app;
    end if;
end $$;
