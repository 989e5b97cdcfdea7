"""Reversals: money is taken back where it had been put, and given back where it had been taken."""

import money
from moves import Transaction
from world import Refused, Rules

#: Transactions that can be undone at all, and those of them that can be undone in part.
WHOLE = {"conversion"}
REVERSIBLE = WHOLE | {"credit", "debit", "transfer", "capture", "posted"}


def reverse(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"]) if "amount" in step else None
    legs = {leg["leg"]: world.amount(rules, leg["amount"]) for leg in step.get("legs", [])}
    rules.need(step.get("reason"), "missing_field")
    rules.stop(form=True)
    original = world.transactions.get(step["of"])
    if original is None:
        raise Refused(["transaction_not_found"])
    wallets = world.lock(at, *sorted({part.wallet for part in original.parts}))
    rules.need(original.kind in REVERSIBLE, "not_reversible")
    rules.stop()
    asked = asked_of(world, rules, original, amount, legs)
    rules.stop()
    if not any(asked.values()):
        rules.need(False, "already_reversed")
    for part, part_amount in asked.items():
        rules.need(part_amount <= part.left or not part.left, "amount_exceeds_original")
        rules.need(part.left or not part_amount, "already_reversed")
        rules.need(part.left or not part_amount or amount is None, "amount_exceeds_original")
    rules.stop()
    for wallet in wallets:
        may_take_part(world, rules, wallet, asked, step)
    rules.stop()
    for part, part_amount in asked.items():
        if part_amount:
            undo(world, world.wallets[part.wallet], part, part_amount, step, at)
    world.transactions[step["name"]] = Transaction("reversal", [])
    gone = sum(part.reversed for part in original.parts)
    whole = sum(abs(part.change) for part in original.parts)
    return {
        "id": world.ref(step["name"]),
        "original": {"status": "reversed" if gone == whole else "partially_reversed"},
    }


def asked_of(world, rules, original, amount, legs):
    """How much of each part is to be undone."""
    parts = original.parts
    if amount is None and not legs:
        return {part: part.left for part in parts}
    rules.need(original.kind not in WHOLE, "partial_not_supported")
    rules.need(original.kind != "posted" or legs, "partial_not_supported")
    rules.need(original.kind == "posted" or not legs, "partial_not_supported")
    rules.stop()
    wallet = world.wallets[parts[0].wallet]
    if legs:
        return {part: world.units(rules, legs[part.leg], wallet) if part.leg in legs else 0 for part in parts}
    units = world.units(rules, amount, wallet)
    return {part: units for part in parts}


def may_take_part(world, rules, wallet, asked, step):
    mine = {part: amount for part, amount in asked.items() if part.wallet == wallet.name}
    takes = sum(amount for part, amount in mine.items() if part.change > 0)
    gives = sum(amount for part, amount in mine.items() if part.change < 0)
    if takes:
        world.may_pay(rules, wallet)
        backed = wallet.free_main + (wallet.limit if step.get("onInsufficient") == "overdraft" else 0)
        rules.need(takes - gives <= backed, "insufficient_funds")
    else:
        world.may_be_paid(rules, wallet)
    world.fits(rules, wallet, gives - takes)


def undo(world, wallet, part, amount, step, at):
    """One part: its mirror, a pair of entries for each slice that is given back."""
    back, gone = [], []
    if part.change > 0:
        back = [("DEBIT", amount, part.counter, None)]
    else:
        for name, slice_amount in slices_back(part, amount):
            grant = next((grant for grant in wallet.grants if grant.name == name), None)
            if grant and grant.is_gone(at) and step.get("expiredGrant") == "main":
                grant = None
            if grant:
                grant.remaining += slice_amount
                gone.append(grant.name)
            back.append(("CREDIT", slice_amount, part.counter, grant and grant.name))
    part.reversed += amount
    data = {
        "reversedTotal": money.text(part.reversed, wallet.scale),
        "originalAmount": money.text(abs(part.change), wallet.scale),
    }
    change = -amount if part.change > 0 else amount
    world.emit(wallet, "WalletReversed", change, back, data, step["name"])
    world.sweep_gone(wallet, gone, at)


def slices_back(part, amount):
    """What paid last comes back first; what has been given back before is passed over."""
    skip, slices = part.reversed, []
    for name, paid in reversed(part.slices):
        passed = min(skip, paid)
        skip -= passed
        take = min(amount, paid - passed)
        amount -= take
        if take:
            slices.append((name, take))
    return slices
