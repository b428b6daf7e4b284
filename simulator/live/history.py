"""A run's time series while it goes on, in rows of a second or more: bounded however long the run is.

Counts are the run's own, window by window. Response times are the differences of the run's histogram between two looks, so they
belong to the second in which the answer came, give or take a look; the report has them by the intended time. No percentile is
averaged: a row's are read off its own histogram.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.measure.histogram import Histogram, highest_equivalent_ns
from simulator.measure.recorder import RESPONSE
from simulator.measure.samples import PlatformSamples
from simulator.report.charts.latency import FLOOR_MS
from simulator.report.hlog import Intervals, curve_of
from simulator.report.summary import load_columns, spread_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.live.watched import Platform
    from simulator.measure.recorder import Tallies
    from simulator.report.hlog import Curve

ROWS_MAX = 600  # ten minutes in seconds; longer runs have longer rows
_NS_PER_S = 1_000_000_000
_CELLS_PER_DECADE = 12  # of response times kept a row; those of the report's heat map
_PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0))


class _Row(NamedTuple):
    percentiles_ms: list[float | str]
    values_ns: NDArray[np.int64]  # of a few cells that stand for all times in them
    counts: NDArray[np.int64]


class History:
    """Gathers rows of a run that is counted in `tallies`, whose windows are seconds."""

    def __init__(
        self, tallies: Tallies, target: NDArray[np.float64], duration_s: float, platform: Platform | None
    ) -> None:
        self._tallies = tallies
        self._target = target
        self._platform = platform
        windows = len(tallies.offered)
        self.width = max(ceil(windows / ROWS_MAX), 1)  # windows in a row
        self._rows: list[_Row] = []
        self._before = np.zeros_like(tallies.totals[RESPONSE])
        self._samples: PlatformSamples | None = None
        if platform is not None:
            self._samples = PlatformSamples(duration_s, len(platform.busy_ns), len(platform.applied))

    @property
    def rows(self) -> int:
        """How many rows are whole."""
        return len(self._rows)

    def look(self, now_ns: int) -> bool:
        """Takes a look, a few times a second; True if a row has become whole.

        Where looks were too far apart for a row, its times are not known: they count in the row of the next look.
        """
        if self._samples is not None and self._platform is not None:
            seen = self._platform
            self._samples.look(now_ns, seen.waiting(), self._tallies.shard_in_flight, seen.commits, seen.busy_ns)
        whole = min(max(now_ns, 0) // (_NS_PER_S * self.width), len(self._tallies.offered) // self.width)
        if whole <= self.rows:
            return False
        nothing = np.zeros(0, np.int64)
        while self.rows < whole - 1:
            self._rows.append(_Row([""] * len(_PERCENTILES), nothing, nothing))
        counts = self._tallies.totals[RESPONSE].copy()
        fresh = np.maximum(counts - self._before, 0)  # of several generators the sum may be read half renewed
        self._before = counts
        self._rows.append(_row(fresh))
        return True

    def columns(self) -> dict[str, list[Any]]:
        """The whole rows, named as in timeseries.csv."""
        windows = self.rows * self.width
        if not windows:
            return {}
        grouped = _grouped(self._tallies, windows, self.width)
        target = np.add.reduceat(
            np.append(self._target, np.zeros(windows))[:windows], np.arange(0, windows, self.width)
        )
        columns = load_columns(grouped, target, self.rows)
        for at, (name, _) in enumerate(_PERCENTILES):
            columns[f"response_{name}_ms"] = [row.percentiles_ms[at] for row in self._rows]
        return columns | spread_columns(grouped, self.rows)

    def platform_columns(self) -> dict[str, list[Any]]:
        """The whole rows of what the platform shows, named as in platform.csv; none where it is not ours."""
        return self._samples.columns if self._samples is not None else {}

    def intervals(self) -> Intervals:
        """Response times row by row, in the cells of a heat map."""
        starts = np.arange(self.rows, dtype=np.float64) * self.width
        nothing = [np.zeros(0, np.int64)]
        return Intervals(
            starts, np.full(self.rows, float(self.width)),
            np.repeat(np.arange(self.rows), [len(row.counts) for row in self._rows]),
            np.concatenate([row.values_ns for row in self._rows] or nothing),
            np.concatenate([row.counts for row in self._rows] or nothing),
        )  # fmt: skip


def whole_run(counts: NDArray[np.int64]) -> Curve | None:
    """The quantile function of one histogram (COUNTS,); None if it counted nothing. It may still be counted into."""
    counts = counts.copy()
    used = np.flatnonzero(counts)
    return curve_of(highest_equivalent_ns(used), counts[used]) if len(used) else None


def _row(counts: NDArray[np.int64]) -> _Row:
    histogram = Histogram(counts)
    found = [histogram.percentile_ns(percent) for _, percent in _PERCENTILES]
    used = np.flatnonzero(counts)
    values_ns = highest_equivalent_ns(used)
    cell = np.floor(np.log10(np.maximum(values_ns / 1e6, FLOOR_MS)) * _CELLS_PER_DECADE + 1e-9)
    _, first, which = np.unique(cell, return_index=True, return_inverse=True)
    sums = np.bincount(which, counts[used], len(first)).astype(np.int64)
    return _Row(["" if ns is None else round(ns / 1e6, 6) for ns in found], values_ns[first], sums)


def _grouped(tallies: Tallies, windows: int, width: int) -> Tallies:
    """The first `windows` windows in groups of `width`: counts are added, of the most in flight the most stays."""
    if width == 1:
        return tallies
    firsts = np.arange(0, windows, width)
    added = (
        "offered",
        "sent",
        "answered",
        "refused",
        "offered_minor",
        "settled_minor",
        "node_sent",
        "shard_ok",
        "cpu_ns",
    )
    groups = {name: np.add.reduceat(getattr(tallies, name)[:windows], firsts, axis=0) for name in added}
    groups["in_flight_top"] = np.maximum.reduceat(tallies.in_flight_top[:windows], firsts)
    return tallies._replace(grid_ns=tallies.grid_ns[: windows + 1 : width], **groups)
