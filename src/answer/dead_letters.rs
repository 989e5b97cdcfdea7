//! The JSON of dead letters and parked wallets, for the command and the route alike.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// Bytes of a record: a string where they are UTF-8, else an object with the bytes in base64.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Bytes {
    Text(String),
    Binary { base64: String },
}

/// A record that is no event of this service, or no command.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    pub id: i64,
    /// *open*; *requested*: to be replayed; *replayed*, and not failed since; *quarantined*:
    /// settled by a person.
    #[schema(pattern = "^(open|requested|replayed|quarantined)$")]
    pub state: String,
    /// What it was meant to be.
    #[schema(pattern = "^(events|commands)$")]
    pub source: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The wallet's id, where the record is what it seems.
    #[schema(required)]
    pub key: Option<Bytes>,
    /// The class of the cause.
    pub error_class: String,
    pub error_message: String,
    /// How often it failed.
    #[schema(minimum = 1)]
    pub attempts: i32,
    #[schema(minimum = 0)]
    pub replay_count: i32,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The last time that it failed.
    #[schema(format = DateTime)]
    pub failed_at: String,
}

/// A dead letter with its bytes and its history.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetterStory)]
pub struct DeadLetterStoryView {
    #[serde(flatten)]
    pub letter: DeadLetterView,
    #[schema(required)]
    pub value: Option<Bytes>,
    pub headers: BTreeMap<String, Bytes>,
    /// The consumer that read it.
    pub projectors: Vec<String>,
    /// When it went to the topic of the dead letters, with what is known of it now.
    #[schema(required, format = DateTime)]
    pub published_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub replay_requested_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub replayed_at: Option<String>,
    /// Why the broker would not take it.
    #[schema(required)]
    pub refusal: Option<String>,
    #[schema(required, format = DateTime)]
    pub quarantined_at: Option<String>,
    /// The note of the operator who quarantined it.
    #[schema(required)]
    pub note: Option<String>,
}

/// A wallet whose next event cannot be applied.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ParkedWallet)]
pub struct ParkedWalletView {
    pub projector: String,
    pub wallet_id: String,
    /// The version that cannot be applied.
    pub version: i64,
    pub cause: String,
    /// *retrying*: tried again by itself at `nextRetryAt`; *waiting* for a person.
    #[schema(pattern = "^(retrying|waiting)$")]
    pub state: String,
    #[schema(minimum = 1)]
    pub attempts: i32,
    /// The number of its events that wait.
    #[schema(minimum = 0)]
    pub events: i64,
    #[schema(format = DateTime)]
    pub parked_at: String,
    #[schema(format = DateTime)]
    pub last_tried_at: String,
    #[schema(required, format = DateTime)]
    pub next_retry_at: Option<String>,
}

/// What waits for an operator.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetters)]
pub struct DeadLettersView {
    /// The newest first.
    pub dead_letters: Vec<DeadLetterView>,
    /// The longest-parked first; on the first page only.
    pub parked_wallets: Vec<ParkedWalletView>,
    /// Null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The rows that a request for a replay or a quarantine matches.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetterRequest)]
pub struct RequestView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Dead letters.
    pub ids: Vec<i64>,
    pub parked_wallets: Vec<ParkedWalletName>,
}

/// Which parked wallet.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParkedWalletName {
    pub projector: String,
    pub wallet_id: String,
}
