//! One partition of the publisher as a state machine. Decides nothing about others, waits for nothing.
//!
//! ```text
//!                 ┌──────── failed ────────┐
//!                 ▼                        │
//!  Unowned ──► InDoubt ──read-back──► Reading
//!   leased        ▲                        │ found, or nothing
//!                 │  outcome unknown,      ▼             claim                rows
//!                 ├──or more to read── Marking ──► Idle ──────► Claiming ──────────► Sending
//!                 │                        ▲        ▲               │ nothing, or they   │
//!                 │                        │        └───────────────┘ linger             │
//!                 │                        └───────── taken or refused ──────────────────┤
//!                 └─────────────────── outcome unknown, nothing to mark ─────────────────┘
//! ```
//!
//! A partition sends one request at a time, and claims again only after its marks: row k+1 is never sent
//! before row k is confirmed. A lease that is lost, or was another's meanwhile, takes effect at once where
//! no task has the partition (`Unowned`, `InDoubt`, `Idle`), else when that task is over; marks that the
//! lease's epoch refuses end it anywhere.

use std::time::Duration;

use tokio::time::Instant;

use super::pause::Pause;
use crate::store::leases::Lease;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Another instance's, or without an owner.
    #[default]
    Unowned,
    /// The topic may hold more than Postgres knows: it is read back before anything is sent.
    InDoubt,
    /// A read-back is under way.
    Reading,
    Idle,
    /// A claim is under way.
    Claiming,
    /// A request is under way.
    Sending,
    /// Marks are written, or wait for Postgres; in doubt: the topic is read back after them.
    Marking {
        in_doubt: bool,
    },
}

/// What happens to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its lease is new here.
    Leased,
    /// Its lease is lost, or released.
    Lost,
    ReadBegun,
    ClaimBegun,
    SendBegun,
    /// A task ended, and something is to be marked.
    ToMark {
        in_doubt: bool,
    },
    /// A task ended with nothing to be marked; in doubt: nor is it known what the topic holds.
    Nothing {
        in_doubt: bool,
    },
    Marked,
    /// Its marks were refused: another instance has it, or had it.
    Fenced,
}

impl State {
    /// The state after an event; none: it does not apply here.
    fn after(self, event: Event) -> Option<Self> {
        use State::{Claiming, Idle, InDoubt, Marking, Reading, Sending, Unowned};
        let quiet = |in_doubt: bool| if in_doubt { InDoubt } else { Idle };
        match (self, event) {
            (_, Event::Fenced) => Some(Unowned),
            (Unowned | InDoubt | Idle, Event::Leased) => Some(InDoubt),
            (Unowned | InDoubt | Idle, Event::Lost) => Some(Unowned),
            (InDoubt, Event::ReadBegun) => Some(Reading),
            (Idle, Event::ClaimBegun) => Some(Claiming),
            (Claiming, Event::SendBegun) => Some(Sending),
            (Reading | Claiming | Sending, Event::ToMark { in_doubt }) => {
                Some(Marking { in_doubt })
            }
            (Reading | Claiming | Sending, Event::Nothing { in_doubt }) => Some(quiet(in_doubt)),
            (Marking { in_doubt }, Event::Marked) => Some(quiet(in_doubt)),
            _ => None,
        }
    }

    fn is_quiet(self) -> bool {
        matches!(self, Self::Unowned | Self::InDoubt | Self::Idle)
    }
}

/// For how long rows wait for more, and how many bytes of them are enough.
#[derive(Debug, Clone, Copy)]
pub struct Linger {
    pub time: Duration,
    pub bytes: usize,
}

#[derive(Debug, Default)]
pub struct Partition {
    state: State,
    /// The lease changed while a task had the partition: what follows that task.
    lease_change: Option<Event>,
    pub epoch: i64,
    /// Of the last record known to be the service's; none: this topic was never published to.
    pub last_offset: Option<i64>,
    /// The epoch under which marks were refused.
    fenced: Option<i64>,
    /// There may be rows that no claim has seen.
    pub dirty: bool,
    /// Rows were seen, and wait for more until then.
    pub linger_until: Option<Instant>,
    pub pause: Pause,
}

impl Partition {
    pub fn state(&self) -> State {
        self.state
    }

    /// Moves to the state after `event`, and from there where the lease has changed meanwhile.
    pub fn on(&mut self, event: Event) {
        match self.state.after(event) {
            Some(next) => self.state = next,
            None if matches!(event, Event::Leased | Event::Lost) => self.lease_change = Some(event),
            None => return,
        }
        if event == Event::Fenced {
            self.lease_change = None;
        }
        if self.state.is_quiet()
            && let Some(next) = self.lease_change.take().and_then(|event| self.state.after(event))
        {
            self.state = next;
        }
    }

    /// Takes over its lease; none: it is not, or no longer, this instance's.
    pub fn lease(&mut self, lease: Option<Lease>) {
        let event = match lease.filter(|lease| Some(lease.epoch) != self.fenced) {
            Some(lease) if lease.epoch == self.epoch && self.state != State::Unowned => return,
            Some(lease) => {
                self.epoch = lease.epoch;
                self.last_offset = lease.last_offset;
                self.pause.reset();
                Event::Leased
            }
            None => Event::Lost,
        };
        self.on(event);
    }

    /// Its marks under `epoch` were refused: that lease will not stand again.
    pub fn fence(&mut self, epoch: i64) {
        self.fenced = Some(epoch);
        self.on(Event::Fenced);
    }

    /// Whether a task has it.
    pub fn is_busy(&self) -> bool {
        !self.state.is_quiet()
    }

    pub fn is_owned(&self) -> bool {
        match self.lease_change {
            Some(change) => change == Event::Leased,
            None => self.state != State::Unowned,
        }
    }

    /// Whether the lease that its task began under has been lost since.
    pub fn is_superseded(&self) -> bool {
        self.lease_change.is_some()
    }

    /// Whether its last attempt failed, and another one is under way or to come.
    pub fn is_struggling(&self) -> bool {
        self.pause.has_failed() && (self.wants_work() || !self.state.is_quiet())
    }

    /// Whether only its pause, its linger or another task's end keeps it from a task of its own.
    pub fn wants_work(&self) -> bool {
        match self.state {
            State::InDoubt => true,
            State::Idle => self.dirty || self.linger_until.is_some(),
            _ => false,
        }
    }

    /// Whether it may have a task of its own now.
    pub fn is_ready(&self, now: Instant) -> bool {
        let lingers = self.state == State::Idle
            && !self.dirty
            && self.linger_until.is_some_and(|until| now < until);
        self.wants_work() && !lingers && self.pause.is_over(now)
    }

    /// Whether rows of `bytes` wait for more; the wait begins with the first of them.
    pub fn lingers(&mut self, linger: &Linger, bytes: usize, now: Instant) -> bool {
        let until = *self.linger_until.get_or_insert(now + linger.time);
        let lingers = bytes < linger.bytes && now < until;
        if !lingers {
            self.linger_until = None;
        }
        lingers
    }
}

#[cfg(test)]
mod tests;
