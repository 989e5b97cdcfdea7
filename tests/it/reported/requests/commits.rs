//! Requests of several operations whose COMMIT is lost, on a service that is killed meanwhile: asked again
//! under the same key until they are settled, each operation takes effect once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{credit, send};
use crate::support::app::{Answer, App, Setup};
use crate::support::proxy::{Fate, Proxy};
use crate::support::{eventually, servers};

const FATES: [Fate; 4] =
    [Fate::Never, Fate::Answered, Fate::Later(Duration::from_millis(300)), Fate::Answered];
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends until nothing of the answer says that it is not settled yet.
async fn settle(app: &App, key: &str, body: &Value) -> Answer {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "{key} is not settled");
        if let Some(answer) = app.post_with_key("/bulk", key, body).await {
            let is_open = |status: u64| status >= 500 || status == 429;
            let json: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let results = json["results"].as_array().cloned().unwrap_or_default();
            let in_flight = json["code"] == "idempotency_key_in_flight";
            let open = results.iter().any(|r| is_open(r["status"].as_u64().unwrap()));
            if !is_open(answer.status.into()) && !open && !in_flight && answer.status != 0 {
                return answer;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulks_whose_commit_is_lost_and_whose_service_is_killed_take_effect_once() {
    const WALLETS: usize = 6;
    const BULKS: usize = 60;
    let proxy = Proxy::with_fates(servers::postgres().port, "wallex-lane", FATES.to_vec()).await;
    let mut app = Setup::without_kafka().through(proxy.port).start().await;
    for n in 0..WALLETS {
        app.open(&format!("w{n}"), "0").await;
    }
    let body = |n: usize| {
        let operations: Vec<Value> =
            (0..WALLETS).map(|at| credit(&format!("w{}", (at + n) % WALLETS), "1.00")).collect();
        json!({"atomic": n.is_multiple_of(2), "operations": operations})
    };
    proxy.lose_commits(3);
    let callers = async {
        let caller = async |caller: usize, app: &App| {
            for n in (caller..BULKS).step_by(4) {
                let answer = settle(app, &format!("k{n}"), &body(n)).await;
                assert_eq!(answer.status, 201, "{}", answer.text);
                let operations = body(n)["operations"].as_array().unwrap().clone();
                let reversed: Vec<Value> = operations.into_iter().rev().collect();
                let other = json!({"atomic": n.is_multiple_of(2), "operations": reversed});
                let refused = settle(app, &format!("k{n}"), &other).await;
                assert_eq!(refused.status, 422, "{}", refused.text);
            }
        };
        join_all((0..4).map(|number| caller(number, &app))).await;
    };
    callers.await;
    assert!(proxy.lost() > 5, "{} answers of COMMITs were lost", proxy.lost());
    // Killed with requests in hand.
    let running: Vec<_> = (BULKS..BULKS + 8)
        .map(|n| {
            let request = app.request(reqwest::Method::POST, "/bulk");
            let request = request.header("idempotency-key", format!("k{n}")).json(&body(n)).send();
            tokio::spawn(async move { drop(request.await) })
        })
        .collect();
    eventually("some are done", PATIENCE, async || {
        let version = "select max(version) > 61 from wallets";
        sqlx::query_scalar::<_, bool>(version).fetch_one(&app.pool).await.ok()?.then_some(())
    })
    .await;
    app.kill(Signal::SIGKILL);
    for running in running {
        running.await.unwrap();
    }
    proxy.lose_commits(0);
    app.restart().await;
    for n in BULKS..BULKS + 8 {
        assert_eq!(settle(&app, &format!("k{n}"), &body(n)).await.status, 201);
    }
    let wrong = "select count(*) from wallets where balance <> $1 or version <> $1 + 1";
    let wrong: i64 =
        sqlx::query_scalar(wrong).bind((BULKS + 8) as i64).fetch_one(&app.pool).await.unwrap();
    assert_eq!(wrong, 0, "each bulk credits every wallet once");
    let again = send(&app, "k1", body(1)["operations"].as_array().unwrap(), false).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    app.drain().await;
    app.assert_reconciled();
}
