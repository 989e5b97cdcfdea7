//! What a run came to: passed, failed with the names of the checks, or invalid because it showed
//! too little.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::{Injected, LOST_AT_LEAST};
use crate::run::Plan;
use crate::schedule::Kind;
use crate::support::checker::{CHECKS, Figures, Findings};

const SHOWN: usize = 5;

#[derive(Debug)]
pub struct Report {
    plan: Plan,
    injected: Injected,
    pub figures: Figures,
    findings: Findings,
    rest: Duration,
    took: Duration,
}

impl Report {
    pub fn new(
        plan: Plan,
        injected: Injected,
        figures: Figures,
        findings: Findings,
        rest: Duration,
        took: Duration,
    ) -> Self {
        Self { plan, injected, figures, findings, rest, took }
    }

    pub fn keeps(&self) -> bool {
        self.plan.keep
    }

    pub fn passed(&self) -> bool {
        self.findings.red.is_empty() && self.missing().is_empty()
    }

    /// The names of the checks that do not hold.
    pub fn red(&self) -> Vec<&'static str> {
        self.findings.red.keys().copied().collect()
    }

    pub fn verdict(&self) -> String {
        match (self.red().as_slice(), self.missing().as_slice()) {
            ([], []) => "passed".to_owned(),
            ([], missing) => format!("INVALID: {}", missing.join("; ")),
            (red, _) => format!("FAILED: {}", red.join(", ")),
        }
    }

    /// Why the run shows too little, whatever its checks say.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for kind in &self.plan.kinds {
            let count = self.injected.counts.get(kind.name()).copied().unwrap_or(0);
            if count < self.plan.each {
                missing.push(format!("{} was injected {count} times", kind.name()));
            }
        }
        let any = |kinds: &[Kind]| kinds.iter().any(|kind| self.plan.kinds.contains(kind));
        let lost = self.injected.lost_commits;
        if any(&[Kind::LostCommit]) && lost < LOST_AT_LEAST * self.plan.each {
            missing.push(format!("{lost} answers of COMMITs were lost"));
        }
        if any(&[Kind::Poison, Kind::Duplicates]) && self.injected.injected_records == 0 {
            missing.push("no record was injected".to_owned());
        }
        let Figures { unknown, acknowledged, .. } = self.figures;
        if unknown < self.plan.least_unknown {
            missing.push(format!("{unknown} unknown outcomes"));
        }
        if acknowledged < self.plan.operations.max(200) {
            missing.push(format!("{acknowledged} operations acknowledged"));
        }
        let always = ["one-effect-per-key", "acknowledged-is-there", "topic-is-events"];
        for check in always {
            if self.findings.examined.get(check).copied().unwrap_or(0) == 0 {
                missing.push(format!("{check} looked at nothing"));
            }
        }
        let of_money = ["holds-close-once", "captures-within-holds"];
        for check in of_money.into_iter().filter(|_| self.plan.money > 0) {
            if self.findings.examined.get(check).copied().unwrap_or(0) == 0 {
                missing.push(format!("{check} looked at nothing"));
            }
        }
        missing
    }

    fn duplicate_rate(&self) -> f64 {
        let Figures { duplicates, records, .. } = self.figures;
        100.0 * duplicates as f64 / (records.max(1) as f64)
    }

    pub fn json(&self) -> Value {
        let Figures { unknown, unknown_settled, .. } = self.figures;
        let millis = |times: &Vec<Duration>| {
            times.iter().map(|time| time.as_millis().to_string()).collect::<Vec<_>>().join(",")
        };
        let recoveries: serde_json::Map<String, Value> = self
            .injected
            .recoveries
            .iter()
            .map(|(kind, times)| ((*kind).to_owned(), Value::from(millis(times))))
            .collect();
        json!({
            "verdict": self.verdict(), "seed": self.plan.seed, "red": self.findings.red,
            "faults": self.injected.counts, "lostCommits": self.injected.lost_commits,
            "operations": self.figures.operations, "acknowledged": self.figures.acknowledged,
            "refused": self.figures.refused, "lost": self.figures.lost,
            "doubled": self.figures.doubled, "unknown": unknown,
            "unknownSettled": unknown_settled, "unknownDone": self.figures.unknown_done,
            "events": self.figures.events, "records": self.figures.records,
            "duplicates": self.figures.duplicates, "recoveryMs": recoveries,
            "restartMs": millis(&self.injected.restarts), "restMs": self.rest.as_millis() as u64,
            "examined": self.findings.examined,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            operations,
            acknowledged,
            refused,
            unknown,
            unknown_settled,
            unknown_done,
            unknown_keyless,
            not_done_answers,
            lost,
            doubled,
            events,
            reads,
            records,
            duplicates,
            slowest_ms,
        } = &self.figures;
        writeln!(f)?;
        for (name, meaning) in CHECKS {
            let examined = self.findings.examined.get(name).copied().unwrap_or(0);
            match self.findings.red.get(name) {
                None if examined == 0 => writeln!(f, "  - {name}: nothing to look at")?,
                None => writeln!(f, "  ✓ {name} ({examined}): {meaning}")?,
                Some(found) => {
                    writeln!(f, "  ✗ {name}: {} contradictions", found.len())?;
                    for what in found.iter().take(SHOWN) {
                        writeln!(f, "      {}", what.chars().take(400).collect::<String>())?;
                    }
                }
            }
        }
        let faults: Vec<String> =
            self.injected.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        for (kind, times) in &self.injected.recoveries {
            let (median, worst) = spread(times);
            writeln!(f, "  served after {kind}: {median:.1?} median, {worst:.1?} worst")?;
        }
        let (median, worst) = spread(&self.injected.restarts);
        writeln!(f, "ready after a start: {median:.1?} median, {worst:.1?} worst")?;
        if !self.injected.passed.is_empty() {
            let (median, worst) = spread(&self.injected.passed);
            writeln!(f, "past poison in its partition: {median:.1?} median, {worst:.1?} worst")?;
        }
        writeln!(
            f,
            "operations {operations}: acknowledged {acknowledged}, refused {refused}, \
             \"not done\" {not_done_answers} times; lost {lost}, doubled {doubled}, \
             unknown settled {unknown_settled} of {unknown} ({unknown_done} had been done; \
             {unknown_keyless} more without a key); COMMIT answers lost {}; {reads} reads; \
             slowest answer {slowest_ms} ms",
            self.injected.lost_commits,
        )?;
        writeln!(
            f,
            "events {events}, records {records}, duplicates {duplicates} ({:.3} %), at rest after \
             {:.1?}, all of it took {:.0?}",
            self.duplicate_rate(),
            self.rest,
            self.took,
        )?;
        write!(f, "seed {}: {}", self.plan.seed, self.verdict())
    }
}

fn spread(times: &[Duration]) -> (Duration, Duration) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    (median, times.last().copied().unwrap_or_default())
}
