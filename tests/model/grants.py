"""Grants: credit with an order, an end, and a counter account of its own. Who draws them is in `state`."""

import money
from state import Grant
from moves import Transaction, shown
from world import Refused, Rules

PRIORITY = {"paid": 50, "promotional": 10}
FUNDED = {"paid": "external", "promotional": "promotions"}
OPEN_MAX = 100


def issue(world, step, at):
    rules = Rules()
    amount = world.amount(rules, step["amount"])
    rules.need(step["category"] in FUNDED, "invalid_value")
    expires = at + int(step["expiresIn"]) * 1000 if "expiresIn" in step else step.get("expiresAt")
    rules.need(expires is None or expires > at, "invalid_value")
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    world.at_version(rules, wallet, step.get("ifMatch"))
    world.may_be_paid(rules, wallet)
    amount = world.units(rules, amount, wallet)
    rules.need(len(wallet.open_grants()) < OPEN_MAX, "too_many_grants")
    rules.stop()
    world.made += 1
    priority = step.get("priority", PRIORITY[step["category"]])
    grant = Grant(step["grant"], step["category"], priority, expires, world.made, amount, amount)
    wallet.grants.append(grant)
    pairs = [("CREDIT", amount, FUNDED[grant.category], grant.name)]
    data = {"category": grant.category, "priority": priority, "grantAmount": money.text(amount, wallet.scale)}
    world.emit(wallet, "WalletGrantIssued", amount, pairs, data, step["name"])
    world.transactions[step["name"]] = Transaction("grant", [])
    return {"id": world.ref(grant.name), "wallet": shown(wallet)}


def void(world, step, at):
    """The free rest goes now, what a hold reserves when that gives it back."""
    rules = Rules()
    rules.need(step.get("reason"), "missing_field")
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"], expected=step.get("ifMatch"))
    grant = next((grant for grant in wallet.grants if grant.name == step["grant"]), None)
    if grant is None:
        raise Refused(["grant_not_found"])
    world.at_version(rules, wallet, step.get("ifMatch"))
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    rules.need(grant.status == "open" and grant.remaining, "grant_closed")
    rules.stop()
    grant.status = "voided"
    world.expire_grant(wallet, grant)
    world.transactions[step["name"]] = Transaction("grant", [])
    return {"id": world.ref(grant.name), "wallet": shown(wallet)}
