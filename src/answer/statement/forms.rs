//! The forms that a statement is asked for in.

use super::{Closing, Heading, Line, json, page, table};

/// What a statement is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One document.
    Json,
    /// A line for the opening, for each entry, and for the closing.
    Ndjson,
    /// The same for spreadsheets.
    Csv,
    /// A page for people, of one file.
    Html,
}

impl Form {
    const ALL: [(&str, Self); 4] =
        [("json", Self::Json), ("ndjson", Self::Ndjson), ("csv", Self::Csv), ("html", Self::Html)];

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, form)| form)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// What comes before the first line.
    pub fn open(self, heading: &Heading) -> String {
        match self {
            Self::Json => json::open(heading),
            Self::Ndjson => json::opening_line(heading),
            Self::Csv => table::open(heading),
            Self::Html => page::open(heading),
        }
    }

    /// Adds a line to `text`; the first has nothing before it.
    pub fn line(self, heading: &Heading, line: &Line<'_>, is_first: bool, text: &mut String) {
        match self {
            Self::Json => {
                if !is_first {
                    text.push(',');
                }
                text.push_str(&json::entry(heading, line));
            }
            Self::Ndjson => text.push_str(&json::entry_line(heading, line)),
            Self::Csv => table::row(heading, line, text),
            Self::Html => page::row(heading, line, text),
        }
    }

    /// What comes after the last line. Without it a statement is not whole.
    pub fn close(self, closing: &Closing<'_>) -> String {
        match self {
            Self::Json => json::close(closing),
            Self::Ndjson => json::closing_line(closing),
            Self::Csv => table::close(closing),
            Self::Html => page::close(closing),
        }
    }
}
