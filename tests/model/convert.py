"""Conversions: one side is fixed, the other is rounded in favour of the exchange; units of one's own."""

import re
from fractions import Fraction

import limits
import money
from moves import Part, Transaction, shown
from world import Rules

EXCHANGE, ROUNDING = "currency_exchange", "fx_rounding"


def convert(world, step, at):
    rules = Rules()
    given = "sourceAmount" if "sourceAmount" in step else "targetAmount"
    amount = world.amount(rules, step[given])
    rate = rate_of(rules, step["rate"])
    rules.need(step["from"] != step["to"], "same_wallet")
    rules.stop(form=True)
    source, target = world.lock(at, step["from"], step["to"])
    rules.need(source.currency != target.currency, "currency_mismatch")
    world.may_pay(rules, source)
    world.may_be_paid(rules, target)
    rules.stop()
    fixed = source if given == "sourceAmount" else target
    units = world.units(rules, amount, fixed)
    rules.stop()
    out, into, exchange, rounding = computed(units, rate, source, target, fixed is source)
    rules.need(out and into, "conversion_too_small")
    rules.need(max(out * 10**target.scale, into * 10**source.scale) <= money.BALANCE_MAX * 10 ** (source.scale + target.scale), "balance_overflow")
    rules.need(out <= source.free_main + source.limit, "insufficient_funds")
    limits.may_spend(rules, source, out, at)
    world.fits(rules, target, into)
    rules.stop()
    limits.spent(source, out, at)
    happened(world, step, source, target, out, into, (exchange, rounding), fixed is source)
    return {"fromWallet": shown(source), "toWallet": shown(target)}


def rate_of(rules, token):
    """At most 12 decimals, more than zero: 1 of the source is so many of the target."""
    try:
        rate = money.exact(token)
    except money.NotAnAmount:
        rules.need(False, "invalid_rate")
        return None
    rules.need(rate > 0 and (rate * 10**12).denominator == 1, "invalid_rate")
    return rate


def computed(units, rate, source, target, fixed_source):
    """(out, into, exchange's amount, rounding): the last two of the side that was computed, as exact values."""
    if fixed_source:
        product = Fraction(units, 10**source.scale) * rate
        into = money.floor(product * 10**target.scale)
        exchange = money.cut(product, 8)
        return units, into, exchange, abs(exchange - Fraction(into, 10**target.scale))
    quotient = Fraction(units, 10**target.scale) / rate
    out = money.ceil(quotient * 10**source.scale)
    exchange = money.cut(quotient, 8)
    return out, units, exchange, abs(exchange - Fraction(out, 10**source.scale))


def happened(world, step, source, target, out, into, computed_side, fixed_source):
    """Pairs carry the wallet's amount, then exact amounts on the exchange and on rounding where they differ."""
    exchange, rounding = computed_side
    sides = (
        (source, "WalletConversionInitiated", -out, "DEBIT", fixed_source),
        (target, "WalletConversionCompleted", into, "CREDIT", not fixed_source),
    )
    parts = []
    for wallet, kind, change, side, is_fixed in sides:
        moved = Fraction(abs(change), 10**wallet.scale)
        counters = [(EXCHANGE, moved if is_fixed else exchange)]
        if not is_fixed and rounding:
            counters.append((ROUNDING, rounding))
        data = {"fixed": "source" if fixed_source else "target"}
        world.emit(wallet, kind, change, [(side, abs(change), counters, None)], data, step["name"])
        parts.append(Part(wallet.name, 0, change, counters))
    world.transactions[step["name"]] = Transaction("conversion", parts)


def unit(world, step, at):
    """`POST /units`: immutable; the same again is 200."""
    rules = Rules()
    code, scale = step["code"], step["scale"]
    rules.need(re.fullmatch(r"[A-Z][A-Z0-9_]{3,31}", code) and 0 <= scale <= 8, "invalid_value")
    rules.stop(form=True)
    rules.need(world.scales.get(code, scale) == scale, "unit_exists")
    rules.stop()
    known = code in world.scales
    world.scales[code] = scale
    return {"code": code, "scale": scale, "_status": 200 if known else 201}
