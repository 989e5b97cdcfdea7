"""After a history: its events, their replay, the ledger and the read model are what the model has."""

import time
from fractions import Fraction
from urllib.parse import quote

import money
import reads
from compare import Difference, differences, named
from moves import shown

PAGE = 1000
#: Seconds; a second is promised, on a machine that has nothing else to do.
SWEPT_WITHIN = 10
#: The words of entries between an event and its counter account, where they differ from their side.
WORDS = {
    "WalletTransferInitiated": "TRANSFER_OUT", "WalletTransferCompleted": "TRANSFER_IN", "WalletHoldCaptured": "CAPTURE",
    "WalletConversionInitiated": "CONVERSION_OUT", "WalletConversionCompleted": "CONVERSION_IN",
    "WalletGrantIssued": "GRANT", "WalletGrantExpired": "GRANT_EXPIRED", "WalletGrantVoided": "GRANT_VOIDED",
}


def check(player):
    """Compares all that the service keeps of the history's wallets."""
    swept(player)
    token = {"Consistency-Token": player.token["last"]} if player.token else {}
    for wallet in player.world.wallets.values():
        player.look(wallet.name)
    kept = {}
    for wallet in player.world.wallets.values():
        kept[wallet.name] = events(player, wallet)
        ledger(player, wallet, token)
    reads.check(player, kept)
    if "GET /holds/{id}" in player.can.routes:
        holds(player)


def swept(player):
    """What is due, or will be in a moment, is waited for: the service expires it by itself, soon after its time."""
    soon = int(time.time() * 1000) + 3_000
    for wallet in player.world.wallets.values():
        ends = [hold.expires_at for hold in wallet.open_holds()] + [grant.expires_at or soon for grant in wallet.open_grants()]
        due = max((end for end in ends if end < soon), default=None)
        if due is None:
            continue
        player.world.expire(wallet, due)
        until = max(due / 1000, time.time()) + SWEPT_WITHIN
        while time.time() < until:
            answer = player.client.get(f"/wallets/{player.names.wallet(wallet.name)}")
            if answer.body["version"] == wallet.version:
                break
            time.sleep(0.05)


def ask(player, path, headers=None):
    """A read that may be behind its token; never for more than a few seconds in all."""
    answer = player.client.get(path, headers)
    for _ in range(3):
        if answer.status != 503:
            break
        answer = player.client.get(path, headers)
    if answer.status != 200:
        raise Difference(f"GET {path}: {answer.status} {answer.text}")
    return answer.body


def events(player, wallet):
    path, kept, after = f"/wallets/{player.names.wallet(wallet.name)}/events", [], 0
    while True:
        page = ask(player, f"{path}?afterVersion={after}&limit={PAGE}")
        kept += page["events"]
        if not page["events"] or page["nextAfterVersion"] is None or len(page["events"]) < PAGE:
            break
        after = page["nextAfterVersion"]
    if len(kept) != len(wallet.events):
        seen, wanted = [event["eventType"] for event in kept], [event.kind for event in wallet.events]
        raise Difference(f"{wallet.name}: the events are {seen}, expected {wanted}")
    for expected, actual in zip(wallet.events, kept, strict=True):
        wrong = event_differences(player, wallet, expected, actual)
        if wrong:
            raise Difference(f"{wallet.name}, event {expected.version} {actual!r}\n  " + "\n  ".join(wrong))
    replayed(player, wallet, kept)
    return kept


def event_differences(player, wallet, event, actual):
    def text(number):
        return money.text(number, wallet.scale)

    data = {
        "previousBalance": text(event.previous), "newBalance": text(event.balance),
        "changeAmount": text(event.change), "changeType": event.direction, "currency": wallet.currency,
    }
    # Left out while they are as the wallet was created.
    said = actual["data"]
    if event.held or "heldBalance" in said:
        data["heldBalance"] = text(event.held)
    if event.available != event.balance - event.held + wallet.created_limit or "availableBalance" in said:
        data["availableBalance"] = text(event.available)
    envelope = {"eventType": event.kind, "aggregateVersion": event.version, "data": named(data | event.data, player.names)}
    wrong = differences(envelope, actual, player.names, {})
    if event.transaction and not wrong:
        id_ = said.get("transactionId") or said.get("transferId")
        if not player.names.learn(event.transaction, id_) and event.transaction in player.world.transactions:
            wrong = [f"transaction {id_} is not {player.names.of(event.transaction)}"] if is_transaction(player, event) else []
    return wrong


def is_transaction(player, event):
    """Whether the name means a transaction, and not a hold or a grant that shares it."""
    return event.transaction not in player.world.holds


def replayed(player, wallet, kept):
    """The state that events carry, applied one after the other, ends where the wallet stands."""
    balance, held, status = Fraction(0), Fraction(0), "active"
    limit = available = Fraction(0)
    for event in kept:
        data = event["data"]
        if event["eventType"] == "WalletCreated":
            limit = Fraction(data["overdraftLimit"])
        if Fraction(data["previousBalance"]) != balance:
            raise Difference(f"{wallet.name}, event {event['aggregateVersion']} begins elsewhere: {data!r}")
        balance += Fraction(data["changeAmount"]) * (-1 if data["changeType"] == "DEBIT" else 1)
        held, status = Fraction(data.get("heldBalance", 0)), data.get("status", "active")
        available = Fraction(data["availableBalance"]) if "availableBalance" in data else balance - held + limit
        if available < 0 or held < 0 or Fraction(data["newBalance"]) != balance:
            raise Difference(f"{wallet.name}, event {event['aggregateVersion']} ends elsewhere: {data!r}")
    expected = [Fraction(number, 10**wallet.scale) for number in (wallet.balance, wallet.held, wallet.available)]
    if [balance, held, available] != expected or status != wallet.status:
        raise Difference(f"{wallet.name} replayed: {balance}, {held}, {available}, {status}; expected {shown(wallet)}")


def ledger(player, wallet, token):
    """The wallet's own entries, one for each pair, in the order of its events."""
    kept = ask(player, f"/ledger/wallet/{quote(player.names.wallet(wallet.name))}?limit={PAGE}", token)["transactions"]
    expected = []
    for event in wallet.events:
        running = event.previous
        for side, amount, _, _ in event.pairs:
            before, running = running, running + (amount if side == "CREDIT" else -amount)
            expected.append({
                "transactionType": word(event, side), "amount": money.text(amount, wallet.scale),
                "balanceBefore": money.text(before, wallet.scale), "balanceAfter": money.text(running, wallet.scale),
                "currency": wallet.currency, "version": event.version,
            })
    # Newest first; entries of one event are compared in any order.
    kept.sort(key=lambda entry: (entry["version"], entry["transactionType"], entry["amount"], entry["balanceAfter"]))
    expected.sort(key=lambda entry: (entry["version"], entry["transactionType"], entry["amount"], entry["balanceAfter"]))
    if len(kept) < PAGE:
        wrong = differences(expected, kept, player.names, {}, wallet.name)
        if wrong:
            raise Difference("entries\n  " + "\n  ".join(wrong[:6]))


def word(event, side):
    if event.kind == "WalletReversed":
        return f"REVERSAL_{side}"
    if event.kind == "WalletTransactionPosted":
        counter = next(counter for pair_side, _, counter, _ in event.pairs if pair_side == side)
        return {"CREDIT": "TRANSFER_IN", "DEBIT": "TRANSFER_OUT"}[side] if counter != "external" else side
    return WORDS.get(event.kind, side)


def holds(player):
    from holds import seen

    for hold in player.world.holds.values():
        body = seen(player.world, hold)
        body.pop("wallet")
        kept = ask(player, f"/holds/{player.names.of(hold.name)}")
        wrong = differences(named(body, player.names), kept, player.names, {}, hold.name)
        if wrong:
            raise Difference(f"GET /holds: {kept!r}\n  " + "\n  ".join(wrong))


def expected(player):
    """What the read model must have of each wallet, and what each system account must sum to."""
    wallets, accounts = {}, {}
    for wallet in player.world.wallets.values():
        wallets[player.names.wallet(wallet.name)] = {
            "balance": money.text(wallet.balance, wallet.scale), "held_balance": money.text(wallet.held, wallet.scale),
            "overdraft_limit": money.text(wallet.limit, wallet.scale), "status": wallet.status, "version": wallet.version,
        }
        for event in wallet.events:
            for side, amount, counter, _ in event.pairs:
                exact = Fraction(amount, 10**wallet.scale)
                counters = counter if isinstance(counter, list) else [(counter, exact)]
                for account, value in counters:
                    credit = side == "DEBIT" or account == "fx_rounding"
                    key = f"{account} {wallet.currency}"
                    accounts[key] = accounts.get(key, Fraction(0)) + (value if credit else -value)
    return wallets, {key: str(value) for key, value in accounts.items()}
