//! A chunk of records as commands: read, executed, and tried again at once where that may help.
//!
//! The commands of one wallet go to the lanes as one request, in their order, so that they share
//! their fate: none overtakes another that Postgres or a lock held up.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::waves::{self, Decision, Order, Undecided};
use crate::answer::{Failure, Problem};
use crate::backoff::Backoff;
use crate::execute::{Context, Key, Operation, Request, generate_wallet_id};
use crate::kafka::Fetched;
use crate::request::{Commanded, InvalidCommand, WalletCommand, is_plain_id, is_traceparent};
use crate::store;

/// How often a command of `wallet-commands` is tried before it is moved to a retry topic. With the
/// time that a lock is waited for, about seven seconds.
const TRIES: u32 = 3;
/// Pause between two tries, doubled up to the second.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Postgres is there when it answers within this.
const PING: Duration = Duration::from_secs(2);

/// A record, and what became of it.
pub(super) struct Handled<'a> {
    pub record: &'a Fetched,
    /// Of the command, where it could be read.
    pub id: Option<String>,
    pub context: Context,
    pub fate: Fate,
    /// Not decided, and not to be tried from another topic: a dead letter.
    pub is_set_aside: bool,
}

pub(super) enum Fate {
    /// A decided outcome, or one that the id had already.
    Answered(Decision),
    /// No valid command.
    Invalid(Box<InvalidCommand>),
    /// Tried, and not decided: it may be later.
    Undecided {
        problem: Problem,
        /// What a command of several operations came to, where some of them are decided.
        partly: Option<Decision>,
    },
}

/// A command that has no outcome yet.
pub(super) struct Pending {
    at: usize,
    pub order: Order,
}

/// What becomes of `records`, in their order. None: the task is being stopped; they will be read again.
pub(super) async fn execute_chunk<'a>(
    shared: &Shared,
    stage: usize,
    records: &'a [Fetched],
    stop: &CancellationToken,
) -> Option<Vec<Handled<'a>>> {
    let mut pending = Vec::new();
    let mut handled: Vec<Handled<'a>> = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let read = WalletCommand::parse(record.value.as_deref(), generate_wallet_id);
        handled.push(match read {
            Ok(WalletCommand { id, what }) => {
                let context = context_of(&id, record);
                pending.push(Pending { at, order: order(shared, &id, what, context.clone()) });
                // Stands until there is an outcome.
                let fate = Fate::Undecided { problem: Failure::Unavailable.into(), partly: None };
                Handled { record, id: Some(id), context, fate, is_set_aside: false }
            }
            Err(unread) => {
                let id = unread.id.clone();
                let context = context_of(id.as_deref().unwrap_or(""), record);
                Handled { record, id, context, fate: Fate::Invalid(unread), is_set_aside: false }
            }
        });
    }
    let (mut tries, mut backoff) = (0, Backoff::new(PAUSE, PAUSE_MAX));
    while !pending.is_empty() {
        find_destinations(shared, &mut pending).await;
        let outcomes = waves::run(shared, &pending).await;
        let mut undecided = Vec::new();
        for (pending, outcome) in pending.into_iter().zip(outcomes) {
            let Some(entry) = handled.get_mut(pending.at) else { continue };
            match outcome {
                Ok(decision) => entry.fate = Fate::Answered(decision),
                Err(Undecided { failure, partly }) => {
                    entry.fate = Fate::Undecided { problem: failure.clone().into(), partly };
                    undecided.push((pending, failure));
                }
            }
        }
        let counts = !undecided.is_empty() && !must_wait(shared, &undecided).await;
        if counts {
            tries += 1;
            // A retry topic has waited already.
            if stage > 0 || tries >= TRIES {
                break;
            }
        }
        pending = undecided.into_iter().map(|(pending, _)| pending).collect();
        if !pending.is_empty() {
            stop.run_until_cancelled(sleep(backoff.fail())).await?;
        }
    }
    Some(handled)
}

/// Tells captures where their money goes, so that it is locked with the rest. What is not found is looked
/// for again with the next try: a capture without it is not decided.
async fn find_destinations(shared: &Shared, pending: &mut [Pending]) {
    let (homes, tenant) = (shared.parts.executor.homes(), &shared.parts.tenant);
    let commands = |pending: &mut [Pending]| {
        let commands = pending.iter_mut().flat_map(|pending| pending.order.commands_mut());
        homes.fill(tenant, commands)
    };
    let unknown = commands(pending);
    if unknown.is_empty() {
        return;
    }
    let Ok(mut connection) = shared.parts.pool.acquire().await else { return };
    if homes.learn(&mut connection, tenant, &unknown).await.is_ok() {
        commands(pending);
    }
}

/// Whether it is the service that cannot take commands, rather than these that cannot be decided:
/// then moving them to another topic would move all that follow as well.
async fn must_wait(shared: &Shared, undecided: &[(Pending, Failure)]) -> bool {
    let any = |wanted: &[Failure]| undecided.iter().any(|(_, failure)| wanted.contains(failure));
    if any(&[Failure::Schema]) {
        shared.report_error("the schema does not fit this build: commands wait in their topic");
        return true;
    }
    if any(&[Failure::Overloaded]) {
        shared.report_error("the lanes are full: commands wait in their topic");
        return true;
    }
    if !any(&[Failure::Unavailable, Failure::OutcomeUnknown]) {
        return false;
    }
    let is_away = !matches!(timeout(PING, store::ping(&shared.parts.pool)).await, Ok(Ok(())));
    if is_away {
        shared.report_error("Postgres is away: commands wait in their topic");
    }
    is_away
}

/// What the lanes are asked for.
fn order(shared: &Shared, id: &str, what: Commanded, context: Context) -> Order {
    let (atomic, operations, parsed) = match what {
        Commanded::One(command) => {
            let key = Some(Key::of_inbound(id, &command));
            return Order::One(Operation { command, key, context: Some(context) });
        }
        Commanded::Many { atomic, operations, parsed } => (atomic, operations, parsed),
    };
    let operations = operations.into_iter().enumerate().map(|(at, command)| {
        let key = Some(Key::of_inbound_place(id, at, &command));
        Operation { command, key, context: None }
    });
    let (tenant, operations) = (shared.parts.tenant.clone(), operations.collect());
    let key = Some(Key::of_inbound_bulk(id, &parsed));
    Order::Many(Request { tenant, operations, atomic, context, key, dry_run: false })
}

/// What events and problems record of a command: the command is their cause.
fn context_of(id: &str, record: &Fetched) -> Context {
    let header = |name: &str| {
        let bytes = record.headers.get(name)?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    let correlation_id = header("correlation-id").filter(|value| is_plain_id(value));
    Context {
        request_id: id.to_owned(),
        actor: None,
        correlation_id: Some(correlation_id.unwrap_or_else(|| id.to_owned())),
        causation_id: Some(id.to_owned()),
        traceparent: header("traceparent").filter(|value| is_traceparent(value)),
    }
}
