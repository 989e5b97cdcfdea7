//! Where a publisher's rows come from and where its marks go: the outbox, or `events` once more for a
//! second topic. All else about publishing is the same for both.

use std::collections::BTreeSet;

use super::Deps;
use super::dual::Dual;
use super::outbox::Outbox;
use crate::kafka::admin::Admin;
use crate::kafka::topics::Report;
use crate::kafka::{self};
use crate::store;
use crate::store::leases::{self, Leased};
use crate::store::outbox::{Found, OutboxRow, Refusal, Slot};
use crate::wallet::WalletKey;

/// Which publisher it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The outbox into the topic of the events.
    Outbox,
    /// Every event into a second topic.
    Dual {
        first_topic: String,
        /// A topic that is new gets events from now on, not from the beginning.
        from_now: bool,
        /// It lies in another cluster, whose settings have names of their own.
        apart: bool,
    },
}

impl Role {
    pub fn lease_role(&self) -> &'static str {
        match self {
            Self::Outbox => leases::PUBLISHER,
            Self::Dual { .. } => store::dual_publish::DUAL_PUBLISHER,
        }
    }
}

/// What a claim found for one partition.
#[derive(Debug)]
pub struct Batch {
    pub partition: i32,
    /// In the order in which they are sent.
    pub rows: Vec<OutboxRow>,
    /// There are more.
    pub more: bool,
    /// How far `events` have been looked at once all rows are sent; none: these rows do not say.
    pub cursor: Option<Cursor>,
}

/// A position in `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub from: i64,
    /// Behind everything that is complete.
    pub to: i64,
    /// Behind everything that was looked at, above running transactions too.
    pub seen_to: i64,
}

/// What is to be marked of one partition.
#[derive(Debug, Default)]
pub struct Mark {
    pub partition: i32,
    pub epoch: i64,
    /// The last offset known to hold a record of the service's; none: as before.
    pub last_offset: Option<i64>,
    /// Rows that were sent and confirmed.
    pub sent: Vec<SentRow>,
    /// Events that the topic held already.
    pub found: Vec<Found>,
    pub refusals: Vec<Refusal>,
    pub cursor: Option<Cursor>,
}

/// A row that the topic holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentRow {
    pub slot: Slot,
    pub wallet: WalletKey,
    pub version: i64,
    /// The broker had refused it before.
    pub refused: bool,
}

impl Mark {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.last_offset.is_none() && self.refusals.is_empty() && self.cursor.is_none()
    }
}

/// What Postgres answered.
#[derive(Debug, Default)]
pub struct Marked {
    /// Partitions whose lease is another's by now; their rows were left as they are.
    pub lost: Vec<i32>,
    /// Rows that the topic held already.
    pub found: u64,
}

/// The topic made ready.
#[derive(Debug, Default)]
pub struct Prepared {
    pub report: Report,
    /// What was known of partitions may be wrong: their leases have been taken again.
    pub is_new: bool,
}

/// Why a topic is not ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Topic(String),
}

#[derive(Debug)]
pub enum Source {
    Outbox(Outbox),
    Dual(Box<Dual>),
}

impl Source {
    pub fn new(deps: &Deps, leased: &Leased) -> Self {
        match &deps.role {
            Role::Outbox => Self::Outbox(Outbox::new(deps, leased)),
            Role::Dual { first_topic, from_now, .. } => {
                Self::Dual(Box::new(Dual::new(deps, leased, first_topic, *from_now)))
            }
        }
    }

    /// Makes the topics where they are missing.
    pub async fn prepare(&self, admin: &Admin) -> Result<Prepared, PrepareError> {
        match self {
            Self::Outbox(outbox) => outbox.prepare(admin).await,
            Self::Dual(dual) => dual.prepare(admin).await,
        }
    }

    /// The next rows of the partitions `asked` for, of those `owned`; at most `limit` of each.
    pub async fn claim(
        &self,
        owned: &BTreeSet<i32>,
        asked: &[i32],
        limit: i64,
    ) -> store::Result<Vec<Batch>> {
        match self {
            Self::Outbox(outbox) => outbox.claim(asked, limit).await,
            Self::Dual(dual) => dual.claim(owned, asked, limit).await,
        }
    }

    /// Writes marks, fenced by the leases. May be repeated after an error: what is written stays.
    pub async fn mark(&self, marks: &[Mark]) -> store::Result<Marked> {
        match self {
            Self::Outbox(outbox) => outbox.mark(marks).await,
            Self::Dual(dual) => dual.mark(marks).await,
        }
    }

    /// Publishes how much waits, as metrics.
    pub async fn measure(&self) -> store::Result<()> {
        match self {
            Self::Outbox(outbox) => outbox.measure().await,
            Self::Dual(dual) => dual.measure().await,
        }
    }

    /// Whether a refused record stops its partition until the cause is gone; else its wallet alone waits.
    pub fn refusals_stop(&self) -> bool {
        matches!(self, Self::Dual(_))
    }
}
