//! Idempotency keys: what they cover and how they are kept.

use sha2::{Digest, Sha256};

use crate::wallet::Command;

/// A caller's key, reduced to what is stored: the hash of its scope, and that of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// First 16 bytes of SHA-256 over method, route with decoded ids, and key. The tenant leads
    /// the table's primary key and is no part of it.
    pub scope: [u8; 16],
    /// First 16 bytes of SHA-256 over the parsed command: formatting does not matter.
    pub fingerprint: [u8; 16],
}

impl Key {
    /// `route` is method and path with decoded ids, so that one key under two routes is two keys.
    pub fn new(route: &[&str], key: &str, command: &Command) -> Self {
        let mut scope = Sha256::new();
        for part in route.iter().chain([&key]) {
            // Length first: parts cannot run into each other.
            scope.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            scope.update(part.as_bytes());
        }
        let parsed = serde_json::to_vec(command).unwrap_or_default();
        Self { scope: first_16(&scope.finalize()), fingerprint: first_16(&Sha256::digest(&parsed)) }
    }
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk::<16>().copied().unwrap_or_default()
}
