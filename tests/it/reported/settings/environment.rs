//! Row "environment": the process's environment, `.env` and the way to Postgres.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use wallex::cli::dev::child::free_port;
use wallex::cli::dev::postgres::{Options, Postgres};

use super::{checked, command, told};
use crate::support::app::{App, Setup};
use crate::support::{eventually, servers};

#[test]
fn a_variable_of_another_program_need_not_be_utf_8() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = || OsString::from_vec(b"caf\xe9 canary".to_vec());
    for arguments in [&["config", "check"][..], &["config", "print"], &["completions", "bash"]] {
        let output = command(folder.path(), &[("LESSOPEN", bytes())]).args(arguments).output();
        let (fine, said) = told(&output.unwrap());
        assert!(fine, "{arguments:?}: {said}");
    }
    for name in ["DATABASE_PASSWORD", "KAFKA_CLIENT_ID", "WALLEX_CONFIG"] {
        let output = command(folder.path(), &[(name, bytes())]).args(["config", "check"]).output();
        let (fine, said) = told(&output.unwrap());
        assert!(!fine && said.starts_with(&format!("wallex: {name}=")), "{said}");
        assert!(said.contains("UTF-8") && !said.contains("panicked"), "{said}");
        assert_eq!(said.contains("canary"), name != "DATABASE_PASSWORD", "{said}");
    }
}

#[test]
fn a_byte_order_mark_before_a_file_is_no_part_of_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let printed = || {
        let output = command(folder.path(), &[]).args(["config", "print"]).output().unwrap();
        told(&output).1
    };
    write(".env", "\u{feff}PORT=4321\r\nKAFKA_CLIENT_ID=second\r\n");
    write("wallex.toml", "\u{feff}outbox_batch_size = 7\n");
    let said = printed();
    for line in
        ["PORT=4321  # environment", "KAFKA_CLIENT_ID=second  # env", "OUTBOX_BATCH_SIZE=7  # file"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    write("password", "\u{feff}canary\r\n");
    write(".env", "DATABASE_PASSWORD_FILE=password\nDATABASE_HOST=nowhere.invalid\n");
    let said = printed();
    assert!(said.contains("DATABASE_PASSWORD=[redacted]  # environment"), "{said}");

    std::fs::write(folder.path().join(".env"), b"\xff\xfeP\0O\0").unwrap();
    let said = printed();
    assert!(said.contains(".env: line 1 is not UTF-8"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comma_at_the_end_of_the_brokers_is_taken() {
    let brokers = format!("{},", servers::kafka().bootstrap);
    let app = Setup::shared().with("KAFKA_BROKERS", brokers).start().await;
    publishes(&app).await;
}

/// An event comes to Kafka.
async fn publishes(app: &App) {
    app.open("sent", "1.00").await;
    eventually("the event is published", Duration::from_secs(60), async || {
        let sent = "select count(*) from outbox where processed_at is not null";
        let sent: i64 = sqlx::query_scalar(sent).fetch_one(&app.pool).await.ok()?;
        (sent > 0).then_some(())
    })
    .await;
}

/// Brokers by an IPv6 address, which they give to clients in brackets as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_an_ipv6_address_is_reached() {
    let [port, v6, controller] = [(); 3].map(|()| free_port().unwrap());
    let (v4, v6) = (format!("PLAINTEXT://127.0.0.1:{port}"), format!("V6://[::1]:{v6}"));
    let lines = [
        ("listeners", format!("{v4},{v6},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("{v4},{v6}")),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,V6:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
    ];
    let lines = lines.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let _broker = servers::own_kafka_with(port, lines);
    let brokers = format!("{},", v6.trim_start_matches("V6://"));
    let setup = Setup::shared().with("KAFKA_BROKERS", brokers);
    publishes(&setup.start().await).await;
}

#[test]
fn config_check_and_the_commands_agree_on_an_address_of_postgres() {
    let folder = tempfile::tempdir().unwrap();
    for (url, hint) in [
        ("postgres://fred:can/ary@localhost:5432/wallex", "%2F"),
        ("\"postgres://fred:canary@localhost:5432/wallex\"", "quotes"),
        ("jdbc:postgresql://localhost:5432/wallex?user=fred&password=canary", "JDBC"),
        ("postgres://fred:canary@one:5432,two:5432/wallex", "several hosts"),
        ("postgres://fred:canary@localhost/wallex?sslmode=on", "sslmode"),
    ] {
        for name in ["DATABASE_URL", "DATABASE_MIGRATION_URL"] {
            let mut first = None;
            let commands: [&[&str]; 4] =
                [&["config", "check"], &["migrate"], &["serve"], &["projections", "status"]];
            for arguments in commands {
                let variables = [(name, OsString::from(url))];
                let output = command(folder.path(), &variables).args(arguments).output().unwrap();
                let (fine, said) = told(&output);
                assert!(!fine && said.starts_with(&format!("wallex: {name}=")), "{said}");
                assert!(said.contains(hint) && !said.contains("canary"), "{url}: {said}");
                assert!(!said.contains("ary@"), "{url}: {said}");
                assert_eq!(*first.get_or_insert_with(|| said.clone()), said, "{arguments:?}");
            }
            let variables = [(name, OsString::from(url))];
            let print = command(folder.path(), &variables).args(["config", "print"]).output();
            let (_, said) = told(&print.unwrap());
            assert!(!said.contains("ary@") && !said.contains("canary"), "{said}");
        }
    }
    let (fine, said) = checked(folder.path(), &[("DATABASE_HOST", "db:5432")]);
    assert!(!fine && said.starts_with("wallex: DATABASE_HOST=db:5432"), "{said}");
}

/// A socket's folder and an IPv6 address, in parts and in a URL, over a real server; with a password
/// that has everything that a URL gives a meaning to.
#[test]
fn a_sockets_folder_and_an_ipv6_address_are_taken() {
    let folder = tempfile::Builder::new().prefix("wallex-it-socket").tempdir_in("/tmp").unwrap();
    let sockets = folder.path().join("sockets");
    std::fs::create_dir(&sockets).unwrap();
    for open in [folder.path(), &sockets] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let socket = sockets.display().to_string();
    let mut options =
        Options::new(0, &folder.path().join("data"), &folder.path().join("postgres.log"));
    options.bin = std::env::var_os("WALLEX_POSTGRES_BIN").map(Into::into);
    options.remove = Some(folder.path().to_owned());
    options.settings = vec![
        ("unix_socket_directories".to_owned(), socket.clone()),
        ("listen_addresses".to_owned(), "127.0.0.1,::1".to_owned()),
    ];
    let postgres = Postgres::start(options).unwrap();
    // A login over TCP and sockets by password.
    let rules = "local all odd scram-sha-256\nhost all odd ::1/128 scram-sha-256\n";
    let file = postgres.data.join("pg_hba.conf");
    let others = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{rules}{others}")).unwrap();
    let password = "p/a:s@s?w#o%r d'";
    let quoted = password.replace('\'', "''");
    postgres.psql(&format!("create role odd login superuser password '{quoted}'")).unwrap();
    postgres.psql("select pg_reload_conf()").unwrap();
    postgres.ensure_database("wallex").unwrap();

    let port = postgres.port.to_string();
    let parts = |host: &str| {
        vec![
            ("DATABASE_HOST", OsString::from(host)),
            ("DATABASE_PORT", OsString::from(&port)),
            ("DATABASE_USER", OsString::from("odd")),
            ("DATABASE_PASSWORD", OsString::from(password)),
        ]
    };
    let url = |text: String| vec![("DATABASE_URL", OsString::from(text))];
    let credentials = "odd:p%2Fa:s%40s?w#o%25r%20d'";
    for variables in [
        parts(&socket),
        parts("::1"),
        parts("[::1]"),
        url(format!("postgresql://{credentials}@[::1]:{port}/wallex?connect_timeout=5")),
        url(format!("postgres://{credentials}@/wallex?host={socket}&port={port}")),
        url(format!("postgres://{credentials}@{}:{port}/wallex", socket.replace('/', "%2F"))),
    ] {
        let output = command(folder.path(), &variables).arg("migrate").output().unwrap();
        let (fine, said) = told(&output);
        assert!(fine && said.contains("the schema is up to date"), "{variables:?}: {said}");
    }
}
