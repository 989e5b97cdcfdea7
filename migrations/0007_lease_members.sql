-- Who shares the work of a role: each instance aims at its fair share of the partitions, and so
-- must know how many there are. A heartbeat per instance and role, by the database's clock; the
-- leases themselves stay in partition_leases.

create table lease_members (
    tenant_id  text collate "C" not null,
    -- As in partition_leases: 'publisher' or a projector's name.
    role       text collate "C" not null,
    topic      text collate "C" not null,
    owner      text collate "C" not null,
    -- The key of the advisory lock that the instance's listening session holds: once nobody holds
    -- it, the process is gone, and its leases need not run out first. Null: it has no such session.
    session    bigint,
    expires_at timestamptz not null,
    constraint lease_members_pkey primary key (tenant_id, role, topic, owner)
);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on lease_members to wallex_app;
    end if;
end $$;
