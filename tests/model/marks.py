"""Marks on a wallet's own money: thresholds that are told when they are crossed, and a rule that asks for more.

Both look at *own* as a command began and as it ended, however many events lie between.
"""

import limits
import money
from moves import Part, Transaction, shown
from world import Refused, Rules


def thresholds(world, step, at):
    """`PUT /wallets/{id}/thresholds`: a percent becomes an amount here and stays one."""
    rules = Rules()
    (wallet,) = world.lock(at, step["wallet"])
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    marks = []
    for mark in step["thresholds"]:
        value = money.exact(mark["below"]) if "below" in mark else money.exact(mark["percent"]) * money.exact(mark["of"]) / 100
        marks.append((money.half_away(value * 10**wallet.scale), mark["name"]))
    rules.stop()
    wallet.thresholds = sorted(marks, key=lambda mark: -mark[0])
    return shown(wallet)


def rule(world, step, at):
    """`PUT /wallets/{id}/topup-rule`: while own is below, it asks at once."""
    rules = Rules()
    below = world.amount(rules, step["below"])
    more = world.amount(rules, step["amount"] if "amount" in step else step["upTo"])
    rules.stop(form=True)
    (wallet,) = world.lock(at, step["wallet"])
    for status in ("frozen", "closed"):
        rules.need(wallet.status != status, f"wallet_{status}")
    below, more = world.units(rules, below, wallet), world.units(rules, more, wallet)
    rules.stop()
    fixed = "amount" in step
    wallet.topup = {"below": below, "more": more, "fixed": fixed, "cap": step.get("cap"), "armed": True, "asked": []}
    return shown(wallet)


def asked(rule, own):
    """As many whole amounts as lift own to the mark, one at least; or what is missing up to a sum."""
    if not rule["fixed"]:
        return rule["more"] - own
    return rule["more"] * max(1, -((own - rule["below"]) // rule["more"]))


def look(world, before, at, step):
    """After a command: what it crossed, the highest mark first, and then whether more is to be asked for."""
    for name in sorted(before):
        wallet = world.wallets[name]
        for value, mark in wallet.thresholds:
            if before[name] >= value > wallet.own:
                data = {"name": mark, "value": money.text(value, wallet.scale)}
                world.emit(wallet, "WalletThresholdCrossed", data=data)
        if wallet.topup:
            top_up(world, wallet, at, step)


def top_up(world, wallet, at, step):
    rule = wallet.topup
    if wallet.own >= rule["below"]:
        rule["armed"] = True
        return
    is_open = any(request["status"] in ("requested", "processing") for request in rule["asked"])
    if is_open or not rule["armed"]:
        return
    amount, cap = asked(rule, wallet.own), rule["cap"]
    if cap and is_capped(wallet, rule, cap, amount, at):
        rule["armed"] = False
        world.emit(wallet, "WalletTopUpCapped")
        return
    name = f"u-{step['name']}-{wallet.name}"
    rule["asked"].append({"name": name, "amount": amount, "status": "requested", "at": at})
    world.emit(wallet, "WalletTopUpRequested", data={"amount": money.text(amount, wallet.scale)})


def is_capped(wallet, rule, cap, amount, at):
    """Whole requests count by the time at which they were made; those that failed do not."""
    now = limits.window(at, cap["window"], cap["timezone"])
    counted = [
        request for request in rule["asked"]
        if request["status"] != "failed" and limits.window(request["at"], cap["window"], cap["timezone"]) == now
    ]
    if "count" in cap and len(counted) + 1 > cap["count"]:
        return True
    total = sum(request["amount"] for request in counted) + amount
    return "amount" in cap and total > money.units(money.exact(cap["amount"]), wallet.scale)


def settle(world, step, at):
    """`POST /topups/{id}/complete` credits once; `fail` lets the rule rest until own has been back at the mark."""
    asking = [wallet for wallet in world.wallets.values() if wallet.topup]
    found = [(w, request) for w in asking for request in w.topup["asked"] if request["name"] == step["topup"]]
    if not found:
        raise Refused(["topup_not_found"])
    (wallet,) = world.lock(at, found[0][0].name)
    request, rules = found[0][1], Rules()
    rules.need(request["status"] in ("requested", "processing"), "topup_closed")
    rules.stop()
    if step["do"] == "fail_topup":
        request["status"], wallet.topup["armed"] = "failed", False
        return shown(wallet)
    world.may_be_paid(rules, wallet)
    rules.stop()
    request["status"] = "completed"
    amount = request["amount"]
    world.emit(wallet, "WalletCredited", amount, [("CREDIT", amount, "external", None)], transaction=step["name"])
    world.transactions[step["name"]] = Transaction("credit", [Part(wallet.name, 0, amount, "external")])
    return shown(wallet)
