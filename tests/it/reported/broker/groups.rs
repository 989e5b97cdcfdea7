//! A group that somebody deletes with Kafka's own tools comes back whole, and that is no reset.

use std::time::{Duration, Instant};

use crate::groups::{described_of, tool};
use crate::support::app::{App, Setup};
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// As a person waits who looks whether it is back.
const SOON: Duration = Duration::from_secs(15);

/// The group's offsets, as the tool shows them, are the places of Postgres: all ten of them.
async fn is_whole(app: &App, projector: &str, patience: Duration) {
    let group = app.group(projector);
    let places: Vec<i64> = sqlx::query_scalar(
        "select next_offset from projector_checkpoints where projector = $1 order by partition",
    )
    .bind(projector)
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(places.len(), 10);
    eventually("the group is whole", patience, async || {
        let offsets: Vec<i64> =
            described_of(&group, &app.topic).into_values().map(|[current, ..]| current).collect();
        (offsets == places).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_deleted_with_the_tools_is_whole_again_within_seconds_while_nothing_moves() {
    let app = Setup::shared().start().await;
    // Some of the ten partitions never get a record.
    for number in 0..4 {
        app.open(&format!("w-{number}"), "1.00").await;
    }
    app.drain().await;
    let ledger = app.group("ledger-projector");
    for projector in ["ledger-projector", "read-model-projector"] {
        is_whole(&app, projector, PATIENCE).await;
    }
    let commands: [&[&str]; 2] = [
        &["--delete", "--group", &ledger],
        &["--delete-offsets", "--topic", &app.topic, "--group", &ledger],
    ];
    for command in commands {
        let said = tool(command);
        let begun = Instant::now();
        is_whole(&app, "ledger-projector", SOON).await;
        println!("{command:?}: {}; whole after {:?}", said.trim(), begun.elapsed());
    }
    // Deleted while nobody looks, and while others move.
    let mut app = app;
    assert!(tokio::task::block_in_place(|| app.stop()).success());
    tool(&["--delete", "--group", &ledger]);
    app.spawn();
    app.ready().await;
    is_whole(&app, "ledger-projector", PATIENCE).await;
    app.open("w-9", "1.00").await;
    tool(&["--delete", "--group", &ledger]);
    app.drain().await;
    is_whole(&app, "ledger-projector", SOON).await;
    is_whole(&app, "read-model-projector", SOON).await;

    let resets: i64 = sqlx::query_scalar("select count(*) from consumer_resets")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(resets, 0, "a deletion is no reset");
    // A reset right behind a deletion is one.
    tool(&["--delete", "--group", &ledger]);
    let reset = ["--reset-offsets", "--group", &ledger, "--topic", &app.topic, "--execute"];
    tool(&[&reset[..], &["--to-earliest"]].concat());
    eventually("the reset is honoured", PATIENCE, async || {
        let honoured: i64 = sqlx::query_scalar(
            "select count(*) from consumer_resets where honoured and from_offset > to_offset",
        )
        .fetch_one(&app.pool)
        .await
        .ok()?;
        (honoured > 0).then_some(())
    })
    .await;
    app.drain().await;
    app.assert_reconciled();
}
