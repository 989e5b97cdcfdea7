-- Events are found by wallet and version, everywhere. This index was asked for by nobody, and every
-- command paid for it; a plan made while `events` was small could even prefer it, and read all of a
-- tenant's events for each one it looked up. That an event's id stands once is kept by the ledger's
-- primary key, and by version 7 ids.
drop index events_event_id;
