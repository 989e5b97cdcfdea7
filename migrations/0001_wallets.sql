-- The write side's state: one row a wallet, locked by every command on it.
-- Ids and keys compare in C order: byte comparison is a third cheaper than a locale's, and every
-- transaction of every instance must sort them alike to lock in one order.

create table wallets (
    tenant_id       text collate "C" not null,
    id              text collate "C" not null,
    owner_id        text collate "C" not null,
    currency        text collate "C" not null,
    status          text collate "C" not null,
    balance         numeric(28,8) not null,
    held_balance    numeric(28,8) not null default 0,
    overdraft_limit numeric(28,8) not null default 0,
    version         bigint not null,
    -- json, not jsonb: stored as sent and never queried inside here; the read model has jsonb.
    metadata        json,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint wallets_pkey primary key (tenant_id, id),
    constraint wallets_status check (status in ('active', 'frozen', 'closed')),
    -- The second net under wallet::decide: no race and no bug may spend what is not there.
    constraint wallets_available check (balance - held_balance + overdraft_limit >= 0),
    constraint wallets_held check (held_balance >= 0),
    constraint wallets_overdraft check (overdraft_limit >= 0),
    constraint wallets_version check (version >= 1)
)
-- Half of each page stays free so that balance updates are heap-only: no index is touched.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- One row a batch of commands, its first statement: after a lost COMMIT answer a second INSERT of
-- the same id waits for the one in doubt, and its unique violation proves that it committed.
create table command_batches (
    tenant_id  text collate "C" not null,
    id         uuid not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint command_batches_pkey primary key (tenant_id, id)
);

-- The number of partitions that a wallet's partition was hashed with, frozen per topic: a broker
-- whose count is raised later must not split a wallet's order.
create table topics (
    tenant_id  text collate "C" not null,
    name       text collate "C" not null,
    partitions integer not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint topics_pkey primary key (tenant_id, name),
    constraint topics_partitions check (partitions between 1 and 10000)
);
