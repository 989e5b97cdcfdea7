"""What scripts/api_check adds to schemathesis: wallets that exist, amounts that mean something, and two checks.

Left alone, nearly every generated command meets a wallet that is not there or an amount nobody would send. Half of
the generated requests are therefore pointed at the wallets that the script has opened; the other half stay as they are.
"""

import atexit
import json
import re
import sys
import zlib
from collections import Counter

import schemathesis

WALLETS = ["api-check-1", "api-check-2"]
# Schema-valid data must never be refused for its form. What a schema cannot say (an amount's decimals follow its
# currency, a cursor must come from an answer) may well be refused.
FORM = {"malformed_json", "unknown_field", "missing_field", "unsupported_media_type"}
ANSWERS = Counter()


def half(value) -> bool:
    """Half of all values, always the same half: a seed gives the same run twice."""
    return zlib.crc32(json.dumps(value, sort_keys=True, default=str).encode()) % 2 == 0


def is_id(value) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\S{1,255}", value) is not None


def is_amount(value) -> bool:
    return isinstance(value, float) or isinstance(value, str) and re.fullmatch(r"[0-9.]+", value) is not None


# Only what is valid as it is gets another value: what was broken on purpose stays broken.


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and is_id(path_parameters.get("id")) and half(path_parameters):
        return {**path_parameters, "id": WALLETS[0]}
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict) or not half(body):
        return body
    body = dict(body)
    if is_id(body.get("toWalletId")):
        body["toWalletId"] = WALLETS[1]
    for name in ("amount", "initialBalance", "overdraftLimit"):
        if is_amount(body.get(name)):
            body[name] = f"{zlib.crc32(str(body[name]).encode()) % 90 + 1}.25"
    if re.fullmatch("[A-Z]{3}", str(body.get("currency"))):
        body["currency"] = "USD"
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    # Values that travel from one answer into the next request's headers may be text that no header can carry.
    for name, value in list((case.headers or {}).items()):
        if not str(value).isascii():
            del case.headers[name]


@schemathesis.hook
def filter_case(context, case):
    # An empty query parameter is as good as none: true of integers and enums too, whose schemas cannot say so.
    return "" not in (case.query or {}).values()


@schemathesis.check
def counted(context, response, case):
    ANSWERS[response.status_code] += 1


@schemathesis.check
def valid_data_is_not_refused_for_its_form(context, response, case):
    generation = getattr(case.meta, "generation", None)
    if generation is None or generation.mode.name != "POSITIVE" or response.status_code not in (400, 415):
        return
    code = response.json().get("code")
    assert code not in FORM, f"schema-valid data was refused as {code}: {response.text}"


@atexit.register
def tell():
    if ANSWERS:
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(ANSWERS.items()))
        print(f"api_check: {sum(ANSWERS.values())} answers ({counts})", file=sys.stderr)
