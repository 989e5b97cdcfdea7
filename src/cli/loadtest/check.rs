//! After the load: waits for the projections, then holds every wallet against its ledger and
//! against the tool's own books.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::{Client, Failure, Target};
use super::ledger::{Page, Summary, chain};
use super::settle::read;

const POLL: Duration = Duration::from_millis(50);
const PAGE: usize = 1000;

/// One wallet to check: its id and, where known, the balance and entries that it must have.
pub type Wanted = (String, Option<(Decimal, i64)>);

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    pub wallet: String,
    pub what: String,
}

#[derive(Debug, Default)]
pub struct Checked {
    pub wallets: usize,
    /// Until the last wallet's ledger was in step.
    pub waited: Duration,
    /// The sum of all balances.
    pub balances: Decimal,
    pub entries: u64,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    balance: Decimal,
    version: i64,
}

/// Checks all wallets over `connections`; waits for the projections until `wait` is over.
pub async fn check(
    target: &Target,
    patience: Duration,
    connections: usize,
    wanted: Vec<Wanted>,
    wait: Duration,
) -> Result<Checked, Failure> {
    let begun = Instant::now();
    let (wanted, next) = (Arc::new(wanted), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let mut client = Client::new(target.clone(), patience);
        let (wanted, next) = (Arc::clone(&wanted), Arc::clone(&next));
        workers.spawn(async move {
            let mut checked = Checked::default();
            while let Some(wallet) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                checked.wallet(&mut client, wallet, begun, begun + wait).await?;
            }
            Ok::<_, Failure>(checked)
        });
    }
    let mut all = Checked::default();
    while let Some(worker) = workers.join_next().await {
        all.add(worker.map_err(|error| Failure::Unknown(error.to_string()))??);
    }
    all.findings.sort_unstable();
    Ok(all)
}

impl Checked {
    async fn wallet(
        &mut self,
        client: &mut Client,
        (id, expected): &Wanted,
        begun: Instant,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.wallets += 1;
        // Reads may go on while others are checked: the deadline is the projections'.
        let patience = deadline.max(Instant::now() + Duration::from_secs(10));
        let answer = read(client, &format!("/wallets/{id}"), patience).await?;
        let shown: Shown = match answer.status {
            200 => answer.json().map_err(Failure::Unknown)?,
            _ => {
                self.find(id, format!("cannot be read: {}", answer.code()));
                return Ok(());
            }
        };
        self.balances = self.balances.checked_add(shown.balance).unwrap_or(Decimal::MAX);
        if let Some((balance, entries)) = expected {
            if shown.balance != *balance {
                self.find(id, format!("balance {}, this tool made it {balance}", shown.balance));
            }
            if shown.version - 1 != *entries {
                let (has, made) = (shown.version - 1, entries);
                self.find(id, format!("{has} changes, this tool made {made}"));
            }
        }
        let (projected, waited) = caught_up(client, id, shown.version, deadline, patience).await?;
        if projected < shown.version {
            let version = shown.version;
            self.find(id, format!("the ledger is at version {projected}, the wallet at {version}"));
            return Ok(());
        }
        // A wallet that was in step at the first look says nothing of how long that took.
        if waited {
            self.waited = self.waited.max(begun.elapsed());
        }
        self.ledger(client, id, &shown, patience).await
    }

    /// Summary and entries, page by page, against the wallet.
    async fn ledger(
        &mut self,
        client: &mut Client,
        id: &str,
        shown: &Shown,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let path = format!("/ledger/wallet/{id}");
        let answer = read(client, &format!("{path}/summary"), deadline).await?;
        match answer.json::<Summary>() {
            Ok(summary) => {
                let wrong = summary.compare(shown.balance, shown.version - 1);
                wrong.into_iter().for_each(|what| self.find(id, what));
            }
            Err(cause) => self.find(id, format!("ledger summary: {cause}")),
        }
        let (mut entries, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}?limit={PAGE}{cursor}");
            let answer = read(client, &page, deadline).await?;
            let page: Page = match answer.json() {
                Ok(page) => page,
                Err(cause) => {
                    self.find(id, format!("ledger: {cause}"));
                    return Ok(());
                }
            };
            entries.extend(page.transactions);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        self.entries += u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let wrong = chain(&entries, shown.balance, shown.version);
        wrong.into_iter().for_each(|what| self.find(id, what));
        Ok(())
    }

    fn find(&mut self, wallet: &str, what: String) {
        self.findings.push(Finding { wallet: wallet.to_owned(), what });
    }

    fn add(&mut self, other: Self) {
        self.wallets += other.wallets;
        self.waited = self.waited.max(other.waited);
        self.balances = self.balances.checked_add(other.balances).unwrap_or(Decimal::MAX);
        self.entries += other.entries;
        self.findings.extend(other.findings);
    }
}

/// Waits until the wallet's ledger is at `version`, or `deadline` is over: where it then is, and
/// whether it had to be waited for.
async fn caught_up(
    client: &mut Client,
    id: &str,
    version: i64,
    deadline: Instant,
    patience: Instant,
) -> Result<(i64, bool), Failure> {
    let mut waited = false;
    loop {
        let answer = read(client, &format!("/ledger/wallet/{id}?limit=1"), patience).await?;
        let page: Page = answer.json().map_err(Failure::Unknown)?;
        if page.projected_version >= version || Instant::now() >= deadline {
            return Ok((page.projected_version, waited));
        }
        waited = true;
        sleep(POLL).await;
    }
}

/// The ids of an earlier run's wallets.
pub async fn wallets_of(client: &mut Client, run: &str) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let first = format!("/wallets?ownerId={run}&limit={PAGE}");
    let (mut ids, mut page) = (Vec::new(), Some(first));
    while let Some(path) = page {
        let answer = read(client, &path, deadline).await?;
        let listed: Vec<Listed> = answer.json().map_err(Failure::Unknown)?;
        ids.extend(listed.into_iter().map(|wallet| wallet.id));
        // `Link: </wallets?…>; rel="next"`
        let link = answer.header("link").and_then(|link| link.strip_prefix('<'));
        page = link.and_then(|link| link.split_once('>')).map(|(path, _)| path.to_owned());
    }
    Ok(ids)
}
