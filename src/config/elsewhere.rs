//! Names that other wallet services read and this one does not: told once, so that no operator believes
//! that they count.

use std::collections::HashMap;

/// Beginnings of names of what this service has no use for: caches, event stores, other brokers and
/// object mappers.
const PREFIXES: [&str; 8] = [
    "REDIS_",
    "KURRENTDB_",
    "EVENTSTORE_",
    "EVENTSTOREDB_",
    "RABBITMQ_",
    "TYPEORM_",
    "ZOOKEEPER_",
    "JWT_",
];
/// Whole names.
const NAMES: [&str; 9] = [
    "ADMIN_PORT",
    "API_KEY",
    "API_KEYS",
    "CORS_ALLOWED_ORIGINS",
    "NODE_ENV",
    "RATE_LIMIT",
    "RUST_LOG",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
];

/// Those that are set, in order.
pub(super) fn names(variables: &HashMap<String, String>) -> Vec<String> {
    let elsewhere = |name: &&String| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name.as_str())
    };
    let mut names: Vec<String> = variables.keys().filter(elsewhere).cloned().collect();
    names.sort();
    names
}
