//! The JSON of wallets and events: camelCase, amounts as strings in the currency's scale.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use uuid::Uuid;

use crate::envelope::timestamp;
use crate::wallet::{Metadata, Status, Wallet, WalletId};

/// A wallet as every route shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Wallet)]
pub struct WalletView<'a> {
    #[schema(value_type = String)]
    id: &'a WalletId,
    owner_id: &'a str,
    /// ISO 4217 code.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: &'static str,
    #[schema(schema_with = statuses)]
    status: &'static str,
    #[schema(value_type = String, pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    balance: rust_decimal::Decimal,
    /// Reserved for open holds.
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    held_balance: rust_decimal::Decimal,
    /// What may be spent: the balance without what is held, with the overdraft.
    #[schema(value_type = String, pattern = r"^-?[0-9]+(\.[0-9]+)?$")]
    available_balance: rust_decimal::Decimal,
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    overdraft_limit: rust_decimal::Decimal,
    /// Counts the wallet's events: 1..n without a gap.
    #[schema(minimum = 1)]
    version: i64,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// In the answer of a credit or debit only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
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

fn statuses() -> Schema {
    let names = Status::ALL.into_iter().map(Status::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

/// Both wallets of a transfer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = TransferResult)]
pub struct TransferView<'a> {
    transfer_id: Uuid,
    from_wallet: WalletView<'a>,
    to_wallet: WalletView<'a>,
}

/// `{transferId, fromWallet, toWallet}`.
pub(super) fn transfer_json(transfer_id: Uuid, from: &Wallet, to: &Wallet) -> String {
    let view = TransferView {
        transfer_id,
        from_wallet: WalletView::new(from),
        to_wallet: WalletView::new(to),
    };
    serde_json::to_string(&view).unwrap_or_default()
}

/// An envelope as `GET /wallets/{id}/events` shows it: already JSON, passed through.
pub fn event_json(envelope: Vec<u8>) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(envelope).ok()?).ok()
}
