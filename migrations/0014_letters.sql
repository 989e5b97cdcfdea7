-- Dead letters of commands beside those of events, and events of a version of the service that is
-- newer than the one that met them.

alter table dead_letters
    -- 'events': a record of the events topic; 'commands': one of the topics of inbound commands. The
    -- topic alone does not tell: its name is a setting, which changes.
    add column source text collate "C" not null default 'events',
    add constraint dead_letters_source check (source in ('events', 'commands'));

-- What nobody has settled, which is counted every few seconds: a poison of 100,000 records that was
-- settled costs that nothing. As `OPEN` in src/store/dead_letters.rs says it.
create index dead_letters_open on dead_letters (tenant_id, id)
    where quarantined_at is null
      and (replay_requested_at is not null or replay_count <= failed_replay);

alter table parked_wallets
    -- It waits for a version of the service that knows its event, not for a person: tried for ever.
    add column newer boolean not null default false;
