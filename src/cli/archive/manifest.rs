//! The manifest of an archive: what its files hold, so that they can be judged without a database.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::archives::{Column, Month, Sum};

/// The form of the files; another one is refused.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// Rows are from this moment on; null: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// And before this one.
    pub to: DateTime<Utc>,
    /// The last migration of the schema that they were written by.
    pub schema_version: i64,
    pub tables: Vec<Table>,
    pub sums: Vec<Sum>,
}

/// One table's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    pub table: String,
    pub file: String,
    pub rows: u64,
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    /// Of the file as it lies there, compressed.
    pub bytes: u64,
    pub sha256: String,
    pub columns: Vec<Column>,
}

impl Manifest {
    pub fn path(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("wallex_{name}.json"))
    }

    /// Reads it, with its own SHA-256.
    pub fn load(folder: &Path, name: &str) -> anyhow::Result<(Self, String)> {
        let path = Self::path(folder, name);
        let text = fs::read(&path).with_context(|| {
            format!("{}: name the folder with the archive by --dir", path.display())
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{}: is no manifest of an archive", path.display()))?;
        ensure!(
            manifest.format == FORMAT,
            "{}: has the form {}, and this release reads {FORMAT}: use the release that wrote it",
            path.display(),
            manifest.format
        );
        Ok((manifest, hex(&Sha256::digest(&text))))
    }

    /// Writes it as a whole, or not at all. Returns its SHA-256.
    pub fn save(&self, folder: &Path) -> anyhow::Result<String> {
        let path = Self::path(folder, &self.name);
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)
            .with_context(|| format!("{} cannot be written", unfinished.display()))?;
        file.write_all(&text)?;
        file.sync_all()?;
        finished(&unfinished, &path)?;
        Ok(hex(&Sha256::digest(&text)))
    }

    pub fn of(&self, table: &str) -> anyhow::Result<&Table> {
        let found = self.tables.iter().find(|known| known.table == table);
        found.with_context(|| format!("the manifest of {} has no {table}", self.name))
    }

    /// Whether it speaks of the month as the database knows it.
    pub fn is_of(&self, month: &Month) -> bool {
        self.name == month.name && self.from == month.from_at && self.to == month.to_at
    }
}

/// Gives a file that was synced its name, durably.
pub fn finished(unfinished: &Path, path: &Path) -> anyhow::Result<()> {
    fs::rename(unfinished, path)
        .with_context(|| format!("{} cannot be renamed", unfinished.display()))?;
    let folder = path.parent().context("a file without a folder")?;
    File::open(folder)?
        .sync_all()
        .with_context(|| format!("{}: cannot be synced", folder.display()))
}

pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
