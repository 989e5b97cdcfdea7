-- Reads the tables beside commands, which go on: no lock of these stands in the way of one.
alter table idempotency_keys validate constraint idempotency_keys_bound;
alter table outbox_batches validate constraint outbox_batches_bound;
alter table events validate constraint events_bound;
alter table postings validate constraint postings_bound;
