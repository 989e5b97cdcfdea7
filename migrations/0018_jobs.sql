-- Work that is due: done once at a time by any instance, again after a failure or a crash, and set
-- aside after too many of them. What a job is about lies elsewhere; this only says that and when
-- something is to be done.

create table jobs (
    tenant_id  text collate "C" not null,
    -- What is to be done: which code runs it.
    kind       text collate "C" not null,
    -- To what. Adding a job again that is there already changes nothing.
    key        text collate "C" not null,
    -- The database's clock. An instance that takes a job moves this on by the time that it has for it:
    -- if it dies, the job is due again then.
    due_at     timestamptz not null default clock_timestamp(),
    -- Written before each attempt, so that one that kills its process is counted.
    attempts   integer not null default 0,
    -- Raised by each instance that takes the job: what an earlier one says of it is refused.
    epoch      bigint not null default 0,
    -- The instance that has it now.
    claimed_by text,
    payload    json,
    last_error text,
    -- Set aside: not tried again before an operator asks for it.
    dead_at    timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint jobs_pkey primary key (tenant_id, kind, key)
)
with (fillfactor = 70);
-- What is to be taken next.
create index jobs_due on jobs (due_at) where dead_at is null;
-- What an operator has to look at.
create index jobs_dead on jobs (dead_at) where dead_at is not null;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on jobs to wallex_app;
    end if;
end $$;
