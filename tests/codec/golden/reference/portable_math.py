"""Cosine, sine, logarithm and power with the same bits on every machine: "Functions" in
"Arithmetic". Python's floats are fp64, and it rounds every operation separately."""

from __future__ import annotations

import math
from collections.abc import Sequence

_HALF_PI = [float.fromhex(part) for part in ("0x1.921fbp+0", "0x1.5110ap-22", "0x1.4611ap-42", "0x1.898cc51701b84p-64")]
_TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ONE_OVER_LN2 = float.fromhex("0x1.71547652b82fep+0")

_COS_TERMS = [(-1) ** i / math.factorial(2 * i) for i in range(9)]
_SIN_TERMS = [(-1) ** i / math.factorial(2 * i + 1) for i in range(8)]
_EXP_TERMS = [1 / math.factorial(i) for i in range(14)]
_LOG_TERMS = [1 / (2 * i + 1) for i in range(10)]


def _polynomial(terms: Sequence[float], x: float) -> float:
    """The sum of terms[i] x^i, by Horner's rule."""
    total = terms[-1]
    for term in reversed(terms[:-1]):
        total = total * x + term
    return total


def cos_sin(angle: float) -> tuple[float, float]:
    """The cosine and the sine of an angle."""
    if not math.isfinite(angle):
        return math.nan, math.nan
    if abs(angle) >= 2.0**32:
        angle = math.remainder(angle, 2 * math.pi)
    quarters = float(round(angle * _TWO_OVER_PI))  # ties to even
    rest = angle
    for part in _HALF_PI:
        rest -= quarters * part
    cos = _polynomial(_COS_TERMS, rest * rest)
    sin = rest * _polynomial(_SIN_TERMS, rest * rest)
    return [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][int(quarters) % 4]


def log(value: float) -> float:
    """The natural logarithm of a number above 0."""
    mantissa, exponent = math.frexp(value)
    if mantissa < math.sqrt(2) / 2:
        mantissa, exponent = mantissa * 2, exponent - 1
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * _LN2_HIGH + (exponent * _LN2_LOW + 2 * s * _polynomial(_LOG_TERMS, s * s))


def exp(value: float) -> float:
    """e to the power of a number. Infinity where the result is beyond fp64."""
    value = min(max(value, -1000.0), 1000.0)
    twos = round(value * _ONE_OVER_LN2)
    rest = value - twos * _LN2_HIGH - twos * _LN2_LOW
    try:
        return math.ldexp(_polynomial(_EXP_TERMS, rest), twos)
    except OverflowError:
        return math.inf


def power(base: float, exponent: float) -> float:
    """`base`, above 0, to the power of `exponent`."""
    return exp(exponent * log(base))
