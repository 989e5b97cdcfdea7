//! The journal of a load held against the database. Reads Postgres directly and works everything
//! out by itself: it shares no code with the service, and trusts none of its answers.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde_json::Value;
use sqlx::PgPool;

use super::load::{Ask, Op, Outcome, money};

/// What a load came to, for whoever reads the test's output.
#[derive(Debug, Default)]
pub struct Figures {
    pub operations: usize,
    pub done: usize,
    pub refused: usize,
    /// Operations that were once unknown: all of them, those found done, those found not done.
    pub unknown: usize,
    pub unknown_done: usize,
    pub unknown_absent: usize,
    /// Answers that said "nothing was done, send it again".
    pub not_done_answers: usize,
    pub events: usize,
}

#[derive(Debug)]
struct Event {
    wallet: String,
    version: i64,
    kind: String,
    payload: Value,
    transaction: String,
}

/// Everything that the database and the journal say against each other.
pub async fn contradictions(pool: &PgPool, ops: &[Op]) -> (Figures, Vec<String>) {
    let rows: Vec<(String, i64, String, String, String)> = sqlx::query_as(
        "select wallet_id, version, event_type, payload::text, transaction_id::text from events \
         order by wallet_id, version",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let events: Vec<Event> = rows
        .into_iter()
        .map(|(wallet, version, kind, payload, transaction)| {
            let payload = serde_json::from_str(&payload).unwrap();
            Event { wallet, version, kind, payload, transaction }
        })
        .collect();
    let mut found = Vec::new();
    let owners = transactions(&events, &mut found);
    let by_key = by_key(&owners, &events);
    for op in ops {
        effect(op, by_key.get(op.key.as_str()).map_or(&[][..], Vec::as_slice), &mut found);
        answers(op, &mut found);
    }
    let known: HashMap<&str, &Op> = ops.iter().map(|op| (op.key.as_str(), op)).collect();
    for key in by_key.keys().filter(|key| !known.contains_key(*key)) {
        found.push(format!("foreign: nobody asked for {key}"));
    }
    chains(&events, &mut found);
    real_time(&events, &owners, &known, &mut found);
    balances(pool, ops, &mut found).await;
    keys(pool, ops, &mut found).await;
    (figures(ops, events.len()), found)
}

/// The same, ending the test where there is a contradiction.
pub async fn assert_true(pool: &PgPool, ops: &[Op]) -> Figures {
    let (figures, found) = contradictions(pool, ops).await;
    let shown: Vec<&str> = found.iter().map(String::as_str).take(20).collect();
    assert!(found.is_empty(), "{} contradictions:\n{}\n{figures:?}", found.len(), shown.join("\n"));
    figures
}

/// The key behind each transaction: from the reference of a movement or the owner of a new wallet.
fn transactions<'a>(events: &'a [Event], found: &mut Vec<String>) -> HashMap<&'a str, &'a str> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for event in events {
        let field = if event.kind == "WalletCreated" { "ownerId" } else { "reference" };
        let Some(key) = event.payload[field].as_str() else { continue };
        if owners.insert(&event.transaction, key).is_some_and(|before| before != key) {
            found.push(format!("mixed: transaction {} has two keys", event.transaction));
        }
    }
    owners
}

fn by_key<'a>(
    owners: &HashMap<&'a str, &'a str>,
    events: &'a [Event],
) -> BTreeMap<&'a str, Vec<&'a Event>> {
    let mut by_key: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let key = owners.get(event.transaction.as_str()).copied();
        by_key.entry(key.unwrap_or("(no key)")).or_default().push(event);
    }
    by_key
}

/// An operation that was acknowledged is there once, as asked and as answered; another one is not.
fn effect(op: &Op, events: &[&Event], found: &mut Vec<String>) {
    let Op { key, ask, .. } = op;
    let Some(answer) = op.done() else {
        if !op.is_definite() {
            found.push(format!("unsettled: {key} {ask:?}"));
        } else if !events.is_empty() {
            found.push(format!("refused but done: {key} {ask:?}"));
        }
        return;
    };
    let wanted: Vec<(&str, &str, i64)> = match ask {
        Ask::Create { wallet, amount } => {
            vec![(wallet, "WalletCreated", 0), (wallet, "WalletCredited", *amount)]
        }
        Ask::Credit { wallet, amount } => vec![(wallet, "WalletCredited", *amount)],
        Ask::Debit { wallet, amount } => vec![(wallet, "WalletDebited", *amount)],
        Ask::Transfer { from, to, amount } => vec![
            (from, "WalletTransferInitiated", *amount),
            (to, "WalletTransferCompleted", *amount),
        ],
    };
    if events.len() != wanted.len() {
        let word = if events.len() < wanted.len() { "lost" } else { "doubled" };
        found.push(format!("{word}: {key} {ask:?} has {} events", events.len()));
        return;
    }
    let answer: Value = serde_json::from_str(answer).unwrap();
    let mut shown: Vec<&Value> = vec![&answer["fromWallet"], &answer["toWallet"]];
    shown.retain(|wallet| !wallet.is_null());
    let views = if shown.is_empty() { vec![&answer] } else { shown };
    for (wallet, kind, amount) in wanted {
        let Some(event) = events.iter().find(|e| e.wallet == wallet && e.kind == kind) else {
            found.push(format!("lost: {key} {ask:?} has no {kind} of {wallet}"));
            continue;
        };
        if cents(&event.payload["changeAmount"]) != Some(amount) {
            found.push(format!("altered: {key} {ask:?} is {}", event.payload));
        }
        let id = answer["transactionId"].as_str().or(answer["transferId"].as_str());
        if id.is_some_and(|id| id != event.transaction) {
            found.push(format!("misanswered: {key} got {id:?}, is {}", event.transaction));
        }
        let view = views.iter().find(|view| view["id"] == wallet);
        let last = kind != "WalletCreated";
        if last
            && view.is_none_or(|view| {
                view["version"] != event.version
                    || cents(&view["balance"]) != cents(&event.payload["newBalance"])
            })
        {
            let at = event.version;
            found.push(format!("misanswered: {key} got {answer}, is at {at}: {}", event.payload));
        }
    }
}

/// "Nothing was done" must have been true; whoever was told so cannot be given a replay after.
fn answers(op: &Op, found: &mut Vec<String>) {
    if op.replayed && !op.was_unknown() {
        found.push(format!("denied: {} was done while it was said not to be: {op:?}", op.key));
    }
}

/// Versions are 1..n, each begins where the one before ended, and no balance is below zero.
fn chains(events: &[Event], found: &mut Vec<String>) {
    let mut last: HashMap<&str, (i64, i64)> = HashMap::new();
    for event in events {
        let (version, balance) = last.get(event.wallet.as_str()).copied().unwrap_or((0, 0));
        let change = cents(&event.payload["changeAmount"]).unwrap_or(i64::MIN / 4);
        let change = if event.payload["changeType"] == "DEBIT" { -change } else { change };
        let closing = cents(&event.payload["newBalance"]);
        if event.version != version + 1 || closing != Some(balance + change) || closing < Some(0) {
            let wallet = &event.wallet;
            found.push(format!("broken chain: {wallet} after {version}, {balance}: {event:?}"));
        }
        last.insert(&event.wallet, (event.version, closing.unwrap_or(0)));
    }
}

/// An operation that ended before another began has the lower version.
fn real_time(
    events: &[Event],
    owners: &HashMap<&str, &str>,
    known: &HashMap<&str, &Op>,
    found: &mut Vec<String>,
) {
    let mut latest: HashMap<&str, Instant> = HashMap::new();
    for event in events {
        let op = owners.get(event.transaction.as_str()).and_then(|key| known.get(key));
        let Some(op) = op else { continue };
        let begun = latest.entry(&event.wallet).or_insert(op.begun);
        if op.ended < *begun {
            let (key, wallet, version) = (&op.key, &event.wallet, event.version);
            found.push(format!("out of time: {key} at {wallet} version {version}"));
        }
        *begun = op.begun.max(*begun);
    }
}

/// Each wallet has what the acknowledged operations left on it, and no other wallet is there.
async fn balances(pool: &PgPool, ops: &[Op], found: &mut Vec<String>) {
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.done().is_some()) {
        let changes = match &op.ask {
            Ask::Create { wallet, amount } | Ask::Credit { wallet, amount } => {
                vec![(wallet, *amount)]
            }
            Ask::Debit { wallet, amount } => vec![(wallet, -amount)],
            Ask::Transfer { from, to, amount } => vec![(from, -amount), (to, *amount)],
        };
        for (wallet, change) in changes {
            *model.entry(wallet.clone()).or_default() += change;
        }
    }
    let rows: Vec<(String, String)> =
        sqlx::query_as("select id, balance::text from wallets").fetch_all(pool).await.unwrap();
    let stored: BTreeMap<String, i64> = rows
        .into_iter()
        .map(|(id, balance)| (id, cents(&Value::String(balance)).unwrap_or(i64::MIN)))
        .collect();
    for (wallet, balance) in &stored {
        if model.get(wallet) != Some(balance) {
            let wanted = model.get(wallet).map(|cents| money(*cents));
            found.push(format!("balance: {wallet} has {}, not {wanted:?}", money(*balance)));
        }
    }
    for wallet in model.keys().filter(|wallet| !stored.contains_key(*wallet)) {
        found.push(format!("lost: there is no wallet {wallet}"));
    }
}

/// Each effect has one key: none is missing, none stands twice.
async fn keys(pool: &PgPool, ops: &[Op], found: &mut Vec<String>) {
    let (rows, effects): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct transaction_id) from idempotency_keys k \
         where exists (select from events e where e.transaction_id = k.transaction_id)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let done = ops.iter().filter(|op| op.keyed && op.done().is_some()).count() as i64;
    if (rows, effects) != (done, done) {
        found.push(format!("keys: {rows} for {effects} effects of {done} operations"));
    }
}

fn figures(ops: &[Op], events: usize) -> Figures {
    let attempts = || ops.iter().flat_map(|op| &op.attempts);
    let unknown: Vec<&Op> = ops.iter().filter(|op| op.was_unknown()).collect();
    Figures {
        operations: ops.len(),
        done: ops.iter().filter(|op| op.done().is_some()).count(),
        refused: ops.iter().filter(|op| op.is_definite() && op.done().is_none()).count(),
        unknown: unknown.len(),
        unknown_done: unknown.iter().filter(|op| op.replayed).count(),
        unknown_absent: unknown.iter().filter(|op| !op.replayed).count(),
        not_done_answers: attempts().filter(|a| matches!(a, Outcome::NotDone { .. })).count(),
        events,
    }
}

/// A decimal's text in cents; none where it has more than two decimals or is no decimal.
fn cents(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = format!("{part:0<2}");
    let (part, rest) = part.split_at(2);
    let cents = whole.parse::<i64>().ok()? * 100 + part.parse::<i64>().ok()?;
    rest.bytes().all(|digit| digit == b'0').then_some(sign * cents)
}
