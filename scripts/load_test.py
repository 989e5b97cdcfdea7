#!/usr/bin/env python3
"""The longer load test: a fixed rate, thresholds, and a report to show.

Operations begin at the rate whether or not answers come, and latency counts from the time at which
an operation was meant to begin (no coordinated omission). One that never began, as the service was
too slow, counts as an error. At the end every wallet is checked as in quick_load_test.py.

    python3 scripts/load_test.py --rate 200 --duration 5m --max-p99-ms 100 --out report

Writes series.csv, operations.csv, result.json, report.html and, where matplotlib is installed,
latency.png and throughput.png. Python 3.8 or newer, standard library only.
"""

import argparse
import json
import pathlib
import sys

from wallex_load import charts, drive, html, plan, series, session
from wallex_load.books import Books
from wallex_load.session import seconds, whole
from wallex_load.tally import DECLINED, FAILED, percentile

OPENING_CENTS = 100000
CENTS_MAX = 10000
# The numbers of the measured operations begin here, behind any warm-up's.
MEASURED_FIRST = 1 << 40
# A free worker that wakes up later than this measures its own machine.
LATE_MS = 20.0


def share(text):
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("use a share from 0 to 1")
    return number


def mix(text):
    try:
        return plan.mix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=session.EXIT_CODES
    )
    add = parser.add_argument
    add("--rate", type=whole(1), default=100, metavar="N",
        help="operations per second (%(default)s)")
    add("--duration", type=seconds, default=60.0, metavar="TIME", help="30s, 5m (60s)")
    add("--warmup", type=seconds, default=5.0, metavar="TIME",
        help="load before the measurement begins (5s)")
    add("--mix", type=mix, default="credit=70,debit=20,transfer=10",
        help="shares of the kinds of operation (%(default)s)")
    add("--wallets", type=whole(2), default=500, metavar="N", help="wallets to open (%(default)s)")
    add("--spread", choices=plan.SPREADS, default="uniform",
        help="which wallets the operations meet; hot: nine of ten on one wallet")
    add("--workers", type=whole(1), default=50, metavar="N",
        help="connections, each with one request at a time (%(default)s)")
    add("--out", metavar="DIR", help="folder of the report (load-report-RUN)")
    limits = parser.add_argument_group("thresholds; one that is exceeded fails the run")
    add = limits.add_argument
    for name in ("p50", "p90", "p99"):
        add("--max-%s-ms" % name, type=float, metavar="MS", help="%s of all operations" % name)
    add("--max-error-rate", type=share, default=0.0, metavar="SHARE",
        help="failed and never begun, of all operations (%(default)s)")
    add("--max-declined-rate", type=share, metavar="SHARE", help="declined, of all operations")
    add("--min-throughput", type=float, metavar="N", help="operations per second")
    session.add_options(parser)
    return parser


def measure(run, books):
    """Warm-up, then the measurement: the tally, the seconds it took, operations never begun."""
    options, display = run.options, run.display
    operations = plan.Plan(run.seed, options.mix, options.wallets, CENTS_MAX, options.spread)
    load = drive.Load(options.base_url, options.timeout, operations, books)

    def tick():
        display.progress("%d declined, %d failed, done" % (load.declined, load.failed), load.done)

    warm = drive.Source(0, int(options.warmup * options.rate), options.rate)
    warmed, _ = load.run(warm, options.workers, tick)
    # Ctrl-C in the warm-up ends the measurement, too.
    source = drive.Source(
        MEASURED_FIRST, int(options.duration * options.rate), options.rate, warm.stop
    )
    tally, elapsed = load.run(source, options.workers, tick)
    for cause, count in warmed.failures.items():
        tally.failures["%s (in the warm-up)" % cause] += count
    unsent = 0 if source.stop.is_set() else source.total - len(tally.samples)
    return tally, elapsed, unsent, percentile(sorted(source.lateness), 99) * 1000


def judge(options, tally, elapsed, unsent):
    """Each threshold as (what, value, limit, whether it holds)."""
    wanted = max(len(tally.samples) + unsent, 1)
    # Those of the warm-up are no samples, and failures all the same.
    failed = sum(tally.failures.values())
    rows = [("error rate", (failed + unsent) / wanted, options.max_error_rate)]
    if options.max_declined_rate is not None:
        declined = tally.count(DECLINED) / wanted
        rows.append(("declined rate", declined, options.max_declined_rate))
    times = sorted(sample[3] * 1000 for sample in tally.samples if sample[2] != FAILED)
    for name, rank in (("p50", 50), ("p90", 90), ("p99", 99)):
        limit = getattr(options, "max_%s_ms" % name)
        if limit is not None:
            rows.append((name + " ms", percentile(times, rank), limit))
    limits = [(what, "%.4g" % value, "at most %g" % most, value <= most)
              for what, value, most in rows]
    if options.min_throughput is not None:
        rate, least = len(tally.samples) / elapsed, options.min_throughput
        limits.append(("operations/s", "%.4g" % rate, "at least %g" % least, rate >= least))
    return limits


def write(run, tally, limits, folder):
    rows = series.by_second(tally.samples)
    series.write_csv(rows, tally.samples, folder)
    run.result["series"] = rows
    (folder / "report.html").write_text(html.report(run.result, tally, rows, limits))
    (folder / "result.json").write_text(json.dumps(run.result, indent=2) + "\n")
    if not charts.write_png(rows, folder):
        run.display.line("matplotlib is not installed: no PNG; report.html has the same charts")
    run.display.line("report: %s" % (folder / "report.html"))


def work(run):
    options, display = run.options, run.display
    if options.check_only:
        return run.check(None)
    # Before the load: a report that cannot be written is known early.
    folder = pathlib.Path(options.out or "load-report-" + run.run)
    folder.mkdir(parents=True, exist_ok=True)
    load = "%d operations/s for %g s over %d connections, %d wallets (%s)" % (
        options.rate, options.duration, options.workers, options.wallets, options.spread
    )
    display.line("run %s, seed %d: %s" % (run.run, run.seed, load))
    books = Books(drive.open_wallets(
        options.base_url, options.timeout, run.run, options.wallets, OPENING_CENTS,
        options.workers, lambda: display.progress("opening wallets", 0, options.wallets),
    ))
    tally, elapsed, unsent, late_ms = measure(run, books)
    display.tally(tally, elapsed)
    if unsent:
        display.bad("%d operations were never begun: the rate is more than it takes" % unsent)
    if late_ms > LATE_MS:
        display.bad("free workers woke up %.0f ms late (p99): this machine is too busy to measure "
                    "more finely than that" % late_ms)
    limits = judge(options, tally, elapsed, unsent)
    for what, value, limit, holds in limits:
        (display.line if holds else display.bad)("%s %s, %s" % (what, value, limit))
    rate = len(tally.samples) / elapsed
    run.result.update(
        tally.as_json(), load=load, elapsedMs=round(elapsed * 1000), unsent=unsent,
        operationsPerSecond=round(rate, 1), generatorLateMs=round(late_ms, 3),
    )
    agree = run.check(books)
    run.result["passed"] = agree and all(holds for _, _, _, holds in limits)
    write(run, tally, limits, folder)
    return run.result["passed"]


if __name__ == "__main__":
    sys.exit(session.main(arguments(), work))
