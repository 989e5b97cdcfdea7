//! The load: many workers against all instances. Every operation has a key of its own and carries
//! it into the events (`reference`, or the created wallet's owner), so that it can be found there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::journal::{Ask, Journal, Line, Verdict};
use crate::schedule::Draw;

/// After no answer or a "try again" a worker waits: a service that is down is not to be stormed.
const PAUSE: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(30);
/// All that is unknown must be settled within this time.
const SETTLE: Duration = Duration::from_secs(120);

/// Shared by all workers.
#[derive(Debug)]
pub struct Load {
    pub journal: Journal,
    pub workers: usize,
    /// Wallets that money moves between.
    pub wallets: u64,
    seed: u64,
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
    open: std::sync::Mutex<Vec<Op>>,
    settled: std::sync::Mutex<Vec<Op>>,
}

/// An operation that was sent.
#[derive(Debug, Clone)]
pub struct Op {
    key: String,
    keyed: bool,
    ask: Ask,
}

impl Load {
    pub fn new(
        journal: Journal,
        seed: u64,
        workers: usize,
        wallets: u64,
        bases: Vec<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            journal,
            workers,
            wallets,
            seed,
            done: AtomicUsize::new(0),
            acknowledged: bases.iter().map(|_| AtomicUsize::new(0)).collect(),
            bases,
            client: reqwest::Client::builder().timeout(TIMEOUT).build().unwrap(),
            next: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            open: std::sync::Mutex::default(),
            settled: std::sync::Mutex::default(),
        })
    }

    /// Opens the wallets and starts the workers.
    pub async fn start(self: &Arc<Self>) -> JoinSet<()> {
        for number in 0..self.wallets {
            let op = self.note(Ask::Create { wallet: self.wallet(number), amount: 5_000 }, true);
            let (verdict, body) = self.send(&op, 0, false).await;
            assert_eq!(verdict, Verdict::Done, "the service takes the first wallets: {body}");
            self.settled.lock().unwrap().push(op);
        }
        let mut workers = JoinSet::new();
        for worker in 0..self.workers {
            let load = Arc::clone(self);
            let mut draw = Draw(self.seed ^ ((worker as u64 + 1) << 40));
            workers.spawn(async move { load.work(&mut draw).await });
        }
        workers
    }

    async fn work(&self, draw: &mut Draw) {
        while !self.stopped.load(Ordering::Relaxed) {
            // Busy first: whoever pauses must not miss a worker that is about to begin.
            self.busy.fetch_add(1, Ordering::SeqCst);
            let calm = match self.paused.load(Ordering::SeqCst) {
                true => false,
                false => self.one(draw).await,
            };
            self.busy.fetch_sub(1, Ordering::SeqCst);
            tokio::time::sleep(if calm { Duration::from_millis(2) } else { PAUSE }).await;
        }
    }

    /// One operation; sometimes twice at once, sometimes with a strong read after it. True where
    /// it has a definite answer.
    async fn one(&self, draw: &mut Draw) -> bool {
        let ask = self.draw(draw);
        let keyed = draw.below(10) != 0;
        let op = self.note(ask, keyed);
        let via = self.via(draw);
        let (verdict, body) = if keyed && draw.below(16) == 0 {
            let (first, second) =
                tokio::join!(self.send(&op, via, false), self.send(&op, via + 1, false));
            if is_definite(&first.0) { first } else { second }
        } else {
            self.send(&op, via, false).await
        };
        let definite = is_definite(&verdict);
        match (definite, keyed) {
            (true, true) => self.settled.lock().unwrap().push(op),
            (false, true) => self.open.lock().unwrap().push(op),
            (_, false) => {}
        }
        self.done.fetch_add(usize::from(verdict == Verdict::Done), Ordering::Relaxed);
        if verdict == Verdict::Done && draw.below(8) == 0 {
            self.read(&body, self.via(draw)).await;
        }
        definite
    }

    /// Reads a wallet that an answer has just shown, from some instance.
    async fn read(&self, body: &str, via: usize) {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let shown = if answer["id"].is_string() { &answer } else { &answer["toWallet"] };
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
        let op = Op { key: format!("k-{:x}-{number}", self.seed), keyed, ask };
        let (key, ask) = (op.key.clone(), op.ask.clone());
        self.journal.note(&Line::Ask { at: self.journal.now(), key, keyed, ask });
        op
    }

    /// Sends an operation once, and notes what came of it.
    async fn send(&self, op: &Op, via: usize, again: bool) -> (Verdict, String) {
        let (path, body) = op.ask.request(&op.key);
        let begun = self.journal.now();
        let mut request = self.client.post(format!("{}{path}", self.base(via))).json(&body);
        if op.keyed {
            request = request.header("idempotency-key", &op.key);
        }
        let (mut status, mut retry_after, mut replayed) = (0, false, false);
        let body = match request.send().await {
            Err(error) => Err(format!("{error:?}")),
            Ok(answer) => {
                let has = |name: &str| answer.headers().contains_key(name);
                (status, retry_after) = (answer.status().as_u16(), has("retry-after"));
                replayed = has("idempotency-replayed");
                answer.text().await.map_err(|error| format!("{error:?}"))
            }
        };
        // An answer that broke off is none.
        let (body, whole) = match body {
            Ok(body) => (body, true),
            Err(error) => (error, false),
        };
        let status = if whole { status } else { 0 };
        let code = code_of(&body);
        let verdict = verdict(status, &code);
        if verdict == Verdict::Done && !again {
            self.acknowledged[via % self.bases.len()].fetch_add(1, Ordering::Relaxed);
        }
        self.journal.note(&Line::Answer {
            begun,
            at: self.journal.now(),
            key: op.key.clone(),
            verdict: verdict.clone(),
            status,
            code,
            retry_after,
            replayed,
            body: body.clone(),
        });
        (verdict, body)
    }

    fn base(&self, via: usize) -> &str {
        &self.bases[via % self.bases.len()]
    }

    fn via(&self, draw: &mut Draw) -> usize {
        usize::try_from(draw.below(self.bases.len() as u64)).unwrap()
    }

    pub fn wallet(&self, number: u64) -> String {
        format!("w-{:x}-{number}", self.seed)
    }

    /// The next operation: a few wallets are hot, some debits ask for too much, some creates are of
    /// a wallet that is there.
    fn draw(&self, draw: &mut Draw) -> Ask {
        let mut any = || {
            let hot = draw.below(4) == 0;
            self.wallet(draw.below(if hot { 2 } else { self.wallets }))
        };
        let (wallet, other) = (any(), any());
        let amount = 1 + i64::try_from(draw.below(4_000)).unwrap();
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

    pub fn acknowledged(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    pub fn acknowledged_by(&self, instance: usize) -> usize {
        self.acknowledged[instance].load(Ordering::Relaxed)
    }

    /// No operation is on its way until [`Self::resume`].
    pub async fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        crate::support::eventually("the workers pause", Duration::from_secs(60), async || {
            (self.busy.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
    }

    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    /// Ends the workers, then sends what has no definite answer until it has one.
    pub async fn settle(self: &Arc<Self>, workers: JoinSet<()>) {
        self.stopped.store(true, Ordering::Relaxed);
        workers.join_all().await;
        let begun = Instant::now();
        // What is left then is told by the checker.
        while begun.elapsed() < SETTLE {
            let open = std::mem::take(&mut *self.open.lock().unwrap());
            if open.is_empty() {
                return;
            }
            for chunk in open.chunks(self.workers) {
                let sending = chunk.iter().enumerate().map(|(via, op)| async move {
                    let (verdict, _) = self.send(op, via, false).await;
                    let list = if is_definite(&verdict) { &self.settled } else { &self.open };
                    list.lock().unwrap().push(op.clone());
                });
                futures_util::future::join_all(sending).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends some settled operations once more: they must be told the same again.
    pub async fn again(&self, count: usize) {
        let settled = std::mem::take(&mut *self.settled.lock().unwrap());
        let step = (settled.len() / count.max(1)).max(1);
        for (via, op) in settled.iter().step_by(step).enumerate() {
            self.send(op, via, true).await;
        }
    }
}

pub fn is_definite(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Done | Verdict::Refused)
}

fn code_of(body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn verdict(status: u16, code: &str) -> Verdict {
    match (status, code) {
        (201, _) => Verdict::Done,
        (503, "database_unavailable" | "wallet_busy") | (429, _) => Verdict::NotDone,
        (409, "idempotency_key_in_flight") => Verdict::NotDone,
        (400..500, code) if !code.is_empty() => Verdict::Refused,
        _ => Verdict::Unknown,
    }
}

impl Ask {
    /// Path and body. The key is what the operation is found by in the events.
    fn request(&self, key: &str) -> (String, Value) {
        let movement = |amount: &i64| json!({"amount": decimal(*amount), "reference": key});
        match self {
            Self::Create { wallet, amount } => {
                let opening = decimal(*amount);
                let body = json!({"walletId": wallet, "ownerId": key, "initialBalance": opening});
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

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
