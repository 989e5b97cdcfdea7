"""The run second by second, and as CSV."""

import csv

from .tally import APPLIED, DECLINED, FAILED, percentile

COLUMNS = ("second", "applied", "declined", "failed", "p50_ms", "p90_ms", "p99_ms", "max_ms")


def by_second(samples):
    """One row per second, empty ones included.

    Operations count where they ended, so that the row tells the throughput; latencies stand where
    the operation was meant to begin, so that a queue shows when it began to grow.
    """
    ended, begun = {}, {}
    for begin, _, outcome, latency in samples:
        ended.setdefault(int(begin + latency), []).append(outcome)
        if outcome != FAILED:
            begun.setdefault(int(begin), []).append(latency * 1000)
    rows = []
    for second in range(max(ended) + 1 if ended else 0):
        outcomes, times = ended.get(second, []), sorted(begun.get(second, []))
        counts = [outcomes.count(wanted) for wanted in (APPLIED, DECLINED, FAILED)]
        # No latency is not a latency of 0.
        marks = [round(percentile(times, wanted), 3) if times else None
                 for wanted in (50, 90, 99, 100)]
        rows.append(dict(zip(COLUMNS, [second] + counts + marks)))
    return rows


def write_csv(rows, samples, folder):
    """`series.csv` by second, `operations.csv` with every operation."""
    with open(folder / "series.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with open(folder / "operations.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("begin_s", "kind", "outcome", "latency_ms"))
        for begun, kind, outcome, latency in sorted(samples):
            writer.writerow(("%.6f" % begun, kind, outcome, "%.3f" % (latency * 1000)))
