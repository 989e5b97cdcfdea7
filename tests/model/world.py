"""All that a tenant has, what is due on it, and how a command is decided: rules either hold or are named.

A handler of a command (`moves`, `holds`, `status`, …) checks the form of its request, locks the wallets
that it touches, which does what is due on them, checks the rules, and emits events. It refuses by
naming every rule that is broken: a service may name any of those.
"""

import money
from state import Event, Wallet

#: Refusals that a key does not remember.
NOT_KEPT = {"wallet_not_found", "hold_not_found", "transaction_not_found", "grant_not_found", "version_mismatch"}
STATUS = {
    404: {"wallet_not_found", "hold_not_found", "transaction_not_found", "grant_not_found", "unit_not_found", "topup_not_found"},
    409: {
        "wallet_exists", "wallet_frozen", "wallet_closed", "wallet_suspended", "hold_closed", "hold_expired",
        "hold_exists", "already_reversed", "not_reversible", "wallet_not_empty", "wallet_has_holds",
        "wallet_has_grants", "status_unchanged", "limit_exceeded", "limit_in_use", "condition_failed",
        "unit_exists", "too_many_holds", "grant_closed",
        "topup_closed",
    },
    412: {"version_mismatch"},
}


class Refused(Exception):
    """The codes of all rules that are broken; any of them may be named."""

    def __init__(self, codes, form=False):
        super().__init__(", ".join(sorted(codes)))
        self.codes = set(codes)
        self.form = form


def status_of(code):
    return next((status for status, codes in STATUS.items() if code in codes), 400)


class Rules:
    """Collects what is broken; `stop` refuses where anything is."""

    def __init__(self):
        self.broken = []

    def need(self, holds, code):
        if not holds:
            self.broken.append(code)
        return holds

    def stop(self, form=False):
        if self.broken:
            raise Refused(self.broken, form)


class Ref:
    """Stands in an expected answer for an id that the service made: the same name must mean the same id."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"


class Time:
    """Stands in an expected answer for a time, in milliseconds."""

    def __init__(self, at):
        self.at = at

    def __repr__(self):
        return f"<time {self.at}>"


class World:
    ref, time = Ref, Time

    def __init__(self):
        self.scales = dict(money.SCALES)
        self.wallets = {}
        self.holds = {}
        #: By name: what reversals need of a transaction.
        self.transactions = {}
        self.made = 0

    # --- reading a request ---

    def amount(self, rules, token, zero=False):
        """The form of an amount; None where it has none."""
        try:
            return money.amount(token, zero)
        except money.NotAnAmount as why:
            rules.need(False, str(why))
            return None

    def units(self, rules, value, wallet):
        """An amount in the wallet's smallest unit; None where it is too fine."""
        try:
            return money.units(value, wallet.scale)
        except money.NotAnAmount as why:
            rules.need(False, str(why))
            return None

    # --- wallets under lock ---

    def lock(self, at, *names, expected=None):
        """The wallets, after what is due on them; refuses where one is not there, or the first is not at its version."""
        rules = Rules()
        for name in sorted(set(names)):
            if rules.need(name in self.wallets, "wallet_not_found"):
                self.expire(self.wallets[name], at)
        there = [self.wallets[name] for name in names if name in self.wallets]
        if rules.broken:
            # What is wrong with those that are there may be said first.
            for wallet in there:
                self.may_pay(rules, wallet)
            rules.need(expected is None or not there or there[0].version == expected, "version_mismatch")
        rules.stop()
        return there

    def expire(self, wallet, at):
        """Writes every expiry that is due, the earliest first: exactly at its time, whoever meets it."""
        while True:
            due = [(hold.expires_at, 0, hold) for hold in wallet.open_holds() if at >= hold.expires_at]
            due += [
                (grant.expires_at, 1, grant)
                for grant in wallet.grants
                if grant.expires_at is not None and at >= grant.expires_at and wallet.free_of(grant)
            ]
            if not due:
                return
            _, kind, first = min(due, key=lambda entry: (entry[0], entry[1]))
            if kind == 0:
                self.expire_hold(wallet, first, at)
            else:
                self.expire_grant(wallet, first)

    def expire_hold(self, wallet, hold, at):
        rest, names = hold.remaining, [name for name, _ in hold.reserved]
        hold.released += rest
        self.give_back_usage(wallet, hold, rest, at)
        hold.close("expiry")
        def text(number):
            return money.text(number, wallet.scale)

        data = {"holdId": self.ref(hold.name), "releasedAmount": text(rest), "capturedTotal": text(hold.captured)}
        data["holdStatus"] = hold.status
        self.emit(wallet, "WalletHoldExpired", data=data)
        self.sweep_gone(wallet, names, at)

    def expire_grant(self, wallet, grant):
        """The free rest of a grant goes; what a hold reserves of it stays until that gives it back."""
        gone = wallet.free_of(grant)
        kind, account = "WalletGrantExpired", {"paid": "breakage", "promotional": "promotions"}[grant.category]
        if grant.status == "voided":
            kind, account = "WalletGrantVoided", {"paid": "external", "promotional": "promotions"}[grant.category]
        else:
            grant.status = "expired"
        grant.remaining -= gone
        data = {"grantId": self.ref(grant.name), "remaining": money.text(grant.remaining, wallet.scale)}
        self.emit(wallet, kind, -gone, pairs=[("DEBIT", gone, account, grant.name)], data=data)

    def sweep_gone(self, wallet, names, at):
        """What was just given back to grants that are gone, goes."""
        for grant in [grant for grant in wallet.grants if grant.name in names]:
            if grant.is_gone(at) and wallet.free_of(grant):
                self.expire_grant(wallet, grant)

    def give_back_usage(self, wallet, hold, amount, at):
        """A release or an expiry gives back, within the window in which the hold counted."""
        wallet.usage.append((hold.placed_at, at, -amount, 0 if hold.captured else -1))

    # --- what a command may ask of a wallet ---

    def may_pay(self, rules, wallet):
        for status in ("suspended", "frozen", "closed"):
            rules.need(wallet.status != status, f"wallet_{status}")

    def may_be_paid(self, rules, wallet):
        for status in ("frozen", "closed"):
            rules.need(wallet.status != status, f"wallet_{status}")

    def at_version(self, rules, wallet, expected):
        rules.need(expected is None or expected == wallet.version, "version_mismatch")

    def fits(self, rules, wallet, change):
        rules.need(abs(wallet.balance + change) <= money.BALANCE_MAX * 10**wallet.scale, "balance_overflow")

    # --- what happened ---

    def emit(self, wallet, kind, change=0, pairs=(), data=None, transaction=None):
        """The wallet's next event. Holds and grants have been changed before: the event says what is after it."""
        previous = wallet.balance
        wallet.balance += change
        wallet.version += 1
        direction = "DEBIT" if change < 0 else "CREDIT"
        event = Event(
            kind, wallet.version, previous, wallet.balance, abs(change), direction, wallet.held,
            wallet.available, wallet.status, transaction, data or {}, list(pairs),
        )
        wallet.events.append(event)
        return event

    def open(self, wallet):
        self.wallets[wallet.name] = wallet
        return wallet


def opened(name, owner, currency, scale, limit):
    return Wallet(name, owner, currency, scale, limit, limit)
