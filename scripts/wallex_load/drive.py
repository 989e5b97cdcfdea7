"""Drives the load: opens the wallets, then runs operations over many workers.

Closed loop: a worker begins the next operation when it has its answer. Open loop: operations begin
at a fixed rate, whether or not answers come; latency counts from the time an operation was meant to
begin, so that a slow service cannot hide its queue by slowing the generator down.
"""

import random
import threading
import time

from .books import Account
from .client import Client, Unknown, Unreachable, fresh_key
from .plan import amount
from .tally import APPLIED, DECLINED, FAILED, Tally

# How long after the end of an open loop its waiting operations may still begin.
DRAIN_S = 5.0
# Without --fast, a worker pauses up to so long between two operations.
PAUSE_MAX_S = 0.05


class Source:
    """Hands out the operations of one phase."""

    def __init__(self, first, total, rate=None, stop=None):
        self.first = first
        self.total = total
        self.rate = rate
        self.stop = stop or threading.Event()
        self.begun = time.perf_counter()
        # How late workers that were free woke up: the generator's own fault, not the service's.
        self.lateness = []
        self._taken = 0
        self._lock = threading.Lock()

    def take(self):
        """Number and intended time of the next operation; None when the phase is over."""
        with self._lock:
            number = self._taken
            self._taken += 1
        if number >= self.total or self.stop.is_set():
            return None
        now = time.perf_counter()
        if self.rate is None:
            return self.first + number, now
        intended = self.begun + number / self.rate
        if now < intended:
            if self.stop.wait(intended - now):
                return None
            self.lateness.append(time.perf_counter() - intended)
        elif now > self.begun + self.total / self.rate + DRAIN_S:
            return None
        return self.first + number, intended


class Load:
    """What all workers share."""

    def __init__(self, base_url, timeout_s, plan, books, pause=False):
        self.base_url = base_url
        self.timeout_s = timeout_s
        self.plan = plan
        self.books = books
        self.pause = pause
        self.done = self.declined = self.failed = 0

    def run(self, source, workers, tick):
        """Runs one phase; `tick` is called now and then. Gives the tally and the seconds."""
        tally = Tally()
        for seen in in_threads(workers, lambda: self._work(source), tick, source.stop):
            tally.add(seen)
        return tally, time.perf_counter() - source.begun

    def _work(self, source):
        client, tally = Client(self.base_url, self.timeout_s), Tally()
        while True:
            next_one = source.take()
            if next_one is None:
                client.close()
                return tally
            number, intended = next_one
            operation = self.plan.operation(number)
            outcome, cause = self._perform(client, tally, number, operation)
            latency = time.perf_counter() - intended
            tally.samples.append((intended - source.begun, operation.kind, outcome, latency))
            # For the line of progress only: a lost update does no harm.
            self.done += 1
            if outcome == DECLINED:
                self.declined += 1
            elif outcome == FAILED:
                self.failed += 1
                tally.failures[cause] += 1
            if self.pause:
                time.sleep(random.uniform(0, PAUSE_MAX_S))

    def _perform(self, client, tally, number, operation):
        accounts = self.books.accounts
        fields = {"amount": amount(operation.cents)}
        if operation.kind == "transfer":
            fields["toWalletId"] = accounts[operation.other].id
        path = "/wallets/%s/%s" % (accounts[operation.wallet].id, operation.kind)
        try:
            answer = client.settle(path, fields, fresh_key(), tally)
        except Unknown as error:
            self.books.doubt(operation)
            return FAILED, str(error)
        if answer.status == 201:
            self.books.apply(operation)
            return APPLIED, None
        code = answer.code()
        return (DECLINED, None) if code == "insufficient_funds" else (FAILED, code)


def open_wallets(base_url, timeout_s, run, count, cents, workers, tick):
    """Opens wallets `{run}-0` to `{run}-{count - 1}`; those that exist are taken as they are."""
    source, accounts = Source(0, count), [None] * count

    def work():
        client = Client(base_url, timeout_s)
        next_one = source.take()
        while next_one is not None:
            number = next_one[0]
            accounts[number] = _open(client, run, number, cents)
            next_one = source.take()
        client.close()

    in_threads(workers, work, tick, source.stop)
    if None in accounts:
        raise KeyboardInterrupt
    return accounts


def _open(client, run, number, cents):
    wallet_id = "%s-%d" % (run, number)
    fields = {"walletId": wallet_id, "ownerId": run, "initialBalance": amount(cents)}
    answer = client.settle("/wallets", fields, fresh_key(), Tally())
    if answer.status == 201:
        return Account(wallet_id, cents, 1)
    if answer.code() != "wallet_exists":
        raise Unknown("opening wallet %s: %s" % (wallet_id, answer.code()))
    wallet = client.read("/wallets/" + wallet_id, time.monotonic() + 10.0).json()
    units, _, rest = wallet["balance"].partition(".")
    if len(rest) != 2:
        raise Unknown("wallet %s is none of this script: %s" % (wallet_id, wallet["balance"]))
    # Every event but the wallet's creation has an entry.
    return Account(wallet_id, int(units + rest), wallet["version"] - 1)


def in_threads(count, work, tick, stop):
    """Runs `work` in threads and gives what each returned. The first exception ends all of them.

    Ctrl-C lets the operations in flight end; a second one is raised.
    """
    results, errors = [], []

    def body():
        try:
            results.append(work())
        except (Unreachable, Unknown) as error:
            errors.append(error)
            stop.set()
        except BaseException as error:
            errors.append(error)
            stop.set()
            raise

    threads = [threading.Thread(target=body, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join(0.2)
                tick()
            except KeyboardInterrupt:
                if stop.is_set():
                    raise
                stop.set()
    if errors:
        raise errors[0]
    return results
