"""A rate over time, held as its integral: the expected cumulative count Λ(t), piecewise cubic.

Constant rates (Λ linear), ramps (quadratic) and curves through knots (cubic) are the same thing here, so that whatever
draws arrivals needs one inverse, Λ⁻¹, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulator.kernel import inlined, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]

_TOLERANCE = 1e-13  # of t, on the last Newton step, whose error is by then about the square of that
_MAX_STEPS = 200  # bisection alone needs about 60; this bounds the loop, nothing reaches it


@inlined
def segment_of(values: Floats, value: float, hint: int) -> int:
    """The largest i with values[i] <= value; `values` is non-decreasing and values[0] <= value.

    `hint` is tried first: walkers that move forward find their segment without a search.
    """
    last = values.size - 1
    if values[hint] <= value and (hint == last or value < values[hint + 1]):
        return hint
    low = 0
    high = last
    while low < high:
        middle = (low + high + 1) >> 1
        if values[middle] <= value:
            low = middle
        else:
            high = middle - 1
    return low


# Invariant: the root stays within [low, high], which each step shrinks.
@kernel
def solve(c1: float, c2: float, c3: float, length: float, start: float, rise: float, guess: float) -> float:
    """The u in [0, length] with c1·u + c2·u² + c3·u³ = rise, for a polynomial that does not decrease there.

    Linear and quadratic pieces in closed form (the citardauq form of the quadratic's root: no cancellation, and it
    holds for c2 → 0). Cubic ones by Newton's method from `guess`, bisecting where a step would leave the bracket.
    """
    if rise <= 0.0:
        return 0.0
    if c3 == 0.0:
        if c2 == 0.0:
            return min(rise / c1, length)
        return min(2.0 * rise / (c1 + sqrt(max(c1 * c1 + 4.0 * c2 * rise, 0.0))), length)
    low = 0.0
    high = length
    u = guess
    if not low <= u <= high:
        u = 0.5 * length
    for _ in range(_MAX_STEPS):
        excess = ((c3 * u + c2) * u + c1) * u - rise
        if excess == 0.0:
            return u
        if excess > 0.0:
            high = u
        else:
            low = u
        slope = (3.0 * c3 * u + 2.0 * c2) * u + c1
        following = u - excess / slope if slope > 0.0 else -1.0
        if not low <= following <= high:
            following = 0.5 * (low + high)
        step = abs(following - u)
        u = following
        if step <= _TOLERANCE * (start + u):
            return u
    return u


@kernel
def accumulate(pieces: Floats, times: Floats, out: Floats) -> None:
    """Write Λ at each of `times` (seconds within the run) to `out`; `pieces` is `Rate.pieces`."""
    starts, base, c1, c2, c3 = pieces[0], pieces[1], pieces[2], pieces[3], pieces[4]
    i = 0
    for k in range(times.size):
        i = segment_of(starts, times[k], i)
        u = times[k] - starts[i]
        out[k] = base[i] + ((c3[i] * u + c2[i]) * u + c1[i]) * u


@kernel
def _differentiate(pieces: Floats, times: Floats, out: Floats) -> None:
    starts, c1, c2, c3 = pieces[0], pieces[2], pieces[3], pieces[4]
    i = 0
    for k in range(times.size):
        i = segment_of(starts, times[k], i)
        u = times[k] - starts[i]
        out[k] = max((3.0 * c3[i] * u + 2.0 * c2[i]) * u + c1[i], 0.0)


# Invariant: base[i] <= counts[k] < base of the next segment, so the piece inverted is never flat: it rises by more
# than 0.
@kernel
def invert(pieces: Floats, end: float, total: float, counts: Floats, cursor: Floats, out: Floats) -> None:
    """Write Λ⁻¹ of each of `counts` (in [0, total]) to `out`, in seconds.

    `cursor` is float64[2], zeros at first: the segment and the offset of the last answer, where the next search starts.
    Whoever carries it from call to call gets, bit for bit, what one call over all the counts would have given.
    """
    starts, base, c1, c2, c3 = pieces[0], pieces[1], pieces[2], pieces[3], pieces[4]
    i = int(cursor[0])
    u = cursor[1]
    for k in range(counts.size):
        count = counts[k]
        if count >= total:
            out[k] = end
            continue
        found = segment_of(base, count, i)
        if found != i:
            i = found
            u = 0.0
        length = (starts[i + 1] if i + 1 < starts.size else end) - starts[i]
        u = solve(c1[i], c2[i], c3[i], length, starts[i], count - base[i], u)
        out[k] = starts[i] + u
    cursor[0] = i
    cursor[1] = u


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """An arrival rate over [0, duration_s), as its cumulative count.

    On segment i, with u = t - start[i]:  Λ(t) = base[i] + c1[i]·u + c2[i]·u² + c3[i]·u³.

    Attributes:
        pieces: float64[5, n], C-contiguous; its rows are start (s, strictly increasing from 0), base (Λ at the start,
            non-decreasing from 0), c1 (per s), c2 (per s²) and c3 (per s³).
        duration_s: where the last segment ends.
        total: Λ(duration_s), the expected number of arrivals.
    """

    pieces: Floats
    duration_s: float
    total: float

    def __post_init__(self) -> None:
        self.pieces.setflags(write=False)

    # --- questions ---

    def cumulative(self, t_s: NDArray[np.floating]) -> Floats:
        """Λ(t), the expected count up to each time: float64 of t_s's shape; times outside the run count as its ends."""
        times = np.clip(np.asarray(t_s, np.float64), 0.0, self.duration_s)
        out = np.empty(times.shape)
        accumulate(self.pieces, times.ravel(), out.reshape(-1))
        return np.minimum(out, self.total)

    def per_s(self, t_s: NDArray[np.floating]) -> Floats:
        """The rate, arrivals per second: float64 of t_s's shape; 0 outside the run, right-continuous at jumps."""
        times = np.asarray(t_s, np.float64)
        inside = (times >= 0.0) & (times <= self.duration_s)
        out = np.empty(times.shape)
        _differentiate(self.pieces, np.clip(times, 0.0, self.duration_s).ravel(), out.reshape(-1))
        return np.where(inside, out, 0.0)

    def inverse(self, counts: NDArray[np.floating]) -> Floats:
        """Λ⁻¹: the last time at which the expected count is still no more than each of `counts`.

        That is the right-inverse: a count that is reached where the rate falls to zero maps to where the rate comes
        back, so nothing is ever due inside a stretch of zero rate. Λ⁻¹(total) is `duration_s`. Sorted counts are the
        fast case.

        Args:
            counts: in [0, total].

        Returns:
            Seconds, float64 of the shape of `counts`, within 1e-12 of t relative (where the rate is not zero).

        Raises:
            ValueError: if a count is outside [0, total].
        """
        asked = np.asarray(counts, np.float64)
        if asked.size and not (asked.min() >= 0.0 and asked.max() <= self.total):
            raise ValueError(f"counts must be in [0, {self.total}]")
        out = np.empty(asked.shape)
        invert(self.pieces, self.duration_s, self.total, asked.ravel(), np.zeros(2), out.reshape(-1))
        return out

    def peak(self) -> tuple[float, float]:
        """The highest rate and when it is first reached: (arrivals per second, seconds).

        Exact: on a segment the rate is a parabola, so it peaks at an end or at the vertex.
        """
        best, at = -inf, 0.0
        lengths = np.diff(self.pieces[0], append=self.duration_s)
        for (start, _, c1, c2, c3), length in zip(self.pieces.T.tolist(), lengths.tolist(), strict=True):
            vertex = -c2 / (3.0 * c3) if c3 < 0.0 else 0.0
            for u in (0.0, min(max(vertex, 0.0), length), length):
                rate = (3.0 * c3 * u + 2.0 * c2) * u + c1
                if rate > best:
                    best, at = rate, start + u
        return best, at

    # --- other rates from this one ---

    def window(self, start_s: float, end_s: float) -> Rate:
        """The piece [start_s, end_s) of this rate, moved to begin at t = 0.

        The polynomials are re-expanded about the cut (a Taylor shift), so the piece is the same function, not a new
        fit.

        Raises:
            ValueError: unless 0 ≤ start_s < end_s ≤ duration_s.
        """
        if not 0.0 <= start_s < end_s <= self.duration_s:
            raise ValueError(
                f"a window lies within [0, {self.duration_s}] s and is not empty, not [{start_s}, {end_s}]"
            )
        starts = self.pieces[0]
        ends = np.append(starts[1:], self.duration_s)
        start, base, c1, c2, c3 = self.pieces[:, (starts < end_s) & (ends > start_s)]
        before, after = (float(value) for value in self.cumulative(np.array([start_s, end_s])))
        shift = np.maximum(start_s - start, 0.0)
        base = np.maximum(base - before, 0.0)
        base[0] = 0.0
        pieces = (
            np.maximum(start - start_s, 0.0),
            base,
            c1 + (2.0 * c2 + 3.0 * c3 * shift) * shift,
            c2 + 3.0 * c3 * shift,
            c3,
        )
        return Rate(np.array(pieces), end_s - start_s, after - before)

    def scaled(self, factor: float) -> Rate:
        """This rate times `factor`, a finite number ≥ 0."""
        _require(isfinite(factor) and factor >= 0.0, f"a scale is a number ≥ 0, not {factor}")
        return Rate(self.pieces * np.array([[1.0], *[[factor]] * 4]), self.duration_s, self.total * factor)

    # --- constructors ---

    @classmethod
    def constant(cls, per_s: float, duration_s: float) -> Rate:
        """The same rate (≥ 0, arrivals per second) for `duration_s` seconds (> 0); ValueError otherwise."""
        return cls.stages(per_s, [], duration_s)

    @classmethod
    def stages(cls, start_per_s: float, stages: Sequence[tuple[float, float]], duration_s: float) -> Rate:
        """Ramps, as in k6's ramping-arrival-rate executor.

        Args:
            start_per_s: the rate at t = 0, arrivals per second.
            stages: (duration in seconds, target in arrivals per second) each. A stage ramps linearly from the rate
                before it to its target; the same target holds the rate; a duration of 0 jumps.
            duration_s: of the whole, > 0. Stages beyond it are cut; the last target holds where they end before it.

        Raises:
            ValueError: if a rate or duration is negative, not finite, or `duration_s` is 0.
        """
        _require(isfinite(duration_s) and duration_s > 0.0, f"a duration is a number of seconds > 0, not {duration_s}")
        for value in (start_per_s, *(number for stage in stages for number in stage)):
            _require(isfinite(value) and value >= 0.0, f"rates and durations are numbers ≥ 0, not {value}")
        starts: list[float] = []
        slopes: list[tuple[float, float]] = []
        at, rate = 0.0, start_per_s
        for length, target in [*stages, (duration_s, None)]:
            remaining = duration_s - at
            if length > 0.0 and remaining > 0.0:
                starts.append(at)
                slopes.append((rate, 0.0 if target is None else 0.5 * (target - rate) / length))
            at += length
            rate = rate if target is None else target
        start, (c1, c2) = np.array(starts), np.array(slopes).T
        rises = (c2 * np.diff(start, append=duration_s) + c1) * np.diff(start, append=duration_s)
        ends = np.cumsum(rises)
        pieces = np.array((start, np.append(0.0, ends[:-1]), c1, c2, np.zeros_like(c1)))
        return cls(pieces, duration_s, float(ends[-1]))

    @classmethod
    def from_knots(
        cls,
        knots_s: Sequence[float] | Floats,
        knots_count: Sequence[float] | Floats,
        window_s: tuple[float, float] | None = None,
        scale: float = 1.0,
    ) -> Rate:
        """A smooth rate whose cumulative count passes through every knot.

        Λ is the monotone piecewise cubic of F. N. Fritsch and R. E. Carlson (SIAM J. Numer. Anal. 17, 1980), with the
        slopes of F. N. Fritsch and J. Butland (SIAM J. Sci. Stat. Comput. 5, 1984): the weighted harmonic mean of the
        two secants, 0 where one of them is 0; at the ends the three-point formula, limited so that the piece stays
        monotone. It passes every knot, its derivative (the rate) is continuous and never negative, and Λ never
        overshoots a knot.

        Rejected: linear pieces, whose rate jumps at each knot, a load step that nobody measured; the natural cubic
        spline, which is smoother but overshoots between steep and flat pieces, that is, asks for a negative rate.

        Args:
            knots_s: n ≥ 2 seconds, strictly increasing.
            knots_count: n cumulative counts, non-decreasing; Λ starts at 0, so only their differences count.
            window_s: (from, to) in the knots' seconds; the whole by default. The piece is moved to begin at t = 0.
            scale: multiplies the rate, ≥ 0.

        Raises:
            ValueError: for knots, a window or a scale that are none of the above.
        """
        times, counts = _knots(knots_s, knots_count)
        widths = np.diff(times)
        secants = np.diff(counts) / widths
        slopes = _monotone_slopes(widths, secants)
        pieces = (
            times[:-1] - times[0],
            counts[:-1] - counts[0],
            slopes[:-1],
            (3.0 * secants - 2.0 * slopes[:-1] - slopes[1:]) / widths,
            (slopes[:-1] + slopes[1:] - 2.0 * secants) / widths**2,
        )
        whole = cls(np.array(pieces), float(times[-1] - times[0]), float(counts[-1] - counts[0]))
        if window_s is not None:
            whole = whole.window(window_s[0] - float(times[0]), window_s[1] - float(times[0]))
        return whole.scaled(scale)

    @classmethod
    def from_recorded(cls, knots_s: Sequence[float] | Floats, knots_count: Sequence[float] | Floats) -> Rate:
        """The mean rate between knots of a *recorded* count: Λ linear between them.

        Here jumps in the rate are right: they are what was recorded, at the knots' coarseness. The arguments and
        errors are those of `from_knots`.
        """
        times, counts = _knots(knots_s, knots_count)
        secants = np.diff(counts) / np.diff(times)
        zeros = np.zeros_like(secants)
        pieces = np.array((times[:-1] - times[0], counts[:-1] - counts[0], secants, zeros, zeros))
        return cls(pieces, float(times[-1] - times[0]), float(counts[-1] - counts[0]))


def _require(condition: bool, message: str) -> None:  # noqa: FBT001  a guard: the condition is its subject
    if not condition:
        raise ValueError(message)


def _knots(knots_s: Sequence[float] | Floats, knots_count: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    times, counts = np.array(knots_s, np.float64), np.array(knots_count, np.float64)
    shaped = times.ndim == counts.ndim == 1 and times.size == counts.size and times.size > 1
    _require(shaped, "a curve has two knots or more, each a time and a count")
    _require(bool(np.isfinite(times).all() and np.isfinite(counts).all()), "knots are finite numbers")
    _require(bool((np.diff(times) > 0.0).all()), "the knots' times must increase")
    _require(bool((np.diff(counts) >= 0.0).all()), "the knots' counts are cumulative: they must not decrease")
    return times, counts


def _monotone_slopes(widths: Floats, secants: Floats) -> Floats:
    """Λ's slope at each of the n knots, from n - 1 widths and secants (see `Rate.from_knots`)."""
    if secants.size == 1:
        return np.repeat(secants, 2)
    left, right = secants[:-1], secants[1:]
    weight_left, weight_right = widths[:-1] + 2.0 * widths[1:], 2.0 * widths[:-1] + widths[1:]
    rising = (left > 0.0) & (right > 0.0)
    inner = np.zeros(secants.size - 1)
    harmonic = weight_left[rising] / left[rising] + weight_right[rising] / right[rising]
    inner[rising] = (weight_left + weight_right)[rising] / harmonic
    first = _end_slope(widths[0], widths[1], secants[0], secants[1])
    last = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return np.concatenate(([first], inner, [last]))


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    """The three-point slope at an end, limited to [0, 3 · secant], Fritsch and Carlson's region of monotonicity."""
    slope = ((2.0 * width + next_width) * secant - width * next_secant) / (width + next_width)
    return float(min(max(slope, 0.0), 3.0 * secant))
