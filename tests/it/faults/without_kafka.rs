//! Without Kafka the same load ends with the same books, fed from Postgres.

use super::close;
use crate::support::app::Setup;
use crate::support::load::{Load, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_the_ledger_and_the_outbox_are_complete() {
    let app = Setup::without_kafka().start().await;
    let load = Load::start(&[&app.base], Plan::default()).await;
    load.advance(600).await;
    let journal = load.settle().await;
    let figures = close(&app, &journal).await;
    let (rows, published): (i64, i64) =
        sqlx::query_as("select count(*), count(*) filter (where published) from outbox")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!(rows, figures.events as i64, "a row for each event");
    assert_eq!(published, 0, "nothing was sent, and nothing says that it was");
    println!("{figures:?}");
}
