-- What is derived from events: disposable, rebuilt from them at any time.

create table ledger_entries (
    tenant_id        text collate "C" not null,
    id               uuid not null,
    transaction_id   uuid not null,
    -- 'wallet', or a system account: 'external' (the outside world), 'transfers_in_flight'.
    account          text collate "C" not null,
    wallet_id        text collate "C",
    related_wallet_id text collate "C",
    transaction_type text collate "C" not null,
    side             text collate "C" not null,
    amount           numeric(28,8) not null,
    currency         text collate "C" not null,
    -- Null on system accounts: a running balance there would be a row that every command queues for.
    balance_before   numeric(28,8),
    balance_after    numeric(28,8),
    description      text,
    reference_id     text collate "C" not null,
    metadata         json,
    event_id         uuid not null,
    -- 0 is the wallet's side, 1 the system account's.
    leg              smallint not null,
    version          bigint not null,
    created_at       timestamptz not null,
    -- Applying an event twice cannot add entries.
    constraint ledger_entries_pkey primary key (tenant_id, event_id, leg),
    constraint ledger_entries_amount check (amount > 0),
    constraint ledger_entries_side check (side in ('DEBIT', 'CREDIT')),
    constraint ledger_entries_wallet check ((account = 'wallet') = (wallet_id is not null))
);
-- A wallet's page, newest first, and its summary.
create index ledger_entries_wallet_version on ledger_entries (tenant_id, wallet_id, version)
    where wallet_id is not null;
-- Look-up by the caller's reference or the transaction's id.
create index ledger_entries_reference on ledger_entries (tenant_id, reference_id)
    where wallet_id is not null;
-- All transactions, newest first; event ids ascend with time.
create index ledger_entries_recent on ledger_entries (tenant_id, created_at, event_id)
    where wallet_id is not null;

create table wallets_read_model (
    tenant_id       text collate "C" not null,
    id              text collate "C" not null,
    owner_id        text collate "C" not null,
    currency        text collate "C" not null,
    status          text collate "C" not null,
    balance         numeric(28,8) not null,
    held_balance    numeric(28,8) not null default 0,
    overdraft_limit numeric(28,8) not null default 0,
    version         bigint not null,
    -- As sent, for the answer; the filter on metadata.KEY looks inside.
    metadata        json,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint wallets_read_model_pkey primary key (tenant_id, id)
)
with (fillfactor = 50);
create index wallets_read_model_recent on wallets_read_model (tenant_id, created_at, id);
create index wallets_read_model_owner on wallets_read_model (tenant_id, owner_id, created_at, id);

-- Where each projector stands: its next offset in the topic, and its place in the feed from
-- Postgres (every event of a transaction below feed_xid is applied). Moved by compare-and-set in
-- the transaction of the projection.
create table projector_checkpoints (
    tenant_id   text collate "C" not null,
    projector   text collate "C" not null,
    topic       text collate "C" not null,
    partition   integer not null,
    next_offset bigint not null default 0,
    feed_xid    xid8 not null default '0',
    updated_at  timestamptz not null default clock_timestamp(),
    constraint projector_checkpoints_pkey primary key (tenant_id, projector, topic, partition)
)
with (fillfactor = 50);

-- The last version of each wallet that a projector has applied.
create table projected_versions (
    tenant_id text collate "C" not null,
    projector text collate "C" not null,
    wallet_id text collate "C" not null,
    version   bigint not null,
    constraint projected_versions_pkey primary key (tenant_id, projector, wallet_id)
)
with (fillfactor = 50);

-- Records that are no event of ours: kept whole, they block nobody.
create table dead_letters (
    tenant_id          text collate "C" not null,
    id                 bigint generated always as identity,
    projector          text collate "C" not null,
    topic              text collate "C" not null,
    partition          integer not null,
    "offset"           bigint not null,
    key                bytea,
    value              bytea,
    headers            json,
    error_class        text collate "C" not null,
    error_message      text not null,
    attempts           integer not null default 1,
    replay_count       integer not null default 0,
    created_at         timestamptz not null default clock_timestamp(),
    constraint dead_letters_pkey primary key (tenant_id, id),
    -- The same record met again (a replay, a second owner) is not a second dead letter.
    constraint dead_letters_record unique (tenant_id, projector, topic, partition, "offset")
);

-- Wallets whose next event could not be applied; what is behind it is read from events at release.
create table parked_wallets (
    tenant_id     text collate "C" not null,
    projector     text collate "C" not null,
    wallet_id     text collate "C" not null,
    version       bigint not null,
    cause         text not null,
    attempts      integer not null default 1,
    parked_at     timestamptz not null default clock_timestamp(),
    next_retry_at timestamptz,
    constraint parked_wallets_pkey primary key (tenant_id, projector, wallet_id)
);
