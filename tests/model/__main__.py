"""Plays random histories against a running Wallex and compares every answer with a model of the specification.

    python3 tests/model --url http://localhost:3000 [--histories 200] [--seed 1] [--length 40] [--workers 8]
                        [--demand credit,debit,…] [--only SEED] [--expect FILE]

Only the standard library is used, and no code of the service. A history that differs is printed with its seed,
after steps that do not matter have been dropped. The summary names the commands that were exercised, and those
that the service does not have; --demand makes one that is missing, or was never accepted, a failure.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from fractions import Fraction

import books
import money
import wire
from client import Client
from commands import COMMANDS, ROUTE_ONLY
from compare import Difference
from histories import history
from play import Player

#: Attempts to leave out a step of a history that differs.
SHRINKS = 150


class Can:
    """What the service at hand has, by its own /openapi.json."""

    def __init__(self, document, leave_out=()):
        self.routes = wire.routes(document)
        self.commands = {name for name, (_, route) in COMMANDS.items() if route in self.routes} - set(leave_out)
        ops = wire.ops(document)
        self.bulk = {name for name in self.commands - ROUTE_ONLY if wire.OPS.get(name, name) in ops}
        self.dry = wire.takes_dry_runs(document)
        self.velocity = '"velocity"' in json.dumps(document)


def played(url, can, prefix, steps):
    """Plays steps over wallets of their own; the player, or what differs."""
    player = Player(Client(url), prefix, can)
    try:
        player.play(steps)
        books.check(player)
    except Difference as why:
        return player, str(why)
    return player, None


def kind(why):
    """What differs, without the numbers of the history at hand."""
    return re.sub(r"[0-9a-f]{8}-[-0-9a-f]*|[0-9]+", "#", (why or "").split(": ", 1)[-1])[:24]


def shrunk(url, can, prefix, steps, why):
    """Leaves out steps, halves first, for as long as what is left differs in the same way."""
    size, tries, wanted = max(1, len(steps) // 2), 0, kind(why)
    while size:
        index = 0
        while index < len(steps) and tries < SHRINKS:
            fewer, tries = steps[:index] + steps[index + size :], tries + 1
            if fewer and kind(played(url, can, f"{prefix}-{tries}", fewer)[1]) == wanted:
                steps = fewer
            else:
                index += size
        size //= 2
    return steps, played(url, can, f"{prefix}-last", steps)[1]


def one(job):
    """A history from its seed: what differs, and what was exercised."""
    url, can, seed, length, run = job
    steps = history(seed, can, length)
    prefix = f"m{run}-{seed}"
    try:
        player, why = played(url, can, prefix, steps)
    except Exception as error:  # A history must be named by its seed whatever happens to it.
        raise RuntimeError(f"seed {seed}: {error!r}") from error
    if why:
        steps, shorter = shrunk(url, can, prefix, steps, why)
        lines = "\n".join(json.dumps(step, ensure_ascii=False) for step in steps)
        why = f"seed {seed} differs: {why}\n\n{len(steps)} of its steps are enough:\n{lines}\n{shorter or ''}"
    return seed, why, player.counts, books.expected(player)


def summary(can, counts, demanded):
    """What was exercised; the names of what was demanded in vain."""
    missing = []
    for name in sorted(set(COMMANDS) | set(counts)):
        accepted, refused = counts.get(name, (0, 0))
        known = name in can.commands or name not in COMMANDS
        print(f"  {name}: {accepted} accepted, {refused} refused" if known else f"  {name}: NOT EXERCISED, the service has no such route")
        missing += [name] if name in demanded and not accepted else []
    print(f"  dry runs: {'exercised' if can.dry else 'NOT EXERCISED'}; velocity limits: {'exercised' if can.velocity else 'NOT EXERCISED'}")
    return missing


def main():
    parser = argparse.ArgumentParser(description="A model of the money, played against a running service.")
    parser.add_argument("--url", default="http://localhost:3000")
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--demand", default="", help="commands that must have been accepted at least once")
    parser.add_argument("--leave-out", default="", help="commands that are not drawn")
    parser.add_argument("--expect", help="writes what the read model and the accounts must have to this file")
    options = parser.parse_args()
    answer = Client(options.url).get("/openapi.json")
    can = Can(answer.body, options.leave_out.split(","))
    run, begun = f"{os.getpid():x}{int(time.time()) % 100_000:x}", time.time()
    seeds = range(options.seed, options.seed + options.histories)
    jobs = [(options.url, can, seed, options.length, run) for seed in seeds]
    counts, failed, wallets, accounts = {}, [], {}, {}
    with multiprocessing.Pool(options.workers) as pool:
        for seed, why, exercised, (its_wallets, its_accounts) in pool.imap_unordered(one, jobs):
            wallets |= its_wallets
            for name, value in its_accounts.items():
                accounts[name] = accounts.get(name, Fraction(0)) + Fraction(value)
            for name, (accepted, refused) in exercised.items():
                before = counts.get(name, (0, 0))
                counts[name] = (before[0] + accepted, before[1] + refused)
            if why:
                failed.append(seed)
                print(why, flush=True)
                if len(failed) >= 3:
                    pool.terminate()
                    break
    steps = sum(accepted + refused for accepted, refused in counts.values())
    print(f"{len(jobs)} histories from seed {options.seed}, {steps} commands in {time.time() - begun:.1f} s")
    missing = summary(can, counts, {name for name in options.demand.split(",") if name})
    if options.expect:
        totals = {name: money.text(money.floor(value * 10**8), 8) for name, value in accounts.items()}
        with open(options.expect, "w", encoding="utf-8") as file:
            json.dump({"wallets": wallets, "accounts": totals}, file)
    for name in missing:
        print(f"{name} was demanded and never accepted")
    print("differs: seeds " + ", ".join(map(str, sorted(failed))) if failed else "no differences")
    sys.exit(1 if failed or missing else 0)


if __name__ == "__main__":
    main()
