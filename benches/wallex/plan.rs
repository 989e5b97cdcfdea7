//! The lines of the table, and how each is measured.

use crate::batched::Tables;
use crate::commands::{self, Command, Work};
use crate::options::{Options, Scale};
use crate::reading::Reading;
use crate::reads::{self, Read};
use crate::request::Aim;
use crate::world::World;
use crate::{batched, instep, pgbench, pipeline, purges};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Pgbench { clients: usize, hot: bool },
    Batched { tables: Tables, size: usize, connections: u64 },
    Command { command: Command, connections: usize, aim: Aim },
    Bulk { size: usize },
    Read { read: Read, connections: usize },
    InStep { work: Work },
    Readable { rate: u32 },
    Drain { codec: &'static str },
    Rebuild,
    Memory,
    Growth { grown: bool },
    Purges,
}

impl Cell {
    pub fn group(self) -> char {
        match self {
            Self::Pgbench { .. } | Self::Batched { .. } => 'a',
            Self::Command { .. } | Self::InStep { work: Work::One { .. } } => 'b',
            Self::Bulk { .. } | Self::InStep { work: Work::Bulk { .. } } => 'c',
            Self::Read { .. } => 'd',
            Self::Readable { .. } | Self::Drain { .. } | Self::Rebuild => 'e',
            Self::Memory => 'g',
            Self::Growth { .. } => 'h',
            Self::Purges => 'i',
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::Pgbench { clients, hot: false } => format!("pgbench, {clients} clients"),
            Self::Pgbench { clients, hot: true } => format!("pgbench, one row, {clients} clients"),
            Self::Batched { tables, size, connections } => {
                let writer = tables.name();
                format!("{writer}, {size} a transaction, {connections} connections")
            }
            Self::Command { command, connections, aim } => {
                format!("{}, {connections} connections", Work::One { command, aim }.name())
            }
            Self::Bulk { size } => format!("{}, 8 connections", Work::Bulk { size }.name()),
            Self::Read { read, connections } => {
                format!("{}, {connections} connections", read.name())
            }
            Self::InStep { work } => format!("{}, in step", work.name()),
            Self::Readable { rate } => format!("answer to readable entry, at {rate}/s"),
            Self::Drain { codec } => format!("publisher drains a full outbox, {codec}"),
            Self::Rebuild => "projectors from nothing, fed from PostgreSQL".to_owned(),
            Self::Memory => "resident memory, 512 connections".to_owned(),
            Self::Growth { grown: true } => "credit, 128 connections, grown tables".to_owned(),
            Self::Growth { grown: false } => "credit, 128 connections, empty tables".to_owned(),
            Self::Purges => "purges of old outbox rows and keys".to_owned(),
        }
    }

    pub async fn measure(self, world: &mut World) -> anyhow::Result<Reading> {
        match self {
            Self::Pgbench { clients, hot } => pgbench::measure(world, clients, hot).await,
            Self::Batched { tables, size, connections } => {
                batched::measure(world, tables, size, connections).await
            }
            Self::Command { command, connections, aim } => {
                commands::measure(world, command, connections, aim).await
            }
            Self::Bulk { size } => commands::bulk(world, size).await,
            Self::Read { read, connections } => reads::measure(world, read, connections).await,
            Self::InStep { work } => instep::measure(world, work).await,
            Self::Readable { rate } => pipeline::readable(world, f64::from(rate)).await,
            Self::Drain { codec } => pipeline::publisher_drain(world, codec).await,
            Self::Rebuild => pipeline::rebuild(world).await,
            Self::Memory => commands::memory(world).await,
            Self::Growth { grown } => commands::growth(world, grown).await,
            Self::Purges => purges::measure(world).await,
        }
    }
}

/// The lines that a run measures, in the order of the table.
pub fn cells(options: &Options, scale: &Scale) -> Vec<Cell> {
    let mut cells = match scale.name {
        "quick" => quick(),
        "smoke" => smoke(),
        _ => full(),
    };
    if !options.only.is_empty() {
        cells.retain(|cell| options.only.iter().any(|group| group == &cell.group().to_string()));
    }
    if let Some(text) = &options.lines {
        cells.retain(|cell| cell.name().contains(text.as_str()));
    }
    cells
}

fn full() -> Vec<Cell> {
    let mut cells = Vec::new();
    for hot in [false, true] {
        cells.extend([1, 8, 32].map(|clients| Cell::Pgbench { clients, hot }));
    }
    for size in [100, 500] {
        let tables = Tables::Service;
        cells.extend([1, 8].map(|connections| Cell::Batched { tables, size, connections }));
    }
    let (tables, size) = (Tables::Narrow, 100);
    cells.extend([1, 8].map(|connections| Cell::Batched { tables, size, connections }));
    for command in Command::ALL {
        for aim in [Aim::Uniform, Aim::Hot] {
            let counts = [1, 8, 32, 128, 512];
            cells.extend(counts.map(|connections| Cell::Command { command, connections, aim }));
            cells.push(Cell::InStep { work: Work::One { command, aim } });
        }
    }
    for size in [10, 100, 1000] {
        cells.extend([Cell::Bulk { size }, Cell::InStep { work: Work::Bulk { size } }]);
    }
    cells.extend(Read::ALL.map(|read| Cell::Read { read, connections: 32 }));
    cells.push(Cell::Readable { rate: 1_000 });
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    cells.extend(codecs.map(|codec| Cell::Drain { codec }));
    cells.extend([Cell::Rebuild, Cell::Memory]);
    cells.extend([false, true].map(|grown| Cell::Growth { grown }));
    cells.push(Cell::Purges);
    cells
}

fn quick() -> Vec<Cell> {
    let credit = |connections, aim| Cell::Command { command: Command::Credit, connections, aim };
    vec![
        Cell::Pgbench { clients: 1, hot: false },
        Cell::Pgbench { clients: 8, hot: false },
        Cell::Pgbench { clients: 8, hot: true },
        Cell::Batched { tables: Tables::Service, size: 100, connections: 8 },
        Cell::Batched { tables: Tables::Narrow, size: 100, connections: 8 },
        credit(1, Aim::Uniform),
        credit(128, Aim::Uniform),
        credit(128, Aim::Hot),
        Cell::Bulk { size: 100 },
        Cell::Memory,
    ]
}

/// One line of every kind.
fn smoke() -> Vec<Cell> {
    let command = |command, aim| Cell::Command { command, connections: 8, aim };
    let mut cells = vec![
        Cell::Pgbench { clients: 1, hot: false },
        Cell::Batched { tables: Tables::Service, size: 100, connections: 1 },
        Cell::Batched { tables: Tables::Narrow, size: 100, connections: 1 },
        command(Command::Credit, Aim::Uniform),
        command(Command::Transfer, Aim::Hot),
        Cell::Bulk { size: 10 },
        Cell::InStep { work: Work::Bulk { size: 10 } },
    ];
    cells.extend(Read::ALL.map(|read| Cell::Read { read, connections: 8 }));
    cells.extend([Cell::Readable { rate: 50 }, Cell::Drain { codec: "gzip" }]);
    cells.extend([Cell::Rebuild, Cell::Memory, Cell::Growth { grown: true }, Cell::Purges]);
    cells
}
