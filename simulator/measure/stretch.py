"""Stretches of a run: every span of so many seconds, sliding by a window, and what was counted within each.

A figure over the whole run hides what was wrong for ten seconds of it; one over each stretch of ten seconds does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.measure.grid import windows_until
from simulator.measure.histogram import COUNTS, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simulator.measure.windows import SparseHistograms


class Stretches(NamedTuple):
    """Spans of windows: the k-th holds windows first[k] … stop[k] − 1; int64 of shape (K,)."""

    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    def sums(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """What each stretch holds of something counted by window: (T,) → (K,), (T, N) → (K, N)."""
        before = np.concatenate([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
        held: NDArray[np.int64] = before[self.stop] - before[self.first]
        return held


def stretches(edges_ns: NDArray[np.int64], until_ns: int, length_ns: int) -> Stretches:
    """Every stretch of at least `length_ns`, as short as the windows allow, that ends with a whole window by `until_ns`.

    A window longer than `length_ns` is a stretch by itself. Of a run that was cut short of `length_ns` all of it is the one
    stretch; where there is no whole window there is none.

    Args:
        edges_ns: the edges of the windows, (T + 1,).
        until_ns: until when transactions were released.
        length_ns: more than 0.
    """
    windows = windows_until(edges_ns, until_ns)
    ends = edges_ns[1 : windows + 1]
    first = np.searchsorted(edges_ns, ends - length_ns, side="right") - 1
    full = np.flatnonzero(first >= 0)
    if windows and not len(full):
        return Stretches(np.zeros(1, np.int64), np.array([windows], np.int64))
    return Stretches(first[full].astype(np.int64), full.astype(np.int64) + 1)


def cells_of(sparse: SparseHistograms, kind: int | None, node: int | None) -> NDArray[np.bool_]:
    """Which cells are of a kind (by position) and a node; None: of any. Shape as `sparse.cells`."""
    chosen = np.ones(len(sparse.cells), np.bool_)
    if kind is not None:
        chosen &= sparse.cells // sparse.nodes % sparse.kinds == kind
    if node is not None:
        chosen &= sparse.cells % sparse.nodes == node
    return chosen


def counted_by_window(sparse: SparseHistograms, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many values each window has in the chosen cells, (windows,)."""
    # As float64 weights counts stay exact: a window's total is far below 2⁵³.
    counted: NDArray[np.int64] = np.bincount(sparse.window[chosen], sparse.totals()[chosen], sparse.windows).astype(
        np.int64
    )
    return counted


def histogram_of(sparse: SparseHistograms, chosen: NDArray[np.bool_]) -> Histogram:
    """The chosen cells of all windows together."""
    return sparse.where(chosen)


def sliding(sparse: SparseHistograms, chosen: NDArray[np.bool_], over: Stretches) -> Iterator[Histogram]:
    """The histogram of each stretch in turn; each is good until the next is asked for, for all share their memory.

    A window is added once and taken away once, so the work is that of the windows, not of stretches times their length.
    """
    numbers = np.flatnonzero(chosen)
    starts = np.searchsorted(sparse.window[numbers], np.arange(sparse.windows + 1))
    held = np.zeros(COUNTS, np.int64)
    low = high = 0
    for first, stop in zip(over.first.tolist(), over.stop.tolist(), strict=True):
        sparse.add_to(held, numbers[starts[high] : starts[stop]])
        sparse.add_to(held, numbers[starts[low] : starts[first]], -1)
        low, high = first, stop
        yield Histogram(held)
