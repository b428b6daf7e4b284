"""One record out of several: what generators counted apart, put together as one would have counted it.

Counts, values and histograms are added, window by window and bucket by bucket, which is exact. Instants and the CPU time of a
window are the latest and the most: validity asks whether *some* process had no time to spare. The most in flight at once
(`in_flight_max`, `in_flight_top`, `shard_in_flight_max`) is added too; the generators' peaks need not fall together, so
it is an upper bound. Percentiles of the second before are read off the sum, never off percentiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.measure.histogram import COUNTS, Histogram
from simulator.measure.recorder import RESPONSE, Measured, Tallies
from simulator.measure.windows import SparseHistograms, add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

UPPER_BOUNDS = frozenset({"in_flight_top", "in_flight_max", "shard_in_flight_max"})
_MOST = frozenset({"cpu_ns", "settled_ns"})
_KEPT = frozenset({"grid_ns", "fine_ns", "last_second_ns"})  # the whole's own


def add_tallies(parts: Sequence[Tallies], whole: Tallies) -> None:
    """Writes what the parts counted, all on one grid, into `whole`.

    Each word is written once: the live page reads `whole` from another process, and must not see a sum half made.
    """
    for name in Tallies._fields:
        if name in _KEPT:
            continue
        join = np.maximum if name in _MOST else np.add
        found: NDArray[np.int64] = getattr(parts[0], name)
        for part in parts[1:]:
            found = join(found, getattr(part, name))
        np.copyto(getattr(whole, name), found)
    whole.fine_ns[1] = max(int(part.fine_ns[1]) for part in parts)


def add_measured(parts: Sequence[Measured]) -> Measured:
    """The histograms of all parts, each (cell, bucket) once, in order."""
    return Measured(*(_add([getattr(part, name) for part in parts]) for name in Measured._fields))


def nothing_measured(windows: int, kinds: int, nodes: int) -> Measured:
    """The histograms of a part of which nothing is left."""
    empty = SparseHistograms.empty(windows, kinds, nodes)
    return Measured(empty, empty, empty)


def _add(parts: Sequence[SparseHistograms]) -> SparseHistograms:
    return add_up(parts, [part.cells for part in parts], parts[0].nodes)


class LastSecond:
    """What the live view shows of the second before: percentiles of the answers that came in it, over all parts."""

    def __init__(self) -> None:
        self._second = 0
        self._before = np.zeros(COUNTS, np.int64)

    def look(self, whole: Tallies, now_ns: int) -> None:
        """Once a second sets `whole.last_second_ns`; `whole` is up to date."""
        second = min(max(now_ns, 0) // 1_000_000_000, len(whole.offered) - 1)
        if second <= self._second:
            return
        counts = whole.totals[RESPONSE].copy()
        histogram = Histogram(counts - self._before)
        if histogram.total:
            for at, percent in enumerate((50.0, 99.0, 99.9)):
                whole.last_second_ns[at] = histogram.percentile_ns(percent) or 0
            whole.last_second_ns[3] = second
        self._before, self._second = counts, second
