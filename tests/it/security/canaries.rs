//! Secrets that were planted are found in nothing that the service says, at its most talkative.

use std::time::Duration;

use super::broker::{PASSWORD, WRONG_PASSWORD, secured, with};
use crate::support::app::App;
use crate::support::eventually;

const DATABASE_CANARY: &str = "canary-Db5Password";

/// Everything that a running service shows to anybody, with its name.
async fn said_by(app: &App) -> Vec<(String, String)> {
    let mut said = vec![("log".to_owned(), app.log_text())];
    for page in ["/metrics", "/health/kafka", "/health/kafka/stats", "/api/health", "/nowhere"] {
        said.push((page.to_owned(), app.get(page).await.text));
    }
    for command in [
        &["config", "print"][..],
        &["config", "print", "--json"],
        &["config", "check"],
        &["verify-kafka"],
        &["verify-kafka", "--json"],
        &["outbox", "status"],
    ] {
        let output = app.wallex(command);
        let text = [output.stdout, output.stderr].concat();
        said.push((command.join(" "), String::from_utf8_lossy(&text).into_owned()));
    }
    said
}

fn assert_no_canary(said: &[(String, String)]) {
    for (name, text) in said {
        for canary in [PASSWORD, WRONG_PASSWORD, DATABASE_CANARY] {
            assert!(!text.contains(canary), "{name} shows {canary}:\n{text}");
        }
    }
}

#[tokio::test]
async fn no_log_metric_answer_or_list_of_settings_shows_a_secret() {
    let secured = secured();
    for mechanism in ["plain", "scram-sha-512"] {
        let setup = secured.setup(&secured.kind(false, Some(mechanism)));
        let mut app = setup.with("LOG_LEVEL", "trace").start().await;
        let url = app.database_url.replace("postgres@", &format!("postgres:{DATABASE_CANARY}@"));
        assert!(url.contains(DATABASE_CANARY), "{url}");
        app.set("DATABASE_URL", url);
        app.restart().await;
        app.open("w-1", "1.00").await;
        app.drain().await;
        let said = said_by(&app).await;
        assert_no_canary(&said);
        let printed = &said.iter().find(|(name, _)| name == "config print").unwrap().1;
        assert!(printed.contains("KAFKA_SASL_PASSWORD=[redacted]"), "{printed}");
        assert!(printed.contains("postgres:[redacted]@"), "{printed}");

        app.set("KAFKA_SASL_PASSWORD", WRONG_PASSWORD);
        app.restart().await;
        eventually("the refusal is shown", Duration::from_secs(60), async || {
            let health = app.get("/health/kafka").await.json();
            health["kafka"]["error"].as_str()?.starts_with("auth: ").then_some(())
        })
        .await;
        assert_no_canary(&said_by(&app).await);
    }
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_without_its_secret() {
    let variables = with(secured().kind(false, Some("plain")), "KAFKA_SASL_USERNAME", "");
    let output = super::broker::wallex(&variables, &["config", "check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("KAFKA_SASL_USERNAME") && !said.contains(PASSWORD), "{said}");
}
