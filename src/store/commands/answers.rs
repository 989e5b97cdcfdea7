//! Idempotency keys and what is kept of their first answers.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::answer::Refusal;
use crate::store::{Error, Result};
use crate::wallet::WalletId;

/// Keys that are taken, by scope.
pub type StoredKeys = HashMap<Vec<u8>, StoredKey>;

/// A key that was used before.
#[derive(Debug, Clone)]
pub struct StoredKey {
    pub fingerprint: Vec<u8>,
    pub transaction_id: Uuid,
    pub answer: StoredAnswer,
}

/// What is kept of a first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAnswer {
    /// A command's effect: the versions that it left its wallets at, in the order of its footprint.
    /// Their events say the rest.
    Effect {
        version: i64,
        other_versions: Vec<i64>,
        /// The answer itself, where the events do not say it.
        text: Option<Arc<str>>,
        /// Of the first wallet, where the command does not name it: its id was generated.
        wallet_id: Option<WalletId>,
    },
    Refusal(Refusal),
    /// A request of several operations, each of which has a key of its own: the first request's id.
    Request {
        request_id: Arc<str>,
    },
    /// Its retention has passed.
    Dropped,
}

impl StoredAnswer {
    pub(super) fn status(&self) -> Option<i16> {
        match self {
            Self::Effect { .. } | Self::Request { .. } => Some(201),
            Self::Refusal(refusal) => i16::try_from(refusal.status()).ok(),
            Self::Dropped => None,
        }
    }

    pub(super) fn text(&self) -> Option<String> {
        match self {
            // Ids, numbers and names always serialize.
            Self::Refusal(refusal) => serde_json::to_string(refusal).ok(),
            Self::Request { request_id } => Some(request_id.to_string()),
            Self::Effect { text, .. } => text.as_ref().map(|text| (**text).to_owned()),
            Self::Dropped => None,
        }
    }

    pub(super) fn version(&self) -> Option<i64> {
        match self {
            Self::Effect { version, .. } => Some(*version),
            _ => None,
        }
    }

    /// As the text of an array; none where there are no others.
    pub(super) fn other_versions(&self) -> Option<String> {
        match self {
            Self::Effect { other_versions, .. } if !other_versions.is_empty() => {
                let versions: Vec<String> = other_versions.iter().map(i64::to_string).collect();
                Some(format!("{{{}}}", versions.join(",")))
            }
            _ => None,
        }
    }

    pub(super) fn wallet_id(&self) -> Option<&str> {
        match self {
            Self::Effect { wallet_id, .. } => wallet_id.as_ref().map(WalletId::as_str),
            _ => None,
        }
    }

    fn of(row: &PgRow) -> Result<Self> {
        let (status, text): (Option<i16>, Option<String>) =
            (row.try_get("key_status")?, row.try_get("answer")?);
        let version: Option<i64> = row.try_get("key_version")?;
        let wallet_id: Option<&str> = row.try_get("key_wallet_id")?;
        Ok(match (status, version, text) {
            (None, ..) => Self::Dropped,
            (Some(_), Some(version), text) => Self::Effect {
                version,
                text: text.map(Into::into),
                other_versions: row.try_get::<Option<_>, _>("other_versions")?.unwrap_or_default(),
                wallet_id: wallet_id.map(WalletId::stored),
            },
            (Some(400..), None, Some(refusal)) => {
                Self::Refusal(serde_json::from_str(&refusal).map_err(Error::corrupt)?)
            }
            (Some(_), None, text) => Self::Request { request_id: text.unwrap_or_default().into() },
        })
    }
}

impl StoredKey {
    pub(super) fn of(row: &PgRow) -> Result<Self> {
        Ok(Self {
            fingerprint: row.try_get("fingerprint")?,
            transaction_id: row.try_get("transaction_id")?,
            answer: StoredAnswer::of(row)?,
        })
    }
}
