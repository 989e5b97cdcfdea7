#!/usr/bin/env python3
"""A load test in a minute: opens wallets, credits, debits and transfers, then checks every cent.

*declined* is a refusal for insufficient funds: the service doing its job. *failed* is any other.
An outcome that is not known (a timeout, a 503) is asked for again with the same Idempotency-Key. At
the end every wallet's balance must be what this script made it, and its ledger must lead there.

    python3 scripts/quick_load_test.py --wallets 1000 --operations 20000 --fast --workers 20

Python 3.8 or newer, standard library only.
"""

import argparse
import sys

from wallex_load import drive, session
from wallex_load.books import Books
from wallex_load.plan import Plan
from wallex_load.session import whole

# Debits and transfers that an opening balance does not always cover: declines are part of the test.
MIX = {"credit": 45, "debit": 35, "transfer": 20}
OPENING_CENTS = 10000
CENTS_MAX = 10000


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=session.EXIT_CODES
    )
    add = parser.add_argument
    add("--wallets", type=whole(2), default=100, metavar="N", help="wallets to open (%(default)s)")
    add("--operations", type=whole(1), default=1000, metavar="N", help="operations (%(default)s)")
    add("--workers", type=whole(1), default=10, metavar="N",
        help="connections, each with one request at a time (%(default)s)")
    add("--fast", action="store_true",
        help="no pauses; else each worker rests up to 50 ms between operations, as people do")
    session.add_options(parser)
    return parser


def work(run):
    options, display = run.options, run.display
    if options.check_only:
        return run.check(None)
    display.line(
        "run %s, seed %d: %d operations on %d wallets over %d connections"
        % (run.run, run.seed, options.operations, options.wallets, options.workers)
    )
    at = (options.base_url, options.timeout)
    accounts = drive.open_wallets(
        *at, run.run, options.wallets, OPENING_CENTS, options.workers,
        lambda: display.progress("opening wallets", 0, options.wallets),
    )
    books = Books(accounts)
    plan = Plan(run.seed, MIX, options.wallets, CENTS_MAX)
    load = drive.Load(*at, plan, books, pause=not options.fast)

    def tick():
        text = "%d declined, %d failed, done" % (load.declined, load.failed)
        display.progress(text, load.done, options.operations)

    tally, elapsed = load.run(drive.Source(0, options.operations), options.workers, tick)
    display.tally(tally, elapsed)
    run.result.update(tally.as_json(), elapsedMs=round(elapsed * 1000))
    agree = run.check(books)
    return agree and not tally.failures


if __name__ == "__main__":
    sys.exit(session.main(arguments(), work))
