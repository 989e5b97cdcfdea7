-- The condition of 0017 was an equality with the tenant. The planner drew from it that a tenant's rows are few,
-- and read all of them where an index would have given a page in order. As a CASE it says nothing of how
-- many rows there are: plans are as they were without it.

create or replace function wallex_confine(rows_of regclass) returns void language plpgsql as $$
begin
    execute format('alter table %s enable row level security', rows_of);
    execute format('create policy tenant on %s using (case coalesce('
        'current_setting(''wallex.tenant'', true), '''') when '''' then true '
        'else tenant_id = current_setting(''wallex.tenant'', true) end)', rows_of);
end $$;

do $$
declare
    name text;
begin
    foreach name in array array['wallets', 'events', 'ledger_entries', 'wallets_read_model',
        'projected_versions'] loop
        execute format('drop policy tenant on %I', name);
        perform wallex_confine(name::regclass);
    end loop;
end $$;
