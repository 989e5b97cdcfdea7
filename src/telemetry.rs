//! Logs and metrics: set up once, at the start of a command.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Seconds: from a lone request on a fast disk to the request's time limit.
const DURATIONS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0];

/// Logs to stderr, one line an event.
pub fn init_logs(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.level)
        .with_context(|| format!("LOG_LEVEL={}: use info, debug or a filter", settings.level))?;
    // rskafka reports as errors what its callers handle, an offset out of range for one.
    let filter = filter.add_directive("rskafka=off".parse()?).add_directive("krafka=off".parse()?);
    let pretty = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    // A log whose reader is gone is no reason to end: telling of it would go the same way, and panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let result = if pretty {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        // The current span is the request's; the list of all of them would say it twice.
        builder.json().flatten_event(true).with_span_list(false).try_init()
    };
    result.map_err(|error| anyhow::anyhow!("logs: {error}"))
}

/// The recorder behind the `metrics` macros and the text that `/metrics` serves.
pub fn init_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATIONS)?
        .set_buckets_for_metric(Matcher::Full("command_batch_size".to_owned()), BATCH_SIZES)?;
    Ok(builder.install_recorder()?)
}
