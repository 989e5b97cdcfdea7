"""Every command: its handler in the model, and what of a service it needs to be exercised."""

from dataclasses import dataclass

import captures
import convert
import grants
import holds
import limits
import marks
import moves
import post
import status
import undo
from moves import shown
from world import Refused

#: The command, its handler, and the route without which a service does not have it.
COMMANDS = {
    "create": (moves.create, "POST /wallets"),
    "credit": (moves.credit, "POST /wallets/{id}/credit"),
    "debit": (moves.debit, "POST /wallets/{id}/debit"),
    "transfer": (moves.transfer, "POST /wallets/{id}/transfer"),
    "hold": (holds.place, "POST /wallets/{id}/holds"),
    "adjust": (holds.adjust, "POST /holds/{id}/adjust"),
    "capture": (captures.capture, "POST /holds/{id}/capture"),
    "release": (holds.release, "POST /holds/{id}/release"),
    "freeze": (status.change, "POST /wallets/{id}/freeze"),
    "suspend": (status.change, "POST /wallets/{id}/suspend"),
    "activate": (status.change, "POST /wallets/{id}/activate"),
    "close": (status.close, "POST /wallets/{id}/close"),
    "limits": (limits.change, "POST /wallets/{id}/limits"),
    "metadata": (status.metadata, "PATCH /wallets/{id}"),
    "reverse": (undo.reverse, "POST /transactions/{id}/reverse"),
    "post": (post.post, "POST /transactions"),
    "convert": (convert.convert, "POST /conversions"),
    "unit": (convert.unit, "POST /units"),
    "grant": (grants.issue, "POST /wallets/{id}/grants"),
    "thresholds": (marks.thresholds, "PUT /wallets/{id}/thresholds"),
    "topup_rule": (marks.rule, "PUT /wallets/{id}/topup-rule"),
    "complete_topup": (marks.settle, "POST /topups/{id}/complete"),
    "fail_topup": (marks.settle, "POST /topups/{id}/fail"),
    "void": (grants.void, "POST /wallets/{id}/grants/{id}/void"),
}
#: Those that only have a route of their own.
ROUTE_ONLY = {"unit", "thresholds", "topup_rule", "complete_topup", "fail_topup"}
#: Those after which a mark may be met that was not there before.
MARKING = {"topup_rule", "thresholds"}


@dataclass
class Outcome:
    """What a command must come to. A refusal has the codes that may be named; any of them, each with its own status."""

    status: int
    codes: set
    body: dict
    #: Whether it is the request's form that is wrong, whatever the wallets hold.
    form: bool = False

    @property
    def accepted(self):
        return not self.codes


def decide(world, step, at):
    """Plays one command at a time; the world is changed where it is accepted, and by what was due."""
    handler, _ = COMMANDS[step["do"]]
    before = {wallet.name: wallet.own for wallet in world.wallets.values() if wallet.thresholds or wallet.topup}
    before |= {step["wallet"]: world.wallets[step["wallet"]].own} if step["do"] in MARKING and step["wallet"] in world.wallets else {}
    try:
        body = handler(world, step, at)
        marks.look(world, before, at, step)
    except Refused as refused:
        return Outcome(0, refused.codes, {}, refused.form)
    if body is None or step["do"] == "limits":
        body = shown(world.wallets[step["wallet"]])
    return Outcome(body.pop("_status", 201), set(), body)


def touched(step, world):
    """The wallets that a command is about, for a look at them afterwards."""
    names = {step.get(field) for field in ("wallet", "to", "from", "sweepTo")}
    for part in [*step.get("legs", []), *step.get("split", [])]:
        names |= {part.get("from"), part.get("to")}
    hold = world.holds.get(step.get("hold"))
    names |= {hold.wallet, hold.to} if hold else set()
    if step["do"] == "reverse" and step["of"] in world.transactions:
        names |= {part.wallet for part in world.transactions[step["of"]].parts}
    return sorted(name for name in names if name in world.wallets)
