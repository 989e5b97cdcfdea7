//! `wallex healthcheck`: asks the service on this machine; what a container's health check runs.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::Settings;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct HealthcheckArgs {
    /// What to ask: /readyz, /livez or /api/health
    #[arg(long, default_value = "/readyz")]
    pub path: String,
}

/// Whether the service answered 200. One request needs no client library.
pub async fn run(args: HealthcheckArgs, settings: &Settings) -> anyhow::Result<bool> {
    let host = match settings.http.host {
        any if any.is_unspecified() => "127.0.0.1".to_owned(),
        host => host.to_string(),
    };
    let port = settings.http.port;
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, ask(&host, port, &args.path)).await;
    let answer = asked.context("no answer in time")?.with_context(|| {
        format!("http://{host}:{port}{}: is the service running there?", args.path)
    })?;
    let healthy = answer.starts_with("HTTP/1.1 200 ");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    println!("{}", body.trim());
    Ok(healthy)
}

async fn ask(host: &str, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
