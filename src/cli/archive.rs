//! `wallex archive list|detach|attach|verify`: takes an old month of events and postings to files, and brings it back.
//!
//! A month is taken away in this order: its files are written and synced, the manifest last; they are read again from
//! end to end; then one transaction puts what stays of the month in its place and notes the archive. A kill at any
//! moment leaves the month attached or archived: what was begun is done again.

mod files;
mod manifest;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use self::files::{Lines, Writer, check, check_sums};
use self::manifest::{FORMAT, Manifest, Table};
use super::output;
use crate::config::Settings;
use crate::envelope::timestamp;
use crate::store::archives::{self, Month, Noted, TABLES};
use crate::store::{self, Connection};

#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// The months: which are attached, which are in archives, and where
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Take the oldest month to files; as the tables' owner
    Detach(DetachArgs),
    /// Bring the month back that was taken away last; as the tables' owner
    Attach(MonthArgs),
    /// Read an archive from end to end, and compare it with its manifest, and with the tables where it is attached
    Verify(MonthArgs),
}

#[derive(Debug, Args)]
pub struct MonthArgs {
    /// As `wallex archive list` names it: 2026_01
    month: String,
    /// The folder with the files
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct DetachArgs {
    #[command(flatten)]
    of: MonthArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(command: ArchiveCommand, settings: Settings) -> anyhow::Result<bool> {
    let mut connection =
        store::connect_owner(&settings.database).await.context("DATABASE_MIGRATION_URL")?;
    let c = &mut connection;
    match command {
        ArchiveCommand::List { json } => {
            let months = archives::months(c).await?;
            output::show(json, &months, |months| print(months))
        }
        ArchiveCommand::Verify(args) => verify(c, &args).await,
        ArchiveCommand::Detach(args) => {
            locked(c).await?;
            detach(c, &args).await
        }
        ArchiveCommand::Attach(args) => {
            locked(c).await?;
            attach(c, &args).await
        }
    }
}

async fn locked(connection: &mut Connection) -> anyhow::Result<()> {
    let locked = archives::lock(connection).await?;
    ensure!(locked, "another `wallex archive` is at work on this database: wait for its end");
    Ok(())
}

async fn detach(connection: &mut Connection, args: &DetachArgs) -> anyhow::Result<bool> {
    let month = oldest(connection, &args.of.month).await?;
    if let Some(why) = archives::obstacle(connection, &month).await? {
        bail!("{} cannot be taken away: {why}", month.name);
    }
    let question = format!(
        "{}: its events and entries go to {}, and are answered with 410 from then on. Go on?",
        month.name,
        args.of.dir.display()
    );
    if !args.yes && !output::confirmed(&question)? {
        println!("nothing was changed");
        return Ok(false);
    }
    let folder = std::path::absolute(&args.of.dir)?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    write(connection, &month, &folder).await?;
    let (manifest, sha256) = checked(&folder, &month.name)?;
    // What was written must be all there is: nothing may have come meanwhile.
    let (events, postings) = archives::rows(connection, &month).await?;
    ensure!(
        rows_of(&manifest)? == (events, postings),
        "{} has changed since it was written: run the command again, and look for a clock that is wrong",
        month.name
    );
    aside("what stays of the month is made");
    archives::stage(connection, &month).await?;
    let place = folder.display().to_string();
    let sums = &manifest.sums;
    let noted = Noted { place: &place, sha256: &sha256, events, postings, sums };
    archives::detach(connection, &month, noted).await?;
    println!("{} is archived: {events} events, {postings} postings in {place}", month.name);
    Ok(true)
}

/// The month by this name, which must be the oldest that is attached: what is archived is older than all that is not.
async fn oldest(connection: &mut Connection, name: &str) -> anyhow::Result<Month> {
    let months = archives::months(connection).await?;
    let month = named(&months, name)?;
    ensure!(!month.archived, "{} is archived already: see `wallex archive list`", month.name);
    let first = months.iter().find(|month| !month.archived);
    match first.filter(|first| first.name != month.name) {
        Some(first) => bail!("{} is older: take it away first", first.name),
        None => Ok(month.clone()),
    }
}

fn named<'m>(months: &'m [Month], name: &str) -> anyhow::Result<&'m Month> {
    let name = name.replace('-', "_");
    months
        .iter()
        .find(|month| month.name == name)
        .with_context(|| format!("there is no month {name}: see `wallex archive list`"))
}

/// Writes the files, the manifest last. Those of an earlier attempt are written again.
async fn write(connection: &mut Connection, month: &Month, folder: &Path) -> anyhow::Result<()> {
    let mut tables = Vec::new();
    for table in TABLES {
        let columns = archives::columns(connection, table).await?;
        let partition = format!("{table}_{}", month.name);
        let file = format!("wallex_{partition}.copy.zst");
        let mut writer = Writer::create(folder, &file)?;
        let mut progress = Progress::new(format!("{partition} is written"));
        archives::export(connection, &partition, &columns, |lines| {
            writer.write(lines)?;
            progress.at(writer.rows);
            Ok(())
        })
        .await
        .with_context(|| format!("{partition}: make room in {}", folder.display()))?;
        let rows = writer.rows;
        let (sha256, bytes) = writer.finish()?;
        let table = table.to_owned();
        let (first_at, last_at) = (None, None);
        tables.push(Table { table, file, rows, first_at, last_at, bytes, sha256, columns });
    }
    for table in &mut tables {
        let found = check(folder, table, |_| {})?;
        (table.first_at, table.last_at) = (found.first_at, found.last_at);
    }
    let manifest = Manifest {
        format: FORMAT,
        name: month.name.clone(),
        from: month.from_at,
        to: month.to_at,
        schema_version: archives::schema_version(connection).await?,
        tables,
        sums: archives::sums(connection, month).await?,
    };
    manifest.save(folder).map(drop)
}

/// Reads an archive from end to end. Returns its manifest with that one's SHA-256.
fn checked(folder: &Path, name: &str) -> anyhow::Result<(Manifest, String)> {
    let (manifest, sha256) = Manifest::load(folder, name)?;
    for table in TABLES {
        let table = manifest.of(table)?;
        let mut progress = Progress::new(format!("{} is read", table.file));
        let found = check(folder, table, |rows| progress.at(rows))?;
        ensure!(
            (&found.first_at, &found.last_at) == (&table.first_at, &table.last_at),
            "{}: its times are not those of the manifest: take the files from another copy",
            table.file
        );
        if table.table == "postings" {
            check_sums(&manifest, &found)?;
        }
    }
    Ok((manifest, sha256))
}

fn rows_of(manifest: &Manifest) -> anyhow::Result<(i64, i64)> {
    let rows = |table: &str| anyhow::Ok(i64::try_from(manifest.of(table)?.rows)?);
    Ok((rows("events")?, rows("postings")?))
}

async fn attach(connection: &mut Connection, args: &MonthArgs) -> anyhow::Result<bool> {
    let months = archives::months(connection).await?;
    let month = named(&months, &args.month)?;
    ensure!(month.archived, "{} is attached already", month.name);
    let last = months.iter().rev().find(|month| month.archived);
    if let Some(last) = last.filter(|last| last.name != month.name) {
        bail!("{} was taken away after it: bring that back first", last.name);
    }
    let (manifest, sha256) = checked(&args.dir, &month.name)?;
    ensure!(
        manifest.is_of(month) && month.sha256.as_deref() == Some(&*sha256),
        "{}: this is not the manifest that was noted when the month was taken away: look for it at {}",
        Manifest::path(&args.dir, &month.name).display(),
        month.place.as_deref().unwrap_or("another place")
    );
    archives::prepare(connection, month).await?;
    for table in TABLES {
        let table = manifest.of(table)?;
        let mut lines = Lines::open(&args.dir, table)?;
        let mut progress = Progress::new(format!("{} is brought back", table.file));
        let (into, mut done) = (format!("{}_back", table.table), 0);
        let rows = archives::import(connection, &into, &table.columns, || {
            let piece = lines.next_piece()?;
            let seen = piece.as_deref().unwrap_or_default();
            done += u64::try_from(seen.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(0);
            progress.at(done);
            Ok(piece)
        })
        .await?;
        ensure!(rows == table.rows, "{}: {rows} rows came back, not {}", table.file, table.rows);
    }
    aside("its indexes are made, and it is attached");
    archives::attach(connection, month).await?;
    println!("{} is attached; its files are no longer needed", month.name);
    Ok(true)
}

async fn verify(connection: &mut Connection, args: &MonthArgs) -> anyhow::Result<bool> {
    let name = args.month.replace('-', "_");
    let (manifest, sha256) = checked(&args.dir, &name)?;
    let months = archives::months(connection).await?;
    let month = named(&months, &name)?;
    if month.archived {
        ensure!(
            month.sha256.as_deref() == Some(&*sha256),
            "the manifest is whole, and not the one that was noted when {name} was taken away: look for it at {}",
            month.place.as_deref().unwrap_or("another place")
        );
        println!("{name} is whole, and the archive that was noted");
        return Ok(true);
    }
    let rows = archives::rows(connection, month).await?;
    let sums = archives::sums(connection, month).await?;
    if rows_of(&manifest)? != rows || manifest.sums != sums {
        println!(
            "{name} is whole, and differs from the tables: {} and {} rows there",
            rows.0, rows.1
        );
        return Ok(false);
    }
    println!("{name} is whole, and as the tables have it");
    Ok(true)
}

fn print(months: &[Month]) {
    println!(
        "{:<10} {:<26} {:<10} {:>14} {:>14} {:>10}  place",
        "month", "before", "state", "events", "postings", "MiB"
    );
    for month in months {
        println!(
            "{:<10} {:<26} {:<10} {:>14} {:>14} {:>10}  {}",
            month.name,
            timestamp(month.to_at),
            if month.archived { "archived" } else { "attached" },
            month.events,
            month.postings,
            month.bytes >> 20,
            month.place.as_deref().unwrap_or("-")
        );
    }
}

fn aside(text: &str) {
    eprintln!("wallex: {text}");
}

/// Tells how far something is, once a second.
struct Progress {
    what: String,
    said: Instant,
}

impl Progress {
    fn new(what: String) -> Self {
        Self { what, said: Instant::now() }
    }

    fn at(&mut self, rows: u64) {
        if self.said.elapsed() >= Duration::from_secs(1) {
            self.said = Instant::now();
            aside(&format!("{}: {rows} rows", self.what));
        }
    }
}
