"""Histograms by window, kind and node of a whole run, and what is read off them, in memory for their bytes alone.

While a run goes on the last windows are dense, for kernels to count in (`WindowHistograms`); the others, and in the end all, are
kept as (bucket, count) pairs, six bytes each (`SparseHistograms`). A day on the virtual clock has twenty million of these, so
sums run over pairs as they lie: nothing that is read off them makes another array as long.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel
from simulator.measure.histogram import COUNTS, VALUES, Histogram
from simulator.measure.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PAIR = np.dtype([("bucket", "<u2"), ("count", "<u4")])  # packed
assert np.iinfo(np.uint16).max >= COUNTS  # noqa: S101  a bucket's number fits


@kernel
def _gather(counts: NDArray[np.uint32], pairs: NDArray[np.void]) -> int:
    """Moves the non-zero counts of one dense histogram into pairs (PAIR) and zeroes it; returns how many."""
    found = 0
    for i in range(counts.shape[0]):
        if counts[i] != 0:
            pairs[found]["bucket"] = i
            pairs[found]["count"] = counts[i]
            counts[i] = 0
            found += 1
    return found


@kernel
def _add(
    starts: NDArray[np.int64], pairs: NDArray[np.void], chosen: NDArray[np.int64], sign: int, held: NDArray[np.int64]
) -> None:
    """Adds the chosen cells' counts to `held`, (COUNTS,), or takes them away."""
    for k in range(chosen.shape[0]):
        for j in range(starts[chosen[k]], starts[chosen[k] + 1]):
            held[pairs[j]["bucket"]] += sign * int64(pairs[j]["count"])


@kernel
def _totals(starts: NDArray[np.int64], pairs: NDArray[np.void], totals: NDArray[np.int64]) -> None:
    """How many values each cell has."""
    for cell in range(totals.shape[0]):
        total = 0
        for j in range(starts[cell], starts[cell + 1]):
            total += int64(pairs[j]["count"])
        totals[cell] = total


@kernel
def _move(starts: NDArray[np.int64], pairs: NDArray[np.void], cell: int, dense: NDArray[np.uint32]) -> None:
    """Adds a cell's counts to a dense histogram."""
    for j in range(starts[cell], starts[cell + 1]):
        dense[pairs[j]["bucket"]] += pairs[j]["count"]


@kernel
def _ranked(held: NDArray[np.int64], ranks: NDArray[np.int64], buckets: NDArray[np.int64]) -> None:
    """Where each of the ranks, in rising order, falls in a histogram, which is zeroed."""
    below = 0
    k = 0
    for i in range(held.shape[0]):
        if held[i] != 0:
            below += held[i]
            held[i] = 0
            while k < ranks.shape[0] and below >= ranks[k]:
                buckets[k] = i
                k += 1


@dataclass(frozen=True)
class SparseHistograms:
    """The recorded (window × kind × node) histograms of a run.

    A cell is (window · kinds + kind) · nodes + node, kinds by position. `cells`, (C,) uint32, are those that have values, in
    rising order; the pairs (PAIR) of cell number c are pairs[starts[c]:starts[c + 1]], in rising order of buckets.
    """

    windows: int
    kinds: int
    nodes: int
    cells: NDArray[np.uint32]
    starts: NDArray[np.int64]
    pairs: NDArray[np.void]

    @classmethod
    def empty(cls, windows: int, kinds: int, nodes: int) -> SparseHistograms:
        """Nothing was recorded."""
        return cls(windows, kinds, nodes, np.zeros(0, np.uint32), np.zeros(1, np.int64), np.zeros(0, PAIR))

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return self.cells.nbytes + self.starts.nbytes + self.pairs.nbytes

    @property
    def window(self) -> NDArray[np.int64]:
        """The window of each cell, (C,)."""
        return (self.cells // np.uint32(self.kinds * self.nodes)).astype(np.int64)

    def totals(self) -> NDArray[np.int64]:
        """How many values each cell has, (C,)."""
        totals = np.zeros(len(self.cells), np.int64)
        _totals(self.starts, self.pairs, totals)
        return totals

    def add_to(self, held: NDArray[np.int64], chosen: NDArray[np.int64], sign: int = 1) -> None:
        """Adds the cells of these numbers to `held`, (COUNTS,) int64; with sign −1 takes them away."""
        _add(self.starts, self.pairs, chosen, sign, held)

    def where(self, mask: NDArray[np.bool_]) -> Histogram:
        """The cells of a mask, (C,), together."""
        histogram = Histogram()
        self.add_to(histogram.counts, np.flatnonzero(mask))
        return histogram

    def total(self) -> Histogram:
        """All windows, kinds and nodes together."""
        return self.where(np.ones(len(self.cells), np.bool_))

    def by_kind(self, kind: int) -> Histogram:
        """One kind (position, not the enum's value), all windows and nodes."""
        return self.where(self.cells // self.nodes % self.kinds == kind)

    def by_node(self, node: int) -> Histogram:
        """One node, all windows and kinds."""
        return self.where(self.cells % self.nodes == node)

    def before(self, window: int) -> Histogram:
        """The windows before this one, all kinds and nodes together."""
        return self.where(self.window < window)

    def by_window(self) -> Iterator[tuple[int, Histogram]]:
        """The windows that have values, in order, each over all kinds and nodes; one at a time, for one is a quarter of a MB."""
        window = self.window
        found, first = np.unique(window, return_index=True)
        for w, start, stop in zip(found.tolist(), first, np.append(first, len(window))[1:], strict=True):
            histogram = Histogram()
            self.add_to(histogram.counts, np.arange(start, stop))
            yield w, histogram

    def percentiles_by_window(self, percents: Sequence[float]) -> NDArray[np.int64]:
        """(windows, len(percents)) ns, as `Histogram.percentile_ns` has them, over all kinds and nodes; -1 where nothing is."""
        window, totals = self.window, self.totals()
        edges = np.searchsorted(window, np.arange(self.windows + 1))
        order = np.argsort(percents, kind="stable")
        asked = np.asarray(percents, np.float64)[order]
        held, buckets = np.zeros(COUNTS, np.int64), np.zeros(len(order), np.int64)
        found = np.full((self.windows, len(order)), -1, np.int64)
        for w in np.unique(window).tolist():
            first, stop = edges[w], edges[w + 1]
            self.add_to(held, np.arange(first, stop))
            ranks = np.maximum(1, (asked / 100 * int(totals[first:stop].sum()) + 0.5).astype(np.int64))
            _ranked(held, ranks, buckets)
            found[w, order] = VALUES[buckets]
        return found


def add_up(parts: Sequence[SparseHistograms], cells: Sequence[NDArray[np.uint32]], nodes: int) -> SparseHistograms:
    """Adds several up, of one grid and the same kinds: exact, and the same in any order of the parts.

    Args:
        parts: what to add, at least one.
        cells: for each part the cells of the whole that its own belong to, (C,); several may belong to one.
        nodes: of the whole.
    """
    every = np.concatenate([np.zeros(0, np.uint32), *cells])
    of = np.repeat(np.arange(len(parts)), [len(own) for own in cells])
    number = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(own)) for own in cells)])
    order = np.argsort(every, kind="stable")
    whole, first_of = np.unique(every[order], return_index=True)
    dense, scratch = np.zeros(COUNTS, np.uint32), np.zeros(COUNTS, PAIR)
    blocks, starts = [], np.zeros(len(whole) + 1, np.int64)
    for at, (start, stop) in enumerate(zip(first_of, np.append(first_of, len(order))[1:], strict=True)):
        for k in order[start:stop].tolist():
            part = parts[of[k]]
            _move(part.starts, part.pairs, number[k], dense)
        found = _gather(dense, scratch)
        blocks.append(scratch[:found].copy())
        starts[at + 1] = starts[at] + found
    first = parts[0]
    return SparseHistograms(first.windows, first.kinds, nodes, whole, starts, _joined(blocks, int(starts[-1])))


def _joined(blocks: list[NDArray[np.void]], length: int) -> NDArray[np.void]:
    """One array out of many, which are given up on the way."""
    joined = np.zeros(length, PAIR)
    at = length
    while blocks:
        block = blocks.pop()
        joined[at - len(block) : at] = block
        at -= len(block)
    return joined


def _small_pages(shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Zeros of which only the parts that are written to take memory.

    NumPy asks for huge pages for large arrays, and the first value in one takes, and zeroes, 2 MiB: a dozen histograms.
    """
    memory = mmap.mmap(-1, 4 * prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint32).reshape(shape)


class WindowHistograms:
    """Histograms per window × kind × node, in memory that does not grow with the number of values.

    The last `resident` windows that were written to are dense (uint32, pages are touched only where values fall); a window
    that makes room for another is kept as pairs: of a few thousand values nearly one for each, so a long run has them on
    disk (`spill`, a folder). `dense[slot, kind, node, bucket]` is what kernels write to, `slots[window]` tells where
    (-1: call `admit` first). A window may be admitted again after it has been retired.
    """

    def __init__(self, windows: int, kinds: int, nodes: int, resident: int = 4, spill: Path | None = None) -> None:
        self.kinds = kinds
        self.nodes = nodes
        self.dense = _small_pages((resident, kinds, nodes, COUNTS))
        # The kinds that may have been written to. Looking through the histograms of those that never came would cost more than
        # some windows' values, so a caller who knows of fewer may say so.
        self.used = set(range(kinds))
        self.slots = np.full(windows, -1, np.int64)
        self._windows = [-1] * resident
        self._turn = 0
        self._pairs = Spill(PAIR, spill)
        self._cells: list[int] = []  # of what is kept, in the order in which it came, and
        self._lengths: list[int] = []  # how many pairs
        self._scratch = np.zeros(COUNTS, PAIR)

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
        kept = []
        for kind in sorted(self.used):
            for node in range(self.nodes):
                found = _gather(self.dense[slot, kind, node], self._scratch)
                if found:
                    self._cells.append((window * self.kinds + kind) * self.nodes + node)
                    self._lengths.append(found)
                    kept.append(self._scratch[:found].copy())
        if kept:
            self._pairs.add(np.concatenate(kept))

    def of_window(self, window: int) -> Histogram:
        """All kinds and nodes of a window that is still dense; empty otherwise."""
        slot = self.slots[window]
        if slot < 0:
            return Histogram()
        return Histogram(self.dense[slot].sum(axis=(0, 1), dtype=np.int64))

    def finish(self) -> SparseHistograms:
        """Everything recorded; nothing can be recorded any more."""
        for slot in sorted(range(len(self._windows)), key=lambda slot: self._windows[slot]):
            self._retire(slot)
        pairs = self._pairs.rows()
        self._pairs.close()
        cells = np.array(self._cells, np.uint32)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths, dtype=np.int64)])
        found = SparseHistograms(len(self.slots), self.kinds, self.nodes, cells, starts, pairs)
        if bool((cells[1:] > cells[:-1]).all()):
            return found
        return add_up([found], [cells], self.nodes)  # some window was dense more than once
