-- Which deployment these books are, as its events say in the topic. It lies with the books: a dump, a
-- standby, a restore and a second instance are the same deployment; another database is another one. So
-- events of somebody else's in the topic are told from those that a restore has taken from the books.

create table deployments (
    tenant_id  text collate "C" not null,
    id         uuid not null default gen_random_uuid(),
    created_at timestamptz not null default clock_timestamp(),
    constraint deployments_pkey primary key (tenant_id)
);

insert into deployments (tenant_id) values ('default');

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select on deployments to wallex_app;
    end if;
end $$;
