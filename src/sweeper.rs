//! Lets happen what is due on wallets that no command touches: a hold that nobody asks about expires all the
//! same. A command never waits for this: it lets happen first what is due on its own wallets.
//!
//! One instance at a time, under a lease; that only saves work, since where two sweep the same wallet
//! the second finds nothing due. Each wallet is a command that does nothing else, through the lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::background::leases::Leases;
use crate::background::task::{self, Task};
use crate::execute::{Context, Executor, Operation, Request};
use crate::instance::Instance;
use crate::store::leases::Leased;
use crate::store::{self, Pool, holds};
use crate::wallet::{Command, TenantId, WalletId};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Wallets of one look.
const WALLETS_MAX: i64 = 500;
/// Wallets of one request to the lanes: others' commands go between.
const REQUEST_MAX: usize = 100;
const ROLE: &str = "sweeper";

/// What the sweeper works with; `app` puts it together.
pub struct Sweeper {
    pub pool: Pool,
    pub executor: Executor,
    pub instance: Arc<Instance>,
    pub tenant: TenantId,
    pub topic: String,
}

struct Sweeping {
    pool: Pool,
    executor: Executor,
    leases: Leases,
}

impl Sweeper {
    pub const NAME: &'static str = ROLE;

    /// Works until `stop`, before the lanes end.
    pub async fn run(self, stop: CancellationToken) {
        let Self { pool, executor, instance, tenant, topic } = self;
        let tenant = tenant.as_str().to_owned();
        let leased = Leased { tenant, role: ROLE, topic, partitions: 1 };
        let leases = Leases::new(pool.clone(), instance, leased);
        let sweeping = Sweeping { pool, executor, leases: leases.clone() };
        leases.beside(Box::pin(task::run(sweeping, stop))).await;
    }
}

impl Task for Sweeping {
    const NAME: &'static str = ROLE;
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let is_mine = self.leases.assigned(&BTreeSet::new()).is_some_and(|has| !has.is_empty());
        if !is_mine {
            return Ok(PAUSE);
        }
        let due = holds::due_wallets(&mut *self.pool.acquire().await?, WALLETS_MAX).await?;
        let is_full = i64::try_from(due.len()) == Ok(WALLETS_MAX);
        let mut of_tenants: BTreeMap<TenantId, Vec<WalletId>> = BTreeMap::new();
        for (tenant, wallet) in due {
            of_tenants.entry(tenant).or_default().push(wallet);
        }
        let mut swept = true;
        for (tenant, wallets) in of_tenants {
            for wallets in wallets.chunks(REQUEST_MAX) {
                swept &= self.touch(&tenant, wallets).await;
            }
        }
        Ok(if is_full && swept { Duration::ZERO } else { PAUSE })
    }
}

impl Sweeping {
    /// Whether all of them were touched.
    async fn touch(&self, tenant: &TenantId, wallets: &[WalletId]) -> bool {
        let touch = |wallet: &WalletId| {
            let command = Command::Touch(wallet.clone());
            Operation { command, key: None, context: None }
        };
        let request = Request {
            tenant: tenant.clone(),
            operations: wallets.iter().map(touch).collect(),
            atomic: false,
            context: Context { request_id: ROLE.to_owned(), ..Context::default() },
            key: None,
            dry_run: false,
        };
        let outcomes = self.executor.execute(request).await;
        outcomes.undecided().is_none()
    }
}
