"""A run as a comparison sees it: what was counted and which times were measured in each slice of its time.

A slice is one or more windows of the run's grid, all of a length, at most SLICES_MAX of them. Times are read from `latency.hlog`,
counts from `timeseries.csv`; nothing is averaged on the way.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simulator.errors import SimError
from simulator.report.hlog import HlogError, read_hlog

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SLICES_MAX = 480  # of a longer run, windows are put together: more slices cost time and change no conclusion
OUTCOMES = ("ok", "rejected", "failed", "unknown", "dropped")
TIMES = ("response_time", "service_time", "schedule_lag")
_EPSILON_S = 1e-6
_CLOSE_S = 1e-3  # starts are written with three decimals


_GROUP_EDGES = np.unique(np.concatenate([np.arange(256) / 256, 1 - 10.0 ** (-np.arange(336) / 48)]))


@dataclass(frozen=True)
class Grouped:
    """Times in groups: `low` and `high` are logarithms of ns, (G,); `counts` of each slice, float64 (K, G)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """The times of one measure by slice: `counts[k, i]` of slice k have the value `values_ns[i]`; float64 (K, V), int64 (V,).

    Counts are float64 because they are multiplied with weights; they are exact below 2⁵³.
    """

    values_ns: NDArray[np.int64]  # ascending: the highest that belongs to each bucket, as percentiles are reported
    counts: NDArray[np.float64]

    @property
    def total(self) -> int:
        """How many were measured."""
        return int(self.counts.sum())

    @cached_property
    def grouped(self) -> Grouped:
        """Neighbouring values put together, at most about 600 groups: fine in the middle, and ever finer in the tail.

        For resampling, which asks for a percentile thousands of times; between a group's ends it is found on a straight line, so
        that a small change of the counts is a small change of the percentile, not none or a whole bucket's.
        """
        counted = self.counts.sum(axis=0)
        before = (np.cumsum(counted) - counted) / max(counted.sum(), 1)
        of_value = np.searchsorted(_GROUP_EDGES, before, side="right")
        starts = np.flatnonzero(np.diff(of_value, prepend=-1))
        logs = np.log(np.maximum(self.values_ns, 1).astype(np.float64))
        ends = np.append(starts[1:], len(logs)) - 1
        return Grouped(logs[starts] - 1 / 1_024, logs[ends], np.add.reduceat(self.counts, starts, axis=1))


@dataclass(frozen=True)
class Sample:
    """One run. K slices; `seconds` is how long each was, `outcomes[name]` how many ended so in it, all float64 (K,)."""

    name: str
    seconds: NDArray[np.float64]
    outcomes: dict[str, NDArray[np.float64]]
    times: dict[str, Times]  # a measure that nothing is known of is left out

    @property
    def slices(self) -> int:
        """K."""
        return len(self.seconds)

    @property
    def slice_s(self) -> float:
        """How long a slice is; the last one may be shorter."""
        return float(self.seconds[0])

    @property
    def duration_s(self) -> float:
        """How long all of them are."""
        return float(self.seconds.sum())

    def until(self, slices: int) -> Sample:
        """The first so many slices of it."""
        return Sample(
            self.name,
            self.seconds[:slices],
            {name: counts[:slices] for name, counts in self.outcomes.items()},
            {name: Times(times.values_ns, times.counts[:slices]) for name, times in self.times.items()},
        )


def read_sample(run: Path, name: str, duration_s: float, measures: Collection[str] = ("response_time",)) -> Sample:
    """Reads a run's folder.

    Args:
        run: the folder, whose summary has been read.
        name: what to call it.
        duration_s: how long transactions were released; later windows hold a drain, and are left out.
        measures: which of TIMES are wanted.

    Raises:
        SimError: a file is missing or cannot be read, or there is no whole window.
    """
    rows = _series(run / "timeseries.csv")
    starts = np.array([float(row["second"]) for row in rows])
    lengths = np.array([float(row.get("window_s") or 1.0) for row in rows])
    kept = int((starts < duration_s - _EPSILON_S).sum())
    if not kept:
        raise SimError(f"{run}: is too short to compare: there is no window that transactions were sent in")
    starts, lengths = starts[:kept], np.minimum(lengths[:kept], duration_s - starts[:kept])
    of_window, slices = slices_of(starts, lengths)

    def by_slice(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(of_window, values, slices).astype(np.float64)

    outcomes = {name: by_slice([float(row.get(name) or 0) for row in rows[:kept]]) for name in OUTCOMES}
    return Sample(
        name,
        by_slice(lengths),
        outcomes,
        _read_times(run / "latency.hlog", measures, starts, of_window, slices),
    )


def slices_of(starts: NDArray[np.float64], lengths: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """The slice that each window belongs to, (T,), and how many slices there are.

    A slice is as long as the longest window, and longer by a whole factor where there would be more than SLICES_MAX.
    """
    longest = float(lengths.max())
    end = float(starts[-1] + lengths[-1])
    width = longest * max(math.ceil(end / longest / SLICES_MAX - _EPSILON_S), 1)
    slices = ((starts + _EPSILON_S) // width).astype(np.int64)
    return slices, int(slices[-1]) + 1


def _series(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except FileNotFoundError:
        raise SimError(f"{path}: is missing, and a comparison is made of it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SimError(f"{path}: cannot be read: {error}") from None
    if not rows or not {"second", "ok"} <= rows[0].keys():
        raise SimError(f"{path}: has no windows with outcomes in them; the run may not have finished")
    return rows


def _read_times(
    path: Path, measures: Collection[str], starts: NDArray[np.float64], of_window: NDArray[np.int64], slices: int
) -> dict[str, Times]:
    """The times of each measure, from the log's interval histograms."""
    try:
        log = read_hlog(path, measures).intervals
    except FileNotFoundError:
        raise SimError(f"{path}: is missing, and a comparison is made of it") from None
    except HlogError as error:
        raise SimError(f"{path}: cannot be read: {error}") from None
    found = {}
    for name, intervals in log.items():
        if name in measures:
            at = np.searchsorted(starts, intervals.starts_s + _CLOSE_S, side="right") - 1
            at[intervals.starts_s >= starts[-1] + _CLOSE_S] = -1  # of the drain
            row = at[intervals.windows]
            kept = row >= 0
            if kept.any():
                found[name] = _times(of_window[row[kept]], intervals.values_ns[kept], intervals.counts[kept], slices)
    return found


def _times(rows: NDArray[np.int64], values_ns: NDArray[np.int64], counts: NDArray[np.int64], slices: int) -> Times:
    used, columns = np.unique(values_ns, return_inverse=True)
    dense = np.zeros((slices, len(used)))
    np.add.at(dense, (rows, columns), counts)
    return Times(used, dense)


def merged(samples: Sequence[Sample], name: str) -> tuple[Sample, NDArray[np.int64]]:
    """Several runs as one, slice behind slice, and which run each slice is of, int64 (K,). A measure must be known of all."""
    of_run = np.repeat(np.arange(len(samples)), [sample.slices for sample in samples])
    times = {}
    for measure in set.intersection(*(set(sample.times) for sample in samples)):
        parts = [sample.times[measure] for sample in samples]
        values = np.unique(np.concatenate([part.values_ns for part in parts]))
        counts = np.zeros((len(of_run), len(values)))
        row = 0
        for part in parts:
            counts[row : row + len(part.counts), np.searchsorted(values, part.values_ns)] = part.counts
            row += len(part.counts)
        times[measure] = Times(values, counts)
    seconds = np.concatenate([sample.seconds for sample in samples])
    outcomes = {outcome: np.concatenate([sample.outcomes[outcome] for sample in samples]) for outcome in OUTCOMES}
    return Sample(name, seconds, outcomes, times), of_run
