"""Holds: placed, adjusted, released. Their captures are in `captures`, their expiry is in `world`."""

import limits
import money
from moves import Transaction, shown
from state import Hold
from world import Refused, Rules

TTL = 7 * 86_400_000
LONGEST = 366 * 86_400_000


def seen(world, hold):
    """A hold as answers show it, its wallet within it."""
    wallet = world.wallets[hold.wallet]

    def text(number):
        return money.text(number, wallet.scale)

    return {
        "id": world.ref(hold.name), "walletId": hold.wallet, "currency": wallet.currency, "status": hold.status,
        "amount": text(hold.amount), "maxCapture": text(hold.max_capture), "capturedAmount": text(hold.captured),
        "releasedAmount": text(hold.released), "remainingAmount": text(hold.remaining),
        "reserved": [{"grantId": world.ref(name), "amount": text(amount)} for name, amount in hold.reserved],
        "expiresAt": world.time(hold.expires_at), "toWalletId": hold.to, "closedBy": hold.closed_by,
        "wallet": shown(wallet),
    }


def expiry(rules, step, at, default):
    """When it is to expire: at a time, or after seconds from the command's own time."""
    expires = at + int(step["expiresIn"]) * 1000 if "expiresIn" in step else step.get("expiresAt", default)
    rules.need(expires is None or at < expires <= at + LONGEST, "invalid_value")
    return expires


def place(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"])
    most = world.amount(rules, step["maxCapture"]) if "maxCapture" in step else amount
    rules.need(step.get("to") != step["wallet"], "same_wallet")
    if amount is not None and most is not None:
        rules.need(most >= amount, "invalid_value")
    expires = expiry(rules, step, at, at + TTL)
    rules.stop(form=True)
    (wallet, *to) = world.lock(at, step["wallet"], *([step["to"]] if step.get("to") else []), expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    world.may_pay(rules, wallet)
    for destination in to:
        rules.need(destination.status != "closed", "wallet_closed")
        rules.need(destination.currency == wallet.currency, "currency_mismatch")
    rules.need(step["hold"] not in world.holds, "hold_exists")
    amount, most = world.units(rules, amount, wallet), world.units(rules, most, wallet)
    if amount is not None:
        free = wallet.free_main + wallet.limit if to else wallet.available
        rules.need(amount <= free, "insufficient_funds")
        limits.may_spend(rules, wallet, amount, at)
    rules.stop()
    hold = Hold(step["hold"], wallet.name, amount, most, expires, step.get("to"), at)
    reserve(wallet, hold, amount)
    world.holds[hold.name] = hold
    wallet.holds.append(hold)
    limits.spent(wallet, amount, at)
    world.emit(wallet, "WalletHoldPlaced", data=terms(world, wallet, hold), transaction=step["name"])
    world.transactions[step["name"]] = Transaction("hold", [])
    return seen(world, hold)


def terms(world, wallet, hold):
    """What the events of a hold's terms say."""
    return {
        "holdId": world.ref(hold.name), "holdAmount": money.text(hold.amount, wallet.scale),
        "maxCapture": money.text(hold.max_capture, wallet.scale), "expiresAt": world.time(hold.expires_at),
        "toWalletId": hold.to,
    }


def reserve(wallet, hold, amount):
    """Slices in draw order; a hold with a destination reserves main alone."""
    for grant, part in [] if hold.to else wallet.draw(amount):
        if grant:
            hold.reserved.append([grant.name, part])


def found(world, step, at):
    """The hold and its wallet under lock."""
    hold = world.holds.get(step["hold"])
    names_wallet = step.get("long") or "group" in step
    if hold is None or (names_wallet and step["wallet"] != hold.wallet):
        raise Refused(["hold_not_found"])
    to = [hold.to] if hold.to and step["do"] == "capture" else []
    return hold, *world.lock(at, hold.wallet, *to)


def is_open(rules, hold):
    if hold.status != "open":
        rules.need(False, "hold_expired" if hold.closed_by == "expiry" else "hold_closed")
        if hold.closed_by == "expiry" and hold.status == "captured":
            rules.need(False, "hold_closed")


def adjust(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"]) if "amount" in step else None
    rules.need({"amount", "expiresIn", "expiresAt"} & set(step), "missing_field")
    rules.stop(form=True)
    hold, wallet = found(world, step, at)
    world.at_version(rules, wallet, step.get("ifMatch"))
    is_open(rules, hold)
    expires = expiry(rules, step, at, hold.expires_at)
    total = hold.amount if amount is None else world.units(rules, amount, wallet)
    rules.stop()
    rise = max(0, total - hold.captured) - hold.remaining
    world.may_pay(rules, wallet)
    if amount is not None:
        rules.need(total > hold.captured, "invalid_amount")
    rules.need(rise <= (wallet.free_main + wallet.limit if hold.to else wallet.available), "insufficient_funds")
    limits.may_spend(rules, wallet, rise, at, 0)
    rules.stop()
    if rise > 0:
        grow(wallet, hold, rise)
    hold.amount, hold.expires_at = total, expires
    hold.max_capture = max(hold.max_capture, total)
    names = shrink(hold, -rise) if rise < 0 else []
    if rise:
        wallet.usage.append((at if rise > 0 else hold.placed_at, at, rise, 0))
    world.emit(wallet, "WalletHoldAdjusted", data=terms(world, wallet, hold), transaction=step["name"])
    world.sweep_gone(wallet, names, at)
    return seen(world, hold)


def grow(wallet, hold, rise):
    for grant, part in [] if hold.to else wallet.draw(rise):
        mine = next((slot for slot in hold.reserved if grant and slot[0] == grant.name), None)
        if mine:
            mine[1] += part
        elif grant:
            hold.reserved.append([grant.name, part])


def shrink(hold, fall):
    """Gives reserved slices back in reverse draw order: main's part, which was drawn last, first."""
    fall -= min(fall, max(0, hold.main_part + fall))
    names = []
    for slot in reversed(hold.reserved):
        part = min(fall, slot[1])
        slot[1] -= part
        fall -= part
        names += [slot[0]] if part else []
    hold.reserved = [slot for slot in hold.reserved if slot[1]]
    return names


def taken(world, wallet, hold, released):
    """What the events of money of a hold say."""
    return {
        "holdId": world.ref(hold.name), "releasedAmount": money.text(released, wallet.scale),
        "capturedTotal": money.text(hold.captured, wallet.scale), "holdStatus": hold.status,
    }


def release(world, step, at):
    hold, wallet = found(world, step, at)
    rules = Rules()
    world.at_version(rules, wallet, step.get("ifMatch"))
    rules.need(wallet.status != "closed", "wallet_closed")
    is_open(rules, hold)
    rules.stop()
    rest, names = hold.remaining, [name for name, _ in hold.reserved]
    hold.released += rest
    world.give_back_usage(wallet, hold, rest, at)
    hold.close("release")
    data = taken(world, wallet, hold, rest)
    world.emit(wallet, "WalletHoldReleased", data=data, transaction=step["name"])
    world.sweep_gone(wallet, names, at)
    return seen(world, hold)
