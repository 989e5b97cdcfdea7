//! A server process on a leash.
//!
//! The server runs under a small `sh` whose stdin is a pipe that we hold. When our end closes, for
//! whatever reason, SIGKILL included, the shell stops the server: first its own stop signal, after
//! a grace SIGKILL. So neither `dev` nor a test binary can leave a process or a locked port behind.
//!
//! Everything here blocks, and works from any thread with or without a runtime.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal;
pub use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, geteuid};

/// Arguments: stop signal, grace in tenths of a second, folder to remove when the leash is pulled
/// (or empty), command. It prints the server's pid. The watcher ignores SIGTERM once it acts,
/// because the main shell ends it when the server ended by itself. SIGCONT: a frozen server takes
/// no other signal.
const LEASH: &str = r#"
signal=$1 grace=$2 remove=$3
shift 3
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
(
  read -r _ <&3
  trap '' TERM
  kill -s "$signal" "$server" 2>/dev/null
  kill -s CONT "$server" 2>/dev/null
  while kill -0 "$server" 2>/dev/null && [ "$grace" -gt 0 ]; do
    grace=$((grace - 1))
    sleep 0.1
  done
  kill -s KILL "$server" 2>/dev/null
  [ -z "$remove" ] || rm -rf -- "$remove"
) &
watcher=$!
echo "$server"
exec >&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
exit "$status"
"#;

const POLL: Duration = Duration::from_millis(20);

/// A user of this machine that a server runs as, when we are root and the server refuses to be.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// For servers that refuse root: none when we are not root, else `postgres`, else `nobody`.
    pub fn for_server() -> anyhow::Result<Option<Account>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
                return Ok(Some(Account { name: name.to_owned(), uid, gid }));
            }
        }
        bail!(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to \
             run it as"
        )
    }

    /// Makes `command` run as this account.
    pub fn apply(account: Option<&Account>, command: &mut Command) {
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
    }
}

/// What to start, and how it is to be stopped.
pub struct Launch<'a> {
    pub name: &'static str,
    pub command: Vec<String>,
    pub directory: &'a Path,
    pub log: &'a Path,
    pub account: Option<&'a Account>,
    pub stop_signal: Signal,
    pub grace: Duration,
    /// Removed when the leash is pulled: a test's data must not outlive the test.
    pub remove: Option<&'a Path>,
}

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    leash: Option<ChildStdin>,
    shell: std::process::Child,
    pid: u32,
    log: PathBuf,
    stop_signal: Signal,
    grace: Duration,
}

impl Child {
    /// Starts the server; it is not ready yet. Its output goes to a fresh log file, the last one is
    /// kept as `*.1`.
    pub fn start(launch: &Launch<'_>) -> anyhow::Result<Child> {
        let name = launch.name;
        let log = open_log(launch.log)?;
        let mut command = Command::new("sh");
        let stop_signal = launch.stop_signal.as_str().trim_start_matches("SIG");
        let grace = (launch.grace.as_millis() / 100).to_string();
        command.args(["-c", LEASH, "leash", stop_signal, &grace]);
        command.arg(launch.remove.unwrap_or(Path::new(""))).args(&launch.command);
        command.current_dir(launch.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        // A process group of its own: Ctrl-C reaches everything in the terminal's group, and the
        // servers must outlive the service's shutdown.
        command.process_group(0);
        Account::apply(launch.account, &mut command);
        let mut shell =
            command.spawn().with_context(|| format!("cannot start {name} through sh"))?;
        let leash = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().with_context(|| format!("sh did not start {name}"))?;
        let (log, stop_signal, grace) = (launch.log.to_owned(), launch.stop_signal, launch.grace);
        Ok(Child { name, leash, shell, pid, log, stop_signal, grace })
    }

    /// The server's own pid, not the shell's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().ok().flatten()
    }

    /// Sends a signal to the server.
    pub fn kill(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        signal::kill(pid, signal).with_context(|| format!("{signal} to {} (pid {pid})", self.name))
    }

    /// Stops the server in order, after the grace by force; true when it ended in order.
    pub fn stop(&mut self) -> bool {
        if self.ended().is_some() {
            return true;
        }
        // Errors say that it just ended by itself; the wait sees that. SIGCONT: a frozen server
        // takes no other signal.
        let _ = self.kill(self.stop_signal);
        let _ = self.kill(Signal::SIGCONT);
        if self.wait(self.grace) {
            return true;
        }
        let _ = self.kill(Signal::SIGKILL);
        self.wait(self.grace);
        false
    }

    /// Waits until the server ended; false when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// Polls `ready` until it says yes; an error with the log's end when the server ended or
    /// `limit` passed.
    pub fn wait_ready(&mut self, limit: Duration, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let (name, log) = (self.name, self.log.clone());
        while !ready() {
            if let Some(status) = self.ended() {
                bail!("{name} ended while starting ({status}).\n{}", tail(&log));
            }
            if Instant::now() > deadline {
                bail!("{name} was not ready after {} s.\n{}", limit.as_secs(), tail(&log));
            }
            std::thread::sleep(POLL * 2);
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.leash.take());
        // Waited for, so that no zombie stays; the shell needs a little longer than the server.
        self.wait(self.grace + Duration::from_secs(2));
    }
}

/// True when a process with this pid exists.
pub fn alive(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| {
        pid > 0 && signal::kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
    })
}

/// Waits until a server that an earlier owner left to its leash is gone. A pid is given out again,
/// so only a process that was started over this data folder counts.
pub fn wait_gone(pid: Option<u32>, data: &Path, limit: Duration) {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let data = data.to_string_lossy();
    let over_data = |pid| match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => String::from_utf8_lossy(&line).contains(data.as_ref()),
        Err(_) => false,
    };
    let deadline = Instant::now() + limit;
    while pid.is_some_and(|pid| alive(pid) && over_data(pid)) && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
}

/// True when nothing listens on this port of the loopback.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Finds a port of the loopback that nothing listens on, from `first` upward.
pub fn free_port_from(first: u16) -> anyhow::Result<u16> {
    let port = (first..=u16::MAX).find(|port| is_free(*port));
    port.with_context(|| format!("no free port on 127.0.0.1 from {first} upward"))
}

/// A free port for a server that may be down for a while and must get it back. The system's own
/// choice would be one that outgoing connections use too: a client that retries against the stopped
/// server can even connect to itself there.
pub fn free_port() -> anyhow::Result<u16> {
    // A server that had a port here takes it again after a restart: no other gets it while it is down.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let [.., high, low] = uuid::Uuid::now_v7().into_bytes();
    let first = 20_000 + u16::from_be_bytes([high, low]) % 9_000;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = (first..=u16::MAX).find(|port| !given.contains(port) && is_free(*port));
    let port = port.with_context(|| format!("no free port on 127.0.0.1 from {first} upward"))?;
    given.insert(port);
    Ok(port)
}

/// Refuses a folder that another user made: the server would too, in worse words.
pub fn check_owner(folder: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let owner = folder.metadata().with_context(|| folder.display().to_string())?.uid();
    let wanted = account.map_or(geteuid().as_raw(), |account| account.uid);
    if owner != wanted {
        let folder = folder.display();
        bail!(
            "{folder} belongs to user id {owner}, not {wanted}: run this as the user that made \
             it, or use another --data"
        );
    }
    Ok(())
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    if path.exists() {
        std::fs::rename(path, path.with_added_extension("1"))?;
    }
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    format!("The end of {}:\n{end}", log.display())
}
