//! Pending commands on their way through the lanes. Those that do not touch each other's wallets go at
//! once, in a *wave*; a command of several operations waits for those before it on its wallets, and
//! those after it wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;

use super::Shared;
use super::batch::Pending;
use crate::answer::{Answer, Failure, Marks, Outcome, Outcomes, Problem, Whole};
use crate::execute::{Context, Operation, Request};
use crate::wallet::{Command, WalletId};

/// What the lanes are asked for.
pub(super) enum Order {
    One(Operation),
    Many(Request),
}

/// The result that a command's sender gets.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub status: u16,
    pub body: Arc<str>,
    /// The first answer under the id, given again.
    pub replayed: bool,
}

/// A command that may be decided later.
pub(super) struct Undecided {
    pub failure: Failure,
    pub partly: Option<Decision>,
}

type Came = Result<Decision, Undecided>;

/// Commands that may run at once; each number is a place among the pending.
#[derive(Default)]
struct Wave<'a> {
    /// A request for each wallet.
    ones: BTreeMap<&'a WalletId, Vec<usize>>,
    many: Vec<usize>,
    of_ones: BTreeSet<&'a WalletId>,
    of_many: BTreeSet<&'a WalletId>,
}

/// Executes all that is pending; what each came to, in their order.
pub(super) async fn run(shared: &Shared, pending: &[Pending]) -> Vec<Came> {
    let mut came: Vec<Option<Came>> = pending.iter().map(|_| None).collect();
    // Wallets that something holds up, and what: nothing may overtake on them.
    let mut held_up: BTreeMap<WalletId, Failure> = BTreeMap::new();
    for wave in waves(pending) {
        let runs = wave.requests().map(|places| {
            let orders = places.iter().filter_map(|at| Some(&pending.get(*at)?.order));
            request(shared, orders.collect(), &held_up)
        });
        let answers = join_all(runs).await;
        for (places, answers) in wave.requests().zip(answers) {
            for (at, answer) in places.iter().zip(answers) {
                let waits = answer.as_ref().err().filter(|u| u.failure != Failure::Broken);
                if let (Some(undecided), Some(pending)) = (waits, pending.get(*at)) {
                    let wallets = pending.order.wallets().into_iter().cloned();
                    held_up.extend(wallets.map(|id| (id, undecided.failure.clone())));
                }
                if let Some(came) = came.get_mut(*at) {
                    *came = Some(answer);
                }
            }
        }
    }
    let broken = || Err(Undecided { failure: Failure::Broken, partly: None });
    came.into_iter().map(|came| came.unwrap_or_else(broken)).collect()
}

fn waves(pending: &[Pending]) -> Vec<Wave<'_>> {
    let mut waves: Vec<Wave<'_>> = Vec::new();
    for (at, pending) in pending.iter().enumerate() {
        if !waves.last().is_some_and(|wave| wave.takes(&pending.order)) {
            waves.push(Wave::default());
        }
        if let Some(wave) = waves.last_mut() {
            wave.add(at, &pending.order);
        }
    }
    waves
}

impl<'a> Wave<'a> {
    fn takes(&self, order: &Order) -> bool {
        let mut wallets = order.wallets().into_iter();
        match order {
            Order::One(_) => !wallets.any(|id| self.of_many.contains(id)),
            Order::Many(_) => {
                !wallets.any(|id| self.of_many.contains(id) || self.of_ones.contains(id))
            }
        }
    }

    fn add(&mut self, at: usize, order: &'a Order) {
        match order {
            Order::One(operation) => {
                self.ones.entry(operation.command.wallet_id()).or_default().push(at);
                self.of_ones.extend(order.wallets());
            }
            Order::Many(_) => {
                self.many.push(at);
                self.of_many.extend(order.wallets());
            }
        }
    }

    /// The places of each request.
    fn requests(&self) -> impl Iterator<Item = &[usize]> {
        self.ones.values().map(Vec::as_slice).chain(self.many.iter().map(std::slice::from_ref))
    }
}

impl Order {
    pub fn commands_mut(&mut self) -> impl Iterator<Item = &mut Command> {
        let operations = match self {
            Self::One(operation) => std::slice::from_mut(operation),
            Self::Many(request) => request.operations.as_mut_slice(),
        };
        operations.iter_mut().map(|operation| &mut operation.command)
    }

    fn wallets(&self) -> Vec<&WalletId> {
        fn of(operation: &Operation) -> Vec<&WalletId> {
            operation.command.footprint().wallets().collect()
        }
        match self {
            Self::One(operation) => of(operation),
            Self::Many(request) => request.operations.iter().flat_map(of).collect(),
        }
    }
}

/// One request to the lanes: what each of its commands came to.
async fn request(
    shared: &Shared,
    orders: Vec<&Order>,
    held_up: &BTreeMap<WalletId, Failure>,
) -> Vec<Came> {
    let mut wallets = orders.iter().flat_map(|order| order.wallets());
    if let Some(failure) = wallets.find_map(|id| held_up.get(id)) {
        let waits = |_: &&Order| Err(Undecided { failure: failure.clone(), partly: None });
        return orders.iter().map(waits).collect();
    }
    if let [Order::Many(request)] = orders.as_slice() {
        let outcomes = execute(shared, request.clone()).await;
        return vec![of_many(&outcomes, request)];
    }
    let ones = orders.into_iter().filter_map(|order| match order {
        Order::One(operation) => Some(operation.clone()),
        Order::Many(_) => None,
    });
    let (tenant, operations) = (shared.parts.tenant.clone(), ones.collect::<Vec<_>>());
    let contexts: Vec<Option<Context>> = operations.iter().map(|o| o.context.clone()).collect();
    let context = Context::default();
    let request = Request { tenant, operations, atomic: false, context, key: None, dry_run: false };
    let outcomes = execute(shared, request).await;
    outcomes.each.into_iter().zip(contexts).map(|(o, context)| of_one(o, context)).collect()
}

async fn execute(shared: &Shared, request: Request) -> Outcomes {
    let places = request.operations.len().min(shared.room_max);
    // The semaphore is never closed.
    let _room = shared.room.acquire_many(u32::try_from(places).unwrap_or(u32::MAX)).await.ok();
    shared.parts.executor.execute(request).await
}

fn of_one(outcome: Outcome, context: Option<Context>) -> Came {
    match outcome {
        Ok(reply) => {
            let Answer { status, body, .. } = Answer::of(&reply);
            Ok(Decision { status, body: body.into(), replayed: reply.replayed })
        }
        Err(failure) if failure.is_undecided() => Err(Undecided { failure, partly: None }),
        Err(failure) => {
            let id = context.map(|context| context.request_id).unwrap_or_default();
            Ok(told(failure.into(), &id))
        }
    }
}

/// As `POST /bulk` answers. A part that is not decided keeps the whole from having its one result.
fn of_many(outcomes: &Outcomes, request: &Request) -> Came {
    let id = &request.context.request_id;
    match outcomes.whole(request.atomic) {
        Some(Whole::Refused(problem)) => return Ok(told(problem, id)),
        Some(Whole::Undecided(failure)) => return Err(Undecided { failure, partly: None }),
        Some(Whole::Decided(reply)) => return of_one(Ok(reply), None),
        None => {}
    }
    let replayed = outcomes.each.iter().all(|o| o.as_ref().is_ok_and(|reply| reply.replayed));
    // Not marked: a result that is sent again is the same to the byte.
    let body = outcomes.results(Vec::new(), id, Marks::Nothing).into();
    let decision = Decision { status: 201, body, replayed };
    match outcomes.undecided().cloned() {
        None => Ok(decision),
        Some(failure) => Err(Undecided { failure, partly: Some(decision) }),
    }
}

fn told(problem: Problem, id: &str) -> Decision {
    let problem = problem.with_request_id(id);
    Decision { status: problem.status(), body: problem.to_json().into(), replayed: false }
}
