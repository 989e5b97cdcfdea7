//! The journal: what was asked, noted on disk before it is sent, and what came of it, noted after.
//! It is all that the checker knows of the load.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What is asked of the service. Amounts are cents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Create { wallet: String, amount: i64 },
    Credit { wallet: String, amount: i64 },
    Debit { wallet: String, amount: i64 },
    Transfer { from: String, to: String, amount: i64 },
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// One line. Times are microseconds since the run began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Line {
    /// About to be asked; `keyed`: with its key as `Idempotency-Key`.
    Ask { at: u64, key: String, keyed: bool, ask: Ask },
    /// An attempt's end; status 0: no answer.
    Answer {
        begun: u64,
        at: u64,
        key: String,
        verdict: Verdict,
        status: u16,
        code: String,
        retry_after: bool,
        replayed: bool,
        body: String,
    },
    /// A strong read, of a wallet that had this version before the read began.
    Read { at: u64, wallet: String, least: i64, seen: i64 },
    /// Records that the harness itself put into the topic.
    Injected { partition: i32, offset: i64, poison: bool, value: Option<Vec<u8>> },
    /// The topic as it was when it was deleted; what follows is the next one.
    Recreated { records: Vec<Record> },
    /// From the first fault to the end of the last.
    Faults { begun: u64, ended: u64 },
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
}

impl Journal {
    pub fn create(path: &Path) -> Self {
        let file = Mutex::new(File::create(path).unwrap());
        Self { path: path.to_owned(), begun: Instant::now(), file }
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Written with one call and without a buffer of ours: what is noted outlives this process.
    pub fn note(&self, line: &Line) {
        let mut text = serde_json::to_string(line).unwrap();
        text.push('\n');
        self.file.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }
}

/// All lines of a journal.
pub fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
