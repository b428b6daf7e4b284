"""Logarithm and exponential from IEEE 754 arithmetic alone: additions, multiplications and one division.

The C library's differ in their last bit from one version to the next, and with them a schedule would; these give the same bits
on every machine. And a loop over them becomes vector code, which a loop of calls cannot: with 512-bit vectors a logarithm costs
0.8 ns instead of 3 (`benchmarks/bench_elementary.py`).

Both reduce the argument to a small range and sum a series there; each is within one unit in the last place.
"""

from __future__ import annotations

from simulator.kernel import bits_of, float_of, inlined, int64

_LN2 = 0.6931471805599453
# ln 2 in two parts: the first has 32 bits, so that its product with an exponent is exact.
_LN2_HIGH = 0.6931471803691238
_LN2_LOW = 1.9082149292705877e-10
_ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of √½
_FRACTION = 52  # bits
_BIAS = 1_023
_LEAST = -700.0  # of an exponent
_ROUNDER = 6755399441055744.0  # 1.5 · 2⁵²: adding and taking it away again rounds to the nearest integer


@inlined
def log(x: float) -> float:
    """The natural logarithm of a normal, finite x > 0; of others the result has no meaning.

    x = m · 2^k with m in [√½, √2), f = m − 1, s = f / (2 + f): log m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …), of which
    |s| < 0.172 needs ten terms. It is summed as f − f²/2 + s (f²/2 + 2 (s²/3 + s⁴/5 + …)), in which only small terms are rounded.
    """
    bits = bits_of(x)
    k = (bits - _ROOT_HALF) >> _FRACTION
    f = float_of(bits - (k << _FRACTION)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 2.0 / 21.0
    series = series * z + 2.0 / 19.0
    series = series * z + 2.0 / 17.0
    series = series * z + 2.0 / 15.0
    series = series * z + 2.0 / 13.0
    series = series * z + 2.0 / 11.0
    series = series * z + 2.0 / 9.0
    series = series * z + 2.0 / 7.0
    series = series * z + 2.0 / 5.0
    series = series * z + 2.0 / 3.0
    half = 0.5 * f * f
    power = float(k)
    return power * _LN2_HIGH - ((half - (s * (half + series * z) + power * _LN2_LOW)) - f)


@inlined
def exp(x: float) -> float:
    """The exponential function, for x ≤ 700; beyond, the result has no meaning. Below −700 it is that of −700, 10⁻³⁰⁴.

    x = k ln 2 + r with |r| ≤ ½ ln 2, and e^r = 1 + r + r²/2! + …, of which that range needs fourteen terms.
    """
    x = max(x, _LEAST)
    power = (x * (1.0 / _LN2) + _ROUNDER) - _ROUNDER
    r = (x - power * _LN2_HIGH) - power * _LN2_LOW
    series = 1.0 / 6227020800.0
    series = series * r + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    return (1.0 + (r + r * r * series)) * float_of((int64(power) + _BIAS) << _FRACTION)
