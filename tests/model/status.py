"""Whether a wallet may be used: suspended, frozen, active again, closed with what is left swept away."""

import limits
import money
from moves import move, shown
from world import Rules

BECOMES = {"freeze": "frozen", "suspend": "suspended", "activate": "active"}


def change(world, step, at):
    """`freeze`, `suspend` and `activate`: any of them from any other, but nothing leaves *closed*."""
    rules = Rules()
    rules.need(step.get("reason"), "missing_field")
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    new = BECOMES[step["do"]]
    rules.need(wallet.status != "closed", "wallet_closed")
    rules.need(wallet.status != new, "status_unchanged")
    rules.stop()
    become(world, wallet, new, step["name"])
    return shown(wallet)


def become(world, wallet, new, name):
    data = {"previousStatus": wallet.status, "newStatus": new}
    wallet.status = new
    world.emit(wallet, "WalletStatusChanged", data=data, transaction=name)


def close(world, step, at):
    rules = Rules()
    rules.need(step.get("reason"), "missing_field")
    rules.stop(form=True)
    wallet, *to = world.lock(at, step["wallet"], *([step["sweepTo"]] if step.get("sweepTo") else []), expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    rules.need(wallet.status != "closed", "wallet_closed")
    rules.need(wallet not in to, "same_wallet")
    rules.need(not wallet.open_holds(), "wallet_has_holds")
    rules.need(not wallet.open_grants(), "wallet_has_grants")
    swept = wallet.balance if to and wallet.balance > 0 else 0
    rules.need(wallet.balance == swept, "wallet_not_empty")
    for destination in to:
        rules.need(destination.currency == wallet.currency, "currency_mismatch")
    if swept:
        world.may_pay(rules, wallet)
        world.may_be_paid(rules, to[0])
        limits.may_spend(rules, wallet, swept, at)
    rules.stop()
    if swept:
        world.fits(rules, to[0], swept)
        rules.stop()
        limits.spent(wallet, swept, at)
        move(world, wallet, to[0], swept, step["name"])
    become(world, wallet, "closed", step["name"])
    return shown(wallet)


def metadata(world, step, at):
    """`PATCH /wallets/{id}`: replaced whole."""
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    rules = Rules()
    world.at_version(rules, wallet, step.get("ifMatch"))
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    rules.stop()
    wallet.metadata = step["metadata"]
    world.emit(wallet, "WalletMetadataChanged", transaction=step["name"])
    return shown(wallet)


def amounts(wallet):
    """The numbers by which refusals explain themselves."""
    numbers = {"available": wallet.available, "own": wallet.own, "main": wallet.main, "held": wallet.held}
    return {name: money.text(number, wallet.scale) for name, number in numbers.items()}
