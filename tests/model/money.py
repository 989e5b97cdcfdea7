"""Money as whole numbers of the smallest unit, and every way in which the specification rounds."""

import re
from fractions import Fraction

#: Decimals of the ISO currencies that histories use.
SCALES = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}
AMOUNT_MAX = 10**15
BALANCE_MAX = 10**18
#: A request's token: JSON's number without sign and exponent.
PLAIN = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?\Z")


class NotAnAmount(Exception):
    """Why a token is no amount: the code of the problem."""


def exact(token):
    """The value of a request's token, exactly."""
    token = str(token)
    if not PLAIN.match(token) or len(token) > 40:
        raise NotAnAmount("invalid_amount")
    return Fraction(token)


def amount(token, zero=False):
    """An amount that a command may move, in units of the currency: more than zero, at most 10^15."""
    value = exact(token)
    if value > AMOUNT_MAX or (value == 0 and not zero):
        raise NotAnAmount("invalid_amount")
    if (value * 10**8).denominator != 1:
        raise NotAnAmount("amount_scale")
    return value


def units(value, scale):
    """The same as a whole number of the currency's smallest unit."""
    value = value * 10**scale
    if value.denominator != 1:
        raise NotAnAmount("amount_scale")
    return value.numerator


def text(number, scale):
    """A whole number of smallest units as answers write it: 1234 is "12.34"."""
    sign, digits = ("-" if number < 0 else ""), str(abs(number)).rjust(scale + 1, "0")
    return sign + (f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits)


def half_away(value):
    """r of the specification: the nearest whole number, a half away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def floor(value):
    return value.numerator // value.denominator


def ceil(value):
    return -(-value.numerator // value.denominator)


def cut(value, decimals):
    """The first decimals of a value that is not negative; what follows them is dropped."""
    return Fraction(floor(value * 10**decimals), 10**decimals)


def shares(total, weights):
    """A whole number divided by weights: the cumulative share is rounded and the difference given."""
    whole, before, seen, parts = sum(weights), 0, Fraction(0), []
    for weight in weights:
        seen += weight
        upto = half_away(Fraction(total) * seen / whole)
        parts.append(upto - before)
        before = upto
    return parts
