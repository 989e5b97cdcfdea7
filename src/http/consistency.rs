//! `Consistency-Token`: every write gives one; a projected read that sends it back waits, bounded,
//! until it is at least as new.

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::problem::{HttpError, HttpResult};
use super::{HttpState, cursor};
use crate::answer::ProblemCode;
use crate::store::{self, Pooled, projected};
use crate::wallet::{TenantId, WalletId};

pub(super) const HEADER: &str = "consistency-token";
/// Past this the read is refused: what there is would be older than what the caller has seen.
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
/// names; a problem where that takes too long. An unrecognized token is ignored, as is
/// one of versions that the books no longer have. No connection is held while waiting.
pub(super) async fn read(
    headers: &HeaderMap,
    state: &HttpState,
    tenant: &TenantId,
    projector: &str,
) -> HttpResult<Pooled> {
    let token = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let wanted = token.and_then(cursor::decode::<Vec<(String, i64)>>).unwrap_or_default();
    let parsed = |(id, version): (String, i64)| Some((WalletId::parse(&id)?, version));
    let mut wanted: Vec<(WalletId, i64)> = wanted.into_iter().filter_map(parsed).collect();
    let begun = Instant::now();
    loop {
        // Before the look: what is applied after it is heard.
        let mut applied = pin!(state.applied.notified());
        applied.as_mut().enable();
        let mut connection = store::session(&state.pools.reads, tenant).await?;
        if !wanted.is_empty() {
            wanted = projected::lacking(&mut connection, tenant, projector, &wanted).await?;
        }
        if wanted.is_empty() {
            return Ok(connection);
        }
        if begun.elapsed() > WAIT_MAX {
            return Err(behind(projector, &wanted));
        }
        drop(connection);
        let _ = timeout(PAUSE, applied).await;
    }
}

fn behind(projector: &str, wanted: &[(WalletId, i64)]) -> HttpError {
    let first = wanted.first().map(|(id, version)| format!("version {version} of wallet {id}"));
    let detail = format!(
        "{} is not projected yet by {projector}; without Consistency-Token the read is answered \
         with what there is",
        first.unwrap_or_default()
    );
    HttpError::new(ProblemCode::ProjectionBehind, detail)
}
