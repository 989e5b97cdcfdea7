"""Captures: what a hold has reserved is taken, in parts, and over it where the hold allows that."""

import limits
from holds import found, is_open, seen, taken
from moves import Part, Transaction, drawn, pairs_of, pay
from world import Refused, Rules


def capture(world, step, at):
    rules = Rules()
    asked = world.amount(rules, step["amount"]) if "amount" in step else None
    rules.stop(form=True)
    hold, wallet, *to = found(world, step, at)
    world.at_version(rules, wallet, step.get("ifMatch"))
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    is_open(rules, hold)
    for destination in to:
        world.may_be_paid(rules, destination)
    amount = hold.remaining if asked is None else world.units(rules, asked, wallet)
    rules.stop()
    if amount <= 0:
        raise Refused(["invalid_amount", "amount_exceeds_hold"])
    rules.need(hold.captured + amount <= hold.max_capture, "amount_exceeds_hold")
    rules.stop()
    over = max(0, amount - hold.remaining)
    rules.need(over <= (wallet.free_main + wallet.limit if to else wallet.available), "insufficient_funds")
    limits.may_spend(rules, wallet, over, at, 0)
    rules.stop()
    slices, final = take(wallet, hold, amount, over), step.get("final", True)
    names = [name for name, _ in hold.reserved]
    hold.captured += amount
    released = 0
    if final:
        released = hold.remaining
        hold.released += released
        if released:
            world.give_back_usage(wallet, hold, released, at)
        hold.close("capture")
    if over:
        limits.spent(wallet, over, at, 0)
    data = taken(world, wallet, hold, released)
    data |= {"drawn": drawn(wallet, slices)} if drawn(wallet, slices) else {}
    counter = "transfers_in_flight" if to else "external"
    world.emit(wallet, "WalletHoldCaptured", -amount, pairs_of(slices, counter), data, step["name"])
    parts = [Part(wallet.name, 0, -amount, counter, slices, other=hold.to)]
    for destination in to:
        world.emit(destination, "WalletTransferCompleted", amount, [("CREDIT", amount, counter, None)], None, step["name"])
        parts.append(Part(destination.name, 0, amount, counter, other=wallet.name))
    world.transactions[step["name"]] = Transaction("capture", parts)
    world.sweep_gone(wallet, names, at)
    return seen(world, hold) | {"transactionId": world.ref(step["name"])}


def take(wallet, hold, amount, over):
    """What pays a capture: the hold's own slices first, then what it keeps of main, then new ones."""
    slices, left = [], amount - over
    by_name = {grant.name: grant for grant in wallet.grants}
    main = hold.main_part
    for slot in sorted(hold.reserved, key=lambda slot: by_name[slot[0]].order()):
        part = min(left, slot[1])
        if part:
            slices.append((by_name[slot[0]], part))
            slot[1] -= part
            left -= part
    hold.reserved = [slot for slot in hold.reserved if slot[1]]
    if min(left, main):
        slices.append((None, left))
    pay(wallet, slices)
    more = ([(None, over)] if hold.to else wallet.draw(over)) if over else []
    pay(wallet, more)
    return joined(slices + more)


def joined(slices):
    """Slices of the same grant, or of main, as one."""
    parts = []
    for grant, amount in slices:
        at = next((index for index, (other, _) in enumerate(parts) if other is grant), None)
        if at is None:
            parts.append((grant, amount))
        else:
            parts[at] = (grant, parts[at][1] + amount)
    return parts
