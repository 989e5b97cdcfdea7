-- What happened, for ever. Never updated, never deleted; everything else can be derived from it.

create table events (
    tenant_id      text collate "C" not null,
    wallet_id      text collate "C" not null,
    version        bigint not null,
    event_id       uuid not null,
    event_type     text collate "C" not null,
    schema_version smallint not null default 1,
    -- The envelope's `data`, written once and read whole: json keeps its bytes.
    payload        json not null,
    transaction_id uuid not null,
    -- Who asked, once callers are authenticated.
    actor          text collate "C",
    correlation_id text collate "C",
    causation_id   text collate "C",
    traceparent    text collate "C",
    -- Frozen at insert, as in the outbox: a republication must not move a wallet.
    partition      integer not null,
    created_at     timestamptz not null,
    -- Orders the feed that reads straight from here: rows below the oldest running transaction
    -- are complete, whatever order their transactions committed in.
    commit_xid     xid8 not null default pg_current_xact_id(),
    -- Gapless versions: a second writer of the same version cannot commit.
    constraint events_pkey primary key (tenant_id, wallet_id, version),
    constraint events_version check (version >= 1)
);

-- Apply statements and read-backs find an event by its id; version 7 ids append, so it is cheap.
create unique index events_event_id on events (tenant_id, event_id);
-- The feed from Postgres: one partition in commit order.
create index events_feed on events (partition, commit_xid);
