"""Whether an answer is what the model expects: every field that the model names, exactly."""

from datetime import datetime

from world import Ref, Time


class Difference(Exception):
    """What the service said, and what it must say."""


def instant(text):
    """Milliseconds of an RFC 3339 time."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def times(body):
    """The times that an answer bears: those of the command that it answers are the latest of them."""
    if isinstance(body, dict):
        for field, value in body.items():
            if field in ("updatedAt", "createdAt") and isinstance(value, str):
                yield instant(value)
            else:
                yield from times(value)
    elif isinstance(body, list):
        for value in body:
            yield from times(value)


def differences(expected, actual, names, learnt, at=""):
    """What is not as expected, by its place. Ids that the service made are noted in `learnt`."""
    if isinstance(expected, Ref):
        known = names.known.get(expected.name) or learnt.setdefault(expected.name, actual)
        return [] if actual and actual == known else [f"{at}: {actual!r} is not the id {known!r} of {expected.name}"]
    if isinstance(expected, Time):
        fits = isinstance(actual, str) and abs(instant(actual) - expected.at) <= 1
        return [] if fits else [f"{at}: {actual!r} is not the time {expected.at}"]
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return [f"{at}: {actual!r} is no object"]
        found = []
        for field, value in expected.items():
            if field not in actual and value is not None:
                found.append(f"{at}/{field} is missing; expected {value!r}")
            else:
                found += differences(value, actual.get(field), names, learnt, f"{at}/{field}")
        return found
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return [f"{at}: {actual!r}, expected {expected!r}"]
        pairs = enumerate(zip(expected, actual))
        return [text for index, (e, a) in pairs for text in differences(e, a, names, learnt, f"{at}/{index}")]
    same = type(expected) is type(actual) and expected == actual
    return [] if same else [f"{at}: {actual!r}, expected {expected!r}"]


def named(expected, names):
    """An expected body with the ids of the service in place of the model's names of wallets."""
    if isinstance(expected, dict):
        wallets = {"walletId", "toWalletId", "fromWalletId", "relatedWalletId"}
        out = {}
        for field, value in expected.items():
            is_wallet = field in wallets or (field == "id" and isinstance(value, str))
            out[field] = names.wallet(value) if is_wallet and value else named(value, names)
        return out
    if isinstance(expected, list):
        return [named(value, names) for value in expected]
    return expected
