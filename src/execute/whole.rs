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

use super::fold::{Decided, Fold};
use super::{Failure, Key, Outcomes, Reply, Request, Verdict};
use crate::answer::Answer;
use crate::store::commands::{Kept, KeptAs, KeyWrite};

/// What stands under the key.
pub(super) enum Standing {
    Free,
    Taken {
        first: Arc<str>,
    },
    /// An atomic request was refused.
    Answered(Reply),
    Forbidden(Failure),
}

impl Fold<'_> {
    /// What stands under a request's own key.
    pub(super) fn standing(&self, key: &Key, atomic: bool) -> Standing {
        let known = |status: u16, body: &str| match status {
            400.. => {
                Standing::Answered(Reply { answer: Answer::stored(status, body), replayed: true })
            }
            _ => Standing::Taken { first: body.into() },
        };
        if let Some((fingerprint, answer)) = self.given.get(&key.scope) {
            return match *fingerprint == key.fingerprint {
                true => known(answer.status, &answer.body),
                false => Standing::Forbidden(Failure::KeyReused),
            };
        }
        let Some(row) = self.known.taken.get(&key.scope[..]) else { return Standing::Free };
        if row.fingerprint != key.fingerprint {
            return Standing::Forbidden(Failure::KeyReused);
        }
        match &row.kept {
            Kept::Text(status, body) => known(*status, body),
            Kept::Versions(..) => Standing::Forbidden(Failure::Broken),
            Kept::Dropped if atomic => {
                Standing::Forbidden(Failure::KeyExpired { transaction_id: row.transaction_id })
            }
            // The operations' own keys tell which of them were done.
            Kept::Dropped => Standing::Taken { first: "".into() },
        }
    }

    /// The request's outcomes, where its key knows them already; else what the key says of it.
    pub(super) fn judged(&self, request: &Request) -> Result<Verdict, Outcomes> {
        let Some(key) = &request.key else { return Ok(Verdict::New) };
        let count = request.operations.len();
        match self.standing(key, request.atomic) {
            Standing::Free => Ok(Verdict::New),
            // An earlier part of this very request.
            Standing::Taken { first } if *first == *request.context.request_id => Ok(Verdict::New),
            Standing::Taken { first } => Ok(Verdict::Again { first }),
            Standing::Answered(reply) => {
                let verdict = Verdict::Again { first: "".into() };
                let abandoned = Outcomes::all(&Failure::Abandoned, count);
                let each = std::iter::once(Ok(reply)).chain(abandoned.each).take(count).collect();
                Err(Outcomes { each, verdict })
            }
            Standing::Forbidden(failure) => Err(Outcomes::refused(&failure, count)),
        }
    }

    /// Takes the request's key for what was just decided of it, unless it has it already. `events`: how
    /// many there were before.
    pub(super) fn reserve(&mut self, request: &Request, decided: &[Decided], events: usize) {
        let Some(key) = &request.key else { return };
        if self.given.contains_key(&key.scope) || self.known.taken.contains_key(&key.scope[..]) {
            return;
        }
        let answers = || decided.iter().filter_map(|d| Some((d.outcome.as_ref().ok()?, d.is_kept)));
        let refusal = answers().find(|(reply, _)| request.atomic && reply.answer.status >= 400);
        let answer = match refusal {
            Some((reply, is_kept)) if is_kept || key.keeps_refusals => reply.answer.clone(),
            // Nothing was done, and the caller can mend it.
            Some(_) => return,
            None if answers().next().is_none() => return,
            None => {
                let body = request.context.request_id.as_str().into();
                Answer { status: 201, body, versions: Vec::new() }
            }
        };
        let first = self.writes.events.get(events).map(|event| event.transaction_id);
        self.writes.keys.push(KeyWrite {
            scope: key.scope,
            fingerprint: key.fingerprint,
            transaction_id: first.unwrap_or_else(Uuid::now_v7),
            status: i16::try_from(answer.status).unwrap_or(i16::MAX),
            kept: KeptAs::Text(answer.body.clone()),
        });
        self.given.insert(key.scope, (key.fingerprint, answer));
    }
}
