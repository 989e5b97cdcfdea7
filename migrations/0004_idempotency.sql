-- One effect per key, for ever; the first answer again while it is kept.

create table idempotency_keys (
    tenant_id      text collate "C" not null,
    -- First 16 bytes of SHA-256 over method, route with decoded ids, and key.
    scope_hash     bytea not null,
    -- First 16 bytes of SHA-256 over the parsed request: another request under the key is refused.
    fingerprint    bytea not null,
    transaction_id uuid not null,
    -- The answer as sent; null once its retention has passed.
    status         smallint,
    answer         text,
    created_at     timestamptz not null,
    constraint idempotency_keys_pkey primary key (tenant_id, scope_hash)
);
-- No index on created_at: the purge walks the primary key in small steps, commands pay nothing.
