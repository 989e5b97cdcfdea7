//! A check under way: first over the outbox, then over the wallets, some at a time, in the order of tenants and ids.

use std::collections::BTreeMap;

use super::equations::EQUATIONS;
use super::outbox::Outbox;
use super::{Checked, FINDINGS_MAX, Found, Lag, ParkedLag, Projectors, Report};
use crate::ledger::booked_columns;
use crate::store::{Connection, Result, clusters};

/// Wallets of a page, and events after which it takes no more.
const WALLETS: i64 = 500;
const EVENTS: i64 = 50_000;
/// Behind every id.
const END: &str = "\u{10FFFF}";
const OUTBOX: &str = "every recent event has its outbox row";
const SEND_AGAIN: Option<&str> = Some("wallex outbox republish --wallet ID");

/// The wallet behind which a check goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub tenant: String,
    pub wallet: String,
}

/// What is known so far.
#[derive(Debug)]
pub struct Check<'a> {
    of: Projectors<'a>,
    cluster: Option<i64>,
    outbox: Outbox,
    outbox_read: bool,
    place: Place,
    tenants: usize,
    pub wallets: i64,
    pub events: i64,
    found: Vec<Found>,
    lag: BTreeMap<String, (i64, i64)>,
}

impl<'a> Check<'a> {
    /// Begins behind this wallet, or at the first.
    pub async fn begin(
        connection: &mut Connection,
        of: Projectors<'a>,
        from: Option<Place>,
    ) -> Result<Self> {
        let place = from.unwrap_or(Place { tenant: String::new(), wallet: END.to_owned() });
        Ok(Self {
            of,
            cluster: clusters::identify(connection).await?,
            outbox: Outbox::begin(connection).await?,
            outbox_read: false,
            tenants: usize::from(!place.tenant.is_empty()),
            place,
            wallets: 0,
            events: 0,
            found: EQUATIONS.iter().map(|_| Found::default()).collect(),
            lag: [of.ledger, of.read_model].map(|name| (name.to_owned(), (0, 0))).into(),
        })
    }

    /// The wallet behind which the next page begins; none: the outbox is being read.
    pub fn place(&self) -> Option<&Place> {
        Some(&self.place).filter(|_| self.outbox_read)
    }

    /// Compares the next of the outbox, or the next wallets; whether there are more.
    pub async fn page(&mut self, connection: &mut Connection) -> Result<bool> {
        if !self.outbox_read {
            self.outbox_read = !self.outbox.page(connection).await?;
            return Ok(true);
        }
        if self.place.wallet == END {
            let next = next_tenant(connection, &self.place.tenant).await?;
            let Some(tenant) = next else { return Ok(false) };
            self.place = Place { tenant, wallet: String::new() };
            self.tenants += 1;
        }
        let up_to = self.bound(connection).await?;
        self.compare(connection, &up_to).await?;
        self.place.wallet = up_to;
        Ok(true)
    }

    /// The last wallet of the next page.
    async fn bound(&self, connection: &mut Connection) -> Result<String> {
        let wallets: Vec<(String, i64)> = sqlx::query_as(
            "select id, version from wallets where tenant_id = $1 and id > $2 order by id limit $3",
        )
        .bind(&self.place.tenant)
        .bind(&self.place.wallet)
        .bind(WALLETS)
        .fetch_all(connection)
        .await?;
        let is_last = i64::try_from(wallets.len()).unwrap_or(0) < WALLETS;
        let (mut events, mut last) = (0, None);
        for (wallet, version) in wallets {
            events += version;
            last = Some(wallet);
            if events >= EVENTS {
                return Ok(last.unwrap_or_else(|| END.to_owned()));
            }
        }
        Ok(last.filter(|_| !is_last).unwrap_or_else(|| END.to_owned()))
    }

    /// Compares the wallets behind the place, up to this one.
    async fn compare(&mut self, connection: &mut Connection, up_to: &str) -> Result<()> {
        let Place { tenant, wallet: above } = self.place.clone();
        let (wallets, events): (i64, i64) = sqlx::query_as(
            "select (select count(*) from wallets where tenant_id = $1 and id > $2 and id <= $3), \
                (select count(*) from events \
                    where tenant_id = $1 and wallet_id > $2 and wallet_id <= $3)",
        )
        .bind(&tenant)
        .bind(&above)
        .bind(up_to)
        .fetch_one(&mut *connection)
        .await?;
        self.wallets += wallets;
        self.events += events;
        let [types, changes, called, accounts]: [Vec<&str>; 4] = booked_columns();
        let mut found = self.found.iter_mut();
        for equation in EQUATIONS {
            let Some(found) = found.next() else { break };
            // The text is a constant; values are bound. Every equation may use all of them, and the types of
            // unused ones must be known too.
            let sql = format!(
                "with given as (select $1::text, $2::text, $3::text, $4::bigint, $5::text, $6::text), \
                 booked(event_type, change_type, kind, account) as ( \
                     select * from unnest($8::text[], $9::text[], $10::text[], $11::text[])) \
                 select count(*) over (), finding \
                 from ({}) f order by finding collate \"C\" limit $7",
                equation.sql
            );
            // How many contradictions there are, and the first of them.
            let rows: Vec<(i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql.as_str()))
                .bind(&tenant)
                .bind(self.of.ledger)
                .bind(self.of.read_model)
                .bind(self.cluster)
                .bind(&above)
                .bind(up_to)
                .bind(FINDINGS_MAX)
                .bind(&types)
                .bind(&changes)
                .bind(&called)
                .bind(&accounts)
                .fetch_all(&mut *connection)
                .await?;
            let count = rows.first().map_or(0, |(count, _)| *count);
            found.add_all(&tenant, count, rows.into_iter().map(|(_, finding)| finding));
        }
        self.outbox.compare(connection, &tenant, (&above, up_to)).await?;
        self.measure(connection, &tenant, (&above, up_to)).await
    }

    /// What the projectors have yet to apply of these wallets, without parked ones.
    async fn measure(
        &mut self,
        connection: &mut Connection,
        tenant: &str,
        (above, up_to): (&str, &str),
    ) -> Result<()> {
        let lags: Vec<Lag> = sqlx::query_as(
            "select p.projector, count(b.id) as wallets, \
                 coalesce(sum(b.events), 0)::bigint as events \
             from unnest($1::text[]) p(projector) left join lateral ( \
                 select w.id, w.version - coalesce(v.version, 0) as events from wallets w \
                 left join projected_versions v on v.tenant_id = w.tenant_id \
                     and v.projector = p.projector and v.wallet_id = w.id \
                     and v.wallet_id > $3 and v.wallet_id <= $4 \
                 where w.tenant_id = $2 and w.id > $3 and w.id <= $4 \
                   and w.version > coalesce(v.version, 0) \
                   and not exists (select from parked_wallets k where k.tenant_id = w.tenant_id \
                       and k.projector = p.projector and k.wallet_id = w.id)) b on true \
             group by p.projector",
        )
        .bind([self.of.ledger, self.of.read_model])
        .bind(tenant)
        .bind(above)
        .bind(up_to)
        .fetch_all(connection)
        .await?;
        for Lag { projector, wallets, events } in lags {
            let known = self.lag.entry(projector).or_default();
            known.0 += wallets;
            known.1 += events;
        }
        Ok(())
    }

    /// What was found, once there are no more pages.
    pub(super) fn report(self, parked: Vec<ParkedLag>) -> Report {
        let named = self.tenants > 1;
        let checked = |name: &'static str, mend: Option<&'static str>, found: Found| {
            let holds = found.count == 0;
            let text = |(tenant, finding)| match named {
                true => format!("tenant {tenant}: {finding}"),
                false => finding,
            };
            let findings = found.findings.into_iter().map(text).collect();
            Checked { name, holds, count: found.count, findings, mend: mend.filter(|_| !holds) }
        };
        let mut equations: Vec<Checked> = EQUATIONS
            .iter()
            .zip(self.found)
            .map(|(equation, found)| checked(equation.name, equation.mend, found))
            .collect();
        equations.push(checked(OUTBOX, SEND_AGAIN, self.outbox.found));
        let clean = equations.iter().all(|equation| equation.holds);
        let lag = self.lag.into_iter();
        let lag = lag.map(|(projector, (wallets, events))| Lag { projector, wallets, events });
        let (wallets, events) = (self.wallets, self.events);
        Report { clean, wallets, events, equations, lag: lag.collect(), parked }
    }
}

/// The next tenant that has a row in the books or in what is projected from them.
async fn next_tenant(connection: &mut Connection, after: &str) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select min(found.id) from ( \
             (select tenant_id as id from wallets where tenant_id > $1 order by tenant_id limit 1) \
             union all \
             (select tenant_id from events where tenant_id > $1 order by tenant_id limit 1) \
             union all \
             (select tenant_id from postings where tenant_id > $1 order by tenant_id limit 1) \
             union all (select tenant_id from wallets_read_model where tenant_id > $1 \
                 order by tenant_id limit 1)) found",
    )
    .bind(after)
    .fetch_one(connection)
    .await?)
}
