-- The service works as `wallex_app`, which can add to the books but never change them. Every
-- connection of the service takes this role when its login may; migrations run as the owner.

do $$
begin
    if not exists (select 1 from pg_roles where rolname = 'wallex_app') then
        create role wallex_app nologin;
    end if;
exception
    -- Two databases of one cluster may migrate at once.
    when duplicate_object or unique_violation then null;
    -- A managed database may not let its owner create roles: the service then works as its login.
    when insufficient_privilege then
        raise warning 'role wallex_app could not be created: the service will run as its login role';
end $$;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        execute format('grant usage on schema %I to wallex_app', current_schema());
        grant select, insert, update on wallets, topics to wallex_app;
        grant select, insert on events, ledger_entries to wallex_app;
        grant select, insert, update, delete on outbox, command_batches, idempotency_keys,
            partition_leases, wallets_read_model, projector_checkpoints, projected_versions,
            dead_letters, parked_wallets to wallex_app;
        grant select on _sqlx_migrations to wallex_app;
    end if;
end $$;
