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
    self, Command, Event, Facts, Features, Footprint, NewEvent, Origin, Policy, Rejection,
    TenantId, Wallet, WalletId, World,
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
    pub(super) touched_holds: HashMap<Uuid, Touch>,
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

/// How a batch writes a wallet or a hold.
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
        let (touched, touched_holds, writes, rules) = Default::default();
        Self { world, keys, contended, rules, tenant, partitions, touched, touched_holds, writes }
    }

    /// The same by other rules than the usual.
    pub fn by(self, policy: Policy) -> Self {
        Self { rules: Rules { policy, ..self.rules }, ..self }
    }

    /// Hands over what is to be written.
    fn finish(mut self) -> Writes {
        for (id, touch) in self.touched_holds {
            let Some(hold) = self.world.hold(id).cloned() else { continue };
            let hold = (self.tenant.clone(), hold);
            match touch {
                Touch::Insert => self.writes.placed.push(hold),
                Touch::Update => self.writes.changed_holds.push(hold),
            }
        }
        for (id, touch) in self.touched {
            self.writes.wide |= self.world.is_rewritten(&id);
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
        if request.dry_run {
            return Some(self.tried(request));
        }
        let verdict = match self.judged(request) {
            Ok(verdict) => verdict,
            Err(outcomes) => return Some(outcomes),
        };
        let decided = self.decided(request);
        self.reserve(request, &decided);
        let each = decided.into_iter().map(|decided| decided.outcome).collect();
        Some(Outcomes { each, verdict })
    }

    /// What the request would come to: nothing of it happens, what is due included, and no key is asked.
    fn tried(&mut self, request: &Request) -> Outcomes {
        let before = Savepoint::take(self, request);
        let decided = self.decided(request);
        before.restore(self);
        Outcomes::new(decided.into_iter().map(|decided| decided.outcome).collect())
    }

    fn decided(&mut self, request: &Request) -> Vec<Decided> {
        match request.atomic {
            true => self.all_or_none(request),
            false => {
                let operations = request.operations.iter();
                operations.map(|operation| self.one(operation, &request.context)).collect()
            }
        }
    }

    /// Up to the first operation that is refused; then nothing of the request has happened, and that
    /// refusal is the whole's. What was due happens before the savepoint, so that it stays.
    fn all_or_none(&mut self, request: &Request) -> Vec<Decided> {
        if request.operations.iter().any(|o| wallet::overdue(&o.command, &self.world)) {
            let busy = || Decided { outcome: Err(Failure::WalletBusy), is_kept: false };
            return request.operations.iter().map(|_| busy()).collect();
        }
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
        if wallet::overdue(command, &self.world) {
            return Decided { outcome: Err(Failure::WalletBusy), is_kept: false };
        }
        self.fall_due(&footprint);
        let transaction_id = transaction_id(self.world.now);
        let (result, is_kept) = match wallet::decide(command, &self.world, &self.rules.policy) {
            Ok(decision) => {
                self.record(&footprint, context, decision.events, transaction_id);
                self.note_schedule(command);
                (Ok(self.effect(command, &footprint, transaction_id)), true)
            }
            Err(Rejection::Unlocked { .. }) => {
                return Decided { outcome: Err(Failure::WalletBusy), is_kept: false };
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
            for event in events {
                self.record(footprint, &system, vec![event], transaction_id(self.world.now));
            }
        }
    }

    /// A wallet on which nothing was due after all is written, so that nobody looks again too early.
    fn note_schedule(&mut self, command: &Command) {
        if let Command::Touch(id) = command
            && self.world.is_rewritten(id)
        {
            self.touched.entry(id.clone()).or_insert(Touch::Update);
            self.writes.touched_only = true;
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
        for NewEvent { wallet_id, version, mut body } in events {
            if let Facts::Status { actor, .. } = &mut body.facts {
                actor.clone_from(&context.actor);
            }
            if let Some(hold) = body.facts.hold_id() {
                let known = self.world.hold(hold).is_some();
                let touch = if known { Touch::Update } else { Touch::Insert };
                self.touched_holds.entry(hold).or_insert(touch);
            }
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
        let hold = footprint.needs().hold.and_then(|id| self.world.hold(id));
        let hold = hold.map(|hold| Box::new(hold.clone()));
        Effect { hold, ..Effect::new(command.op(), transaction_id, wallets) }
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
    let is_text = effect.hold.is_some()
        || effect
            .wallets
            .iter()
            .any(|wallet| wallet.upkeep.features.has(Features::NOT_REBUILDABLE));
    StoredAnswer::Effect {
        text: is_text.then(|| effect.body().into()),
        version: first.map_or(0, |wallet| wallet.version),
        other_versions: effect.wallets.iter().skip(1).map(|wallet| wallet.version).collect(),
        wallet_id: first.filter(|_| command.has_generated_id()).map(|wallet| wallet.id.clone()),
    }
}

#[cfg(test)]
mod tests;
