//! A projector's places, copied to Kafka under its group's name, and resets honoured: the official
//! tools list and describe the group, and move it while it works.
//!
//! Postgres is the record, Kafka has a copy: written once a second where a place has moved, hourly
//! where none has, by one instance at a time, under a lease. An offset in Kafka that is no copy of
//! ours was set by somebody: a reset. It is found by reading `__consumer_offsets`, which shows those,
//! too, that our next copy overwrites; or, where that may not be read, by reading before each copy.
//! A reset moves the checkpoint back in one statement; the projector notices, and every record that
//! it reads again is a duplicate. One beyond the checkpoint would skip events: it is refused.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::instance::{Instance, Term};
use crate::kafka::admin::Admin;
use crate::kafka::{self, Connection, OffsetsWatch};
use crate::status::{OffsetsStatus, ProjectorStatus, Status};
use crate::store::group_offsets::{self, Copier, Copy};
use crate::store::leases::{self, Leased};
use crate::store::{self, Pool};
use known::Known;

/// Between two copies.
const EVERY: Duration = Duration::from_secs(1);
/// Offsets of a group that nobody commits for run out: all are copied again after this time.
const ALL_EVERY: Duration = Duration::from_secs(3600);
/// How long one look at `__consumer_offsets` waits for something to be written.
const LOOK: Duration = Duration::from_millis(250);
/// Where the topic may not be read, that is tried again after this time.
const UNWATCHED: Duration = Duration::from_secs(300);
/// Pause after an error, doubled up to the second.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// At the end the lease is given up; where Postgres is slow to take that, it runs out.
const LEAVE: Duration = Duration::from_secs(2);

/// The roles of the leases, in the order of the projectors.
pub const ROLES: [&str; 2] = ["ledger-offsets", "read-model-offsets"];

/// That of inbound commands.
pub const COMMANDS_ROLE: &str = "commands-offsets";

/// What the mirror of one group needs; `app` puts it together.
pub struct Parts {
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

/// Copies one projector's places.
pub struct GroupMirror {
    parts: Parts,
    leased: Leased,
    term: Term,
    /// The partition count is known, and with it that there is something to copy.
    opened: bool,
    /// Of the lease, while this instance has it.
    epoch: Option<i64>,
    session: Option<Session>,
}

/// What is known of the group's offsets since they were last read.
struct Session {
    admin: Admin,
    /// None: the topic may not be read.
    watch: Option<OffsetsWatch>,
    known: BTreeMap<i32, Known>,
    due: Instant,
    all_due: Instant,
    until: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

impl GroupMirror {
    pub fn new(parts: Parts) -> Self {
        let leased = Leased {
            tenant: parts.tenant.clone(),
            role: parts.role,
            topic: parts.topic.clone(),
            partitions: 1,
        };
        let term = parts.instance.term();
        Self { parts, leased, term, opened: false, epoch: None, session: None }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = PAUSE;
        while !stop.is_cancelled() {
            match Box::pin(self.step(&stop)).await {
                Ok(()) => {
                    pause = PAUSE;
                    self.report(None);
                }
                Err(error) => {
                    tracing::debug!(group = self.parts.group, %error, "offsets not copied");
                    self.session = None;
                    self.report(Some(error.to_string()));
                    stop.run_until_cancelled(sleep(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        self.leave().await;
    }

    /// Calls to Kafka end with `stop`, statements are finished.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        // While this instance copies, nothing below waits for it.
        if self.term.moved().now_or_never().is_some() {
            self.term.hurry();
        }
        self.lease().await?;
        if self.epoch.is_none() {
            self.session = None;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(self.term.due()) => {}
                () = self.term.moved() => self.term.hurry(),
            }
            return Ok(());
        }
        let mut session = match self.session.take() {
            Some(session) if session.until.is_none_or(|until| Instant::now() < until) => session,
            _ => match Box::pin(self.open(stop)).await? {
                Some(session) => session,
                None => return Ok(()),
            },
        };
        let looked = match &mut session.watch {
            Some(watch) => stop.run_until_cancelled(watch.next(LOOK)).await,
            None => stop.run_until_cancelled(sleep(LOOK)).await.map(|()| Ok(Vec::new())),
        };
        let Some(written) = looked else { return Ok(()) };
        for (partition, offset) in written? {
            let known = session.known.entry(partition).or_default();
            match offset {
                None => known.deleted(),
                Some(offset) if known.wrote(offset) => {}
                Some(offset) => self.reset(partition, offset).await?,
            }
        }
        if Instant::now() >= session.due && !self.copy(&mut session, stop).await? {
            return Ok(());
        }
        self.session = Some(session);
        Ok(())
    }

    async fn lease(&mut self) -> store::Result<()> {
        let begun = Instant::now();
        if !self.term.is_due(begun) {
            return Ok(());
        }
        let instance = &self.parts.instance;
        let renewing = async {
            let mut connection = store::acquire(&self.parts.pool).await?;
            if !self.opened {
                leases::open(&mut connection, &self.leased).await?;
            }
            leases::renew(&mut connection, &self.leased, &instance.member()).await
        };
        let standing = store::bounded(store::SILENT, renewing).await?;
        self.opened = true;
        instance.note(&standing);
        self.term.renewed(begun);
        let epoch = standing.leases.first().map(|lease| lease.epoch);
        if epoch != self.epoch {
            tracing::info!(group = self.parts.group, copying = epoch.is_some(), "offsets");
            // Another may have copied meanwhile.
            self.session = None;
            self.epoch = epoch;
        }
        Ok(())
    }

    /// Reads what Kafka has, and honours what somebody set while nobody looked. None: to be told to
    /// stop.
    async fn open(&self, stop: &CancellationToken) -> Result<Option<Session>, Failure> {
        let Some(read) = stop.run_until_cancelled(self.read()).await else { return Ok(None) };
        let (admin, watch, offsets) = read?;
        let now = Instant::now();
        let until = watch.is_none().then(|| now + UNWATCHED);
        let mut session = Session {
            admin,
            watch,
            known: BTreeMap::new(),
            due: now,
            all_due: now + ALL_EVERY,
            until,
        };
        for place in self.places().await? {
            let kafka = offsets.get(&place.partition).copied();
            session.known.insert(place.partition, Known::read(kafka, place.sent));
            let ours = place.sent.is_none() || kafka == place.sent || kafka == place.written;
            if let (Some(offset), false) = (kafka, ours) {
                self.reset(place.partition, offset).await?;
            }
        }
        Ok(Some(session))
    }

    /// What the group has in Kafka, and a look-out for what is written from then on.
    async fn read(
        &self,
    ) -> Result<(Admin, Option<OffsetsWatch>, BTreeMap<i32, i64>), kafka::Error> {
        let Parts { group, topic, connection, .. } = &self.parts;
        let admin = connection.admin().await?;
        let mut watch = match OffsetsWatch::open(&admin, Arc::clone(connection), group, topic).await
        {
            Ok(watch) => Some(watch),
            Err(error) if error.class == kafka::Class::Topic => {
                tracing::warn!(
                    group,
                    %error,
                    "resets are looked for before each copy only: some may be missed"
                );
                None
            }
            Err(error) => return Err(error),
        };
        let mut offsets = admin.group_offsets(group, topic).await?;
        // Written since the watch began, before or after the reading: the last one counts.
        if let Some(watch) = &mut watch {
            for (partition, offset) in watch.next(Duration::ZERO).await? {
                match offset {
                    Some(offset) => offsets.insert(partition, offset),
                    None => offsets.remove(&partition),
                };
            }
        }
        Ok((admin, watch, offsets))
    }

    /// Copies the places that have moved. False: the lease is another's by now.
    async fn copy(
        &mut self,
        session: &mut Session,
        stop: &CancellationToken,
    ) -> Result<bool, Failure> {
        let Parts { group, topic, .. } = &self.parts;
        let now = Instant::now();
        session.due = now + EVERY;
        if session.watch.is_none() {
            let reading = session.admin.group_offsets(group, topic);
            let Some(offsets) = stop.run_until_cancelled(reading).await else { return Ok(true) };
            let offsets = offsets?;
            let gone = session.known.iter_mut().filter(|(n, _)| !offsets.contains_key(n));
            gone.for_each(|(_, known)| known.deleted());
            for (partition, offset) in offsets {
                if session.known.entry(partition).or_default().differs(offset) {
                    self.reset(partition, offset).await?;
                }
            }
        }
        let all = now >= session.all_due;
        let copies: Vec<Copy> = self
            .places()
            .await?
            .into_iter()
            .filter_map(|place| {
                let written = session.known.entry(place.partition).or_default().kafka;
                let moved = all || written != Some(place.next_offset);
                moved.then_some(Copy {
                    partition: place.partition,
                    written,
                    sent: place.next_offset,
                })
            })
            .collect();
        if copies.is_empty() {
            return Ok(true);
        }
        if all {
            session.all_due = now + ALL_EVERY;
        }
        let Some(by) = self.copier() else { return Ok(false) };
        let noting = group_offsets::intend(&self.parts.pool, &by, &copies);
        let stands = store::bounded(store::SILENT, noting).await?;
        if !stands || !self.term.stands(Instant::now()) {
            self.epoch = None;
            self.term.hurry();
            return Ok(false);
        }
        self.send(session, &copies, stop).await?;
        Ok(true)
    }

    async fn send(
        &self,
        session: &mut Session,
        copies: &[Copy],
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Parts { group, topic, .. } = &self.parts;
        let offsets: Vec<(i32, i64)> =
            copies.iter().map(|copy| (copy.partition, copy.sent)).collect();
        for (partition, offset) in &offsets {
            session.known.entry(*partition).or_default().send(*offset);
        }
        let sending = session.admin.commit_offsets(group, topic, &offsets);
        let Some(sent) = stop.run_until_cancelled(sending).await else { return Ok(()) };
        let sent = sent?;
        for (partition, offset) in offsets {
            let known = session.known.entry(partition).or_default();
            known.answered(offset, sent.partitions.contains(&partition));
        }
        sent.refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Somebody set the group's offset: the checkpoint follows, unless it is behind that.
    async fn reset(&self, partition: i32, offset: i64) -> Result<(), Failure> {
        let Some(by) = self.copier() else { return Ok(()) };
        let moving = group_offsets::reset(&self.parts.pool, &by, partition, offset);
        let Some(reset) = store::bounded(store::SILENT, moving).await? else { return Ok(()) };
        let (group, from) = (self.parts.group.clone(), reset.from_offset);
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
        self.change(|status| {
            status.last_error = Some(error);
            status.error_passes = false;
        });
        Ok(())
    }

    async fn places(&self) -> store::Result<Vec<group_offsets::Place>> {
        let Parts { pool, tenant, projector, topic, .. } = &self.parts;
        store::bounded(store::SILENT, group_offsets::places(pool, tenant, projector, topic)).await
    }

    fn copier(&self) -> Option<Copier> {
        Some(Copier {
            leased: self.leased.clone(),
            projector: self.parts.projector,
            owner: self.parts.instance.owner().to_owned(),
            epoch: self.epoch?,
        })
    }

    async fn leave(&self) {
        let leaving = async {
            let mut connection = store::acquire(&self.parts.pool).await?;
            leases::leave(&mut connection, &self.leased, self.parts.instance.owner()).await
        };
        if !matches!(timeout(LEAVE, leaving).await, Ok(Ok(()))) {
            tracing::warn!(group = self.parts.group, "lease not given up: it runs out");
        }
    }

    fn report(&self, error: Option<String>) {
        let copying = self.epoch.is_some();
        let watched = self.session.as_ref().is_some_and(|session| session.watch.is_some());
        self.change(|status| status.offsets = OffsetsStatus { copying, watched, error });
    }

    fn change(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        let name = self.parts.projector;
        self.parts.status.update(|all| change(all.projectors.entry(name).or_default()));
    }
}
