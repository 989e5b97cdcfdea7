//! Looks now and then at the topic of the events: makes it again where it is gone, and notices one that
//! was deleted and recreated under its name: by their offsets alone its records look like the old ones'.

use std::sync::Arc;
use std::time::Duration;

use crate::background::task::Task;
use crate::backoff::Backoff;
use crate::kafka::Connection;
use crate::status::{COMMANDS, Problem, Status};
use crate::topics::{KnownTopic, Tended, Topics, TopicsError, Wiring};

const EVERY: Duration = Duration::from_secs(5);
/// While it is gone, or not as it has to be.
const SOON: Duration = Duration::from_secs(1);

pub(super) struct Identity {
    pub wiring: Wiring,
    pub connection: Arc<Connection>,
    pub status: Status,
    /// The topic as of the last look, first of all at the start.
    pub seen: KnownTopic,
    /// Kept from round to round.
    pub open: Option<Topics>,
}

impl Task for Identity {
    const NAME: &'static str = "topic watch";
    const MAY_BE_CUT: bool = true;
    type Error = TopicsError;

    async fn round(&mut self) -> Result<Duration, TopicsError> {
        // Who cannot be reached is asked by the watch of the cluster; one of them is enough.
        let tended = match self.status.snapshot().connected {
            true => look(&self.wiring, &self.connection, &mut self.open, &mut self.seen).await?,
            false => Tended::default(),
        };
        let settled = tended.created.is_empty() && tended.problem.is_none();
        report(&self.status, tended);
        Ok(if settled { EVERY } else { SOON })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(EVERY, EVERY)
    }
}

async fn look(
    wiring: &Wiring,
    connection: &Connection,
    open: &mut Option<Topics>,
    seen: &mut KnownTopic,
) -> Result<Tended, TopicsError> {
    let topics = match open.take() {
        Some(topics) => topics,
        None => Topics::open_behind(wiring, connection).await?,
    };
    let tended = topics.tend(seen).await?;
    *open = Some(topics);
    Ok(tended)
}

fn report(status: &Status, tended: Tended) {
    for topic in tended.created {
        tracing::info!(topic, "topic created");
    }
    if let Some(text) = tended.completed {
        tracing::warn!("{text}");
    }
    if let Some(error) = tended.recreated {
        tracing::error!("{error}");
        status.update(|pipeline| {
            let projectors = pipeline.projectors.iter_mut();
            for (_, projector) in projectors.filter(|(name, _)| **name != COMMANDS) {
                projector.last_error = Some(error.clone());
                projector.error_is_transient = false;
            }
        });
    }
    let mut before = None;
    status.update(|pipeline| {
        before = match &tended.problem {
            Some(text) => pipeline.problems.insert(Problem::Topic, text.clone()),
            None => pipeline.problems.remove(&Problem::Topic),
        };
    });
    match (before, tended.problem) {
        (before, Some(text)) if before.as_ref() != Some(&text) => tracing::error!("{text}"),
        (Some(_), None) => tracing::info!("the events topic is as it has to be again"),
        _ => {}
    }
}
