-- A batch may hold the commands of many tenants, and a command may touch any number of wallets.

-- The ids of batches are random: they need no tenant beside them.
alter table command_batches
    drop constraint command_batches_pkey,
    drop column tenant_id,
    add primary key (id);

alter table idempotency_keys
    -- Of the command's wallets but the first, in the order of its footprint.
    add column other_versions bigint[],
    -- Of the first wallet, where the command does not name it: its id was generated.
    add column wallet_id text;

update idempotency_keys set other_versions = array[second_version]
where second_version is not null;

-- A wallet whose id was generated: its answer was kept as text.
update idempotency_keys
set wallet_id = answer::json ->> 'id', version = (answer::json ->> 'version')::bigint, answer = null
where status = 201 and version is null and answer like '{%';

-- Refusals are kept as what they say, no longer as documents. Those from before are given up: their
-- keys still forbid a second effect.
update idempotency_keys set status = null, answer = null where status >= 400;

alter table idempotency_keys drop column second_version;
