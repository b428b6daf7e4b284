"""Figures from a run's time series: pure functions that end in Plotly figures as plain data; no page, no file, no library.

`series` (columns as arrays) and `downsample` (few points, no peak lost) stand below; `load`, `latency`, `queues`, `spread` and
`money` make one `Chart` each function; `marks` makes what lies over all of them: faults and events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.report.charts import latency, load, money, queues, spread
from simulator.report.charts.axis import TimeAxis
from simulator.report.charts.series import TimeSeries
from simulator.report.wording import plain

if TYPE_CHECKING:
    from simulator.report.charts.chart import Chart
    from simulator.report.folder import RunFolder


def charts_of(run: RunFolder) -> list[Chart]:
    """Every chart of a run's report, in reading order; those without data say so (`Chart.missing`)."""
    series = TimeSeries.of(run.series).without_the_last_moment()
    platform = TimeSeries.of(run.platform)
    axis = TimeAxis.over(series)
    currency = str(run.summary.get("value", {}).get("currency", "CNY"))
    return [
        load.rates(series, axis, run.asked.knots_s),
        load.goodput(series, axis, run.summary.get("overload") or {}),
        latency.bands(series, axis),
        latency.heat(run.intervals.get("response_time"), axis),
        latency.percentiles(run.latency, run.overlays),
        queues.in_flight(series, axis),
        queues.depth(series, platform, axis),
        queues.commits(platform, axis),
        spread.nodes(series, axis),
        spread.answerers(series, axis, _names(run)),
        spread.shard_rates(series, axis),
        spread.shard_queues(platform, axis),
        spread.records(run.summary.get("shards") or []),
        money.settled(series, axis, currency),
        money.flow(series, axis, currency),
        money.held(series, axis, currency),
        money.in_doubt(series, axis),
    ]


def _names(run: RunFolder) -> list[str]:
    """Who answered, in the order of the columns."""
    nodes = (run.summary.get("answered_by") or {}).get("nodes") or []
    return [plain(node.get("node", "")) for node in nodes if isinstance(node, dict)]
