//! `wallex openapi`: the document of the API, for generators and reviews, without a running service.

use std::io::Write as _;

pub fn run() -> anyhow::Result<bool> {
    std::io::stdout().write_all(&crate::app::openapi())?;
    Ok(true)
}
