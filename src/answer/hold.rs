//! The JSON of holds.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use uuid::Uuid;

use super::WalletView;
use crate::envelope::timestamp;
use crate::wallet::{Hold, HoldStatus, Metadata, Slice, Wallet, WalletId};

/// A hold as every route shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Hold)]
pub struct HoldView<'a> {
    id: Uuid,
    #[schema(value_type = String)]
    wallet_id: &'a WalletId,
    /// ISO 4217 code.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: &'static str,
    /// Closed as *captured* where anything was captured, else as *released* or *expired*.
    #[schema(schema_with = statuses)]
    status: &'static str,
    /// What is promised in all, what was captured of it included.
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    amount: rust_decimal::Decimal,
    /// The most that may be captured.
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    max_capture: rust_decimal::Decimal,
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    captured_amount: rust_decimal::Decimal,
    /// What was given back.
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    released_amount: rust_decimal::Decimal,
    /// What is on hold now.
    #[schema(value_type = String, pattern = r"^[0-9]+(\.[0-9]+)?$")]
    remaining_amount: rust_decimal::Decimal,
    /// What is promised out of grants.
    #[schema(value_type = Vec<Object>)]
    reserved: &'a [Slice],
    /// From this moment on it is expired.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The wallet that captures go to; null: they leave.
    #[schema(required, value_type = Option<String>)]
    to_wallet_id: Option<&'a WalletId>,
    /// capture, release or expiry; null while it is open.
    #[schema(required, pattern = "^(capture|release|expiry)$")]
    closed_by: Option<&'static str>,
    #[schema(required, format = DateTime)]
    closed_at: Option<String>,
    #[schema(required)]
    description: Option<&'a str>,
    #[schema(required)]
    reference: Option<&'a str>,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// Of a capture only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    transaction_id: Option<Uuid>,
    /// Its wallet as the command left it; not where holds are only read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    wallet: Option<WalletView<'a>>,
}

impl<'a> HoldView<'a> {
    pub fn new(hold: &'a Hold) -> Self {
        Self {
            id: hold.id,
            wallet_id: &hold.wallet_id,
            currency: hold.currency.code(),
            status: hold.status.as_str(),
            amount: hold.amount,
            max_capture: hold.max_capture,
            captured_amount: hold.captured,
            released_amount: hold.released,
            remaining_amount: hold.remaining(),
            reserved: &hold.reserved,
            expires_at: timestamp(hold.expires_at),
            to_wallet_id: hold.to.as_ref(),
            closed_by: hold.closed_by.map(|by| by.as_str()),
            closed_at: (!hold.is_open()).then(|| timestamp(hold.updated_at)),
            description: hold.description.as_deref(),
            reference: hold.reference.as_deref(),
            metadata: hold.metadata.as_ref(),
            created_at: timestamp(hold.created_at),
            updated_at: timestamp(hold.updated_at),
            transaction_id: None,
            wallet: None,
        }
    }

    /// As the answer of a command on it.
    pub fn of_command(self, wallet: &'a Wallet, transaction_id: Option<Uuid>) -> Self {
        Self { wallet: Some(WalletView::new(wallet)), transaction_id, ..self }
    }

    pub fn to_json(&self) -> String {
        // Strings, numbers and checked raw JSON always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn statuses() -> Schema {
    let names = HoldStatus::ALL.into_iter().map(HoldStatus::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}
