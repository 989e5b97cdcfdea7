//! All projections in one pass: one transaction for both while both are well, each by itself while one is not.

use std::time::{Duration, Instant};

use sqlx::Executor as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wallex::projector::Projection;
use wallex::store::Pool;

use super::books::{Books, credit, some_history, transfer};
use crate::support::app::Setup;
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the projectors of an instance until the token is cancelled.
fn run(books: &Books) -> (CancellationToken, JoinHandle<()>) {
    let token = CancellationToken::new();
    let task = tokio::spawn(books.projectors(500, &books.pool).run(token.clone()));
    (token, task)
}

async fn in_step(books: &Books) {
    eventually("both projections are in step", PATIENCE, async || {
        let lag = books.report().await.lag;
        lag.iter().all(|lag| lag.events == 0).then_some(())
    })
    .await;
}

/// Waits until a credit is in both tables by one transaction.
async fn together(books: &mut Books, wallet: &str) {
    let begun = Instant::now();
    loop {
        books.write(&[credit(wallet, "0.01")]).await;
        in_step(books).await;
        let same = "select count(*) from wallets_read_model m join postings p \
             on p.wallet_id = m.id and p.version = m.version and p.xmin = m.xmin where m.id = ";
        let same: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{same}'{wallet}'")))
            .fetch_one(&books.pool)
            .await
            .unwrap();
        if same == 1 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "they do not work together");
    }
}

async fn version(books: &Books, projector: &str, wallet: &str) -> i64 {
    sqlx::query_scalar(
        "select coalesce(max(version), 0) from projected_versions \
         where projector = $1 and wallet_id = $2",
    )
    .bind(projector)
    .bind(wallet)
    .fetch_one(&books.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_apply_an_event_in_one_transaction_and_apart_while_one_of_them_fails() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let (token, task) = run(&books);
    in_step(&books).await;
    together(&mut books, "w1").await;

    // The ledger's table is not there for a while: the read model goes on.
    books.pool.execute("alter table postings rename to postings_away").await.unwrap();
    books.write(&[credit("w2", "1"), transfer("w3", "w4", "1")]).await;
    let [ledger, model] = Projection::ALL.map(|kind| kind.name);
    let expected = books.wallets[&super::books::id("w4")].version;
    eventually("the read model goes on", PATIENCE, async || {
        (version(&books, model, "w4").await == expected).then_some(())
    })
    .await;
    assert_eq!(version(&books, ledger, "w4").await, expected - 1);
    books.pool.execute("alter table postings_away rename to postings").await.unwrap();
    in_step(&books).await;
    together(&mut books, "w5").await;
    token.cancel();
    task.await.unwrap();
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_harms_one_projection_parks_its_wallet_there_and_nowhere_else() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let (token, task) = run(&books);
    in_step(&books).await;
    together(&mut books, "w1").await;
    let mut poison = books.pool.clone().begin().await.unwrap();
    books.write_in(&mut poison, &[credit("w2", "1"), credit("w3", "1")]).await;
    let version_of_w2 = books.wallets[&super::books::id("w2")].version;
    // Only a check of the ledger's table finds it.
    let spoil = "update events set payload = jsonb_set(payload::jsonb, '{changeAmount}', '\"0\"')::json \
         where wallet_id = 'w2' and version = $1";
    sqlx::query(spoil).bind(version_of_w2).execute(&mut *poison).await.unwrap();
    poison.commit().await.unwrap();
    in_step(&books).await;
    let parked: Vec<(String, String, i64)> =
        sqlx::query_as("select projector, wallet_id, version from parked_wallets")
            .fetch_all(&books.pool)
            .await
            .unwrap();
    let [ledger, model] = Projection::ALL.map(|kind| kind.name);
    assert_eq!(parked, [(ledger.to_owned(), "w2".to_owned(), version_of_w2)]);
    assert_eq!(version(&books, model, "w2").await, version_of_w2);
    assert_eq!(version(&books, ledger, "w2").await, version_of_w2 - 1);
    // A wallet that is parked in one of them keeps nothing else apart.
    together(&mut books, "w4").await;
    token.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_each_event_has_its_effects_once() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    for round in 0_u64..25 {
        let pool = Pool::connect(books.url()).await.unwrap();
        let task = tokio::spawn(books.projectors(500, &pool).run(CancellationToken::new()));
        for i in 0..20 {
            let to = format!("w{}", (i + 3) % 20);
            let from = format!("w{i}");
            books.write(&[credit(&from, "0.01"), transfer(&from, &to, "0.01")]).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 17 % 120)).await;
        task.abort();
        let _ = task.await;
        pool.close().await;
    }
    let (token, task) = run(&books);
    in_step(&books).await;
    together(&mut books, "w1").await;
    token.cancel();
    task.await.unwrap();
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_the_work_and_have_one_effect() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let (token, task) = run(&books);
    // The same owner of the leases: both have all partitions, and meet at every lock.
    let other = tokio::spawn(books.projectors(50, &books.pool).run(token.clone()));
    for round in 0..30 {
        let command = |i: usize| match (i + round) % 3 {
            0 => transfer(&format!("w{i}"), &format!("w{}", (i + 1) % 20), "0.10"),
            _ => credit(&format!("w{i}"), "0.01"),
        };
        books.write(&(0..20).map(command).collect::<Vec<_>>()).await;
    }
    in_step(&books).await;
    token.cancel();
    task.await.unwrap();
    other.await.unwrap();
    books.assert_clean().await;
    assert_eq!(books.count("select count(*) from parked_wallets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_noted_a_few_times_a_second_and_at_the_end() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    let (token, task) = run(&books);
    in_step(&books).await;
    together(&mut books, "w1").await;
    let watch = "create table noted (projector text, partition int); \
         create function note_checkpoint() returns trigger language plpgsql as $$ begin \
             insert into noted values (new.projector, new.partition); return new; end $$; \
         create trigger noted before update on projector_checkpoints \
             for each row execute function note_checkpoint()";
    books.pool.execute(watch).await.unwrap();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        books.write(&[credit("w1", "0.01"), credit("w2", "0.01")]).await;
        books.commits.notify_one();
        rounds += 1;
    }
    let seconds = begun.elapsed().as_secs_f64().ceil();
    in_step(&books).await;
    token.cancel();
    task.await.unwrap();
    let most = "select coalesce(max(n), 0) from \
         (select count(*) as n from noted group by projector, partition) n";
    let noted = books.count(most).await;
    println!("{rounds} commits, a place was noted {noted} times at most");
    // One for each 200 ms, and one at the end.
    assert!(noted > 0 && (noted as f64) <= 5.0 * (seconds + 1.0) + 1.0, "{noted} in {seconds} s");
    let behind = "select count(*) from events e join projector_checkpoints c using (partition) \
         where e.commit_xid >= c.feed_xid";
    assert_eq!(books.count(behind).await, 0, "all is noted once they have stopped");
    books.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_instance_committed_is_not_read_again() {
    let app = Setup::shared().start().await;
    for number in 0..20 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    for number in 0..100 {
        let path = format!("/wallets/w-{}/credit", number % 20);
        let answer = app.post(&path, serde_json::json!({"amount": "1.00"})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    app.drain().await;
    let events: i64 =
        sqlx::query_scalar("select count(*) from events").fetch_one(&app.pool).await.unwrap();
    let metrics = app.get("/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix("projections_events_read_total "));
    let read: i64 = line.map_or(0, |count| count.trim().parse().unwrap());
    // A busy machine may let the feed from Postgres take over for moments; both projections share that reading.
    assert!(read <= events, "{read} of {events} events were read again");
    println!("{read} of {events} events were read");
    app.assert_reconciled();
}
