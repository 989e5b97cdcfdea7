//! Topics that a platform team made, or that come back, and clusters that are shared.

mod commands;
mod counts;
mod deployments;
mod first_start;
mod made_by_broker;
mod sizes;

use std::time::Duration;

use serde_json::Value;

use crate::support::app::App;
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::now_v7().simple())
}

async fn open_many(app: &App, prefix: &str, count: usize) {
    for number in 0..count {
        app.open(&format!("{prefix}-{number}"), "5.00").await;
    }
}

async fn hashed_over(app: &App) -> i32 {
    sqlx::query_scalar("select partitions from topics where name = $1")
        .bind(&app.topic)
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

/// Starts the service where it must not start: what it said.
async fn refused(app: &mut App) -> String {
    let before = app.log_text().len();
    app.spawn();
    eventually("the start is refused", PATIENCE, async || app.exited()).await;
    app.log_text()[before..].to_owned()
}

async fn health(app: &App) -> Value {
    app.get("/health/kafka").await.json()
}

/// What the health page says that somebody has to do about the topic.
async fn problem(app: &App) -> Option<String> {
    let health = health(app).await;
    let reasons = health["reasons"].as_array()?.iter().filter_map(Value::as_str);
    { reasons }.find(|reason| reason.contains("KAFKA_EVENTS_TOPIC")).map(str::to_owned)
}

async fn dead_letters(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from dead_letters").fetch_one(&app.pool).await.unwrap()
}
