-- Repair and retention: events that are sent again, how far tables were purged, rebuilt projections.

-- Rows that send an event again take their ids from here: below every row of a command, so that a
-- wallet's earlier versions go before its later ones that wait; and ascending, so that a later
-- part of the same wallet goes after an earlier one.
create sequence outbox_republished minvalue -1000000000000000 maxvalue -1 start -1000000000000000;

-- The wallets whose events are yet to be sent again, each from a version on. A list in the
-- database: whoever asked may be killed, any service goes on with it.
create table outbox_republications (
    tenant_id    text collate "C" not null,
    wallet_id    text collate "C" not null,
    next_version bigint not null,
    -- A part of it has its rows already: what commands add meanwhile waits for the rest.
    begun        boolean not null default false,
    asked_at     timestamptz not null default clock_timestamp(),
    constraint outbox_republications_pkey primary key (tenant_id, wallet_id),
    constraint outbox_republications_version check (next_version >= 1)
);
-- Every claim of the publisher reads these; there are hardly ever any.
create index outbox_republications_begun on outbox_republications (tenant_id, wallet_id)
    where begun;

-- What was applied without Kafka and never sent. While Kafka is on, a row never enters: it is
-- marked processed and published in one.
create index outbox_unpublished on outbox (tenant_id, aggregate_id, event_version)
    where processed_at is not null and not published;

-- What is gone from the outbox: without it nobody could tell a purged row from a lost one.
create table outbox_purges (
    tenant_id        text collate "C" not null,
    -- Every event younger than this still has its row.
    purged_through   timestamptz,
    -- The oldest of the purged rows that were never sent; null once all of them were sent again.
    unpublished_from timestamptz,
    updated_at       timestamptz not null default clock_timestamp(),
    constraint outbox_purges_pkey primary key (tenant_id)
);

-- The last rebuild of each projection.
create table projection_rebuilds (
    tenant_id   text collate "C" not null,
    projector   text collate "C" not null,
    started_at  timestamptz not null default clock_timestamp(),
    -- Null: under way, or broken off; the projection is then as it was before.
    finished_at timestamptz,
    events      bigint not null default 0,
    constraint projection_rebuilds_pkey primary key (tenant_id, projector)
);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on outbox_republications, outbox_purges to wallex_app;
        grant select on projection_rebuilds to wallex_app;
        grant usage on sequence outbox_republished to wallex_app;
    end if;
end $$;
