//! A load that keeps a journal: every operation is noted before it is sent, with a key of its own,
//! and what came of it after. What is unknown is settled by sending it again with its key.
//!
//! [`super::books`] then holds the journal against the database. Every operation carries its key
//! into the events (`reference`, or the created wallet's owner), so that it is found there without
//! any help of the service.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::app::{Answer, App};

/// After an unknown outcome or a "try again", a worker waits this long: a service that is down
/// must not be answered with a storm.
const PAUSE: Duration = Duration::from_millis(50);
/// All unknown outcomes must be settled within this time.
const SETTLE: Duration = Duration::from_secs(90);

/// What is asked of the service. Amounts are cents.
#[derive(Debug, Clone)]
pub enum Ask {
    Create { wallet: String, amount: i64 },
    Credit { wallet: String, amount: i64 },
    Debit { wallet: String, amount: i64 },
    Transfer { from: String, to: String, amount: i64 },
}

/// What one attempt came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// 201, with the body as it came.
    Done { text: String },
    /// A definite no: it has no effect.
    Refused { code: String },
    /// The service says that nothing was done and that it may be sent again.
    NotDone { status: u16, code: String, retry_after: bool },
    /// It may have happened: no answer, 500, `outcome_unknown`.
    Unknown { why: String, status: u16, code: String, retry_after: bool },
}

/// One line of the journal.
#[derive(Debug, Clone)]
pub struct Op {
    pub key: String,
    /// The key is sent as such; it is the reference in any case.
    pub keyed: bool,
    pub ask: Ask,
    pub begun: Instant,
    pub ended: Instant,
    /// Every attempt, in order; empty while the first is on its way.
    pub attempts: Vec<Outcome>,
    /// The last answer was a replay of an earlier one.
    pub replayed: bool,
    /// The longest that an attempt took.
    pub slowest: Duration,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub wallets: usize,
    pub workers: usize,
    /// Pause between a worker's operations.
    pub think: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Every fourth operation goes without its key: it must be right the first time.
    pub some_keyless: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let given = std::env::var("WALLEX_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 >> 16);
        let (think, timeout) = (Duration::from_millis(10), Duration::from_secs(45));
        Self { seed, wallets: 40, workers: 16, think, timeout, some_keyless: false }
    }
}

/// Numbers from a seed: splitmix64.
#[derive(Debug, Clone)]
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The journal and the way to the instances.
#[derive(Debug)]
pub struct Journal {
    plan: Plan,
    bases: Vec<String>,
    client: reqwest::Client,
    ops: Mutex<Vec<Op>>,
    acknowledged: AtomicUsize,
    next: AtomicUsize,
}

/// A running load.
pub struct Load {
    pub journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    workers: tokio::task::JoinSet<()>,
}

impl Load {
    /// Opens the wallets and starts the workers against all of the instances.
    pub async fn start(instances: &[&App], plan: Plan) -> Self {
        let journal = Arc::new(Journal::new(instances, plan));
        journal.open_wallets().await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..journal.plan.workers {
            let (journal, stop) = (Arc::clone(&journal), Arc::clone(&stop));
            let mut draw = Draw(journal.plan.seed ^ ((worker as u64 + 1) << 40));
            workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let ask = journal.draw(&mut draw);
                    let calm = journal.once(ask, draw.below(1 << 32) as usize).await;
                    let pause = if calm { journal.plan.think } else { PAUSE };
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { journal, stop, workers }
    }

    /// Waits until `more` operations have been acknowledged from now on.
    pub async fn advance(&self, more: usize) {
        let goal = self.journal.acknowledged() + more;
        let what = format!("{more} more operations acknowledged");
        super::eventually(&what, Duration::from_secs(60), async || {
            (self.journal.acknowledged() >= goal).then_some(())
        })
        .await;
    }

    /// Ends the workers once each has its answer, then settles what is unknown.
    pub async fn settle(mut self) -> Arc<Journal> {
        self.halt().await;
        self.journal.settle().await;
        self.journal
    }

    /// Ends the workers once each has its answer.
    pub async fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }
}

impl Journal {
    pub fn new(instances: &[&App], plan: Plan) -> Self {
        println!("seed {} (WALLEX_TEST_SEED draws the same again)", plan.seed);
        Self {
            bases: instances.iter().map(|app| app.base.clone()).collect(),
            client: reqwest::Client::builder().timeout(plan.timeout).build().unwrap(),
            ops: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            plan,
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The journal as it stands.
    pub fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }

    /// The wallets that the load moves money between, with enough on them to begin with.
    pub async fn open_wallets(&self) {
        for wallet in 0..self.plan.wallets {
            let ask = Ask::Create { wallet: self.wallet(wallet as u64), amount: 5_000 };
            assert!(self.once(ask, 0).await, "the service takes the first wallets");
        }
    }

    fn wallet(&self, number: u64) -> String {
        format!("w-{:x}-{number}", self.plan.seed)
    }

    /// The next operation: a few wallets are hot, some debits ask for too much, some creates are
    /// of a wallet that is there.
    pub fn draw(&self, draw: &mut Draw) -> Ask {
        let wallets = self.plan.wallets as u64;
        let mut any = || {
            let hot = draw.below(4) == 0;
            self.wallet(draw.below(if hot { 2 } else { wallets }))
        };
        let (wallet, other) = (any(), any());
        let amount = 1 + draw.below(4_000) as i64;
        match draw.below(20) {
            0 if draw.below(4) == 0 => Ask::Create { wallet, amount },
            0 => {
                let number = 1_000_000 + self.next.fetch_add(1, Ordering::Relaxed) as u64;
                Ask::Create { wallet: self.wallet(number), amount }
            }
            1..=7 => Ask::Credit { wallet, amount },
            8..=13 => Ask::Debit { wallet, amount },
            _ if wallet == other => Ask::Credit { wallet, amount },
            _ => Ask::Transfer { from: wallet, to: other, amount },
        }
    }

    /// Notes an operation before it is sent; its number in the journal.
    pub fn note(&self, ask: Ask) -> (usize, String) {
        let mut ops = self.ops.lock().unwrap();
        let key = format!("k-{:x}-{}", self.plan.seed, ops.len());
        let (now, attempts) = (Instant::now(), Vec::new());
        let keyed = !(self.plan.some_keyless && ops.len().is_multiple_of(4));
        ops.push(Op {
            key: key.clone(),
            keyed,
            ask,
            begun: now,
            ended: now,
            attempts,
            replayed: false,
            slowest: Duration::ZERO,
        });
        (ops.len() - 1, key)
    }

    /// Notes that an operation was sent and its answer not waited for.
    pub fn abandon(&self, number: usize) {
        let outcome = Outcome::unknown("not waited for", 0, String::new(), false);
        self.ops.lock().unwrap()[number].attempts.push(outcome);
    }

    /// Sends a new operation once; whether it has a definite answer.
    async fn once(&self, ask: Ask, via: usize) -> bool {
        let (number, _) = self.note(ask);
        self.attempt(number, via).await
    }

    /// Sends an operation of the journal, and notes what came of it.
    async fn attempt(&self, number: usize, via: usize) -> bool {
        let Op { key, keyed, ask, .. } = self.ops.lock().unwrap()[number].clone();
        let (path, body) = ask.request(&key);
        let base = &self.bases[via % self.bases.len()];
        let begun = Instant::now();
        let mut request = self.client.post(format!("{base}{path}")).json(&body);
        if keyed {
            request = request.header("idempotency-key", &key);
        }
        let sent = request.send().await;
        let (outcome, replayed) = match sent {
            Ok(response) => Outcome::of(&Answer::of(response).await),
            Err(error) => (Outcome::unknown(&format!("{error:?}"), 0, String::new(), false), false),
        };
        let definite = outcome.is_definite();
        if matches!(outcome, Outcome::Done { .. }) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut ops = self.ops.lock().unwrap();
        let op = &mut ops[number];
        op.attempts.push(outcome);
        op.replayed = replayed;
        op.ended = Instant::now();
        op.slowest = op.slowest.max(op.ended - begun);
        definite
    }

    /// Sends every operation without a definite answer again, until it has one.
    pub async fn settle(self: &Arc<Self>) {
        let begun = Instant::now();
        loop {
            let open: Vec<usize> = {
                let ops = self.ops.lock().unwrap();
                let open = ops.iter().enumerate().filter(|(_, op)| op.keyed && !op.is_definite());
                open.map(|(number, _)| number).collect()
            };
            if open.is_empty() {
                return;
            }
            assert!(begun.elapsed() < SETTLE, "{} operations never settled", open.len());
            let mut attempts = tokio::task::JoinSet::new();
            for number in open {
                let journal = Arc::clone(self);
                attempts.spawn(async move { journal.attempt(number, number).await });
                if attempts.len() >= 32 {
                    attempts.join_next().await;
                }
            }
            let settled = attempts.join_all().await;
            if settled.contains(&false) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Sends `count` acknowledged operations once more: each must give its first answer again, to
    /// the byte.
    pub async fn assert_replays(&self, count: usize) {
        let ops = self.ops();
        let done = ops.iter().filter(|op| op.keyed).filter_map(|op| Some((op, op.done()?)));
        let step = (self.acknowledged() / count.max(1)).max(1);
        for (op, first) in done.step_by(step) {
            let (path, body) = op.ask.request(&op.key);
            let request = self.client.post(format!("{}{path}", self.bases[0])).json(&body);
            let again = request.header("idempotency-key", &op.key).send().await.unwrap();
            let again = Answer::of(again).await;
            assert_eq!(again.header("idempotency-replayed"), "true", "{op:?} {again:?}");
            assert_eq!(again.text, first, "{op:?}");
        }
    }
}

impl Ask {
    /// Path and body. The key is what the operation is found by in the events.
    pub fn request(&self, key: &str) -> (String, Value) {
        let movement = |amount: &i64| json!({"amount": money(*amount), "reference": key});
        match self {
            Self::Create { wallet, amount } => {
                let balance = money(*amount);
                let body = json!({"walletId": wallet, "ownerId": key, "initialBalance": balance});
                ("/wallets".to_owned(), body)
            }
            Self::Credit { wallet, amount } => {
                (format!("/wallets/{wallet}/credit"), movement(amount))
            }
            Self::Debit { wallet, amount } => {
                (format!("/wallets/{wallet}/debit"), movement(amount))
            }
            Self::Transfer { from, to, amount } => {
                let mut body = movement(amount);
                body["toWalletId"] = json!(to);
                (format!("/wallets/{from}/transfer"), body)
            }
        }
    }
}

impl Outcome {
    /// What an answer says, and whether it is a replay.
    pub fn of(answer: &Answer) -> (Self, bool) {
        let replayed = answer.header("idempotency-replayed") == "true";
        if answer.status == 201 && !answer.text.is_empty() {
            return (Self::Done { text: answer.text.clone() }, replayed);
        }
        let problem: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        let (status, retry_after) = (answer.status, !answer.header("retry-after").is_empty());
        let outcome = match (status, code.as_str()) {
            (503, "database_unavailable" | "wallet_busy") | (429, _) => {
                Self::NotDone { status, code, retry_after }
            }
            (400..500, code) if !code.is_empty() && code != "idempotency_key_in_flight" => {
                Self::Refused { code: code.to_owned() }
            }
            _ => Self::unknown(&answer.text, status, code, retry_after),
        };
        (outcome, replayed)
    }

    fn unknown(why: &str, status: u16, code: String, retry_after: bool) -> Self {
        Self::Unknown { why: why.to_owned(), status, code, retry_after }
    }

    pub fn is_definite(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Refused { .. })
    }
}

impl Op {
    pub fn is_definite(&self) -> bool {
        self.attempts.last().is_some_and(Outcome::is_definite)
    }

    /// The body of its 201.
    pub fn done(&self) -> Option<&str> {
        match self.attempts.last()? {
            Outcome::Done { text } => Some(text),
            _ => None,
        }
    }

    /// Some attempt may have taken effect without saying so.
    pub fn was_unknown(&self) -> bool {
        self.attempts.iter().any(|attempt| matches!(attempt, Outcome::Unknown { .. }))
    }
}

/// Cents as a decimal.
pub fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
