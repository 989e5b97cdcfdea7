//! One round: doubtful partitions are read back, the next events of all others are sent and noted.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Follower, Trouble};
use crate::kafka::{Class, Fetcher};
use crate::publisher::read_back::{ReadBack, read_back};
use crate::publisher::send::{Sent, send};
use crate::store::feed::Walk;
use crate::store::outbox::OutboxRow;
use crate::store::second::{self, Mark};
use crate::store::{self, Connection};
use crate::wallet::WalletId;

/// What one partition lacks.
struct Part {
    walk: Walk,
    epoch: i64,
    rows: Vec<OutboxRow>,
    /// The rows are all that the walk found.
    whole: bool,
}

impl Follower {
    pub(super) async fn read_back(&mut self) -> Result<(), Trouble> {
        let doubtful = self.held.iter().filter(|(_, held)| held.doubtful);
        let reading = doubtful.map(|(partition, held)| {
            let topic = &self.leased.topic;
            let mut fetcher = Fetcher::new(self.connection.clone(), topic, *partition);
            let (partition, held) = (*partition, *held);
            async move { read_back(&mut fetcher, partition, held.epoch, held.last_offset).await }
        });
        let (mut reads, mut failed): (Vec<ReadBack>, _) = (Vec::new(), None);
        for read in join_all(reading).await {
            match read {
                Ok(read) => reads.push(read),
                Err(error) => failed = Some(error),
            }
        }
        if !reads.is_empty() {
            let noting = self.note_found(&reads);
            let standing = store::bounded(store::SILENT, noting).await?;
            for read in &reads {
                let Some(held) = self.held.get_mut(&read.partition) else { continue };
                held.last_offset = Some(read.last_offset);
                held.doubtful = !read.complete;
            }
            self.keep(reads.iter().map(|read| read.partition), &standing);
        }
        self.topic_trouble(failed)
    }

    async fn note_found(&self, reads: &[ReadBack]) -> store::Result<Vec<i32>> {
        let mut connection = store::acquire(&self.parts.pool).await?;
        let mut marks = Vec::new();
        for read in reads {
            let versions = match read.found.as_slice() {
                [] => Vec::new(),
                found => second::known(&mut connection, &self.of.tenant, found).await?,
            };
            let (partition, epoch) = (read.partition, read.epoch);
            let last_offset = Some(read.last_offset);
            marks.push(Mark { partition, epoch, last_offset, feed_xid: None, versions });
        }
        second::mark(&mut connection, &self.of, &self.leased, &marks).await
    }

    /// Sends the next events; whether there are more.
    pub(super) async fn send(&mut self) -> Result<bool, Trouble> {
        let parts =
            store::bounded(store::SILENT, self.next()).await.inspect_err(|_| self.forget())?;
        let until = self.term.until();
        let (producer, form) = (&self.producer, self.form);
        let sends = parts.iter().map(|part| async move {
            let mut sent = Sent::new(part.walk.partition, part.epoch, false);
            if Instant::now() < until {
                send(producer, &mut sent, &part.rows, form, until).await;
            }
            sent
        });
        let sent: Vec<Sent> = join_all(sends).await;
        let mut more = false;
        more |= self.pass.is_some();
        let (mut marks, mut failed, mut count) = (Vec::new(), None, 0);
        for (part, sent) in parts.iter().zip(sent) {
            let complete = part.whole && sent.taken.len() == part.rows.len();
            more |= part.walk.more || !complete;
            count += sent.taken.len();
            self.sent(part, &sent, complete);
            let mark = part.mark(&sent, complete);
            for refusal in &sent.refusals {
                tracing::error!(
                    cause = refusal.cause,
                    "the second topic's broker refused a record"
                );
                failed.get_or_insert_with(|| Trouble::Topic(refusal.cause.clone()));
            }
            if let Some(trouble) = sent.trouble {
                failed = Some(Trouble::Kafka(trouble.error));
            }
            marks.extend(mark);
        }
        if !marks.is_empty() {
            let noting = self.note(&marks);
            let noted = store::bounded(store::SILENT, noting).await;
            // What was sent and not noted is read back.
            let standing = noted.inspect_err(|_| self.forget())?;
            self.keep(marks.iter().map(|mark| mark.partition), &standing);
        }
        self.published(count);
        match failed {
            Some(Trouble::Kafka(error)) => self.topic_trouble(Some(error)).map(|()| more),
            Some(trouble) => Err(trouble),
            None => Ok(more),
        }
    }

    /// What is known of a partition after its request.
    fn sent(&mut self, part: &Part, sent: &Sent, complete: bool) {
        if let Some(held) = self.held.get_mut(&sent.partition) {
            held.last_offset = sent.last_offset.or(held.last_offset);
            held.doubtful = sent.trouble.as_ref().is_some_and(|trouble| trouble.doubtful);
        }
        if complete {
            let ahead = self.ahead.entry(part.walk.partition).or_default();
            *ahead = part.walk.seen_to.max(*ahead);
        }
    }

    async fn note(&self, marks: &[Mark]) -> store::Result<Vec<i32>> {
        let mut connection = store::acquire(&self.parts.pool).await?;
        second::mark(&mut connection, &self.of, &self.leased, marks).await
    }

    /// What the partitions lack that are in order here.
    async fn next(&mut self) -> store::Result<Vec<Part>> {
        let calm = self.held.iter().filter(|(_, held)| !held.doubtful);
        let partitions: Vec<i32> = calm.map(|(partition, _)| *partition).collect();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = store::acquire(&self.parts.pool).await?;
        self.judge(&mut connection).await?;
        let walks = match &self.pass {
            Some(_) => self.lacking(&mut connection, &partitions).await?,
            None => self.walk(&mut connection, &partitions).await?,
        };
        if walks.iter().any(|walk| walk.foreign) {
            self.judged.clear();
            return Ok(Vec::new());
        }
        let wanted = wanted(&walks);
        let ids: Vec<&str> = wanted.iter().map(|(wallet, _)| wallet.as_str()).collect();
        let mut rows = Vec::new();
        if !wanted.is_empty() {
            second::meet(&mut connection, &self.of, &ids).await?;
            rows = second::rows(&mut connection, &self.of, &wanted).await?;
        }
        let mut by_partition: BTreeMap<i32, Vec<OutboxRow>> = BTreeMap::new();
        for row in rows {
            by_partition.entry(row.partition).or_default().push(row);
        }
        let part = |walk: Walk| {
            let rows = by_partition.remove(&walk.partition).unwrap_or_default();
            let epoch = self.held.get(&walk.partition)?.epoch;
            Some(Part { whole: is_whole(&walk, &rows), walk, epoch, rows })
        };
        Ok(walks.into_iter().filter_map(part).collect())
    }

    async fn walk(
        &self,
        connection: &mut Connection,
        partitions: &[i32],
    ) -> store::Result<Vec<Walk>> {
        let ahead: Vec<(i32, i64)> = self.ahead.iter().map(|(p, xid)| (*p, *xid)).collect();
        store::begin(connection).await?;
        store::feed::steady(connection).await?;
        let limit = self.parts.outbox.batch_max;
        let walks = store::feed::walk(connection, &self.of, partitions, &ahead, limit).await?;
        store::commit(connection).await?;
        Ok(walks)
    }

    /// Of the `marked` partitions only those `standing` are still this instance's.
    fn keep(&mut self, marked: impl Iterator<Item = i32>, standing: &[i32]) {
        for partition in marked.filter(|partition| !standing.contains(partition)) {
            tracing::warn!(partition, "second publisher: lease lost to another instance");
            self.held.remove(&partition);
            self.term.hurry();
        }
    }

    /// A topic that is not as it was is looked at anew.
    fn topic_trouble(&mut self, failed: Option<crate::kafka::Error>) -> Result<(), Trouble> {
        let Some(error) = failed else { return Ok(()) };
        if error.class == Class::Topic {
            self.prepared = false;
        }
        Err(error.into())
    }
}

impl Part {
    /// None: nothing is to be noted.
    fn mark(&self, sent: &Sent, complete: bool) -> Option<Mark> {
        let taken: HashSet<i64> = sent.taken.iter().map(|(_, id)| *id).collect();
        let mut versions: HashMap<&str, i64> = HashMap::new();
        for row in self.rows.iter().filter(|row| taken.contains(&row.id)) {
            versions.insert(&row.wallet_id, row.version);
        }
        let moves = complete && self.walk.end > self.walk.from;
        let feed_xid = moves.then_some((self.walk.from, self.walk.end));
        (feed_xid.is_some() || !versions.is_empty()).then(|| Mark {
            partition: self.walk.partition,
            epoch: self.epoch,
            last_offset: sent.last_offset,
            feed_xid,
            versions: versions.into_iter().map(|(id, v)| (WalletId::stored(id), v)).collect(),
        })
    }
}

/// Each wallet with the last version that the walks found of it.
fn wanted(walks: &[Walk]) -> Vec<(WalletId, i64)> {
    let mut wanted: BTreeMap<WalletId, i64> = BTreeMap::new();
    for (wallet, version, _) in walks.iter().flat_map(|walk| &walk.pending) {
        let last = wanted.entry(wallet.clone()).or_default();
        *last = (*last).max(*version);
    }
    wanted.into_iter().collect()
}

/// Whether `rows` reach as far as the walk has seen, wallet by wallet.
fn is_whole(walk: &Walk, rows: &[OutboxRow]) -> bool {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for row in rows {
        last.insert(&row.wallet_id, row.version);
    }
    walk.pending.iter().all(|(wallet, version, _)| {
        // Without a row it was sent before.
        last.get(wallet.as_str()).is_none_or(|last| last >= version)
    })
}
