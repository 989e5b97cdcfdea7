//! From which ids on each partition's batches are claimed. While a snapshot is held for minutes, a look at all that
//! waits reads an index entry of every batch that was processed since; a look from the floor does not.
//!
//! | step, at each measure | what | so that |
//! |---|---|---|
//! | candidate | the lowest batch that waits, or behind the last that was marked | all that is visible below it is processed |
//! | its writers | transactions that have the outbox locked by then | what is not visible below it is theirs |
//! | settled | none of them is left, and the lowest batch that waits is looked for once more | the lower of both is the floor |
//!
//! Now and then all that waits is looked for all the same: whatever brought a batch below the floor (an operator's
//! UPDATE), it is found.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::store::outbox::floors::{Floor, Lowest};

/// Between two looks at all that waits; longer where such a look is long.
const WHOLE_EVERY: Duration = Duration::from_secs(30);
const WHOLE_RATIO: u32 = 100;
/// A floor is noted for those who count once it has come so far since, or for so long.
const NOTE_IDS: i64 = 2000;
const NOTE_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Floors(BTreeMap<i32, Known>);

#[derive(Debug)]
struct Known {
    floor: Floor,
    candidate: Option<Candidate>,
    /// The last batches that were marked: that send again, and of commands.
    marked: (Option<i64>, Option<i64>),
    /// When all that waits is looked for.
    whole_due: Instant,
    noted: (Floor, Option<Instant>),
}

#[derive(Debug)]
struct Candidate {
    floor: Floor,
    /// Transactions that may yet commit something below it; none: they are not known yet.
    writers: Option<Vec<String>>,
}

/// What a claim asks for, and which of it is a look at all that waits.
#[derive(Debug)]
pub(super) struct Asked {
    pub floors: Vec<Floor>,
    whole: Vec<i32>,
    at: Instant,
}

impl Floors {
    /// Where claims of these partitions begin.
    pub fn ask(&mut self, partitions: &[i32]) -> Asked {
        let at = Instant::now();
        let mut asked = Asked { floors: Vec::new(), whole: Vec::new(), at };
        for partition in partitions {
            let known = self.known(*partition);
            if known.whole_due <= Instant::now() {
                asked.whole.push(*partition);
                asked.floors.push(Floor::none(*partition));
            } else {
                asked.floors.push(known.floor);
            }
        }
        asked
    }

    /// A claim was answered.
    pub fn claimed(&mut self, asked: &Asked) {
        let now = Instant::now();
        let next = now + WHOLE_EVERY.max((now - asked.at) * WHOLE_RATIO);
        for partition in &asked.whole {
            self.known(*partition).whole_due = next;
        }
    }

    /// A batch is known to be marked.
    pub fn marked(&mut self, partition: i32, id: i64) {
        let (again, commands) = &mut self.known(partition).marked;
        let last = if id < 0 { again } else { commands };
        *last = Some(last.map_or(id, |last| last.max(id)));
    }

    pub fn of(&mut self, partition: i32) -> Floor {
        self.known(partition).floor
    }

    /// The floors of all partitions that were claimed, as they are now, and what was marked by now: for [`Self::seen`].
    pub fn all(&self) -> (Vec<Floor>, BTreeMap<i32, Floor>) {
        let floors = self.0.values().map(|known| known.floor).collect();
        let behind = self.0.iter().map(|(partition, known)| {
            let Floor { again, commands, .. } = known.floor;
            let (last_again, last_commands) = known.marked;
            let behind = |last: Option<i64>, floor: i64| last.map_or(floor, |id| floor.max(id + 1));
            let (again, commands) =
                (behind(last_again, again).min(0), behind(last_commands, commands));
            (*partition, Floor { partition: *partition, again, commands })
        });
        (floors, behind.collect())
    }

    /// Goes on with what was seen: first `writers`, then the `lowest` that wait. `behind`: what was marked before
    /// either.
    pub fn seen(&mut self, writers: &[String], lowest: &[Lowest], behind: &BTreeMap<i32, Floor>) {
        for found in lowest {
            let Some(known) = self.0.get_mut(&found.partition) else { continue };
            let Some(behind) = behind.get(&found.partition) else { continue };
            let seen = Floor {
                partition: found.partition,
                again: found.again.unwrap_or(behind.again),
                commands: found.commands.unwrap_or(behind.commands),
            };
            let Some(candidate) = &mut known.candidate else {
                known.candidate = Some(Candidate { floor: seen, writers: None });
                continue;
            };
            match &mut candidate.writers {
                Some(left) => left.retain(|writer| writers.contains(writer)),
                none => *none = Some(writers.to_vec()),
            }
            if candidate.writers.as_ref().is_some_and(Vec::is_empty) {
                let least =
                    |settled: i64, lowest: Option<i64>| lowest.unwrap_or(settled).min(settled);
                let settled = candidate.floor;
                let Floor { partition, again, commands } = known.floor;
                known.floor = Floor {
                    partition,
                    again: again.max(least(settled.again, found.again)),
                    commands: commands.max(least(settled.commands, found.commands)),
                };
                known.candidate = Some(Candidate { floor: seen, writers: None });
            }
        }
    }

    /// The floors that are to be noted.
    pub fn unnoted(&mut self) -> Vec<Floor> {
        let now = Instant::now();
        let is_due = |known: &Known| {
            let (noted, at) = &known.noted;
            let moved = (known.floor.commands - noted.commands).max(0)
                + known.floor.again.saturating_sub(noted.again).clamp(0, NOTE_IDS);
            let long_ago = at.is_none_or(|at| now.duration_since(at) >= NOTE_EVERY);
            known.floor != *noted && (moved >= NOTE_IDS || long_ago)
        };
        self.0.values().filter(|known| is_due(known)).map(|known| known.floor).collect()
    }

    pub fn noted(&mut self, floors: &[Floor]) {
        for floor in floors {
            self.known(floor.partition).noted = (*floor, Some(Instant::now()));
        }
    }

    fn known(&mut self, partition: i32) -> &mut Known {
        self.0.entry(partition).or_insert_with(|| Known {
            floor: Floor::none(partition),
            candidate: None,
            marked: (None, None),
            whole_due: Instant::now(),
            noted: (Floor::none(partition), None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: i32 = 3;

    fn look(
        floors: &mut Floors,
        writers: &[&str],
        again: Option<i64>,
        commands: Option<i64>,
    ) -> Floor {
        let writers: Vec<String> = writers.iter().map(|&name| name.to_owned()).collect();
        let (_, behind) = floors.all();
        floors.seen(&writers, &[Lowest { partition: OF, again, commands }], &behind);
        floors.of(OF)
    }

    #[test]
    fn a_floor_rises_once_all_who_could_write_below_it_have_ended() {
        let mut floors = Floors::default();
        let none = Floor::none(OF);
        assert_eq!(floors.ask(&[OF]).floors, [none]);
        assert_eq!(look(&mut floors, &[], None, Some(50)), none, "a candidate");
        assert_eq!(look(&mut floors, &["3/7", "4/1"], None, Some(60)), none, "who writes");
        assert_eq!(look(&mut floors, &["3/7", "5/2"], None, Some(70)), none, "one is left");
        // Below the candidate one of them committed a batch.
        let found = look(&mut floors, &["5/2"], None, Some(45));
        assert_eq!(found.commands, 45);
        assert_eq!(look(&mut floors, &["5/2"], None, Some(90)).commands, 45);
        assert_eq!(look(&mut floors, &[], None, Some(95)).commands, 45);
    }

    #[test]
    fn where_nothing_waits_the_floor_is_behind_what_was_marked() {
        let mut floors = Floors::default();
        floors.marked(OF, 80);
        floors.marked(OF, 70);
        floors.marked(OF, -900);
        let seen: Vec<Floor> = (0..3).map(|_| look(&mut floors, &[], None, None)).collect();
        assert_eq!((seen[1].commands, seen[1].again), (81, -899));
        assert_eq!(seen[2], seen[1]);
        // What waits again, by hand or by a cutover, moves no floor down.
        for _ in 0..3 {
            look(&mut floors, &[], Some(-950), Some(10));
        }
        assert_eq!(floors.of(OF), seen[2]);
    }

    #[test]
    fn all_that_waits_is_looked_for_at_first_and_now_and_then() {
        let mut floors = Floors::default();
        let asked = floors.ask(&[OF]);
        assert_eq!(asked.whole, [OF]);
        floors.claimed(&asked);
        let next = floors.ask(&[OF, 4]);
        assert_eq!(next.whole, [4]);
        let due = floors.known(OF).whole_due - Instant::now();
        assert!(due > WHOLE_EVERY - Duration::from_secs(1), "{due:?}");
    }

    #[test]
    fn floors_are_noted_seldom() {
        let mut floors = Floors::default();
        assert!(floors.unnoted().is_empty());
        floors.known(OF).floor.commands = 10;
        let due = floors.unnoted();
        assert_eq!(due.len(), 1, "the first at once");
        floors.noted(&due);
        floors.known(OF).floor.commands = 1000;
        assert!(floors.unnoted().is_empty());
        floors.known(OF).floor.commands = 2010;
        assert_eq!(floors.unnoted().len(), 1);
    }
}
