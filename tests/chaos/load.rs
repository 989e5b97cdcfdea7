//! The load: many workers against all instances. Every operation has a key of its own and carries
//! it into the events (`reference`, or the created wallet's owner), so that it can be found there.
//! What has no definite answer is sent again with its key, until it has one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
pub use wallex::cli::loadtest::ask::Draw;

pub use super::ask::Ask;
use super::eventually;
use super::journal::{Answer, Journal, Line, Verdict};

/// After no answer or a "try again" a worker waits: a service that is down is not to be stormed.
const PAUSE: Duration = Duration::from_millis(50);
/// All that is unknown must be settled within this time.
const SETTLE: Duration = Duration::from_secs(120);
/// Operations without a definite answer that are sent again at once.
const SETTLING: usize = 32;
/// Operations that captures and reversals are drawn from.
const LATELY: usize = 60;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub workers: usize,
    /// Wallets that money moves between.
    pub wallets: u64,
    /// Pause between a worker's operations.
    pub think: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// One operation in so many goes without its key; 0: none.
    pub keyless: u64,
    /// One in so many is sent twice at once; 0: none.
    pub twice: u64,
    /// One acknowledged in so many is followed by a strong read; 0: none.
    pub read: u64,
    /// One in so many is of a hold, or takes a transaction back; 0: none.
    pub money: u64,
}

impl Default for Plan {
    fn default() -> Self {
        let given = std::env::var("WALLEX_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 >> 16);
        let (think, timeout) = (Duration::from_millis(10), Duration::from_secs(45));
        Self {
            seed,
            workers: 16,
            wallets: 40,
            think,
            timeout,
            keyless: 0,
            twice: 0,
            read: 0,
            money: 0,
        }
    }
}

/// An operation of the journal.
#[derive(Debug, Clone)]
pub struct Op {
    pub key: String,
    pub keyed: bool,
    pub ask: Ask,
}

/// An operation that was acknowledged, with the transaction that its answer names.
#[derive(Debug, Clone)]
struct Lately {
    ask: Ask,
    transaction: Option<String>,
}

/// Shared by all workers.
#[derive(Debug)]
pub struct Load {
    pub journal: Journal,
    pub plan: Plan,
    bases: Vec<String>,
    client: reqwest::Client,
    next: AtomicU64,
    /// Operations acknowledged.
    done: AtomicUsize,
    /// Answers that acknowledged one, by instance.
    acknowledged: Vec<AtomicUsize>,
    paused: AtomicBool,
    stopped: AtomicBool,
    busy: AtomicUsize,
    open: Mutex<Vec<Op>>,
    settled: Mutex<Vec<Op>>,
    /// What was placed and done lately: what captures and reversals are drawn from.
    lately: Mutex<VecDeque<Lately>>,
    workers: tokio::sync::Mutex<JoinSet<()>>,
}

impl Load {
    /// Opens the wallets and starts the workers against all of the instances.
    pub async fn start(bases: &[&String], plan: Plan) -> Arc<Self> {
        println!("seed {} (WALLEX_TEST_SEED draws the same again)", plan.seed);
        let bases = bases.iter().map(|base| (*base).clone()).collect();
        Self::noted_in(Journal::temporary(), bases, plan).await
    }

    pub async fn noted_in(journal: Journal, bases: Vec<String>, plan: Plan) -> Arc<Self> {
        let load = Arc::new(Self {
            journal,
            client: reqwest::Client::builder().timeout(plan.timeout).build().unwrap(),
            next: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            acknowledged: bases.iter().map(|_| AtomicUsize::new(0)).collect(),
            bases,
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            open: Mutex::default(),
            settled: Mutex::default(),
            lately: Mutex::default(),
            workers: tokio::sync::Mutex::default(),
            plan,
        });
        for number in 0..load.plan.wallets {
            let ask = Ask::Create { wallet: load.wallet(number), amount: 5_000 };
            let op = load.note(ask, true);
            let told = load.send(&op, 0).await;
            assert_eq!(
                told.verdict,
                Verdict::Done,
                "the service takes the first wallets: {told:?}"
            );
            load.settled.lock().unwrap().push(op);
        }
        let mut workers = load.workers.lock().await;
        for worker in 0..load.plan.workers {
            let (load, seed) = (Arc::clone(&load), load.plan.seed ^ ((worker as u64 + 1) << 40));
            workers.spawn(async move { load.work(&mut Draw(seed)).await });
        }
        drop(workers);
        load
    }

    async fn work(&self, draw: &mut Draw) {
        while !self.stopped.load(Ordering::Relaxed) {
            // Busy first: a pause must not miss a worker that is about to begin.
            self.busy.fetch_add(1, Ordering::SeqCst);
            let calm = !self.paused.load(Ordering::SeqCst) && self.one(draw).await;
            self.busy.fetch_sub(1, Ordering::SeqCst);
            tokio::time::sleep(if calm { self.plan.think } else { PAUSE }).await;
        }
    }

    /// One operation; sometimes twice at once, sometimes with a strong read after it. True where
    /// it has a definite answer.
    async fn one(&self, draw: &mut Draw) -> bool {
        let Plan { keyless, twice, read, .. } = self.plan;
        let mut one_in = |many: u64| many > 0 && draw.below(many) == 0;
        let (keyed, twice, read) = (!one_in(keyless), one_in(twice), one_in(read));
        let op = self.note(self.draw(draw), keyed);
        let via = self.via(draw);
        let told = if keyed && twice {
            let (first, second) = tokio::join!(self.send(&op, via), self.send(&op, via + 1));
            if first.verdict.is_definite() { first } else { second }
        } else {
            self.send(&op, via).await
        };
        if told.verdict == Verdict::Done {
            self.done.fetch_add(1, Ordering::Relaxed);
            self.remember(&op.ask, &told.body);
            if read {
                self.read(&told.body, self.via(draw)).await;
            }
        }
        if keyed {
            self.sort(op, told.verdict);
        }
        told.verdict.is_definite()
    }

    fn sort(&self, op: Op, verdict: Verdict) {
        let list = if verdict.is_definite() { &self.settled } else { &self.open };
        list.lock().unwrap().push(op);
    }

    /// Reads a wallet that an answer has just shown, from some instance.
    async fn read(&self, body: &str, via: usize) {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let views = [&answer["wallet"], &answer["toWallet"], &answer];
        let Some(shown) = views.into_iter().find(|view| view["version"].is_i64()) else { return };
        let (Some(wallet), Some(least)) = (shown["id"].as_str(), shown["version"].as_i64()) else {
            return;
        };
        let url = format!("{}/wallets/{wallet}", self.base(via));
        let Ok(answer) = self.client.get(url).send().await else { return };
        if !answer.status().is_success() {
            return;
        }
        let seen: Value = answer.json().await.unwrap_or_default();
        let seen = seen["version"].as_i64().unwrap_or(-1);
        let (at, wallet) = (self.journal.now(), wallet.to_owned());
        self.journal.note(&Line::Read { at, wallet, least, seen });
    }

    /// Notes an operation before it is sent.
    fn note(&self, ask: Ask, keyed: bool) -> Op {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let op = Op { key: format!("k-{:x}-{number}", self.plan.seed), keyed, ask };
        let (key, ask) = (op.key.clone(), op.ask.clone());
        self.journal.note(&Line::Ask { at: self.journal.now(), key, keyed, ask });
        op
    }

    /// Notes a new operation that the caller sends without waiting for the answer.
    pub fn abandon(&self, draw: &mut Draw) -> Op {
        let op = self.note(self.draw(draw), true);
        let at = self.journal.now();
        self.answered(&op.key, at, 0, "not waited for".to_owned(), false, false);
        self.open.lock().unwrap().push(op.clone());
        op
    }

    /// Sends an operation once, and notes what came of it.
    async fn send(&self, op: &Op, via: usize) -> Answer {
        let (path, body) = op.ask.request(&op.key);
        let begun = self.journal.now();
        let mut request = self.client.post(format!("{}{path}", self.base(via))).body(body);
        request = request.header("content-type", "application/json");
        if op.keyed {
            request = request.header("idempotency-key", &op.key);
        }
        let (mut status, mut retry_after, mut replayed) = (0, false, false);
        let body = match request.send().await {
            Err(error) => Err(error),
            Ok(answer) => {
                let has = |name: &str| answer.headers().contains_key(name);
                (retry_after, replayed) = (has("retry-after"), has("idempotency-replayed"));
                status = answer.status().as_u16();
                answer.text().await
            }
        };
        // An answer that broke off is none.
        let (status, body) = match body {
            Ok(body) => (status, body),
            Err(error) => (0, format!("{error:?}")),
        };
        let told = self.answered(&op.key, begun, status, body, retry_after, replayed);
        if told.verdict == Verdict::Done {
            self.acknowledged[via % self.bases.len()].fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    fn answered(
        &self,
        key: &str,
        begun: u64,
        status: u16,
        body: String,
        retry_after: bool,
        replayed: bool,
    ) -> Answer {
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        let (at, key, verdict) = (self.journal.now(), key.to_owned(), Verdict::of(status, &code));
        let answer = Answer { begun, at, key, verdict, status, code, retry_after, replayed, body };
        self.journal.note(&Line::Answer(answer.clone()));
        answer
    }

    fn base(&self, via: usize) -> &str {
        &self.bases[via % self.bases.len()]
    }

    fn via(&self, draw: &mut Draw) -> usize {
        usize::try_from(draw.below(self.bases.len() as u64)).unwrap()
    }

    pub fn wallet(&self, number: u64) -> String {
        format!("w-{:x}-{number}", self.plan.seed)
    }

    /// The next operation: a few wallets are hot, some debits ask for too much, some creates are of
    /// a wallet that is there.
    fn draw(&self, draw: &mut Draw) -> Ask {
        let mut any = || {
            let hot = draw.below(4) == 0;
            self.wallet(draw.below(if hot { 2 } else { self.plan.wallets }))
        };
        let (wallet, other) = (any(), any());
        let amount = 1 + i64::try_from(draw.below(4_000)).unwrap();
        if self.plan.money > 0 && draw.below(self.plan.money) == 0 {
            return self.draw_money(draw, wallet, amount);
        }
        match draw.below(20) {
            0 if draw.below(4) == 0 => Ask::Create { wallet, amount },
            0 => {
                let number = 1_000_000 + self.next.fetch_add(1, Ordering::Relaxed);
                Ask::Create { wallet: self.wallet(number), amount }
            }
            1..=6 => Ask::Credit { wallet, amount },
            7..=11 => Ask::Debit { wallet, amount },
            _ if wallet == other => Ask::Credit { wallet, amount },
            _ => Ask::Transfer { from: wallet, to: other, amount },
        }
    }

    /// Something of a hold, or a reversal. Several workers draw from the same few, so that captures,
    /// releases and expiries of one hold meet, and reversals of one transaction.
    fn draw_money(&self, draw: &mut Draw, wallet: String, amount: i64) -> Ask {
        let lately = self.lately.lock().unwrap();
        let any = usize::try_from(draw.below(lately.len() as u64)).unwrap();
        let Some(Lately { ask, transaction }) = lately.get(any).cloned() else {
            return Ask::Credit { wallet, amount };
        };
        drop(lately);
        match (ask, transaction) {
            (Ask::Hold { wallet, hold, .. }, _) if draw.below(4) == 0 => {
                Ask::Release { wallet, hold }
            }
            (Ask::Hold { wallet, hold, amount, most, .. }, _) => {
                let amount = if draw.below(3) == 0 { most } else { 1 + amount / 2 };
                Ask::Capture { wallet, hold, amount, last: draw.below(2) == 0 }
            }
            (done, Some(transaction)) if draw.below(2) == 0 => {
                let part = i64::try_from(draw.below(2) * draw.below(1_000)).unwrap();
                done.reversal(&transaction, part).unwrap_or(Ask::Credit { wallet, amount })
            }
            _ => {
                let hold = uuid::Uuid::from_u64_pair(self.plan.seed, draw.below(u64::MAX));
                let most = amount + i64::try_from(draw.below(2)).unwrap() * amount / 5;
                let seconds = if draw.below(4) == 0 { 1 + draw.below(3) } else { 3_600 };
                Ask::Hold { wallet, hold: hold.to_string(), amount, most, seconds }
            }
        }
    }

    fn remember(&self, ask: &Ask, body: &str) {
        if self.plan.money == 0 || matches!(ask, Ask::Create { .. } | Ask::Release { .. }) {
            return;
        }
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let id = body["transactionId"].as_str().or(body["transferId"].as_str());
        let transaction = id.map(str::to_owned);
        let mut lately = self.lately.lock().unwrap();
        lately.push_back(Lately { ask: ask.clone(), transaction });
        if lately.len() > LATELY {
            lately.pop_front();
        }
    }

    /// The journal so far.
    pub fn lines(&self) -> Vec<Line> {
        self.journal.lines()
    }

    pub fn acknowledged(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    pub fn acknowledged_by(&self, instance: usize) -> usize {
        self.acknowledged[instance].load(Ordering::Relaxed)
    }

    /// Waits until `more` operations have been acknowledged from now on.
    pub async fn advance(&self, more: usize) {
        let goal = self.acknowledged() + more;
        let what = format!("{more} more operations acknowledged");
        let reached = async || (self.acknowledged() >= goal).then_some(());
        eventually(&what, Duration::from_secs(60), reached).await;
    }

    /// No operation is on its way until [`Self::resume`].
    pub async fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        let idle = async || (self.busy.load(Ordering::SeqCst) == 0).then_some(());
        eventually("the workers pause", Duration::from_secs(60), idle).await;
    }

    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    /// Ends the workers once each has its answer.
    pub async fn halt(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut workers = self.workers.lock().await;
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
    }

    /// Ends the workers, then sends what has no definite answer until it has one. The checker
    /// reports what is left after that.
    pub async fn settle(self: &Arc<Self>) -> Arc<Self> {
        self.halt().await;
        let begun = Instant::now();
        while begun.elapsed() < SETTLE {
            let open = std::mem::take(&mut *self.open.lock().unwrap());
            if open.is_empty() {
                break;
            }
            for chunk in open.chunks(SETTLING) {
                let sending = chunk.iter().enumerate().map(|(via, op)| async move {
                    let verdict = self.send(op, via).await.verdict;
                    self.done.fetch_add(usize::from(verdict == Verdict::Done), Ordering::Relaxed);
                    self.sort(op.clone(), verdict);
                });
                futures_util::future::join_all(sending).await;
            }
            if !self.open.lock().unwrap().is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Arc::clone(self)
    }

    /// Sends some settled operations once more. The checker compares the answers
    /// with the first ones; returns those that were acknowledged and not marked as replays.
    pub async fn again(&self, count: usize) -> Vec<Answer> {
        let mut unmarked = Vec::new();
        let settled = std::mem::take(&mut *self.settled.lock().unwrap());
        let step = (settled.len() / count.max(1)).max(1);
        for (via, op) in settled.iter().step_by(step).enumerate() {
            let told = self.send(op, via).await;
            if told.verdict == Verdict::Done && !told.replayed {
                unmarked.push(told);
            }
        }
        unmarked
    }
}
