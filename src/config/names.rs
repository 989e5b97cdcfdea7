//! Names of variables: which are settings, which are most likely misspelt ones, and which other
//! wallet services read and this one does not.

use std::collections::HashMap;

use super::declared::SETTINGS;

/// Names read by tools around the service, not by `Settings`.
const AROUND: &[&str] = &[
    "WALLEX_CONFIG",
    "WALLEX_KAFKA_HOME",
    "WALLEX_PGBOUNCER",
    "WALLEX_POSTGRES_16",
    "WALLEX_POSTGRES_17",
    "WALLEX_POSTGRES_18",
    "WALLEX_POSTGRES_BIN",
    "WALLEX_REGISTRY_HOME",
];

/// Prefixes under which an unknown name is most likely a misspelt setting.
const WATCHED_PREFIXES: &[&str] = &[
    "KAFKA_",
    "OUTBOX_",
    "PRODUCER_",
    "CONSUMER_",
    "DATABASE_",
    "COMMAND_",
    "IDEMPOTENCY_",
    "PROJECTOR_",
    "SCHEMA_REGISTRY_",
    "AUTH_",
];

/// Beginnings of names of what this service has no use for: caches, event stores, other brokers and
/// object mappers.
const ELSEWHERE_PREFIXES: [&str; 8] = [
    "REDIS_",
    "KURRENTDB_",
    "EVENTSTORE_",
    "EVENTSTOREDB_",
    "RABBITMQ_",
    "TYPEORM_",
    "ZOOKEEPER_",
    "JWT_",
];
/// Whole names of the same.
const ELSEWHERE_NAMES: [&str; 9] = [
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

/// A setting's name, or that of a file with its value.
pub(super) fn is_setting(name: &str) -> bool {
    let bare = name.strip_suffix("_FILE").unwrap_or(name);
    SETTINGS.iter().any(|setting| setting.name == name || setting.name == bare)
}

/// The same, or a name that tools around the service read.
pub(super) fn is_ours(name: &str) -> bool {
    is_setting(name) || AROUND.contains(&name)
}

/// That a name is no setting, and which it may have meant; in small letters where the name is.
pub(super) fn no_setting(name: &str) -> String {
    let near = nearest(&name.to_uppercase());
    let hint = near.map_or_else(String::new, |near| {
        let is_small = name.chars().all(|c| !c.is_ascii_uppercase());
        let near = if is_small { near.to_lowercase() } else { near.to_owned() };
        format!("; the nearest is {near}")
    });
    format!("{name} is no setting{hint}; .env.example lists all")
}

/// Names that look like settings and are none, a sentence each. What an orchestrator sets for each
/// service of a name is not among them: `KAFKA_PORT_9092_TCP`.
pub(super) fn unknown(variables: &HashMap<String, String>) -> Vec<String> {
    let is_link = |name: &str, value: &str| {
        name.contains("_SERVICE_") || name.contains("_PORT_") || value.starts_with("tcp://")
    };
    let suspect = |name: &str| WATCHED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let mut names: Vec<&String> = variables
        .iter()
        .filter(|(name, value)| suspect(name) && !is_setting(name) && !is_link(name, value))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names.into_iter().map(|name| no_setting(name)).collect()
}

/// Names of other services that are set, in order: the log names them once, so that no operator
/// believes that they count.
pub(super) fn elsewhere(variables: &HashMap<String, String>) -> Vec<String> {
    let elsewhere = |name: &&String| {
        ELSEWHERE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || ELSEWHERE_NAMES.contains(&name.as_str())
    };
    let mut names: Vec<String> = variables.keys().filter(elsewhere).cloned().collect();
    names.sort();
    names
}

/// The setting whose name is most like this one; none: none is like it.
fn nearest(name: &str) -> Option<&'static str> {
    let names = SETTINGS.iter().map(|setting| setting.name);
    let near = names.map(|known| (distance(name, known), known)).min()?;
    // A third of the letters wrong: another name.
    (near.0 * 3 <= name.len()).then_some(near.1)
}

/// How many letters are to be added, left out or changed to make one of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.bytes().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (wanted, up) in to.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(wanted != letter)).min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
