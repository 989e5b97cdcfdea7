//! Signals between instances: that one committed, that leases moved. A signal may be lost; every
//! listener also looks by itself now and then.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::connect::Session;
use super::leases::LEASES_CHANNEL;
use super::{Error, Pool, Result, Way};

const COMMITS_CHANNEL: &str = "wallex_commits";
/// Everything but waiting takes a moment, or the way to the server is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A silence this long is checked.
const QUIET: Duration = Duration::from_secs(10);

/// What another instance said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Events were committed.
    Committed,
    /// An instance came, went or gave partitions up.
    Leases,
}

/// A session that listens, and by an advisory lock shows that its process lives.
#[derive(Debug)]
pub struct Listener {
    session: PgListener,
    owner: String,
}

impl Listener {
    /// Connects and takes the lock `key`. Signals of `owner` itself are not heard.
    pub async fn connect(way: &Way, owner: &str, key: i64) -> Result<Self> {
        let connecting = async {
            way.check().await?;
            let settings = Session::new("wallex-listener");
            let options = settings.options(way.url())?;
            let alone = PgPoolOptions::new().max_connections(1).max_lifetime(None);
            let alone = alone.idle_timeout(None).after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { settings.configure(connection).await })
            });
            let pool = alone.connect_with(options).await?;
            let mut session = PgListener::connect_with(&pool).await?;
            session.ignore_pool_close_event(true);
            session.eager_reconnect(false);
            session.listen_all([COMMITS_CHANNEL, LEASES_CHANNEL]).await?;
            // Not waited for: who has it is this process, whose last session is about to end.
            let lock = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(key);
            let locked: bool = lock.fetch_one(&mut session).await?;
            if !locked {
                return Err(Error::from(sqlx::Error::Protocol("the lock is still held".into())));
            }
            Ok(Self { session, owner: owner.to_owned() })
        };
        super::bounded(ANSWER_TIMEOUT, connecting).await
    }

    /// The next signal of another instance. An error ends the session: with it the lock is gone.
    pub async fn next(&mut self) -> Result<Signal> {
        loop {
            let heard = tokio::time::timeout(QUIET, self.session.try_recv()).await;
            let Ok(heard) = heard else {
                super::bounded(ANSWER_TIMEOUT, self.look()).await?;
                continue;
            };
            let Some(notification) = heard? else {
                return Err(Error::session_ended());
            };
            if notification.payload() == self.owner {
                continue;
            }
            return Ok(match notification.channel() {
                COMMITS_CHANNEL => Signal::Committed,
                _ => Signal::Leases,
            });
        }
    }
}

impl Listener {
    /// Whether the server still answers, and is still the one that is written to: one that became a
    /// standby, or was left behind by a move, sends no signals.
    async fn look(&mut self) -> Result<()> {
        let asked = sqlx::query_scalar("select current_setting('transaction_read_only') = 'off'");
        match asked.fetch_one(&mut self.session).await? {
            true => Ok(()),
            false => Err(Error::from(sqlx::Error::Protocol("nothing can be written there".into()))),
        }
    }
}

/// Notifies the other instances that `owner` committed events.
pub async fn committed(pool: &Pool, owner: &str) -> Result<()> {
    let telling = async {
        let tell = sqlx::query("select pg_notify($1, $2)").bind(COMMITS_CHANNEL).bind(owner);
        Ok(tell.execute(pool).await.map(drop)?)
    };
    super::bounded(ANSWER_TIMEOUT, telling).await
}
