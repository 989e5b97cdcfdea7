//! What becomes of a request, and how one with several operations is answered as a whole: the same
//! over HTTP and by Kafka.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Answer, Failure, Outcome, Problem, Refusal, Reply, of_dry_run};
use crate::wallet::WalletId;

/// One outcome for each operation of a request, in their order, and what the request's own key said.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    pub each: Vec<Outcome>,
    pub verdict: Verdict,
}

/// What a key of the whole request said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It was free, or there is none.
    #[default]
    New,
    /// It is this request's, sent before under the id `first`; empty where that is no longer kept.
    Again { first: Arc<str> },
    /// It forbids the request: each operation failed for that.
    Refused,
}

/// What the results of operations say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// A replay says that it is one.
    Replays,
    /// Nothing: what is sent again is the same to the byte.
    Nothing,
    /// None of them has happened.
    DryRun,
}

/// Why a request was not answered operation by operation.
#[derive(Debug, Clone)]
pub enum Whole {
    /// It was refused, and its key may keep the refusal.
    Decided(Reply),
    /// It was refused, and nothing of it is kept.
    Refused(Problem),
    /// None of it was decided: the same again may be.
    Undecided(Failure),
}

impl Outcomes {
    /// Without a key that had to say something.
    pub fn new(each: Vec<Outcome>) -> Self {
        Self { each, verdict: Verdict::New }
    }

    pub fn all(failure: &Failure, count: usize) -> Self {
        Self::new(vec![Err(failure.clone()); count])
    }

    /// The request's key forbids all of it.
    pub fn refused(failure: &Failure, count: usize) -> Self {
        Self { verdict: Verdict::Refused, ..Self::all(failure, count) }
    }

    /// The parts of a request that ran one by one. A key that refuses one of them has refused all: the
    /// first that is done reserves it.
    pub fn gathered(parts: Vec<Self>) -> Self {
        let mut whole = Self::new(Vec::with_capacity(parts.len()));
        for part in parts {
            whole.each.extend(part.each);
            if whole.verdict != Verdict::Refused && part.verdict != Verdict::New {
                whole.verdict = part.verdict;
            }
        }
        whole
    }

    /// The only outcome of a request with one operation.
    pub fn only(mut self) -> Outcome {
        self.each.pop().unwrap_or(Err(Failure::Broken))
    }

    /// Every operation has the answer that it had before, under the request's own key.
    pub fn is_replay(&self) -> bool {
        let replayed = |outcome: &Outcome| match outcome {
            Ok(reply) => reply.replayed,
            // Beside the refusal of an atomic request.
            Err(failure) => *failure == Failure::Abandoned,
        };
        matches!(self.verdict, Verdict::Again { .. }) && self.each.iter().all(replayed)
    }

    /// The id of the request that these are the answers of.
    pub fn request_id<'a>(&'a self, this: &'a str) -> &'a str {
        match &self.verdict {
            Verdict::Again { first } if !first.is_empty() => first,
            _ => this,
        }
    }

    /// The one answer to the whole request, where it has no results of its operations.
    pub fn whole(&self, atomic: bool) -> Option<Whole> {
        let failures = || self.each.iter().filter_map(|outcome| outcome.as_ref().err());
        let first = failures().next();
        if let (Verdict::Refused, Some(failure)) =
            (&self.verdict, failures().find(|failure| !failure.is_undecided()))
        {
            return Some(Whole::Refused(failure.clone().into()));
        }
        if atomic {
            return self.each.iter().enumerate().find_map(|(at, outcome)| failure_at(at, outcome));
        }
        let first = first.filter(|_| failures().count() == self.each.len())?;
        let is_expired = |failure: &Failure| matches!(failure, Failure::KeyExpired { .. });
        let again = matches!(self.verdict, Verdict::Again { .. });
        if again && failures().all(is_expired) {
            return Some(Whole::Refused(first.clone().into()));
        }
        let alike = first.is_undecided() && failures().all(|failure| failure == first);
        alike.then(|| Whole::Undecided(first.clone()))
    }

    /// The first operation that has no outcome yet.
    pub fn undecided(&self) -> Option<&Failure> {
        { self.each.iter() }.filter_map(|o| o.as_ref().err()).find(|f| f.is_undecided())
    }

    /// `{"results": […]}` in the order of the operations, with those among them that could not be read.
    pub fn results(&self, unread: Vec<(usize, Problem)>, this: &str, marks: Marks) -> String {
        let mut results = String::with_capacity(400 * (self.each.len() + unread.len()));
        let (mut outcomes, mut unread) = (self.each.iter(), unread.into_iter().peekable());
        let is_tried = marks == Marks::DryRun;
        results.push_str(if is_tried {
            r#"{"dryRun":true,"results":["#
        } else {
            r#"{"results":["#
        });
        for at in 0.. {
            let comma = if at == 0 { "" } else { "," };
            if let Some((_, problem)) = unread.next_if(|(place, _)| *place == at) {
                push_problem(&mut results, comma, problem, self.request_id(this));
                continue;
            }
            match outcomes.next() {
                None => break,
                Some(Err(failure)) => {
                    push_problem(&mut results, comma, failure.clone().into(), this);
                }
                Some(Ok(reply)) => {
                    let is_marked = reply.replayed && marks == Marks::Replays;
                    let replayed = if is_marked { r#""replayed":true,"# } else { "" };
                    let answer = Answer::of(reply);
                    let answer = if is_tried { of_dry_run(answer) } else { answer };
                    let Answer { status, body, .. } = answer;
                    // Writing into a string cannot fail.
                    let _ =
                        write!(results, r#"{comma}{{"status":{status},{replayed}"body":{body}}}"#);
                }
            }
        }
        results.push_str("]}");
        results
    }

    /// Wallets and the versions that the answers speak of.
    pub fn versions(&self) -> Vec<(WalletId, i64)> {
        let replies = self.each.iter().filter_map(|outcome| outcome.as_ref().ok());
        let effects = replies.filter_map(|reply| reply.result.as_ref().ok());
        effects.flat_map(|effect| effect.versions()).collect()
    }
}

/// What undid an atomic request: the refusal of the operation at a place, or its failure.
fn failure_at(at: usize, outcome: &Outcome) -> Option<Whole> {
    let failure = match outcome {
        Ok(Reply { result: Ok(_), .. }) | Err(Failure::Abandoned) => return None,
        Ok(Reply { result: Err(refusal), replayed }) => {
            // A replay has it already, and comes first whichever operation it was.
            let operation = refusal.operation.or(Some(at));
            let refusal = Refusal { operation, ..refusal.clone() };
            return Some(Whole::Decided(Reply { result: Err(refusal), replayed: *replayed }));
        }
        Err(failure) => failure.clone(),
    };
    Some(match failure.is_undecided() {
        true => Whole::Undecided(failure),
        false => Whole::Refused(Problem::from(failure).of_operation(at)),
    })
}

fn push_problem(results: &mut String, comma: &str, problem: Problem, request_id: &str) {
    let status = problem.status();
    let body = problem.with_request_id(request_id).to_json();
    let _ = write!(results, r#"{comma}{{"status":{status},"body":{body}}}"#);
}
