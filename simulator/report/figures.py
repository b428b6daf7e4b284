"""What each chart shows, as plain data: the page's own script draws it, so no plotting library is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from simulator.report import wording

if TYPE_CHECKING:
    from simulator.report.folder import Cell, Columns, Curve, RunFolder

POINTS_MAX = 2_000  # per line: more than a screen has pixels
NODES_MAX = 12  # stacked separately; beyond, the rest is one band, or no colour can be told from the next
_MOMENT = 0.02  # of the best second's answers
_FLOOR_MS = 0.001  # a logarithmic axis has no zero

TIME = "seconds since the start"


@dataclass(frozen=True)
class Series:
    """One line, band or set of bars; `style` names its look in the page's script."""

    label: str
    style: str
    x: list[float]
    y: list[Cell]


@dataclass(frozen=True)
class Band:
    """A stretch of time that a chart marks."""

    label: str
    start: float
    stop: float


@dataclass(frozen=True)
class Figure:
    """One chart; `kind` is time, stack, percentile or bars, `reading` the line that says how to read it."""

    key: str
    title: str
    reading: str
    kind: str
    x_title: str
    y_title: str
    series: list[Series]
    log: bool = False  # the y axis starts logarithmic
    log_switch: bool = False  # and the reader may change that
    bands: tuple[Band, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value is not None for series in self.series for value in series.y)

    def data(self) -> dict[str, Any]:
        """Return what the page's script needs, ready for JSON."""
        return {
            "key": self.key,
            "kind": self.kind,
            "x_title": self.x_title,
            "y_title": self.y_title,
            "log": self.log,
            "series": [vars(series) for series in self.series],
            "bands": [vars(band) for band in self.bands],
        }


def figures(run: RunFolder) -> list[Figure]:
    """Return every chart of the report, in reading order."""
    run = replace(run, series=without_the_last_moment(run.series))
    return [
        _rate(run), _overload(run), _response(run), _percentiles(run), _in_flight(run), _shares(run), _shards(run), _value(run),
    ]  # fmt: skip


def without_the_last_moment(columns: Columns) -> Columns:
    """Leave out last seconds in which nothing was asked and next to nothing answered.

    They are the few milliseconds of a drain; as points of a line they would read as a collapse.
    """
    offered, completed = _per_second(columns, "offered"), _per_second(columns, "completed")
    if not offered or not completed:
        return columns
    most = max((value or 0 for value in completed), default=0)
    rows = min(len(offered), len(completed))
    while rows > 1 and not offered[rows - 1] and (completed[rows - 1] or 0) < _MOMENT * most:
        rows -= 1
    return {name: cells[:rows] if len(cells) >= rows else cells for name, cells in columns.items()}


def thin(x: list[float], y: list[Cell], limit: int = POINTS_MAX) -> tuple[list[float], list[Cell]]:
    """Return at most `limit` points of a line: of each stretch the lowest and the highest, so no peak is lost."""
    if len(x) <= limit:
        return x, y
    stretches = limit // 2
    edges = [len(x) * at // stretches for at in range(stretches + 1)]
    kept: list[int] = []
    for start, end in pairwise(edges):
        known = [(value, at) for at in range(start, end) if (value := y[at]) is not None]
        kept += sorted({min(known)[1], max(known)[1]}) if known else [start]
    return [x[at] for at in kept], [y[at] for at in kept]


def time_line(columns: Columns, column: str, label: str, style: str, limit: int = POINTS_MAX) -> Series:
    """A column over time, at most `limit` points of it."""
    if column not in columns or "second" not in columns:
        return Series(label, style, [], [])
    x, y = thin(_seconds(columns), columns[column], limit)
    return Series(label, style, x, y)


def rate_line(columns: Columns, column: str, label: str, style: str, limit: int = POINTS_MAX) -> Series:
    """A line of what is counted in each window, per second; at most `limit` points of it."""
    known = {**columns, column: _per_second(columns, column)} if column in columns else columns
    return time_line(known, column, label, style, limit)


def _per_second(columns: Columns, column: str) -> list[Cell]:
    """Counts of windows as rates; a row without its length is a second's."""
    counts, lengths = columns.get(column, []), columns.get("window_s")
    if lengths is None:
        return counts
    return [None if n is None else n / length if length else n for n, length in zip(counts, lengths, strict=False)]


def _seconds(columns: Columns) -> list[float]:
    # A row without its second cannot be placed; its neighbours' distance is a second where nothing else is said.
    return [float(at if second is None else second) for at, second in enumerate(columns.get("second", []))]


def _rate(run: RunFolder) -> Figure:
    return Figure(
        key="rate",
        title="Transactions per second: asked, sent, answered",
        reading="All is well when the three lines lie on one another and on the grey target. Sent below offered: the "
        "generator could not keep up. Completed below sent: the platform fell behind.",
        kind="time",
        x_title=TIME,
        y_title="transactions per second",
        series=[
            rate_line(run.series, "target", "target curve", "target"),
            rate_line(run.series, "offered", "offered", "offered"),
            rate_line(run.series, "sent", "sent", "sent"),
            rate_line(run.series, "completed", "completed", "completed"),
            *_attempts(run),
        ],
    )


def _overload(run: RunFolder) -> Figure:
    found = run.summary.get("overload") or {}
    ended, drain = wording.number(found.get("spike_ended_s")), wording.number(found.get("drain_s"))
    bands: tuple[Band, ...] = ()
    if ended is not None and drain:
        bands = (Band(f"drain {wording.duration(drain)}", ended, ended + drain),)
    return Figure(
        key="overload",
        title="Offered against goodput",
        reading="Goodput is what was answered ok. Where it lies below offered, the platform had too little room: a good one "
        "goes on at its own rate, a bad one sinks. The band, if there is one, is how long it took to work off what a spike "
        "had piled up.",
        kind="time",
        x_title=TIME,
        y_title="transactions per second",
        series=[
            rate_line(run.series, "offered", "offered", "offered"),
            rate_line(run.series, "ok", "goodput (ok)", "completed"),
        ],
        bands=bands,
    )


def _attempts(run: RunFolder) -> list[Series]:
    """What retries and hedges make of the load, where there are any."""
    if run.series.get("attempts", []) == run.series.get("sent", []):
        return []
    return [rate_line(run.series, "attempts", "attempts, retries included", "attempts")]


def _response(run: RunFolder) -> Figure:
    marks = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))
    return Figure(
        key="response",
        title="Response time, second by second",
        reading="p99 is the time that 99 of 100 customers did not have to wait longer than, counted from the instant "
        "each meant to pay. Flat lines are good; lines that climb together mean a queue is growing.",
        kind="time",
        x_title=TIME,
        y_title="response time (ms)",
        series=[time_line(run.series, f"response_{mark}_ms", label, mark) for mark, label in marks],
        log=True,
        log_switch=True,
    )


def _percentiles(run: RunFolder) -> Figure:
    tags = (("response_time", "response"), ("service_time", "service"), ("schedule_lag", "schedule lag"))
    curves = [(label, tag, run.latency[tag]) for tag, label in tags if run.latency.get(tag)]
    return Figure(
        key="percentiles",
        title="How slow were the slowest? All transactions by percentile",
        reading="Go right for ever rarer, slower transactions: at 99.9% only one in 1,000 took longer. Response is "
        "what customers felt, service is the platform's part, schedule lag the generator's own delay and should be "
        "lowest. Below 0.001 ms is drawn at 0.001 ms.",
        kind="percentile",
        x_title="percentile (% of transactions)",
        y_title="time (ms)",
        series=[percentile_series(label, tag, curve) for label, tag, curve in curves],
        log=True,
        log_switch=True,
    )


def percentile_series(label: str, style: str, curve: Curve) -> Series:
    """A quantile function as a line of a logarithmic chart."""
    return Series(label, style, [x for x, _ in curve], [max(y, _FLOOR_MS) for _, y in curve])


def _in_flight(run: RunFolder) -> Figure:
    return Figure(
        key="in-flight",
        title="Transactions in flight",
        reading="Sent and not yet answered. Steady is good; a climb that does not come down means that more arrives "
        "than is served.",
        kind="time",
        x_title=TIME,
        y_title="transactions in flight",
        series=[time_line(run.series, "in_flight", "in flight", "in_flight")],
    )


def _shares(run: RunFolder) -> Figure:
    if "node_mean_sent" in run.series:
        return _extremes(run)
    found = (re.fullmatch(r"node(\d+)_sent", name) for name in run.series)
    nodes = sorted(int(match[1]) for match in found if match)
    seconds = _seconds(run.series)
    width = -(-len(seconds) // POINTS_MAX) or 1  # seconds to a point: sums, because shares of peaks would not add up
    x = seconds[::width]

    def sums(chosen: list[int]) -> list[Cell]:
        columns = [run.series[f"node{node}_sent"] for node in chosen]
        return [sum(value or 0 for column in columns for value in column[at : at + width]) for at in _starts(x, width)]

    shown = nodes if len(nodes) <= NODES_MAX else nodes[: NODES_MAX - 1]
    series = [Series(f"node {node}", f"node{at}", x, sums([node])) for at, node in enumerate(shown)]
    if len(shown) < len(nodes):
        series.append(
            Series(f"the other {len(nodes) - len(shown)} nodes", f"node{len(shown)}", x, sums(nodes[len(shown) :]))
        )
    return Figure(
        key="shares",
        title="Share of the load on each node",
        reading="Bands of equal, constant height mean an even spread. A band that narrows is a node the balancer "
        "avoided or lost.",
        kind="stack",
        x_title=TIME,
        y_title="share of transactions sent (%)",
        series=series,
    )


def _extremes(run: RunFolder) -> Figure:
    """Of more nodes than colours or columns: the busiest, the average and the least busy one."""
    return Figure(
        key="shares",
        title="Load on the busiest, the average and the least busy node",
        reading="Lines that lie close together mean an even spread. The busiest node pulling away from the average is "
        "where queues grow first; the least busy one at nought is a node that is avoided or lost.",
        kind="time",
        x_title=TIME,
        y_title="transactions sent per second",
        series=[
            rate_line(run.series, "node_max_sent", "busiest", "p99"),
            rate_line(run.series, "node_mean_sent", "average", "offered"),
            rate_line(run.series, "node_min_sent", "least busy", "max"),
        ],
    )


def _starts(x: list[float], width: int) -> range:
    return range(0, len(x) * width, width)


def _shards(run: RunFolder) -> Figure:
    rows = [row for row in run.summary.get("shards", []) if isinstance(row, dict)]
    x = [float(row.get("shard", at)) for at, row in enumerate(rows)]
    return Figure(
        key="shards",
        title="Load on each shard",
        reading="Each bar is the records in one shard's log: what its accounts sent and received. One bar far above "
        "the others is a hot shard: a merchant or account that takes more than its part.",
        kind="bars",
        x_title="shard number",
        y_title="records in the log",
        series=[Series("applied", "applied", x, [wording.number(row.get("applied")) for row in rows])] if rows else [],
    )


def _value(run: RunFolder) -> Figure:
    currency = str(run.summary.get("value", {}).get("currency", "CNY"))
    return Figure(
        key="value",
        title="Money per second: offered and settled",
        reading="The distance between the two lines is money that was asked for and not (yet) moved: rejected, failed, "
        "dropped, only held, or still on its way.",
        kind="time",
        x_title=TIME,
        y_title=f"{wording.plain(currency)} per second",
        series=[
            _major(rate_line(run.series, "offered_minor", "offered", "offered")),
            _major(rate_line(run.series, "settled_minor", "settled", "completed")),
        ],
    )


def _major(series: Series) -> Series:
    # Only for the height of a pixel: every figure of money in words stays an integer of minor units.
    return Series(series.label, series.style, series.x, [None if y is None else y / 100 for y in series.y])
