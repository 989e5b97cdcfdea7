//! The commands of a batch folded through `decide`, in arrival order, in memory.
//!
//! Each command sees what the ones before it did. Refusals leave no trace on their neighbours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::savepoint::Savepoint;
use super::{Context, Failure, Job, Key, Operation, Outcome, Outcomes, Reply, Request};
use crate::answer::{Answer, Problem};
use crate::envelope::partition_of;
use crate::request::place;
use crate::store::commands::{Kept, KeptAs, KeyWrite, Locked, Past, Taken, Writes};
use crate::wallet::{
    Command, Event, IdOrigin, NewEvent, Origin, Rejection, TenantId, Wallet, WalletId, decide,
};

/// What a batch comes to, before anything of it is written.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// One for each job; none where a wallet of the job was skipped.
    pub outcomes: Vec<Option<Outcomes>>,
    pub writes: Writes,
}

/// What was read after the locks.
#[derive(Debug)]
pub(super) struct Known {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Keys that are taken, by scope.
    pub taken: Taken,
    /// The events that their answers are made from.
    pub past: Past,
}

/// The state that the commands of one batch run over.
pub(super) struct Fold<'a> {
    pub(super) wallets: Locked,
    /// Wallets that exist and are locked by somebody else.
    skipped: &'a HashSet<WalletId>,
    pub(super) known: Known,
    tenant: &'a TenantId,
    partitions: i32,
    pub(super) touched: HashMap<WalletId, Touch>,
    /// Outcomes that this batch has given to keys.
    pub(super) given: HashMap<[u8; 16], ([u8; 16], Answer)>,
    pub(super) writes: Writes,
}

/// What a batch has done to a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    Opened,
    Moved,
}

/// An operation's outcome, and whether its key keeps it, where it has one.
pub(super) struct Decided {
    pub outcome: Outcome,
    pub is_kept: bool,
}

impl<'a> Fold<'a> {
    pub fn new(
        wallets: Locked,
        skipped: &'a HashSet<WalletId>,
        known: Known,
        tenant: &'a TenantId,
        partitions: i32,
    ) -> Self {
        let (touched, given, writes) = Default::default();
        Self { wallets, skipped, known, tenant, partitions, touched, given, writes }
    }

    /// Runs all jobs and hands over what is to be written.
    pub fn run(mut self, jobs: &[Job]) -> Folded {
        let outcomes = jobs.iter().map(|job| self.request(&job.request)).collect();
        for (id, touch) in &self.touched {
            let Some(wallet) = self.wallets.remove(id) else { continue };
            match touch {
                Touch::Opened => self.writes.opened.push(wallet),
                Touch::Moved => self.writes.moved.push(wallet),
            }
        }
        Folded { outcomes, writes: self.writes }
    }

    /// A request's operations in order; none of them where a wallet is held by somebody else.
    fn request(&mut self, request: &Request) -> Option<Outcomes> {
        if !self.skipped.is_empty() && request.wallets().any(|id| self.skipped.contains(id)) {
            return None;
        }
        let verdict = match self.judged(request) {
            Ok(verdict) => verdict,
            Err(outcomes) => return Some(outcomes),
        };
        let events = self.writes.events.len();
        let decided = match request.atomic {
            true => self.all_or_none(request),
            false => {
                let operations = request.operations.iter();
                operations.map(|operation| self.one(operation, &request.context)).collect()
            }
        };
        self.reserve(request, &decided, events);
        let each = decided.into_iter().map(|decided| decided.outcome).collect();
        Some(Outcomes { each, verdict })
    }

    /// Up to the first operation that is refused; then nothing of it has happened, and its refusal is
    /// that of the whole.
    fn all_or_none(&mut self, request: &Request) -> Vec<Decided> {
        let before = Savepoint::take(self, request);
        let count = request.operations.len();
        let mut all = Vec::with_capacity(count);
        for (at, operation) in request.operations.iter().enumerate() {
            let mut decided = self.one(operation, &request.context);
            let refusal = match &decided.outcome {
                Ok(reply) if reply.answer.status < 400 => {
                    all.push(decided);
                    continue;
                }
                Ok(reply) => Some(refusal_at(at, &reply.answer, &request.context)),
                Err(_) => None,
            };
            if let Some(answer) = refusal {
                decided.outcome = Ok(Reply { answer, replayed: false });
            }
            before.restore(self);
            let abandoned = || Decided { outcome: Err(Failure::Abandoned), is_kept: false };
            all.clear();
            all.resize_with(at, abandoned);
            all.push(decided);
            all.resize_with(count, abandoned);
            break;
        }
        all
    }

    fn one(&mut self, operation: &Operation, context: &Context) -> Decided {
        let command = &operation.command;
        let context = operation.context.as_ref().unwrap_or(context);
        if let Some(outcome) = self.known(operation) {
            return Decided { outcome, is_kept: true };
        }
        let transaction_id = Uuid::now_v7();
        let (answer, is_outcome) = match decide(command, |id| self.wallets.get(id)) {
            Ok(events) => (self.record(command, context, events, transaction_id), true),
            Err(rejection) => refused(&rejection, context),
        };
        let kept = |key: &&Key| is_outcome || key.keeps_refusals;
        if let Some(key) = operation.key.as_ref().filter(kept) {
            self.given.insert(key.scope, (key.fingerprint, answer.clone()));
            self.writes.keys.push(KeyWrite {
                scope: key.scope,
                fingerprint: key.fingerprint,
                transaction_id,
                status: i16::try_from(answer.status).unwrap_or(i16::MAX),
                kept: kept_as(command, &answer),
            });
        }
        Decided { outcome: Ok(Reply { answer, replayed: false }), is_kept: is_outcome }
    }

    /// The outcome that the operation's key has already, if it has one.
    fn known(&self, operation: &Operation) -> Option<Outcome> {
        let key = operation.key.as_ref()?;
        if let Some((fingerprint, answer)) = self.given.get(&key.scope) {
            return Some(if *fingerprint == key.fingerprint {
                Ok(Reply { answer: answer.clone(), replayed: true })
            } else {
                Err(Failure::KeyReused)
            });
        }
        let row = self.known.taken.get(&key.scope[..])?;
        if row.fingerprint != key.fingerprint {
            return Some(Err(Failure::KeyReused));
        }
        let answer = match &row.kept {
            Kept::Text(status, body) => Answer::stored(*status, body),
            Kept::Versions(first, second) => {
                match self.past_answer(&operation.command, row.transaction_id, *first, *second) {
                    Some(answer) => answer,
                    None => return Some(Err(Failure::Broken)),
                }
            }
            Kept::Dropped => {
                return Some(Err(Failure::KeyExpired { transaction_id: row.transaction_id }));
            }
        };
        Some(Ok(Reply { answer, replayed: true }))
    }

    /// The answer of a former success, made again.
    fn past_answer(
        &self,
        command: &Command,
        transaction_id: Uuid,
        first: i64,
        second: Option<i64>,
    ) -> Option<Answer> {
        let past = |id: &WalletId, version: i64| self.known.past.get(&(id.clone(), version));
        let wallet = past(command.wallet_id(), first)?;
        Some(match command {
            Command::Create(_) => Answer::wallet(wallet, None),
            Command::Credit(_) | Command::Debit(_) => Answer::wallet(wallet, Some(transaction_id)),
            Command::Transfer(order) => {
                Answer::transfer(transaction_id, wallet, past(&order.to, second?)?)
            }
        })
    }

    /// Applies decided events to the wallets in memory and notes what is to be written.
    fn record(
        &mut self,
        command: &Command,
        context: &Context,
        events: Vec<NewEvent>,
        transaction_id: Uuid,
    ) -> Answer {
        // One time for all events of a command, never below a wallet's previous event.
        let latest = events.iter().filter_map(|event| self.wallets.get(&event.wallet_id));
        let at = latest.map(|wallet| wallet.updated_at).fold(self.known.now, DateTime::max);
        let origin = Arc::new(Origin {
            actor: context.actor.clone(),
            correlation_id: context.correlation_id.clone(),
            causation_id: context.causation_id.clone(),
            traceparent: context.traceparent.clone(),
        });
        for NewEvent { wallet_id, version, body } in events {
            let event = Event {
                tenant: self.tenant.clone(),
                partition: partition_of(wallet_id.as_str(), self.partitions),
                wallet_id,
                version,
                event_id: Uuid::now_v7(),
                transaction_id,
                created_at: at,
                origin: Arc::clone(&origin),
                body,
            };
            self.apply(&event);
            self.writes.events.push(event);
        }
        self.answer(command, transaction_id)
    }

    /// Copies the state that the event left into its wallet.
    fn apply(&mut self, event: &Event) {
        let (id, at) = (&event.wallet_id, event.created_at);
        if let Some(wallet) = Wallet::opened(id.clone(), &event.body, at) {
            self.wallets.insert(id.clone(), wallet);
            self.touched.insert(id.clone(), Touch::Opened);
        } else if let Some(wallet) = self.wallets.get_mut(id) {
            wallet.apply(event.version, &event.body.after, at);
            self.touched.entry(id.clone()).or_insert(Touch::Moved);
        }
    }

    fn answer(&self, command: &Command, transaction_id: Uuid) -> Answer {
        let wallet = |id: &WalletId| self.wallets.get(id);
        let made = match command {
            Command::Create(create) => {
                wallet(&create.id.0).map(|wallet| Answer::wallet(wallet, None))
            }
            Command::Credit(movement) | Command::Debit(movement) => wallet(&movement.wallet_id)
                .map(|wallet| Answer::wallet(wallet, Some(transaction_id))),
            Command::Transfer(order) => wallet(&order.from)
                .zip(wallet(&order.to))
                .map(|(from, to)| Answer::transfer(transaction_id, from, to)),
        };
        // `decide` has seen each of these wallets.
        made.unwrap_or_else(|| Answer { status: 500, body: "".into(), versions: Vec::new() })
    }
}

/// As text only what cannot be made from events again.
fn kept_as(command: &Command, answer: &Answer) -> KeptAs {
    let made = matches!(command, Command::Create(create) if create.id.1 == IdOrigin::Made);
    match answer.versions.as_slice() {
        [(_, first)] if !made => KeptAs::Versions(*first, None),
        [(_, first), (_, second)] => KeptAs::Versions(*first, Some(*second)),
        _ => KeptAs::Text(answer.body.clone()),
    }
}

fn refused(rejection: &Rejection, context: &Context) -> (Answer, bool) {
    (Answer::rejection(rejection, &context.request_id), rejection.is_outcome())
}

/// An operation's refusal as that of the whole request, with its place.
fn refusal_at(at: usize, refusal: &Answer, context: &Context) -> Answer {
    let said = Problem::from_json(&refusal.body);
    let problem = Problem::at(said.code, place(at), said.detail);
    let body = problem.with_request_id(&context.request_id).to_json();
    Answer { body: body.into(), ..refusal.clone() }
}
