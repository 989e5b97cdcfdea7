//! The list of projections. A further one is an entry here, a table (a migration) and a writer; what works
//! for each of them asks this list: feeds, leases, checkpoints, rebuild, groups, health.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{ledger, read_model};
use crate::ledger::Totals;
use crate::store::checkpoints::Standing;
use crate::store::projected::{Table, Versions};
use crate::store::{self, Connection};
use crate::wallet::{Event, WalletKey};

pub const LEDGER: &str = "ledger-projector";
pub const READ_MODEL: &str = "read-model-projector";

/// A table that is made of the events.
#[derive(Debug)]
pub struct Projection {
    /// Of its checkpoints, its leases and its consumer group.
    pub name: &'static str,
    /// As commands and routes name it.
    pub word: &'static str,
    pub table: Table,
    /// The role of the lease for its group's offsets.
    pub offsets_role: &'static str,
    /// Writes what some events say, which are in order by wallet, in the transaction that has locked the
    /// wallets as they stood before, and notes the events as applied. Without events it runs its statements all the same, as a probe: it fails
    /// where they would for every wallet.
    pub write: Write,
}

pub type Write = for<'a> fn(&'a mut Connection, &'a [Event], &'a Standing) -> BoxFuture<'a, Result>;

type Result = store::Result<Written>;

/// What a projection made of some events.
#[derive(Debug, Default)]
pub struct Written {
    /// Wallets of which rows were written.
    pub wallets: usize,
    /// What was added to each wallet's totals; none: the projection has none.
    pub totals: Option<HashMap<WalletKey, Totals>>,
    /// Wallets whose events cannot be applied, and why.
    pub refused: Vec<(WalletKey, &'static str)>,
}

impl Projection {
    pub const LEDGER: &'static Self = &Self {
        name: LEDGER,
        word: "ledger",
        table: Table { name: "postings", wallet: "wallet_id", versions: Versions::Apart },
        offsets_role: "ledger-offsets",
        write: |connection, events, before| ledger::write(connection, events, before).boxed(),
    };
    pub const READ_MODEL: &'static Self = &Self {
        name: READ_MODEL,
        word: "read-model",
        table: Table { name: "wallets_read_model", wallet: "id", versions: Versions::InTable },
        offsets_role: "read-model-offsets",
        write: |connection, events, before| read_model::write(connection, events, before).boxed(),
    };
    pub const ALL: [&'static Self; 2] = [Self::LEDGER, Self::READ_MODEL];

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// By the words of commands and routes.
    pub fn words() -> Vec<(&'static str, &'static Self)> {
        Self::ALL.iter().map(|projection| (projection.word, *projection)).collect()
    }
}
