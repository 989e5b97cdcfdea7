//! File descriptors: as many as the system grants, and so shared out that clients cannot take those
//! that Postgres, Kafka and files need.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Settings;
use crate::store::Pools;

/// Runtimes, standard streams, the listener, the session that listens, files that are read now and
/// then.
const OWN: usize = 64;
/// A lane's runtime and session, and the sessions that wait for wallets or settle COMMITs beside it.
const OF_A_LANE: usize = 16;
/// Clients of one cluster: several, each with a connection to each broker.
const OF_A_CLUSTER: usize = 64;
/// However few descriptors there are, so many clients must get in: an operator among them.
const CLIENTS_LEAST: usize = 16;

/// Raises the limit of descriptors as far as it goes. How many connections clients may have then.
pub(super) fn connections(settings: &Settings) -> usize {
    let granted = raised();
    let clusters = usize::from(settings.kafka.enabled) + usize::from(settings.second.is_some());
    let sessions = usize::try_from(Pools::sessions(&settings.database)).unwrap_or(0);
    let kept = OWN + OF_A_LANE * settings.commands.lanes + sessions + OF_A_CLUSTER * clusters;
    let room = granted.saturating_sub(kept);
    let wanted = settings.http.max_connections;
    if room < CLIENTS_LEAST {
        tracing::warn!(granted, kept, "too few file descriptors: raise the limit (ulimit -Hn)");
    } else if room < wanted {
        tracing::info!(granted, kept, wanted, connections = room, "descriptors bound connections");
    }
    wanted.min(room.max(CLIENTS_LEAST))
}

/// The limit in force, once it is as high as this process may set it.
fn raised() -> usize {
    let number = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    if soft >= hard {
        return number(soft);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => number(hard),
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of file descriptors cannot be raised");
            number(soft)
        }
    }
}
