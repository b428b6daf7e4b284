"""HDR histograms: fixed memory, merged by adding counts, and never an average of percentiles.

The layout is HdrHistogram's (Gil Tene) with lowest value 1 ns, highest 1 h and 3 significant digits: a value below 2,048 ns is
kept exactly, any other within one part in 1,024 (0.1 %) of itself. A recorded value stands for the highest value of its
bucket when percentiles are read, as in HdrHistogram's own readers. Values above an hour count as an hour (the run's limits
make them impossible on the wall clock).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import bit_length, inlined, kernel
from simulator.measure.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000
DIGITS = 3
_SUB_BITS = 11  # 2,048 sub-buckets: the power of two above 2 · 10³
_SUB_COUNT = 1 << _SUB_BITS
_SUB_HALF = _SUB_COUNT // 2


def _bucket_count() -> int:
    """How many times the range must double past the first 2,048 values to reach the highest."""
    buckets = 1
    reach = _SUB_COUNT
    while reach <= HIGHEST_NS:
        reach <<= 1
        buckets += 1
    return buckets


COUNTS = (_bucket_count() + 1) * _SUB_HALF

TRIPLE = np.dtype([("cell", "<u4"), ("bucket", "<u4"), ("count", "<u4")])


@inlined
def index_of(value_ns: int) -> int:
    """The count that a value belongs to; values are clamped to [0, HIGHEST_NS].

    The bucket is how often the value must be halved to fit 2,048 sub-buckets; within it the upper half of them is used.
    """
    value = min(max(value_ns, 0), HIGHEST_NS)
    bucket = bit_length(value | (_SUB_COUNT - 1)) - _SUB_BITS
    return (bucket << (_SUB_BITS - 1)) + (value >> bucket)


def highest_equivalent_ns(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest value that belongs to each index: what a percentile reports."""
    bucket = np.maximum((index >> (_SUB_BITS - 1)) - 1, 0)
    sub = index - (bucket << (_SUB_BITS - 1))
    highest: NDArray[np.int64] = ((sub + 1) << bucket) - 1
    return highest


def bucket_width_ns(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many values belong to each index."""
    width: NDArray[np.int64] = np.int64(1) << np.maximum((index >> (_SUB_BITS - 1)) - 1, 0)
    return width


_VALUES = highest_equivalent_ns(np.arange(COUNTS, dtype=np.int64))
# HdrHistogram's mean uses the middle of each bucket: its lowest value and half its width.
_WIDTHS = bucket_width_ns(np.arange(COUNTS, dtype=np.int64))
_MIDDLES = _VALUES - _WIDTHS + 1 + (_WIDTHS >> 1)


@kernel
def record_all(counts: NDArray[np.int64], values_ns: NDArray[np.int64]) -> None:
    """Counts every value (ns)."""
    for i in range(values_ns.shape[0]):
        counts[index_of(values_ns[i])] += 1


@kernel
def count_one(counts: NDArray[np.int64], value_ns: int) -> None:
    """Counts one value (ns)."""
    counts[index_of(value_ns)] += 1


@dataclass(frozen=True)
class Histogram:
    """A distribution of times: `counts` is int64 of shape (COUNTS,). Adding two is exact."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COUNTS, np.int64))

    @classmethod
    def of(cls, values_ns: NDArray[np.int64]) -> Histogram:
        """The histogram of some values (ns)."""
        histogram = cls()
        record_all(histogram.counts, np.ascontiguousarray(values_ns, np.int64))
        return histogram

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    def percentile_ns(self, percent: float) -> int | None:
        """The smallest bucket value that at least `percent` % of the values do not exceed; None if there are none."""
        if not 0 <= percent <= 100:  # noqa: PLR2004  a percentage
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        total = self.total
        if total == 0:
            return None
        # HdrHistogram rounds the wanted rank to the nearest count, at least 1, so that p100 is the maximum.
        rank = max(1, int(percent / 100 * total + 0.5))
        return int(_VALUES[np.searchsorted(np.cumsum(self.counts), rank)])

    @property
    def mean_ns(self) -> float | None:
        """The mean, each value standing in the middle of its bucket; None if there are none."""
        total = self.total
        return float(self.counts @ _MIDDLES) / total if total else None

    @property
    def max_ns(self) -> int | None:
        """The largest value's bucket; None if there are none."""
        used = np.flatnonzero(self.counts)
        return int(_VALUES[used[-1]]) if len(used) else None


@kernel
def _gather(counts: NDArray[np.uint32], buckets: NDArray[np.uint32], found: NDArray[np.uint32]) -> int:
    """Moves the non-zero counts of one dense histogram into (bucket, count) pairs and zeroes it; returns how many."""
    pairs = 0
    for i in range(counts.shape[0]):
        if counts[i] != 0:
            buckets[pairs] = i
            found[pairs] = counts[i]
            counts[i] = 0
            pairs += 1
    return pairs


class WindowHistograms:
    """Histograms per window × kind × node, in memory that does not grow with the number of values.

    The last `resident` windows that were written to are dense (uint32, pages are touched only where values fall); a window
    that makes room for another is kept as (cell, bucket, count) triples: of a few thousand values nearly one for each, so a long
    run has them on disk (`spill`, a folder). `dense[slot, kind, node, bucket]` is what kernels
    write to, `slots[window]` tells where (-1: call `admit` first). A window may be admitted again after it has been retired.
    """

    def __init__(self, windows: int, kinds: int, nodes: int, resident: int = 4, spill: Path | None = None) -> None:
        self.kinds = kinds
        self.nodes = nodes
        self.dense = np.zeros((resident, kinds, nodes, COUNTS), np.uint32)
        self.used = list(
            range(kinds)
        )  # the kinds that may have been written to; a caller who knows of fewer may say so
        self.slots = np.full(windows, -1, np.int64)
        self._windows = [-1] * resident
        self._turn = 0
        self._triples = Spill(TRIPLE, spill)
        self._scratch = (np.zeros(COUNTS, np.uint32), np.zeros(COUNTS, np.uint32))

    def admit(self, window: int) -> None:
        """Makes a window dense, in place of the one that has been so for longest."""
        slot = self._turn
        self._turn = (self._turn + 1) % len(self._windows)
        self._retire(slot)
        self._windows[slot] = window
        self.slots[window] = slot

    def _retire(self, slot: int) -> None:
        window = self._windows[slot]
        if window < 0:
            return
        self.slots[window] = -1
        self._windows[slot] = -1
        buckets, found = self._scratch
        triples = []
        for kind in self.used:
            for node in range(self.nodes):
                pairs = _gather(self.dense[slot, kind, node], buckets, found)
                if pairs:
                    rows = np.zeros(pairs, TRIPLE)
                    rows["cell"] = (window * self.kinds + kind) * self.nodes + node
                    rows["bucket"], rows["count"] = buckets[:pairs], found[:pairs]
                    triples.append(rows)
        if triples:
            self._triples.add(np.concatenate(triples))

    def of_window(self, window: int) -> Histogram:
        """All kinds and nodes of a window that is still dense; empty otherwise."""
        slot = self.slots[window]
        if slot < 0:
            return Histogram()
        return Histogram(self.dense[slot].sum(axis=(0, 1), dtype=np.int64))

    def finish(self) -> SparseHistograms:
        """Everything recorded, as triples; nothing can be recorded any more."""
        for slot in range(len(self._windows)):
            self._retire(slot)
        rows = self._triples.rows()
        self._triples.close()
        cells, buckets, counts = (np.ascontiguousarray(rows[name]) for name in ("cell", "bucket", "count"))
        return SparseHistograms(len(self.slots), self.kinds, self.nodes, cells, buckets, counts)


@dataclass(frozen=True)
class SparseHistograms:
    """The recorded (window × kind × node) histograms as triples: `cells`, `buckets`, `counts` are uint32 of one length."""

    windows: int
    kinds: int
    nodes: int
    cells: NDArray[np.uint32]
    buckets: NDArray[np.uint32]
    counts: NDArray[np.uint32]

    def _where(self, mask: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Histogram:
        # Counts stay exact as float64 weights: a cell's total is far below 2⁵³.
        counts = np.bincount(self.buckets[mask], self.counts[mask], COUNTS)
        return Histogram(counts.astype(np.int64))

    def total(self) -> Histogram:
        """All windows, kinds and nodes together."""
        return self._where(slice(None))

    def by_kind(self, kind: int) -> Histogram:
        """One kind (position, not the enum's value), all windows and nodes."""
        return self._where(self.cells // self.nodes % self.kinds == kind)

    def by_node(self, node: int) -> Histogram:
        """One node, all windows and kinds."""
        return self._where(self.cells % self.nodes == node)

    def before(self, window: int) -> Histogram:
        """The windows before this one, all kinds and nodes together."""
        return self._where(self.cells // (self.kinds * self.nodes) < window)

    def by_window(self) -> Iterator[tuple[int, Histogram]]:
        """The windows that have values, in order, each over all kinds and nodes; one at a time, for one is a quarter of a MB."""
        window = self.cells // (self.kinds * self.nodes)
        order = np.argsort(window, kind="stable")
        found, starts = np.unique(window[order], return_index=True)
        for w, part in zip(found, np.split(order, starts[1:]) if len(found) else [], strict=True):
            yield int(w), self._where(part)

    def percentiles_by_window(self, percents: Sequence[float]) -> NDArray[np.int64]:
        """(windows, len(percents)) ns, as `Histogram.percentile_ns` has them, over all kinds and nodes; -1 where nothing is."""
        window = (self.cells // (self.kinds * self.nodes)).astype(np.int64)
        order = np.lexsort((self.buckets, window))
        counts = np.cumsum(self.counts[order], dtype=np.int64)
        edges = np.searchsorted(window[order], np.arange(self.windows + 1))
        before = np.concatenate([[0], counts])[edges]
        totals = np.diff(before)
        found = np.full((self.windows, len(percents)), -1, np.int64)
        some = totals > 0
        for column, percent in enumerate(percents):
            ranks = np.maximum(1, (percent / 100 * totals[some] + 0.5).astype(np.int64))
            at = np.searchsorted(counts, before[:-1][some] + ranks)
            found[some, column] = _VALUES[self.buckets[order[at]]]
        return found
