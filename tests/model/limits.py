"""How much may be spent within a calendar window of a zone, and how far below zero a wallet may go."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import money
from world import Rules


def window(at, length, zone):
    """Which window an instant falls into: the local date, hour, week (from Monday) or month that it begins."""
    local = datetime.fromtimestamp(at / 1000, ZoneInfo(zone))
    if length == "PT1H":
        return (local.date(), local.hour, local.utcoffset())
    if length == "P1W":
        return local.date() - timedelta(days=local.weekday())
    return local.date() if length == "P1D" else (local.year, local.month)


def used(wallet, limit, at):
    """What counts within the window that `at` falls into: what was spent in it, less what was given back in it."""
    now = window(at, limit["window"], limit["timezone"])
    total = 0
    for counted, happened, amount, count in wallet.usage:
        within = all(window(time, limit["window"], limit["timezone"]) == now for time in (counted, happened))
        total += (count if limit["kind"] == "count" else amount) if within else 0
    return total


def may_spend(rules, wallet, amount, at, count=1):
    for limit in wallet.velocity:
        more = count if limit["kind"] == "count" else amount
        rules.need(more <= 0 or used(wallet, limit, at) + more <= limit["units"], "limit_exceeded")


def spent(wallet, amount, at, count=1):
    wallet.usage.append((at, at, amount, count))


def change(world, step, at):
    """`POST /wallets/{id}/limits`."""
    rules = Rules()
    rules.need(step.get("reason") and {"overdraft", "velocity"} & set(step), "missing_field")
    overdraft = world.amount(rules, step["overdraft"], zero=True) if "overdraft" in step else None
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    new = wallet.limit if overdraft is None else world.units(rules, overdraft, wallet)
    velocity = wallet.velocity
    if "velocity" in step:
        velocity = [read(world, rules, limit, wallet) for limit in step["velocity"]]
    rules.stop()
    rules.need(wallet.free_main + new >= 0, "limit_in_use")
    rules.stop()
    wallet.limit, wallet.velocity = new, velocity
    world.emit(wallet, "WalletLimitsChanged", transaction=step["name"])
    return wallet


def read(world, rules, limit, wallet):
    if limit["kind"] == "count":
        return limit | {"units": int(limit["max"])}
    value = world.amount(rules, limit["max"])
    return limit | {"units": None if value is None else world.units(rules, value, wallet)}
