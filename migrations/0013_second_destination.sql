-- A second topic or cluster gets every event while a deployment moves over. Its progress is kept where
-- a projector's is (projector_checkpoints, projected_versions, partition_leases, under the name
-- 'second-publisher'), so that commands and the first publisher pay nothing for it. Here stands which
-- topic that progress is about: another topic, or one made anew, begins anew.

create table second_destinations (
    tenant_id   text collate "C" not null,
    topic       text collate "C" not null,
    -- The cluster's own id of the topic: the same name on another cluster is another topic.
    topic_id    uuid not null,
    -- What the first was at that time: its place is found by it when the two change sides.
    first_topic text collate "C" not null,
    -- A wallet without a row in projected_versions has been sent up to its last event below this.
    from_xid    xid8 not null,
    updated_at  timestamptz not null default clock_timestamp(),
    constraint second_destinations_pkey primary key (tenant_id)
);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on second_destinations to wallex_app;
    end if;
end $$;
