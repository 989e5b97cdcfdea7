//! Rows as operators read them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::requests::MatchedRows;
use super::{DeadLetterDetail, Kept};
use crate::answer::{
    Bytes, DeadLetterStoryView, DeadLetterView, ParkedWalletName, ParkedWalletView, RequestView,
};
use crate::envelope::timestamp;
use crate::store::parked::Parked;

impl From<Kept> for DeadLetterView {
    fn from(kept: Kept) -> Self {
        Self {
            id: kept.id,
            state: kept.state,
            source: kept.source,
            topic: kept.topic,
            partition: kept.partition,
            offset: kept.offset,
            key: kept.key.map(bytes),
            error_class: kept.error_class,
            error_message: kept.error_message,
            attempts: kept.attempts,
            replay_count: kept.replay_count,
            created_at: timestamp(kept.created_at),
            failed_at: timestamp(kept.failed_at),
        }
    }
}

impl From<DeadLetterDetail> for DeadLetterStoryView {
    fn from(detail: DeadLetterDetail) -> Self {
        let headers: BTreeMap<String, Value> = detail
            .headers
            .and_then(|headers| serde_json::from_str(&headers).ok())
            .unwrap_or_default();
        Self {
            letter: detail.kept.into(),
            value: detail.value.map(bytes),
            headers: headers.into_iter().map(|(name, value)| (name, header(value))).collect(),
            projectors: detail.projectors,
            published_at: detail.published_at.map(timestamp),
            replay_requested_at: detail.replay_requested_at.map(timestamp),
            replayed_at: detail.replayed_at.map(timestamp),
            refusal: detail.refusal,
            quarantined_at: detail.quarantined_at.map(timestamp),
            note: detail.note,
        }
    }
}

impl From<Parked> for ParkedWalletView {
    fn from(parked: Parked) -> Self {
        Self {
            projector: parked.projector,
            wallet_id: parked.wallet_id,
            version: parked.version,
            cause: parked.cause,
            state: parked.state,
            attempts: parked.attempts,
            events: parked.events,
            parked_at: timestamp(parked.parked_at),
            last_tried_at: timestamp(parked.last_tried_at),
            next_retry_at: parked.next_retry_at.map(timestamp),
        }
    }
}

impl MatchedRows {
    pub fn view(&self, dry_run: bool) -> RequestView {
        let wallets = self.wallets.iter();
        let parked_wallets = wallets.map(|wallet| ParkedWalletName {
            projector: wallet.projector.clone(),
            wallet_id: wallet.wallet_id.clone(),
        });
        RequestView { dry_run, ids: self.ids.clone(), parked_wallets: parked_wallets.collect() }
    }
}

fn bytes(bytes: Vec<u8>) -> Bytes {
    String::from_utf8(bytes)
        .map(Bytes::Text)
        .unwrap_or_else(|error| Bytes::Binary { base64: STANDARD.encode(error.as_bytes()) })
}

/// A header as it is kept: text, or an object with base64.
fn header(value: Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::Text(text),
        value => {
            let base64 = value.get("base64").and_then(Value::as_str).unwrap_or_default();
            Bytes::Binary { base64: base64.to_owned() }
        }
    }
}
