//! `wallex openapi` and `wallex asyncapi`: the documents of routes and topics, for generators and
//! reviews, without a running service.

use crate::config::Settings;

pub fn run() -> anyhow::Result<bool> {
    super::output::write(&crate::app::openapi());
    Ok(true)
}

/// By the names that these settings give the topics.
pub fn asyncapi(settings: &Settings) -> anyhow::Result<bool> {
    super::output::write(&crate::app::asyncapi(settings));
    Ok(true)
}
