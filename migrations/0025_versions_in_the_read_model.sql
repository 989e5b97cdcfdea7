-- A wallet's version in the read model is that of its row there: it is locked there, read and moved there. A
-- second row beside it cost each round a lock and an upsert for each wallet, and said the same. What other
-- projections and the second destination note of a wallet stands apart as before, in a table of another
-- name: `projected_versions` is a view over both, for people and for questions about any projection.

alter table projected_versions rename to projected_wallets;
alter table projected_wallets rename constraint projected_versions_pkey to projected_wallets_pkey;
delete from projected_wallets where projector = 'read-model-projector';

do $$
declare
    reader text;
    readers text[] := array(
        select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = 'projected_wallets'::regclass and a.privilege_type = 'SELECT'
          and a.grantee <> c.relowner);
begin
    create view projected_versions with (security_invoker = true) as
        select tenant_id, projector, wallet_id, version, totals_at, total_credits, total_debits,
            transaction_count
        from projected_wallets
        union all
        select tenant_id, 'read-model-projector'::text collate "C", id, version, null::bigint,
            null::numeric, null::numeric, null::bigint
        from wallets_read_model;
    -- Roles that could read the table can read the view, which looks with the rights of the role that asks.
    foreach reader in array readers loop
        execute format('grant select on projected_versions to %s', reader);
        execute format('grant select (tenant_id, id, version) on wallets_read_model to %s', reader);
    end loop;
end $$;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, update, delete on projected_wallets to wallex_app;
        revoke all on projected_versions from wallex_app;
        grant select on projected_versions to wallex_app;
    end if;
end $$;
