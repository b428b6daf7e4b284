"""Charts of how the load is spread: over nodes as shares, over shards and time as heat maps, over shards in all as bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.report.blocks import Table
from simulator.report.charts import axis as axes
from simulator.report.charts.chart import COLOURS, Chart, Line, compact, heat_map, moment, over_time
from simulator.report.charts.downsample import BINS_MAX, POINTS_MAX, edges, numbers, pooled
from simulator.report.charts.queues import NODES_MAX, nodes_in
from simulator.report.wording import count, number, rate, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import Floats, TimeSeries

_ROWS_TOLD = 16  # shards in the table beside a heat map, the busiest first
_WIDE = 32  # bars whose axis numbers each of them


def nodes(series: TimeSeries, axis: TimeAxis) -> Chart:
    """Each node's share of what was sent, stacked; of more nodes than have columns the extremes."""
    if "node_mean_sent" in series:
        return _extremes(series, axis)
    title, unit = "Share of the load on each node", "share of transactions sent (%)"
    reading = (
        "Bands of equal, constant height mean an even spread. A band that narrows is a node the balancer avoided or lost; where "
        "all fall to nought, nothing was sent."
    )
    found = nodes_in(series, "sent")
    if not found:
        return Chart("shares", title, reading, unit)
    labels = [f"node {node}" for node in found[:NODES_MAX]]
    sent = np.nan_to_num(series.matrix([f"node{node}_sent" for node in found]))
    return _stacked("shares", title, reading, unit, series, axis, sent, labels, "nodes")


def answerers(series: TimeSeries, axis: TimeAxis, names: list[str]) -> Chart:
    """Each node's share of the answers, by the names that the answers gave, stacked: what a balancer that is not ours does."""
    title, unit = "Share of the answers of each node behind the balancer", "share of answers (%)"
    reading = (
        "Each band is a node by its own name, as its answers gave it. Equal, constant heights mean an even spread. A band that "
        "narrows is a node that was left out, or could not answer; how soon it is wide again is how soon it was let back in."
    )
    known = [(at, name) for at, name in enumerate(names) if f"answerer{at}_answered" in series]
    if not known:
        return Chart("answerers", title, reading, unit)
    answered = np.nan_to_num(series.matrix([f"answerer{at}_answered" for at, _ in known]))
    return _stacked("answerers", title, reading, unit, series, axis, answered, [name for _, name in known], "nodes")


def _stacked(
    key: str, title: str, reading: str, unit: str, series: TimeSeries, axis: TimeAxis, counts: Floats, labels: list[str],
    noun: str,
) -> Chart:  # fmt: skip
    """Shares of the counts (labels, windows) over time; what is beyond the most shown is one band."""
    # Sums over groups of windows, because shares of peaks would not add up.
    bounds = edges(series.rows, POINTS_MAX)
    sent = pooled(counts, bounds, np.sum)
    if len(counts) > NODES_MAX:
        shown = NODES_MAX - 1
        labels = [*labels[:shown], f"the other {len(counts) - shown} {noun}"]
        sent = np.vstack([sent[:shown], sent[shown:].sum(axis=0)])
    totals = sent.sum(axis=0)
    if not totals.any():
        return Chart(key, title, reading, unit)
    ends = series.starts_s + np.nan_to_num(series.lengths_s)
    x = numbers((series.starts_s[bounds[:-1]] + ends[[stop - 1 for stop in bounds[1:]]]) / 2)

    data = [
        {
            "type": "scatter", "mode": "lines", "name": label, "x": x, "y": numbers(row), "stackgroup": "all",
            "groupnorm": "percent", "line": {"color": f"${COLOURS[at % len(COLOURS)]}", "width": 1},
            "hovertemplate": "%{y:.1f}%",
        }
        for at, (label, row) in enumerate(zip(labels, sent, strict=True))
    ]  # fmt: skip
    with np.errstate(invalid="ignore"):
        shares = sent / totals
    seconds = series.starts_s[bounds[:-1]]
    rows = [
        (label, share(row.sum() / totals.sum()), share(np.nanmin(part)), share(np.nanmax(part)),
         moment(float(seconds[int(np.nanargmax(part))])))
        for label, row, part in zip(labels, sent, shares, strict=True)
    ]  # fmt: skip
    table = Table(f"{title}: in figures", ("", "in all", "lowest", "highest", "highest at"), rows)
    layout = {
        "xaxis": axis.layout(), "yaxis": {**axes.plain(unit), "range": [0, 100], "ticksuffix": "%"}, "hovermode": "x unified",
        "showlegend": len(labels) > 1,
    }  # fmt: skip
    return Chart(key, title, reading, unit, data, layout, linked=True, numbers=table)


def _extremes(series: TimeSeries, axis: TimeAxis) -> Chart:
    return over_time(
        "shares", "Load on the busiest, the average and the least busy node",
        "Lines that lie close together mean an even spread. The busiest node pulling away from the average is where queues grow "
        "first; the least busy one at nought is a node that is avoided or lost.",
        "transactions sent per second", axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=rate,
        lines=[
            Line("busiest", series.per_second("node_max_sent"), "orange", width=3),
            Line("average", series.per_second("node_mean_sent"), "blue"),
            Line("least busy", series.per_second("node_min_sent"), "grey", "dot"),
        ],
    )  # fmt: skip


def shard_rates(series: TimeSeries, axis: TimeAxis) -> Chart:
    """Answers ok of each shard over time; of thousands the busiest of each group."""
    title = "Answers of each shard over time"
    reading = (
        "Each row is a shard: the stronger the colour, the busier. A row that stands out is a hot shard: a merchant or account "
        "that takes more than its part. A row that fades is a shard that stood still."
    )
    labels, names = _rows(series, r"shard(\d+)_ok")
    if not names:
        labels, names = _rows(series, r"shard(\d+)to\d+_max_ok")
        title += ": of each group its busiest" if names else ""
    return _of_shards(
        "shard-heat", title, reading, "ok per second", series, axis, (labels, names), rate, per_second=True
    )


def shard_queues(platform: TimeSeries, axis: TimeAxis) -> Chart:
    """What is in flight to each shard, as sampled."""
    return _of_shards(
        "shard-queues", "In flight at each shard over time",
        "Each row is a shard: the stronger the colour, the more was sent to it and not yet answered, the most that a few looks a "
        "second saw. This is where a hot shard queues, before anything else shows it.",
        "transactions in flight", platform, axis, _rows(platform, r"shard(\d+)_in_flight"), count, per_second=False,
    )  # fmt: skip


def _of_shards(
    key: str, title: str, reading: str, colour: str, series: TimeSeries, axis: TimeAxis, rows: tuple[list[int], list[str]],
    show: Callable[[object], str], *, per_second: bool,
) -> Chart:  # fmt: skip
    labels, names = rows
    if not names or not series.rows:
        return Chart(key, title, reading, "shard number", missing="it was not recorded by shard in this run")
    matrix = series.matrix(names)
    if per_second:
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = matrix / series.lengths_s
    if not np.nan_to_num(matrix).any():
        return Chart(key, title, reading, "shard number")
    bounds = edges(series.rows, BINS_MAX)
    z = pooled(matrix, bounds, np.nanmax)
    edges_s = np.append(series.starts_s[bounds[:-1]], series.end_s)
    y: dict[str, Any] = {**axes.plain("shard number"), "rangemode": "normal"}
    step = labels[1] - labels[0] if len(labels) > 1 else 1
    return heat_map(
        key,
        title,
        reading,
        "shard number",
        axis=axis,
        edges_s=edges_s,
        y=y,
        z=z,
        y_values=[at + (step - 1) / 2 for at in labels],
        texts=compact,
        colour_unit=colour,
        table=_busiest(title, labels, matrix, series.starts_s, show),
        hover="shard %{y}, " + axis.hover + ": %{z:,.4~g} " + colour,
    )


def _busiest(title: str, labels: list[int], matrix: Floats, seconds: Floats, show: Callable[[object], str]) -> Table:
    tops = np.nanmax(np.nan_to_num(matrix), axis=1)
    rows = []
    for at in np.argsort(-tops, kind="stable")[:_ROWS_TOLD].tolist():
        when = int(np.nanargmax(np.nan_to_num(matrix[at])))
        rows.append((f"shard {labels[at]}", show(float(tops[at])), moment(float(seconds[when]))))
    caption = f"{title}: in figures" + (f", the {_ROWS_TOLD} highest" if len(labels) > _ROWS_TOLD else "")
    return Table(caption, ("", "highest", "at"), rows)


def _rows(series: TimeSeries, pattern: str) -> tuple[list[int], list[str]]:
    found = sorted((int(match[1]), match[0]) for name in series.columns if (match := re.fullmatch(pattern, name)))
    return [at for at, _ in found], [name for _, name in found]


def records(shards: list[Any]) -> Chart:
    """The records in the log of each shard."""
    title, unit = "Load on each shard, over the whole run", "records in the log"
    reading = (
        "Each bar is the records in one shard's log: what its accounts sent and received. One bar far above the others is a hot "
        "shard: a merchant or account that takes more than its part."
    )
    rows = [row for row in shards if isinstance(row, dict)]
    values = np.array([np.nan if (n := number(row.get("applied"))) is None else n for row in rows])
    if not rows or np.isnan(values).all():
        return Chart("shards", title, reading, unit)
    x = [int(number(row.get("shard")) or 0) if row.get("shard") is not None else at for at, row in enumerate(rows)]
    data = [{"type": "bar", "name": "records", "x": x, "y": numbers(values), "marker": {"color": "$blue"}}]
    x_axis: dict[str, Any] = {**axes.plain("shard number"), "rangemode": "normal"}
    if len(x) <= _WIDE:
        x_axis["dtick"] = 1
    layout = {"xaxis": x_axis, "yaxis": axes.plain(unit), "hovermode": "closest", "showlegend": False}
    top, least = int(np.nanargmax(values)), int(np.nanargmin(values))
    told = [
        ("busiest", f"shard {x[top]}", count(float(values[top]))),
        ("least busy", f"shard {x[least]}", count(float(values[least]))),
        ("on average", "", count(float(np.nanmean(values)))),
    ]
    table = Table(f"{title}: in figures", ("", "shard", "records"), told, words=frozenset({0, 1}))
    return Chart("shards", title, reading, unit, data, layout, numbers=table)
