"""Reads that look back: transactions by their ids, balances at a moment, statements of a period."""

from urllib.parse import quote

import money
from compare import Difference, differences, named


def check(player, kept):
    """`kept` has each wallet's events as the service gave them."""
    routes = player.can.routes
    for name, events in kept.items():
        wallet = player.world.wallets[name]
        if "GET /wallets/{id}/balance" in routes:
            moments(player, wallet, events)
        if "GET /wallets/{id}/statement" in routes:
            statement(player, wallet, events)
    if "GET /transactions/{id}" in routes:
        transactions(player)


def agree(player, path, expected):
    answer = player.client.get(path)
    wrong = [f"{answer.status}"] if answer.status != 200 else []
    wrong = wrong or differences(named(expected, player.names), answer.body, player.names, {})
    if wrong:
        raise Difference(f"GET {path}: {answer.text}\n  " + "\n  ".join(wrong))
    return answer.body


def moments(player, wallet, events):
    """The balance at the very time of an event counts that event, and the ones of the same time after it."""
    path = f"/wallets/{quote(player.names.wallet(wallet.name))}/balance"
    for index in {0, len(events) // 3, len(events) // 2, len(events) - 1}:
        at = events[index]["timestamp"]
        last = max(place for place, event in enumerate(events) if event["timestamp"] <= at)
        event = wallet.events[last]
        limit = event.available - event.balance + event.held
        numbers = {
            "balance": event.balance, "heldBalance": event.held, "availableBalance": event.available,
            "overdraftLimit": limit,
        }
        shown = {field: money.text(number, wallet.scale) for field, number in numbers.items()}
        agree(player, f"{path}?at={quote(at)}", {"version": event.version} | shown)


def statement(player, wallet, events):
    """From the middle of the wallet's life to its end: opening, every entry with its running balance, closing."""
    begins = events[len(events) // 2]["timestamp"]
    before = [event for event, kept in zip(wallet.events, events) if kept["timestamp"] < begins]
    within = wallet.events[len(before) :]
    opening = before[-1].balance if before else 0
    entries = []
    for event in within:
        running = event.previous
        for side, amount, _, _ in event.pairs:
            running += amount if side == "CREDIT" else -amount
            texts = money.text(amount, wallet.scale), money.text(running, wallet.scale)
            entries.append({"direction": side, "amount": texts[0], "balance": texts[1], "version": event.version})
    expected = {
        "openingBalance": money.text(opening, wallet.scale), "openingVersion": len(before), "entries": entries,
        "closingBalance": money.text(wallet.balance, wallet.scale), "closingVersion": wallet.version,
    }
    path = f"/wallets/{quote(player.names.wallet(wallet.name))}/statement"
    agree(player, f"{path}?from={quote(begins)}&to=9999-12-31T00:00:00Z", expected)


def transactions(player):
    """What of each is reversed, and its legs: the wallets' entries, however many events they come from."""
    for name, transaction in player.world.transactions.items():
        legs = []
        for wallet in player.world.wallets.values():
            for event in wallet.events:
                if event.transaction == name:
                    legs += [(player.names.wallet(wallet.name), side, money.text(amount, wallet.scale)) for side, amount, _, _ in event.pairs]
        if not legs or not player.names.known.get(name):
            continue
        whole = sum(abs(part.change) for part in transaction.parts)
        gone = sum(part.reversed for part in transaction.parts)
        status = "posted" if not gone else "reversed" if gone == whole else "partially_reversed"
        kept = agree(player, f"/transactions/{player.names.of(name)}", {"status": status})
        shown = sorted((leg["walletId"], leg["direction"], leg["amount"]) for leg in kept["legs"] if leg["walletId"])
        if shown != sorted(legs):
            raise Difference(f"transaction {name} has the legs {shown}, expected {sorted(legs)}")
