"""How commands are asked over HTTP: route and body of each, and its item in `POST /bulk`."""

import re
import uuid

#: A step's fields by the names that bodies have.
FIELDS = {
    "amount": "amount", "to": "toWalletId", "description": "description", "reference": "reference",
    "metadata": "metadata", "owner": "ownerId", "currency": "currency", "initial": "initialBalance",
    "overdraft": "overdraftLimit", "expiresIn": "expiresIn", "maxCapture": "maxCapture", "final": "final",
    "reason": "reason", "velocity": "velocity", "category": "category", "priority": "priority",
    "onInsufficient": "onInsufficient", "expiredGrant": "expiredGrant", "legs": "legs", "split": "split",
    "conditions": "conditions", "sourceAmount": "sourceAmount", "targetAmount": "targetAmount", "rate": "rate",
    "code": "code", "scale": "scale", "unitName": "name", "sweepTo": "sweepTo",
}
#: Fields that hold a wallet's name, wherever they stand.
WALLETS = {"toWalletId", "sweepTo"}
OPS = {"void": "void_grant"}


class Names:
    """Which ids the model's names have on the service: those of its wallets, and those that it made."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.known = {}

    def wallet(self, name):
        return f"{self.prefix}-{name}"

    def of(self, name):
        """The id of a hold, grant or transaction; one that nothing has where the service made none."""
        return self.known.get(name) or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.prefix}/{name}"))

    def learn(self, name, value):
        """Whether the id is the one that the name has, which it now has."""
        return self.known.setdefault(name, value) == value


def body(step, names):
    """A step's body for its route."""
    made = {wire: step[field] for field, wire in FIELDS.items() if field in step}
    for field in WALLETS & set(made):
        made[field] = made[field] and names.wallet(made[field])
    do = step["do"]
    if do == "create":
        made["walletId"] = names.wallet(step["wallet"])
    if do == "hold" and not step.get("unnamed"):
        made["holdId"] = names.of(step["hold"])
    if do == "post":
        made.pop("toWalletId", None)
        if "split" in made:
            split = [part | {"to": names.wallet(part["to"])} for part in made.pop("split")]
            made["legs"] = [{"from": names.wallet(step["from"]), "amount": made.pop("amount"), "split": split}]
        else:
            sides = ("from", "to")
            made["legs"] = [leg | {s: names.wallet(leg[s]) for s in sides if leg.get(s)} for leg in made["legs"]]
        if "conditions" in made:
            made["conditions"] = [
                {"walletId": names.wallet(c["wallet"])} | {k: v for k, v in c.items() if k != "wallet"}
                for c in made["conditions"]
            ]
    if do == "convert":
        made.pop("toWalletId", None)
        made |= {"fromWalletId": names.wallet(step["from"]), "toWalletId": names.wallet(step["to"])}
    return made


def path(step, names):
    """Method and path of a step's route."""
    do, wallet = step["do"], step.get("wallet") and names.wallet(step["wallet"])
    if do in ("adjust", "capture", "release"):
        return "POST", (f"/wallets/{wallet}" if step.get("long") else "") + f"/holds/{names.of(step['hold'])}/{do}"
    if do == "metadata":
        return "PATCH", f"/wallets/{wallet}"
    if do == "void":
        return "POST", f"/wallets/{wallet}/grants/{names.of(step['grant'])}/void"
    if do == "reverse":
        return "POST", f"/transactions/{names.of(step['of'])}/reverse"
    routes = {"create": "/wallets", "post": "/transactions", "convert": "/conversions", "unit": "/units"}
    words = {"hold": "holds", "grant": "grants"}
    return "POST", routes.get(do) or f"/wallets/{wallet}/{words.get(do, do)}"


def item(step, names):
    """The step as an item of `POST /bulk`: what its path says are fields."""
    made = body(step, names) | {"op": OPS.get(step["do"], step["do"])}
    if step.get("wallet"):
        made["walletId"] = names.wallet(step["wallet"])
    if step["do"] in ("adjust", "capture", "release"):
        made["holdId"] = names.of(step["hold"])
    if step["do"] == "reverse":
        made["transactionId"] = names.of(step["of"])
    if step["do"] == "void":
        made["grantId"] = names.of(step["grant"])
    if step.get("key"):
        made["idempotencyKey"] = names.wallet(step["key"])
    return made


def routes(document):
    """Method and path of every route that an OpenAPI document has, parameters by one name."""
    found = set()
    for template, methods in document["paths"].items():
        shape = re.sub(r"\{[^}]*\}", "{id}", template)
        found |= {f"{method.upper()} {shape}" for method in methods}
    return found


def takes_dry_runs(document):
    """Whether a credit can be asked for as a dry run."""
    for template, methods in document["paths"].items():
        if template.endswith("/credit"):
            parameters = methods["post"].get("parameters", [])
            return any(parameter.get("name") == "dryRun" for parameter in parameters)
    return False


def ops(document):
    """The operations that `POST /bulk` knows: every `op` that its schemas name."""
    found = set()

    def walk(node):
        if isinstance(node, dict):
            op = node.get("properties", {}).get("op") if isinstance(node.get("properties"), dict) else None
            if isinstance(op, dict):
                found.update(op.get("enum", []))
                found.update(re.findall(r"[a-z_]+", op.get("pattern", "")))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    return found
