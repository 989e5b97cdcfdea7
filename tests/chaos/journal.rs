//! The journal: what was asked, noted on disk before it is sent, and what came of it, noted after.
//! It is all that the checker knows of the load.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::load::Ask;

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// 201.
    Done,
    /// A definite no: it has no effect.
    Refused,
    /// The service says that nothing was done and that it may be sent again.
    NotDone,
    /// It may have happened.
    Unknown,
}

impl Verdict {
    /// What an answer says; status 0: there was none.
    pub fn of(status: u16, code: &str) -> Self {
        match (status, code) {
            (201, _) => Self::Done,
            (503, "database_unavailable" | "wallet_busy") | (429, _) => Self::NotDone,
            (409, "idempotency_key_in_flight") => Self::NotDone,
            (400..500, code) if !code.is_empty() => Self::Refused,
            _ => Self::Unknown,
        }
    }

    pub fn is_definite(self) -> bool {
        matches!(self, Self::Done | Self::Refused)
    }
}

/// One line. Times are microseconds since the run began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Line {
    /// About to be asked; `keyed`: with its key as `Idempotency-Key`.
    Ask { at: u64, key: String, keyed: bool, ask: Ask },
    /// An attempt's end.
    Answer(Answer),
    /// A strong read, of a wallet that had this version before the read began.
    Read { at: u64, wallet: String, least: i64, seen: i64 },
    /// Records that the harness itself put into the topic.
    Injected { partition: i32, offset: i64, poison: bool, value: Option<Vec<u8>> },
    /// The topic as it was when it was deleted; what follows is the next one.
    Recreated { records: Vec<Record> },
    /// From the first fault to the end of the last.
    Faults { begun: u64, ended: u64 },
}

/// The end of one attempt, as the service answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    pub begun: u64,
    pub at: u64,
    pub key: String,
    pub verdict: Verdict,
    /// 0: no answer, and the body is the error's text.
    pub status: u16,
    pub code: String,
    pub retry_after: bool,
    pub replayed: bool,
    pub body: String,
}

/// A record of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    pub path: PathBuf,
    begun: Instant,
    file: Mutex<File>,
    _folder: Option<tempfile::TempDir>,
}

impl Journal {
    pub fn create(path: &Path) -> Self {
        let file = Mutex::new(File::create(path).unwrap());
        Self { path: path.to_owned(), begun: Instant::now(), file, _folder: None }
    }

    /// One that goes with its load.
    pub fn temporary() -> Self {
        let folder = tempfile::Builder::new().prefix("wallex-load-").tempdir().unwrap();
        let journal = Self::create(&folder.path().join("journal.jsonl"));
        Self { _folder: Some(folder), ..journal }
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Written with one call and without a buffer: what is noted outlives this process.
    pub fn note(&self, line: &Line) {
        let mut text = serde_json::to_string(line).unwrap();
        text.push('\n');
        self.file.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        let _whole = self.file.lock().unwrap();
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Every attempt's end, in the order in which they came.
pub fn answers(lines: &[Line]) -> impl Iterator<Item = &Answer> {
    lines.iter().filter_map(|line| match line {
        Line::Answer(answer) => Some(answer),
        _ => None,
    })
}

/// The longest that an answer took.
pub fn slowest(lines: &[Line]) -> Duration {
    let took = answers(lines).map(|answer| answer.at - answer.begun);
    Duration::from_micros(took.max().unwrap_or(0))
}
