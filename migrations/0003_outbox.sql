-- Events that have yet to reach Kafka, written in the transaction of their command. Narrow: the
-- publisher joins the payload from `events`.

create table outbox (
    id            bigint generated always as identity (cache 1),
    tenant_id     text collate "C" not null,
    aggregate_id  text collate "C" not null,
    event_type    text collate "C" not null,
    event_version bigint not null,
    topic         text collate "C" not null,
    partition     integer not null,
    created_at    timestamptz not null,
    processed_at  timestamptz,
    -- False on a processed row: it was applied without Kafka and was never sent.
    published     boolean not null default false,
    attempts      integer not null default 0,
    last_error    text,
    constraint outbox_pkey primary key (tenant_id, id)
)
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- The publisher reads the *set* of unsent rows, never "id > last": a transaction that commits
-- late is found later instead of being skipped. Ids are taken under the wallet's lock, so they
-- ascend with its versions.
create index outbox_unprocessed on outbox (topic, partition, id) where processed_at is null;

-- Records that the broker refused: the publisher asks for each row whether its wallet waits behind
-- one. Nearly always empty, so that no command pays for it.
create index outbox_refused on outbox (tenant_id, aggregate_id)
    where processed_at is null and last_error is not null;

-- Who publishes and who projects a partition. Clock: the database's.
create table partition_leases (
    tenant_id   text collate "C" not null,
    -- 'publisher' or a projector's name.
    role        text collate "C" not null,
    topic       text collate "C" not null,
    partition   integer not null,
    owner       text,
    epoch       bigint not null default 0,
    expires_at  timestamptz,
    -- The publisher's last confirmed offset, written with the marks of its rows: whoever must
    -- find out what reached the topic reads on from here.
    last_offset bigint,
    updated_at  timestamptz not null default clock_timestamp(),
    constraint partition_leases_pkey primary key (tenant_id, role, topic, partition)
);
