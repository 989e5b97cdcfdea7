//! The settings that every session of the service gets before it is used: no statement, lock or silence lasts
//! for ever, and the role that it works as.
//!
//! Sent in one round trip after connecting, not at its start-up: poolers refuse `options` there, or
//! drop them without a word.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use super::super::{Connection, Result};
use crate::config::Secret;

/// Every statement of the service looks rows up by an index, a few or some thousands of them. A plan
/// made while tables are small would scan or hash them, and be kept when they have grown: until the
/// next ANALYZE the same round cost five times as much. Rows are looked up once each: a cache before the index
/// never hits, and was a sixth of the publisher's claim.
const BY_INDEX: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_memoize", "off"),
];
/// What [`BY_INDEX`] forbids, for statements that read whole tables.
pub(in super::super) const OVER_ALL: &str = "set local plan_cache_mode = auto; set local enable_seqscan = on; \
     set local enable_hashjoin = on; set local enable_mergejoin = on; set local enable_memoize = on";

/// Some of these an operator or a provider may have set otherwise for the database or the login.
const EVERYWHERE: [(&str, &str); 12] = [
    ("statement_timeout", "30000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "10000"),
    // A session that listens, or a lane without commands, is not left over.
    ("idle_session_timeout", "0"),
    // Statements and silences are bounded one by one.
    ("transaction_timeout", "0"),
    // Row locks and what is read under them stand on it.
    ("default_transaction_isolation", "read committed"),
    // A read whose caller has gone ends with its connection, not with its timeout.
    ("client_connection_check_interval", "500"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("jit", "off"),
    ("timezone", "UTC"),
];

/// The session works as `wallex_app` where its login may: that role can add to the books, never
/// change them. From 16 on being a member does not say so.
const TAKE_ROLE: &str = "select set_config('role', rolname, false) from pg_roles \
     where rolname = 'wallex_app' and pg_has_role(session_user, oid, \
         case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end);";

/// No tenant is called so: a session that was given no other reads no rows.
pub(super) const NO_TENANT: &str = "(none)";
const CONFINED: &str = "select set_config('wallex.tenant', '(none)', false);";

/// What is acknowledged is on disk, whatever the database or the role has for its default. What
/// waits for more than that, stays.
const DURABLE: &str = "select set_config('synchronous_commit', 'on', false) \
     where current_setting('synchronous_commit') not in ('on', 'remote_apply');";

/// How a session is set up.
#[derive(Debug, Clone)]
pub(in super::super) struct Session {
    name: &'static str,
    /// The last of a name counts.
    settings: Vec<(&'static str, String)>,
    more: Vec<&'static str>,
}

impl Session {
    pub fn new(name: &'static str) -> Self {
        let settings = EVERYWHERE.map(|(name, value)| (name, value.to_owned())).to_vec();
        Self { name, settings, more: Vec::new() }
    }

    /// As the application's role, with plans that suit the service's statements.
    pub fn service(name: &'static str) -> Self {
        Self::new(name).with_role().by_index()
    }

    pub fn with_role(mut self) -> Self {
        self.more.push(TAKE_ROLE);
        self
    }

    pub fn by_index(mut self) -> Self {
        self.settings.extend(BY_INDEX.map(|(name, value)| (name, value.to_owned())));
        self
    }

    /// Sees no row of a tenant before it is given the tenant that it reads for.
    pub fn confined(mut self) -> Self {
        self.more.push(CONFINED);
        self
    }

    pub fn durable(mut self) -> Self {
        self.more.push(DURABLE);
        self
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.retain(|(set, _)| *set != name);
        self.settings.push((name, value.into()));
        self
    }

    /// How it connects. Poolers know none of the extra float digits, and no query here reads floats.
    pub fn options(&self, url: &Secret) -> Result<PgConnectOptions> {
        let options = PgConnectOptions::from_str(url.expose())?;
        Ok(options.application_name(self.name).extra_float_digits(None))
    }

    /// Sends all settings to the session.
    pub async fn configure(
        &self,
        connection: &mut Connection,
    ) -> std::result::Result<(), sqlx::Error> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(self.sql())).execute(connection).await.map(drop)
    }

    /// Makes the statement: names and values are constants of this file. A server too old to know a name does without.
    fn sql(&self) -> String {
        let values = self.settings.iter().map(|(name, value)| format!("('{name}', '{value}')"));
        let values = values.collect::<Vec<_>>().join(", ");
        let more = self.more.concat();
        // A limit that the database has for its statements would count for these.
        format!(
            "set statement_timeout = 30000; \
             select set_config(name, value, false) from (values {values}) s(name, value) \
                 where current_setting(name, true) is not null; \
             {more} select set_config('wallex.settled', 'yes', false)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_its_own_replaces_the_general_one() {
        let sql = Session::service("wallex").with("statement_timeout", "5000").sql();
        assert!(sql.contains("('statement_timeout', '5000')") && !sql.contains("'30000'"), "{sql}");
        assert!(sql.contains("enable_seqscan") && sql.contains("wallex_app"), "{sql}");
        assert!(!sql.contains("synchronous_commit"), "{sql}");
    }
}
