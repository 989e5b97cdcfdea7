"""The script's own account of what it did: one balance and one count of entries per wallet.

Only definite answers are booked. A wallet with an operation whose outcome stayed unknown is marked;
its balance is then held against its ledger only.
"""

import threading
from decimal import Decimal


class Account:
    __slots__ = ("id", "cents", "entries", "uncertain")

    def __init__(self, wallet_id, cents, entries):
        self.id = wallet_id
        self.cents = cents
        self.entries = entries
        self.uncertain = False

    def balance(self):
        return Decimal(self.cents).scaleb(-2)


class Books:
    def __init__(self, accounts):
        self.accounts = accounts
        self.opened = sum(account.cents for account in accounts)
        self.credited = 0
        self.debited = 0
        self._lock = threading.Lock()

    def apply(self, operation):
        """Books an operation that the service answered as done."""
        wallet, other = self.accounts[operation.wallet], self.accounts[operation.other]
        with self._lock:
            if operation.kind != "credit":
                wallet.cents -= operation.cents
                wallet.entries += 1
            if operation.kind != "debit":
                other.cents += operation.cents
                other.entries += 1
            if operation.kind == "credit":
                self.credited += operation.cents
            if operation.kind == "debit":
                self.debited += operation.cents

    def doubt(self, operation):
        """Marks the wallets of an operation of which nobody knows whether it was done."""
        self.accounts[operation.wallet].uncertain = True
        self.accounts[operation.other].uncertain = True

    def expected(self):
        """What all balances must sum up to, in cents; None where an outcome is unknown."""
        if any(account.uncertain for account in self.accounts):
            return None
        return self.opened + self.credited - self.debited
