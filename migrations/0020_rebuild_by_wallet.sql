-- A rebuild replaces a projection wallet by wallet: where it goes on after it was broken off. What one
-- of an earlier version has left beside the tables goes.
alter table projection_rebuilds
    -- The last wallet, in the order of ids, that this tenant's part is done with.
    add column after_wallet text collate "C" not null default '';

set local client_min_messages = warning;
drop schema if exists wallex_rebuild cascade;
