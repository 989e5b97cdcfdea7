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
mod growth;
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
mod size;
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
use world::{SETTINGS, World};

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
    if options.growth {
        return growing(&options, scale, &program, changed).await;
    }
    if options.size {
        return at_size(&options, scale, &program, changed).await;
    }
    let cells = plan::cells(&options, &scale);
    ensure!(!cells.is_empty(), "no line of this scale is in --only and --lines");

    eprintln!("starting PostgreSQL and Kafka");
    let mut world = World::start(scale, &program, changed, !options.uncounted, &SETTINGS).await?;
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

/// What an event costs over large tables: one table.
async fn at_size(
    options: &Options,
    scale: options::Scale,
    program: &std::path::Path,
    changed: Vec<(String, String)>,
) -> anyhow::Result<()> {
    eprintln!("starting PostgreSQL and Kafka");
    let mut world = World::start(scale, program, changed, false, &size::SETTINGS).await?;
    let confined = size::confine(world.postgres.pid());
    let mut conditions = world.conditions()?;
    let memory = confined.as_ref().err().map_or("1 GB, by a control group", String::as_str);
    conditions.push(("memory of PostgreSQL".to_owned(), memory.to_owned()));
    commands::warm_up(&mut world).await?;
    let time = std::time::Duration::from_secs(options.minutes * 60);
    let measured = size::measure(&mut world, options.rows, time).await;
    world.postgres.stop();
    if let Ok(group) = confined {
        let _ = std::fs::remove_dir(group);
    }
    let mut markdown: String =
        conditions.iter().map(|(name, value)| format!("- {name}: {value}\n")).collect();
    markdown.push('\n');
    markdown.push_str(&size::markdown(&measured?));
    println!("{}", table::aligned(&markdown));
    if options.write_docs {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/PERFORMANCE.md");
        report::write_section(&docs, "size", &markdown)?;
    }
    Ok(())
}

/// How queries grow with their tables: one table, and a failure where one grows that must not.
async fn growing(
    options: &Options,
    scale: options::Scale,
    program: &std::path::Path,
    changed: Vec<(String, String)>,
) -> anyhow::Result<()> {
    eprintln!("starting PostgreSQL and Kafka");
    let mut world = World::start(scale, program, changed, false, &SETTINGS).await?;
    let all = growth::measure(&mut world, &options.sizes()).await?;
    let markdown = growth::markdown(&all);
    println!("{}", table::aligned(&markdown));
    if options.write_docs {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/PERFORMANCE.md");
        report::write_section(&docs, "growth", &markdown)?;
    }
    let grow: Vec<&str> =
        all.iter().filter(|grown| !grown.is_bounded()).map(|grown| grown.name).collect();
    ensure!(options.smoke || grow.is_empty(), "these grow with their tables: {}", grow.join("; "));
    Ok(())
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
