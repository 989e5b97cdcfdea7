//! A task that does the same again and again: the kit waits, pauses after failures, says what failed,
//! and ends it. The task is what is done once.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// For a task that has nothing left to do, unless it is woken.
pub const NEVER: Duration = Duration::MAX;

/// What is done once.
pub trait Task: Send {
    /// In the log and in the metrics.
    const NAME: &'static str;
    /// Whether a round may be left half done at the end; one that may not bounds itself.
    const MAY_BE_CUT: bool = false;

    type Error: Display + Send;

    /// Does it, and says how long to wait before the next round: [`Duration::ZERO`] where there is
    /// more to do.
    fn round(&mut self) -> impl Future<Output = Result<Duration, Self::Error>> + Send;

    /// Ends a wait early, other than one after a failure. May be dropped at any time.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Pauses after failures.
    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(10))
    }

    /// Gives back what it has, once no round follows.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// For a task whose rounds cannot fail.
pub type Never = Infallible;

/// Does a task's rounds until `stop`.
pub async fn run<T: Task>(mut task: T, stop: CancellationToken) {
    let mut backoff = task.backoff();
    while !stop.is_cancelled() {
        let round = Box::pin(task.round());
        let round = match T::MAY_BE_CUT {
            true => stop.run_until_cancelled(round).await,
            false => Some(round.await),
        };
        let waiting = match round {
            None => break,
            Some(Ok(wait)) => {
                backoff.reset();
                wait
            }
            Some(Err(error)) => {
                let pause = failed(T::NAME, &error, &mut backoff);
                let _ = stop.run_until_cancelled(sleep(pause)).await;
                continue;
            }
        };
        if !waiting.is_zero() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(waiting) => {}
                () = task.woken() => {}
            }
        }
    }
    task.end().await;
}

/// Says the first of several failures in a row aloud; how long to pause.
fn failed(task: &'static str, error: &dyn Display, backoff: &mut Backoff) -> Duration {
    metrics::counter!("background_failures_total", "task" => task).increment(1);
    let pause = backoff.fail();
    if backoff.failures() == 1 {
        tracing::warn!(task, %error, "a background task failed, and tries again");
    } else {
        tracing::debug!(task, %error, "a background task failed again");
    }
    pause
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Notify, mpsc};

    use super::*;

    struct Script {
        rounds: Vec<Result<Duration, &'static str>>,
        done: mpsc::UnboundedSender<&'static str>,
        wake: Arc<Notify>,
    }

    impl Task for Script {
        const NAME: &'static str = "script";
        type Error = &'static str;

        async fn round(&mut self) -> Result<Duration, &'static str> {
            let result = self.rounds.pop().unwrap_or(Ok(NEVER));
            self.done.send(if result.is_ok() { "done" } else { "failed" }).unwrap();
            result
        }

        async fn woken(&mut self) {
            self.wake.notified().await;
        }

        fn backoff(&self) -> Backoff {
            Backoff::new(Duration::from_millis(20), Duration::from_millis(20))
        }

        async fn end(&mut self) {
            self.done.send("ended").unwrap();
        }
    }

    #[tokio::test]
    async fn rounds_follow_each_other_failures_pause_and_a_wake_ends_a_wait() {
        let (done, mut rounds) = mpsc::unbounded_channel();
        let wake = Arc::new(Notify::new());
        let script = vec![Ok(NEVER), Err("away"), Ok(Duration::ZERO)];
        let script = Script { rounds: script, done, wake: Arc::clone(&wake) };
        let stop = CancellationToken::new();
        let running = run(script, stop.clone());
        let watching = async {
            assert_eq!(rounds.recv().await, Some("done"));
            assert_eq!(rounds.recv().await, Some("failed"));
            let failed_at = tokio::time::Instant::now();
            wake.notify_one();
            assert_eq!(rounds.recv().await, Some("done"));
            assert!(failed_at.elapsed() >= Duration::from_millis(10), "a failure rests");
            assert_eq!(rounds.recv().await, Some("done"), "woken before");
            stop.cancel();
            assert_eq!(rounds.recv().await, Some("ended"));
        };
        tokio::join!(running, watching);
    }
}
