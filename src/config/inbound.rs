//! Inbound commands' settings: whether they are consumed, from which topics, and how retries wait.

use std::time::Duration;

use super::InboundSettings;
use super::error::{ConfigError, invalid};
use super::read::Reader;

/// What follows the name of the topic of commands in those of its retries, in their order.
pub(super) const RETRIES: [&str; 3] = [".retry.1min", ".retry.5min", ".retry.30min"];
/// The same in that of its dead letters.
pub(super) const DEAD_LETTERS: &str = "_dlt";

impl InboundSettings {
    /// In the order in which a command goes through them.
    pub fn retry_topics(&self) -> [String; 3] {
        RETRIES.map(|retry| format!("{}{retry}", self.topic))
    }

    pub fn dead_letter_topic(&self) -> String {
        format!("{}{DEAD_LETTERS}", self.topic)
    }
}

impl Reader {
    pub(super) fn delays(&self, name: &str) -> Result<[Duration; 3], ConfigError> {
        let text = self.text(name)?;
        let wanted = "use three numbers of ms from 1 to 86400000, ascending: 60000,300000,1800000";
        let numbers: Option<Vec<u64>> =
            text.split(',').map(|number| number.trim().parse().ok()).collect();
        let numbers: Option<[u64; 3]> = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers
            .filter(|n| n.is_sorted() && n.iter().all(|n| (1..=86_400_000).contains(n)))
            .map(|numbers| numbers.map(Duration::from_millis))
            .ok_or_else(|| invalid(name, &text, wanted))
    }
}
