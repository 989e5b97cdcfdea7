"""What both scripts do before and after their load: options, the run's name, the check, the end."""

import argparse
import json
import re
import secrets
import sys
import time

from . import check
from .client import Unknown, Unreachable, reach
from .display import Display

PASSED, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
EXIT_CODES = "exit codes: 0 passed, 1 failed, 2 usage, 3 the service cannot be reached"


def whole(least):
    """A parser of whole numbers from `least` on."""

    def parse(text):
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError("%d is below %d" % (number, least))
        return number

    parse.__name__ = "whole number"
    return parse


def base_url(text):
    if not re.match(r"https?://[^/@?#]+(/[^?#]*)?$", text):
        raise argparse.ArgumentTypeError("use a URL of the form http://host:port")
    return text


def run_name(text):
    if not re.match(r"[A-Za-z0-9._-]{1,100}$", text):
        raise argparse.ArgumentTypeError("use letters, digits, -, _ and .")
    return text


def seconds(text):
    """`30s`, `500ms`, `2m`; a bare number is seconds."""
    match = re.match(r"([0-9.]+)(ms|s|m|)$", text)
    try:
        return float(match.group(1)) * {"ms": 0.001, "s": 1, "m": 60, "": 1}[match.group(2)]
    except (AttributeError, ValueError):
        raise argparse.ArgumentTypeError("use 30s, 500ms or 2m")


def add_options(parser):
    """The options that both scripts have."""
    add = parser.add_argument
    add("--base-url", type=base_url, default="http://localhost:3000", metavar="URL",
        help="the service (%(default)s)")
    add("--seed", type=int, metavar="N",
        help="gives the same operations again (else from the clock, and printed)")
    add("--json", metavar="FILE", help="write the result as JSON; - is the standard output")
    add("--run", type=run_name, metavar="NAME",
        help="name of the run, before its wallets' ids; with the name of an earlier run, its "
        "wallets are used again (else made, and printed)")
    add("--check-only", type=run_name, metavar="RUN",
        help="no load: only check the wallets of an earlier run")
    add("--others", type=whole(0), default=10000, metavar="N",
        help="also check up to N wallets that are not of this run, newest first (%(default)s)")
    add("--timeout", type=seconds, default=10.0, metavar="TIME",
        help="how long to wait for one answer (10s)")
    add("--wait", type=seconds, default=120.0, metavar="TIME",
        help="how long the projections may take to catch up (120s)")


class Session:
    """One run of a script."""

    def __init__(self, options):
        self.options = options
        self.display = Display(options.json == "-")
        self.seed = int(time.time()) if options.seed is None else options.seed
        made = "load-%s-%s" % (time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2))
        self.run = options.check_only or options.run or made
        self.result = {"passed": False, "run": self.run, "seed": self.seed}

    def check(self, books):
        """Checks the run's wallets, then others. True where all the books agree."""
        options, display = self.options, self.display
        at = (options.base_url, options.timeout)
        checker = check.Checker(*at, options.workers, options.wait)
        if books is None:
            wallets = [(wallet, None) for wallet in check.listed(*at, owner=self.run)]
        else:
            wallets = [(account.id, account) for account in books.accounts]

        def tick():
            display.progress("checked", checker.done)

        own = checker.check(wallets, tick)
        display.checked("wallets of this run", own)
        known = {wallet for wallet, _ in wallets}
        ids = check.listed(*at, limit=options.others + len(known)) if options.others else []
        others = [(wallet, None) for wallet in ids if wallet not in known][:options.others]
        rest = checker.check(others, tick, own=False)
        if others:
            display.checked("other wallets", rest)
        self.result["check"] = {"own": own.as_json(), "others": rest.as_json()}
        conserved = display.money(books, own) if books else True
        if not own.wallets:
            display.bad("there are no wallets of run %s" % self.run)
        return bool(own.wallets) and conserved and not (own.findings or rest.findings)

    def end(self, passed):
        """Says how it ended, writes the JSON; the exit code."""
        self.result["passed"] = passed
        text = "(run %s, seed %d)" % (self.run, self.seed)
        (self.display.good if passed else self.display.bad)(
            "%s %s" % ("PASSED" if passed else "FAILED", text)
        )
        if self.options.json:
            document = json.dumps(self.result, indent=2) + "\n"
            if self.options.json == "-":
                sys.stdout.write(document)
            else:
                with open(self.options.json, "w") as file:
                    file.write(document)
        return PASSED if passed else FAILED


def main(parser, work):
    """Parses, reaches the service, runs `work(session)`; the exit code."""
    options = parser.parse_args()
    session = Session(options)
    try:
        reach(options.base_url, options.timeout)
        return session.end(work(session))
    except Unreachable as error:
        session.display.bad("no service at %s: %s" % (options.base_url, error))
        return UNREACHABLE
    except Unknown as error:
        session.display.bad("FAILED: %s" % error)
        return FAILED
    except KeyboardInterrupt:
        session.display.bad("FAILED: interrupted")
        return FAILED
