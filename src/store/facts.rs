//! What the database is, as the service sees it: who it works as, whether the books are safe from
//! it, whether anything can be written, and whether what is written lasts.

use super::{Pool, Result, schema};

/// What a session of the service found.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Facts {
    /// Of the server: `15.18`.
    pub version: String,
    pub login: String,
    /// The role that the service works as.
    pub role: String,
    /// It cannot change or delete events and ledger entries; none: there are no tables yet, or it
    /// has no way to them.
    pub protected: Option<bool>,
    pub standby: bool,
    pub read_only: bool,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// The default of this login and database; lanes do not go below `on`.
    pub synchronous_commit: String,
    /// Sessions that the server has for logins like this one.
    pub sessions: i32,
}

impl Facts {
    /// What is committed survives a crash of the server and of its machine.
    pub fn is_durable(&self) -> bool {
        self.fsync && self.full_page_writes
    }

    /// Why nothing can be written; none: it can.
    pub fn unwritable(&self) -> Option<&'static str> {
        unwritable(self.standby, self.read_only)
    }

    /// What an operator should know, with what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.protected == Some(false) {
            warnings.push(format!(
                "the books are not protected: {} may change events and ledger entries; run \
                 `wallex migrate` as a role with CREATEROLE, or have wallex_app granted to {}",
                self.role, self.login
            ));
        }
        for (on, name) in [(self.fsync, "fsync"), (self.full_page_writes, "full_page_writes")] {
            if !on {
                warnings.push(format!(
                    "{name} is off: a crash of the server's machine can lose or corrupt what was \
                     acknowledged; switch it on"
                ));
            }
        }
        if !["on", "remote_apply"].contains(&self.synchronous_commit.as_str()) {
            warnings.push(format!(
                "synchronous_commit is {} for {}: commands are committed with on all the same",
                self.synchronous_commit, self.login
            ));
        }
        warnings.extend(self.unwritable().map(str::to_owned));
        warnings
    }
}

fn unwritable(standby: bool, read_only: bool) -> Option<&'static str> {
    match (standby, read_only) {
        (true, _) => Some("nothing can be written: the server is a standby"),
        (_, true) => Some("nothing can be written: default_transaction_read_only is on"),
        _ => None,
    }
}

/// Looks, with a session of the service.
pub async fn look(pool: &Pool) -> Result<Facts> {
    Ok(sqlx::query_as(
        "select current_setting('server_version') as version, session_user::text as login, \
            current_user::text as role, \
            (select not bool_or(has_table_privilege(to_regclass(t), 'update, delete, truncate')) \
                from unnest(array['events', 'postings']) t) as protected, \
            pg_is_in_recovery() as standby, \
            current_setting('transaction_read_only') = 'on' as read_only, \
            current_setting('fsync') = 'on' as fsync, \
            current_setting('full_page_writes') = 'on' as full_page_writes, \
            current_setting('synchronous_commit') as synchronous_commit, \
            current_setting('max_connections')::int \
                - current_setting('superuser_reserved_connections')::int as sessions",
    )
    .fetch_one(pool)
    .await?)
}

/// Why the service cannot work here; none: it can.
pub async fn unready(pool: &Pool) -> Result<Option<String>> {
    let mut connection = pool.acquire().await?;
    if let Some(misfit) = schema::misfit(&mut connection).await? {
        return Ok(Some(misfit.text()));
    }
    let (standby, read_only): (bool, bool) = sqlx::query_as(
        "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'",
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(unwritable(standby, read_only).map(str::to_owned))
}
