-- The projectors' places are copied to Kafka under their groups' names, for the official tools. What
-- was copied is noted first: an offset in Kafka that is none of these was set by somebody else, and
-- is a reset, also one that was made while nobody looked.

create table group_offsets (
    tenant_id text collate "C" not null,
    projector text collate "C" not null,
    topic     text collate "C" not null,
    partition integer not null,
    -- What the group had in Kafka before the last copy; null: nothing.
    written   bigint,
    -- The last copy, noted before it is sent: Kafka has it or the one before.
    sent      bigint not null,
    constraint group_offsets_pkey primary key (tenant_id, projector, topic, partition)
)
with (fillfactor = 50);

-- Every reset that was met, written in the statement that moves the checkpoint: from where to where,
-- and whether it was honoured. One beyond the checkpoint is not: it would skip events.
create table consumer_resets (
    tenant_id   text collate "C" not null,
    id          bigint generated always as identity,
    projector   text collate "C" not null,
    topic       text collate "C" not null,
    partition   integer not null,
    from_offset bigint not null,
    to_offset   bigint not null,
    honoured    boolean not null,
    created_at  timestamptz not null default clock_timestamp(),
    constraint consumer_resets_pkey primary key (tenant_id, id)
);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on group_offsets to wallex_app;
        grant select, insert on consumer_resets to wallex_app;
        -- A tenant's topics are forgotten once they are deleted.
        grant delete on topics to wallex_app;
    end if;
end $$;
