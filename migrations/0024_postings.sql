-- One row for each posting, in which an amount moves between a wallet and a counter account, in place of a row
-- for each of its two entries. It is half of what an event costs the ledger: one row with three indexes
-- instead of two with four. The view `ledger_entries` shows both entries, as before.
-- An event with several postings (one for each part of a sum) numbers them as pairs. A movement between two
-- system accounts, as a conversion's rounding, needs one more column (the account in place of the wallet, null
-- for the wallet itself) and one more branch of the view.

-- A projector of an earlier version that still runs waits from here on, and then finds no table to write to:
-- what it would have added behind the copy below would be gone with the table. Readers go on meanwhile.
lock table ledger_entries in exclusive mode;

create table postings (
    tenant_id         text collate "C" not null,
    -- Of the event, as its version.
    wallet_id         text collate "C" not null,
    version           bigint not null,
    -- Its entries are the legs 2 * pair, which is the wallet's, and 2 * pair + 1.
    pair              smallint not null default 0,
    -- Of the wallet's entry, as callers know it.
    id                uuid not null,
    event_id          uuid not null,
    transaction_id    uuid not null,
    created_at        timestamptz not null,
    transaction_type  text collate "C" not null,
    -- The wallet's. The counter account's is the other one: debits equal credits in every event and
    -- currency, since both are of one amount.
    side              text collate "C" not null,
    amount            numeric(28,8) not null,
    currency          text collate "C" not null,
    -- 'external' (the outside world), 'transfers_in_flight'. A balance of such an account would be a row that
    -- every command queues for.
    counter_account   text collate "C" not null,
    related_wallet_id text collate "C",
    balance_before    numeric(28,8) not null,
    balance_after     numeric(28,8) not null,
    reference_id      text collate "C" not null,
    description       text,
    metadata          json,
    -- Applying an event twice cannot add entries. A wallet's page, newest first, and its summary.
    constraint postings_pkey primary key (tenant_id, wallet_id, version, pair),
    constraint postings_amount check (amount > 0),
    constraint postings_side check (side in ('DEBIT', 'CREDIT')),
    constraint postings_counter_account check (counter_account <> 'wallet'),
    constraint postings_pair check (pair >= 0)
);

-- So far the counter account follows from the type. What was altered by hand and cannot stand is not taken
-- along; `wallex reconcile` names it as missing, as it would have named it before.
insert into postings
    select tenant_id, wallet_id, version, 0, id, event_id, transaction_id, created_at, transaction_type,
        side, amount, currency,
        case when transaction_type in ('CREDIT', 'DEBIT') then 'external' else 'transfers_in_flight' end,
        related_wallet_id, balance_before, balance_after, reference_id, description, metadata
    from ledger_entries
    where wallet_id is not null and leg = 0 and balance_before is not null and balance_after is not null
    on conflict do nothing;

-- Look-up by the caller's reference or the transaction's id.
create index postings_reference on postings (tenant_id, reference_id);
-- All transactions, newest first; event ids ascend with time.
create index postings_recent on postings (tenant_id, created_at, event_id);

select wallex_confine('postings');

-- Roles that could read the table can read the view. It looks at the postings with the rights of the role that
-- asks, so that row-level security counts for it, too.
do $$
declare
    reader text;
    readers text[] := array(
        select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = 'ledger_entries'::regclass and a.privilege_type = 'SELECT'
          and a.grantee <> c.relowner);
begin
    drop table ledger_entries;
    create view ledger_entries with (security_invoker = true) as
        select tenant_id, id, transaction_id, 'wallet'::text collate "C" as account, wallet_id,
            related_wallet_id, transaction_type, side, amount, currency, balance_before, balance_after,
            description, reference_id, metadata, event_id, (2 * pair)::smallint as leg, version, created_at
        from postings
        union all
        -- Its id is that of the wallet's entry, whose version is 5, with 8 in that place: no row has to keep it.
        select tenant_id, overlay(id::text placing '8' from 15 for 1)::uuid, transaction_id, counter_account,
            null::text collate "C", null::text collate "C", transaction_type,
            case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end collate "C", amount, currency,
            null::numeric(28,8), null::numeric(28,8), null::text, reference_id, null::json, event_id,
            (2 * pair + 1)::smallint, version, created_at
        from postings;
    foreach reader in array readers loop
        execute format('grant select on postings, ledger_entries to %s', reader);
    end loop;
end $$;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert on postings to wallex_app;
        -- The grants of before speak of the table of this name, and are given again where the role comes late.
        revoke all on ledger_entries from wallex_app;
        grant select on ledger_entries to wallex_app;
    end if;
end $$;
