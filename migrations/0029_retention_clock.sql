-- A database clock that leaps ahead makes everything old at once, and what retention takes is gone: after a
-- leap of a year old retries would have a second effect. So retention goes by this time, which follows the
-- clock and never runs far faster than time passes.

create table retention_clock (
    tenant_id   text collate "C" not null,
    believed_at timestamptz not null,
    constraint retention_clock_pkey primary key (tenant_id)
);

-- What the service wrote last vouches for the clock: it may be wrong already.
insert into retention_clock (tenant_id, believed_at)
select 'default', coalesce(least(max(created_at), clock_timestamp()), clock_timestamp()) from outbox_batches;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update on retention_clock to wallex_app;
    end if;
end $$;
