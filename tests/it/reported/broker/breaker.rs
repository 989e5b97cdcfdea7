//! While the breaker is open nobody connects to the brokers but its probe, whatever else the service
//! would like to know of Kafka: seen from the brokers' side, connection by connection.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::fake::{Fake, Way};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

const PATIENCE: Duration = Duration::from_secs(60);

/// What was begun before it opened has ended within this.
const BEGUN: Duration = Duration::from_millis(500);

impl Fake {
    /// Since it opened there was a connection for each probe, and no other. A probe may take `each`,
    /// and the next one is counted from its end.
    async fn assert_probes_only(&self, who: &str, opened: Instant, each: Duration, last: Duration) {
        tokio::time::sleep_until((opened + last).into()).await;
        // A probe that had begun when it opened is the first of them.
        let found = [1.0, 2.0].map(|first| self.probes_only(who, opened, first, each, last));
        assert!(found.iter().any(Result::is_ok), "{found:?}");
    }

    fn probes_only(
        &self,
        who: &str,
        opened: Instant,
        first: f64,
        each: Duration,
        last: Duration,
    ) -> Result<(), String> {
        let met = self.taken().into_iter().filter(|at| *at > opened + BEGUN);
        let met: Vec<f64> = met.map(|at| (at - opened).as_secs_f64()).collect();
        let mut due = Vec::new();
        let (mut next, mut pause) = (first, first);
        while next + 0.5 < last.as_secs_f64() {
            due.push(next);
            pause = (pause * 2.0).min(10.0);
            next += each.as_secs_f64() + pause;
        }
        println!("{who}: probes due {due:.1?}, connections {met:.1?}");
        // A busy machine is late, now and then more with each.
        let fits = |(due, met): (&f64, &f64)| (due - 0.3..due + 1.5).contains(met);
        match met.len() == due.len() && due.iter().zip(&met).all(fits) {
            true => Ok(()),
            false => Err(format!("{who}: due {due:.1?}, met {met:.1?}")),
        }
    }
}

/// All that the service might ask Kafka has a reason: commands, a second destination, a dead letter.
async fn curious(setup: Setup, first: &Fake, second: &Fake) -> App {
    let app = setup
        .with_commands()
        .with("KAFKA_BROKERS", &first.address)
        .with("KAFKA_SECOND_BROKERS", &second.address)
        .with("KAFKA_CONNECTION_TIMEOUT", 500)
        .start()
        .await;
    sqlx::query(
        "insert into dead_letters \
             (tenant_id, projectors, topic, partition, \"offset\", record_hash, error_class, \
              error_message) \
         values ('default', '{ledger-projector}', $1, 0, 0, '', 'undecodable', 'a test')",
    )
    .bind(&app.topic)
    .execute(&app.pool)
    .await
    .unwrap();
    app.open("w", "1.00").await;
    app
}

async fn opened(app: &App) -> Instant {
    eventually("the breaker is open", PATIENCE, async || {
        let health = app.get("/health/kafka").await.json();
        (health["breaker"]["state"] == "open").then(Instant::now)
    })
    .await
}

/// When it opened because of this fake: its first connection since then failed, `after` a while.
async fn opened_to(fake: &Fake, since: Instant, after: Duration) -> Instant {
    let first = eventually("a first connection", PATIENCE, async || {
        fake.taken().into_iter().filter(|at| *at > since).min()
    });
    first.await + after
}

/// The first failure opens it: from the first connection on, everybody but the probe keeps away.
#[tokio::test(flavor = "multi_thread")]
async fn breaker_open_from_the_start_only_probes_connect() {
    let begun = Instant::now();
    let (closing, silent) = (Fake::new(Way::Closes), Fake::new(Way::Silent));
    let setup = Setup::shared().with("KAFKA_BREAKER_FAILURES", 1);
    let app = curious(setup, &closing, &silent).await;
    // Whether the destinations have changed sides has to be asked before anything is published.
    let (asking, aside) = (Fake::new(Way::Closes), Fake::new(Way::Closes));
    let setup = Setup::shared().with("KAFKA_BREAKER_FAILURES", 1);
    let mut swapped = curious(setup, &asking, &aside).await;
    swapped.kill(Signal::SIGKILL);
    sqlx::query(
        "insert into second_destinations (tenant_id, topic, topic_id, first_topic, from_xid) \
         values ('default', $1, '00000000-0000-0000-0000-000000000001', 'other', '0')",
    )
    .bind(&swapped.topic)
    .execute(&swapped.pool)
    .await
    .unwrap();
    let since = Instant::now();
    swapped.restart().await;
    let lasts = Duration::from_secs(9);
    let silence = Duration::from_millis(500);
    let at_once = opened_to(&closing, begun, Duration::ZERO).await;
    let of_silent = opened_to(&silent, begun, silence).await;
    let of_asking = opened_to(&asking, since, Duration::ZERO).await;
    tokio::join!(
        closing.assert_probes_only("first, closing", at_once, Duration::ZERO, lasts),
        silent.assert_probes_only("second, silent", of_silent, silence, lasts),
        asking.assert_probes_only("with sides to settle", of_asking, Duration::ZERO, lasts),
    );
    for app in [app, swapped] {
        let health = app.get("/health/kafka").await.json();
        assert_eq!(health["breaker"]["state"], "open", "{health}");
    }
}

/// Everybody has a session with the broker, when it dies and something else takes its port.
#[tokio::test(flavor = "multi_thread")]
async fn breaker_open_after_the_broker_died_sessions_of_before_do_not_connect_either() {
    let kafka = servers::own_kafka();
    let app = Setup::on(servers::postgres(), Some(&kafka)).with_commands().start().await;
    app.open("w", "1.00").await;
    app.drain().await;
    eventually("everybody has looked", PATIENCE, async || {
        let stats = app.get("/health/kafka/stats").await.json();
        let groups = stats["groups"].as_object()?;
        let copying = groups.values().filter(|group| group["offsets"]["watched"] == true).count();
        (copying == 3 && stats["cluster"]["topics"].as_array()?.len() == 8).then_some(())
    })
    .await;
    kafka.kill(Signal::SIGKILL).unwrap();
    let listener = eventually("the port is free", PATIENCE, async || {
        TcpListener::bind(("127.0.0.1", kafka.port)).ok()
    })
    .await;
    let fake = Fake::over(listener, Way::Closes);
    app.open("meanwhile", "1.00").await;
    let opened = opened(&app).await;
    fake.assert_probes_only("after a broker", opened, Duration::ZERO, Duration::from_secs(9)).await;
}

/// As it was reported: 105 s, with the default settings.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "105 s; scripts/test --full"]
async fn breaker_open_for_105_seconds_only_probes_connect() {
    let (closing, other) = (Fake::new(Way::Closes), Fake::new(Way::Closes));
    let app = curious(Setup::shared(), &closing, &other).await;
    let opened = opened(&app).await;
    let lasts = Duration::from_secs(105);
    closing.assert_probes_only("105 s", opened, Duration::ZERO, lasts).await;
}
