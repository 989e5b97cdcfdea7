//! The journal held against the events: what was asked and answered, and what happened.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sqlx::PgPool;

use super::super::journal::{Answer, Line, Verdict};
use super::super::load::Ask;
use super::{Event, Findings, cents};

/// What a run came to.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub operations: usize,
    pub acknowledged: usize,
    pub refused: usize,
    /// Operations with a key that were once unknown, and those of them that got a definite answer.
    pub unknown: usize,
    pub unknown_settled: usize,
    /// Of these, done at the first attempt without saying so.
    pub unknown_done: usize,
    /// Operations without a key that nobody can ask about.
    pub unknown_keyless: usize,
    pub not_done_answers: usize,
    pub lost: usize,
    pub doubled: usize,
    pub events: usize,
    pub reads: usize,
    pub records: usize,
    pub duplicates: usize,
    /// The longest that an answer took, in milliseconds.
    pub slowest_ms: u64,
}

/// What a key remembers, to the byte: a success, and refusals that were decided under the wallet's lock.
const KEPT: [&str; 8] = [
    "",
    "insufficient_funds",
    "wallet_exists",
    "hold_closed",
    "hold_expired",
    "amount_exceeds_hold",
    "already_reversed",
    "amount_exceeds_original",
];

#[derive(Debug)]
struct Op<'a> {
    key: &'a str,
    keyed: bool,
    ask: &'a Ask,
    begun: u64,
    answers: Vec<&'a Answer>,
}

impl Op<'_> {
    /// The first definite answer.
    fn outcome(&self) -> Option<&Answer> {
        self.answers.iter().copied().find(|answer| answer.verdict.is_definite())
    }

    fn done(&self) -> Option<&Answer> {
        self.outcome().filter(|answer| answer.verdict == Verdict::Done)
    }

    /// Some attempt may have taken effect without saying so.
    fn was_unknown(&self) -> bool {
        self.answers.is_empty() || self.answers.iter().any(|a| a.verdict == Verdict::Unknown)
    }
}

pub async fn check(
    lines: &[Line],
    events: &[Event],
    pool: &PgPool,
    findings: &mut Findings,
) -> Figures {
    let ops = ops(lines);
    let owners = owners(events);
    let mut by_key: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    // Nobody asks for an expiry: `books` holds it against the hold's own time.
    for event in events.iter().filter(|event| event.kind != "WalletHoldExpired") {
        let key = owners.get(event.transaction.as_str()).copied().unwrap_or("(no key)");
        by_key.entry(key).or_default().push(event);
    }
    let mut figures = Figures { events: events.len(), ..Figures::default() };
    for op in ops.values() {
        let found = by_key.get(op.key).map_or(&[][..], Vec::as_slice);
        effect(op, found, &mut figures, findings);
        answers(op, findings);
        count(op, &mut figures, findings);
    }
    findings.examined("nothing-unasked", events.len());
    for key in by_key.keys().filter(|key| !ops.contains_key(*key)) {
        findings.red("nothing-unasked", format!("nobody asked for {key}"));
    }
    real_time(events, &owners, &ops, findings);
    figures.reads = reads(lines, findings);
    totals(pool, &ops, &by_key, findings).await;
    keys(pool, &ops, findings).await;
    figures
}

fn ops(lines: &[Line]) -> BTreeMap<&str, Op<'_>> {
    let mut ops: BTreeMap<&str, Op<'_>> = BTreeMap::new();
    for line in lines {
        match line {
            Line::Ask { at, key, keyed, ask } => {
                let op = Op { key, keyed: *keyed, ask, begun: *at, answers: Vec::new() };
                ops.insert(key, op);
            }
            Line::Answer(answer) => ops.get_mut(answer.key.as_str()).unwrap().answers.push(answer),
            _ => {}
        }
    }
    ops
}

/// The key behind each transaction: the reference of a movement, the owner of a new wallet, the reason of
/// what only has that.
fn owners(events: &[Event]) -> HashMap<&str, &str> {
    let mut owners = HashMap::new();
    for event in events {
        let field = match event.kind.as_str() {
            "WalletCreated" => "ownerId",
            "WalletHoldReleased" | "WalletReversed" => "reason",
            "WalletHoldExpired" => continue,
            _ => "reference",
        };
        if let Some(key) = event.payload[field].as_str() {
            owners.insert(event.transaction.as_str(), key);
        }
    }
    owners
}

fn effect(op: &Op<'_>, events: &[&Event], figures: &mut Figures, findings: &mut Findings) {
    let (key, ask) = (op.key, op.ask);
    let expected = op.ask.expected();
    let mut transactions: Vec<&str> = events.iter().map(|e| e.transaction.as_str()).collect();
    transactions.dedup();
    findings.examined("one-effect-per-key", 1);
    if transactions.len() > 1 || events.len() > expected.len() {
        figures.doubled += 1;
        findings.red("one-effect-per-key", format!("{key} {ask:?} has {} events", events.len()));
        return;
    }
    let Some(answer) = op.outcome() else {
        return undecided(op, events, findings);
    };
    if answer.verdict == Verdict::Refused {
        findings.examined("refused-left-nothing", 1);
        if !events.is_empty() {
            let what = format!("{key} {ask:?} was refused ({}) and done", answer.code);
            findings.red("refused-left-nothing", what);
        }
        return;
    }
    findings.examined("acknowledged-is-there", 1);
    if events.len() < expected.len() {
        figures.lost += 1;
        let what = format!("{key} {ask:?} has {} events: {}", events.len(), answer.body);
        findings.red("acknowledged-is-there", what);
        return;
    }
    as_asked(op, events, findings);
    told(op, answer, events, findings);
}

/// Without a definite answer: whole or absent; with a key it should have been settled.
fn undecided(op: &Op<'_>, events: &[&Event], findings: &mut Findings) {
    let (key, ask) = (op.key, op.ask);
    findings.examined("unknown-is-whole", 1);
    if !events.is_empty() && events.len() != op.ask.expected().len() {
        findings.red("unknown-is-whole", format!("{key} {ask:?} has {} events", events.len()));
    } else if !events.is_empty() {
        as_asked(op, events, findings);
    }
    if op.keyed {
        findings.red("unknown-is-settled", format!("{key} {ask:?} never got a definite answer"));
    } else if !op.was_unknown() && !events.is_empty() {
        let what = format!("{key} {ask:?} was \"not done\" and done");
        findings.red("refused-left-nothing", what);
    }
}

fn as_asked(op: &Op<'_>, events: &[&Event], findings: &mut Findings) {
    findings.examined("effects-are-as-asked", 1);
    for (wallet, kind, change) in op.ask.expected() {
        let found = events.iter().find(|e| e.wallet == wallet && e.kind == kind);
        let right = found.is_some_and(|e| kind == "WalletCreated" || e.change == change);
        if !right {
            let what = format!("{} {:?} is {events:?}", op.key, op.ask);
            findings.red("effects-are-as-asked", what);
        }
    }
}

/// The answer shows each wallet as its event left it. (A late commit of the harness shows nothing.)
fn told(op: &Op<'_>, answer: &Answer, events: &[&Event], findings: &mut Findings) {
    if answer.body.is_empty() {
        return;
    }
    findings.examined("answers-tell-what-happened", 1);
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let id = body["transactionId"].as_str().or(body["transferId"].as_str());
    let mut right = id.is_none_or(|id| events.iter().all(|e| e.transaction == id));
    if matches!(op.ask, Ask::Reverse { .. }) {
        return;
    }
    let shown = [&body["fromWallet"], &body["toWallet"], &body["wallet"], &body];
    for event in events.iter().filter(|event| event.kind != "WalletCreated") {
        let view = shown.iter().find(|view| view["id"] == event.wallet && view["version"].is_i64());
        right &= view.is_some_and(|view| {
            view["version"] == event.version && cents(&view["balance"]) == Some(event.after)
        });
    }
    if !right {
        let what = format!("{} was told {}, is {events:?}", op.key, answer.body);
        findings.red("answers-tell-what-happened", what);
    }
}

/// What all answers to one operation say together.
fn answers(op: &Op<'_>, findings: &mut Findings) {
    let definite = |answer: &&Answer| answer.verdict.is_definite();
    let told: Vec<&Answer> = op.answers.iter().copied().filter(definite).collect();
    for pair in told.windows(2) {
        findings.examined("replays-are-equal", 1);
        // A refusal that is not decided under the wallet's lock is not kept, but is the same again.
        let kept = KEPT.contains(&pair[0].code.as_str());
        let same = pair[0].status == pair[1].status && pair[0].code == pair[1].code;
        if !same || (kept && pair[0].body != pair[1].body) {
            let (first, second) = (&pair[0].body, &pair[1].body);
            let what = format!("{} was told {first}, then {second}", op.key);
            findings.red("replays-are-equal", what);
        }
    }
    let overlap = op.answers.windows(2).any(|pair| pair[1].begun < pair[0].at);
    if let Some(done) = op.done().filter(|_| op.answers.len() > 1 && !overlap) {
        findings.examined("not-done-was-not-done", 1);
        if done.replayed && !op.was_unknown() {
            let what = format!("{} was done when it was said not to be: {op:?}", op.key);
            findings.red("not-done-was-not-done", what);
        }
    }
    for answer in op.answers.iter().filter(|answer| answer.status != 0) {
        findings.examined("failures-say-what-is-known", 1);
        let known = match (answer.status, answer.code.as_str()) {
            (503, "database_unavailable" | "outcome_unknown" | "wallet_busy") => answer.retry_after,
            (429, "overloaded") | (409, "idempotency_key_in_flight") => answer.retry_after,
            (201, _) => true,
            (400..500, code) => !code.is_empty(),
            _ => false,
        };
        if !known {
            let (status, body) = (answer.status, &answer.body);
            let what = format!("{} got {status} {body}", op.key);
            findings.red("failures-say-what-is-known", what);
        }
    }
}

fn count(op: &Op<'_>, figures: &mut Figures, findings: &mut Findings) {
    figures.operations += 1;
    figures.acknowledged += usize::from(op.done().is_some());
    figures.refused += usize::from(op.outcome().is_some() && op.done().is_none());
    let not_done = op.answers.iter().filter(|a| a.verdict == Verdict::NotDone);
    figures.not_done_answers += not_done.count();
    // A late commit of the harness has no body: it is no answer of the service.
    let answers = op.answers.iter().filter(|answer| !answer.body.is_empty());
    let slowest = answers.map(|answer| (answer.at - answer.begun) / 1_000).max();
    figures.slowest_ms = figures.slowest_ms.max(slowest.unwrap_or(0));
    if op.was_unknown() && op.keyed {
        findings.examined("unknown-is-settled", 1);
        figures.unknown += 1;
        figures.unknown_settled += usize::from(op.outcome().is_some());
        figures.unknown_done += usize::from(op.outcome().is_some_and(|answer| answer.replayed));
    } else if op.was_unknown() {
        figures.unknown_keyless += 1;
    }
}

/// An operation that ended before another began has the lower version.
fn real_time(
    events: &[Event],
    owners: &HashMap<&str, &str>,
    ops: &BTreeMap<&str, Op<'_>>,
    findings: &mut Findings,
) {
    let mut latest: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let op = owners.get(event.transaction.as_str()).and_then(|key| ops.get(key));
        let Some((op, answer)) = op.and_then(|op| Some((op, op.outcome()?))) else { continue };
        findings.examined("real-time-order", 1);
        let begun = latest.entry(&event.wallet).or_insert(op.begun);
        if answer.at < *begun {
            let what = format!("{} at {} version {}", op.key, event.wallet, event.version);
            findings.red("real-time-order", what);
        }
        *begun = op.begun.max(*begun);
    }
}

fn reads(lines: &[Line], findings: &mut Findings) -> usize {
    let mut count = 0;
    for line in lines {
        let Line::Read { at, wallet, least, seen } = line else { continue };
        count += 1;
        if seen < least {
            let what = format!("{wallet} at {at} us: version {seen} after {least}");
            findings.red("reads-see-acknowledged", what);
        }
    }
    findings.examined("reads-see-acknowledged", count);
    count
}

/// Wallets as the operations left them: those acknowledged, and those found without an answer.
async fn totals(
    pool: &PgPool,
    ops: &BTreeMap<&str, Op<'_>>,
    by_key: &BTreeMap<&str, Vec<&Event>>,
    findings: &mut Findings,
) {
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    let happened = |op: &&Op<'_>| {
        op.done().is_some() || (op.outcome().is_none() && by_key.contains_key(op.key))
    };
    for op in ops.values().filter(happened) {
        for (wallet, _, change) in op.ask.expected() {
            *model.entry(wallet.to_owned()).or_default() += change;
        }
    }
    let rows: Vec<(String, String)> =
        sqlx::query_as("select id, balance::text from wallets").fetch_all(pool).await.unwrap();
    let stored: BTreeMap<String, i64> = rows
        .into_iter()
        .map(|(id, balance)| (id, cents(&Value::String(balance)).unwrap_or(i64::MIN)))
        .collect();
    findings.examined("wallet-totals-are-asked", stored.len());
    for wallet in model.keys().chain(stored.keys()) {
        let (asked, has) = (model.get(wallet), stored.get(wallet));
        if asked != has {
            let what = format!("{wallet} has {has:?} cents, not {asked:?}");
            findings.red("wallet-totals-are-asked", what);
        }
    }
}

async fn keys(pool: &PgPool, ops: &BTreeMap<&str, Op<'_>>, findings: &mut Findings) {
    let (rows, effects): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct transaction_id) from idempotency_keys k \
         where exists (select from events e where e.transaction_id = k.transaction_id)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let done = ops.values().filter(|op| op.keyed && op.done().is_some()).count();
    findings.examined("keys-are-effects", done);
    if (rows, effects) != (done as i64, done as i64) {
        let what = format!("{rows} keys of {effects} effects; {done} operations were acknowledged");
        findings.red("keys-are-effects", what);
    }
}
