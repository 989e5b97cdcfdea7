"""`POST /transactions`: many legs in one transaction, splits, and conditions on what they leave."""

import limits
import money
from moves import Part, Transaction
from world import Rules

FLIGHT, OUTSIDE = "transfers_in_flight", "external"


def post(world, step, at):
    rules = Rules()
    legs = form(world, rules, step)
    rules.stop(form=True)
    named = {leg[side] for leg in legs for side in ("from", "to") if leg.get(side)}
    named |= {condition["wallet"] for condition in step.get("conditions", [])}
    wallets = {wallet.name: wallet for wallet in world.lock(at, *sorted(named))}
    paid = [name for leg in legs for name in [leg.get("from")] if name]
    scale_of = wallets[sorted(named)[0]]
    rules.need(len({wallets[name].currency for name in named}) == 1, "currency_mismatch")
    for name, wallet in wallets.items():
        (world.may_pay if name in paid else world.may_be_paid)(rules, wallet)
    legs = resolved(world, rules, legs, step, scale_of)
    rules.stop()
    change = {name: 0 for name in named}
    outs = {name: 0 for name in named}
    for leg in legs:
        for side, sign in (("from", -1), ("to", 1)):
            if leg.get(side):
                change[leg[side]] += sign * leg["units"]
                outs[leg[side]] += leg["units"] if sign < 0 else 0
    for name, wallet in wallets.items():
        rules.need(name not in paid or wallet.free_main + wallet.limit + change[name] >= 0, "insufficient_funds")
        if outs[name]:
            limits.may_spend(rules, wallet, outs[name], at)
        world.fits(rules, wallet, change[name])
    conditions(world, rules, step, wallets, change)
    rules.stop()
    transaction = Transaction("posted", [])
    for name in sorted(name for name in named if any(name in (leg.get("from"), leg.get("to")) for leg in legs)):
        transaction.parts += happened(world, wallets[name], legs, change[name], step["name"])
        if outs[name]:
            limits.spent(wallets[name], outs[name], at)
    world.transactions[step["name"]] = transaction
    return {"id": world.ref(step["name"])}


def form(world, rules, step):
    """The legs, those of a split without their amounts."""
    legs = [dict(leg) for leg in step.get("legs", [])]
    for leg in legs:
        leg["value"] = world.amount(rules, leg["amount"])
        rules.need(leg.get("from") or leg.get("to"), "invalid_value")
        rules.need(leg.get("from") != leg.get("to"), "same_wallet")
    for part in step.get("split", []):
        legs.append({"from": step["from"], "to": part["to"], "part": part})
        rules.need(part["to"] != step["from"], "same_wallet")
    rules.need(1 <= len(legs) <= 100, "invalid_value")
    if "split" in step:
        world.amount(rules, step["amount"])
    return legs


def resolved(world, rules, legs, step, wallet):
    """Every leg's amount in whole units."""
    for leg in legs:
        if "value" in leg:
            leg["units"] = world.units(rules, leg["value"], wallet)
    if "split" in step:
        total = world.units(rules, world.amount(rules, step["amount"]), wallet)
        rules.stop()
        parts = [leg for leg in legs if "part" in leg]
        for leg, units in zip(parts, split(rules, total, [leg["part"] for leg in parts], wallet.scale)):
            leg["units"] = units
    rules.stop()
    return [leg for leg in legs if leg["units"]]


def split(rules, total, parts, scale):
    """Fixed amounts and percents, each rounded alone; then what is left by weight, cumulatively, or to the rest."""
    given = []
    for part in parts:
        value = 0
        if "amount" in part:
            value = money.units(money.exact(part["amount"]), scale)
        elif "percent" in part:
            value = money.half_away(total * money.exact(part["percent"]) / 100)
            value += money.units(money.exact(part.get("plus", "0")), scale)
        given.append(value)
    left = total - sum(given)
    weights = [money.exact(part["weight"]) for part in parts if "weight" in part]
    rest = [index for index, part in enumerate(parts) if part.get("rest")]
    rules.need(left >= 0 and (weights or rest or not left), "split_mismatch")
    rules.stop()
    by_weight = iter(money.shares(left, weights) if weights else [])
    for index, part in enumerate(parts):
        if "weight" in part:
            given[index] = next(by_weight)
        elif part.get("rest"):
            given[index] = left
    return given


def conditions(world, rules, step, wallets, change):
    for condition in step.get("conditions", []):
        wallet = wallets[condition["wallet"]]
        after = wallet.balance + change[wallet.name]
        for bound, holds in (("minBalance", lambda limit: after >= limit), ("maxBalance", lambda limit: after <= limit)):
            if bound in condition:
                limit = money.units(money.exact(condition[bound]), wallet.scale)
                rules.need(holds(limit), "condition_failed")
        if "version" in condition:
            rules.need(condition["version"] == wallet.version, "version_mismatch")


def happened(world, wallet, legs, change, name):
    """One event with a pair of entries for each of the wallet's legs: credits first, then debits."""
    parts = []
    for side, other, sign in (("to", "from", 1), ("from", "to", -1)):
        for index, leg in enumerate(legs):
            if leg.get(side) == wallet.name:
                counter = FLIGHT if leg.get(other) else OUTSIDE
                parts.append(Part(wallet.name, index, sign * leg["units"], counter, other=leg.get(other)))
    pairs = [("CREDIT" if part.change > 0 else "DEBIT", abs(part.change), part.counter, None) for part in parts]
    world.emit(wallet, "WalletTransactionPosted", change, pairs, transaction=name)
    return parts
