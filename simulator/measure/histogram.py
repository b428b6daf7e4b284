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

if TYPE_CHECKING:
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


VALUES = highest_equivalent_ns(np.arange(COUNTS, dtype=np.int64))
# HdrHistogram's mean uses the middle of each bucket: its lowest value and half its width.
_WIDTHS = bucket_width_ns(np.arange(COUNTS, dtype=np.int64))
_MIDDLES = VALUES - _WIDTHS + 1 + (_WIDTHS >> 1)


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
        return int(VALUES[np.searchsorted(np.cumsum(self.counts), rank)])

    @property
    def mean_ns(self) -> float | None:
        """The mean, each value standing in the middle of its bucket; None if there are none."""
        total = self.total
        return float(self.counts @ _MIDDLES) / total if total else None

    @property
    def max_ns(self) -> int | None:
        """The largest value's bucket; None if there are none."""
        used = np.flatnonzero(self.counts)
        return int(VALUES[used[-1]]) if len(used) else None
