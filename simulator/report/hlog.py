"""Reads a `latency.hlog` back: every interval as (window, value, count), and quantile functions of the whole."""

from __future__ import annotations

import math
import zlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Curve = list[tuple[float, float]]  # (1 / (1 - quantile), milliseconds)

_STEPS_PER_DECADE = 20  # of 1 / (1 - quantile): smooth to the eye, and 9 decades are still only 180 points
_NS_PER_MS = 1e6
_DEFAULT_TAG = "response_time"


class HlogError(Exception):
    """A log that cannot be read; the text says why."""


@dataclass(frozen=True)
class Intervals:
    """The histograms of one measure, window by window, as triples: only what was counted takes room.

    Attributes:
        starts_s: where each window starts, since the start of the run, float64 (W,), ascending.
        lengths_s: how long it is, float64 (W,).
        windows: the window of each triple, int64 (n,).
        values_ns: the highest value of its bucket, as HdrHistogram reports it, int64 (n,).
        counts: how many, int64 (n,), above 0.
    """

    starts_s: NDArray[np.float64]
    lengths_s: NDArray[np.float64]
    windows: NDArray[np.int64]
    values_ns: NDArray[np.int64]
    counts: NDArray[np.int64]

    def curve(self) -> Curve:
        """The quantile function of all windows together, evenly over 1 / (1 - quantile), as far as the count resolves."""
        values, where = np.unique(self.values_ns, return_inverse=True)
        sums = np.zeros(len(values), np.int64)
        np.add.at(sums, where, self.counts)
        upto = np.cumsum(sums)
        total = int(upto[-1])
        steps = np.arange(int(_STEPS_PER_DECADE * math.log10(total)) + 1)
        inverses = 10.0 ** (steps / _STEPS_PER_DECADE)
        # HdrHistogram rounds the wanted rank to the nearest count, at least 1, so that p100 is the maximum.
        ranks = np.maximum(1, ((1 - 1 / inverses) * total + 0.5).astype(np.int64))
        found = values[np.searchsorted(upto, ranks)] / _NS_PER_MS
        return [*zip(inverses.tolist(), found.tolist(), strict=True), (float(total), float(values[-1]) / _NS_PER_MS)]


def read_hlog(path: Path) -> dict[str, Intervals]:
    """The intervals of each measure, by its tag; measures that counted nothing are left out.

    Raises:
        HlogError: it is no histogram log, or damaged.
        FileNotFoundError: it is not there.
    """
    found: dict[str, list[tuple[float, float, NDArray[np.int64], NDArray[np.int64]]]] = {}
    try:
        with closing(HistogramLogReader(str(path), HdrHistogram(1, 2, 1))) as log:
            while (interval := log.get_next_interval_histogram()) is not None:
                start_s = interval.get_start_time_stamp() / 1_000 - log.get_start_time_sec()
                length_s = (interval.get_end_time_stamp() - interval.get_start_time_stamp()) / 1_000
                values, counts = _cells(interval)
                if len(counts):
                    tag = interval.get_tag() or _DEFAULT_TAG
                    found.setdefault(tag, []).append((round(start_s, 3), round(length_s, 3), values, counts))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, IndexError, zlib.error, HdrCookieException, HdrLengthException) as error:
        raise HlogError(f"{type(error).__name__} {error}".rstrip()) from None
    return {tag: _together(parts) for tag, parts in found.items()}


def _cells(histogram: HdrHistogram) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What a histogram has counted: the highest value of each bucket in use, and its count."""
    counts = np.ctypeslib.as_array(histogram.counts).astype(np.int64)
    index = np.flatnonzero(counts)
    # The inverse of HdrHistogram's index: the bucket is how often a value was halved, its low bits are within the upper half.
    half = histogram.sub_bucket_half_count
    bucket = (index >> histogram.sub_bucket_half_count_magnitude) - 1
    sub = (index & (half - 1)) + np.where(bucket < 0, 0, half)
    width = np.maximum(bucket, 0) + histogram.unit_magnitude
    return ((sub + 1) << width) - 1, counts[index]


def _together(parts: list[tuple[float, float, NDArray[np.int64], NDArray[np.int64]]]) -> Intervals:
    parts = sorted(parts, key=lambda part: part[0])
    return Intervals(
        np.array([start for start, *_ in parts]),
        np.array([length for _, length, *_ in parts]),
        np.repeat(np.arange(len(parts)), [len(counts) for *_, counts in parts]),
        np.concatenate([values for _, _, values, _ in parts]),
        np.concatenate([counts for *_, counts in parts]),
    )
