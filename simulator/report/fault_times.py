"""When faults were at work: from their start until they are over and what they piled up is worked off.

A limit that is reached then says how the platform stands a fault; one that is reached without says what it can take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.measure.overload import NOISE_SIGMAS, episodes, is_overloaded
from simulator.report.charts.marks import bands_of
from simulator.report.charts.series import TimeSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_SETTLED = 1.5  # of the time in flight before the fault: what it piled up is worked off
_BEFORE_S = 3.0  # before a fault, from which that is taken
_EDGES = frozenset({"second", "window_s"})


@dataclass(frozen=True)
class UnderFault:
    """A stretch of time, in seconds of the run, from window edge to window edge; `stop_s` infinite: to the end."""

    label: str
    start_s: float
    stop_s: float


def under_faults(events: Iterable[dict[str, Any]], series: TimeSeries) -> list[UnderFault]:
    """The stretches in which faults were at work, in order of their start.

    Each goes on after its fault until transactions are in flight as long as before: by Little's law, in flight over offered.
    Without these columns it ends with the window in which the fault does.
    """
    return [
        UnderFault(
            band.label,
            _window_of(series, band.start_s),
            np.inf if band.stop_s is None else _settled_s(series, band.start_s, band.stop_s),
        )
        for band in bands_of(events)[0]
    ]


def without(series: TimeSeries, stretches: Sequence[UnderFault]) -> TimeSeries:
    """The series as if nothing had happened in the windows that overlap a stretch: every count there is nought."""
    masked = np.zeros(series.rows, dtype=np.bool_)
    ends = series.starts_s + np.nan_to_num(series.lengths_s)
    for one in stretches:
        masked |= (series.starts_s < one.stop_s) & (ends > one.start_s)
    columns = {
        name: cells
        if name in _EDGES
        else [0 if at < len(masked) and masked[at] else cell for at, cell in enumerate(cells)]
        for name, cells in series.columns.items()
    }
    return TimeSeries.of(columns)


def overload_in(series: TimeSeries) -> dict[str, Any]:
    """The worst overload of a series, with the keys of `measure.overload` that tell of the spike; empty if there is none."""
    if not series.rows or "offered" not in series or "completed" not in series:
        return {}
    offered, completed, refused = (np.nan_to_num(series.values(name)) for name in ("offered", "completed", "refused"))
    decided = completed - refused
    counts: NDArray[np.int64] = offered.astype(np.int64)
    found = episodes(is_overloaded(counts, decided.astype(np.int64)))
    if not found:
        return {}
    first, stop = max(found, key=lambda episode: float((offered - decided)[episode[0] : episode[1]].sum()))
    length = float(np.nan_to_num(series.lengths_s)[first:stop].sum())
    ok = float(np.nan_to_num(series.values("ok"))[first:stop].sum())
    return {
        "spike_began_s": float(series.starts_s[first]),
        "spike_ended_s": float(series.starts_s[first]) + length,
        "overloaded_s": length,
        "spike_offered_per_s": float(offered[first:stop].sum()) / length if length else 0.0,
        "sustained_per_s": ok / length if length else 0.0,
    }


def _row_of(series: TimeSeries, at_s: float) -> int:
    return int(np.clip(np.searchsorted(series.starts_s, at_s, side="right") - 1, 0, max(series.rows - 1, 0)))


def _window_of(series: TimeSeries, at_s: float) -> float:
    return float(series.starts_s[_row_of(series, at_s)]) if series.rows else at_s


def _settled_s(series: TimeSeries, start_s: float, stop_s: float) -> float:
    """Where the window ends in which a fault's work is undone; infinite: nowhere."""
    if not series.rows:
        return stop_s
    first, last = _row_of(series, start_s), _row_of(series, stop_s)
    ends = series.starts_s + np.nan_to_num(series.lengths_s)
    if "in_flight" not in series or "offered" not in series or not first:
        return float(ends[last])
    held, offered = np.nan_to_num(series.values("in_flight")), np.nan_to_num(series.per_second("offered"))
    before = slice(_row_of(series, max(float(series.starts_s[first]) - _BEFORE_S, 0.0)), first)
    usual_s = float(np.sum(held[before]) / max(np.sum(offered[before]), 1e-9))
    expected = usual_s * offered
    calm = np.flatnonzero(held <= _SETTLED * expected + NOISE_SIGMAS * np.sqrt(expected))
    settled = calm[calm >= last]
    return float(ends[settled[0]]) if len(settled) else np.inf
