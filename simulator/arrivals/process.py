"""From a rate to intended times: Poisson, regular, or bursty (MMPP), by exact inversion of the cumulative rate.

Each process walks upwards in *expected count* (its position), by unit exponentials or by ones, and maps each position
to a time by Λ⁻¹. That is exact for any rate, with nothing to thin or to discretise: where the positions are a Poisson
process of rate 1, their images under Λ⁻¹ are one of rate λ(t) (E. Çinlar, "Introduction to Stochastic Processes",
1975, chapter 4, section 7).

Positions are carried from call to call as they are, never re-based on a rounded time, so no drift builds up. A process
remembers a few scalars and one scratch block; what it writes does not depend on how many times are asked for at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.arrivals.rate import Floats, Rate, invert, segment_of
from simulator.kernel import kernel
from simulator.seeds import Stream, exponential, stream_key, uniform

NS_PER_S = 1_000_000_000

Times = NDArray[np.int64]

_BLOCK = 8_192  # positions inverted at a time: two scratch arrays of 64 KiB each, which stay in the second-level cache


class Arrivals(Protocol):
    """The seam: a source of intended times."""

    def fill(self, intended_ns: Times) -> int:
        """Write the next intended times, up to as many as fit, and return how many; 0: the run is over.

        Times are nanoseconds since the start of the run, in [0, duration), and do not decrease within or between calls.
        """


class NoArrivals:
    """Nothing ever arrives: the seam's noop."""

    def fill(self, intended_ns: Times) -> int:  # noqa: ARG002  the seam's signature
        """Write nothing."""
        return 0


# Invariant: position < total wherever it is written, and it does not decrease; index is that of the next draw.
@kernel
def _walk_exponential(total: float, key: np.uint64, walk: Floats, index: Times, out: Floats) -> int:
    position = walk[0]
    draw = index[0]
    for k in range(out.size):  # first all gaps: this loop becomes vector code, the sum cannot
        out[k] = exponential(key, draw + k)
    n = 0
    while n < out.size and position < total:
        position += out[n]
        draw += 1
        if position < total:
            out[n] = position
            n += 1
    walk[0] = position
    index[0] = draw
    return n


# Invariant: within one state the position moves by the unit exponential over the state's multiplier; an exponential
# that outlasts the state is carried over into the next, less what the state used up (that is what "modulated" means).
@kernel
def _walk_modulated(
    pieces: Floats,
    end: float,
    total: float,
    multipliers: Floats,
    sojourns_s: Floats,
    keys: NDArray[np.uint64],
    walk: Floats,
    index: Times,
    out: Floats,
) -> int:
    starts, base, c1, c2, c3 = pieces[0], pieces[1], pieces[2], pieces[3], pieces[4]
    position, switch, switch_s = walk[0], walk[1], walk[2]
    draw, sojourn, state, i = index[0], index[1], index[2], index[3]
    n = 0
    while n < out.size and position < total:
        left = exponential(keys[0], draw)
        draw += 1
        room = (switch - position) * multipliers[state]
        while left > room and position < total:
            left -= room
            position = switch
            state = 1 - state
            switch_s += sojourns_s[state] * exponential(keys[1], sojourn)
            sojourn += 1
            if switch_s < end:
                i = segment_of(starts, switch_s, i)
                u = switch_s - starts[i]
                switch = max(base[i] + ((c3[i] * u + c2[i]) * u + c1[i]) * u, position)
            else:
                switch = total
            room = (switch - position) * multipliers[state]
        if position < total:
            position += left / multipliers[state]
            if position < total:
                out[n] = position
                n += 1
    walk[0], walk[1], walk[2] = position, switch, switch_s
    index[0], index[1], index[2], index[3] = draw, sojourn, state, i
    return n


# Invariant: out, to the nearest nanosecond, does not decrease and stays below end_ns. Neighbouring roots may differ in
# their last bits by less than a rounding in either direction, so each time is at least the one before it.
@kernel
def _to_ns(times_s: Floats, end_ns: int, previous: Times, out: Times) -> None:
    before = previous[0]
    for k in range(times_s.size):
        before = max(before, min(np.int64(times_s[k] * 1e9 + 0.5), end_ns - 1))
        out[k] = before
    previous[0] = before


class _Inverted(ABC):
    """A process that supplies positions; this maps them to times."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._end_ns = round(rate.duration_s * NS_PER_S)
        self._positions = np.empty(_BLOCK)
        self._times_s = np.empty(_BLOCK)
        self._cursor = np.zeros(2)
        self._previous = np.zeros(1, np.int64)

    def fill(self, intended_ns: Times) -> int:
        """See `Arrivals.fill`."""
        filled = 0
        while filled < intended_ns.size:
            positions = self._positions[: intended_ns.size - filled]
            n = self._walk(positions)
            if n == 0:
                break
            times_s = self._times_s[:n]
            invert(self._rate.pieces, self._rate.duration_s, self._rate.total, positions[:n], self._cursor, times_s)
            _to_ns(times_s, self._end_ns, self._previous, intended_ns[filled : filled + n])
            filled += n
        return filled

    @abstractmethod
    def _walk(self, out: Floats) -> int:
        """Write the next positions, non-decreasing and in [0, total), and return how many; 0: there are no more."""


class Poisson(_Inverted):
    """Independent arrivals at the rate: what many customers who do not know of each other make together."""

    def __init__(self, rate: Rate, seed: int) -> None:
        super().__init__(rate)
        self._key = stream_key(seed, Stream.ARRIVALS)
        self._state = np.zeros(1)
        self._index = np.zeros(1, np.int64)

    def _walk(self, out: Floats) -> int:
        return int(_walk_exponential(self._rate.total, self._key, self._state, self._index, out))


class Regular(_Inverted):
    """Arrival k = 0, 1, 2 … at Λ⁻¹(k): evenly spaced while the rate is constant, without randomness.

    The first one is due as soon as the rate is above 0, and their number is Λ(duration), rounded up.
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__(rate)
        self._next = 0

    def _walk(self, out: Floats) -> int:
        n = min(out.size, max(int(np.ceil(self._rate.total)) - self._next, 0))
        out[:n] = np.arange(self._next, self._next + n)
        self._next += n
        return n


class Mmpp(_Inverted):
    """A Markov-modulated Poisson process of two states: the rate times `burst`, or times the calm multiplier.

    The calm multiplier is (1 - burst · share) / (1 - share), so that the mean multiplier is 1 and the expected count is
    the rate's. Sojourns are exponential with means share · period_s and (1 - share) · period_s. The first state is
    drawn by its share, so the process is stationary from the start. (W. Fischer, K. Meier-Hellstern, "The
    Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993.)

    Args:
        rate: what the bursts modulate.
        seed: of the run.
        burst: the multiplier in a burst, ≥ 1.
        share: of the time spent in bursts, in (0, 1), with burst · share ≤ 1.
        period_s: mean time from one burst's start to the next one's, seconds, > 0.

    Raises:
        ValueError: if a parameter is none of the above.
    """

    def __init__(self, rate: Rate, seed: int, *, burst: float, share: float, period_s: float) -> None:
        super().__init__(rate)
        if not (0.0 < share < 1.0 and burst >= 1.0 and burst * share <= 1.0):
            raise ValueError(
                "a burst is ≥ 1, its share of the time in (0, 1), their product ≤ 1 (beyond it no calm evens it out), "
                f"not {burst} and {share}"
            )
        if not 0.0 < period_s < np.inf:
            raise ValueError(f"a period is a number of seconds > 0, not {period_s}")
        self._multipliers = np.array([(1.0 - burst * share) / (1.0 - share), burst])
        self._sojourns_s = np.array([(1.0 - share) * period_s, share * period_s])
        self._keys = np.array([stream_key(seed, Stream.ARRIVALS), stream_key(seed, Stream.MMPP)])
        # Draw 0 of the state stream picks the state *before* the first switch, which happens at once, at t = 0.
        first = int(uniform(self._keys[1], 0) < share)
        self._state = np.zeros(3)
        self._index = np.array([0, 1, 1 - first, 0])

    def _walk(self, out: Floats) -> int:
        return int(
            _walk_modulated(
                self._rate.pieces,
                self._rate.duration_s,
                self._rate.total,
                self._multipliers,
                self._sojourns_s,
                self._keys,
                self._state,
                self._index,
                out,
            )
        )
