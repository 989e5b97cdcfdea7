//! Has every event that is to be published its outbox row? The outbox is walked once, a page a snapshot, and which
//! versions of each wallet it has is kept; the events of each wallet are held against that later.

use std::collections::HashMap;

use super::{FINDINGS_MAX, Found};
use crate::store::{Connection, Result};

/// Batches in one page, with all parts of the last.
const PAGE: i64 = 2000;

/// What was found in the outbox.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Events of transactions below this had committed when the walk began.
    from_xid: i64,
    after: (String, i64),
    wallets: HashMap<(String, String), Rows>,
    pub found: Found,
}

/// Versions of a wallet that have rows.
#[derive(Debug, Default)]
struct Rows {
    commands: Versions,
    /// Rows that send events again: their ids are negative, and they may stand beside the first ones.
    again: Versions,
}

/// Versions of a wallet, as ranges without a gap.
#[derive(Debug, Default, PartialEq, Eq)]
struct Versions(Vec<(i64, i64)>);

#[derive(sqlx::FromRow)]
struct Batch {
    tenant_id: String,
    id: i64,
    partition: i32,
    wallets: Vec<String>,
    versions: Vec<i64>,
    /// Where among them those stand that are no event like that.
    wrong: Vec<i64>,
}

/// Events of a wallet that must have a row, from their time on.
#[derive(sqlx::FromRow)]
struct Expected {
    wallet_id: String,
    first: i64,
    last: i64,
}

impl Outbox {
    pub async fn begin(connection: &mut Connection) -> Result<Self> {
        let from_xid: i64 =
            sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
                .fetch_one(connection)
                .await?;
        let after = (String::new(), i64::MIN);
        Ok(Self { from_xid, after, wallets: HashMap::new(), found: Found::default() })
    }

    /// Reads the next page; whether there is another one.
    pub async fn page(&mut self, connection: &mut Connection) -> Result<bool> {
        // A batch is read with all its parts: one that is taken apart later is met once. Each event is looked up:
        // as a join all events would be read for each batch.
        let batches: Vec<Batch> = sqlx::query_as(
            "select b.tenant_id, b.id, b.partition, b.wallets, b.versions, \
                 array(select u.place from unnest(b.wallets, b.versions) with ordinality \
                         as u(wallet_id, version, place) \
                     where (select true from events e where e.tenant_id = b.tenant_id \
                         and e.wallet_id = u.wallet_id and e.version = u.version \
                         and e.partition = b.partition and e.created_at = b.created_at \
                         limit 1) is null) as wrong \
             from (select * from outbox_batches where (tenant_id, id) > ($1, $2) \
                 order by tenant_id, id fetch first ($3::bigint) rows with ties) b \
             order by b.tenant_id, b.id, b.part",
        )
        .bind(&self.after.0)
        .bind(self.after.1)
        .bind(PAGE)
        .fetch_all(connection)
        .await?;
        let Some(last) = batches.last() else { return Ok(false) };
        self.after = (last.tenant_id.clone(), last.id);
        let more = i64::try_from(batches.len()).unwrap_or(0) >= PAGE;
        batches.into_iter().for_each(|batch| self.add(batch));
        Ok(more)
    }

    fn add(&mut self, batch: Batch) {
        let Batch { tenant_id, id, partition, wallets, versions, wrong } = batch;
        for (place, (wallet, version)) in (1..).zip(wallets.into_iter().zip(versions)) {
            if wrong.contains(&place) {
                let text = format!(
                    "outbox row {id} (wallet {wallet} version {version}, partition {partition}) is not \
                     its event"
                );
                self.found.add(&tenant_id, text);
            }
            let key = (tenant_id.clone(), wallet);
            if !self.wallets.contains_key(&key) {
                self.wallets.insert(key.clone(), Rows::default());
            }
            let Some(rows) = self.wallets.get_mut(&key) else { continue };
            let versions = if id < 0 { &mut rows.again } else { &mut rows.commands };
            if !versions.add(version) && id > 0 {
                let wallet = &key.1;
                let text = format!("wallet {wallet} version {version} has several outbox rows");
                self.found.add(&tenant_id, text);
            }
        }
    }

    /// Holds the events of a page of wallets against what was found: those younger than the purge mark that had
    /// committed when the walk began.
    pub async fn compare(
        &mut self,
        connection: &mut Connection,
        tenant: &str,
        (above, up_to): (&str, &str),
    ) -> Result<()> {
        // Numbers beyond this cluster's came with a dump.
        let expected: Vec<Expected> = sqlx::query_as(
            "select wallet_id, min(version) as first, max(version) as last from events \
             where tenant_id = $1 and wallet_id > $2 and wallet_id <= $3 \
               and created_at > coalesce((select purged_through from outbox_purges \
                   where tenant_id = $1), '-infinity') \
               and (commit_xid::text::bigint < $4 \
                   or commit_xid >= pg_snapshot_xmax(pg_current_snapshot())) \
             group by wallet_id",
        )
        .bind(tenant)
        .bind(above)
        .bind(up_to)
        .bind(self.from_xid)
        .fetch_all(&mut *connection)
        .await?;
        for Expected { wallet_id, first, last } in expected {
            let key = (tenant.to_owned(), wallet_id);
            let Rows { commands, again } = self.wallets.remove(&key).unwrap_or_default();
            let gaps = commands.gaps(first, last).into_iter();
            for (from, to) in gaps.flat_map(|(from, to)| again.gaps(from, to)).collect::<Vec<_>>() {
                self.missing(connection, &key, from, to).await?;
            }
        }
        Ok(())
    }

    /// Names events without a row.
    async fn missing(
        &mut self,
        connection: &mut Connection,
        (tenant, wallet): &(String, String),
        from: i64,
        to: i64,
    ) -> Result<()> {
        if self.found.is_full() {
            self.found.count += to - from + 1;
            return Ok(());
        }
        let events: Vec<(i64, String)> = sqlx::query_as(
            "select count(*) over (), format('event %s (wallet %s version %s) has no outbox row', \
                 event_id, wallet_id, version) from events \
             where tenant_id = $1 and wallet_id = $2 and version between $3 and $4 \
             order by version limit $5",
        )
        .bind(tenant)
        .bind(wallet)
        .bind(from)
        .bind(to)
        .bind(FINDINGS_MAX)
        .fetch_all(connection)
        .await?;
        let count = events.first().map_or(0, |(count, _)| *count);
        self.found.add_all(tenant, count, events.into_iter().map(|(_, finding)| finding));
        Ok(())
    }
}

impl Versions {
    /// False where it was there.
    fn add(&mut self, version: i64) -> bool {
        let at = self.0.partition_point(|(_, last)| last.saturating_add(1) < version);
        let joins = self.0.get(at + 1).is_some_and(|(first, _)| *first == version + 1);
        match self.0.get_mut(at) {
            Some((first, last)) if (*first..=*last).contains(&version) => return false,
            Some((_, last)) if last.saturating_add(1) == version => {
                *last = version;
                if joins {
                    let (_, end) = self.0.remove(at + 1);
                    self.0.get_mut(at).into_iter().for_each(|range| range.1 = end);
                }
            }
            Some((first, _)) if *first == version + 1 => *first = version,
            _ => self.0.insert(at, (version, version)),
        }
        true
    }

    /// What is not there between these two, both included.
    fn gaps(&self, first: i64, last: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut next = first;
        for (from, to) in &self.0 {
            if *from > last {
                break;
            }
            if *from > next {
                gaps.push((next, *from - 1));
            }
            next = next.max(to.saturating_add(1));
        }
        if next <= last {
            gaps.push((next, last));
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_kept_as_ranges_and_gaps_are_told() {
        let mut versions = Versions::default();
        let added: Vec<bool> =
            [5, 6, 9, 8, 5, 7, 2, 20].into_iter().map(|version| versions.add(version)).collect();
        assert_eq!(added, [true, true, true, true, false, true, true, true]);
        assert_eq!(versions.0, [(2, 2), (5, 9), (20, 20)]);
        assert_eq!(versions.gaps(1, 21), [(1, 1), (3, 4), (10, 19), (21, 21)]);
        assert_eq!(versions.gaps(5, 9), []);
        assert_eq!(versions.gaps(6, 12), [(10, 12)]);
        assert_eq!(Versions::default().gaps(1, 3), [(1, 3)]);
        assert_eq!(versions.gaps(30, 29), []);
    }
}
