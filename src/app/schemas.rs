//! The schemas and their registry: asked for a moment at the start, and then for as long as it takes.
//!
//! A registry that is away stops nothing. One that says that our records would break their readers
//! stops the start: what is in the topic stays there.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;

use super::services::Services;
use crate::background::task::{NEVER, Task};
use crate::backoff::Backoff;
use crate::config::RegistrySettings;
use crate::registry::{self, Registry, RegistryError, Subject};
use crate::status::{SchemasState, Status};
use crate::topics;

/// The start waits this long for the registry.
const AT_START: Duration = Duration::from_secs(4);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What has to be registered, and where.
pub(super) struct Schemas {
    registry: Registry,
    subjects: Vec<Subject>,
    status: Status,
    registered: bool,
}

/// The first attempt. Fails where the registry says that they do not fit; none: no registry is set.
pub(super) async fn at_start(services: &Services) -> anyhow::Result<Option<Schemas>> {
    let Some(registry) = &services.settings.registry else { return Ok(None) };
    let mut schemas = Schemas::new(services, registry);
    match timeout(AT_START, schemas.attempt()).await {
        Ok(Err(error @ RegistryError::Incompatible { .. })) => {
            return Err(error).context("SCHEMA_REGISTRY_URL");
        }
        Ok(answer) => schemas.registered = answer.is_ok(),
        Err(_) => schemas.failed(SchemasState::Waiting, &format!("no answer within {AT_START:?}")),
    }
    Ok(Some(schemas))
}

impl Task for Schemas {
    const NAME: &'static str = "schemas";
    const MAY_BE_CUT: bool = true;
    type Error = RegistryError;

    async fn round(&mut self) -> Result<Duration, RegistryError> {
        if !self.registered {
            self.attempt().await?;
            self.registered = true;
        }
        Ok(NEVER)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(PAUSE_MIN, PAUSE_MAX)
    }
}

impl Schemas {
    fn new(services: &Services, registry: &RegistrySettings) -> Self {
        let status = services.status.clone();
        let subjects = registry::subjects(&topics::channels(&services.settings));
        metrics::gauge!("schema_registry_subjects").set(0.0);
        status.update(|pipeline| {
            pipeline.schemas.registry = Some(registry.to_string());
            pipeline.schemas.state = SchemasState::Waiting;
        });
        Self { registry: Registry::new(registry), subjects, status, registered: false }
    }

    async fn attempt(&self) -> Result<(), RegistryError> {
        let answer = self.registry.register(&self.subjects).await;
        match &answer {
            Ok(new) => {
                let count = self.subjects.len();
                tracing::info!(subjects = count, new, "schemas registered");
                metrics::gauge!("schema_registry_subjects")
                    .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
                self.status.update(|pipeline| {
                    pipeline.schemas.state = SchemasState::Registered;
                    pipeline.schemas.subjects = count;
                    pipeline.schemas.error = None;
                });
            }
            Err(error) => {
                let refused = matches!(error, RegistryError::Incompatible { .. });
                let state =
                    if refused { SchemasState::Incompatible } else { SchemasState::Waiting };
                self.failed(state, &error.to_string());
            }
        }
        answer.map(drop)
    }

    fn failed(&self, state: SchemasState, error: &str) {
        metrics::counter!("schema_registry_errors_total").increment(1);
        tracing::warn!(error, state = state.as_str(), "the schemas are not registered");
        self.status.update(|pipeline| {
            pipeline.schemas.state = state;
            pipeline.schemas.error = Some(error.to_owned());
        });
    }
}
