//! More work than the service can take: it takes what it can, says no to the rest at once, and
//! keeps nobody waiting. The database is made slow, so that it is the limit and not the machine
//! that also runs the load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::{close, sized};
use crate::support::app::{Answer, App, Setup};
use crate::support::load::{Load, Plan};
use crate::support::proxy::{Flow, Proxy};
use crate::support::{eventually, servers};

const SLOW: Flow = Flow::Late(Duration::from_millis(10));
/// Waiting callers in the queue and one batch: what the service may hold at once.
const QUEUE: usize = 48;
const BATCH: usize = 16;
/// However much is asked, an answer comes within this time.
const BOUND: Duration = Duration::from_secs(15);

/// What a stretch of load came to.
#[derive(Debug, Default)]
struct Stretch {
    done: usize,
    refused: usize,
    /// Refused without `Retry-After`, or answered otherwise.
    wrong: Vec<String>,
    slowest: Duration,
    took: Duration,
}

impl Stretch {
    fn goodput(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    fn count(&mut self, begun: Instant, answer: Result<Answer, reqwest::Error>) {
        self.slowest = self.slowest.max(begun.elapsed());
        match answer {
            Ok(answer) if answer.status == 201 => self.done += 1,
            Ok(answer) if answer.status == 429 && !answer.header("retry-after").is_empty() => {
                self.refused += 1;
            }
            other => self.wrong.push(format!("{other:?}")),
        }
    }
}

async fn credit(app: &App, number: usize) -> (Instant, Result<Answer, reqwest::Error>) {
    let begun = Instant::now();
    let url = format!("{}/wallets/w-{}/credit", app.base, number % 40);
    let sent = app.client.post(url).json(&json!({"amount": "0.01"})).send().await;
    match sent {
        Ok(response) => (begun, Ok(Answer::of(response).await)),
        Err(error) => (begun, Err(error)),
    }
}

/// As many callers as the service can hold, each asking again when it has its answer.
async fn saturate(app: &Arc<App>, lasts: Duration) -> Stretch {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..QUEUE {
        let app = Arc::clone(app);
        callers.spawn(async move {
            let mut stretch = Stretch::default();
            let mut number = caller;
            while begun.elapsed() < lasts {
                let (sent, answer) = credit(&app, number).await;
                stretch.count(sent, answer);
                number += QUEUE;
            }
            stretch
        });
    }
    let mut all = Stretch::default();
    for stretch in callers.join_all().await {
        all.done += stretch.done;
        all.refused += stretch.refused;
        all.wrong.extend(stretch.wrong);
        all.slowest = all.slowest.max(stretch.slowest);
    }
    all.took = begun.elapsed();
    all
}

/// Requests at a rate, whatever becomes of those before them.
async fn pour(app: &Arc<App>, rate: f64, lasts: Duration) -> Stretch {
    let begun = Instant::now();
    let mut stretch = Stretch::default();
    let mut asking = JoinSet::new();
    let mut sent = 0;
    while begun.elapsed() < lasts {
        // What is due by now: a late wake-up must not lower the rate.
        let due = (begun.elapsed().as_secs_f64() * rate) as usize;
        while sent < due {
            let app = Arc::clone(app);
            asking.spawn(async move { credit(&app, sent).await });
            sent += 1;
        }
        while let Some(ended) = asking.try_join_next() {
            let (sent, answer) = ended.unwrap();
            stretch.count(sent, answer);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Only what was done while it was asked for counts as goodput.
    let done = stretch.done;
    stretch.took = begun.elapsed();
    while let Some(ended) = asking.join_next().await {
        let (sent, answer) = ended.unwrap();
        stretch.count(sent, answer);
    }
    stretch.done = done;
    stretch
}

#[tokio::test(flavor = "multi_thread")]
async fn at_twice_its_capacity_the_service_keeps_its_goodput_and_refuses_the_rest_at_once() {
    let proxy = Proxy::start(servers::postgres().port).await;
    let app = Setup::without_kafka()
        .through(proxy.port)
        .with("COMMAND_LANES", 1)
        .with("COMMAND_BATCH_MAX", BATCH)
        .with("COMMAND_QUEUE_MAX", QUEUE)
        .start()
        .await;
    for number in 0..40 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    let app = Arc::new(app);
    proxy.flow(SLOW, SLOW);
    let lasts = Duration::from_secs(sized(4, 20));
    saturate(&app, Duration::from_secs(2)).await;
    let peak = saturate(&app, lasts).await;
    let over = pour(&app, 2.0 * peak.goodput(), lasts).await;
    proxy.flow(Flow::Through, Flow::Through);
    let (sent, answer) = credit(&app, 0).await;
    let after = sent.elapsed();
    let kept = over.goodput() / peak.goodput();
    println!(
        "peak {:.0}/s; asked for twice that: {:.0}/s done ({:.0} %), {} refused, slowest {:?}; \
         a request after it took {after:?}",
        peak.goodput(),
        over.goodput(),
        100.0 * kept,
        over.refused,
        over.slowest,
    );
    assert_eq!(answer.unwrap().status, 201);
    assert!(peak.wrong.is_empty() && over.wrong.is_empty(), "{:?} {:?}", peak.wrong, over.wrong);
    assert!(over.refused > 0, "the service was not overloaded");
    assert!(over.slowest < BOUND, "a caller waited {:?}", over.slowest);
    // Figures are worth their name only where they were taken for long enough.
    assert!(sized(true, kept >= 0.8), "goodput fell to {:.0} % of its peak", 100.0 * kept);
    app.drain().await;
    app.assert_reconciled();
}

/// Whoever holds all of a pool's connections holds up what needs the pool, for a bounded time, and
/// no command.
#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_means_503_in_bounded_time_and_commands_go_on() {
    let app = Setup::without_kafka().with("DATABASE_MAX_CONNECTIONS", 4).start().await;
    let load = Load::start(&[&app.base], Plan { workers: 4, ..Plan::default() }).await;
    load.advance(50).await;
    let mut holder = app.pool.begin().await.unwrap();
    let lock = "lock table wallets_read_model in access exclusive mode";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let (url, client) = (format!("{}/wallets", app.base), app.client.clone());
        readers.spawn(async move {
            let begun = Instant::now();
            let answer = Answer::of(client.get(url).send().await.unwrap()).await;
            (begun.elapsed(), answer)
        });
    }
    load.advance(50).await;
    let mut slowest = Duration::ZERO;
    for (took, answer) in readers.join_all().await {
        slowest = slowest.max(took);
        let told = !answer.header("retry-after").is_empty();
        assert!(answer.status == 503 && told, "{} {}", answer.status, answer.text);
    }
    load.advance(50).await;
    holder.rollback().await.unwrap();
    let begun = Instant::now();
    eventually("lists are served again", Duration::from_secs(30), async || {
        (app.get("/wallets").await.status == 200).then_some(())
    })
    .await;
    println!("100 readers told within {slowest:?}; served again after {:?}", begun.elapsed());
    assert!(slowest < BOUND, "a reader waited {slowest:?}");
    let journal = load.settle().await;
    close(&app, &journal).await;
}
