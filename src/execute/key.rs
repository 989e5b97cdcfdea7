//! Idempotency keys: what they cover and how they are kept.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::{Uuid, Variant};

use crate::request::Parsed;
use crate::store::commands::{KeyWrite, StoredAnswer};
use crate::wallet::{Command, Op, TenantId};

/// The namespace of inbound commands' ids: no route has it.
const INBOUND: [&str; 2] = ["KAFKA", "wallet-commands"];

/// A caller's key, reduced to what is stored: the hash of its scope, and that of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// First 16 bytes of SHA-256 over method, route with decoded ids, and key. The tenant leads
    /// the table's primary key and is no part of it.
    pub scope: [u8; 16],
    /// The time that the caller's key names, where it is a version 7 UUID: rows of such keys lie by month, in
    /// their order. It follows from the key alone, so that a retry finds the place of the first.
    pub keyed_at: Option<DateTime<Utc>>,
    /// First 16 bytes of SHA-256 over the parsed command: formatting does not matter.
    pub fingerprint: [u8; 16],
    /// Every refusal is kept, not only those that its state decides: the caller reads one answer
    /// and cannot ask again.
    pub keeps_refusals: bool,
}

impl Key {
    /// The caller's `key` over `command`. Its scope is the single route of the command, whatever
    /// way it came in: a retry through another one finds the first.
    pub fn new(key: &str, command: &Command) -> Self {
        let route = route(command);
        let parts = route.iter().map(|part| &**part).chain([key]);
        Self::scoped(key, parts, &parsed(command), false)
    }

    /// The caller's `key` over all operations of a request: one fingerprint for the whole of it.
    pub fn of_bulk(key: &str, whole: &Parsed) -> Self {
        Self::scoped(key, ["POST", "/bulk", key].into_iter(), whole.as_bytes(), false)
    }

    /// Of an operation that has no key of its own, in a request that has one. The request's has been
    /// compared before, so the place is enough to tell which operation it is. Its scope is no single
    /// route's: whatever a caller calls its own keys, none of them is a place's. Its refusals are
    /// kept with those of the others: a request is answered once.
    pub fn of_place(key: &str, at: usize, command: &Command) -> Self {
        let at = at.to_string();
        Self::scoped(key, ["POST", "/bulk", key, &at].into_iter(), &parsed(command), true)
    }

    /// The id of an inbound command. One scope for all wallets and operations, and none that a
    /// route has: an id has one effect for ever, and no key of an HTTP request can be in its way.
    pub fn of_inbound(id: &str, command: &Command) -> Self {
        Self::scoped(id, INBOUND.into_iter().chain([id]), &parsed(command), true)
    }

    /// The id of an inbound command with several operations, in the scope of all ids.
    pub fn of_inbound_bulk(id: &str, whole: &Parsed) -> Self {
        Self::scoped(id, INBOUND.into_iter().chain([id]), whole.as_bytes(), true)
    }

    /// Of an operation of such a command.
    pub fn of_inbound_place(id: &str, at: usize, command: &Command) -> Self {
        let at = at.to_string();
        Self::scoped(id, INBOUND.into_iter().chain([id, &at]), &parsed(command), true)
    }

    /// The row that keeps the key with its answer.
    pub(super) fn write(
        &self,
        tenant: &TenantId,
        transaction_id: Uuid,
        answer: StoredAnswer,
    ) -> KeyWrite {
        let Self { scope, keyed_at, fingerprint, .. } = *self;
        KeyWrite { tenant: tenant.clone(), scope, keyed_at, fingerprint, transaction_id, answer }
    }

    fn scoped<'a>(
        key: &str,
        parts: impl Iterator<Item = &'a str>,
        parsed: &[u8],
        keeps_refusals: bool,
    ) -> Self {
        let mut scope = Sha256::new();
        for part in parts {
            // Length first: parts cannot run into each other.
            scope.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            scope.update(part.as_bytes());
        }
        let (scope, fingerprint) = (first_16(&scope.finalize()), first_16(&Sha256::digest(parsed)));
        Self { scope, keyed_at: named_time(key), fingerprint, keeps_refusals }
    }
}

/// The milliseconds that a version 7 UUID begins with. Only as it is commonly written: of other texts, as of one
/// without hyphens, none may come to lie by time and be looked for elsewhere later.
fn named_time(key: &str) -> Option<DateTime<Utc>> {
    let is_hyphenated = key.len() == 36 && key.as_bytes().get(8) == Some(&b'-');
    let uuid = is_hyphenated.then(|| Uuid::try_parse(key).ok()).flatten()?;
    let is_version_7 = uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122;
    let millis = i64::try_from(uuid.as_u128() >> 80).ok()?;
    is_version_7.then(|| DateTime::from_timestamp_millis(millis)).flatten()
}

fn parsed(command: &Command) -> Vec<u8> {
    serde_json::to_vec(command).unwrap_or_default()
}

/// Method and path with decoded ids, so that one key under two routes is two keys. A hold has the same
/// scope whichever of its routes names it.
fn route(command: &Command) -> Vec<Cow<'_, str>> {
    let hold = || command.footprint().needs().hold.unwrap_or_default().to_string();
    match command.op() {
        Op::Create => vec!["POST".into(), "/wallets".into()],
        op @ (Op::Adjust | Op::Capture | Op::Release) => {
            vec!["POST".into(), "/holds".into(), hold().into(), op.as_str().into()]
        }
        Op::Metadata => {
            vec!["PATCH".into(), "/wallets".into(), command.wallet_id().as_str().into()]
        }
        op => {
            let word = if op == Op::Hold { "holds" } else { op.as_str() };
            let wallet = command.wallet_id().as_str();
            vec!["POST".into(), "/wallets".into(), wallet.into(), word.into()]
        }
    }
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk::<16>().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_7_uuid_as_it_is_commonly_written_names_its_time() {
        let at = "2026-12-05T08:30:00.123Z".parse::<DateTime<Utc>>().unwrap();
        let millis = u128::try_from(at.timestamp_millis()).unwrap();
        let uuid = Uuid::from_u128((millis << 80) | (0x7abc << 64) | (0x8 << 60) | 0x1234);
        let text = uuid.hyphenated().to_string();
        assert_eq!(named_time(&text), Some(at), "{text}");
        assert_eq!(named_time(&text.to_uppercase()), Some(at));
        let far = Uuid::from_u128((u128::from(u64::MAX) << 80) | (0x7000 << 64) | (0x8 << 60));
        assert!(named_time(&far.hyphenated().to_string()).is_some(), "any time is one");
        let version_4 = "9f0c8d52-1f5c-4c1f-8d7e-3f6f0c9b2a11";
        let other_variant = text.replace("-8000-", "-c000-");
        let simple = uuid.simple().to_string();
        let braced = uuid.braced().to_string();
        for key in [version_4, &other_variant, &simple, &braced, "order-19", "", &text[1..]] {
            assert_eq!(named_time(key), None, "{key}");
        }
    }
}
