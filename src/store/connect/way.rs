//! Is a session one session? A pooler that gives its server's sessions to clients by turns (PgBouncer
//! with `pool_mode = transaction` or `statement`, and what is made like it) loses or hands on all
//! that the service's guarantees stand on: time limits, the role that cannot change the books, plans,
//! the listening session and its lock. The service asks before it uses one, and refuses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection as _;
use tokio::sync::OnceCell;

use super::super::{Error, Result, bounded};
use super::session::Session;
use crate::config::Secret;
use crate::store::Connection;

/// Between two clients of an idle pooler the first round tells. Where others come between, each round
/// that shows nothing was a game of chance.
const ROUNDS: usize = 6;
const POOLER_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why such a way is refused, and what to do.
pub const SHARED: &str = "the database is behind a pooler that gives one session to several clients by \
     turns (PgBouncer's pool_mode = transaction or statement). Time limits, the role that cannot change \
     the books and the listening session do not survive that. Connect to PostgreSQL itself, or through a pool with \
     pool_mode = session: docs/OPERATIONS.md, Poolers";

/// The way to the database of one login, looked at before it is first used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Way(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    url: Secret,
    shared: OnceCell<bool>,
    /// The schema was seen to fit this build.
    fit: AtomicBool,
}

impl Way {
    pub fn new(url: &Secret) -> Self {
        Self(Arc::new(Parts {
            url: url.clone(),
            shared: OnceCell::new(),
            fit: AtomicBool::new(false),
        }))
    }

    pub(in super::super) fn url(&self) -> &Secret {
        &self.0.url
    }

    /// Whether the schema was seen to fit this build, and nothing has said otherwise since.
    pub(in super::super) fn is_fit(&self) -> bool {
        self.0.fit.load(Ordering::Relaxed)
    }

    /// Notes that it fits, or that it has to be looked at again.
    pub fn note_fit(&self, fit: bool) {
        self.0.fit.store(fit, Ordering::Relaxed);
    }

    /// Whether sessions are what they seem. Asked once: the verdict is final, an error of
    /// [`Error::is_refusal`] where it is no.
    pub async fn check(&self) -> Result<()> {
        // Boxed: it is asked once, and its callers are many.
        let asked = || Box::pin(bounded(POOLER_CHECK_TIMEOUT, self.is_shared()));
        match self.0.shared.get_or_try_init(asked).await? {
            true => Err(Error::refused(SHARED)),
            false => Ok(()),
        }
    }

    /// Two clients each keep their own process of the server, from the first question to the last.
    /// By turns, one gets the other's as soon as that is idle, or another one than before.
    async fn is_shared(&self) -> Result<bool> {
        let options = Session::new("wallex-check").options(&self.0.url)?;
        let mut first = Connection::connect_with(&options).await?;
        let mut second = Connection::connect_with(&options).await?;
        let (own, other) = (process(&mut first).await?, process(&mut second).await?);
        let mut shared = own == other;
        for _ in 0..ROUNDS {
            if shared {
                break;
            }
            // A pooler by statements knows no transactions.
            let began = sqlx::raw_sql("begin").execute(&mut second).await.map_err(Error::from);
            if began.as_ref().is_err_and(|error| error.sqlstate().is_some()) {
                return Ok(true);
            }
            began?;
            shared |= process(&mut second).await? != other;
            shared |= process(&mut first).await? != own;
            sqlx::raw_sql("rollback").execute(&mut second).await?;
            shared |= process(&mut first).await? != own;
        }
        // They are of no use any more, whether they can say goodbye or not.
        let _ = (first.close().await, second.close().await);
        Ok(shared)
    }
}

/// The server's process behind a connection. As a simple query: a prepared one would stay behind.
async fn process(connection: &mut Connection) -> Result<i32> {
    use sqlx::Row as _;
    let asked = sqlx::raw_sql("select pg_backend_pid() as process");
    Ok(sqlx::Executor::fetch_one(connection, asked).await?.try_get("process")?)
}
