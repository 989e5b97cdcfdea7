//! The schemas and their registry: asked for a moment at the start, and then for as long as it takes.
//!
//! A registry that is away stops nothing. One that says that our records would break their readers
//! stops the start: what is in the topic stays there.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Settings;
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
}

impl Schemas {
    /// None: no registry is set.
    pub fn new(settings: &Settings, status: &Status) -> Option<Self> {
        let registry = settings.registry.as_ref()?;
        let subjects = registry::subjects(&topics::channels(settings));
        metrics::gauge!("schema_registry_subjects").set(0.0);
        status.update(|pipeline| {
            pipeline.schemas.registry = Some(registry.to_string());
            pipeline.schemas.state = SchemasState::Waiting;
        });
        let (registry, status) = (Registry::new(registry), status.clone());
        Some(Self { registry, subjects, status })
    }

    /// The first attempt. Fails where the registry says that they do not fit; true: all is done.
    pub async fn at_start(&self) -> anyhow::Result<bool> {
        match timeout(AT_START, self.attempt()).await {
            Ok(Err(error @ RegistryError::Incompatible { .. })) => {
                Err(error).context("SCHEMA_REGISTRY_URL")
            }
            Ok(answer) => Ok(answer.is_ok()),
            Err(_) => {
                self.failed(SchemasState::Waiting, &format!("no answer within {AT_START:?}"));
                Ok(false)
            }
        }
    }

    /// Until they are registered, and then idle until told to stop.
    pub async fn run(self, registered: bool, stop: CancellationToken) {
        let (mut done, mut backoff) = (registered, Backoff::new(PAUSE_MIN, PAUSE_MAX));
        let mut pause = PAUSE_MIN;
        while !done {
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let Some(answer) = stop.run_until_cancelled(self.attempt()).await else { return };
            done = answer.is_ok();
            pause = backoff.fail();
        }
        stop.cancelled().await;
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
