//! /admin/topics: what is there, what is created and deleted, tenants' own, how many partitions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::super::HttpState;
use super::super::body::CommandBody;
use super::super::openapi::problems::{
    ComputeProblems, TopicChangeProblems, TopicDeleteProblems, TopicProblems, TopicsProblems,
};
use super::super::path::TextPath;
use super::super::problem::{HttpError, HttpResult};
use super::super::query::Parameters;
use super::super::views::answer;
use crate::answer::ProblemCode;
use crate::request::{Text, body};
use crate::topics::sizing::{self, Load, Recommendation};
use crate::topics::{Deleted, Ensured, KeyStrategy, Topics, TopicsError, View};

/// The topics of the service, of its tenants and of `KAFKA_TOPICS_FILE`, and their health.
#[utoipa::path(
    get, path = "/admin/topics", tag = "admin", operation_id = "listTopics",
    responses((status = 200, description = "The topics", body = Vec<View>), TopicsProblems)
)]
pub async fn list(State(state): State<HttpState>) -> HttpResult<Response> {
    let views = Topics::open(&state.repairs.topics).await?.list().await?;
    Ok(answer(StatusCode::OK, &views))
}

/// One of them.
#[utoipa::path(
    get, path = "/admin/topics/{name}", tag = "admin", operation_id = "getTopic",
    params(("name" = String, Path, description = "The topic")),
    responses((status = 200, description = "The topic", body = View), TopicProblems)
)]
pub async fn describe(
    State(state): State<HttpState>,
    TextPath(name): TextPath,
) -> HttpResult<Response> {
    let found = Topics::open(&state.repairs.topics).await?.describe(&name).await?;
    let missing = || HttpError::new(ProblemCode::TopicNotFound, "GET /admin/topics lists them");
    Ok(answer(StatusCode::OK, &found.ok_or_else(missing)?))
}

/// Creates the topics that are missing, and tells how the others differ from the settings.
#[utoipa::path(
    post, path = "/admin/topics/ensure", tag = "admin", operation_id = "ensureTopics",
    request_body = EnsureTopicsBody,
    responses((status = 200, description = "What was created", body = Ensured), TopicChangeProblems)
)]
pub async fn ensure(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<EnsureTopicsBody>,
) -> HttpResult<Response> {
    let topics = Topics::open(&state.repairs.topics).await?;
    let ensured = topics.ensure(body.all, body.dry_run).await?;
    Ok(answer(StatusCode::OK, &ensured))
}

/// Deletes a topic that `KAFKA_TOPICS_FILE` declares, with all that is in it.
#[utoipa::path(
    post, path = "/admin/topics/delete", tag = "admin", operation_id = "deleteTopic",
    request_body = DeleteTopicBody,
    responses((status = 200, description = "What was deleted", body = Deleted), TopicDeleteProblems)
)]
pub async fn delete(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<DeleteTopicBody>,
) -> HttpResult<Response> {
    let topics = Topics::open(&state.repairs.topics).await?;
    let missing = || HttpError::new(ProblemCode::TopicNotFound, "GET /admin/topics lists them");
    let deleted = topics.delete(&body.name.0, body.dry_run).await?.ok_or_else(missing)?;
    Ok(answer(StatusCode::OK, &deleted))
}

/// Creates a tenant's own topics.
#[utoipa::path(
    post, path = "/admin/topics/create-tenant", tag = "admin", operation_id = "createTenantTopics",
    request_body = TenantTopicsBody,
    responses((status = 200, description = "What was created", body = Ensured), TopicChangeProblems)
)]
pub async fn create_tenant(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<TenantTopicsBody>,
) -> HttpResult<Response> {
    let topics = Topics::open(&state.repairs.topics).await?;
    let ensured = topics.create_tenant(&body.tenant_id.0, body.dry_run).await?;
    Ok(answer(StatusCode::OK, &ensured))
}

/// Deletes a tenant's own topics with all that is in them.
#[utoipa::path(
    post, path = "/admin/topics/delete-tenant", tag = "admin", operation_id = "deleteTenantTopics",
    request_body = TenantTopicsBody,
    responses((status = 200, description = "What was deleted", body = Deleted), TopicChangeProblems)
)]
pub async fn delete_tenant(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<TenantTopicsBody>,
) -> HttpResult<Response> {
    let topics = Topics::open(&state.repairs.topics).await?;
    let deleted = topics.delete_tenant(&body.tenant_id.0, body.dry_run).await?;
    Ok(answer(StatusCode::OK, &deleted))
}

/// How many partitions a new topic should have.
#[utoipa::path(
    get, path = "/admin/topics/recommend", tag = "admin", operation_id = "recommendPartitions",
    params(
        ("rate" = Option<i64>, Query, description = "Messages a second, at the peak; 1000"),
        ("keys" = Option<i64>, Query, description = "Different keys among them; 1000000"),
        ("consumers" = Option<i64>, Query, description = "Consumers of one group; 1"),
        ("key" = Option<String>, Query, description = "wallet, owner, tenant or random; wallet"),
    ),
    responses((status = 200, description = "The count", body = Recommendation), ComputeProblems)
)]
pub async fn recommend(parameters: Parameters) -> HttpResult<Response> {
    let number = |name, default| {
        let number = parameters.number(name, default, 1, 1_000_000_000_000)?;
        Ok::<u64, HttpError>(number.unsigned_abs())
    };
    let load = Load {
        rate: number("rate", 1000)?,
        keys: number("keys", 1_000_000)?,
        consumers: number("consumers", 1)?,
        key: parameters.one_of("key", KeyStrategy::parse)?.unwrap_or(KeyStrategy::Wallet),
    };
    Ok(answer(StatusCode::OK, &sizing::recommend(&load)))
}

body! {
    /// Whether those for inbound commands and the audit are created, too.
    pub struct EnsureTopicsBody {
        all as "all": bool,
        /// Only say what would be done.
        dry_run as "dryRun": bool,
    }
}

body! {
    /// Which topic.
    pub struct DeleteTopicBody {
        /// As `KAFKA_TOPICS_FILE` declares it.
        name as "name": Text,
        /// Only say what would be done.
        dry_run as "dryRun": bool,
    }
}

body! {
    /// Whose topics.
    pub struct TenantTopicsBody {
        tenant_id as "tenantId": Text,
        /// Only say what would be done.
        dry_run as "dryRun": bool,
    }
}

impl From<TopicsError> for HttpError {
    fn from(error: TopicsError) -> Self {
        match error {
            TopicsError::Disabled => Self::new(ProblemCode::KafkaDisabled, error.to_string()),
            TopicsError::Tenant(_) => {
                Self::at(ProblemCode::InvalidValue, "/tenantId", error.to_string())
            }
            TopicsError::Own(_) => Self::at(ProblemCode::InvalidValue, "/name", error.to_string()),
            TopicsError::Kafka(_) => Self::new(ProblemCode::KafkaUnavailable, error.to_string()),
            TopicsError::Store(error) => error.into(),
        }
    }
}
