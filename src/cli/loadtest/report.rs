//! The result as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Value, json};

use super::check::Checked;
use super::drive::Ran;
use super::tally::{Counts, Latencies};

/// Findings that the text lists; the JSON has all.
const FINDINGS_SHOWN: usize = 20;
const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// All that a run gave.
pub struct Report {
    pub run: String,
    /// None: only checked.
    pub seed: Option<u64>,
    /// How it was asked for, in words.
    pub load: String,
    pub ran: Option<Ran>,
    /// Opened, credited, debited by this tool; none where it does not know.
    pub totals: Option<[rust_decimal::Decimal; 3]>,
    /// Wallets with an operation of unknown outcome.
    pub uncertain: usize,
    pub checked: Checked,
}

impl Report {
    pub fn passed(&self) -> bool {
        let failed = self.ran.as_ref().map_or(0, |ran| ran.tally.failures.values().sum());
        failed == 0 && self.checked.findings.is_empty() && self.checked.wallets > 0
    }

    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(ran) = &self.ran {
            ran_text(ran, &mut lines);
        }
        let checked = &self.checked;
        if !checked.waited.is_zero() {
            lines.push(format!("projections in step after {} s", seconds(checked.waited)));
        }
        if let Some([opened, credited, debited]) = self.totals {
            let balances = checked.balances;
            lines.push(format!(
                "money {opened} before + {credited} credited - {debited} debited, {balances} in \
                 the wallets"
            ));
        }
        if self.uncertain > 0 {
            let count = self.uncertain;
            lines.push(format!("{count} wallets have operations whose outcome is not known"));
        }
        let (wallets, entries) = (checked.wallets, checked.entries);
        lines.push(format!("checked {wallets} wallets with {entries} ledger entries"));
        for finding in checked.findings.iter().take(FINDINGS_SHOWN) {
            lines.push(format!("  wallet {}: {}", finding.wallet, finding.what));
        }
        if checked.findings.len() > FINDINGS_SHOWN {
            lines.push(format!("  … and {} more", checked.findings.len() - FINDINGS_SHOWN));
        }
        if wallets == 0 {
            lines.push(format!("there are no wallets of run {}", self.run));
        }
        let verdict = if self.passed() { "PASSED" } else { "FAILED" };
        let seed = self.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
        lines.push(format!("{verdict} (run {}{seed})", self.run));
        lines.join("\n")
    }

    pub fn json(&self) -> Value {
        let checked = &self.checked;
        json!({
            "passed": self.passed(),
            "run": self.run,
            "seed": self.seed,
            "load": self.load,
            "result": self.ran.as_ref().map(ran_json),
            "check": {
                "wallets": checked.wallets,
                "entries": checked.entries,
                "waitedMs": millis(checked.waited),
                "balances": checked.balances.to_string(),
                "money": self.totals.map(|[opened, credited, debited]| json!({
                    "before": opened.to_string(),
                    "credited": credited.to_string(),
                    "debited": debited.to_string(),
                })),
                "uncertainWallets": self.uncertain,
                "findings": checked.findings,
            },
        })
    }
}

fn ran_text(ran: &Ran, lines: &mut Vec<String>) {
    let heads = ["", "count", "applied", "declined", "failed"];
    let latencies = PERCENTILES.map(|(name, _)| name).into_iter().chain(["max  (ms)"]);
    let [name, numbers @ ..] = heads;
    lines.push(row(name, numbers.into_iter().chain(latencies)));
    let total = ran.tally.total();
    let kinds = ran.tally.kinds.iter().map(|(kind, counts)| (kind.as_str(), counts));
    for (name, counts) in kinds.chain([("total", &total)]) {
        let Counts { applied, declined, failed, latencies } = counts;
        let numbers = [counts.operations(), *applied, *declined, *failed].map(|n| n.to_string());
        let times = PERCENTILES.map(|(_, percentile)| latencies.value_at_percentile(percentile));
        let times = times.into_iter().chain([latencies.max()]).map(milliseconds);
        lines.push(row(name, numbers.into_iter().chain(times)));
    }
    let (rate, elapsed) = (per_second(total.operations(), ran.elapsed), seconds(ran.elapsed));
    lines.push(format!("throughput {rate} operations/s over {elapsed} s"));
    lines.push(format!("statuses {}", counted(&ran.tally.statuses)));
    if !ran.tally.retries.is_empty() {
        let replayed = ran.tally.replayed;
        lines.push(format!(
            "repeated {}; answered as replays {replayed}",
            counted(&ran.tally.retries)
        ));
    }
    if !ran.tally.failures.is_empty() {
        lines.push(format!("FAILED {}", counted(&ran.tally.failures)));
    }
    if ran.unsent > 0 {
        let unsent = ran.unsent;
        lines.push(format!("{unsent} operations were never begun: the rate is more than it takes"));
    }
}

fn row<T: Display>(name: &str, cells: impl Iterator<Item = T>) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>10}")).collect();
    format!("{name:<9}{cells}")
}

fn counted<K: Display>(counts: &BTreeMap<K, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(key, count)| format!("{key}: {count}")).collect();
    each.join(", ")
}

fn ran_json(ran: &Ran) -> Value {
    let total = ran.tally.total();
    let mut kinds = serde_json::Map::new();
    for (kind, counts) in &ran.tally.kinds {
        kinds.insert(kind.as_str().to_owned(), counts_json(counts));
    }
    kinds.insert("total".to_owned(), counts_json(&total));
    let statuses = ran.tally.statuses.iter().map(|(status, count)| (status.to_string(), count));
    json!({
        "elapsedMs": millis(ran.elapsed),
        "operationsPerSecond": per_second(total.operations(), ran.elapsed),
        "operations": kinds,
        "statuses": statuses.collect::<BTreeMap<_, _>>(),
        "repeated": ran.tally.retries,
        "replayed": ran.tally.replayed,
        "failures": ran.tally.failures,
        "unsent": ran.unsent,
    })
}

fn counts_json(counts: &Counts) -> Value {
    json!({
        "count": counts.operations(),
        "applied": counts.applied,
        "declined": counts.declined,
        "failed": counts.failed,
        "latencyMicros": latencies_json(&counts.latencies),
    })
}

fn latencies_json(latencies: &Latencies) -> Value {
    let mut values = serde_json::Map::new();
    for (name, percentile) in PERCENTILES {
        values.insert(name.to_owned(), json!(latencies.value_at_percentile(percentile)));
    }
    values.insert("max".to_owned(), json!(latencies.max()));
    Value::Object(values)
}

pub fn per_second(count: u64, elapsed: Duration) -> u64 {
    count.saturating_mul(1000).checked_div(millis(elapsed)).unwrap_or(0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(time: Duration) -> String {
    format!("{}.{}", time.as_secs(), time.subsec_millis() / 100)
}

/// Microseconds as milliseconds with two digits.
fn milliseconds(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_whole_number_arithmetic() {
        assert_eq!(milliseconds(12_345), "12.34");
        assert_eq!(milliseconds(59), "0.05");
        assert_eq!(seconds(Duration::from_millis(1_990)), "1.9");
        assert_eq!(per_second(10, Duration::from_millis(500)), 20);
        assert_eq!(per_second(10, Duration::ZERO), 0);
    }
}
