//! The checker: reads the journal, PostgreSQL and the topic after a run, works everything out by
//! itself and names what does not hold. It uses no code of the service and trusts none of its
//! answers; a test below makes sure of the first.

#[path = "checker/books.rs"]
mod books;
#[path = "checker/holds.rs"]
mod holds;
#[path = "checker/operations.rs"]
mod operations;
#[path = "checker/stream.rs"]
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;
use sqlx::PgPool;

pub use operations::Figures;

use super::journal::{Journal, Line};
use super::records;

/// Every check, in the order of the report, with what it says when it holds.
pub const CHECKS: [(&str, &str); 43] = [
    ("acknowledged-is-there", "every 2xx is in the events, whole"),
    ("one-effect-per-key", "no operation was done twice"),
    ("refused-left-nothing", "no refusal and no \"not done\" left an effect"),
    ("unknown-is-whole", "what has no answer is wholly there or wholly absent"),
    ("unknown-is-settled", "sent again with its key, everything unknown got a definite answer"),
    ("effects-are-as-asked", "kind, wallet and amount of every effect are those asked for"),
    ("answers-tell-what-happened", "version, balance and transaction of every 2xx are the events'"),
    ("nothing-unasked", "every event was asked for"),
    ("replays-are-equal", "a key's outcome never changes, to the byte"),
    ("not-done-was-not-done", "\"nothing was done\" was true"),
    ("failures-say-what-is-known", "a failure is 429 or 503 with Retry-After, never 500"),
    ("real-time-order", "what ended before another began has the lower version"),
    ("reads-see-acknowledged", "a strong read from any instance sees what was acknowledged"),
    ("wallet-totals-are-asked", "every wallet has what the acknowledged operations left on it"),
    ("keys-are-effects", "every effect with a key has one key, stored with it"),
    ("versions-without-gap", "a wallet's versions are 1..n"),
    ("balances-follow-events", "every event begins where the one before it ended"),
    ("time-follows-versions", "no event is older than the one before it"),
    ("available-never-negative", "no event left less than nothing available"),
    ("held-is-open-holds", "what is held is what open holds promise, after every event"),
    ("holds-close-once", "a hold is placed once, and captured, released or expired once"),
    ("captures-within-holds", "captures stay within their hold, and give the rest back"),
    ("expiry-is-due", "nothing expired early, and nothing was captured late"),
    ("reversals-within-originals", "no more of a transaction is taken back than there was"),
    ("wallets-are-their-events", "every wallet is what its last event left"),
    ("entries-are-events", "every event that moves money has its entries, and nothing else has"),
    ("entries-balance", "entries sum to zero in every event and currency"),
    ("balance-is-sum-of-entries", "every balance is the sum of its wallet's entries"),
    ("read-model-is-wallets", "the read model is the wallets"),
    ("outbox-is-events", "every event has one outbox row, published"),
    ("topic-is-events", "the topic holds every event as it is, and nothing else"),
    ("one-partition-per-wallet", "a wallet's records are in one partition"),
    ("first-occurrences-ascend", "in the topic a wallet's versions first appear as 1..n"),
    (
        "dead-letters-keep-records",
        "every poison record, and nothing else, is a dead letter with its bytes",
    ),
    ("nothing-parked", "no wallet is parked"),
    ("replay-changes-nothing", "projecting the topic again from its start changes no row"),
    ("checkpoints-only-advance", "no checkpoint ever went back"),
    ("versions-only-advance", "no projection of a wallet ever went back to an older version"),
    ("stale-owner-writes-nothing", "no instance wrote under a lease that another had taken"),
    ("kafka-fails-no-command", "with faults of Kafka alone, every command got its answer"),
    ("nobody-deadlocks", "PostgreSQL never had to break a deadlock"),
    ("nothing-panics", "no instance's log has a panic"),
    ("recovers-by-itself", "served after every fault, came to rest, left no transaction open"),
];

/// What was found, by check.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many things each check looked at.
    pub examined: BTreeMap<&'static str, u64>,
    pub red: BTreeMap<&'static str, Vec<String>>,
}

impl Findings {
    pub fn examined(&mut self, check: &'static str, count: usize) {
        known(check);
        *self.examined.entry(check).or_default() += count as u64;
    }

    pub fn red(&mut self, check: &'static str, what: String) {
        known(check);
        self.red.entry(check).or_default().push(what);
    }

    /// Ends the test where something does not hold.
    #[track_caller]
    pub fn assert_none(&self, about: &dyn std::fmt::Debug) {
        let named = self.red.iter().flat_map(|(name, all)| all.iter().map(move |w| (name, w)));
        let shown: Vec<String> = named.map(|(name, what)| format!("{name}: {what}")).collect();
        let (count, first) = (shown.len(), shown.iter().take(20).cloned().collect::<Vec<_>>());
        assert!(shown.is_empty(), "{count} contradictions:\n{}\n{about:?}", first.join("\n"));
    }
}

fn known(check: &str) {
    assert!(CHECKS.iter().any(|(name, _)| *name == check), "{check} is no check");
}

/// An event as it lies in the table.
#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub wallet: String,
    pub version: i64,
    pub kind: String,
    pub payload: Value,
    pub transaction: String,
    /// Amounts in cents.
    pub change: i64,
    pub after: i64,
}

/// What a check of everything needs.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub journal: &'a Journal,
    pub pool: &'a PgPool,
    pub bootstrap: &'a str,
    pub topic: &'a str,
}

/// Checks everything that journal, tables and topic can be held against each other for.
pub async fn check(evidence: &Evidence<'_>, findings: &mut Findings) -> Figures {
    let lines = evidence.journal.lines();
    let events = events(evidence.pool).await;
    let mut figures = operations::check(&lines, &events, evidence.pool, findings).await;
    books::check(evidence.pool, &lines, findings).await;
    holds::check(evidence.pool, &events, findings).await;
    let last = records::read(evidence.bootstrap, evidence.topic).await;
    stream::check(&lines, last, &events, &mut figures, findings);
    figures
}

/// The journal held against the events, and those against each other: what holds at any time.
pub async fn check_events(pool: &PgPool, lines: &[Line]) -> (Figures, Findings) {
    let mut findings = Findings::default();
    let figures = operations::check(lines, &events(pool).await, pool, &mut findings).await;
    books::check_events(pool, &mut findings).await;
    (figures, findings)
}

/// The same, ending the test where there is a contradiction.
pub async fn assert_events(pool: &PgPool, lines: &[Line]) -> Figures {
    let (figures, findings) = check_events(pool, lines).await;
    findings.assert_none(&figures);
    figures
}

/// A topic into which nothing else was put, held against the events.
pub async fn check_topic(pool: &PgPool, bootstrap: &str, topic: &str) -> (Figures, Findings) {
    let (mut figures, mut findings) = (Figures::default(), Findings::default());
    let read = records::read(bootstrap, topic).await;
    stream::check(&[], read, &events(pool).await, &mut figures, &mut findings);
    (figures, findings)
}

async fn events(pool: &PgPool) -> Vec<Event> {
    let rows: Vec<(String, String, i64, String, String, String)> = sqlx::query_as(
        "select event_id::text, wallet_id, version, event_type, payload::text, \
         transaction_id::text from events order by wallet_id, version",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let event = |(id, wallet, version, kind, payload, transaction)| {
        let payload: Value = serde_json::from_str(&String::clone(&payload)).unwrap();
        let amount = |name: &str| cents(&payload[name]).unwrap_or(i64::MIN / 4);
        let after = amount("newBalance");
        let change = amount("changeAmount");
        let change = if payload["changeType"] == "DEBIT" { -change } else { change };
        Event { id, wallet, version, kind, payload, transaction, change, after }
    };
    rows.into_iter().map(event).collect()
}

/// Events by their ids.
fn by_id(events: &[Event]) -> HashMap<&str, &Event> {
    events.iter().map(|event| (event.id.as_str(), event)).collect()
}

/// A decimal's text in cents; none where it has more than two decimals or is no decimal.
pub fn cents(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = format!("{part:0<2}");
    let (part, rest) = part.split_at(2);
    let cents = whole.parse::<i64>().ok()? * 100 + part.parse::<i64>().ok()?;
    rest.bytes().all(|digit| digit == b'0').then_some(sign * cents)
}

#[test]
fn the_checker_shares_no_code_with_the_service() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos");
    let checker = ["books.rs", "holds.rs", "operations.rs", "stream.rs"];
    let files = checker.map(|file| format!("checker/{file}"));
    let more = ["ask.rs", "checker.rs", "journal.rs", "records.rs", "watch.rs"];
    for file in files.into_iter().chain(more.map(str::to_owned)) {
        let text = std::fs::read_to_string(folder.join(&file)).unwrap();
        let word = ["wallex", "::"].concat();
        assert!(!text.contains(&word), "{file}");
    }
}
