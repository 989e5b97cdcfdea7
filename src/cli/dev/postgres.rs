//! A private PostgreSQL, made, stopped and started again on one data folder: for `dev` and tests.
//!
//! It uses the installed programs, listens on the loopback only (that is why it asks no password),
//! and keeps fsync on: what it acknowledges survives a crash of everything here. Root may not run
//! PostgreSQL, so as root it runs as another user, and its data lies where that user may go.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::child::{self, Account, Child, Launch, Signal};

const NAME: &str = "PostgreSQL";
const START_LIMIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);
/// Where root's data goes when the server's user cannot reach the folder asked for.
const OUTSIDE: [&str; 2] = ["/var/lib/wallex", "/var/tmp/wallex"];

/// What to start. `Options::new` gives what `dev` uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder with `initdb`, `postgres` and `psql`; none: it is searched for.
    pub bin: Option<PathBuf>,
    /// 0: a free one.
    pub port: u16,
    /// The data folder; made when it is not there, used again when it is.
    pub data: PathBuf,
    pub log: PathBuf,
    /// Settings of `postgresql.conf`, given on the command line.
    pub settings: Vec<(String, String)>,
    /// A folder around data and log that goes away with the server: for tests.
    pub remove: Option<PathBuf>,
}

impl Options {
    /// A lasting server on `port` with its data and log in these places.
    pub fn new(port: u16, data: &Path, log: &Path) -> Options {
        let (data, log) = (data.to_owned(), log.to_owned());
        Options { bin: None, port, data, log, settings: Vec::new(), remove: None }
    }
}

/// A running (or stopped) private server. Dropping it stops it.
#[derive(Debug)]
pub struct Postgres {
    /// Of the database `postgres`; see `url_of` for others.
    pub url: String,
    pub port: u16,
    /// Where the data really is.
    pub data: PathBuf,
    /// The folder of the server's programs.
    pub bin: PathBuf,
    options: Options,
    account: Option<Account>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts the server and waits until it answers queries.
    pub fn start(options: Options) -> anyhow::Result<Postgres> {
        let account = Account::for_server()?;
        let bin = find_programs(options.bin.as_deref(), &options.data)?;
        let data = prepare_data(&options, account.as_ref(), &bin)?;
        child::wait_gone(last_pid(&data), &data, GRACE);
        let port = if options.port == 0 { child::free_port()? } else { options.port };
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let mut server = Postgres { url, port, data, bin, options, account, child: None };
        server.run()?;
        Ok(server)
    }

    /// The connection URL of one of its databases.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The postmaster's pid, as its own file says; none when it is not running.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(|_| last_pid(&self.data))
    }

    /// True while the server's process lives.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.ended().is_none())
    }

    /// Sends a signal to the postmaster.
    pub fn kill(&self, signal: Signal) -> anyhow::Result<()> {
        self.child.as_ref().context("PostgreSQL is not running")?.kill(signal)
    }

    /// A fast shutdown: sessions are ended, a checkpoint is written.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stop();
        }
    }

    /// Starts it again on the same data and port, after `stop`, after a crash, or in place of the
    /// running one.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        // After SIGKILL of the postmaster its sessions notice within moments; until then the data
        // counts as in use.
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            match self.run() {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                result => return result,
            }
        }
    }

    /// Makes the database when it is not there.
    pub fn ensure_database(&self, name: &str) -> anyhow::Result<()> {
        let listed = self.psql("SELECT datname FROM pg_database")?;
        if !listed.lines().any(|line| line == name) {
            self.psql(&format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")))?;
        }
        Ok(())
    }

    /// Runs one statement in the database `postgres`; its rows, unaligned, one a line.
    pub fn psql(&self, statement: &str) -> anyhow::Result<String> {
        let target = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=2 \
             sslmode=disable",
            self.port
        );
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-A", "-t", "-q", "-w", "-d", &target, "-c", statement]);
        run_to_end(command.current_dir("/"))
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let program = self.bin.join("postgres").display().to_string();
        let mut command = vec![program, "-D".to_owned(), self.data.display().to_string()];
        command.extend(["-p".to_owned(), port]);
        let fixed = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", "")];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (name, value) in fixed.iter().chain(&self.options.settings) {
            command.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let mut child = Child::start(&Launch {
            name: NAME,
            command,
            directory: &self.data,
            log: &self.options.log,
            account: self.account.as_ref(),
            stop_signal: Signal::SIGINT,
            grace: GRACE,
            remove: self.options.remove.as_deref(),
        })?;
        // A connect succeeds before queries are accepted, so only an answered query counts.
        child.wait_ready(START_LIMIT, || self.psql("SELECT 1").is_ok())?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.child.take());
        if let Some(folder) = &self.options.remove {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The pid in the data folder's `postmaster.pid`; the process may be gone.
pub fn last_pid(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// The folder of the programs. Data made by one major version opens with that version only, so it
/// is preferred.
fn find_programs(given: Option<&Path>, data: &Path) -> anyhow::Result<PathBuf> {
    let mut folders: Vec<PathBuf> = given.map(Path::to_owned).into_iter().collect();
    if folders.is_empty() {
        if let Ok(version) = fs::read_to_string(data.join("PG_VERSION")) {
            folders.push(format!("/usr/lib/postgresql/{}/bin", version.trim()).into());
        }
        let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        folders.extend(
            versions.iter().map(|version| format!("/usr/lib/postgresql/{version}/bin").into()),
        );
        if let Ok(found) =
            run_to_end(Command::new("sh").args(["-c", "readlink -f \"$(command -v initdb)\""]))
        {
            folders.extend(Path::new(found.trim()).parent().map(Path::to_owned));
        }
    }
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "psql"].iter().all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(complete).context(
        "the PostgreSQL server is not installed. Install it (Debian: apt-get install \
         postgresql), or set WALLEX_POSTGRES_BIN to the folder with initdb, postgres and psql",
    )
}

/// Makes the data folder unless it is there. Its real place, which as root may lie outside the
/// folder asked for: then a link stands there.
fn prepare_data(
    options: &Options,
    account: Option<&Account>,
    bin: &Path,
) -> anyhow::Result<PathBuf> {
    let asked = &options.data;
    let (parent, name) = asked.parent().zip(asked.file_name()).context("not a data folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    if let (Some(account), Some(folder)) = (account, &options.remove) {
        // The leash, which removes it, runs as this user too.
        chown(folder, Some(account.uid), Some(account.gid))?;
    }
    if asked.join("PG_VERSION").exists() {
        let data = asked.canonicalize()?;
        child::check_owner(&data, account)?;
        return Ok(data);
    }
    let inside = parent.canonicalize()?;
    if can_enter(account, &inside)? {
        let data = inside.join(name);
        make_data(&data, options, account, bin)?;
        return Ok(data);
    }
    let data = folder_outside()?.join(name);
    make_data(&data, options, account, bin)?;
    if asked.is_symlink() {
        fs::remove_file(asked)?;
    }
    symlink(&data, asked).with_context(|| format!("cannot link {}", asked.display()))?;
    Ok(data)
}

/// The data folder gets its name only once it is complete: a first start that is cut short leaves
/// nothing half made.
fn make_data(
    data: &Path,
    options: &Options,
    account: Option<&Account>,
    bin: &Path,
) -> anyhow::Result<()> {
    let unfinished = data.with_added_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    if let Some(account) = account {
        chown(&unfinished, Some(account.uid), Some(account.gid))?;
    }
    let mut command = Command::new(bin.join("initdb"));
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"]);
    command.arg(&unfinished).current_dir(&unfinished);
    if options.remove.is_some() {
        command.arg("--no-sync");
    }
    Account::apply(account, &mut command);
    run_to_end(&mut command)?;
    fs::rename(&unfinished, data)
        .with_context(|| format!("{} is in the way of a new data folder", data.display()))
}

/// True when the server's user may pass through this folder; only the system can tell, rights of
/// all parents count.
fn can_enter(account: Option<&Account>, folder: &Path) -> anyhow::Result<bool> {
    let mut command = Command::new("test");
    Account::apply(account, command.arg("-x").arg(folder).current_dir("/"));
    Ok(command.status().context("cannot run test")?.success())
}

/// A new folder of its own, that every user may pass through.
fn folder_outside() -> anyhow::Result<PathBuf> {
    let name = uuid::Uuid::now_v7().to_string();
    let mut last = None;
    for base in OUTSIDE {
        let folder = Path::new(base).join(&name);
        match fs::create_dir_all(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => last = Some(error),
        }
    }
    bail!("cannot make a data folder in {}: {last:?}", OUTSIDE.join(" or "))
}

/// Runs a program to its end; its output, or an error with what it said.
fn run_to_end(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} failed: {}", command.get_program(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
