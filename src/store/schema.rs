//! Does the schema fit this build? An earlier one lacks migrations; a later one says itself which builds can work
//! on it.

use super::connect::{missing, newest};
use super::{Connection, PIPELINE, Pool, Result};

/// Why this build cannot work on the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// So many migrations of this build have not run.
    Missing(usize),
    /// It is of a later release, and needs a build that knows this migration.
    Later { needs: i64, knows: i64 },
    /// The login may not look.
    NoRights { login: String },
}

impl Misfit {
    /// Says it for operators, with what to do.
    pub fn text(&self) -> String {
        match self {
            Self::Missing(count) => {
                format!("{count} migrations are missing: run `wallex migrate`")
            }
            Self::Later { needs, knows } => format!(
                "the schema is of a later release: it needs a build that knows migration {needs}, and this \
                 one knows {knows}; start that release"
            ),
            Self::NoRights { login } => format!(
                "{login} has no rights on the tables: run `wallex migrate` as their owner, or have \
                 wallex_app granted to {login}"
            ),
        }
    }
}

/// Looks whether this build can work here; none: it can.
pub async fn misfit(connection: &mut Connection) -> Result<Option<Misfit>> {
    let (visible, known, login): (bool, bool, String) = sqlx::query_as(
        "select coalesce(has_table_privilege(to_regclass('_sqlx_migrations'), 'select'), false), \
            exists (select from pg_class where relname = '_sqlx_migrations' and relkind = 'r' \
                and relnamespace = coalesce(current_schema()::regnamespace, relnamespace)), \
            session_user::text",
    )
    .fetch_one(&mut *connection)
    .await?;
    if known && !visible {
        return Ok(Some(Misfit::NoRights { login }));
    }
    let applied: Vec<i64> = match visible {
        false => Vec::new(),
        true => {
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(&mut *connection)
                .await?
        }
    };
    let missing = missing(&applied);
    if missing > 0 {
        return Ok(Some(Misfit::Missing(missing)));
    }
    let needs: Option<i64> =
        sqlx::query_scalar("select min_build from schema_compatibility where tenant_id = $1")
            .bind(PIPELINE)
            .fetch_optional(connection)
            .await?;
    let knows = newest();
    Ok(needs.filter(|needs| *needs > knows).map(|needs| Misfit::Later { needs, knows }))
}

/// The same with a connection of the pool.
pub async fn misfit_of(pool: &Pool) -> Result<Option<Misfit>> {
    let mut connection = pool.acquire().await?;
    misfit(&mut connection).await
}
