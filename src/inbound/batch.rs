//! A chunk of records as commands: read, executed, and tried again at once where that may help.
//!
//! The commands of one wallet go to the lanes as one request, in their order, so that they share
//! their fate: none overtakes another that Postgres or a lock held up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use crate::answer::Problem;
use crate::execute::{Context, Failure, Key, Operation, Outcome, Request};
use crate::kafka::Fetched;
use crate::request::{Unread, WalletCommand, is_plain_id, is_traceparent};
use crate::store;
use crate::wallet::WalletId;

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
}

pub(super) enum Fate {
    /// A decided outcome, or one that the id had already.
    Answered { status: u16, body: Arc<str>, replayed: bool },
    /// No valid command.
    Invalid(Box<Unread>),
    /// Tried, and not decided: it may be later.
    Undecided(Problem),
}

/// A command that has no outcome yet.
struct Pending {
    at: usize,
    operation: Operation,
}

/// What becomes of `records`, in their order. None: told to stop; they will be read again.
pub(super) async fn settle<'a>(
    shared: &Shared,
    stage: usize,
    records: &'a [Fetched],
    stop: &CancellationToken,
) -> Option<Vec<Handled<'a>>> {
    let mut pending = Vec::new();
    let mut handled: Vec<Handled<'a>> = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let read = WalletCommand::parse(record.value.as_deref(), made_id);
        handled.push(match read {
            Ok(WalletCommand { id, command }) => {
                let context = context_of(&id, record);
                let key = Some(Key::of_inbound(&id, &command));
                let operation = Operation { command, key, context: Some(context.clone()) };
                pending.push(Pending { at, operation });
                // Stands until there is an outcome.
                let fate = Fate::Undecided(Failure::Unavailable.into());
                Handled { record, id: Some(id), context, fate }
            }
            Err(unread) => {
                let id = unread.id.clone();
                let context = context_of(id.as_deref().unwrap_or(""), record);
                Handled { record, id, context, fate: Fate::Invalid(unread) }
            }
        });
    }
    let (mut tries, mut pause) = (0, PAUSE);
    while !pending.is_empty() {
        let outcomes = run(shared, &pending).await;
        let mut undecided = Vec::new();
        for (pending, outcome) in pending.into_iter().zip(outcomes) {
            let Some(entry) = handled.get_mut(pending.at) else { continue };
            match outcome {
                Ok(reply) => {
                    let (status, body) = (reply.answer.status, reply.answer.body);
                    entry.fate = Fate::Answered { status, body, replayed: reply.replayed };
                }
                Err(failure @ (Failure::KeyReused | Failure::KeyExpired { .. })) => {
                    let problem = Problem::from(failure).with_request_id(&entry.context.request_id);
                    let (status, body) = (problem.status(), problem.to_json().into());
                    entry.fate = Fate::Answered { status, body, replayed: false };
                }
                Err(failure) => {
                    entry.fate = Fate::Undecided(failure.clone().into());
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
            stop.run_until_cancelled(sleep(pause)).await?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
    Some(handled)
}

/// Whether it is the service that cannot take commands, rather than these that cannot be decided:
/// then moving them to another topic would move all that follow as well.
async fn must_wait(shared: &Shared, undecided: &[(Pending, Failure)]) -> bool {
    let any = |wanted: &[Failure]| undecided.iter().any(|(_, failure)| wanted.contains(failure));
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

/// Executes all that is pending, a request for each wallet; outcomes in the order of `pending`.
async fn run(shared: &Shared, pending: &[Pending]) -> Vec<Outcome> {
    let mut wallets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, pending) in pending.iter().enumerate() {
        let wallet = pending.operation.command.wallet_id();
        wallets.entry(wallet.as_str()).or_default().push(place);
    }
    let places = u32::try_from(pending.len().min(shared.room_max)).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let _room = shared.room.acquire_many(places).await.ok();
    let requests = wallets.values().map(|places| {
        let chosen = places.iter().filter_map(|place| pending.get(*place));
        let operations: Vec<Operation> = chosen.map(|p| p.operation.clone()).collect();
        let tenant = shared.parts.tenant.clone();
        let context = Context::default();
        let request = Request { tenant, operations, atomic: false, context, key: None };
        shared.parts.executor.execute(request)
    });
    let answers = join_all(requests).await;
    let mut outcomes = vec![Err(Failure::Broken); pending.len()];
    for (places, answers) in wallets.values().zip(answers) {
        for (place, answer) in places.iter().zip(answers.each) {
            if let Some(outcome) = outcomes.get_mut(*place) {
                *outcome = answer;
            }
        }
    }
    outcomes
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

/// The id of a wallet whose caller gives none.
fn made_id() -> WalletId {
    WalletId::stored(&Uuid::now_v7().to_string())
}
