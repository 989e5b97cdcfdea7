//! `Consistency-Token`: every write gives one; a projected read that sends it back waits, bounded,
//! until it is at least as new.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};

use super::cursor;
use super::problem::HttpResult;
use crate::store::{Connection, entries};
use crate::wallet::{TenantId, WalletId};

pub(super) const HEADER: &str = "consistency-token";
/// Past this the read answers with what there is.
const WAIT_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// The token of wallets and the versions that a write brought them to.
pub(super) fn token(versions: &[(WalletId, i64)]) -> HeaderValue {
    let pairs: Vec<(&str, i64)> = versions.iter().map(|(id, v)| (id.as_str(), *v)).collect();
    // Base64 is a valid header value.
    HeaderValue::try_from(cursor::encode(&pairs)).unwrap_or(HeaderValue::from_static(""))
}

/// Waits until `projector` has applied what the request's token names. A token that is none of
/// ours asks for nothing.
pub(super) async fn wait_for(
    headers: &HeaderMap,
    connection: &mut Connection,
    tenant: &TenantId,
    projector: &str,
) -> HttpResult<()> {
    let token = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let Some(wanted) = token.and_then(cursor::decode::<Vec<(String, i64)>>) else { return Ok(()) };
    let begun = Instant::now();
    for (id, version) in wanted {
        let Some(id) = WalletId::parse(&id) else { continue };
        while entries::projected_version(connection, tenant, projector, &id).await? < version {
            if begun.elapsed() > WAIT_MAX {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
