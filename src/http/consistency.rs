//! `Consistency-Token`: every write gives one; a projected read that sends it back waits, bounded,
//! until it is at least as new.

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::problem::HttpResult;
use super::{HttpState, cursor};
use crate::store::{self, Pooled, entries};
use crate::wallet::{TenantId, WalletId};

pub(super) const HEADER: &str = "consistency-token";
/// Past this the read answers with what there is.
const WAIT_MAX: Duration = Duration::from_secs(5);
const TOKEN_BYTES_MAX: usize = 4096;
/// What another instance projects is looked for so often.
const PAUSE: Duration = Duration::from_millis(20);

/// The token of wallets and the versions that a write brought them to.
pub(super) fn token(versions: &[(WalletId, i64)]) -> HeaderValue {
    let pairs: Vec<(&str, i64)> = versions.iter().map(|(id, v)| (id.as_str(), *v)).collect();
    // Base64 is a valid header value.
    HeaderValue::try_from(cursor::encode(&pairs)).unwrap_or(HeaderValue::from_static(""))
}

/// The token of a write to many wallets; none where it would be larger than what clients and
/// proxies take as a header.
pub(super) fn token_of_many(mut versions: Vec<(WalletId, i64)>) -> Option<HeaderValue> {
    versions.sort();
    // Of each wallet the last version says it all.
    versions.reverse();
    versions.dedup_by(|a, b| a.0 == b.0);
    let token = token(&versions);
    (!versions.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

/// A connection to read projected data with, once `projector` has applied what the request's token
/// names. A token that is none of ours asks for nothing. No connection is held while waiting.
pub(super) async fn read(
    headers: &HeaderMap,
    state: &HttpState,
    tenant: &TenantId,
    projector: &str,
) -> HttpResult<Pooled> {
    let token = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let wanted = token.and_then(cursor::decode::<Vec<(String, i64)>>).unwrap_or_default();
    let begun = Instant::now();
    loop {
        // Before the look: what is applied after it is heard.
        let mut applied = pin!(state.applied.notified());
        applied.as_mut().enable();
        let mut connection = store::acquire(&state.pools.reads).await?;
        let mut reached = true;
        for (id, version) in &wanted {
            let Some(id) = WalletId::parse(id) else { continue };
            let at = entries::projected_version(&mut connection, tenant, projector, &id).await?;
            reached &= at >= *version;
        }
        if reached || begun.elapsed() > WAIT_MAX {
            return Ok(connection);
        }
        drop(connection);
        let _ = timeout(PAUSE, applied).await;
    }
}
