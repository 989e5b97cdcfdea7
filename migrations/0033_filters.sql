-- What lists of wallets are asked for, in the order in which they are shown: the newest first, from where the last page
-- ended. A filter that no index begins with would walk all wallets to find the few that it means.

-- A wallet is entered once; neither of these changes with its balance.
create index wallets_read_model_currency on wallets_read_model (tenant_id, currency, created_at, id);
create index wallets_read_model_status on wallets_read_model (tenant_id, status, created_at, id);

-- A row for each member of a wallet's metadata: an inverted index whose entries are in the order of a page. (A GIN index has
-- no order, so a common value would be read whole for each page; and under row-level security its operators
-- may not look anything up.) A term is the first eight bytes of the SHA-256 of `key=value`: values may be long.
create table wallet_terms (
    tenant_id  text collate "C" not null,
    term       bigint not null,
    -- The wallet's.
    created_at timestamptz not null,
    wallet_id  text collate "C" not null,
    constraint wallet_terms_pkey primary key (tenant_id, term, created_at, wallet_id)
);

create function wallex_terms(metadata json) returns setof bigint language sql stable as $$
    select distinct ('x' || left(encode(sha256(convert_to(key || '=' || value, 'UTF8')), 'hex'), 16))::bit(64)::bigint
    from json_each_text(metadata) where value is not null
$$;

-- Whoever writes the read model writes its terms with it.
create function wallex_terms_follow() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' and old.metadata is not null then
        delete from wallet_terms t using wallex_terms(old.metadata) term(term)
            where t.tenant_id = old.tenant_id and t.term = term.term and t.created_at = old.created_at
              and t.wallet_id = old.id;
    end if;
    if tg_op <> 'DELETE' and new.metadata is not null then
        insert into wallet_terms (tenant_id, term, created_at, wallet_id)
            select new.tenant_id, term.term, new.created_at, new.id
            from wallex_terms(new.metadata) term(term) order by term.term
            on conflict do nothing;
    end if;
    return null;
end $$;

create trigger terms_of_new after insert on wallets_read_model
    for each row when (new.metadata is not null) execute function wallex_terms_follow();
create trigger terms_of_changed after update of metadata, created_at on wallets_read_model
    for each row when (old.metadata::text is distinct from new.metadata::text
        or old.created_at is distinct from new.created_at)
    execute function wallex_terms_follow();
create trigger terms_of_removed after delete on wallets_read_model
    for each row when (old.metadata is not null) execute function wallex_terms_follow();

insert into wallet_terms (tenant_id, term, created_at, wallet_id)
    select w.tenant_id, term.term, w.created_at, w.id
    from wallets_read_model w cross join lateral wallex_terms(w.metadata) term(term)
    where w.metadata is not null;

select wallex_confine('wallet_terms');

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant select, insert, delete on wallet_terms to wallex_app;
    end if;
end $$;
