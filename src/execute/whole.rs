//! A key of a whole request. It has a row of its own beside those of the operations: written with the
//! first of them that is decided, and compared before each.
//!
//! | under the key | what happens |
//! |---|---|
//! | nothing | the request runs, and what is decided first takes the key in its own transaction |
//! | the same request | each operation that is done is answered again, the others are done |
//! | another request | none of it is done |
//!
//! A request that needs several transactions is therefore finished by its retry, and by no other
//! request, wherever it stopped. Of an atomic request that was refused the row keeps the refusal; else
//! it keeps the id of the request that came first.

use std::sync::Arc;

use uuid::Uuid;

use super::Request;
use super::fold::{Decided, Fold};
use super::known_keys::KeyState;
use crate::answer::{Failure, Outcomes, Reply, Verdict};
use crate::store::commands::StoredAnswer;

impl Fold<'_> {
    /// The request's outcomes, where its key knows them already; else what the key says of it.
    pub(super) fn judged(&self, request: &Request) -> Result<Verdict, Outcomes> {
        let Some(key) = &request.key else { return Ok(Verdict::New) };
        let count = request.operations.len();
        match self.keys.state_of(key, request.atomic) {
            KeyState::Free => Ok(Verdict::New),
            // An earlier part of this very request.
            KeyState::Taken { first } if *first == *request.context.request_id => Ok(Verdict::New),
            KeyState::Taken { first } => Ok(Verdict::Again { first }),
            KeyState::Refused(refusal) => {
                let verdict = Verdict::Again { first: "".into() };
                let abandoned = Outcomes::all(&Failure::Abandoned, count);
                let first = std::iter::once(Ok(Reply::again(Err(refusal))));
                let each = first.chain(abandoned.each).take(count).collect();
                Err(Outcomes { each, verdict })
            }
            KeyState::Forbidden(failure) => Err(Outcomes::refused(&failure, count)),
        }
    }

    /// Takes the request's key for what was just decided of it, unless it has it already.
    pub(super) fn reserve(&mut self, request: &Request, decided: &[Decided]) {
        let Some(key) = request.key.as_ref().filter(|key| !self.keys.is_taken(key)) else { return };
        let replies = || decided.iter().filter_map(|d| Some((d.outcome.as_ref().ok()?, d.is_kept)));
        let refusal = replies()
            .filter(|_| request.atomic)
            .find_map(|(reply, is_kept)| Some((reply.result.as_ref().err()?, is_kept)));
        let answer = match refusal {
            Some((refusal, is_kept)) if is_kept || key.keeps_refusals => {
                self.keys.give(key, Err(refusal.clone()));
                StoredAnswer::Refusal(refusal.clone())
            }
            // Nothing was done, and the caller can mend it.
            Some(_) => return,
            None if replies().next().is_none() => return,
            None => {
                let request_id: Arc<str> = request.context.request_id.as_str().into();
                self.keys.give_request(key, Arc::clone(&request_id));
                StoredAnswer::Request { request_id }
            }
        };
        let mut effects = replies().filter_map(|(reply, _)| reply.result.as_ref().ok());
        let first = effects.next().map(|effect| effect.transaction_id);
        let transaction_id = first.unwrap_or_else(Uuid::now_v7);
        self.writes.keys.push(key.write(self.tenant, transaction_id, answer));
    }
}
