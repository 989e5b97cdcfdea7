-- A success is kept as the versions that it left its wallets at; the answer is made again from the
-- events of those versions, to the byte. That halves what a keyed command writes. Text is kept
-- only where events do not say it: refusals, and wallets whose id was made here.

alter table idempotency_keys
    add column version bigint,
    -- Of a transfer's destination.
    add column second_version bigint;

-- `status` null: the retention of the answer has passed, whichever way it was kept.
