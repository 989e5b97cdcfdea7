//! Looks now and then at the topic of the events: makes it again where it is gone, and notices one that
//! was deleted and made anew under its name, whose offsets nobody else would tell from the old ones'.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::kafka::Connection;
use crate::status::{COMMANDS, Problem, Status};
use crate::topics::{Seen, Tended, Topics, TopicsError, Wiring};

const EVERY: Duration = Duration::from_secs(5);
/// While it is gone, or not as it has to be.
const SOON: Duration = Duration::from_secs(1);

/// Runs until told to stop. `seen`: of the topic at the start.
pub(super) async fn watch(
    wiring: Wiring,
    connection: Arc<Connection>,
    status: Status,
    mut seen: Seen,
    stop: CancellationToken,
) {
    let mut open = None;
    loop {
        // Who cannot be reached is asked by the watch of the cluster; one of them is enough.
        let asked = match status.snapshot().connected {
            true => {
                stop.run_until_cancelled(look(&wiring, &connection, &mut open, &mut seen)).await
            }
            false => Some(Ok(Tended::default())),
        };
        let pause = match asked {
            None => return,
            Some(Ok(tended)) => {
                let settled = tended.created.is_empty() && tended.problem.is_none();
                report(&status, tended);
                if settled { EVERY } else { SOON }
            }
            Some(Err(error)) => {
                open = None;
                tracing::debug!(%error, "the events topic was not looked at");
                EVERY
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn look(
    wiring: &Wiring,
    connection: &Connection,
    open: &mut Option<Topics>,
    seen: &mut Seen,
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
    if let Some(error) = tended.anew {
        tracing::error!("{error}");
        status.update(|pipeline| {
            let projectors = pipeline.projectors.iter_mut();
            for (_, projector) in projectors.filter(|(name, _)| **name != COMMANDS) {
                projector.last_error = Some(error.clone());
                projector.error_passes = false;
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
