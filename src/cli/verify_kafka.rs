//! `wallex verify-kafka`: the way to Kafka, step by step, with what to do where it ends.

use clap::Args;
use uuid::Uuid;

use crate::config::Settings;
use crate::kafka::verify::{self, Outcome, Plan, Step};
use crate::projector::Projection;
use crate::status::COMMANDS;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the time and the key of a record that no consumer reads"
)]
pub async fn run(args: &VerifyArgs, settings: Settings) -> anyhow::Result<bool> {
    let prefix = &settings.consumer.group_prefix;
    let commands = settings.kafka.inbound.enabled.then_some(COMMANDS);
    let groups = Projection::ALL.iter().map(|kind| kind.name()).chain(commands);
    let groups = groups.map(|name| format!("{prefix}{name}")).collect();
    let plan = Plan {
        kafka: settings.kafka,
        codec: settings.producer.compression,
        groups,
        now: chrono::Utc::now(),
        key: Uuid::now_v7().to_string(),
    };
    let mut steps = Vec::new();
    let fine = verify::walk(plan, |step| {
        if !args.json {
            println!("{}", line(&step));
        }
        steps.push(step);
    })
    .await;
    if args.json {
        let document = serde_json::json!({"ok": fine, "steps": steps});
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(fine)
}

fn line(step: &Step) -> String {
    let Step { step, status, ms, detail, hint } = step;
    match status {
        Outcome::Ok => format!("✓ {step:<13} {ms:>5} ms  {detail}"),
        Outcome::Failed => {
            let hint = hint.map_or(String::new(), |hint| format!("\n  → {hint}"));
            format!("✗ {step:<13} {ms:>5} ms  {detail}{hint}")
        }
        Outcome::Off => format!("- {step:<13}           off"),
        Outcome::NotTried => format!("  {step:<13}           not tried"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_says_what_to_do_below_it() {
        let step = Step {
            step: "tcp",
            status: Outcome::Failed,
            ms: 3,
            detail: "network: refused".to_owned(),
            hint: Some("start it"),
        };
        assert_eq!(line(&step), "✗ tcp               3 ms  network: refused\n  → start it");
        let off = Step { status: Outcome::Off, ..step };
        assert_eq!(line(&off), "- tcp                     off");
    }
}
