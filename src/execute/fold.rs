//! The commands of a batch decided in arrival order, in memory.
//!
//! Each command sees what the ones before it did. A refused command leaves nothing behind but what was
//! due on its wallets anyway.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use super::known_keys::KnownKeys;
use super::savepoint::Savepoint;
use super::{Context, Operation, QueuedRequest, Request};
use crate::answer::{Effect, Failure, Outcome, Outcomes, Refusal, Reply};
use crate::envelope::partition_of;
use crate::store::commands::{StoredAnswer, Writes};
use crate::wallet::{
    self, Command, Event, Footprint, NewEvent, Origin, Policy, TenantId, Wallet, WalletId, World,
};

/// What a batch comes to, before anything of it is written.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// One for each queued; none where a wallet of the queued is contended.
    pub outcomes: Vec<Option<Outcomes>>,
    pub writes: Writes,
}

/// The state that the commands of one tenant in one batch run over.
pub(super) struct Fold<'a> {
    pub(super) world: World,
    pub(super) keys: KnownKeys,
    /// Wallets that exist and that another transaction has locked.
    contended: HashSet<&'a WalletId>,
    rules: Rules,
    pub(super) tenant: &'a TenantId,
    partitions: i32,
    pub(super) touched: HashMap<WalletId, Touch>,
    pub(super) writes: Writes,
}

/// The domain, as the fold asks it.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub policy: Policy,
    /// What has to happen before a command, whatever becomes of it.
    pub due: fn(&Footprint<'_>, &World) -> Vec<NewEvent>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { policy: Policy::default(), due: wallet::due }
    }
}

/// How a batch writes a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    Insert,
    Update,
}

/// An operation's outcome, and whether its key keeps it, where it has one.
pub(super) struct Decided {
    pub outcome: Outcome,
    pub is_kept: bool,
}

/// Decides all requests in their order, each over the world of its tenant.
pub(super) fn fold<'a>(
    mut folds: HashMap<&'a TenantId, Fold<'a>>,
    requests: &[QueuedRequest],
) -> Folded {
    let outcomes = requests.iter().map(|queued| {
        let fold = folds.get_mut(&queued.request.tenant);
        fold.map_or_else(
            || Some(queued.all(&Failure::Broken)),
            |fold| fold.request(&queued.request),
        )
    });
    let outcomes = outcomes.collect();
    let mut writes = Writes::default();
    folds.into_values().for_each(|fold| writes.append(fold.finish()));
    Folded { outcomes, writes }
}

impl<'a> Fold<'a> {
    pub fn new(
        tenant: &'a TenantId,
        partitions: i32,
        world: World,
        keys: KnownKeys,
        contended: HashSet<&'a WalletId>,
    ) -> Self {
        let (touched, writes, rules) = Default::default();
        Self { world, keys, contended, rules, tenant, partitions, touched, writes }
    }

    /// Hands over what is to be written.
    fn finish(mut self) -> Writes {
        for (id, touch) in self.touched {
            let Some(wallet) = self.world.take(&id) else { continue };
            let wallet = (self.tenant.clone(), wallet);
            match touch {
                Touch::Insert => self.writes.inserted.push(wallet),
                Touch::Update => self.writes.updated.push(wallet),
            }
        }
        self.writes
    }

    /// A request's operations in order; none of them where one of its wallets is contended.
    pub fn request(&mut self, request: &Request) -> Option<Outcomes> {
        if !self.contended.is_empty() && request.wallets().any(|id| self.contended.contains(id)) {
            return None;
        }
        let verdict = match self.judged(request) {
            Ok(verdict) => verdict,
            Err(outcomes) => return Some(outcomes),
        };
        let decided = match request.atomic {
            true => self.all_or_none(request),
            false => {
                let operations = request.operations.iter();
                operations.map(|operation| self.one(operation, &request.context)).collect()
            }
        };
        self.reserve(request, &decided);
        let each = decided.into_iter().map(|decided| decided.outcome).collect();
        Some(Outcomes { each, verdict })
    }

    /// Up to the first operation that is refused; then nothing of the request has happened, and that
    /// refusal is the whole's. What was due happens before the savepoint, so that it stays.
    fn all_or_none(&mut self, request: &Request) -> Vec<Decided> {
        for operation in &request.operations {
            self.fall_due(&operation.command.footprint());
        }
        let before = Savepoint::take(self, request);
        let count = request.operations.len();
        let mut all = Vec::with_capacity(count);
        for (at, operation) in request.operations.iter().enumerate() {
            let mut decided = self.one(operation, &request.context);
            match &mut decided.outcome {
                Ok(Reply { result: Ok(_), .. }) => {
                    all.push(decided);
                    continue;
                }
                Ok(Reply { result: Err(refusal), replayed }) => {
                    // It is the whole's now, and this request is its first.
                    refusal.operation = Some(at);
                    refusal.request_id = request.context.request_id.as_str().into();
                    *replayed = false;
                }
                Err(_) => {}
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
        if let Some(key) = &operation.key
            && let Some(outcome) = self.keys.outcome(key, command)
        {
            return Decided { outcome, is_kept: true };
        }
        let footprint = command.footprint();
        self.fall_due(&footprint);
        let transaction_id = transaction_id(self.world.now);
        let (result, is_kept) = match wallet::decide(command, &self.world, &self.rules.policy) {
            Ok(decision) => {
                self.record(&footprint, context, decision.events, transaction_id);
                (Ok(self.effect(command, &footprint, transaction_id)), true)
            }
            Err(rejection) => {
                let is_kept = rejection.is_outcome();
                let request_id = context.request_id.as_str().into();
                (Err(Refusal { rejection, operation: None, request_id }), is_kept)
            }
        };
        if let Some(key) = operation.key.as_ref().filter(|key| is_kept || key.keeps_refusals) {
            let answer = stored(command, &result);
            self.keys.give(key, result.clone());
            self.writes.keys.push(key.write(self.tenant, transaction_id, answer));
        }
        Decided { outcome: Ok(Reply::new(result)), is_kept }
    }

    /// Lets happen what is due on the wallets, as an event of the system's own.
    fn fall_due(&mut self, footprint: &Footprint<'_>) {
        let events = (self.rules.due)(footprint, &self.world);
        if !events.is_empty() {
            let system = Context { actor: Some("system".to_owned()), ..Context::default() };
            self.record(footprint, &system, events, transaction_id(self.world.now));
        }
    }

    /// Applies events to the world and notes what is to be written.
    fn record(
        &mut self,
        footprint: &Footprint<'_>,
        context: &Context,
        events: Vec<NewEvent>,
        transaction_id: Uuid,
    ) {
        // One time for all events of a command.
        let created_at: DateTime<Utc> = self.world.at(footprint);
        let origin = Arc::new(Origin {
            actor: context.actor.clone(),
            correlation_id: context.correlation_id.clone(),
            causation_id: context.causation_id.clone(),
            traceparent: context.traceparent.clone(),
        });
        for NewEvent { wallet_id, version, body } in events {
            let touch = match self.world.wallet(&wallet_id) {
                Some(_) => Touch::Update,
                None => Touch::Insert,
            };
            self.touched.entry(wallet_id.clone()).or_insert(touch);
            let event = Event {
                tenant: self.tenant.clone(),
                partition: partition_of(wallet_id.as_str(), self.partitions),
                wallet_id,
                version,
                event_id: Uuid::now_v7(),
                transaction_id,
                created_at,
                origin: Arc::clone(&origin),
                body,
            };
            self.world.apply(&event);
            self.writes.events.push(event);
        }
    }

    fn effect(&self, command: &Command, footprint: &Footprint<'_>, transaction_id: Uuid) -> Effect {
        let wallets = footprint.wallets().filter_map(|id| self.world.wallet(id));
        let wallets: Vec<Wallet> = wallets.cloned().collect();
        Effect { op: command.op(), transaction_id, wallets }
    }
}

/// An id of the batch's time, not of this process's clock: events lie in the order of their transactions' ids,
/// by which transactions are found.
fn transaction_id(now: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos()))
}

/// What a key keeps of a command's answer: of an effect only what its events do not say.
fn stored(command: &Command, result: &Result<Effect, Refusal>) -> StoredAnswer {
    let effect = match result {
        Ok(effect) => effect,
        Err(refusal) => return StoredAnswer::Refusal(refusal.clone()),
    };
    let first = effect.wallets.first();
    StoredAnswer::Effect {
        version: first.map_or(0, |wallet| wallet.version),
        other_versions: effect.wallets.iter().skip(1).map(|wallet| wallet.version).collect(),
        wallet_id: first.filter(|_| command.has_generated_id()).map(|wallet| wallet.id.clone()),
    }
}

#[cfg(test)]
mod tests;
