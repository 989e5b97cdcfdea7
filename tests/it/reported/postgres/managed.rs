//! Databases as providers give them: no superuser, an owner with CREATEROLE or without, logins apart.
//! On 16 and later the service was never ready: "permission denied to set role".

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use wallex::cli::dev::postgres::Postgres;

use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

/// A database of `owner`, who has these rights, and the setup of a service over it. The server asks
/// for no passwords.
fn owned(postgres: &Postgres, owner: &str, rights: &str) -> (Setup, String) {
    let database = format!("db_{owner}");
    postgres.psql(&format!("create role {owner} login {rights}")).unwrap();
    postgres.psql(&format!("create database {database} owner {owner}")).unwrap();
    (Setup::on(postgres, None), database)
}

fn url(postgres: &Postgres, login: &str, database: &str) -> String {
    format!("postgres://{login}@127.0.0.1:{}/{database}", postgres.port)
}

async fn facts(app: &App) -> Value {
    app.get("/health/kafka/stats").await.json()["database"].clone()
}

/// It takes commands, projects them, and cannot change the books even if it wanted to.
async fn assert_works(app: &App, pool: &PgPool, protected: bool) {
    app.open("w", "1.00").await;
    let done = app.post("/wallets/w/credit", json!({"amount": "2.00"})).await;
    assert_eq!(done.status, 201, "{}", done.text);
    eventually("projected", Duration::from_secs(20), async || {
        let summary = app.get("/ledger/wallet/w/summary").await.json();
        (summary["totalCredits"] == "3.00").then_some(())
    })
    .await;
    let found = facts(app).await;
    assert_eq!(found["booksProtected"], protected, "{found}");
    assert_eq!(found["role"] == "wallex_app", protected, "{found}");
    let warned = found["warnings"].to_string().contains("the books are not protected");
    assert_eq!(warned, !protected, "{found}");
    let metric = format!("database_books_protected {}", u8::from(protected));
    eventually("the metric", Duration::from_secs(15), async || {
        app.get("/metrics").await.text.lines().any(|line| line == metric).then_some(())
    })
    .await;
    let rights: bool = sqlx::query_scalar(
        "select has_table_privilege('wallex_app', 'events', 'update, delete, truncate')",
    )
    .fetch_one(pool)
    .await
    .unwrap_or(false);
    assert!(!rights, "wallex_app may change the books");
}

/// An owner with CREATEROLE is its own service, as most providers give it.
async fn one_login(postgres: &Postgres) {
    let (setup, database) = owned(postgres, "owner", "createrole");
    let app = setup.with("DATABASE_URL", url(postgres, "owner", &database)).start().await;
    let pool = PgPool::connect(&postgres.url_of(&database)).await.unwrap();
    assert_works(&app, &pool, true).await;
    // Again, as at every deployment.
    let again = app.wallex(&["migrate"]);
    assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
    app.assert_reconciled();
}

/// A login for the service alone, that owns nothing: migrations let it take the role, and no more.
async fn two_logins(postgres: &Postgres) {
    let (setup, database) = owned(postgres, "landlord", "createrole");
    postgres.psql("create role tenant login").unwrap();
    let app = setup
        .with("DATABASE_MIGRATION_URL", url(postgres, "landlord", &database))
        .with("DATABASE_URL", url(postgres, "tenant", &database))
        .start()
        .await;
    let pool = PgPool::connect(&postgres.url_of(&database)).await.unwrap();
    assert_works(&app, &pool, true).await;
    assert_eq!(facts(&app).await["login"], "tenant");
    let tenant = PgPool::connect(&url(postgres, "tenant", &database)).await.unwrap();
    let changed = sqlx::query("update events set version = 9").execute(&tenant).await;
    assert!(changed.is_err(), "the service's login may change the books by itself");
}

/// An owner that may make no roles: it works, says that the books are not protected and what to ask
/// for, and once that is given they are. Where the login owns nothing, nothing works before.
async fn without_createrole(postgres: &Postgres, options: &str) {
    let (setup, database) = owned(postgres, "poor", "");
    postgres.psql("create role poorer login").unwrap();
    let mut app = setup.with("DATABASE_URL", url(postgres, "poor", &database)).start().await;
    let pool = PgPool::connect(&postgres.url_of(&database)).await.unwrap();
    assert_works(&app, &pool, false).await;
    let asked = app.wallex(&["migrate"]);
    let asked = String::from_utf8_lossy(&asked.stderr).into_owned();
    let (create, grant) =
        ("CREATE ROLE wallex_app NOLOGIN", format!("GRANT wallex_app TO \"poor\"{options}"));
    for part in ["ask an administrator", create, &grant] {
        assert!(asked.contains(part), "{part} is not in: {asked}");
    }

    app.set("DATABASE_MIGRATION_URL", url(postgres, "poor", &database));
    app.set("DATABASE_URL", url(postgres, "poorer", &database));
    app.kill(Signal::SIGKILL);
    app.spawn();
    let why = eventually("it says why it is not ready", Duration::from_secs(20), async || {
        let answer = app.client.get(format!("{}/readyz", app.base)).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains("has no rights on the tables").then_some(text)
    })
    .await;
    assert!(why.contains("poorer") && why.contains("not_ready"), "{why}");

    postgres.psql(create).unwrap();
    postgres.psql(&grant.replace("poor", "poorer")).unwrap();
    let again = app.wallex(&["migrate"]);
    assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
    app.restart().await;
    let found = facts(&app).await;
    assert_eq!(found["role"], "wallex_app", "{found}");
    assert_eq!(found["booksProtected"], true, "{found}");
    let done = app.post("/wallets/w/credit", json!({"amount": "2.00"})).await;
    assert_eq!(done.status, 201, "{}", done.text);
    app.assert_reconciled();

    // A role that was made after the tables has the rights of one that was there before.
    let other = Setup::on(postgres, None).start().await;
    assert_eq!(rights(&pool).await, rights(&other.pool).await);
}

/// The role is there, and not theirs to give: another database of the cluster has made it. Before 16
/// CREATEROLE may give any role all the same.
async fn role_of_others(postgres: &Postgres, given: bool) {
    let (setup, database) = owned(postgres, "stranger", "createrole");
    let app = setup.with("DATABASE_URL", url(postgres, "stranger", &database)).start().await;
    let pool = PgPool::connect(&postgres.url_of(&database)).await.unwrap();
    assert_works(&app, &pool, given).await;
}

/// What the role may do in a database.
async fn rights(pool: &PgPool) -> Vec<(String, String)> {
    let rights: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, a.privilege_type from pg_class c \
         cross join lateral aclexplode(c.relacl) a join pg_roles r on r.oid = a.grantee \
         where c.relnamespace = 'public'::regnamespace and r.rolname = 'wallex_app' order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(rights.len() > 40, "{rights:?}");
    rights
}

/// Roles are a cluster's: each owner who makes it has a server of its own.
async fn as_providers_give_it(start: impl Fn() -> Postgres) {
    let since_options = {
        let postgres = start();
        one_login(&postgres).await;
        let version = postgres.psql("show server_version_num").unwrap();
        version.trim().parse::<u32>().unwrap() >= 160_000
    };
    two_logins(&start()).await;
    let postgres = start();
    let options = if since_options { " WITH SET TRUE, INHERIT FALSE" } else { "" };
    without_createrole(&postgres, options).await;
    role_of_others(&postgres, !since_options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_superuser_is_enough_on_the_installed_postgres() {
    as_providers_give_it(servers::own_postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_superuser_is_enough_on_postgres_18() {
    as_providers_give_it(|| servers::own_postgres_of(18)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "18 has the same roles, and stays; scripts/test --full"]
async fn an_owner_without_superuser_is_enough_on_postgres_16_and_17() {
    as_providers_give_it(|| servers::own_postgres_of(16)).await;
    as_providers_give_it(|| servers::own_postgres_of(17)).await;
}
