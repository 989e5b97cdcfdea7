//! Work that is due: by one instance at a time, again after a failure or a kill, set aside in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use wallex::background::jobs::{Done, Handler, Job, Jobs, Parts};
use wallex::background::task;
use wallex::status::{Problem, Status};
use wallex::store::jobs::{self, NewJob};
use wallex::store::{self, Pool};
use wallex::wallet::TenantId;

use crate::projectors::books::Books;
use crate::support::eventually;

const KIND: &str = "test";

/// What a test does with each job: its attempts, and how many run at once.
struct Script {
    attempts: Mutex<BTreeMap<String, Vec<i32>>>,
    running: AtomicU32,
    most: AtomicU32,
    time: Duration,
    act: fn(&Job) -> Result<Done, String>,
}

impl Script {
    fn new(time: Duration, act: fn(&Job) -> Result<Done, String>) -> Arc<Self> {
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { attempts: Mutex::default(), running, most, time, act })
    }

    fn attempts(&self, key: &str) -> Vec<i32> {
        self.attempts.lock().unwrap().get(key).cloned().unwrap_or_default()
    }
}

impl Handler for Script {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Done, String>> {
        async move {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            self.attempts.lock().unwrap().entry(job.key.clone()).or_default().push(job.attempts);
            tokio::time::sleep(self.time).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            (self.act)(job)
        }
        .boxed()
    }

    fn attempts_max(&self) -> i32 {
        3
    }

    fn pauses(&self) -> (Duration, Duration) {
        (Duration::from_millis(20), Duration::from_millis(50))
    }
}

/// An instance's runner.
fn runner(pool: &Pool, owner: &str, script: &Arc<Script>) -> (Jobs, Status) {
    let status = Status::default();
    let handler: Arc<dyn Handler> = Arc::clone(script) as Arc<dyn Handler>;
    let parts = Parts {
        pool: pool.clone(),
        owner: owner.to_owned(),
        status: status.clone(),
        handlers: vec![handler],
        added: Arc::default(),
    };
    (Jobs::new(parts), status)
}

async fn add(pool: &Pool, key: &str) -> bool {
    let mut connection = store::acquire(pool).await.unwrap();
    let job = NewJob { kind: KIND, key, due_at: None, payload: Some(r#"{"n": 1}"#) };
    jobs::add(&mut connection, &TenantId::default_tenant(), job).await.unwrap()
}

async fn left(books: &Books) -> i64 {
    books.count("select count(*) from jobs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_do_each_job_once() {
    let books = Books::open().await;
    let script = Script::new(Duration::from_millis(5), |_| Ok(Done::Finished));
    for n in 0..100 {
        assert!(add(&books.pool, &n.to_string()).await);
    }
    assert!(!add(&books.pool, "7").await, "it is there already");
    let stop = CancellationToken::new();
    let tasks = ["a", "b"].map(|owner| {
        let (jobs, _) = runner(&books.pool, owner, &script);
        tokio::spawn(task::run(jobs, stop.clone()))
    });
    eventually("all jobs are done", Duration::from_secs(30), async || {
        (left(&books).await == 0).then_some(())
    })
    .await;
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(script.attempts(&n.to_string()), [1]);
    }
    assert!(script.most.load(Ordering::SeqCst) > 1, "several run at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_is_tried_again_and_then_set_aside_until_asked_for() {
    let books = Books::open().await;
    let script = Script::new(Duration::ZERO, |job| match job.key.as_str() {
        "hopeless" => Err("never".to_owned()),
        "panics" => panic!("as a fault of its code would"),
        _ if job.attempts < 3 => Err("not yet".to_owned()),
        _ => Ok(Done::Finished),
    });
    for key in ["hopeless", "panics", "late"] {
        add(&books.pool, key).await;
    }
    let stop = CancellationToken::new();
    let (jobs, status) = runner(&books.pool, "a", &script);
    let running = tokio::spawn(task::run(jobs, stop.clone()));
    let dead = "select count(*) from jobs where dead_at is not null";
    eventually("two are set aside", Duration::from_secs(30), async || {
        (books.count(dead).await == 2 && left(&books).await == 2).then_some(())
    })
    .await;
    for key in ["hopeless", "panics", "late"] {
        assert_eq!(script.attempts(key), [1, 2, 3], "{key}");
    }
    eventually("health says so", Duration::from_secs(30), async || {
        let problems = status.snapshot().problems;
        problems.get(&Problem::Jobs).map(|text| assert!(text.contains("2 of test"), "{text}"))
    })
    .await;
    let tenant = TenantId::default_tenant();
    let mut connection = store::acquire(&books.pool).await.unwrap();
    let listed = jobs::list(&mut connection, &tenant, true, 10).await.unwrap();
    let errors: Vec<_> = listed.iter().map(|job| job.last_error.as_deref()).collect();
    assert!(errors.contains(&Some("never")) && errors.contains(&Some("it panicked")), "{errors:?}");
    let asked = jobs::retry(&mut connection, &tenant, KIND, Some("hopeless")).await.unwrap();
    assert_eq!(asked, 1);
    eventually("it was tried again", Duration::from_secs(30), async || {
        (script.attempts("hopeless") == [1, 2, 3, 1, 2, 3]).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_instance_dies_is_due_again_and_the_dead_one_has_no_say() {
    let books = Books::open().await;
    add(&books.pool, "long").await;
    let claim = |owner: &'static str| {
        jobs::claim(&books.pool, owner, &[KIND], 10, Duration::from_millis(300))
    };
    let first = claim("dies").await.unwrap().remove(0);
    assert_eq!((first.attempts, first.payload.as_deref()), (1, Some(r#"{"n": 1}"#)));
    assert_eq!(claim("early").await.unwrap(), [], "one at a time");
    let second = eventually("its time is over", Duration::from_secs(10), async || {
        claim("other").await.unwrap().pop()
    })
    .await;
    assert_eq!(second.attempts, 2, "the attempt was counted before it was made");
    let mut connection = store::acquire(&books.pool).await.unwrap();
    assert!(!jobs::finish(&mut connection, &first).await.unwrap());
    assert!(!jobs::fail(&mut connection, &first, "late", None).await.unwrap());
    let again =
        jobs::postpone(&mut connection, &second, Duration::ZERO, Some("[2]")).await.unwrap();
    assert!(again);
    let third = claim("other").await.unwrap().remove(0);
    assert_eq!((third.attempts, third.payload.as_deref()), (1, Some("[2]")));
    assert!(!jobs::finish(&mut connection, &second).await.unwrap(), "an earlier claim");
    assert!(jobs::finish(&mut connection, &third).await.unwrap());
    assert_eq!(left(&books).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_postponed_runs_again_and_again() {
    let books = Books::open().await;
    let script = Script::new(Duration::ZERO, |_| Ok(Done::Again(Duration::from_millis(1))));
    add(&books.pool, "tick").await;
    let stop = CancellationToken::new();
    let (jobs, _) = runner(&books.pool, "a", &script);
    let running = tokio::spawn(task::run(jobs, stop.clone()));
    eventually("it ran three times", Duration::from_secs(30), async || {
        (script.attempts("tick").len() >= 3).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    assert!(script.attempts("tick").iter().all(|attempt| *attempt == 1));
}
