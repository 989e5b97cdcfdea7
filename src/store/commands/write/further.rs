//! The parts of the statement that only batches with more than plain movements have.

use super::{HoldWrite, Writes, some};
use crate::store::commands::rows::{Parameters, Rows};
use crate::store::{Error, Result};
use crate::wallet::{Metadata, Slice, WalletId};

/// Those that have rows, in the order in which they run.
pub(super) fn parts(p: &mut Parameters, writes: &Writes) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    parts.extend(some(&writes.placed).map(|holds| placed(p, holds)).transpose()?);
    parts.extend(some(&writes.changed_holds).map(|holds| changed(p, holds)).transpose()?);
    Ok(parts)
}

fn placed(p: &mut Parameters, holds: &[HoldWrite]) -> Result<String> {
    let reserved = reserved(holds)?;
    let with_reserved: Vec<_> = holds.iter().zip(&reserved).collect();
    let mut rows = Rows::new(&with_reserved);
    rows.column(p, ("tenant_id", "text"), |((tenant, _), _)| tenant.as_str())?;
    rows.column(p, ("id", "uuid"), |((_, h), _)| h.id)?;
    rows.column(p, ("wallet_id", "text"), |((_, h), _)| h.wallet_id.as_str())?;
    rows.column(p, ("currency", "text"), |((_, h), _)| h.currency.code())?;
    rows.column(p, ("amount", "numeric"), |((_, h), _)| h.amount)?;
    rows.column(p, ("max_capture", "numeric"), |((_, h), _)| h.max_capture)?;
    rows.column(p, ("captured", "numeric"), |((_, h), _)| h.captured)?;
    rows.column(p, ("released", "numeric"), |((_, h), _)| h.released)?;
    rows.column(p, ("status", "text"), |((_, h), _)| h.status.as_str())?;
    rows.column(p, ("closed_by", "text"), |((_, h), _)| h.closed_by.map(|by| by.as_str()))?;
    rows.column(p, ("expires_at", "timestamptz"), |((_, h), _)| h.expires_at)?;
    rows.column(p, ("to_wallet_id", "text"), |((_, h), _)| h.to.as_ref().map(WalletId::as_str))?;
    rows.column(p, ("reserved", "text"), |(_, reserved)| reserved.as_deref())?.stored_as("json");
    rows.column(p, ("description", "text"), |((_, h), _)| h.description.as_deref())?;
    rows.column(p, ("reference", "text"), |((_, h), _)| h.reference.as_deref())?;
    rows.column(p, ("metadata", "text"), |((_, h), _)| h.metadata.as_ref().map(Metadata::as_str))?
        .stored_as("json");
    rows.column(p, ("place_version", "int8"), |((_, h), _)| h.place_version)?;
    rows.column(p, ("created_at", "timestamptz"), |((_, h), _)| h.created_at)?;
    rows.column(p, ("updated_at", "timestamptz"), |((_, h), _)| h.updated_at)?;
    Ok(format!("placed as ({})", rows.into_columns().insert_into("holds")))
}

/// Found by their ctid, as wallets are: the lock of the wallet keeps it.
fn changed(p: &mut Parameters, holds: &[HoldWrite]) -> Result<String> {
    let reserved = reserved(holds)?;
    let with_reserved: Vec<_> = holds.iter().zip(&reserved).collect();
    let mut rows = Rows::new(&with_reserved);
    rows.column(p, ("tenant_id", "text"), |((tenant, _), _)| tenant.as_str())?;
    rows.column(p, ("id", "uuid"), |((_, h), _)| h.id)?;
    rows.column(p, ("amount", "numeric"), |((_, h), _)| h.amount)?;
    rows.column(p, ("max_capture", "numeric"), |((_, h), _)| h.max_capture)?;
    rows.column(p, ("captured", "numeric"), |((_, h), _)| h.captured)?;
    rows.column(p, ("released", "numeric"), |((_, h), _)| h.released)?;
    rows.column(p, ("status", "text"), |((_, h), _)| h.status.as_str())?;
    rows.column(p, ("closed_by", "text"), |((_, h), _)| h.closed_by.map(|by| by.as_str()))?;
    rows.column(p, ("expires_at", "timestamptz"), |((_, h), _)| h.expires_at)?;
    rows.column(p, ("reserved", "text"), |(_, reserved)| reserved.as_deref())?;
    rows.column(p, ("updated_at", "timestamptz"), |((_, h), _)| h.updated_at)?;
    Ok(format!(
        "changed_holds as (update holds h set amount = r.amount, max_capture = r.max_capture, \
             captured = r.captured, released = r.released, status = r.status, \
             closed_by = r.closed_by, expires_at = r.expires_at, reserved = r.reserved::json, \
             updated_at = r.updated_at \
         from (select r.*, found.row from {} cross join lateral ( \
             select ctid as row from holds \
             where tenant_id = r.tenant_id and id = r.id limit 1) found) r \
         where h.ctid = r.row)",
        rows.into_columns().table("r")
    ))
}

/// The JSON of what is promised out of grants; none where nothing is.
fn reserved(holds: &[HoldWrite]) -> Result<Vec<Option<String>>> {
    let json = |slices: &[Slice]| match slices {
        [] => Ok(None),
        slices => serde_json::to_string(slices).map(Some).map_err(Error::corrupt),
    };
    holds.iter().map(|(_, hold)| json(&hold.reserved)).collect()
}
