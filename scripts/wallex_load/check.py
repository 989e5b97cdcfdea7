"""After the load: waits for the projections, then holds every wallet against its ledger and against
the script's own books."""

import threading
import time
from decimal import Decimal
from urllib.parse import quote, urlencode

from .client import Client, Unknown
from .drive import Source, in_threads

POLL_S = 0.05
PAGE = 1000
# A wallet of somebody else may change while it is checked: then it is looked at again, so often.
LOOKS = 5
SIGNS = {"CREDIT": 1, "TRANSFER_IN": 1, "DEBIT": -1, "TRANSFER_OUT": -1}


class Checked:
    def __init__(self):
        self.wallets = 0
        self.entries = 0
        # Sum of all balances.
        self.balances = Decimal(0)
        # Seconds until the last wallet's ledger was in step.
        self.waited = 0.0
        # (wallet, what is wrong)
        self.findings = []

    def as_json(self):
        return {
            "wallets": self.wallets,
            "entries": self.entries,
            "balances": str(self.balances),
            "waitedMs": round(self.waited * 1000),
            "findings": [{"wallet": wallet, "what": what} for wallet, what in self.findings],
        }


class Checker:
    """Checks wallets over several workers; waits for the projections until `wait_s` is over."""

    def __init__(self, base_url, timeout_s, workers, wait_s):
        self.base_url = base_url
        self.timeout_s = timeout_s
        self.workers = workers
        self.begun = time.monotonic()
        self.deadline = self.begun + wait_s
        self.done = 0

    def check(self, wallets, tick, own=True):
        """`wallets` are (id, Account or None). Those of others may have changes without entries."""
        checked, lock, source = Checked(), threading.Lock(), Source(0, len(wallets))

        def work():
            client = Client(self.base_url, self.timeout_s)
            next_one = source.take()
            while next_one is not None:
                look = self._settled(client, own, *wallets[next_one[0]])
                with lock:
                    checked.wallets += 1
                    checked.entries += look.entries
                    checked.balances += look.balance
                    checked.waited = max(checked.waited, look.waited)
                    checked.findings += [(look.id, what) for what in look.wrong]
                    self.done += 1
                next_one = source.take()
            client.close()

        in_threads(self.workers, work, tick, source.stop)
        if checked.wallets < len(wallets):
            raise KeyboardInterrupt
        checked.findings.sort()
        return checked

    def _settled(self, client, own, wallet_id, account):
        """Looks again when the wallet changed under a look that found something."""
        for _ in range(LOOKS):
            look = Look(self, client, wallet_id, own, account)
            if not look.wrong or look.version == look.read_wallet():
                break
        return look

    def patience(self):
        # Reads may go on while others are checked: the deadline is the projections'.
        return max(self.deadline, time.monotonic() + 10.0)


class Look:
    """One look at one wallet: what it says of itself, and what its ledger says."""

    def __init__(self, checker, client, wallet_id, own, account):
        self.id = wallet_id
        self.balance = Decimal(0)
        self.entries = 0
        self.waited = 0.0
        self.wrong = []
        self._checker = checker
        self._client = client
        self._path = quote(wallet_id, safe="")
        self.version = self.read_wallet()
        if self.version is None:
            self.wrong.append("the wallet cannot be read")
            return
        if account is not None and not account.uncertain:
            self._against_books(account)
        if self._caught_up():
            # Its own count of changes is known only of wallets that this script opened.
            self._against_ledger(self.version - 1 if own else None)

    def read_wallet(self):
        answer = self._client.read("/wallets/" + self._path, self._checker.patience())
        if answer.status != 200:
            return None
        wallet = answer.json()
        self.balance = Decimal(wallet["balance"])
        return wallet["version"]

    def _against_books(self, account):
        if self.balance != account.balance():
            self._find("balance %s, this script made it %s", self.balance, account.balance())
        if self.version - 1 != account.entries:
            self._find("%d changes, this script made %d", self.version - 1, account.entries)

    def _caught_up(self):
        path = "/ledger/wallet/%s?limit=1" % self._path
        waited = False
        while True:
            projected = self._read(path)["projectedVersion"]
            if projected >= self.version:
                if waited:
                    self.waited = time.monotonic() - self._checker.begun
                return True
            if time.monotonic() >= self._checker.deadline:
                self._find("the ledger is at version %s, the wallet at %s", projected, self.version)
                return False
            waited = True
            time.sleep(POLL_S)

    def _against_ledger(self, changes):
        summary = self._read("/ledger/wallet/%s/summary" % self._path)
        credits, debits = Decimal(summary["totalCredits"]), Decimal(summary["totalDebits"])
        if credits - debits != self.balance:
            self._find(
                "balance %s, ledger: credits %s - debits %s = %s",
                self.balance, credits, debits, credits - debits,
            )
        if changes is not None and summary["transactionCount"] != changes:
            count = summary["transactionCount"]
            self._find("%d ledger entries, the wallet's version says %d", count, changes)
        self._chain(own=changes is not None)
        if summary["transactionCount"] != self.entries:
            count = summary["transactionCount"]
            self._find("%d entries in the summary, %d in the pages", count, self.entries)

    def _chain(self, own):
        """Each entry must begin where the one before it ended, from 0 up to the balance."""
        balance, version = self.balance, self.version
        for entry in self._pages():
            self.entries += 1
            at = entry["version"]
            amount = Decimal(entry["amount"])
            before, after = Decimal(entry["balanceBefore"]), Decimal(entry["balanceAfter"])
            if own and at != version:
                self._find("entry of version %s where %s belongs", at, version)
            if after != balance:
                self._find(
                    "entry of version %s ends with %s, what follows it begins with %s",
                    at, after, balance,
                )
            sign = SIGNS.get(entry["transactionType"], 1 if after > before else -1)
            if before + sign * amount != after:
                self._find(
                    "entry of version %s: %s %s does not lead from %s to %s",
                    at, entry["transactionType"], amount, before, after,
                )
            balance, version = before, at - 1
        if balance != 0:
            self._find("the oldest entry begins with %s, not with 0", balance)

    def _pages(self):
        query = {"limit": PAGE}
        while True:
            page = self._read("/ledger/wallet/%s?%s" % (self._path, urlencode(query)))
            for entry in page["transactions"]:
                yield entry
            if not page["nextCursor"]:
                return
            query["cursor"] = page["nextCursor"]

    def _read(self, path):
        answer = self._client.read(path, self._checker.patience())
        if answer.status != 200:
            raise Unknown("GET %s: %s" % (path, answer.code()))
        return answer.json()

    def _find(self, what, *values):
        self.wrong.append(what % values)


def listed(base_url, timeout_s, owner=None, limit=None):
    """Ids of the service's wallets, newest first, at most `limit`."""
    client, ids = Client(base_url, timeout_s), []
    query = {"limit": PAGE}
    if owner is not None:
        query["ownerId"] = owner
    path = "/wallets?" + urlencode(query)
    while path and (limit is None or len(ids) < limit):
        answer = client.read(path, time.monotonic() + 10.0)
        if answer.status != 200:
            raise Unknown("GET %s: %s" % (path, answer.code()))
        ids += [wallet["id"] for wallet in answer.json()]
        # Link: </wallets?...>; rel="next"
        link = answer.headers.get("Link") or ""
        path = link[1:link.index(">")] if link.startswith("<") else None
    client.close()
    return ids[:limit]
