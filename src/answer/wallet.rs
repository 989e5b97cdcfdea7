//! The JSON of wallets and events: camelCase, amounts as strings in the currency's scale.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::envelope::timestamp;
use crate::wallet::{Metadata, Wallet, WalletId};

/// A wallet as every route shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WalletView<'a> {
    id: &'a WalletId,
    owner_id: &'a str,
    currency: &'static str,
    status: &'static str,
    balance: rust_decimal::Decimal,
    held_balance: rust_decimal::Decimal,
    available_balance: rust_decimal::Decimal,
    overdraft_limit: rust_decimal::Decimal,
    version: i64,
    metadata: Option<&'a Metadata>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<Uuid>,
}

impl<'a> WalletView<'a> {
    pub fn new(wallet: &'a Wallet) -> Self {
        Self {
            id: &wallet.id,
            owner_id: &wallet.owner_id,
            currency: wallet.currency.code(),
            status: wallet.status.as_str(),
            balance: wallet.balance,
            held_balance: wallet.held_balance,
            available_balance: wallet.available(),
            overdraft_limit: wallet.overdraft_limit,
            version: wallet.version,
            metadata: wallet.metadata.as_ref(),
            created_at: timestamp(wallet.created_at),
            updated_at: timestamp(wallet.updated_at),
            transaction_id: None,
        }
    }

    pub fn with_transaction(self, transaction_id: Option<Uuid>) -> Self {
        Self { transaction_id, ..self }
    }

    pub fn to_json(&self) -> String {
        // Strings, numbers and checked raw JSON always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// `{transferId, fromWallet, toWallet}`.
pub(super) fn transfer_json(transfer_id: Uuid, from: &Wallet, to: &Wallet) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct TransferView<'a> {
        transfer_id: Uuid,
        from_wallet: WalletView<'a>,
        to_wallet: WalletView<'a>,
    }
    let view = TransferView {
        transfer_id,
        from_wallet: WalletView::new(from),
        to_wallet: WalletView::new(to),
    };
    serde_json::to_string(&view).unwrap_or_default()
}

/// The wallets, with their versions, that a body made by this module speaks of.
pub(super) fn versions_in(body: &str) -> Vec<(WalletId, i64)> {
    #[derive(Deserialize)]
    struct Shown {
        id: String,
        version: i64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Both {
        from_wallet: Shown,
        to_wallet: Shown,
    }
    let pair = |shown: Shown| (WalletId::stored(&shown.id), shown.version);
    if let Ok(shown) = serde_json::from_str::<Shown>(body) {
        return vec![pair(shown)];
    }
    match serde_json::from_str::<Both>(body) {
        Ok(both) => vec![pair(both.from_wallet), pair(both.to_wallet)],
        Err(_) => Vec::new(),
    }
}

/// An envelope as `GET /wallets/{id}/events` shows it: already JSON, passed through.
pub fn event_json(envelope: Vec<u8>) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(envelope).ok()?).ok()
}
