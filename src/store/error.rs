//! Classifies errors of Postgres by what they mean for the work that failed.

use std::fmt;

use sqlx::postgres::PgDatabaseError;

use super::connect::stale;

/// An error of the database or of the way to it. It says all that its causes say, and names none: that a way leads
/// nowhere is said once.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(sqlx::Error);

/// Why a database is not used as it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

/// Why the schema is none for this build.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misfit(String);

/// What another transaction was faster with, where Postgres sees no conflict.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Overtaken(&'static str);

pub type Result<T> = std::result::Result<T, Error>;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// SQLSTATE 22, 23, 54: the data of some command in the batch; alone, the others succeed.
    Data,
    /// SQLSTATE 40, 55P03: another transaction was in the way; the same again may succeed.
    Conflict,
    /// SQLSTATE 53, 57, 08 or no answer at all: the server is away, full or restarting. Or it is the
    /// session that is of no use any more: another one may be.
    Unavailable,
    /// Anything else is a defect of the service or its schema, such as a missing table.
    Broken,
}

/// What an error says of the rows that were being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Nothing: Postgres or the way to it is away, or takes nothing from anybody.
    None,
    /// The same again may succeed. If it goes on, some row may be at fault.
    Passing,
    /// Some row, or what every row needs: a table, a column, a right.
    Lasting,
}

/// Classes of SQLSTATE that metrics tell apart: a function may raise any five characters.
const CAUSES: [&str; 22] = [
    "08", "0A", "21", "22", "23", "25", "28", "2F", "38", "39", "3D", "3F", "40", "42", "44", "53",
    "54", "55", "57", "58", "P0", "XX",
];

/// The session is not what it was: its statements are not there any more, there are others of their
/// names, or their results have other types since the tables were changed.
const STALE: [&str; 3] = ["26000", "42P05", "25P02"];
/// What a statement names is not there.
const OF_SCHEMA: [&str; 5] = ["42P01", "42703", "42883", "42704", "42P10"];
const OTHER_RESULT: &str = "cached plan must not change result type";

/// The one place where errors of the database come in: a stale session is noted, so that its like
/// are not kept.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let error = Self(with_what_to_do(error));
        if error.is_stale() {
            stale::note();
        }
        error
    }
}

/// What the driver says of a way that leads nowhere tells an operator neither what nor where.
fn with_what_to_do(error: sqlx::Error) -> sqlx::Error {
    use std::io::{Error as Io, ErrorKind};
    const SETTINGS: &str = "DATABASE_URL, or DATABASE_HOST and DATABASE_PORT,";
    match error {
        sqlx::Error::PoolTimedOut => sqlx::Error::Io(Io::new(
            ErrorKind::TimedOut,
            format!("no connection to Postgres in time: is it running, and are {SETTINGS} right?"),
        )),
        sqlx::Error::Io(cause) if cause.kind() == ErrorKind::ConnectionRefused => {
            sqlx::Error::Io(Io::new(
                ErrorKind::ConnectionRefused,
                format!("nothing listens where Postgres should: are {SETTINGS} right?"),
            ))
        }
        other => other,
    }
}

impl Error {
    fn is_stale(&self) -> bool {
        let changed = || {
            let error = self.0.as_database_error();
            error.is_some_and(|error| error.message() == OTHER_RESULT)
        };
        self.sqlstate().is_some_and(|state| STALE.contains(&state.as_str())) || changed()
    }

    /// The five characters of Postgres' error code, where Postgres answered at all.
    pub fn sqlstate(&self) -> Option<String> {
        self.0.as_database_error()?.code().map(|code| code.into_owned())
    }

    /// The constraint that was violated.
    pub fn constraint(&self) -> Option<&str> {
        self.0.as_database_error()?.constraint()
    }

    pub fn class(&self) -> Class {
        let Some(state) = self.sqlstate() else {
            return match &self.0 {
                sqlx::Error::Configuration(cause) if cause.is::<Overtaken>() => Class::Conflict,
                sqlx::Error::Configuration(cause) if cause.is::<Misfit>() => Class::Unavailable,
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::RowNotFound
                | sqlx::Error::Migrate(_)
                | sqlx::Error::Configuration(_) => Class::Broken,
                _ => Class::Unavailable,
            };
        };
        if self.is_stale() {
            return Class::Unavailable;
        }
        match state.as_str() {
            // A query cancelled by its timeout, unlike the rest of class 57, says nothing of the server.
            "57014" | "55P03" => Class::Conflict,
            // The role may not log in, or the database does not exist (yet).
            "3D000" | "28000" | "28P01" => Class::Unavailable,
            state if state.starts_with("40") => Class::Conflict,
            state if ["22", "23", "54"].iter().any(|class| state.starts_with(class)) => Class::Data,
            // 25P03 and 25006: the session was ended for idling, or the server is a standby.
            "25P03" | "25006" => Class::Unavailable,
            state if ["53", "57", "08"].iter().any(|class| state.starts_with(class)) => {
                Class::Unavailable
            }
            _ => Class::Broken,
        }
    }

    pub fn blame(&self) -> Blame {
        let state = self.sqlstate();
        let starts = |classes: &[&str]| {
            state.as_deref().is_some_and(|state| classes.iter().any(|c| state.starts_with(c)))
        };
        match self.class() {
            _ if self.is_stale() => Blame::None,
            Class::Data | Class::Broken => Blame::Lasting,
            Class::Conflict => Blame::Passing,
            // A session that was ended, a standby, a login that is refused.
            Class::Unavailable if starts(&["57P", "25", "28", "3D"]) => Blame::None,
            Class::Unavailable if state.is_some() => Blame::Passing,
            Class::Unavailable => Blame::None,
        }
    }

    /// For metrics: the class of the SQLSTATE where it is a known one.
    pub fn cause(&self) -> &'static str {
        match self.sqlstate() {
            Some(state) => {
                CAUSES.into_iter().find(|class| state.starts_with(class)).unwrap_or("other")
            }
            None if self.class() == Class::Unavailable => "connection",
            // As Postgres' own conflicts.
            None if self.class() == Class::Conflict => "40",
            None => "unreadable",
        }
    }

    /// For people: with the code, by which they look it up.
    pub fn told(&self) -> String {
        self.sqlstate().map_or_else(|| self.to_string(), |state| format!("{state}: {self}"))
    }

    /// The database is there, and is not to be used as it was given.
    pub fn is_refusal(&self) -> bool {
        matches!(&self.0, sqlx::Error::Configuration(cause) if cause.is::<Refused>())
    }

    /// The schema is of a release that does not fit this build.
    pub fn is_misfit(&self) -> bool {
        matches!(&self.0, sqlx::Error::Configuration(cause) if cause.is::<Misfit>())
    }

    /// A table, a column, a function or a constraint is not there: perhaps the schema is another than it was.
    pub fn is_of_schema(&self) -> bool {
        self.sqlstate().is_some_and(|state| OF_SCHEMA.contains(&state.as_str()))
    }

    pub fn is_unique_violation_of(&self, constraint: &str) -> bool {
        self.sqlstate().as_deref() == Some("23505") && self.constraint() == Some(constraint)
    }

    /// Whether it came while an entry of an index was waited for, or a row of a table, whose name begins so.
    pub fn waited_for(&self, prefix: &str) -> bool {
        let error = self.0.as_database_error();
        let error = error.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        let place = error.and_then(PgDatabaseError::r#where).unwrap_or_default();
        // Postgres speaks its own language around the name.
        place.contains(&format!("\"{prefix}"))
    }

    /// A server that stays silent is as good as away.
    pub(super) fn no_answer(after: std::time::Duration) -> Self {
        let text = format!("no answer from Postgres within {after:?}");
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    }

    /// See [`Error::is_refusal`].
    pub(super) fn refused(why: &'static str) -> Self {
        Self(sqlx::Error::Configuration(Box::new(Refused(why))))
    }

    /// See [`Error::is_misfit`].
    pub(super) fn misfit(why: String) -> Self {
        Self(sqlx::Error::Configuration(Box::new(Misfit(why))))
    }

    /// The same again finds what another transaction wrote meanwhile.
    pub(super) fn overtaken(by: &'static str) -> Self {
        Self(sqlx::Error::Configuration(Box::new(Overtaken(by))))
    }

    /// Work that was begun on one server would go on on another, which may lack what it builds on.
    pub fn another_server() -> Self {
        let text = "the server is another than the one that committed what is to be applied";
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionReset, text)))
    }

    /// Postgres has closed a session that was only listened to.
    pub(super) fn session_ended() -> Self {
        let text = "Postgres has ended the session";
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, text)))
    }

    /// Data read back that no version of this service writes.
    pub(super) fn corrupt(what: impl fmt::Display) -> Self {
        Self(sqlx::Error::Decode(what.to_string().into()))
    }
}

/// For the pools' own callbacks.
impl From<Error> for sqlx::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}
