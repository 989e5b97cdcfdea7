//! Holds and reversals by the events alone: what is held is what open holds promise, a hold closes
//! once and gives no more than it may, and no more of a transaction is taken back than there was.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sqlx::PgPool;

use super::{Event, Findings, cents};

/// A hold as its events left it, in cents.
#[derive(Debug, Default)]
struct Hold {
    amount: i64,
    most: i64,
    captured: i64,
    closed: Option<String>,
    placed: bool,
}

impl Hold {
    fn remaining(&self) -> i64 {
        if self.closed.is_some() { 0 } else { (self.amount - self.captured).max(0) }
    }
}

pub async fn check(pool: &PgPool, events: &[Event], findings: &mut Findings) {
    let mut holds: HashMap<String, Hold> = HashMap::new();
    let (mut wallet, mut limit, mut balance, mut held) = ("", 0, 0, 0);
    for event in events {
        if event.wallet != wallet {
            (wallet, balance, held) = (&event.wallet, 0, 0);
            limit = cents(&event.payload["overdraftLimit"]).unwrap_or(0);
        }
        balance += event.change;
        if let Some(id) = event.payload["holdId"].as_str() {
            let hold = holds.entry(id.to_owned()).or_default();
            let before = hold.remaining();
            for what in step(hold, event) {
                findings.red(what, format!("hold {id}: {event:?}"));
            }
            held += hold.remaining() - before;
        }
        state(event, balance, held, limit, findings);
    }
    findings.examined("holds-close-once", holds.len());
    findings.examined("captures-within-holds", holds.len());
    table(pool, &holds, findings).await;
    reversals(events, findings);
}

/// One event of a hold; the checks that it contradicts.
fn step(hold: &mut Hold, event: &Event) -> Vec<&'static str> {
    let amount = |name: &str| cents(&event.payload[name]).unwrap_or(i64::MIN / 4);
    let mut wrong = Vec::new();
    let is_new = event.kind == "WalletHoldPlaced";
    if hold.placed == is_new || hold.closed.is_some() {
        wrong.push("holds-close-once");
    }
    match event.kind.as_str() {
        "WalletHoldPlaced" | "WalletHoldAdjusted" => {
            (hold.amount, hold.most) = (amount("holdAmount"), amount("maxCapture"));
            hold.placed = true;
        }
        "WalletHoldCaptured" => {
            let remaining = hold.remaining();
            hold.captured -= event.change;
            let left = (remaining + event.change).max(0);
            let last = event.payload["holdStatus"] != "open";
            let fits = hold.captured <= hold.most
                && hold.captured == amount("capturedTotal")
                && amount("releasedAmount") == if last { left } else { 0 };
            if !fits {
                wrong.push("captures-within-holds");
            }
            if last {
                hold.closed = Some("capture".to_owned());
            }
        }
        "WalletHoldReleased" | "WalletHoldExpired" => {
            if amount("releasedAmount") != hold.remaining() {
                wrong.push("captures-within-holds");
            }
            let by = if event.kind == "WalletHoldReleased" { "release" } else { "expiry" };
            hold.closed = Some(by.to_owned());
        }
        _ => wrong.push("holds-close-once"),
    }
    wrong
}

/// What an event says of its wallet is what its holds come to.
fn state(event: &Event, balance: i64, held: i64, limit: i64, findings: &mut Findings) {
    findings.examined("held-is-open-holds", 1);
    let said = event.payload.get("heldBalance").map_or(Some(0), cents);
    let available = event.payload.get("availableBalance").and_then(cents);
    if said != Some(held) || available.is_some_and(|said| said != balance - held + limit) {
        let what = format!("{held} cents are on hold, {balance} there: {event:?}");
        findings.red("held-is-open-holds", what);
    }
    if balance - held + limit < 0 {
        let what = format!("{} version {}", event.wallet, event.version);
        findings.red("available-never-negative", what);
    }
}

/// Holds and wallets as they are kept are as their events say.
async fn table(pool: &PgPool, holds: &HashMap<String, Hold>, findings: &mut Findings) {
    let rows: Vec<(String, String, String, Option<String>)> =
        sqlx::query_as("select id::text, amount::text, captured::text, closed_by::text from holds")
            .fetch_all(pool)
            .await
            .unwrap();
    findings.examined("held-is-open-holds", rows.len());
    if rows.len() != holds.len() {
        let what = format!("{} holds are kept, events have {}", rows.len(), holds.len());
        findings.red("held-is-open-holds", what);
    }
    for (id, amount, captured, closed) in rows {
        let text = |text: String| cents(&Value::String(text));
        let same = holds.get(&id).is_some_and(|hold| {
            (text(amount), text(captured)) == (Some(hold.amount), Some(hold.captured))
                && closed == hold.closed
        });
        if !same {
            findings
                .red("held-is-open-holds", format!("hold {id}: events say {:?}", holds.get(&id)));
        }
    }
}

/// Of each wallet's part in a transaction, no more is taken back than there was.
fn reversals(events: &[Event], findings: &mut Findings) {
    let mut moved: HashMap<(&str, &str), i64> = HashMap::new();
    let mut back: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for event in events {
        let wallet = event.wallet.as_str();
        match event.payload["reversesTransactionId"].as_str() {
            Some(original) => *back.entry((original, wallet)).or_default() += event.change,
            None => *moved.entry((&event.transaction, wallet)).or_default() += event.change,
        }
    }
    findings.examined("reversals-within-originals", back.len());
    for (part, back) in back {
        let moved = moved.get(&part).copied().unwrap_or(0);
        if back.signum() == moved.signum() || back.abs() > moved.abs() {
            let what = format!("{part:?} moved {moved} cents, and back {back}");
            findings.red("reversals-within-originals", what);
        }
    }
}
