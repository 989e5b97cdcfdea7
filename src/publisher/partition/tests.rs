//! The publisher's partitions: what follows what, what may not, and what a lease does in between.

use super::*;

const TASKS: [State; 5] = [
    State::Reading,
    State::Claiming,
    State::Sending,
    State::Marking { in_doubt: false },
    State::Marking { in_doubt: true },
];

fn lease(epoch: i64) -> Option<Lease> {
    Some(Lease { partition: 3, epoch, last_offset: Some(7) })
}

fn at(state: State) -> Partition {
    Partition { state, epoch: 4, ..Partition::default() }
}

/// The states that a partition goes through.
fn path(from: State, events: &[Event]) -> Vec<State> {
    let mut partition = at(from);
    let step = |event: &Event| {
        partition.on(*event);
        partition.state
    };
    events.iter().map(step).collect()
}

#[test]
fn a_partition_is_read_back_then_claims_sends_and_marks_in_turn() {
    use Event::{ClaimBegun, Leased, Marked, ReadBegun, SendBegun, ToMark};
    let (sure, in_doubt) = (ToMark { in_doubt: false }, ToMark { in_doubt: true });
    let events = [Leased, ReadBegun, sure, Marked, ClaimBegun, SendBegun, in_doubt, Marked];
    let states = [
        State::InDoubt,
        State::Reading,
        State::Marking { in_doubt: false },
        State::Idle,
        State::Claiming,
        State::Sending,
        State::Marking { in_doubt: true },
        State::InDoubt,
    ];
    assert_eq!(path(State::Unowned, &events), states);
}

#[test]
fn a_task_without_marks_ends_where_the_topic_is_known_or_in_doubt() {
    for task in [State::Reading, State::Claiming, State::Sending] {
        assert_eq!(path(task, &[Event::Nothing { in_doubt: false }]), [State::Idle]);
        assert_eq!(path(task, &[Event::Nothing { in_doubt: true }]), [State::InDoubt]);
    }
}

#[test]
fn nothing_is_begun_beside_a_task_or_before_a_read_back() {
    let begins = [Event::ReadBegun, Event::ClaimBegun];
    for state in TASKS {
        for event in begins {
            assert_eq!(state.after(event), None, "{state:?} {event:?}");
        }
    }
    assert_eq!(State::InDoubt.after(Event::ClaimBegun), None);
    for event in [begins[0], begins[1], Event::SendBegun] {
        assert_eq!(State::Unowned.after(event), None);
    }
    // Only what was claimed is sent, and only after its marks is claimed again.
    let sends = |state: &State| state.after(Event::SendBegun).is_some();
    assert_eq!(TASKS.into_iter().filter(sends).collect::<Vec<_>>(), [State::Claiming]);
    let claims = |event: Event| State::Sending.after(event) == Some(State::Idle);
    assert!(!claims(Event::Marked) && !claims(Event::ToMark { in_doubt: false }));
}

#[test]
fn a_partition_new_here_is_read_back_first_and_a_renewed_one_goes_on() {
    let mut partition = Partition::default();
    partition.lease(None);
    assert_eq!(partition.state, State::Unowned);
    partition.lease(lease(4));
    assert_eq!((partition.state, partition.last_offset), (State::InDoubt, Some(7)));
    partition.state = State::Idle;
    partition.lease(lease(4));
    assert_eq!(partition.state, State::Idle, "the same lease, renewed");
    partition.lease(lease(6));
    assert_eq!((partition.state, partition.epoch), (State::InDoubt, 6), "another's meanwhile");
}

#[test]
fn a_lease_lost_while_a_task_runs_takes_effect_when_the_task_is_over() {
    for (lease, end) in [(None, State::Unowned), (lease(6), State::InDoubt)] {
        let mut partition = at(State::Sending);
        partition.lease(lease);
        assert_eq!((partition.state, partition.is_superseded()), (State::Sending, true));
        assert_eq!(partition.is_owned(), lease.is_some());
        partition.on(Event::ToMark { in_doubt: false });
        assert_eq!(partition.state, State::Marking { in_doubt: false });
        partition.on(Event::Marked);
        assert_eq!((partition.state, partition.is_superseded()), (end, false));
    }
}

#[test]
fn marks_that_are_refused_end_it_and_only_another_lease_begins_it_again() {
    for state in TASKS {
        let mut partition = at(state);
        partition.fence(4);
        partition.lease(lease(4));
        assert_eq!((partition.state, partition.is_owned()), (State::Unowned, false));
        partition.lease(lease(6));
        assert_eq!(partition.state, State::InDoubt);
    }
    let mut partition = at(State::Sending);
    partition.lease(lease(6));
    partition.fence(4);
    assert_eq!((partition.state, partition.is_owned()), (State::Unowned, false));
    partition.lease(lease(6));
    assert_eq!(partition.state, State::InDoubt);
}

#[test]
fn rows_wait_for_more_until_there_are_enough_or_the_time_is_over() {
    let linger = Linger { time: Duration::from_millis(5), bytes: 1000 };
    let begun = Instant::now();
    let mut partition = at(State::Idle);
    assert!(partition.lingers(&linger, 400, begun));
    assert!(partition.wants_work() && !partition.is_ready(begun));
    assert!(partition.is_ready(begun + linger.time));
    partition.dirty = true;
    assert!(partition.is_ready(begun), "there may be more");
    let later = begun + Duration::from_millis(4);
    assert!(partition.lingers(&linger, 999, later), "counted from the first");
    assert!(!partition.lingers(&linger, 1000, later), "enough");
    assert!(partition.lingers(&linger, 400, later), "a new wait");
    assert!(!partition.lingers(&linger, 400, later + linger.time), "its time is over");
    let none = Linger { time: Duration::ZERO, bytes: 1000 };
    assert!(!partition.lingers(&none, 1, begun));
}
