"""Steps of the commands on holds, status, limits, transactions, conversions and grants: see `histories`."""

import money


class Later:
    """Draws over the same shadow as the history that it belongs to."""

    def __init__(self, history):
        self.history = history
        self.random = history.random

    @property
    def world(self):
        return self.history.world

    def open_hold(self):
        """Mostly an open one, sometimes a closed one, or one that nobody placed."""
        everything = list(self.world.holds.values())
        open_holds = [hold for hold in everything if hold.status == "open"]
        soon = [hold for hold in everything if hold.expires_at - hold.placed_at <= 1000]
        if soon and self.history.one_in(3):
            return self.random.choice(soon)
        if open_holds and not self.history.one_in(8):
            return self.random.choice(open_holds)
        return self.random.choice(everything) if everything else None

    def on(self, hold):
        """A command on a hold: by its id alone, or beside its wallet."""
        return {"hold": hold.name, "wallet": hold.wallet} | ({"long": True} if self.history.one_in(3) else {})

    def hold(self):
        name = self.history.wallet()
        step = {"wallet": name, "hold": f"h{len(self.history.steps)}"}
        step["amount"] = self.history.amount(name, self.history.debitable(name))
        if self.history.one_in(4):
            step["to"] = self.history.other(name)
        if self.history.one_in(4):
            step["maxCapture"] = self.more(name, step["amount"])
        if self.history.one_in(3):
            step["expiresIn"] = self.random.choice([3600, 86400, 366 * 86400, 366 * 86400 + 1])
        if self.history.one_in(3):
            step["unnamed"] = True
        elif self.world.holds and self.history.one_in(25):
            step["hold"] = self.random.choice(list(self.world.holds))
        return step

    def more(self, name, amount):
        """A fifth more than an amount; sometimes anything."""
        try:
            units = money.units(money.amount(amount), self.scale(name))
        except money.NotAnAmount:
            return amount
        return self.history.amount(name) if self.history.one_in(5) else money.text(units + units // 5, self.scale(name))

    def soon(self):
        """Holds and, where there are some, grants that expire within the history, which waits for it."""
        for _ in range(self.random.randrange(1, 4)):
            for kind in ("hold", "grant") if "grant" in self.history.can.commands else ("hold",):
                self.history.add(kind, {"expiresIn": 1})
        for _ in range(self.random.randrange(3)):
            self.history.add(self.random.choice(["credit", "debit", "capture"]), {})
        self.history.add("wait", {"seconds": self.random.choice([0.95, 1.0, 1.02, 1.1])})

    def wait(self):
        return {}

    def capture(self):
        hold = self.open_hold()
        if hold is None:
            return None
        step = self.on(hold)
        if not self.history.one_in(4):
            near = (hold.remaining, hold.max_capture - hold.captured, hold.remaining // 2, 1)
            step["amount"] = self.history.amount(hold.wallet, near)
        if self.history.one_in(2):
            step["final"] = self.random.choice([True, False, False])
        return step

    def release(self):
        hold = self.open_hold()
        return hold and self.on(hold)

    def adjust(self):
        hold = self.open_hold()
        if hold is None:
            return None
        step = self.on(hold)
        if not self.history.one_in(4):
            wallet = self.world.wallets[hold.wallet]
            near = (hold.captured, hold.amount, hold.amount + wallet.available, hold.captured + 1)
            step["amount"] = self.history.amount(hold.wallet, near)
        if "amount" not in step or self.history.one_in(4):
            step["expiresIn"] = self.random.choice([3600, 86400])
        return step

    def status(self):
        return {"wallet": self.history.wallet(), "reason": "model"}

    freeze = suspend = status

    def activate(self):
        resting = [name for name, wallet in self.world.wallets.items() if wallet.status != "active"]
        if not resting and not self.history.one_in(5):
            return None
        return {"wallet": self.random.choice(resting) if resting else self.history.wallet(), "reason": "model"}

    def close(self):
        step = self.status()
        if not self.history.one_in(3):
            step["sweepTo"] = self.history.other(step["wallet"])
        return step

    def limits(self):
        name = self.history.wallet()
        wallet = self.world.wallets.get(name)
        step = {"wallet": name, "reason": "model"}
        if not self.history.can.velocity or not self.history.one_in(3):
            near = (-wallet.free_main,) if wallet else ()
            step["overdraft"] = self.history.amount(name, near)
        if self.history.can.velocity and ("overdraft" not in step or self.history.one_in(3)):
            step["velocity"] = [self.velocity(name, number) for number in range(self.random.randrange(3))]
        return step

    def velocity(self, name, number):
        from histories import ZONES

        kind = self.random.choice(["amount", "amount", "count"])
        most = self.random.randrange(3, 9) if kind == "count" else money.text(self.random.randrange(5_000, 40_000), self.scale(name))
        window = self.random.choice(["PT1H", "P1D", "P1W", "P1M"])
        return {"name": f"l{number}", "kind": kind, "window": window, "timezone": self.random.choice(ZONES), "max": most}

    def metadata(self):
        return {"wallet": self.history.wallet(), "metadata": {"m": self.random.randrange(9)}}

    def reverse(self):
        done = list(self.world.transactions.items())[-14:]
        if not done:
            return None
        name, transaction = self.random.choice(done)
        step = {"of": name, "reason": "model"}
        if transaction.parts and self.history.one_in(2):
            part = transaction.parts[0]
            amount = self.history.amount(part.wallet, (part.left, abs(part.change), part.left // 2))
            if transaction.kind == "posted" and not self.history.one_in(6):
                step["legs"] = [{"leg": part.leg, "amount": amount}]
            else:
                step["amount"] = amount
        if self.history.one_in(3):
            step["onInsufficient"] = self.random.choice(["refuse", "overdraft"])
        if self.history.one_in(4):
            step["expiredGrant"] = self.random.choice(["expire", "main"])
        return step

    def post(self):
        payer = self.history.wallet()
        if self.history.one_in(3):
            return self.split(payer)
        legs = []
        for _ in range(self.random.randrange(1, 4)):
            sides = [self.history.other(payer), payer]
            self.random.shuffle(sides)
            leg = {"from": sides[0], "to": sides[1], "amount": self.history.amount(payer, self.history.debitable(payer))}
            if self.history.one_in(5):
                leg.pop(self.random.choice(["from", "to"]))
            legs.append(leg)
        step = {"legs": legs}
        wallet = self.world.wallets.get(payer)
        if wallet and self.history.one_in(4):
            kind = self.random.choice(["minBalance", "maxBalance", "version"])
            value = wallet.version - self.random.randrange(2)
            bound = money.text(max(0, wallet.balance), wallet.scale)
            step["conditions"] = [{"wallet": payer, kind: value if kind == "version" else bound}]
        return step

    def split(self, payer):
        """Parts by percent, by weight, and one that takes the rest: their amounts are the service's to find."""
        kind = self.random.choice(["weights", "percents", "mixed", "rest"])
        parts = []
        for number in range(self.random.randrange(1, 4)):
            part = {"to": self.history.other(payer)}
            if kind == "weights" or (kind == "mixed" and number):
                part["weight"] = self.random.choice([1, 1, 2, 3])
            else:
                part["percent"] = self.random.choice(["10", "33.3", "2.9", "33.333333", "50"])
                if self.history.one_in(3):
                    part["plus"] = money.text(1, self.scale(payer))
            parts.append(part)
        if kind == "rest":
            parts.append({"to": self.history.other(payer), "rest": True})
        amount = self.history.amount(payer, self.history.debitable(payer))
        return {"from": payer, "amount": amount, "split": parts}

    def scale(self, name):
        wallet = self.world.wallets.get(name)
        return wallet.scale if wallet else 2

    def convert(self):
        source = self.history.wallet()
        mine = self.world.wallets.get(source)
        others = [name for name, wallet in self.world.wallets.items() if mine and wallet.currency != mine.currency]
        target = self.random.choice(others) if others and not self.history.one_in(10) else self.history.wallet()
        side, name = self.random.choice([("sourceAmount", source), ("targetAmount", target)])
        near = self.history.debitable(source) if side == "sourceAmount" else (1,)
        rate = self.random.choice(["1", "0.007", "149.5", "1.083457", "0.333333333333", "0", "1.0000000000001", "99"])
        return {"from": source, "to": target, side: self.history.amount(name, near), "rate": rate}

    def grant(self):
        name = self.history.wallet()
        step = {"wallet": name, "grant": f"g{len(self.history.steps)}", "amount": self.history.amount(name)}
        step["category"] = self.random.choice(["paid", "promotional"])
        if self.history.one_in(2):
            step["expiresIn"] = self.random.choice([3600, 86400])
        if self.history.one_in(3):
            step["priority"] = self.random.randrange(101)
        return step

    def void(self):
        grants = [(wallet.name, grant.name) for wallet in self.world.wallets.values() for grant in wallet.grants]
        if not grants:
            return None
        wallet, grant = self.random.choice(grants)
        return {"wallet": wallet, "grant": grant, "reason": "model"}
