"""Plays a history against a service and holds every answer against the model.

When a command was decided is the service's to say: an accepted answer bears its time, a refused one was
decided while it was waited for. Where something falls due in between, both sides of it are tried.
"""

import json
import pickle
import time

import wire
from client import Answer
from commands import COMMANDS, ROUTE_ONLY, decide, touched
from compare import Difference, differences, named, times
from moves import shown
from world import NOT_KEPT, World, status_of

#: Refusals of a request's form and of what is not there: a key may or may not have been met before them.
UNSURE = NOT_KEPT | {"same_wallet", "amount_scale", "invalid_amount", "invalid_value", "missing_field", "invalid_rate"}


class Player:
    def __init__(self, client, prefix, can):
        self.client, self.can = client, can
        self.names = wire.Names(prefix)
        self.world = World()
        #: What each step with a key was answered first.
        self.first = {}
        self.steps = {}
        self.counts = {}
        self.token = {}

    def play(self, steps):
        index = 0
        while index < len(steps):
            group = [step for step in steps[index:] if step.get("group") == steps[index].get("group", -1)]
            group = group or [steps[index]]
            try:
                self.group(group)
            except Difference as why:
                raise Difference(f"step {index} ({group[0]['name']}): {why}") from None
            index += len(group)

    def group(self, group):
        step = group[0]
        if "group" in step:
            self.bulk(group)
        elif step["do"] == "again":
            self.again(step)
        elif step["do"] == "wait":
            time.sleep(step["seconds"])
        else:
            self.single(step)
        for step in group:
            for name in touched(step, self.world) if step["do"] in COMMANDS else []:
                self.look(name)

    # --- one command ---

    def single(self, step):
        self.steps[step["name"]] = step
        answer = self.ask(step)
        self.decided(step, answer)
        if step.get("key") and not step.get("dry"):
            self.first[step["name"]] = (answer.status, answer.text, answer.body, answer.code)

    def ask(self, step):
        method, path = wire.path(step, self.names)
        headers = {}
        if step.get("key"):
            headers["Idempotency-Key"] = self.names.wallet(step["key"])
        if "ifMatch" in step:
            headers["If-Match"] = f'"{step["ifMatch"]}"'
        path += "?dryRun=true" if step.get("dry") else ""
        return self.client.ask(method, path, wire.body(step, self.names), headers)

    def decided(self, step, answer):
        """The answer is what the model comes to, at one of the times at which it may have been decided."""
        count = self.counts.setdefault(step["do"], [0, 0])
        before, why = pickle.dumps(self.world), None
        for at in self.moments(answer):
            world = pickle.loads(before)
            outcome = decide(world, step, at)
            learnt = {}
            wrong = self.judge(step, outcome, answer, learnt)
            why = why or wrong
            if not wrong:
                self.names.known.update(learnt)
                count[0 if outcome.accepted else 1] += 1
                self.token.update(self.tokens(answer))
                self.world = pickle.loads(before) if step.get("dry") else world
                return outcome
        self.world = pickle.loads(before)
        asked = json.dumps(step, ensure_ascii=False)
        raise Difference(f"{asked}\n  answered {answer.status} {answer.text}\n  " + "\n  ".join(why))

    def tokens(self, answer):
        token = answer.headers.get("consistency-token")
        return {"last": token} if token else {}

    def moments(self, answer):
        """When the command may have been decided, in milliseconds."""
        edges = {hold.expires_at for wallet in self.world.wallets.values() for hold in wallet.open_holds()}
        edges |= {grant.expires_at for wallet in self.world.wallets.values() for grant in wallet.open_grants()}
        said = list(times(answer.body))
        if said and answer.status < 300:
            return [max(said)] + [max(said) - 1 for edge in edges if edge == max(said)]
        near = sorted(edge for edge in edges if edge and answer.begun - 2 <= edge <= answer.ended + 2)
        return [answer.begun] + [at for edge in near for at in (edge - 1, edge)] + [answer.ended]

    def judge(self, step, outcome, answer, learnt):
        """What is wrong with an answer; nothing where it is right."""
        if not outcome.accepted:
            fits = answer.code in outcome.codes and answer.status == status_of(answer.code)
            return [] if fits else [f"expected a refusal: {', '.join(sorted(outcome.codes))}"]
        status = 200 if step.get("dry") else outcome.status
        if answer.status != status:
            return [f"expected {status} {named(outcome.body, self.names)!r}"]
        body = named(outcome.body, self.names)
        body = body | {"dryRun": True} if step.get("dry") else body
        return differences(body, answer.body, self.names, learnt)

    # --- the same again ---

    def again(self, step):
        """A key's outcome never changes; another request under it is refused."""
        if step["of"] not in self.first:
            return
        original = self.steps[step["of"]]
        status, text, body, code = self.first[step["of"]]
        if step["changed"] and code not in UNSURE:
            other = altered(original)
            if other:
                answer = self.ask(other)
                if answer.code != "idempotency_key_reused" or answer.status != 422:
                    raise Difference(f"another request under a key: {answer.status} {answer.text}\n  {other!r}")
            return
        answer = self.ask(original)
        replayed = answer.headers.get("idempotency-replayed") == "true"
        if not replayed and code in UNSURE:
            outcome = self.decided(original, answer)
            self.first[step["of"]] = (answer.status, answer.text, answer.body, answer.code)
            return outcome
        same = answer.text == text if text is not None else answer.body == body
        if not replayed or answer.status != status or not same:
            raise Difference(f"a replay of {original!r}: {answer.status} {answer.text}\n  first {status} {text or body}")

    # --- many in one request ---

    def bulk(self, group):
        dry, mode = group[0].get("dry"), group[0]["mode"]
        body = {"operations": [wire.item(step, self.names) for step in group]}
        body |= {"atomic": True} if mode == "atomic" else {}
        keyed = group[0]["group"] % 2 == 0 and not dry
        headers = {"Idempotency-Key": self.names.wallet(f"b{group[0]['group']}")} if keyed else {}
        ask = lambda: self.client.ask("POST", "/bulk" + ("?dryRun=true" if dry else ""), body, headers)
        answer = ask()
        if mode == "atomic" and answer.status not in (200, 201):
            self.refused_whole(group, answer)
        else:
            if answer.status != (200 if dry else 201):
                raise Difference(f"POST /bulk: {answer.status} {answer.text}\n  {json.dumps(body)}")
            before = pickle.dumps(self.world)
            for step, result in zip(group, answer.body["results"], strict=True):
                self.item(step, result, answer)
            self.world = pickle.loads(before) if dry else self.world
        if keyed and group[0]["group"] % 4 == 0:
            repeated = ask()
            if outcomes(repeated) != outcomes(answer):
                raise Difference(f"POST /bulk again: {repeated.status} {repeated.text}\n  first {answer.text}")

    def item(self, step, result, whole):
        one = Answer(result["status"], whole.headers, json.dumps(result["body"]), whole.begun, whole.ended)
        was_dry, step = step.get("dry"), {name: value for name, value in step.items() if name != "dry"}
        if was_dry and one.status == 200:
            one.status = 201
            one.body.pop("dryRun", None)
        self.decided(step, one)
        self.steps[step["name"]] = {name: value for name, value in step.items() if name != "group"}
        if step.get("key") and not was_dry and step["do"] not in ROUTE_ONLY:
            self.first[step["name"]] = (one.status, None, one.body, one.code)

    def refused_whole(self, group, answer):
        """Nothing of an atomic request happened; it names an operation that is refused, and why."""
        before, possible = pickle.dumps(self.world), []
        for at in self.moments(answer):
            world, refused = pickle.loads(before), False
            for index, step in enumerate(group):
                outcome = decide(world, step, at)
                if not outcome.accepted and (outcome.form or not refused):
                    possible.append((index, outcome.codes))
                refused = refused or not outcome.accepted
        pointers = [error["pointer"] for error in answer.body.get("errors", [])]
        index = int(pointers[0].split("/")[2]) if pointers and pointers[0].startswith("/operations/") else -1
        fits = any(index == place and answer.code in codes for place, codes in possible)
        if not fits or answer.status != status_of(answer.code):
            raise Difference(f"{group!r}\n  answered {answer.status} {answer.text}\n  expected one of {possible}")
        self.world = pickle.loads(before)
        self.counts.setdefault("atomic, refused", [0, 0])[1] += 1

    # --- a strong read ---

    def look(self, name):
        """The wallet as it stands; what is due on it may have been swept already."""
        answer = self.client.get(f"/wallets/{self.names.wallet(name)}")
        wallet = self.world.wallets[name]
        due = sorted(hold.expires_at for hold in wallet.open_holds() if hold.expires_at <= answer.ended + 2)
        due += sorted(grant.expires_at for grant in wallet.open_grants() if (grant.expires_at or 1e18) <= answer.ended)
        before, wrong = pickle.dumps(self.world), None
        for at in [0, *due]:
            world = pickle.loads(before)
            world.expire(world.wallets[name], at)
            wrong = differences(named(shown(world.wallets[name]), self.names), answer.body, self.names, {})
            if answer.status == 200 and not wrong:
                self.world = world
                return
        raise Difference(f"GET {name}: {answer.status} {answer.text}\n  " + "\n  ".join(wrong))


def outcomes(answer):
    """What a repeated bulk request must come to again. What a key does not remember is decided again, under
    another request's id."""
    def lasting(status, body):
        return (status, body["code"]) if body.get("code") in UNSURE else (status, body)

    results = answer.body.get("results")
    if results is None:
        return lasting(answer.status, answer.body)
    return [lasting(result["status"], result["body"]) for result in results]


def altered(step):
    """Another request of the same kind under the same key."""
    if "reason" in step:
        return step | {"reason": "another"}
    if step["do"] in ("credit", "debit", "transfer", "hold", "capture", "post", "convert"):
        return step | {"description": "another"}
    return step | {"owner": "another"} if step["do"] == "create" else None
