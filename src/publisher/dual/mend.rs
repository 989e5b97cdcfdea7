//! Positions that are of another Postgres cluster, as after a dump was restored: what the topic lacks is
//! found by wallets then, and the positions go on from before the first look at them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Dual, Judged};
use crate::store::clusters::{self, Lacking};
use crate::store::dual_publish;
use crate::store::feed::Walk;
use crate::store::{self, Connection};

/// Wallets looked at in one statement.
const PAGE_WALLETS: i64 = 500;

impl Dual {
    /// Looks whose positions they are, whenever other partitions are this instance's than before.
    pub(super) async fn judge(
        &self,
        connection: &mut Connection,
        judged: &mut Judged,
        owned: &BTreeSet<i32>,
    ) -> store::Result<()> {
        if *owned == judged.partitions {
            return Ok(());
        }
        judged.pass = clusters::pass(connection, &self.subscription).await?;
        judged.partitions.clone_from(owned);
        self.seen_to().retain(|partition, _| owned.contains(partition));
        if judged.pass.is_some() {
            tracing::warn!(
                "the second destination's places are of another Postgres cluster, as after a dump \
                 was restored: every wallet is looked at, and sent as far as the topic lacks it"
            );
        }
        Ok(())
    }

    /// What wallets of the partitions `asked` for lack, of the first page where some do. A page is left
    /// behind once no wallet of this instance's partitions lacks anything. None: that was the last one.
    pub(super) async fn lacking(
        &self,
        connection: &mut Connection,
        judged: &mut Judged,
        asked: &[i32],
    ) -> store::Result<Option<Vec<Walk>>> {
        let subscription = &self.subscription;
        while let Some(pass) = &mut judged.pass {
            let after = pass.after.clone();
            let wallets = clusters::wallets_after(connection, &after, PAGE_WALLETS).await?;
            let Some(last) = wallets.last().cloned() else {
                let owned: Vec<i32> = judged.partitions.iter().copied().collect();
                clusters::mended(connection, subscription, pass, &owned).await?;
                tracing::info!("the second destination's places are of this cluster");
                judged.pass = None;
                self.seen_to().clear();
                return Ok(None);
            };
            let wallets: Vec<_> = wallets.iter().collect();
            dual_publish::seed_versions(connection, subscription, &wallets).await?;
            let page = clusters::lacking(connection, subscription, &after, PAGE_WALLETS).await?;
            let is_owned = |lack: &Lacking| judged.partitions.contains(&lack.partition);
            let owned: Vec<Lacking> = page.lacking.into_iter().filter(is_owned).collect();
            if owned.is_empty() {
                pass.after = last;
                continue;
            }
            return Ok(Some(walks(asked, owned)));
        }
        Ok(None)
    }
}

/// A walk that moves no cursor for each partition, with what its wallets lack.
fn walks(asked: &[i32], lacking: Vec<Lacking>) -> Vec<Walk> {
    let mut walks: BTreeMap<i32, Walk> =
        asked.iter().map(|number| (*number, empty(*number))).collect();
    for lack in lacking {
        if let Some(walk) = walks.get_mut(&lack.partition) {
            walk.pending.push((lack.wallet, lack.version, Uuid::nil()));
        }
    }
    walks.into_values().collect()
}

fn empty(partition: i32) -> Walk {
    Walk {
        partition,
        from: 0,
        end: 0,
        applied_up_to: 0,
        seen_to: 0,
        more: true,
        foreign: false,
        pending: Vec::new(),
        lag_ms: 0,
        behind: Vec::new(),
        outbox_age_ms: 0,
    }
}
