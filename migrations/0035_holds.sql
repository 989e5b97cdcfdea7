-- Money on hold, and what a wallet has beyond a balance. The defaults are constants: no row is rewritten.

alter table wallets
    -- Grants 1, limits 2, thresholds 4, a top-up rule 8, answers that events do not say 16, an overdraft limit
    -- of its own 32. A wallet with 0 is plain: its commands read and write nothing more.
    add column features smallint not null default 0,
    -- Nothing of the wallet falls due before; it may be early, never late.
    add column next_due_at timestamptz;

-- What the sweeper looks for. A plain update changes neither the column nor whether it is null, and stays
-- heap-only.
create index wallets_due on wallets (next_due_at) where next_due_at is not null;

alter table wallets drop constraint wallets_status;
alter table wallets add constraint wallets_status
    check (status in ('active', 'suspended', 'frozen', 'closed')) not valid;
alter table wallets validate constraint wallets_status;

-- Written by the commands of its wallet under that wallet's lock, never locked itself.
create table holds (
    tenant_id     text collate "C" not null,
    id            uuid not null,
    wallet_id     text collate "C" not null,
    currency      text collate "C" not null,
    -- What is promised in all, what was captured of it included.
    amount        numeric(28,8) not null,
    max_capture   numeric(28,8) not null,
    captured      numeric(28,8) not null default 0,
    released      numeric(28,8) not null default 0,
    status        text collate "C" not null,
    closed_by     text collate "C",
    -- From this moment on it is expired.
    expires_at    timestamptz not null,
    to_wallet_id  text collate "C",
    -- What is promised out of grants.
    reserved      json,
    description   text,
    reference     text collate "C",
    metadata      json,
    -- The wallet's version that placed it.
    place_version bigint not null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    -- An id is one hold's for ever, whatever wallet it is of.
    constraint holds_pkey primary key (tenant_id, id),
    constraint holds_status check (status in ('open', 'captured', 'released', 'expired')),
    constraint holds_closed check ((status = 'open') = (closed_by is null)),
    -- The second net under wallet::decide.
    constraint holds_captured check (captured >= 0 and captured <= max_capture),
    constraint holds_amount check (amount > 0 and max_capture >= amount)
)
-- Adjusted and captured in place: half of a page stays free for that.
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- A wallet's holds, newest first: ids ascend with time unless callers choose them.
create index holds_wallet on holds (tenant_id, wallet_id, created_at, id);
-- What is due of a wallet, and how many it has open.
create index holds_open on holds (tenant_id, wallet_id, expires_at, id) where status = 'open';

select wallex_confine('holds');

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update on holds to wallex_app;
    end if;
end $$;
