-- A dead letter has a life after it was set aside: it goes to its topic, may be replayed, may fail
-- again, is settled by a person in the end. A parked wallet is tried again by itself. And a topic
-- that was made anew under its old name is told apart from the one before.

alter table dead_letters
    -- Who met it. Both projectors read the same topic: one record is one dead letter.
    add column projectors text[],
    -- First 16 bytes of SHA-256 over key, value, headers and time: a topic made anew has other
    -- records at the same offsets.
    add column record_hash bytea not null default '',
    add column failed_at timestamptz not null default clock_timestamp(),
    -- The last replay that is known to have failed: a replay counts once, however often it is read.
    add column failed_replay integer not null default 0,
    add column published_at timestamptz,
    add column replay_requested_at timestamptz,
    add column replayed_at timestamptz,
    -- Why the broker would not take it; it is not sent again before a person asks for it.
    add column refusal text,
    add column quarantined_at timestamptz,
    add column note text,
    -- Several instances send: one of them at a time has a row. The database's clock.
    add column claimed_by text,
    add column claimed_until timestamptz;

update dead_letters d set projectors = array(
    select s.projector from dead_letters s
    where s.tenant_id = d.tenant_id and s.topic = d.topic and s.partition = d.partition
      and s."offset" = d."offset" order by s.projector);
delete from dead_letters d using dead_letters s
    where s.tenant_id = d.tenant_id and s.topic = d.topic and s.partition = d.partition
      and s."offset" = d."offset" and s.id < d.id;

alter table dead_letters
    alter column projectors set not null,
    alter column record_hash drop default,
    drop constraint dead_letters_record,
    drop column projector,
    add constraint dead_letters_record
        unique (tenant_id, topic, partition, "offset", record_hash);

-- What is to be sent, to the topic of the dead letters or back to where it came from.
create index dead_letters_due on dead_letters (tenant_id, id)
    where refusal is null and (published_at is null or replay_requested_at is not null);

alter table parked_wallets
    add column last_tried_at timestamptz not null default clock_timestamp();

alter table topics
    -- The id that the broker gave the topic; another one under the same name is another topic.
    add column topic_id uuid;
