//! `wallex openapi` and `wallex asyncapi`: the documents of routes and topics, for generators and
//! reviews, without a running service.

use std::io::Write as _;

use crate::config::Settings;

pub fn run() -> anyhow::Result<bool> {
    std::io::stdout().write_all(&crate::app::openapi())?;
    Ok(true)
}

/// By the names that these settings give the topics.
pub fn asyncapi(settings: &Settings) -> anyhow::Result<bool> {
    std::io::stdout().write_all(&crate::app::asyncapi(settings))?;
    Ok(true)
}
