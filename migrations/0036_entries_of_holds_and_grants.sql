-- What an entry is of, beside its wallet, where it is of more: null in all entries of before, so that no row
-- is rewritten.

alter table postings
    add column grant_id     uuid,
    add column hold_id      uuid,
    -- When it counts from; null: when it was recorded.
    add column effective_at timestamptz,
    -- The transaction that it reverses.
    add column reverses     uuid;

create index postings_hold on postings (tenant_id, hold_id) where hold_id is not null;
create index postings_grant on postings (tenant_id, grant_id) where grant_id is not null;
create index postings_reverses on postings (tenant_id, reverses) where reverses is not null;
create index postings_effective on postings (tenant_id, wallet_id, effective_at)
    where effective_at is not null;

create or replace view ledger_entries with (security_invoker = true) as
    select tenant_id, id, transaction_id, 'wallet'::text collate "C" as account, wallet_id,
        related_wallet_id, transaction_type, side, amount, currency, balance_before, balance_after,
        description, reference_id, metadata, event_id, (2 * pair)::smallint as leg, version, created_at,
        grant_id, hold_id, effective_at, reverses
    from postings
    union all
    select tenant_id, overlay(id::text placing '8' from 15 for 1)::uuid, transaction_id, counter_account,
        null::text collate "C", null::text collate "C", transaction_type,
        case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end collate "C", amount, currency,
        null::numeric(28,8), null::numeric(28,8), null::text, reference_id, null::json, event_id,
        (2 * pair + 1)::smallint, version, created_at, grant_id, hold_id, effective_at, reverses
    from postings;
