"""What was seen: samples, statuses, causes; percentiles of them.

Each worker fills a tally of its own; they are merged when all have ended.
"""

import math
from collections import Counter

from .plan import KINDS

APPLIED, DECLINED, FAILED = "applied", "declined", "failed"
PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0))


class Tally:
    def __init__(self):
        # (seconds from the beginning at which it was meant to begin, kind, outcome, seconds)
        self.samples = []
        # Every answer, those to attempts that were repeated included.
        self.statuses = Counter()
        # Causes of attempts that were repeated.
        self.repeated = Counter()
        self.failures = Counter()
        # The first attempt had been done after all.
        self.replayed = 0

    def answered(self, answer):
        self.statuses[answer.status] += 1
        if answer.headers.get("Idempotency-Replayed"):
            self.replayed += 1

    def add(self, other):
        self.samples += other.samples
        self.statuses += other.statuses
        self.repeated += other.repeated
        self.failures += other.failures
        self.replayed += other.replayed

    def count(self, outcome):
        return sum(1 for sample in self.samples if sample[2] == outcome)

    def table(self):
        """A row per kind and one for all: (name, counts by outcome, percentiles in ms).

        Latencies are of what was applied or declined: a quick failure is no good latency.
        """
        rows = []
        for name in KINDS + ("total",):
            samples = [sample for sample in self.samples if name in ("total", sample[1])]
            if not samples:
                continue
            counts = Counter(sample[2] for sample in samples)
            times = sorted(sample[3] * 1000 for sample in samples if sample[2] != FAILED)
            rows.append((name, counts, percentiles(times)))
        return rows

    def as_json(self):
        operations = {}
        for name, counts, latencies in self.table():
            operations[name] = {
                "count": sum(counts.values()),
                "applied": counts[APPLIED],
                "declined": counts[DECLINED],
                "failed": counts[FAILED],
                "latencyMs": {label: round(value, 3) for label, value in latencies.items()},
            }
        return {
            "operations": operations,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "repeated": dict(self.repeated),
            "replayed": self.replayed,
            "failures": dict(self.failures),
        }


def percentile(ordered, wanted):
    """Nearest rank: a value that really occurred."""
    if not ordered:
        return 0.0
    rank = max(1, math.ceil(len(ordered) * wanted / 100.0))
    return ordered[min(rank, len(ordered)) - 1]


def percentiles(ordered):
    return {name: percentile(ordered, wanted) for name, wanted in PERCENTILES}
