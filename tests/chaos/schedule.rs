//! The faults of a run, drawn from its seed before it begins: the same seed, the same faults.

use std::fmt;
use std::time::Duration;

use crate::support::load::Draw;

/// What can be done to the service, its servers and the network between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL of an instance, every second time between a COMMIT and its answer; then a start.
    Kill,
    /// SIGSTOP of an instance for less than a lease.
    Freeze,
    /// SIGSTOP for longer than a lease: it wakes as a zombie.
    Zombie,
    /// SIGQUIT of the postmaster, then a start.
    PostgresCrash,
    /// SIGKILL of the broker, then a start.
    KafkaKill,
    /// SIGSTOP of the broker.
    KafkaFreeze,
    PostgresDelay,
    PostgresReset,
    /// One direction falls silent, or both.
    PostgresDrop,
    KafkaDelay,
    KafkaReset,
    KafkaDrop,
    /// COMMITs whose answer is lost: some done, some not, some later.
    LostCommit,
    /// A stranger's transaction takes its outbox row early and commits late.
    LateCommit,
    /// The leases of all partitions are taken by somebody who then does nothing.
    Usurper,
    /// Six kinds of records that no service wrote.
    Poison,
    /// Records of the topic, appended to it once more.
    Duplicates,
    /// The topic is deleted and made anew, empty.
    RecreatedTopic,
}

impl Kind {
    pub const ALL: [Self; 18] = [
        Self::Kill,
        Self::Freeze,
        Self::Zombie,
        Self::PostgresCrash,
        Self::KafkaKill,
        Self::KafkaFreeze,
        Self::PostgresDelay,
        Self::PostgresReset,
        Self::PostgresDrop,
        Self::KafkaDelay,
        Self::KafkaReset,
        Self::KafkaDrop,
        Self::LostCommit,
        Self::LateCommit,
        Self::Usurper,
        Self::Poison,
        Self::Duplicates,
        Self::RecreatedTopic,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Zombie => "zombie",
            Self::PostgresCrash => "postgres-crash",
            Self::KafkaKill => "kafka-kill",
            Self::KafkaFreeze => "kafka-freeze",
            Self::PostgresDelay => "postgres-delay",
            Self::PostgresReset => "postgres-reset",
            Self::PostgresDrop => "postgres-drop",
            Self::KafkaDelay => "kafka-delay",
            Self::KafkaReset => "kafka-reset",
            Self::KafkaDrop => "kafka-drop",
            Self::LostCommit => "lost-commit",
            Self::LateCommit => "late-commit",
            Self::Usurper => "usurper",
            Self::Poison => "poison",
            Self::Duplicates => "duplicates",
            Self::RecreatedTopic => "recreated-topic",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// It happens to Kafka alone, where no command goes.
    pub fn is_of_kafka(self) -> bool {
        matches!(
            self,
            Self::KafkaKill
                | Self::KafkaFreeze
                | Self::KafkaDelay
                | Self::KafkaReset
                | Self::KafkaDrop
                | Self::Poison
                | Self::Duplicates
                | Self::RecreatedTopic
        )
    }

    /// How long it lasts, from and to, in milliseconds.
    fn span(self) -> (u64, u64) {
        match self {
            Self::Freeze => (1_000, 4_000),
            Self::Zombie => (12_000, 14_000),
            Self::PostgresCrash => (300, 2_000),
            Self::KafkaKill => (200, 2_000),
            Self::KafkaFreeze => (3_000, 8_000),
            Self::PostgresDelay | Self::KafkaDelay => (1_500, 4_000),
            Self::PostgresDrop | Self::KafkaDrop => (2_000, 6_000),
            Self::LostCommit => (1_000, 3_000),
            Self::LateCommit => (2_000, 5_000),
            Self::Usurper => (2_000, 4_000),
            _ => (1, 2),
        }
    }

    /// About what injecting and healing cost on top of it, in milliseconds.
    fn overhead(self) -> u64 {
        match self {
            Self::KafkaKill => 7_000,
            Self::RecreatedTopic => 9_000,
            Self::PostgresCrash => 2_000,
            Self::Kill => 1_500,
            _ => 700,
        }
    }

    /// How often it is drawn beyond the first of each kind.
    fn weight(self) -> u64 {
        match self {
            Self::Kill => 8,
            Self::LostCommit | Self::PostgresReset | Self::KafkaReset => 4,
            Self::Zombie | Self::RecreatedTopic | Self::KafkaKill => 1,
            _ => 2,
        }
    }
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// Pause after the fault before it has healed.
    pub after: Duration,
    pub lasts: Duration,
    /// Which of the instances it hits.
    pub instance: usize,
    /// Chooses among its variants.
    pub variant: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, after, lasts) = (self.kind.name(), self.after, self.lasts);
        write!(f, "+{after:?} {name} of {} for {lasts:?} ({})", self.instance, self.variant)
    }
}

impl Fault {
    /// The same for another time.
    pub fn lasting(self, lasts: Option<Duration>) -> Self {
        Self { lasts: lasts.unwrap_or(self.lasts), ..self }
    }
}

/// Every kind `each` times in an order of the seed, then more of them until `budget` is used up.
pub fn draw(
    seed: u64,
    kinds: &[Kind],
    each: usize,
    budget: Duration,
    instances: usize,
) -> Vec<Fault> {
    let mut draw = Draw(seed);
    let mut deck: Vec<Kind> = kinds.iter().flat_map(|kind| vec![*kind; each]).collect();
    // One kill leaves few outcomes unknown.
    if kinds.contains(&Kind::Kill) && !budget.is_zero() {
        deck.extend([Kind::Kill; 2]);
    }
    for at in (1..deck.len()).rev() {
        let other = usize::try_from(draw.below(at as u64 + 1)).unwrap_or(0);
        deck.swap(at, other);
    }
    let mut faults = Vec::new();
    let mut used = Duration::ZERO;
    let weights: u64 = kinds.iter().map(|kind| kind.weight()).sum();
    loop {
        let kind = match deck.pop() {
            Some(kind) => kind,
            None if used >= budget || kinds.is_empty() => return faults,
            None => {
                let mut ticket = draw.below(weights);
                let chosen = kinds.iter().find(|kind| {
                    let hit = ticket < kind.weight();
                    ticket = ticket.saturating_sub(kind.weight());
                    hit
                });
                chosen.copied().unwrap_or(Kind::Kill)
            }
        };
        let (from, to) = kind.span();
        let fault = Fault {
            kind,
            after: draw.millis(50, 800),
            lasts: draw.millis(from, to),
            instance: usize::try_from(draw.below(instances as u64)).unwrap_or(0),
            variant: draw.below(1 << 16),
        };
        used += fault.after + fault.lasts + Duration::from_millis(kind.overhead());
        faults.push(fault);
    }
}

#[test]
fn the_same_seed_draws_the_same_faults_and_each_kind_at_least_once() {
    let budget = Duration::from_secs(90);
    let faults = draw(7, &Kind::ALL, 1, budget, 2);
    assert_eq!(faults, draw(7, &Kind::ALL, 1, budget, 2));
    assert_ne!(faults, draw(8, &Kind::ALL, 1, budget, 2));
    for kind in Kind::ALL {
        assert!(faults.iter().any(|fault| fault.kind == kind), "{kind:?}");
        assert_eq!(Kind::parse(kind.name()), Some(kind));
    }
    assert_eq!(draw(7, &[Kind::Kill], 50, Duration::ZERO, 2).len(), 50);
}
