"""Tickets: how much one transaction is worth, by inversion, so that one uniform makes one amount."""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, log, sqrt
from typing import TYPE_CHECKING

from simulator import elementary
from simulator.kernel import fused, inlined, int64
from simulator.seeds import uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# An amount stays below 2^53 fen: exact in a float64 while it is drawn, far from 64 bits when it is summed.
LARGEST_MINOR = 2**53
_FARTHEST = 8.3  # no quantile of a uniform in (2^-54, 1 - 2^-54) is farther out, in standard deviations


# M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37, 1988,
# PPND16, accurate to about 1 part in 10^16: a ratio of two polynomials of degree 7 in each of three ranges. Highest
# power first.
_CENTRAL_RANGE = 0.425  # |p - ½| up to which the central pair holds
_CENTRAL_OFFSET = 0.180625
_CENTRAL_OVER = (
    2.5090809287301226727e3,
    3.3430575583588128105e4,
    6.7265770927008700853e4,
    4.5921953931549871457e4,
    1.3731693765509461125e4,
    1.9715909503065514427e3,
    1.3314166789178437745e2,
    3.3871328727963666080e0,
)
_CENTRAL_UNDER = (
    5.2264952788528545610e3,
    2.8729085735721942674e4,
    3.9307895800092710610e4,
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
_TAIL_RANGE = 5.0  # of sqrt(-log p): beyond it, the far pair
_TAIL_LEAST = 6.6  # standard deviations: less than where the far pair begins
_TAIL_OFFSET = 1.6
_TAIL_OVER = (
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e0,
    3.64784832476320460504e0,
    5.76949722146069140550e0,
    4.63033784615654529590e0,
    1.42343711074968357734e0,
)
_TAIL_UNDER = (
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
)
_FAR_OVER = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
    6.65790464350110377720e0,
)
_FAR_UNDER = (
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)


@inlined
def _ratio(over: Sequence[float], under: Sequence[float], r: float) -> float:
    """The ratio of two polynomials at r, by Horner's rule."""
    numerator = 0.0
    denominator = 0.0
    for k in range(8):
        numerator = numerator * r + over[k]
        denominator = denominator * r + under[k]
    return numerator / denominator


@inlined
def _central(q: float) -> float:
    """The quantile at ½ + q, for |q| up to `_CENTRAL_RANGE`."""
    return q * _ratio(_CENTRAL_OVER, _CENTRAL_UNDER, _CENTRAL_OFFSET - q * q)


@inlined
def _tail(p: float) -> float:
    """The quantile at p farther out, but for the farthest."""
    z = _ratio(_TAIL_OVER, _TAIL_UNDER, _depth(p) - _TAIL_OFFSET)
    return copysign(z, p - 0.5)


@inlined
def _far(p: float) -> float:
    """The quantile at the farthest p, of which `_depth` is above `_TAIL_RANGE`."""
    z = _ratio(_FAR_OVER, _FAR_UNDER, _depth(p) - _TAIL_RANGE)
    return copysign(z, p - 0.5)


@inlined
def _depth(p: float) -> float:
    """How far out p is."""
    return sqrt(-elementary.log(min(p, 1.0 - p)))


@inlined
def normal_quantile(p: float) -> float:
    """The z with Φ(z) = p, for p in (0, 1)."""
    q = p - 0.5
    if abs(q) <= _CENTRAL_RANGE:
        return _central(q)
    if _depth(p) <= _TAIL_RANGE:
        return _tail(p)
    return _far(p)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The distribution of amounts.

    Attributes:
        mean_minor: the mean amount in fen, ≥ 1.
        sigma: of the amount's logarithm; 0: every amount is the mean. The lognormal's mean is exp(mu + sigma²/2), so
            mu is log(mean) - sigma²/2.

    An amount is rounded to the nearest fen, halves up, which keeps the mean to within rounding; what would round to 0
    is 1 fen, which raises the mean of tickets of a few fen.
    """

    mean_minor: int
    sigma: float

    def __post_init__(self) -> None:
        if self.mean_minor < 1:
            raise ValueError(f"a mean ticket is 1 minor unit or more, not {self.mean_minor}")
        if not self.sigma >= 0.0:
            raise ValueError(f"a sigma is a number ≥ 0, not {self.sigma}")
        if log(self.mean_minor) + self.sigma * (_FARTHEST - 0.5 * self.sigma) > log(LARGEST_MINOR):
            raise ValueError(
                f"a mean of {self.mean_minor} with sigma {self.sigma:g} draws past 2^53 minor units: lower either"
            )

    @property
    def mu(self) -> float:
        """The mean of the amount's logarithm."""
        return elementary.log(float(self.mean_minor)) - 0.5 * self.sigma**2


@fused
def amounts(
    mu: float, sigma: float, key: np.uint64, first: int, normals: NDArray[np.float64], tails: NDArray[np.float64],
    places: NDArray[np.int64], out: NDArray[np.int64],
) -> None:  # fmt: skip
    """Writes lognormal amounts in fen (≥ 1), each at the quantile that a stream has at first, first + 1 ….

    The centre is computed for all, and then again where it does not hold, for three in twenty: so these are loops without a
    branch, which become vector code.

    Args:
        mu: see `Ticket.mu`.
        sigma: see `Ticket`.
        key: of the stream.
        first: the number of the first.
        normals: scratch, as long as `out`.
        tails: scratch, as long as `out`.
        places: scratch, as long as `out`.
        out: the amounts, fen.
    """
    for k in range(out.size):
        normals[k] = _central(uniform(key, first + k) - 0.5)
    outside = 0
    for k in range(out.size):
        p = uniform(key, first + k)
        places[outside] = k
        tails[outside] = p
        outside += int64(abs(p - 0.5) > _CENTRAL_RANGE)
    for j in range(outside):
        tails[j] = _tail(tails[j])
    for j in range(outside):
        normals[places[j]] = tails[j]
        if abs(tails[j]) > _TAIL_LEAST:  # one in 10¹⁰
            normals[places[j]] = normal_quantile(uniform(key, first + places[j]))
    for k in range(out.size):
        out[k] = max(int64(elementary.exp(mu + sigma * normals[k]) + 0.5), 1)
