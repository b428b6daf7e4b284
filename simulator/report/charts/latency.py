"""Charts of response times: percentiles over time as bands, all of them as a heat map, and the HDR percentile plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.report.blocks import Table
from simulator.report.charts import axis as axes
from simulator.report.charts.chart import Chart, Line, compact, compared, heat_map, over_time, trace
from simulator.report.charts.downsample import BINS_MAX, edges
from simulator.report.wording import count, ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import Floats, TimeSeries
    from simulator.report.hlog import Curve, Intervals

FLOOR_MS = 0.001  # a logarithmic axis has no nought
_PER_DECADE = 12  # rows of the heat map; its bins are 21 % wide
_BAND = {"fill": "tonexty", "fillcolor": "$band"}
_MEASURES = (
    ("response_time", "response", "blue", "solid", 3.0),
    ("service_time", "service", "green", "dash", 2.0),
    ("schedule_lag", "schedule lag", "grey", "dot", 2.0),
)


def bands(series: TimeSeries, axis: TimeAxis) -> Chart:
    """Percentiles over time, shaded between one and the next."""
    marks: tuple[tuple[str, str, str, str, float, dict[str, str]], ...] = (
        ("p50", "p50", "green", "solid", 2.0, {}),
        ("p90", "p90", "blue", "dashdot", 2.0, _BAND),
        ("p99", "p99", "orange", "solid", 3.0, _BAND),
        ("p999", "p99.9", "purple", "dash", 2.0, _BAND),
        ("max", "max", "grey", "dot", 1.5, {}),
    )
    return over_time(
        "response", "Response time, percentiles over time",
        "p99 is the time that 99 of 100 customers did not have to wait longer than, counted from the instant each meant to pay. "
        "Shaded from p50 to p99.9: a thin band means that all fared alike. Flat is good; bands that climb mean a growing queue.",
        "response time (ms)", axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=ms, log=True, floor=FLOOR_MS,
        lines=[
            Line(label, series.values(f"response_{mark}_ms"), colour, dash, width, dict(more))
            for mark, label, colour, dash, width, more in marks
        ],
    )  # fmt: skip


def heat(intervals: Intervals | None, axis: TimeAxis) -> Chart:
    """How many transactions took how long, when: time × response time, both in bins; coloured by how many a second."""
    title = "Response time, every transaction: when, and how long"
    reading = (
        "Each cell is how many transactions a second began then and took so long: the stronger the colour, the more. One level "
        "stripe is a platform at ease. Two stripes are two kinds of service, such as a cache that hits and misses; a stripe that "
        "climbs is a queue; a column that reaches high is a stall. Colours grow tenfold, so that one in a million still shows."
    )
    unit = "response time (ms)"
    if intervals is None or not len(intervals.counts):
        return Chart("heat", title, reading, unit)
    z, edges_s, bounds = binned(intervals)
    counts = np.nansum(z * np.diff(edges_s), axis=1)
    rows = [
        (f"{ms(low)} to {ms(high)}", count(round(n)))
        for low, high, n in zip(bounds[:-1], bounds[1:], counts, strict=True) if round(n)
    ]  # fmt: skip
    return heat_map(
        "heat",
        title,
        reading,
        unit,
        axis=axis,
        edges_s=edges_s,
        y=axes.logarithmic(unit, float(bounds[0]), float(bounds[-1])),
        y_values=[float(f"{edge:.4g}") for edge in bounds],
        z=z,
        log=True,
        texts=compact,
        colour_unit="transactions per second",
        hover=axis.hover + ", about %{y:.3~g} ms: %{customdata:,.3~g}/s",
        table=Table(f"{title}: in figures, over the whole run", ("response time", "transactions"), rows),
    )


def binned(intervals: Intervals) -> tuple[Floats, Floats, Floats]:
    """Counts a second (rows, bins), the edges of the bins of time (s), and of the rows (ms); NaN where nothing is.

    Bins of time are groups of neighbouring windows, so they are as fine as the windows where those are; a count is in exactly
    one cell, and all cells together are all transactions.
    """
    groups = edges(len(intervals.starts_s), BINS_MAX)
    group_of = np.searchsorted(groups, np.arange(len(intervals.starts_s)), side="right") - 1
    times = np.maximum(intervals.values_ns / 1e6, FLOOR_MS)
    row = np.floor(np.log10(times) * _PER_DECADE + 1e-9).astype(np.int64)
    first, last = int(row.min()), int(row.max())
    cells = np.zeros((last - first + 1, len(groups) - 1))
    np.add.at(cells, (row - first, group_of[intervals.windows]), intervals.counts)
    ends = intervals.starts_s + intervals.lengths_s
    edges_s = np.append(intervals.starts_s[groups[:-1]], ends[-1])
    # A run without answers for a while has windows that are not there: then a bin is longer than its windows.
    lengths = np.maximum(np.add.reduceat(intervals.lengths_s, groups[:-1]), 1e-9)
    bounds = 10.0 ** (np.arange(first, last + 2) / _PER_DECADE)
    return np.where(cells > 0, cells / lengths, np.nan), edges_s, bounds


def percentiles(curves: Mapping[str, Curve], overlays: Sequence[tuple[str, Curve]]) -> Chart:
    """The HDR plot: each measure's quantile function, and what response times are compared with."""
    title = "How slow were the slowest? All transactions by percentile"
    unit = "time (ms)"
    names = " and ".join(label for label, _ in overlays)
    overlaid = f" For comparison: {names}; a gap that widens to the right is in the tail." if overlays else ""
    reading = (
        "Go right for ever rarer, slower transactions: at 99.9% only one in 1,000 took longer. Response is what customers felt, "
        "service is the platform's part, schedule lag the generator's own delay and should be lowest. Below 0.001 ms is drawn at "
        f"0.001 ms; what never is above it is left out.{overlaid}"
    )
    told = [
        (label, curves[tag], colour, dash, width)
        for tag, label, colour, dash, width in _MEASURES
        if curves.get(tag) and curves[tag][-1][1] > FLOOR_MS
    ]
    if not told:
        return Chart("percentiles", title, reading, unit)
    told += [
        (label, curve, *(("red", "dashdot"), ("purple", "dash"))[at % 2], 2.0)
        for at, (label, curve) in enumerate(overlays)
    ]
    return quantile_chart("percentiles", title, reading, unit, told)


def quantile_chart(
    key: str, title: str, reading: str, unit: str, curves: Sequence[tuple[str, Curve, str, str, float]]
) -> Chart:
    """Quantile functions over 1 / (1 − quantile): (label, curve, colour, dash, width) each."""
    if not curves:
        return Chart(key, title, reading, unit)
    data = []
    for label, curve, colour, dash, width in curves:
        x, y = np.array(curve, np.float64).T
        made = trace(Line(label, np.maximum(y, FLOOR_MS), colour, dash, width), x)
        told = {"customdata": [axes.percentile(mark) for mark in x], "hovertemplate": "%{y:.3~g} ms at %{customdata}"}
        data.append(made | told)
    heights = np.concatenate([np.maximum(np.array(curve)[:, 1], FLOOR_MS) for _, curve, *_ in curves])
    layout: dict[str, Any] = {
        "xaxis": axes.percentiles(max(curve[-1][0] for _, curve, *_ in curves)),
        "yaxis": axes.logarithmic(unit, float(heights.min()), float(heights.max())),
        "hovermode": "closest", "showlegend": len(curves) > 1,
    }  # fmt: skip
    marks = (("50%", 2), ("90%", 10), ("99%", 100), ("99.9%", 1e3), ("99.99%", 1e4))
    rows = [(label, *(_at(curve, inverse) for _, inverse in marks), ms(curve[-1][1])) for label, curve, *_ in curves]
    table = Table(f"{title}: in figures", ("", *(name for name, _ in marks), "max"), rows)
    return Chart(key, title, reading, unit, data, layout, numbers=table, log_switch=True)


def _at(curve: Curve, inverse: float) -> str:
    """The time at 1 / (1 − quantile), between the points of a curve on a straight line; nothing beyond what it resolves."""
    x, y = np.array(curve, np.float64).T
    return ms(float(np.interp(np.log10(inverse), np.log10(x), y))) if inverse <= x[-1] else ""


def times_of_many(
    title: str, reading: str, series: Sequence[tuple[str, TimeSeries]], column: str, axis: TimeAxis, limit: int
) -> Chart:
    """One response time (`response_p99_ms`) over time, of many runs; at most `limit` points each."""
    key = column.split("_")[1]
    return compared(
        key, title, reading, f"response time {key} (ms)", axis=axis, show=ms, limit=limit, floor=FLOOR_MS,
        lines=[(label, one.middles_s, one.values(column)) for label, one in series if column in one],
    )  # fmt: skip
