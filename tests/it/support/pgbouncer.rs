//! A real PgBouncer before a real PostgreSQL: Debian's package, as a process of the test's own.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use wallex::cli::dev::child::{Account, Child, Launch, Signal, free_port};
use wallex::cli::dev::postgres::Postgres;

const START_LIMIT: Duration = Duration::from_secs(30);

pub struct PgBouncer {
    pub port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl PgBouncer {
    /// Every client is the superuser. More lines of its `[pgbouncer]` section come as they are.
    pub fn start(postgres: &Postgres, mode: &str, more: &str) -> Self {
        let mut pooler = Self::stopped(postgres, mode, more);
        pooler.restart();
        pooler
    }

    /// Not started yet: nothing listens on its port.
    pub fn stopped(postgres: &Postgres, mode: &str, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("wallex-it-pgbouncer-").tempdir().unwrap();
        let folder = folder.keep();
        let port = free_port().unwrap();
        let server = postgres.port;
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nmax_client_conn = 200\n{more}\n"
        );
        std::fs::write(folder.join("pgbouncer.ini"), settings).unwrap();
        Self { port, folder, child: None }
    }

    pub fn restart(&mut self) {
        self.child = None;
        let account = Account::for_server().unwrap();
        if let Some(account) = &account {
            let (uid, gid) = (Some(account.uid), Some(account.gid));
            std::os::unix::fs::chown(&self.folder, uid, gid).unwrap();
        }
        let settings = self.folder.join("pgbouncer.ini").display().to_string();
        let launched = Child::start(&Launch {
            name: "PgBouncer",
            command: vec![program(), settings],
            directory: &self.folder,
            log: &self.folder.join("pgbouncer.log"),
            account: account.as_ref(),
            stop_signal: Signal::SIGTERM,
            grace: Duration::from_secs(5),
            remove: Some(&self.folder),
        });
        let mut child = launched.unwrap();
        let listens = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        child.wait_ready(START_LIMIT, listens).unwrap();
        self.child = Some(child);
    }

    /// A client of a database behind it, that says no more at start-up than PgBouncer takes.
    pub async fn client(&self, database: &str) -> PgConnection {
        let options: PgConnectOptions = self.url_of(database).parse().unwrap();
        PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap()
    }

    /// Of a database behind it.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian has it where only root's path looks.
fn program() -> String {
    let named = std::env::var("WALLEX_PGBOUNCER").ok();
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let mut found = named.into_iter().chain(places.map(str::to_owned));
    found.find(|path| std::path::Path::new(path).exists()).expect(
        "the tests need PgBouncer: run scripts/test, which installs it, install it (Debian: apt-get \
         install pgbouncer; its service is not needed), or set WALLEX_PGBOUNCER to the program",
    )
}
