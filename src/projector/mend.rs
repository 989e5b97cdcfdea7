//! Places that are of another Postgres cluster: a dump was restored. They are given up for what the wallets
//! say: every wallet whose events go further than what is noted of it is brought up to date, and the places
//! go on from before the first look at them.
//!
//! A page of wallets at a time, between the steps of the other feed; an instance that is stopped begins again, and
//! several instances at once only do it twice.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::apply::{Outcome, apply};
use super::chunk::{Chunk, EventRef, Feed};
use super::{Job, Projector};
use crate::store::checkpoints::{self, Subscription};
use crate::store::clusters::{self, Lacking, Pass};
use crate::store::{self, Connection};

/// Wallets looked at in one statement.
const WALLETS: i64 = 500;
/// Of one step; the other feed's records wait for so long.
const SLICE: Duration = Duration::from_millis(500);

/// A pass over all wallets.
#[derive(Debug)]
pub struct Mend {
    pass: Pass,
    applied: u64,
}

impl Mend {
    /// None: the places are of this cluster.
    pub async fn begun(
        connection: &mut Connection,
        of: &Subscription,
        partitions: i32,
    ) -> store::Result<Option<Self>> {
        checkpoints::load(connection, of, partitions).await?;
        let Some(pass) = clusters::pass(connection, of).await? else { return Ok(None) };
        let projector = of.projector;
        if pass.foreign {
            tracing::warn!(
                projector,
                "its places are of another Postgres cluster, as after a dump was restored: every wallet is \
                 looked at, and brought up to date"
            );
        } else {
            tracing::info!(
                projector,
                "its places do not say of which Postgres cluster they are: every wallet is looked at once"
            );
        }
        Ok(Some(Self { pass, applied: 0 }))
    }

    /// Nothing may be found by the places before it is over.
    pub fn is_foreign(&self) -> bool {
        self.pass.foreign
    }

    /// A stretch of each partition that has some of these wallets. No place is moved by it: what another
    /// task of the same projector has moved meanwhile is found by that one.
    async fn chunks(
        connection: &mut Connection,
        job: &Job,
        lacking: Vec<Lacking>,
    ) -> store::Result<Vec<Chunk>> {
        let places = checkpoints::load(connection, &job.subscription, job.partitions).await?;
        let mut chunks: BTreeMap<i32, Chunk> = BTreeMap::new();
        for Lacking { partition, wallet, version } in lacking {
            let place = places.iter().find(|place| place.partition == partition);
            let place = place.map_or(0, |place| place.feed_xid);
            let chunk = chunks.entry(partition).or_insert_with(|| Chunk {
                feed: Feed::Postgres,
                partition,
                expected: place,
                next: place,
                records: Vec::new(),
                dead: Vec::new(),
                foreign: None,
                server: None,
            });
            let event_id = uuid::Uuid::nil();
            chunk.records.push(EventRef { wallet, version, event_id, record: None, event: None });
        }
        Ok(chunks.into_values().collect())
    }
}

impl Projector {
    /// Goes on with the pass over the wallets; at its end the places are of this cluster. Only a projector with
    /// one member does.
    pub(super) async fn mend_on(&mut self, connection: &mut Connection) -> store::Result<Outcome> {
        let mut outcome = Outcome::default();
        let Some(member) = self.members.first_mut() else { return Ok(outcome) };
        // Where this fails it is begun again.
        let (Some(mut mend), Some(job)) = (member.mend.take(), member.job.clone()) else {
            return Ok(outcome);
        };
        let of = &job.subscription;
        let begun = Instant::now();
        while begun.elapsed() < SLICE {
            let page = clusters::lacking(connection, of, &mend.pass.after, WALLETS).await?;
            let Some(last) = page.last else {
                let all: Vec<i32> = (0..job.partitions).collect();
                clusters::mended(connection, of, &mend.pass, &all).await?;
                let events = mend.applied;
                tracing::info!(projector = of.projector, events, "its places are of this cluster");
                member.report_mending(false);
                self.forget();
                return Ok(outcome);
            };
            let mut again = false;
            if !page.lacking.is_empty() {
                let mut chunks = Mend::chunks(connection, &job, page.lacking).await?;
                let done = apply(connection, &job, &mut chunks).await?;
                // Where a place moved in between, by another instance, the same page follows again.
                again = !done.stale.is_empty();
                // No record in hand named any of them.
                let (applied, parked) = (done.applied, done.parked);
                let done = Outcome { applied, healed: applied, parked, ..Outcome::default() };
                mend.applied += applied;
                member.report_applied(&done);
                outcome.add(&done);
            }
            if !again {
                mend.pass.after = last;
            }
        }
        member.mend = Some(mend);
        Ok(outcome)
    }
}
