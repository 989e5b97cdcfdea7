-- First of three steps by which tables that grow for years are partitioned. What is there becomes the
-- first partition as it stands: no row is written again. A partition must prove that its rows lie within its bounds. The
-- proof is asked of new rows from here on, of the rows that are there by the next migration, which stands in
-- no command's way, and the last one then needs to look at none.

-- A key that is a version 7 UUID names its own time, and lies with those of its month, in their order: an
-- entry of an index at a random place costs a page of the log where the index is larger than what a
-- checkpoint holds. All other keys lie at '-infinity'.
alter table idempotency_keys
    add column keyed_at timestamptz not null default '-infinity',
    add constraint idempotency_keys_bound check (keyed_at < '1970-01-01 00:00:00+00') not valid;

-- Ids of the first partition end here; that they are taken by the million for years does not reach it.
alter table outbox_batches add constraint outbox_batches_bound check (id < 1099511627776) not valid;

-- Rows of before, and of the month in which this runs and the next one.
do $$
declare
    bound timestamptz;
begin
    -- A wallet's time goes on from its last event's, also where that was given by a clock that ran ahead.
    select greatest(clock_timestamp(), max(updated_at)) into bound from wallets;
    bound := (date_trunc('month', bound at time zone 'UTC') + interval '2 months') at time zone 'UTC';
    execute format('alter table events add constraint events_bound check (created_at < %L) not valid', bound);
    execute format('alter table postings add constraint postings_bound check (created_at < %L) not valid',
        bound);
end $$;
