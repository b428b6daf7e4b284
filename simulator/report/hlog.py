"""Reads a `latency.hlog` back: quantile functions of each measure, and response times window by window."""

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
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

Curve = list[tuple[float, float]]  # (1 / (1 - quantile), milliseconds)

_STEPS_PER_DECADE = 20  # of 1 / (1 - quantile): smooth to the eye, and 9 decades are still only 180 points
_NS_PER_MS = 1e6
_DEFAULT_TAG = "response_time"
BY_WINDOW = frozenset({"response_time"})  # what is kept window by window: it takes room, and only this is drawn so


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


@dataclass(frozen=True)
class Hlog:
    """What a log holds: the quantile function of each measure by its tag, and those asked for window by window."""

    curves: dict[str, Curve]
    intervals: dict[str, Intervals]


def curve_of(values_ns: NDArray[np.int64], counts: NDArray[np.int64]) -> Curve:
    """The quantile function of a distribution, evenly over 1 / (1 - quantile), as far as its count resolves.

    `values_ns` ascend; counts are 0 or more, and not all 0.
    """
    upto = np.cumsum(counts)
    total = int(upto[-1])
    steps = np.arange(int(_STEPS_PER_DECADE * math.log10(total)) + 1)
    inverses = 10.0 ** (steps / _STEPS_PER_DECADE)
    # HdrHistogram rounds the wanted rank to the nearest count, at least 1, so that p100 is the maximum.
    ranks = np.maximum(1, ((1 - 1 / inverses) * total + 0.5).astype(np.int64))
    found = values_ns[np.searchsorted(upto, ranks)] / _NS_PER_MS
    last = values_ns[np.flatnonzero(counts)[-1]]
    return [*zip(inverses.tolist(), found.tolist(), strict=True), (float(total), float(last) / _NS_PER_MS)]


def read_hlog(path: Path, by_window: Collection[str] = BY_WINDOW) -> Hlog:
    """A whole log; measures that counted nothing are left out.

    Args:
        path: the file.
        by_window: the measures that are kept window by window as well.

    Raises:
        HlogError: it is no histogram log, or damaged.
        FileNotFoundError: it is not there.
    """
    sums: dict[str, NDArray[np.int64]] = {}
    values: dict[str, NDArray[np.int64]] = {}
    windows: dict[str, list[tuple[float, float, NDArray[np.int64], NDArray[np.int64]]]] = {}
    try:
        with closing(HistogramLogReader(str(path), HdrHistogram(1, 2, 1))) as log:
            while (interval := log.get_next_interval_histogram()) is not None:
                counts = np.ctypeslib.as_array(interval.counts).astype(np.int64)
                tag = interval.get_tag() or _DEFAULT_TAG
                if tag not in sums:
                    sums[tag], values[tag] = np.zeros_like(counts), _values_of(interval)
                sums[tag] += counts  # a ValueError, if the layout is another one
                if tag in by_window and len(index := np.flatnonzero(counts)):
                    start_s = interval.get_start_time_stamp() / 1_000 - log.get_start_time_sec()
                    length_s = (interval.get_end_time_stamp() - interval.get_start_time_stamp()) / 1_000
                    part = (round(start_s, 3), round(length_s, 3), values[tag][index], counts[index])
                    windows.setdefault(tag, []).append(part)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, IndexError, zlib.error, HdrCookieException, HdrLengthException) as error:
        raise HlogError(f"{type(error).__name__} {error}".rstrip()) from None
    return Hlog(
        {tag: curve_of(values[tag], counts) for tag, counts in sums.items() if counts.any()},
        {tag: _together(parts) for tag, parts in windows.items()},
    )


def _values_of(histogram: HdrHistogram) -> NDArray[np.int64]:
    """The highest value that belongs to each of a histogram's counts."""
    index = np.arange(len(histogram.counts))
    # The inverse of HdrHistogram's index: the bucket is how often a value was halved, its low bits are within the upper half.
    half = histogram.sub_bucket_half_count
    bucket = (index >> histogram.sub_bucket_half_count_magnitude) - 1
    sub = (index & (half - 1)) + np.where(bucket < 0, 0, half)
    width = np.maximum(bucket, 0) + histogram.unit_magnitude
    highest: NDArray[np.int64] = ((sub + 1) << width) - 1
    return highest


def _together(parts: list[tuple[float, float, NDArray[np.int64], NDArray[np.int64]]]) -> Intervals:
    parts = sorted(parts, key=lambda part: part[0])
    return Intervals(
        np.array([start for start, *_ in parts]),
        np.array([length for _, length, *_ in parts]),
        np.repeat(np.arange(len(parts)), [len(counts) for *_, counts in parts]),
        np.concatenate([values for _, _, values, _ in parts]),
        np.concatenate([counts for *_, counts in parts]),
    )
