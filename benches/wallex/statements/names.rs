//! Short, lasting names for statements, from what they do to which tables: so that the figures of two
//! versions of the service can be laid beside each other.

/// Whom a statement serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Commands,
    Pipeline,
    /// Purges: long after the event.
    Deferred,
    Other,
    /// What the bench itself asks.
    Bench,
}

impl Side {
    pub const ALL: [Self; 5] =
        [Self::Commands, Self::Pipeline, Self::Deferred, Self::Other, Self::Bench];

    pub fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Pipeline => "pipeline",
            Self::Deferred => "deferred",
            Self::Other => "other",
            Self::Bench => "bench",
        }
    }
}

/// What the bench's own questions have in their text.
pub const OURS: &str = "/* bench */";

/// Tables that came in the place of others go by the name of those.
const SUCCEEDED: [(&str, &str); 4] = [
    ("idempotency_keys_other", "idempotency_keys"),
    ("outbox_batches", "outbox"),
    ("postings", "ledger_entries"),
    ("projected_wallets", "projected_versions"),
];

/// Statements by some of what they do; the first that fits counts.
const KNOWN: [(&[&str], &str, Side); 24] = [
    (&["insert events", "update wallets"], "write", Side::Commands),
    (&["insert command_batches", "lock", "read wallets"], "claim+lock", Side::Commands),
    (&["insert command_batches"], "claim", Side::Commands),
    (&["delete outbox"], "purge outbox", Side::Deferred),
    (&["delete idempotency_keys"], "purge keys", Side::Deferred),
    (&["update idempotency_keys"], "purge answers", Side::Deferred),
    (&["delete command_batches"], "purge batches", Side::Deferred),
    (&["delete dead_letters"], "purge letters", Side::Deferred),
    (&["update outbox", "update partition_leases"], "outbox mark", Side::Pipeline),
    (&["insert outbox", "update partition_leases"], "outbox mark", Side::Pipeline),
    (&["update outbox", "read projected_versions"], "outbox mark, without Kafka", Side::Pipeline),
    (&["insert outbox", "read projected_versions"], "outbox mark, without Kafka", Side::Pipeline),
    (&["read outbox", "read events", "read parked_wallets"], "feed walk", Side::Pipeline),
    (&["read outbox", "read events", "payload"], "outbox claim", Side::Pipeline),
    (&["read outbox", "read topics"], "outbox backlog", Side::Pipeline),
    (&["insert ledger_entries"], "ledger insert", Side::Pipeline),
    (&["update wallets_read_model"], "read model update", Side::Pipeline),
    (
        &["insert projected_versions", "update projector_checkpoints"],
        "versions+checkpoints",
        Side::Pipeline,
    ),
    (&["lock", "read projected_versions"], "versions lock", Side::Pipeline),
    (&["update projected_versions"], "totals", Side::Pipeline),
    (&["lock", "read wallets_read_model"], "read model lock", Side::Pipeline),
    (&["lock", "read projector_checkpoints"], "checkpoints lock", Side::Pipeline),
    (&["insert lease_members"], "leases", Side::Pipeline),
    (&["read events", "payload"], "events read", Side::Pipeline),
];

/// Tables that commands write, in the service and in what it is held against.
const OF_COMMANDS: [&str; 5] =
    ["events", "wallets", "idempotency_keys", "command_batches", "outbox"];
/// Tables that the pipeline has for itself.
const OF_PIPELINE: [&str; 6] = [
    "group_offsets",
    "ledger_entries",
    "outbox_floors",
    "parked_wallets",
    "projected_versions",
    "projector_checkpoints",
];

/// The name of a statement, and whom it serves.
pub fn named(text: &str) -> (String, Side) {
    if text.contains(OURS) {
        return ("the bench's own questions".to_owned(), Side::Bench);
    }
    let words = words(text);
    let deeds = deeds(&words);
    let known = KNOWN.iter().find(|(parts, ..)| parts.iter().all(|part| has(&deeds, part)));
    match known {
        Some((_, name, side)) => ((*name).to_owned(), *side),
        None => by_tables(&deeds).unwrap_or_else(|| (first_words(&words), Side::Other)),
    }
}

/// What is written, or else the table that is read first.
fn by_tables(deeds: &[Deed]) -> Option<(String, Side)> {
    let verbs = ["insert", "update", "delete"];
    let pairs = deeds.iter().filter_map(|deed| deed.split_once(' '));
    let (written, read): (Vec<_>, Vec<_>) = pairs.partition(|(verb, _)| verbs.contains(verb));
    let all = |tables: &[&str]| written.iter().all(|(_, table)| tables.contains(table));
    if !written.is_empty() {
        let name: Vec<String> =
            written.iter().map(|(verb, table)| format!("{verb} {table}")).collect();
        let side = match (all(&OF_COMMANDS), all(&OF_PIPELINE)) {
            (true, _) => Side::Commands,
            (_, true) => Side::Pipeline,
            _ => Side::Other,
        };
        return Some((name.join(", "), side));
    }
    let (_, table) = read.first()?;
    let locked = has(deeds, "lock");
    let side = match (OF_COMMANDS.contains(table), OF_PIPELINE.contains(table)) {
        (true, _) if locked => Side::Commands,
        (_, true) => Side::Pipeline,
        _ => Side::Other,
    };
    Some((format!("{} {table}", if locked { "lock" } else { "select" }), side))
}

/// `insert events`, `read wallets`, `lock`, `payload`, `recursive`.
type Deed = String;

fn has(deeds: &[Deed], part: &str) -> bool {
    deeds.iter().any(|deed| deed == part)
}

/// In lower case, without what stands around them; brackets on their own.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('(', " ( ").replace([')', ',', ';'], " ");
    text.split_whitespace().map(str::to_owned).collect()
}

/// Everything that the text does, in its order, each once.
fn deeds(words: &[String]) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let at = |place: Option<usize>| place.and_then(|place| words.get(place));
        let before = at(i.checked_sub(1)).map_or("", String::as_str);
        let after = |count: usize| at(i.checked_add(count)).map_or("", String::as_str);
        let deed = match word.as_str() {
            "insert" if after(1) == "into" => format!("insert {}", table(after(2))),
            "delete" if after(1) == "from" => format!("delete {}", table(after(2))),
            "update" if matches!(before, "for" | "key") => "lock".to_owned(),
            "update" if before != "do" => format!("update {}", table(after(1))),
            "recursive" => word.clone(),
            "from" | "join" if matches!(before, "delete" | "distinct") => continue,
            // A bracket behind the name: a function.
            "from" | "join" if after(2) == "(" || !is_table(after(1), words) => continue,
            "from" | "join" => format!("read {}", table(after(1))),
            _ if word.contains("payload") => "payload".to_owned(),
            _ => continue,
        };
        if !deeds.contains(&deed) {
            deeds.push(deed);
        }
    }
    deeds
}

fn table(word: &str) -> &str {
    let name = word.strip_prefix("public.").unwrap_or(word);
    let known = SUCCEEDED.iter().find(|(new, _)| *new == name);
    known.map_or(name, |(_, before)| before)
}

/// Not a bracket, a parameter, a column, or one of the parts that the statement names by `with`.
fn is_table(word: &str, words: &[String]) -> bool {
    let name = table(word);
    let part = words.windows(3).any(|three| {
        let [part, as_, behind] = three else { return false };
        part == name && as_ == "as" && matches!(behind.as_str(), "(" | "materialized" | "not")
    });
    name != "lateral" && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !part
}

/// "set", "begin", "vacuum": and what little else says what an unknown statement is.
fn first_words(words: &[String]) -> String {
    let some = match words.first().map(String::as_str) {
        Some("set" | "begin" | "commit" | "rollback" | "vacuum" | "listen" | "unlisten") => 1,
        _ => 5,
    };
    let words = words.iter().filter(|word| *word != "(");
    let mut name = words.take(some).cloned().collect::<Vec<_>>().join(" ");
    name.truncate(name.char_indices().nth(60).map_or(name.len(), |(at, _)| at));
    name
}
