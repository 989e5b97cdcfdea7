"""Wallets are opened; money comes in, goes out, and goes from one to another."""

import limits
import money
from world import Rules, opened


def shown(wallet):
    """A wallet as answers show it."""
    def text(number):
        return money.text(number, wallet.scale)

    return {
        "id": wallet.name, "ownerId": wallet.owner, "currency": wallet.currency, "status": wallet.status,
        "balance": text(wallet.balance), "heldBalance": text(wallet.held),
        "availableBalance": text(wallet.available), "overdraftLimit": text(wallet.limit),
        "version": wallet.version, "metadata": wallet.metadata,
    }


class Part:
    """One movement of one wallet in a transaction: what a reversal takes back or gives back."""

    def __init__(self, wallet, leg, change, counter, slices=(), other=None):
        self.wallet, self.leg, self.change, self.counter, self.other = wallet, leg, change, counter, other
        #: [grant's name or None for main, amount] in the order in which they paid.
        self.slices = [(grant and grant.name, amount) for grant, amount in slices] or [(None, abs(change))]
        self.reversed = 0

    @property
    def left(self):
        return abs(self.change) - self.reversed


class Transaction:
    """`kind` says whether and how it can be reversed."""

    def __init__(self, kind, parts):
        self.kind, self.parts = kind, parts


def pairs_of(slices, counter):
    """Entries of a debit, a pair for each slice that paid."""
    return [("DEBIT", amount, counter, grant and grant.name) for grant, amount in slices]


def drawn(wallet, slices):
    return [{"grantId": grant, "amount": money.text(amount, wallet.scale)} for grant, amount in slices if grant]


def create(world, step, at):
    rules = Rules()
    initial = world.amount(rules, step.get("initial", "0"), zero=True)
    limit = world.amount(rules, step.get("overdraft", "0"), zero=True)
    rules.need(step["currency"] in world.scales, "invalid_currency")
    rules.stop(form=True)
    rules.need(step["wallet"] not in world.wallets, "wallet_exists")
    wallet = opened(step["wallet"], step["owner"], step["currency"], world.scales[step["currency"]], 0)
    initial, limit = world.units(rules, initial, wallet), world.units(rules, limit, wallet)
    rules.stop()
    wallet.limit = wallet.created_limit = limit
    wallet.metadata = step.get("metadata")
    world.open(wallet)
    world.emit(wallet, "WalletCreated", data={"overdraftLimit": money.text(limit, wallet.scale)})
    if initial:
        world.emit(wallet, "WalletCredited", initial, [("CREDIT", initial, "external", None)], transaction=step["name"])
        world.transactions[step["name"]] = Transaction("credit", [Part(wallet.name, 0, initial, "external")])
    return shown(wallet)


def credit(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"])
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    world.may_be_paid(rules, wallet)
    amount = world.units(rules, amount, wallet)
    rules.stop()
    world.fits(rules, wallet, amount)
    rules.stop()
    world.emit(wallet, "WalletCredited", amount, [("CREDIT", amount, "external", None)], transaction=step["name"])
    world.transactions[step["name"]] = Transaction("credit", [Part(wallet.name, 0, amount, "external")])
    return shown(wallet) | {"transactionId": world.ref(step["name"])}


def debit(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"])
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    world.may_pay(rules, wallet)
    amount = world.units(rules, amount, wallet)
    if amount is not None:
        rules.need(amount <= wallet.available, "insufficient_funds")
        limits.may_spend(rules, wallet, amount, at)
    rules.stop()
    slices = wallet.draw(amount)
    pay(wallet, slices)
    limits.spent(wallet, amount, at)
    data = {"drawn": drawn(wallet, slices)} if drawn(wallet, slices) else {}
    world.emit(wallet, "WalletDebited", -amount, pairs_of(slices, "external"), data, step["name"])
    world.transactions[step["name"]] = Transaction("debit", [Part(wallet.name, 0, -amount, "external", slices)])
    return shown(wallet) | {"transactionId": world.ref(step["name"])}


def pay(wallet, slices):
    """Takes slices out of their grants; main is what is left."""
    for grant, amount in slices:
        if grant:
            grant.remaining -= amount


def transfer(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"])
    rules.need(step["to"] != step["wallet"], "same_wallet")
    rules.stop(form=True)
    source, destination = world.lock(at, step["wallet"], step["to"], expected=step.get("ifMatch"))
    world.at_version(rules, source, step.get("ifMatch"))
    world.may_pay(rules, source)
    world.may_be_paid(rules, destination)
    rules.need(source.currency == destination.currency, "currency_mismatch")
    amount = world.units(rules, amount, source)
    if amount is not None:
        rules.need(amount <= source.free_main + source.limit, "insufficient_funds")
        limits.may_spend(rules, source, amount, at)
    rules.stop()
    world.fits(rules, destination, amount)
    rules.stop()
    limits.spent(source, amount, at)
    move(world, source, destination, amount, step["name"])
    return {"transferId": world.ref(step["name"]), "fromWallet": shown(source), "toWallet": shown(destination)}


def move(world, source, destination, amount, name):
    """The two events of a transfer."""
    flight = "transfers_in_flight"
    data = {"fromWalletId": source.name, "toWalletId": destination.name}
    out = [("DEBIT", amount, flight, None)]
    world.emit(source, "WalletTransferInitiated", -amount, out, data, name)
    world.emit(destination, "WalletTransferCompleted", amount, [("CREDIT", amount, flight, None)], data, name)
    sides = [
        Part(source.name, 0, -amount, flight, other=destination.name),
        Part(destination.name, 0, amount, flight, other=source.name),
    ]
    world.transactions[name] = Transaction("transfer", sides)
