-- A transaction is found by its id from its answer on, by any instance, and commands pay next to nothing for it. Ids are of
-- version 7 and made of the batch's time, and events are appended: a range of 32 pages has those of a few
-- milliseconds. So an index of block ranges keeps two ids for each range, where a b-tree would take an entry of
-- each event. A range without a summary is read whole: what has just been written is found, too.
-- On a partitioned table each leaf has one of its own.
create index events_transaction on events using brin (transaction_id) with (pages_per_range = 32);

-- Summarizes complete ranges of a table's or its leaves' block range indexes, at most so many, each index from a range on.
-- Only the owner may do that. `brin_summarize_new_values` would take the last, partial range as well, and then
-- every insert into it would rewrite its summary; so would the indexes' own autosummarize, once a minute.
create function wallex_summarize(rows_of regclass, indexes oid[], ranges bigint[], most integer)
    returns table (leaf oid, next_range bigint, summarized bigint)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    -- Who waits for a second has an autovacuum of the table cancelled.
    set lock_timeout = '100ms'
as $$
declare
    range_pages constant bigint := 32;
    complete bigint;
begin
    -- One instance at a time.
    if not pg_try_advisory_xact_lock(2003790956, rows_of::oid::integer) then
        return;
    end if;
    for leaf, next_range, complete in
        select i.indexrelid,
            coalesce((select k.reached from unnest(indexes, ranges) k(known, reached)
                where k.known = i.indexrelid limit 1), 0),
            -- The last complete one may still have room in it.
            pg_relation_size(i.indrelid) / current_setting('block_size')::bigint / range_pages - 1
        from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
        where a.amname = 'brin' and c.relkind = 'i' and i.indisvalid and i.indrelid in (
            select rows_of::oid union all
            select t.relid::oid from pg_partition_tree(rows_of) t where t.isleaf)
        order by i.indexrelid
    loop
        summarized := 0;
        while next_range < complete and most > 0 loop
            summarized := summarized + brin_summarize_range(leaf::regclass, next_range * range_pages);
            next_range := next_range + 1;
            most := most - 1;
        end loop;
        return next;
    end loop;
end $$;
revoke execute on function wallex_summarize(regclass, oid[], bigint[], integer) from public;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'wallex_app') then
        grant execute on function wallex_summarize(regclass, oid[], bigint[], integer) to wallex_app;
    end if;
end $$;
