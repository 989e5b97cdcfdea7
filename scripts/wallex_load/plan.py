"""What is to be done, as a function of seed and number: the same seed gives the same operations."""

import bisect
import itertools
import random

KINDS = ("credit", "debit", "transfer")
SPREADS = ("uniform", "zipf", "hot")
# With `hot`, the share of operations that meet the one wallet.
HOT_SHARE = 0.9


class Operation:
    """One operation; wallets by their number in the run, the amount in cents."""

    __slots__ = ("kind", "wallet", "other", "cents")

    def __init__(self, kind, wallet, other, cents):
        self.kind = kind
        self.wallet = wallet
        self.other = other
        self.cents = cents


class Plan:
    def __init__(self, seed, mix, wallets, cents_max, spread="uniform"):
        self.seed = seed
        self.wallets = wallets
        self.cents_max = cents_max
        self.spread = spread
        self._shares = list(itertools.accumulate(mix[kind] for kind in KINDS))
        self._ranks = []
        if spread == "zipf":
            self._ranks = list(itertools.accumulate(1.0 / rank for rank in range(1, wallets + 1)))

    def operation(self, number):
        chance = random.Random("%d-%d" % (self.seed, number))
        kind = KINDS[bisect.bisect_right(self._shares, chance.randrange(self._shares[-1]))]
        wallet = other = self._wallet(chance)
        if kind == "transfer":
            other = (wallet + chance.randrange(1, self.wallets)) % self.wallets
        return Operation(kind, wallet, other, chance.randint(1, self.cents_max))

    def _wallet(self, chance):
        if self.spread == "hot" and chance.random() < HOT_SHARE:
            return 0
        if self.spread == "zipf":
            at = chance.random() * self._ranks[-1]
            return min(bisect.bisect_right(self._ranks, at), self.wallets - 1)
        return chance.randrange(self.wallets)


def mix(text):
    """`credit=70,debit=20,transfer=10` as a dictionary with every kind."""
    shares = dict.fromkeys(KINDS, 0)
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name not in shares or not share.isdigit():
            raise ValueError("use credit=70,debit=20,transfer=10")
        shares[name] = int(share)
    if not any(shares.values()):
        raise ValueError("all shares are 0")
    return shares


def amount(cents):
    """Cents as the service's decimal string."""
    return "%d.%02d" % divmod(cents, 100)
