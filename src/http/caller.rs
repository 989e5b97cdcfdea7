//! The caller of a request: which tenant's wallets it means, in which name, and what it may do.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::HttpState;
use super::problem::{HttpError, HttpResult};
use super::query::Parameters;
use crate::answer::ProblemCode;
use crate::execute::Context;
use crate::wallet::TenantId;

/// Who sent a request. A handler that reads or writes what belongs to a tenant takes one: it has no
/// other way to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantId,
    /// Who is noted as having asked; none while callers are not told apart.
    pub actor: Option<String>,
    pub scopes: Scopes,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scopes {
    /// Everything: the service asks for no credential.
    All,
}

/// Tells who sent a request, from its head. The one place where a request gets its tenant.
#[derive(Clone)]
pub struct Callers(Arc<dyn Fn(&HeaderMap) -> Caller + Send + Sync>);

impl Callers {
    /// Another way to tell callers apart.
    pub fn new(of: impl Fn(&HeaderMap) -> Caller + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    pub(super) fn of(&self, headers: &HeaderMap) -> Caller {
        (self.0)(headers)
    }
}

/// Without authentication all callers are the one of the default tenant: nothing in a request
/// chooses another.
impl Default for Callers {
    fn default() -> Self {
        Self::new(|_| Caller {
            tenant: TenantId::default_tenant(),
            actor: None,
            scopes: Scopes::All,
        })
    }
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callers")
    }
}

/// As [`super::context`] found it, whose layers run before every handler.
impl FromRequestParts<HttpState> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> HttpResult<Self> {
        let missing = || HttpError::new(ProblemCode::Internal, "the request has no caller");
        parts.extensions.get().cloned().ok_or_else(missing)
    }
}

/// What a command takes from its request besides the path and the body.
pub(super) struct CommandHead {
    pub tenant: TenantId,
    pub context: Context,
    pub headers: HeaderMap,
    /// Only asked what it would come to.
    pub dry_run: bool,
}

impl FromRequestParts<HttpState> for CommandHead {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> HttpResult<Self> {
        let Caller { tenant, actor, .. } = Caller::from_request_parts(parts, state).await?;
        let missing = || HttpError::new(ProblemCode::Internal, "the request has no context");
        let context: Context = parts.extensions.get().cloned().ok_or_else(missing)?;
        let context = Context { actor: context.actor.or(actor), ..context };
        let dry_run = match parts.uri.query() {
            None => false,
            Some(_) => Parameters::from_request_parts(parts, state).await?.is_set("dryRun")?,
        };
        Ok(Self { tenant, context, headers: parts.headers.clone(), dry_run })
    }
}
