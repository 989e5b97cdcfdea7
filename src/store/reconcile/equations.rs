//! The equations, one query each: every row is a contradiction, with its ids and numbers.
//!
//! What is in archives counts with its sums: the first events of a wallet that are compared begin where those end.
//!
//! `booked` is how each type of event is booked, from `src/ledger.rs`. $1 is the tenant, $2 the ledger projector, $3 the read-model projector, $4 this Postgres cluster. Each speaks of the
//! wallets above $5 and up to $6, and says so of every table: they are joined as wholes, whatever is known of them. Amounts in payloads are
//! read through a pattern, so that a spoilt payload is a finding instead of an error.

/// What must hold, and the query for where it does not.
#[derive(Debug)]
pub struct Equation {
    pub name: &'static str,
    pub sql: &'static str,
    /// What makes it hold again; none: the events or wallets themselves are wrong.
    pub mend: Option<&'static str>,
}

const REBUILD_LEDGER: Option<&str> = Some("wallex projections rebuild ledger");
const REBUILD_READ_MODEL: Option<&str> = Some("wallex projections rebuild read-model");
const REBUILD_NAMED: Option<&str> =
    Some("wallex projections rebuild ledger, or read-model: the one that is named");

pub const EQUATIONS: &[Equation] = &[
    Equation { name: "versions of every wallet are 1..n without a gap", sql: VERSIONS, mend: None },
    Equation { name: "every event begins where the one before it ended", sql: CHAIN, mend: None },
    Equation { name: "every wallet is what its events left", sql: WALLETS, mend: None },
    Equation { name: "every hold is what its events left", sql: HOLDS, mend: None },
    Equation { name: "held money is the sum of open holds", sql: HELD, mend: None },
    Equation { name: "every event has exactly its entries", sql: ENTRIES, mend: REBUILD_LEDGER },
    Equation { name: "every balance is the sum of its entries", sql: SUMS, mend: REBUILD_LEDGER },
    Equation {
        name: "every wallet's totals are the sums of its entries",
        sql: TOTALS,
        mend: REBUILD_LEDGER,
    },
    Equation {
        name: "debits equal credits in every event",
        sql: EVENT_BALANCE,
        mend: REBUILD_LEDGER,
    },
    Equation {
        name: "debits equal credits in every currency",
        sql: CURRENCY_BALANCE,
        mend: REBUILD_LEDGER,
    },
    Equation {
        name: "the read model is what its events left",
        sql: READ_MODEL,
        mend: REBUILD_READ_MODEL,
    },
    Equation {
        name: "every event before a projector's place is applied",
        sql: APPLIED,
        mend: REBUILD_NAMED,
    },
];

const VERSIONS: &str = "
    select format('wallet %s: version %s, %s events numbered %s to %s',
        coalesce(w.id, e.wallet_id), coalesce(w.version::text, 'none (no such wallet)'),
        coalesce(e.events, 0), coalesce(e.lowest, 0), coalesce(e.highest, 0)) as finding
    from (select id, version from wallets where tenant_id = $1 and id > $5 and id <= $6) w
    full join (select wallet_id,
            count(*) filter (where version > archived_up_to) + max(archived_up_to) as events,
            min(version) as lowest, max(version) as highest
        from (select e.wallet_id, e.version, coalesce(a.version, 0) as archived_up_to from events e
            left join archived_wallets a on a.tenant_id = e.tenant_id and a.wallet_id = e.wallet_id
            where e.tenant_id = $1 and e.wallet_id > $5 and e.wallet_id <= $6) known
        group by wallet_id) e on e.wallet_id = w.id
    where w.version is distinct from e.events or w.version is distinct from e.highest
       or e.lowest is distinct from 1";

const CHAIN: &str = r"
    select format('wallet %s version %s (event %s): %s after %s, %s %s gives %s', wallet_id,
        version, event_id, event_type, coalesce(before::text, 'nothing'),
        payload ->> 'changeType', payload ->> 'changeAmount', payload ->> 'newBalance') as finding
    from (select wallet_id, version, event_id, event_type, payload, opening, amount, closing,
            archived, lag(closing, 1, 0::numeric) over (partition by wallet_id order by version) as before
        from (select wallet_id, version, event_id, event_type, payload,
                version <= coalesce((select a.version from archived_wallets a
                    where a.tenant_id = e.tenant_id and a.wallet_id = e.wallet_id), 0) as archived,
                case when payload ->> 'previousBalance' ~ '^-?[0-9]+(\.[0-9]+)?$'
                    then (payload ->> 'previousBalance')::numeric end as opening,
                case when payload ->> 'changeAmount' ~ '^[0-9]+(\.[0-9]+)?$'
                    then (payload ->> 'changeAmount')::numeric end as amount,
                case when payload ->> 'newBalance' ~ '^-?[0-9]+(\.[0-9]+)?$'
                    then (payload ->> 'newBalance')::numeric end as closing
            from events e where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6) read) chained
    where not archived and (opening is null or amount is null or closing is null
       or opening is distinct from before
       or closing is distinct from opening + case payload ->> 'changeType'
            when 'CREDIT' then amount when 'DEBIT' then -amount end
       or (event_type = 'WalletCreated') <> (version = 1)
       or (event_type = 'WalletCreated' and amount <> 0)
       or (event_type in ('WalletCredited', 'WalletTransferCompleted')
            and payload ->> 'changeType' <> 'CREDIT')
       or (event_type in ('WalletDebited', 'WalletTransferInitiated')
            and payload ->> 'changeType' <> 'DEBIT'))";

/// The state that an event left (its payload: `last`), as a lateral subquery `state`. What an event
/// leaves out is as the wallet was opened (`first`).
macro_rules! state_after {
    () => {
        r"
    left join lateral (select balance, held,
            case when last.payload ->> 'availableBalance' is null then opened
                when last.payload ->> 'availableBalance' ~ '^-?[0-9]+(\.[0-9]+)?$'
                then (last.payload ->> 'availableBalance')::numeric - balance + held end as overdraft,
            coalesce(last.payload ->> 'status', 'active') as status
        from (select case when last.payload ->> 'newBalance' ~ '^-?[0-9]+(\.[0-9]+)?$'
                    then (last.payload ->> 'newBalance')::numeric end as balance,
                case when coalesce(last.payload ->> 'heldBalance', '0') ~ '^[0-9]+(\.[0-9]+)?$'
                    then coalesce(last.payload ->> 'heldBalance', '0')::numeric end as held,
                case when first.payload ->> 'overdraftLimit' ~ '^[0-9]+(\.[0-9]+)?$'
                    then (first.payload ->> 'overdraftLimit')::numeric end as opened) read) state
        on true"
    };
}

/// The entries as the view `ledger_entries` shows them. It does not say whose posting the entry of a system account is
/// of, so that of the view all would be read.
macro_rules! legs {
    () => {
        "select id, event_id, (2 * pair)::smallint as leg, 'wallet'::text as account, wallet_id, \
            related_wallet_id, transaction_type, side, amount, currency, balance_before, balance_after, \
            description, reference_id, metadata, transaction_id, version, created_at, hold_id \
         from postings where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6 \
         union all \
         select overlay(id::text placing '8' from 15 for 1)::uuid, event_id, \
            (2 * pair + 1)::smallint, counter_account, null, null, transaction_type, \
            case side when 'DEBIT' then 'CREDIT' else 'DEBIT' end, amount, currency, null, null, null, \
            reference_id, null, transaction_id, version, created_at, hold_id \
         from postings where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6"
    };
}

const WALLETS: &str = concat!(
    r"
    select format('wallet %s: %s %s with overdraft %s, its events left %s %s with overdraft %s',
        w.id, w.balance, w.currency, w.overdraft_limit, last.payload ->> 'newBalance',
        first.payload ->> 'currency', state.overdraft) as finding
    from wallets w
    left join events first on first.tenant_id = w.tenant_id and first.wallet_id = w.id
        and first.version = 1 and first.wallet_id > $5 and first.wallet_id <= $6
    left join events last on last.tenant_id = w.tenant_id and last.wallet_id = w.id
        and last.version = w.version and last.wallet_id > $5 and last.wallet_id <= $6",
    state_after!(),
    r"
    where w.tenant_id = $1 and w.id > $5 and w.id <= $6
      and (w.balance is distinct from state.balance
        or w.held_balance is distinct from state.held
        or w.overdraft_limit is distinct from state.overdraft
        or w.status is distinct from state.status
        or w.currency is distinct from first.payload ->> 'currency'
        or w.owner_id is distinct from first.payload ->> 'ownerId'
        or w.created_at is distinct from first.created_at)"
);

// The terms are those of the last event that set them, the rest that of the last event at all.
const HOLDS: &str = r#"
    select format('hold %s of wallet %s: %s, %s of %s captured; its events left it %s, %s of %s captured',
        coalesce(h.id::text, x.hold_id), coalesce(h.wallet_id, x.wallet_id), coalesce(h.status, 'no row'),
        h.captured, h.amount, coalesce(x.status, 'nothing'), x.captured, x.amount) as finding
    from (select * from holds
        where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6) h
    full join (select t.hold_id, t.wallet_id, t.amount, t.most, t.expires,
            coalesce(last.payload ->> 'holdStatus', 'open') as status,
            coalesce(last.payload ->> 'capturedTotal', '0') as captured
        from (select distinct on (payload ->> 'holdId') payload ->> 'holdId' as hold_id,
                wallet_id, payload ->> 'holdAmount' as amount, payload ->> 'maxCapture' as most,
                payload ->> 'expiresAt' as expires
            from events where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6
              and event_type in ('WalletHoldPlaced', 'WalletHoldAdjusted')
            order by payload ->> 'holdId', version desc) t
        left join (select distinct on (payload ->> 'holdId') payload ->> 'holdId' as hold_id, payload
            from events where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6
              and event_type in ('WalletHoldCaptured',
                'WalletHoldReleased', 'WalletHoldExpired')
            order by payload ->> 'holdId', version desc) last on last.hold_id = t.hold_id) x
        on x.hold_id = h.id::text
    where not exists (select from archived_wallets a where a.tenant_id = $1
          and a.wallet_id = coalesce(h.wallet_id, x.wallet_id))
      and (h.id is null or x.hold_id is null
       or h.wallet_id is distinct from x.wallet_id
       or h.status is distinct from x.status
       or h.amount::text is distinct from case when x.amount ~ '^[0-9]+(\.[0-9]+)?$'
            then x.amount::numeric(28,8)::text end
       or h.max_capture::text is distinct from case when x.most ~ '^[0-9]+(\.[0-9]+)?$'
            then x.most::numeric(28,8)::text end
       or h.captured::text is distinct from case when x.captured ~ '^[0-9]+(\.[0-9]+)?$'
            then x.captured::numeric(28,8)::text end
       or to_char(h.expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
            is distinct from x.expires)"#;

const HELD: &str = "
    select format('wallet %s: %s is held, its open holds sum to %s', coalesce(w.id, h.wallet_id),
        coalesce(w.held_balance, 0), coalesce(h.held, 0)) as finding
    from (select id, held_balance from wallets
        where tenant_id = $1 and id > $5 and id <= $6) w
    full join (select wallet_id, sum(greatest(amount - captured, 0)) as held
        from holds where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6
          and status = 'open' group by wallet_id) h
        on h.wallet_id = w.id
    where coalesce(w.held_balance, 0) <> coalesce(h.held, 0)";

const ENTRIES: &str = concat!(
    r"
    select case
        when x.event_id is null then format('entry %s (event %s leg %s, wallet %s version %s, '
            '%s %s %s): no applied event asks for it', l.id, l.event_id, l.leg,
            coalesce(l.wallet_id, '-'), l.version, l.side, l.amount, l.currency)
        when l.id is null then format('event %s (wallet %s version %s, %s): leg %s is missing',
            x.event_id, x.wallet_id, x.version, x.event_type, x.leg)
        else format('entry %s (wallet %s version %s leg %s): %s %s %s, %s to %s, is not its '
            'event: %s %s %s, %s to %s', l.id, x.wallet_id, x.version, l.leg, l.side, l.amount,
            l.currency, coalesce(l.balance_before::text, '-'),
            coalesce(l.balance_after::text, '-'), x.side, x.amount, x.currency,
            coalesce(x.opening, '-'), coalesce(x.closing, '-'))
            || case when l.account is distinct from x.account
                then format('; account %s, not %s', l.account, x.account) else '' end
        end as finding
    from (select e.event_id, leg, e.wallet_id, e.version, e.event_type, e.transaction_id,
            e.created_at, e.payload,
            case when leg = 0 then 'wallet'
                 when e.payload ->> 'counterAccount' is not null then e.payload ->> 'counterAccount'
                 when e.event_type = 'WalletHoldCaptured' and e.payload ->> 'toWalletId' is not null
                 then 'transfers_in_flight' else b.account end as account,
            b.kind,
            case when (e.payload ->> 'changeType' = 'CREDIT') = (leg = 0)
                 then 'CREDIT' else 'DEBIT' end as side,
            e.payload ->> 'changeAmount' as amount, e.payload ->> 'currency' as currency,
            case when leg = 0 then e.payload ->> 'previousBalance' end as opening,
            case when leg = 0 then e.payload ->> 'newBalance' end as closing
        from events e
        join projected_versions v on v.tenant_id = e.tenant_id and v.projector = $2
            and v.wallet_id = e.wallet_id and v.version >= e.version
            and v.wallet_id > $5 and v.wallet_id <= $6
        left join booked b on b.event_type = e.event_type
            and b.change_type = e.payload ->> 'changeType'
        cross join (values (0::smallint), (1::smallint)) legs(leg)
        where e.tenant_id = $1 and e.wallet_id > $5 and e.wallet_id <= $6
          and e.version > coalesce((select a.version from archived_wallets a
              where a.tenant_id = e.tenant_id and a.wallet_id = e.wallet_id), 0)
          and e.payload ->> 'changeAmount' !~ '^0(\.0+)?$') x
    full join (",
    legs!(),
    r") l
        on l.event_id = x.event_id and l.leg = x.leg
    where x.event_id is null or l.id is null
       or l.account is distinct from x.account
       or l.wallet_id is distinct from case when x.leg = 0 then x.wallet_id end
       or l.transaction_type is distinct from x.kind
       or l.side is distinct from x.side
       or l.currency is distinct from x.currency
       or l.version is distinct from x.version
       or l.transaction_id is distinct from x.transaction_id
       or l.created_at is distinct from x.created_at
       or l.reference_id is distinct from
            coalesce(x.payload ->> 'reference', x.transaction_id::text)
       or l.related_wallet_id is distinct from case
            when x.leg = 0 and x.kind in ('TRANSFER_OUT', 'CAPTURE') then x.payload ->> 'toWalletId'
            when x.leg = 0 and x.kind = 'TRANSFER_IN' then x.payload ->> 'fromWalletId' end
       or l.hold_id::text is distinct from x.payload ->> 'holdId'
       or l.description is distinct from case when x.leg = 0 then x.payload ->> 'reason' end
       or l.metadata::text is distinct from case when x.leg = 0
            then nullif((x.payload -> 'metadata')::text, 'null') end
       or l.amount::text is distinct from case when x.amount ~ '^[0-9]+(\.[0-9]+)?$'
            then x.amount::numeric(28,8)::text end
       or l.balance_before::text is distinct from case when x.opening ~ '^-?[0-9]+(\.[0-9]+)?$'
            then x.opening::numeric(28,8)::text end
       or l.balance_after::text is distinct from case when x.closing ~ '^-?[0-9]+(\.[0-9]+)?$'
            then x.closing::numeric(28,8)::text end"
);

const SUMS: &str = r"
    select format('wallet %s at version %s: balance %s, its entries sum to %s',
        coalesce(b.wallet_id, s.wallet_id), coalesce(b.version::text, 'none'),
        coalesce(b.closing, '-'), coalesce(s.total, 0) + coalesce(a.balance, 0)) as finding
    from (select v.wallet_id, v.version, e.payload ->> 'newBalance' as closing
        from projected_versions v
        left join events e on e.tenant_id = v.tenant_id and e.wallet_id = v.wallet_id
            and e.version = v.version and e.wallet_id > $5 and e.wallet_id <= $6
        where v.tenant_id = $1 and v.projector = $2 and v.version > 0
          and v.wallet_id > $5 and v.wallet_id <= $6) b
    full join (select wallet_id,
            sum(case side when 'CREDIT' then amount else -amount end) as total
        from postings where tenant_id = $1 and wallet_id > $5 and wallet_id <= $6
        group by wallet_id) s on s.wallet_id = b.wallet_id
    left join archived_wallets a on a.tenant_id = $1 and a.wallet_id = coalesce(b.wallet_id, s.wallet_id)
    where (coalesce(s.total, 0) + coalesce(a.balance, 0))::numeric(38,8)::text is distinct from case
        when b.closing ~ '^-?[0-9]+(\.[0-9]+)?$' then b.closing::numeric(38,8)::text end";

// Totals that are behind the version are completed when they are read: they must hold where they stand.
const TOTALS: &str = "
    select format('wallet %s: totals at version %s are %s credits, %s debits, %s entries; its entries up '
        'to there sum to %s, %s and %s', v.wallet_id, v.totals_at, v.total_credits, v.total_debits,
        v.transaction_count, coalesce(s.credits, 0) + coalesce(a.credits, 0),
        coalesce(s.debits, 0) + coalesce(a.debits, 0), coalesce(s.entries, 0) + coalesce(a.entries, 0))
        as finding
    from projected_versions v
    left join (select l.wallet_id, sum(l.amount) filter (where l.side = 'CREDIT') as credits,
            sum(l.amount) filter (where l.side = 'DEBIT') as debits, count(*) as entries
        from postings l
        join projected_versions p on p.tenant_id = l.tenant_id and p.projector = $2
            and p.wallet_id = l.wallet_id and l.version <= p.totals_at
            and p.wallet_id > $5 and p.wallet_id <= $6
        where l.tenant_id = $1 and l.wallet_id > $5 and l.wallet_id <= $6
        group by l.wallet_id) s on s.wallet_id = v.wallet_id
    left join archived_wallets a on a.tenant_id = v.tenant_id and a.wallet_id = v.wallet_id
    where v.tenant_id = $1 and v.projector = $2 and v.totals_at <= v.version
      and v.wallet_id > $5 and v.wallet_id <= $6
      and (v.total_credits is distinct from coalesce(s.credits, 0) + coalesce(a.credits, 0)
        or v.total_debits is distinct from coalesce(s.debits, 0) + coalesce(a.debits, 0)
        or v.transaction_count is distinct from coalesce(s.entries, 0) + coalesce(a.entries, 0))";

// A posting has one amount for both of its entries: these two hold by how the books are laid out, and are
// asked all the same.
const EVENT_BALANCE: &str = concat!(
    r"
    select format('event %s: debits %s, credits %s, currencies %s', event_id,
        coalesce(sum(amount) filter (where side = 'DEBIT'), 0),
        coalesce(sum(amount) filter (where side = 'CREDIT'), 0),
        string_agg(distinct currency, ', ')) as finding
    from (",
    legs!(),
    r") l group by event_id
    having sum(case side when 'DEBIT' then amount else -amount end) <> 0
        or count(distinct currency) <> 1"
);

const CURRENCY_BALANCE: &str = concat!(
    r"
    select format('%s: debits %s, credits %s', currency,
        coalesce(sum(amount) filter (where side = 'DEBIT'), 0),
        coalesce(sum(amount) filter (where side = 'CREDIT'), 0)) as finding
    from (",
    legs!(),
    r") l group by currency
    having sum(case side when 'DEBIT' then amount else -amount end) <> 0"
);

const READ_MODEL: &str = concat!(
    r"
    select format('wallet %s: read model has %s %s at version %s, its events left %s %s at '
        'version %s', coalesce(r.id, x.wallet_id), coalesce(r.balance::text, 'no row'),
        coalesce(r.currency, ''), coalesce(r.version::text, '-'), coalesce(x.closing, 'nothing'),
        coalesce(x.facts ->> 'currency', ''), coalesce(x.version::text, '-')) as finding
    from (select v.wallet_id, v.version, last.payload ->> 'newBalance' as closing,
            last.created_at as changed, first.created_at as opened, first.payload as facts,
            noted.payload as noted, state.*
        from projected_versions v
        left join (select distinct on (n.wallet_id) n.wallet_id, n.payload from events n
            join projected_versions p on p.tenant_id = n.tenant_id and p.projector = $3
                and p.wallet_id = n.wallet_id and p.version >= n.version
            where n.tenant_id = $1 and n.wallet_id > $5 and n.wallet_id <= $6
              and n.event_type = 'WalletMetadataChanged'
            order by n.wallet_id, n.version desc) noted on noted.wallet_id = v.wallet_id
        left join events first on first.tenant_id = v.tenant_id
            and first.wallet_id = v.wallet_id and first.version = 1
            and first.wallet_id > $5 and first.wallet_id <= $6
        left join events last on last.tenant_id = v.tenant_id
            and last.wallet_id = v.wallet_id and last.version = v.version
            and last.wallet_id > $5 and last.wallet_id <= $6",
    state_after!(),
    r"
        where v.tenant_id = $1 and v.projector = $3 and v.version > 0
          and v.wallet_id > $5 and v.wallet_id <= $6) x
    full join (select * from wallets_read_model where tenant_id = $1 and id > $5 and id <= $6) r
        on r.id = x.wallet_id
    where r.version is distinct from x.version
       or r.balance is distinct from x.balance
       or r.held_balance is distinct from x.held
       or r.overdraft_limit is distinct from x.overdraft
       or r.status is distinct from x.status
       or r.currency is distinct from x.facts ->> 'currency'
       or r.owner_id is distinct from x.facts ->> 'ownerId'
       or (r.metadata::text is distinct from nullif((case when x.noted is null
            then x.facts -> 'metadata' else x.noted -> 'metadata' end)::text, 'null')
          and not (x.noted is null and exists (select from archived_wallets a
              where a.tenant_id = $1 and a.wallet_id = x.wallet_id)))
       or r.created_at is distinct from x.opened
       or r.updated_at is distinct from x.changed"
);

// A row of the read model that is gone is no lag: no feed goes back for its events. Places of another cluster
// say nothing here, and of several topics the one that is furthest counts.
const APPLIED: &str = "
    select format('%s: wallet %s is at version %s, and its event of version %s lies before the place of '
        'partition %s', c.projector, w.id, coalesce(v.version, 0), e.version, c.partition) as finding
    from (select projector, partition, max(feed_xid::text::bigint) as place from projector_checkpoints
        where projector in ($2, $3) and cluster = $4
          and feed_xid <= pg_snapshot_xmax(pg_current_snapshot()) group by projector, partition) c
    join wallets w on w.tenant_id = $1 and w.id > $5 and w.id <= $6
    join events e on e.tenant_id = w.tenant_id and e.wallet_id = w.id and e.version = w.version
        and e.partition = c.partition and e.commit_xid::text::bigint < c.place
        and e.wallet_id > $5 and e.wallet_id <= $6
    left join projected_versions v on v.tenant_id = e.tenant_id and v.projector = c.projector
        and v.wallet_id = e.wallet_id and v.wallet_id > $5 and v.wallet_id <= $6
    where e.version > coalesce(v.version, 0)
      and not exists (select from parked_wallets p where p.tenant_id = e.tenant_id
          and p.projector = c.projector and p.wallet_id = e.wallet_id)";
