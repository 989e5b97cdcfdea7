//! Who may work as `wallex_app`. After the migrations the owner sees to it that the service's login
//! may take that role, with the least rights that do: the role itself, as far as the owner may give
//! it, and no inheritance.

use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;

use super::super::{Connection, Error, Result};

/// From 16 on a membership says whether one may take the role; the creator of a role is a member with
/// the right to give it on, and without that to take it.
const SINCE_OPTIONS: i32 = 160_000;

#[derive(sqlx::FromRow)]
struct RoleState {
    version: i32,
    /// There is such a role.
    exists: bool,
    /// It has its rights on every table of this schema.
    entitled: bool,
}

/// Makes the role, gives it what migrations gave while it was not there, and lets `login` take it.
/// Returns what to ask an administrator for, where the owner may not.
pub(super) async fn prepare(
    connection: &mut Connection,
    login: &str,
    migrations: &Migrator,
) -> Result<Option<String>> {
    let mut role_state = role_state(connection).await?;
    if !role_state.exists {
        if attempt(connection, "create role wallex_app nologin").await? {
            role_state.exists = true;
            role_state.entitled = false;
        } else {
            return Ok(Some(asking(
                &["CREATE ROLE wallex_app NOLOGIN"],
                login,
                role_state.version,
            )));
        }
    }
    if !role_state.entitled {
        for block in migrations.iter().flat_map(|migration| grants(migration.sql.as_str())) {
            sqlx::raw_sql(AssertSqlSafe(block)).execute(&mut *connection).await?;
        }
    }
    if may_take(connection, login, role_state.version).await? {
        return Ok(None);
    }
    let grant = grant(login, role_state.version);
    let given = attempt(connection, &grant).await?;
    Ok((!given).then(|| asking(&[], login, role_state.version)))
}

async fn role_state(connection: &mut Connection) -> Result<RoleState> {
    Ok(sqlx::query_as(
        "select current_setting('server_version_num')::int as version, \
            exists (select from pg_roles where rolname = 'wallex_app') as exists, \
            not exists (select from pg_class c cross join pg_roles r \
                where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' \
                  and r.rolname = 'wallex_app' and not has_table_privilege(r.oid, c.oid, 'select')) \
                as entitled",
    )
    .fetch_one(connection)
    .await?)
}

async fn may_take(connection: &mut Connection, login: &str, version: i32) -> Result<bool> {
    let how = if version >= SINCE_OPTIONS { "SET" } else { "MEMBER" };
    let found: Option<bool> = sqlx::query_scalar(
        "select pg_has_role(l.oid, r.oid, $2) from pg_roles l cross join pg_roles r \
         where l.rolname = $1 and r.rolname = 'wallex_app'",
    )
    .bind(login)
    .bind(how)
    .fetch_optional(connection)
    .await?;
    Ok(found.unwrap_or(false))
}

fn grant(login: &str, version: i32) -> String {
    let options = if version >= SINCE_OPTIONS { " WITH SET TRUE, INHERIT FALSE" } else { "" };
    format!("GRANT wallex_app TO \"{}\"{options}", login.replace('"', "\"\""))
}

/// Runs a statement; false where the owner may not, or where there is no role of that name.
async fn attempt(connection: &mut Connection, statement: &str) -> Result<bool> {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await;
    match done.map_err(Error::from) {
        Ok(_) => Ok(true),
        // Another migration of the same cluster was faster.
        Err(error)
            if error.sqlstate().is_some_and(|state| state == "42710" || state == "23505") =>
        {
            Ok(true)
        }
        Err(error)
            if error.sqlstate().is_some_and(|state| state == "42501" || state == "42704") =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn asking(first: &[&str], login: &str, version: i32) -> String {
    let mut statements: Vec<String> = first.iter().map(|&s| s.to_owned()).collect();
    statements.push(grant(login, version));
    let again = if first.is_empty() { "" } else { ", then run `wallex migrate` again" };
    format!(
        "the service cannot work as wallex_app, which could not change the books: ask an \
         administrator for {};{again}",
        statements.join("; ")
    )
}

/// What a migration gave the role, as statements that do nothing where it is given already.
fn grants(migration: &str) -> Vec<String> {
    let blocks = migration.split("do $$").skip(1).filter_map(|rest| rest.split("$$;").next());
    let giving = blocks.filter(|block| block.contains("to wallex_app"));
    giving.map(|block| format!("do $${block}$$;")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_give_the_role_something_are_found() {
        let text = "do $$ create role wallex_app; $$;\ndo $$ grant x to wallex_app; $$;\nselect 1;";
        assert_eq!(grants(text), ["do $$ grant x to wallex_app; $$;"]);
    }

    #[test]
    fn a_login_is_quoted_and_inherits_nothing() {
        let since = "GRANT wallex_app TO \"a\"\"b\" WITH SET TRUE, INHERIT FALSE";
        assert_eq!(grant("a\"b", 160_004), since);
        assert_eq!(grant("app", 150_018), "GRANT wallex_app TO \"app\"");
    }
}
