-- Which builds can work on this schema: those that know the migration of this number, and later ones. A migration that
-- takes away or renames what earlier builds use sets it to its own number; one that only adds leaves it. So an
-- earlier build can be started again after an upgrade (or refuses by name), whatever it does not know.

create table schema_compatibility (
    tenant_id text collate "C" not null,
    min_build bigint not null,
    constraint schema_compatibility_pkey primary key (tenant_id)
);

-- The tables of before are partitions: 0028.
insert into schema_compatibility (tenant_id, min_build) values ('default', 28);

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select on schema_compatibility to wallex_app;
    end if;
end $$;
