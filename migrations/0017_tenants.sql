-- A second wall between tenants. Every statement names its tenant; should one that reads for a caller
-- forget it, the caller sees its own rows all the same. Sessions that read for callers are told their
-- tenant (`wallex.tenant`). Those that carry events on serve all tenants: they are told none, and see all.
-- Row-level security does not count for a table's owner: dumps and people who look into tables as the
-- owner see everything.

-- To be called for every new table of tenants' rows that callers read.
create function wallex_confine(rows_of regclass) returns void language plpgsql as $$
begin
    execute format('alter table %s enable row level security', rows_of);
    -- An equality in any case: the planner takes it for as selective as the tenant is.
    execute format('create policy tenant on %s using (tenant_id = '
        'coalesce(nullif(current_setting(''wallex.tenant'', true), ''''), tenant_id))', rows_of);
end $$;
revoke execute on function wallex_confine(regclass) from public;

select wallex_confine(name::regclass) from unnest(array['wallets', 'events', 'ledger_entries',
    'wallets_read_model', 'projected_versions']) name;
