//! A subscription's positions committed to Kafka as a consumer group's offsets, and resets honoured: the
//! official tools list and describe the group, and move it while the service works.
//!
//! Postgres is the record, Kafka has a copy: committed once a second where a position has moved, hourly
//! where none has, by one instance at a time, under a lease. Each round
//!
//! | step | what |
//! |---|---|
//! | read | the group's offsets; one that is no commit of the service's is a reset by an operator |
//! | reset | the checkpoint moves back in one statement; the records from there on are read again as duplicates |
//! | note | the commits to come in `group_offsets`, fenced by the lease: no restart takes one for a reset |
//! | commit | after another look: an offset that has changed since is left to the next round |
//!
//! A commit that was never answered may arrive after later ones, and is known by its offset for some
//! minutes: it is no reset. A reset beyond the checkpoint would skip events: it is refused. One that falls into the millisecond
//! between the look and the commit is overwritten: its operator sees that, and repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::background::leases::Leases;
use crate::backoff::Backoff;
use crate::instance::Instance;
use crate::kafka::admin::Admin;
use crate::kafka::{self, Connection};
use crate::status::{OffsetsStatus, ProjectorStatus, Status};
use crate::store::group_offsets::{self, Committer, OffsetCommit, Position};
use crate::store::leases::Leased;
use crate::store::{self, Pool};

/// Between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Offsets of a group that nothing commits for run out: all are committed again after this time.
const COMMIT_ALL_INTERVAL: Duration = Duration::from_secs(3600);
/// After an error, doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The role of the lease for the group of inbound commands.
pub const COMMANDS_ROLE: &str = "commands-offsets";

/// What one group needs; `app` puts it together.
pub struct Deps {
    /// Whose positions they are.
    pub projector: &'static str,
    /// The role of its lease.
    pub role: &'static str,
    /// The group's name, with its prefix.
    pub group: String,
    pub tenant: String,
    pub topic: String,
    pub connection: Arc<Connection>,
    pub pool: Pool,
    pub instance: Arc<Instance>,
    pub status: Status,
}

/// Commits one group's offsets.
pub struct OffsetCommitter {
    deps: Deps,
    leased: Leased,
    leases: Leases,
    /// Of the lease, while this instance has it.
    epoch: Option<i64>,
    admin: Option<Admin>,
    /// The last commit may not have arrived: Kafka may still have the one before it.
    in_doubt: bool,
    all_due: Instant,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

impl OffsetCommitter {
    pub fn new(deps: Deps) -> Self {
        let leased = Leased {
            tenant: deps.tenant.clone(),
            role: deps.role,
            topic: deps.topic.clone(),
            partitions: 1,
        };
        let (pool, instance) = (deps.pool.clone(), Arc::clone(&deps.instance));
        let leases = Leases::new(pool, instance, leased.clone());
        Self {
            deps,
            leased,
            leases,
            epoch: None,
            admin: None,
            in_doubt: true,
            all_due: Instant::now() + COMMIT_ALL_INTERVAL,
        }
    }

    /// Works until `stop` is cancelled: calls to Kafka end with it, statements are finished.
    pub async fn run(self, stop: CancellationToken) {
        let leases = self.leases.clone();
        leases.beside(Box::pin(self.work(stop))).await;
    }

    async fn work(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !stop.is_cancelled() {
            let pause = match Box::pin(self.round(&stop)).await {
                Ok(()) => {
                    backoff.reset();
                    self.report(None);
                    COMMIT_INTERVAL
                }
                Err(error) => {
                    tracing::debug!(group = self.deps.group, %error, "offsets not committed");
                    (self.admin, self.in_doubt) = (None, true);
                    self.report(Some(error.to_string()));
                    backoff.fail()
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
                () = self.leases.changed() => {}
            }
        }
    }

    async fn round(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        self.lease().await?;
        if self.epoch.is_none() {
            self.admin = None;
            return Ok(());
        }
        // None: stopped meanwhile.
        let Some(found) = self.read(stop).await? else { return Ok(()) };
        for position in self.positions().await? {
            if let Some(offset) = position.reset_to(&found, self.in_doubt) {
                self.reset(position.partition, offset).await?;
            }
        }
        let all = Instant::now() >= self.all_due;
        let mut commits = commits(&self.positions().await?, &found, all);
        if !commits.is_empty() {
            if !self.note(&commits).await? {
                return Ok(());
            }
            let Some(now) = self.read(stop).await? else { return Ok(()) };
            commits.retain(|commit| now.get(&commit.partition).copied() == commit.written);
            self.in_doubt = true;
            if !self.commit(&commits, stop).await? {
                return Ok(());
            }
        }
        self.in_doubt = false;
        if all {
            self.all_due = Instant::now() + COMMIT_ALL_INTERVAL;
        }
        Ok(())
    }

    async fn lease(&mut self) -> store::Result<()> {
        self.leases.renew().await?;
        let assigned = self.leases.assigned(&BTreeSet::new()).unwrap_or_default();
        let epoch = assigned.values().next().map(|lease| lease.epoch);
        if epoch != self.epoch {
            tracing::info!(group = self.deps.group, copying = epoch.is_some(), "offsets");
            // Another instance may have committed meanwhile.
            (self.epoch, self.in_doubt) = (epoch, true);
        }
        Ok(())
    }

    /// What the group has in Kafka.
    async fn read(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<BTreeMap<i32, i64>>, kafka::Error> {
        let Deps { group, topic, connection, .. } = &self.deps;
        let reading = async {
            let admin = match self.admin.take() {
                Some(admin) => admin,
                None => connection.admin().await?,
            };
            let offsets = admin.group_offsets(group, topic).await?;
            Ok((admin, offsets))
        };
        let Some(read) = stop.run_until_cancelled(reading).await else { return Ok(None) };
        let (admin, offsets) = read?;
        self.admin = Some(admin);
        Ok(Some(offsets))
    }

    /// Notes commits before they are sent. False: the lease is another instance's by now.
    async fn note(&self, commits: &[OffsetCommit]) -> store::Result<bool> {
        let Some(by) = self.committer() else { return Ok(false) };
        let noting = group_offsets::record_intent(&self.deps.pool, &by, commits, self.in_doubt);
        let stands = store::bounded(store::SILENT, noting).await?;
        if !stands {
            self.leases.renew_now();
        }
        Ok(stands && self.leases.stands(Instant::now()))
    }

    /// False: stopped before an answer.
    async fn commit(
        &self,
        commits: &[OffsetCommit],
        stop: &CancellationToken,
    ) -> Result<bool, kafka::Error> {
        let offsets: Vec<(i32, i64)> =
            commits.iter().map(|commit| (commit.partition, commit.sent)).collect();
        let (Some(admin), false) = (&self.admin, offsets.is_empty()) else { return Ok(true) };
        let committing = admin.commit_offsets(&self.deps.group, &self.deps.topic, &offsets);
        match stop.run_until_cancelled(committing).await {
            None => Ok(false),
            Some(committed) => committed?.refused.map_or(Ok(true), Err),
        }
    }

    /// An operator has set the group's offset: the checkpoint follows, unless it is behind that.
    async fn reset(&self, partition: i32, offset: i64) -> store::Result<()> {
        let Some(by) = self.committer() else { return Ok(()) };
        let moving = group_offsets::reset(&self.deps.pool, &by, partition, offset);
        let Some(reset) = store::bounded(store::SILENT, moving).await? else { return Ok(()) };
        let (group, from) = (self.deps.group.clone(), reset.from_offset);
        let outcome = if reset.honoured { "honoured" } else { "refused" };
        metrics::counter!("consumer_resets_total", "group" => group.clone(), "outcome" => outcome)
            .increment(1);
        if reset.honoured {
            tracing::info!(group, partition, from, to = offset, "offset reset");
            return Ok(());
        }
        let error = format!(
            "partition {partition}: a reset to {offset} is refused, it is beyond {from}: the \
             events between would be skipped"
        );
        tracing::warn!(group, "{error}");
        self.update_status(|status| {
            status.last_error = Some(error);
            status.error_is_transient = false;
        });
        Ok(())
    }

    async fn positions(&self) -> store::Result<Vec<Position>> {
        let Deps { pool, tenant, projector, topic, .. } = &self.deps;
        let reading = group_offsets::positions(pool, tenant, projector, topic);
        store::bounded(store::SILENT, reading).await
    }

    fn committer(&self) -> Option<Committer> {
        Some(Committer {
            leased: self.leased.clone(),
            projector: self.deps.projector,
            owner: self.deps.instance.owner().to_owned(),
            epoch: self.epoch?,
        })
    }

    fn report(&self, error: Option<String>) {
        let copying = self.epoch.is_some();
        // Resets are seen by whatever reads and commits.
        let watched = copying && error.is_none();
        self.update_status(|status| status.offsets = OffsetsStatus { copying, watched, error });
    }

    fn update_status(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        let name = self.deps.projector;
        self.deps.status.update(|all| change(all.projectors.entry(name).or_default()));
    }
}

/// Commits of the positions that Kafka does not have, or of `all`.
fn commits(positions: &[Position], found: &BTreeMap<i32, i64>, all: bool) -> Vec<OffsetCommit> {
    let commit = |position: &Position| {
        let (partition, sent) = (position.partition, position.next_offset);
        let written = found.get(&partition).copied();
        (all || written != Some(sent)).then_some(OffsetCommit { partition, written, sent })
    };
    positions.iter().filter_map(commit).collect()
}

impl Position {
    /// The offset that an operator has set; none: Kafka has the service's last commit or, while that is
    /// `in_doubt`, the one before it; or one that was never answered has arrived late. An offset that was
    /// deleted or ran out is no reset either.
    fn reset_to(&self, found: &BTreeMap<i32, i64>, in_doubt: bool) -> Option<i64> {
        let offset = *found.get(&self.partition)?;
        let late = self.unanswered.iter().flatten().any(|sent| *sent == offset);
        let before = late || in_doubt && self.written == Some(offset);
        let is_set = self.sent.is_some_and(|sent| sent != offset) && !before;
        is_set.then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(written: Option<i64>, sent: Option<i64>) -> Position {
        Position { partition: 3, next_offset: 9, written, sent, unanswered: None }
    }

    #[test]
    fn an_offset_that_was_not_committed_here_is_a_reset() {
        let kafka = |offset: i64| BTreeMap::from([(3, offset)]);
        let known = position(Some(5), Some(7));
        for in_doubt in [false, true] {
            assert_eq!(known.reset_to(&kafka(7), in_doubt), None, "the last commit");
            assert_eq!(known.reset_to(&kafka(2), in_doubt), Some(2));
            assert_eq!(known.reset_to(&kafka(8), in_doubt), Some(8), "refused by the checkpoint");
            assert_eq!(known.reset_to(&BTreeMap::new(), in_doubt), None, "deleted");
            assert_eq!(known.reset_to(&BTreeMap::from([(4, 2)]), in_doubt), None);
            let new = position(None, None);
            assert_eq!(new.reset_to(&kafka(2), in_doubt), None, "a group of a time before");
        }
        assert_eq!(known.reset_to(&kafka(5), true), None, "the last commit did not arrive");
        assert_eq!(known.reset_to(&kafka(5), false), Some(5), "it did, and was set back");
        let late = Position { unanswered: Some(vec![6, 4]), ..known };
        assert_eq!(late.reset_to(&kafka(4), false), None, "an unanswered commit arrived late");
        assert_eq!(late.reset_to(&kafka(3), false), Some(3));
    }

    #[test]
    fn what_has_moved_is_committed_and_now_and_then_everything() {
        let of = |found: &[(i32, i64)], all| {
            commits(&[position(None, None)], &found.iter().copied().collect(), all)
        };
        let commit = |written| vec![OffsetCommit { partition: 3, written, sent: 9 }];
        assert_eq!(of(&[(3, 9)], false), []);
        assert_eq!(of(&[(3, 9)], true), commit(Some(9)));
        assert_eq!(of(&[(3, 4)], false), commit(Some(4)));
        assert_eq!(of(&[], false), commit(None), "deleted: it is there again");
    }
}
