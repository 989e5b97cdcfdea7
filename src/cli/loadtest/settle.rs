//! One request until its outcome is definite: repeated with the same idempotency key, so that
//! repeating cannot do it twice.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{Answer, Client, Failure};
use super::tally::Tally;

/// How long an outcome may stay unknown.
const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Posts until the answer is definite; else says why it is not known.
pub async fn settle(
    client: &mut Client,
    tally: &mut Tally,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> Result<Answer, String> {
    let deadline = Instant::now() + OUTCOME_WAIT_MAX;
    let mut pause = PAUSE_FIRST;
    loop {
        let answer = client.post(path, key, body.to_owned()).await;
        let cause = match answer {
            Ok(answer) => {
                tally.answered(answer.status);
                if !repeatable(&answer) {
                    tally.replayed += u64::from(answer.header("idempotency-replayed").is_some());
                    return Ok(answer);
                }
                if let Some(seconds) = retry_after(&answer) {
                    pause = pause.max(seconds).min(PAUSE_MAX);
                }
                answer.code()
            }
            Err(failure @ Failure::Unknown(_)) if key.is_none() => return Err(failure.to_string()),
            Err(failure) => failure.to_string(),
        };
        // Without a key, repeating could do it twice.
        if (key.is_none() && cause == "outcome_unknown") || Instant::now() + pause > deadline {
            return Err(cause);
        }
        tally.retried(cause);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Answers that say: not now, ask again.
fn repeatable(answer: &Answer) -> bool {
    match answer.status {
        429 | 503 => true,
        409 => answer.code() == "idempotency_key_in_flight",
        _ => false,
    }
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.header("retry-after")?.parse().ok().map(Duration::from_secs)
}

/// Reads until there is an answer other than "not now"; the last cause once `deadline` is over.
pub async fn read(client: &mut Client, path: &str, deadline: Instant) -> Result<Answer, Failure> {
    let mut pause = PAUSE_FIRST;
    loop {
        let answer = client.get(path).await;
        let late = Instant::now() + pause > deadline;
        match answer {
            Ok(answer) if late || !repeatable(&answer) => return Ok(answer),
            Err(failure) if late => return Err(failure),
            Ok(_) | Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
