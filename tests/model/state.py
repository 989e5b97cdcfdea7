"""What a wallet is: its balance, the holds and grants in it, and the numbers that follow from them.

*main* is the balance without what grants have left; *free* is without what open holds reserve; *own*
is the balance without what is held; *available* is own and the overdraft limit.
"""

from dataclasses import dataclass, field


@dataclass
class Grant:
    """Credit of its own kind within a wallet."""

    name: str
    category: str
    priority: int
    expires_at: int | None
    made: int
    amount: int
    remaining: int
    status: str = "open"

    def order(self):
        """Who is drawn first: priority, expiry with none last, age."""
        return (self.priority, self.expires_at is None, self.expires_at or 0, self.made)

    def is_gone(self, at):
        """Expired or voided; one that is used up is not, it may be given back to."""
        return self.status != "open" or (self.expires_at is not None and at >= self.expires_at)


@dataclass
class Hold:
    """Money kept for somebody who may take it until it expires."""

    name: str
    wallet: str
    amount: int
    max_capture: int
    expires_at: int
    to: str | None
    placed_at: int
    #: [grant's name, amount] in the order in which they were reserved; the rest is main's.
    reserved: list = field(default_factory=list)
    captured: int = 0
    released: int = 0
    status: str = "open"
    closed_by: str | None = None

    @property
    def remaining(self):
        return max(0, self.amount - self.captured) if self.status == "open" else 0

    @property
    def main_part(self):
        return self.remaining - sum(amount for _, amount in self.reserved)

    def close(self, by):
        self.status, self.closed_by, self.reserved = self.closed_as(by), by, []

    def closed_as(self, by):
        """`captured` if anything was, else after what closed it."""
        return "captured" if self.captured else {"release": "released", "expiry": "expired", "capture": "captured"}[by]


@dataclass
class Event:
    """One event as its data must say."""

    kind: str
    version: int
    previous: int
    balance: int
    change: int
    direction: str
    held: int
    available: int
    status: str
    transaction: str | None
    #: Own fields that must be in `data` just so.
    data: dict
    #: (side of the wallet, amount, counter account, grant's name), a pair of entries each.
    pairs: list


@dataclass
class Wallet:
    name: str
    owner: str
    currency: str
    scale: int
    limit: int
    created_limit: int
    balance: int = 0
    status: str = "active"
    version: int = 0
    holds: list = field(default_factory=list)
    grants: list = field(default_factory=list)
    #: Velocity limits, and what counts towards them: (time, amount, count).
    velocity: list = field(default_factory=list)
    usage: list = field(default_factory=list)
    #: Marks on own, the highest first, and the rule that asks for more: see `marks`.
    thresholds: list = field(default_factory=list)
    topup: dict | None = None
    metadata: object = None
    events: list = field(default_factory=list)

    def open_holds(self):
        return [hold for hold in self.holds if hold.status == "open"]

    def open_grants(self):
        """In the order in which they are drawn."""
        return sorted((grant for grant in self.grants if grant.remaining), key=Grant.order)

    @property
    def held(self):
        return sum(hold.remaining for hold in self.open_holds())

    def reserved_of(self, grant):
        return sum(amount for hold in self.open_holds() for name, amount in hold.reserved if name == grant.name)

    def free_of(self, grant):
        return grant.remaining - self.reserved_of(grant)

    @property
    def main(self):
        return self.balance - sum(grant.remaining for grant in self.grants)

    @property
    def free_main(self):
        return self.main - sum(hold.main_part for hold in self.open_holds())

    @property
    def own(self):
        return self.balance - self.held

    @property
    def available(self):
        return self.own + self.limit

    def draw(self, amount):
        """Slices [(grant or None for main, amount)] that pay: free parts of grants by their order, then main."""
        slices = []
        for grant in self.open_grants():
            part = min(amount, self.free_of(grant))
            if part > 0:
                slices.append((grant, part))
                amount -= part
        if amount:
            slices.append((None, amount))
        return slices
