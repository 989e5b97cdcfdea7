//! Places that are of another Postgres cluster, as after a dump was restored: what the topic lacks is found
//! by wallets then, and the places go on from before the first look at them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Follower;
use crate::store::clusters;
use crate::store::feed::Walk;
use crate::store::second;
use crate::store::{self, Connection};

/// Wallets looked at in one statement.
const WALLETS: i64 = 500;

impl Follower {
    /// Looks whose places they are, whenever other partitions are this instance's than before.
    pub(super) async fn judge(&mut self, connection: &mut Connection) -> store::Result<()> {
        let held: BTreeSet<i32> = self.held.keys().copied().collect();
        if held != self.judged {
            self.pass = clusters::pass(connection, &self.of).await?;
            self.judged = held;
            if self.pass.is_some() {
                tracing::warn!(
                    "the second destination's places are of another Postgres cluster, as after a dump \
                     was restored: every wallet is looked at, and sent as far as the topic lacks it"
                );
            }
        }
        Ok(())
    }

    /// What wallets of the partitions in order here lack, of the first page where some do. A page is left
    /// behind once none of this instance's lacks anything.
    pub(super) async fn lacking(
        &mut self,
        connection: &mut Connection,
        calm: &[i32],
    ) -> store::Result<Vec<Walk>> {
        while let Some(pass) = &mut self.pass {
            let of = &self.of;
            let ids = clusters::ids_after(connection, of, &pass.after, WALLETS).await?;
            let Some(last) = ids.last().cloned() else {
                let held: Vec<i32> = self.judged.iter().copied().collect();
                clusters::mended(connection, of, pass, &held).await?;
                tracing::info!("the second destination's places are of this cluster");
                self.pass = None;
                self.ahead.clear();
                break;
            };
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            second::meet(connection, of, &ids).await?;
            let page = clusters::lacking(connection, of, &pass.after, WALLETS).await?;
            let mut walks: BTreeMap<i32, Walk> = BTreeMap::new();
            let own = |lack: &clusters::Lacking| self.judged.contains(&lack.partition);
            let own: Vec<_> = page.lacking.into_iter().filter(own).collect();
            if own.is_empty() {
                pass.after = last;
                continue;
            }
            for lack in own.into_iter().filter(|lack| calm.contains(&lack.partition)) {
                let walk = walks.entry(lack.partition).or_insert_with(|| empty(lack.partition));
                walk.pending.push((lack.wallet, lack.version, Uuid::nil()));
            }
            return Ok(walks.into_values().collect());
        }
        Ok(Vec::new())
    }
}

/// A walk that moves no cursor.
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
        outbox_age_ms: 0,
    }
}
