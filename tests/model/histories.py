"""Random histories: a seed draws steps over a few wallets of several currencies.

A shadow of the model is played along, so that most steps are ones that matter: captures of holds that are
open, debits of just what is there and of one unit more, reversals of what was done a moment ago.
"""

import random

import money
from commands import COMMANDS, decide
from world import World

#: How often each command is drawn.
WEIGHTS = {
    "create": 1, "credit": 14, "debit": 18, "transfer": 14, "hold": 14, "capture": 14, "release": 5, "adjust": 6,
    "freeze": 1, "suspend": 1, "activate": 5, "close": 1, "limits": 2, "metadata": 1, "reverse": 12, "post": 8,
    "convert": 6, "grant": 6, "void": 1, "again": 8,
}
CURRENCIES = ["USD", "USD", "USD", "USD", "USD", "JPY", "KWD", "EUR"]
ODD = ["0", "-1", "1e2", "0.000000001", "1000000000000000.01", "01", "", "1.", "0.0001"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "Pacific/Auckland", "Asia/Kathmandu"]


class History:
    """Draws the steps of one history; `can` says what the service has."""

    def __init__(self, seed, can):
        self.random = random.Random(seed)
        self.can = can
        self.world = World()
        self.now = 1_800_000_000_000
        self.steps = []

    @property
    def names(self):
        return list(self.world.wallets)

    # --- small choices ---

    def one_in(self, many):
        return self.random.randrange(many) == 0

    def wallet(self):
        if self.one_in(60) or not self.names:
            return "nowhere"
        return self.random.choice(self.names)

    def amount(self, name, near=()):
        """An amount for a wallet: small, or just what is near, or a unit more; sometimes none at all."""
        if self.one_in(40):
            return self.random.choice(ODD)
        wallet = self.world.wallets.get(name)
        scale = wallet.scale if wallet else 2
        near = [number for number in near if number > 0]
        if near and self.one_in(3):
            number = max(1, self.random.choice(near) + self.random.choice([-1, 0, 0, 1]))
        elif self.one_in(12):
            number = self.random.randrange(1, 10**9)
        else:
            number = self.random.randrange(1, 6_000)
        return money.text(number, scale)

    def debitable(self, name):
        wallet = self.world.wallets.get(name)
        return (wallet.available, wallet.free_main + wallet.limit, wallet.balance, wallet.own) if wallet else ()

    def other(self, name):
        """A wallet to go with another: mostly another one of its currency."""
        mine = self.world.wallets.get(name)
        same = [n for n in self.names if n != name and mine and self.world.wallets[n].currency == mine.currency]
        return self.random.choice(same) if same and not self.one_in(12) else self.wallet()

    # --- a step of each kind ---

    def create(self):
        new = f"w{len(self.names)}"
        is_new = not self.names or (len(self.names) < 7 and not self.one_in(4))
        name = new if is_new else self.random.choice(self.names)
        step = {"wallet": name, "owner": "model", "currency": self.random.choice(CURRENCIES)}
        scale = money.SCALES[step["currency"]]
        if not self.one_in(5):
            step["initial"] = money.text(self.random.randrange(20_000), scale)
        if self.one_in(3):
            step["overdraft"] = money.text(self.random.randrange(5_000), scale)
        return step

    def first_two(self):
        """So that money has somewhere to go to."""
        return {"currency": "USD"} if len(self.names) < 2 else {}

    def credit(self):
        name = self.wallet()
        return {"wallet": name, "amount": self.amount(name)} | self.note()

    def debit(self):
        name = self.wallet()
        return {"wallet": name, "amount": self.amount(name, self.debitable(name))} | self.note()

    def transfer(self):
        name = self.wallet()
        return {"wallet": name, "to": self.other(name), "amount": self.amount(name, self.debitable(name))} | self.note()

    def note(self):
        step = {}
        if self.one_in(6):
            step["reference"] = f"r-{self.random.randrange(5)}"
        if self.one_in(8):
            step["description"] = self.random.choice(["rent", "Käse", "a\tb"])
        if self.one_in(8):
            step["metadata"] = {"n": self.random.randrange(9)}
        return step

    # --- the whole ---

    def draw(self, length):
        for _ in range(self.random.randrange(3, 6)):
            self.add("create", {"wallet": f"w{len(self.names)}", "initial": "50"} | self.first_two())
        waits = self.random.randrange(length) if "hold" in self.can.commands and self.one_in(7) else None
        while len(self.steps) < length:
            if waits is not None and len(self.steps) >= waits:
                waits = self.more.soon()
            kinds = [kind for kind in WEIGHTS if kind == "again" or kind in self.can.commands]
            kind = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            size = self.random.randrange(2, 7) if self.one_in(9) else 1
            if size > 1:
                self.group(size)
            else:
                self.add(kind, {})
        return self.steps

    def group(self, size):
        """Several commands in one request, atomic or each for itself."""
        kinds = [kind for kind in WEIGHTS if kind in self.can.bulk]
        mode, number = self.random.choice(["bulk", "atomic"]), len(self.steps)
        dry = self.can.dry and self.one_in(5)
        for _ in range(size):
            kind = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            self.add(kind, {"group": number, "mode": mode} | ({"dry": True} if dry else {}))

    def add(self, kind, given):
        maker = {"again": self.again}.get(kind) or getattr(self, kind, None) or getattr(self.more, kind)
        step = maker()
        if step is None:
            return
        step = {"do": kind, "name": f"t{len(self.steps)}"} | step | given
        if "group" in step:
            # The id that the service makes is not known to the rest of the request.
            step.pop("unnamed", None)
        if kind in COMMANDS:
            self.options(step)
        if kind != "again":
            self.play(step)
        self.steps.append(step)

    def options(self, step):
        """What most commands may carry: a key, a version, being a dry run."""
        if not self.one_in(3):
            step["key"] = f"k{len(self.steps)}"
        wallet = self.world.wallets.get(step.get("wallet"))
        if wallet and "group" not in step and step["do"] != "create" and self.one_in(10):
            step["ifMatch"] = wallet.version - self.random.randrange(2)
        if self.can.dry and "group" not in step and step["do"] not in ("unit", "metadata") and self.one_in(10):
            step["dry"] = True

    def again(self):
        keyed = [step for step in self.steps if step.get("key")]
        if not keyed:
            return None
        return {"of": self.random.choice(keyed[-12:])["name"], "changed": self.one_in(4)}

    def play(self, step):
        """The shadow: roughly what the service will come to."""
        self.now += 7
        if step["do"] == "wait":
            self.now += int(step["seconds"] * 1000)
        elif not step.get("dry"):
            decide(self.world, step, self.now)


def history(seed, can, length=40):
    from later import Later

    drawn = History(seed, can)
    drawn.more = Later(drawn)
    return drawn.draw(length)
