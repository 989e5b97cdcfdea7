//! `scripts/bench`: what the service does on this machine, beside what PostgreSQL alone can do, in
//! one run and one table.
//!
//! Every reading has a fresh copy of a prepared database, a service started over it, and a
//! pipeline in step. Passes are interleaved, so that a noisy minute does not fall on one line.

#![allow(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program beside the service: it prints figures, reads its environment, and may panic"
)]

mod batched;
mod commands;
mod cost;
mod instep;
mod layout;
mod load;
mod narrow;
mod options;
mod pgbench;
mod pipeline;
mod plan;
mod purges;
mod reading;
mod reads;
mod report;
mod request;
mod search;
mod seed;
mod service;
mod statements;
mod table;
mod targets;
mod wire;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use plan::Cell;
use reading::{Line, Reading};
use world::World;

/// One thread: the generator must stay cheap beside what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // Interrupted, the run still ends its servers and removes its folder.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = run(Options::parse()) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    // Chosen before the first Kafka client, as in the service.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scale = options.scale();
    let program = options.service.clone().unwrap_or(env!("CARGO_BIN_EXE_wallex").into());
    let changed = changed(&options.settings)?;
    let cells = plan::cells(&options, &scale);
    ensure!(!cells.is_empty(), "no line of this scale is in --only and --lines");

    eprintln!("starting PostgreSQL and Kafka");
    let mut world = World::start(scale, &program, changed, !options.uncounted).await?;
    commands::warm_up(&mut world).await?;
    let mut conditions = world.conditions()?;
    conditions.push(("load average at the start".to_owned(), cost::load_average()));
    let lines = measure(&mut world, &cells).await;
    conditions.push(("load average at the end".to_owned(), cost::load_average()));

    let markdown = table::markdown(&conditions, &lines);
    println!("{}", table::aligned(&markdown));
    if options.statements {
        println!("{}", table::aligned(&table::statements(&lines)));
    }
    if let Some(file) = &options.json {
        report::write_json(file, &conditions, &lines)?;
    }
    if options.write_docs {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/PERFORMANCE.md");
        // scripts/bench draws the plot where there is something to draw.
        let drawn = lines.iter().any(|line| line.group == 'b' && line.missing().is_none());
        let plot = "\n![Commands a second, by connections](performance.svg)\n";
        let plot = if drawn { plot } else { "" };
        report::write_docs(&docs, &(markdown + &table::of_one_credit(&lines) + plot))?;
    }
    let failed =
        lines.iter().filter(|line| line.missing().is_some_and(|why| why != "no such route"));
    let failed: Vec<&str> = failed.map(|line| line.name.as_str()).collect();
    ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    known(&lines)
}

/// The lines of commands have statements of all kinds: one that is not met has changed its form.
fn known(lines: &[Line]) -> anyhow::Result<()> {
    let of_commands = lines.iter().filter(|line| matches!(line.group, 'b' | 'c'));
    let all: Vec<_> = of_commands.filter_map(Line::statements).collect();
    let unnamed = if all.is_empty() { Vec::new() } else { statements::unnamed(all.iter()) };
    ensure!(
        unnamed.is_empty(),
        "no statement goes by the name of {}: see benches/wallex/statements/names.rs",
        unnamed.join(", ")
    );
    Ok(())
}

/// All passes over all lines. A line that fails says so in the table; the others go on.
async fn measure(world: &mut World, cells: &[Cell]) -> Vec<Line> {
    let mut lines: Vec<Line> = cells
        .iter()
        .map(|cell| Line { group: cell.group(), name: cell.name(), readings: Vec::new() })
        .collect();
    let begin = Instant::now();
    for pass in 1..=world.scale.passes {
        for (cell, line) in cells.iter().zip(&mut lines) {
            let (at, passes) = (begin.elapsed().as_secs(), world.scale.passes);
            let reading = match cell.measure(world).await {
                Ok(reading) => reading,
                Err(error) => Reading::missing(&format!("failed: {error:#}").replace('\n', " ")),
            };
            let said = reading.missing.clone().unwrap_or_else(|| table::short(reading.rate));
            eprintln!("{at:5} s  pass {pass} of {passes}  {}: {said}", line.name);
            line.readings.push(reading);
        }
    }
    lines
}

fn changed(settings: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').context("--set wants NAME=VALUE")?;
        Ok((name.to_owned(), value.to_owned()))
    };
    settings.iter().map(pair).collect()
}
