//! Knows the keys of a batch: those that were taken before it, and those that it takes.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Key;
use crate::answer::{Effect, Failure, Kept, Outcome, Refusal, Reply};
use crate::store::commands::{StoredAnswer, StoredKeys};
use crate::wallet::{Command, Wallet, WalletId};

/// One tenant's keys in one batch.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    stored: StoredKeys,
    /// The wallets that stored effects speak of, as they were then.
    past: HashMap<(WalletId, i64), Wallet>,
    given: HashMap<[u8; 16], Given>,
}

/// What this batch has decided under a key.
#[derive(Debug, Clone)]
struct Given {
    fingerprint: [u8; 16],
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Command(Result<Effect, Refusal>),
    Request { first: Arc<str> },
}

/// What the key of a whole request says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeyState {
    Free,
    /// It is this request's, which came first under the id `first`; empty where that is not kept.
    Taken {
        first: Arc<str>,
    },
    /// An atomic request was refused.
    Refused(Refusal),
    /// It forbids the request.
    Forbidden(Failure),
}

impl KnownKeys {
    pub fn new(stored: StoredKeys, past: HashMap<(WalletId, i64), Wallet>) -> Self {
        Self { stored, past, given: HashMap::new() }
    }

    pub fn is_taken(&self, key: &Key) -> bool {
        self.given.contains_key(&key.scope) || self.stored.contains_key(&key.scope[..])
    }

    /// Notes the outcome of a command under its key.
    pub fn give(&mut self, key: &Key, result: Result<Effect, Refusal>) {
        let given = Given { fingerprint: key.fingerprint, what: What::Command(result) };
        self.given.insert(key.scope, given);
    }

    /// Notes that a request of several operations took its key.
    pub fn give_request(&mut self, key: &Key, first: Arc<str>) {
        let given = Given { fingerprint: key.fingerprint, what: What::Request { first } };
        self.given.insert(key.scope, given);
    }

    /// Undoes [`Self::give`].
    pub fn take_back(&mut self, scope: &[u8; 16]) {
        self.given.remove(scope);
    }

    /// The outcome that a command's key has already, if it has one.
    pub fn outcome(&self, key: &Key, command: &Command) -> Option<Outcome> {
        if let Some(given) = self.given.get(&key.scope) {
            return Some(match &given.what {
                _ if given.fingerprint != key.fingerprint => Err(Failure::KeyReused),
                What::Command(result) => Ok(Reply::again(result.clone())),
                What::Request { .. } => Err(Failure::Broken),
            });
        }
        let row = self.stored.get(&key.scope[..])?;
        if row.fingerprint != key.fingerprint {
            return Some(Err(Failure::KeyReused));
        }
        let transaction_id = row.transaction_id;
        Some(match &row.answer {
            StoredAnswer::Refusal(refusal) => Ok(Reply::again(Err(refusal.clone()))),
            StoredAnswer::Dropped => Err(Failure::KeyExpired { transaction_id }),
            StoredAnswer::Request { .. } => Err(Failure::Broken),
            answer @ StoredAnswer::Effect { .. } => {
                match self.effect(command, transaction_id, answer) {
                    Some(effect) => Ok(Reply::again(Ok(effect))),
                    // Its events are in an archive.
                    None => Err(Failure::KeyExpired { transaction_id }),
                }
            }
        })
    }

    /// A former effect, from the events of its versions.
    fn effect(
        &self,
        command: &Command,
        transaction_id: Uuid,
        answer: &StoredAnswer,
    ) -> Option<Effect> {
        if let StoredAnswer::Effect { text: Some(body), .. } = answer {
            let kept = Kept { body: Arc::clone(body), versions: named(command, answer).collect() };
            let effect = Effect::new(command.op(), transaction_id, Vec::new());
            return Some(Effect { kept: Some(kept), ..effect });
        }
        let past = |(id, version): (WalletId, i64)| self.past.get(&(id, version)).cloned();
        let wallets = versions_of(command, answer).map(past).collect::<Option<Vec<_>>>()?;
        Some(Effect::new(command.op(), transaction_id, wallets))
    }

    /// What the key of a whole request says.
    pub fn state_of(&self, key: &Key, atomic: bool) -> KeyState {
        if let Some(given) = self.given.get(&key.scope) {
            return match &given.what {
                _ if given.fingerprint != key.fingerprint => {
                    KeyState::Forbidden(Failure::KeyReused)
                }
                What::Request { first } => KeyState::Taken { first: Arc::clone(first) },
                What::Command(Err(refusal)) => KeyState::Refused(refusal.clone()),
                What::Command(Ok(_)) => KeyState::Forbidden(Failure::Broken),
            };
        }
        let Some(row) = self.stored.get(&key.scope[..]) else { return KeyState::Free };
        if row.fingerprint != key.fingerprint {
            return KeyState::Forbidden(Failure::KeyReused);
        }
        match &row.answer {
            StoredAnswer::Request { request_id } => {
                KeyState::Taken { first: Arc::clone(request_id) }
            }
            StoredAnswer::Refusal(refusal) => KeyState::Refused(refusal.clone()),
            StoredAnswer::Effect { .. } => KeyState::Forbidden(Failure::Broken),
            StoredAnswer::Dropped if atomic => {
                let transaction_id = row.transaction_id;
                KeyState::Forbidden(Failure::KeyExpired { transaction_id })
            }
            // The operations' own keys tell which of them were done.
            StoredAnswer::Dropped => KeyState::Taken { first: "".into() },
        }
    }
}

/// The wallets and versions that have to be read to answer a stored effect of the command again: none
/// where the answer itself is kept.
pub(super) fn versions_of(
    command: &Command,
    answer: &StoredAnswer,
) -> impl Iterator<Item = (WalletId, i64)> {
    let is_text = matches!(answer, StoredAnswer::Effect { text: Some(_), .. });
    named(command, answer).filter(move |_| !is_text)
}

/// The wallets and versions that a stored effect of the command speaks of, in the order of its
/// footprint.
fn named(command: &Command, answer: &StoredAnswer) -> impl Iterator<Item = (WalletId, i64)> {
    let (versions, generated) = match answer {
        StoredAnswer::Effect { version, other_versions, wallet_id, .. } => {
            let versions = std::iter::once(*version).chain(other_versions.iter().copied());
            (versions.collect(), wallet_id.as_ref())
        }
        _ => (Vec::new(), None),
    };
    let mut ids: Vec<WalletId> = command.footprint().wallets().cloned().collect();
    if let (Some(first), Some(id)) = (ids.first_mut(), generated) {
        first.clone_from(id);
    }
    ids.into_iter().zip(versions)
}

#[cfg(test)]
mod tests;
