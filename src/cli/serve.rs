//! `wallex serve`: the service, until SIGTERM or Ctrl-C.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Overrides;
use crate::{app, telemetry};

#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Address to listen on, in place of HOST
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on, in place of PORT
    #[arg(long)]
    pub port: Option<u16>,
}

pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut flags = Overrides::new();
    flags.extend(args.host.map(|host| ("HOST", host)));
    flags.extend(args.port.map(|port| ("PORT", port.to_string())));
    let (settings, notes) = super::settings_and_notes(&flags)?;
    telemetry::init_logs(&settings.log)?;
    notes.log();
    let metrics = telemetry::init_metrics()?;

    let shutdown = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let service = app::run(settings, metrics, shutdown.clone());
    let mut service = std::pin::pin!(service);
    let name = tokio::select! {
        ended = &mut service => return ended,
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tracing::info!(signal = name, "stopping: running requests finish first");
    shutdown.cancel();
    tokio::select! {
        ended = service => ended,
        _ = interrupt.recv() => anyhow::bail!("interrupted again: not waited for"),
    }
}
