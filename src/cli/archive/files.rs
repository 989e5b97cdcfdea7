//! The files of an archive: rows as COPY writes them, compressed with zstd. Read again from end to end before
//! anything is taken away for them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::manifest::{Manifest, Table, finished, hex};
use crate::store::archives::{Column, Sum};

/// A file of cold rows is read seldom: small counts for more than fast.
const LEVEL: i32 = 9;
/// What is handed to Postgres at once.
const PIECE: usize = 1 << 18;

/// What a file was found to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub rows: u64,
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    /// By tenant and currency: entries, credits and debits in units of 10^-8. Of postings alone.
    sums: BTreeMap<(String, String), (i64, i128, i128)>,
}

/// Counts what passes through, and hashes it.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn seen(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.bytes += u64::try_from(piece.len()).unwrap_or(0);
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(piece)?;
        self.seen(piece.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.seen(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A file that is being written, under another name until it is whole.
pub struct Writer {
    encoder: zstd::Encoder<'static, Hashed<File>>,
    unfinished: PathBuf,
    path: PathBuf,
    pub rows: u64,
}

impl Writer {
    pub fn create(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let unfinished = folder.join(format!("{name}.tmp"));
        let file = File::create(&unfinished)
            .with_context(|| format!("{} cannot be written", unfinished.display()))?;
        let encoder = zstd::Encoder::new(Hashed::new(file), LEVEL)?;
        Ok(Self { encoder, unfinished, path, rows: 0 })
    }

    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let rows = lines.iter().filter(|byte| **byte == b'\n').count();
        self.rows += u64::try_from(rows).unwrap_or(0);
        self.encoder.write_all(lines)
    }

    /// Syncs it and gives it its name. Returns its SHA-256 and its size.
    pub fn finish(self) -> anyhow::Result<(String, u64)> {
        let Hashed { inner, hash, bytes } = self.encoder.finish()?;
        inner.sync_all()?;
        finished(&self.unfinished, &self.path)?;
        Ok((hex(&hash.finalize()), bytes))
    }
}

/// The rows of a file, in pieces of whole lines.
pub struct Lines {
    rows: BufReader<zstd::Decoder<'static, BufReader<Hashed<File>>>>,
}

impl Lines {
    pub fn open(folder: &Path, table: &Table) -> anyhow::Result<Self> {
        let path = folder.join(&table.file);
        let file = File::open(&path).with_context(|| {
            format!("{}: put the file back beside its manifest", path.display())
        })?;
        let decoder = zstd::Decoder::new(Hashed::new(file))?;
        Ok(Self { rows: BufReader::new(decoder) })
    }

    /// The next line, with its end; none at the end of the file.
    fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        Ok(self.rows.read_until(b'\n', line)? > 0)
    }

    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE {
            if self.rows.read_until(b'\n', &mut piece)? == 0 {
                break;
            }
        }
        Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
    }

    /// The hash of the file, once all of it was read.
    fn hash(self) -> io::Result<(String, u64)> {
        let mut rest = self.rows.into_inner().finish();
        io::copy(&mut rest, &mut io::sink())?;
        let Hashed { hash, bytes, .. } = rest.into_inner();
        Ok((hex(&hash.finalize()), bytes))
    }
}

/// Reads a table's file from end to end, and compares it with what the manifest says. `tell` hears how many rows were
/// read, again and again.
pub fn check(folder: &Path, table: &Table, mut tell: impl FnMut(u64)) -> anyhow::Result<Found> {
    let mut lines = Lines::open(folder, table)?;
    let (mut found, mut line) = (Found::default(), Vec::new());
    let place = |name: &str| table.columns.iter().position(|column| column.name == name);
    let created_at = place("created_at").context("a table without created_at")?;
    let of_money = money_columns(&table.columns);
    let broken = || format!("{}: is damaged; take it from another copy", table.file);
    while lines.next_line(&mut line).with_context(broken)? {
        let text = std::str::from_utf8(&line).with_context(broken)?;
        let fields: Vec<&str> = text.trim_end_matches('\n').split('\t').collect();
        ensure!(fields.len() == table.columns.len(), broken());
        let at = fields.get(created_at).copied().unwrap_or_default();
        note_time(&mut found, at);
        if let Some(places) = of_money {
            add_money(&mut found, &fields, places).with_context(broken)?;
        }
        found.rows += 1;
        if found.rows % 100_000 == 0 {
            tell(found.rows);
        }
    }
    let (sha256, bytes) = lines.hash()?;
    ensure!(
        sha256 == table.sha256 && bytes == table.bytes,
        "{}: its SHA-256 is {sha256}, the manifest says {}: take it from another copy",
        table.file,
        table.sha256
    );
    ensure!(
        found.rows == table.rows,
        "{}: has {} rows, not {}",
        table.file,
        found.rows,
        table.rows
    );
    Ok(found)
}

/// Times as COPY writes them, all in UTC and with the year first, compare as text if they are cut alike.
fn note_time(found: &mut Found, at: &str) {
    if found.first_at.as_deref().is_none_or(|first| at < first) {
        found.first_at = Some(at.to_owned());
    }
    if found.last_at.as_deref().is_none_or(|last| at > last) {
        found.last_at = Some(at.to_owned());
    }
}

type Places = (usize, usize, usize, usize);

fn money_columns(columns: &[Column]) -> Option<Places> {
    let place = |name: &str| columns.iter().position(|column| column.name == name);
    Some((place("tenant_id")?, place("currency")?, place("side")?, place("amount")?))
}

fn add_money(found: &mut Found, fields: &[&str], of: Places) -> anyhow::Result<()> {
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    let amount = units(field(of.3)).context("an amount that is none")?;
    let key = (field(of.0).to_owned(), field(of.1).to_owned());
    let (entries, credits, debits) = found.sums.entry(key).or_default();
    *entries += 1;
    let side = if field(of.2) == "CREDIT" { credits } else { debits };
    *side = side.checked_add(amount).context("a sum out of range")?;
    Ok(())
}

/// Decimal text with up to 8 decimals, in units of 10^-8.
fn units(text: &str) -> Option<i128> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    (rest.len() <= 8).then_some(())?;
    format!("{whole}{rest:0<8}").parse().ok()
}

/// Whether the sums of the postings' file are those of the manifest.
pub fn check_sums(manifest: &Manifest, found: &Found) -> anyhow::Result<()> {
    let told: BTreeMap<_, _> = manifest.sums.iter().map(told_sum).collect();
    ensure!(
        told == found.sums,
        "the sums of the postings of {} are not those of its manifest: take the files from another copy",
        manifest.name
    );
    Ok(())
}

fn told_sum(sum: &Sum) -> ((String, String), (i64, i128, i128)) {
    let units = |text: &str| units(text).unwrap_or(i128::MIN);
    let totals = (sum.entries, units(&sum.credits), units(&sum.debits));
    ((sum.tenant_id.clone(), sum.currency.clone()), totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_counted_in_units_of_their_last_decimal() {
        assert_eq!(units("12.34000000"), Some(1_234_000_000));
        assert_eq!(units("5"), Some(500_000_000));
        assert_eq!(units("0.00000001"), Some(1));
        assert_eq!(units("1.123456789"), None);
        assert_eq!(units("x"), None);
    }

    #[test]
    fn a_file_that_was_changed_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let column = |name: &str| Column { name: name.to_owned(), kind: "text".to_owned() };
        let mut writer = Writer::create(folder.path(), "x.zst").unwrap();
        writer.write(b"a\t2026-01-02\nb\t2026-01-01\n").unwrap();
        let rows = writer.rows;
        let (sha256, bytes) = writer.finish().unwrap();
        let table = Table {
            table: "events".to_owned(),
            file: "x.zst".to_owned(),
            rows,
            first_at: None,
            last_at: None,
            bytes,
            sha256,
            columns: vec![column("name"), column("created_at")],
        };
        let found = check(folder.path(), &table, |_| {}).unwrap();
        assert_eq!((found.rows, found.first_at.as_deref()), (2, Some("2026-01-01")));
        let path = folder.path().join("x.zst");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(check(folder.path(), &table, |_| {}).is_err(), "byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(check(folder.path(), &table, |_| {}).is_err(), "cut short");
    }
}
