"""Charts of the load: what was asked, sent and answered, and what of it ended well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.report.charts.chart import Chart, Line, compared, over_time
from simulator.report.charts.downsample import numbers
from simulator.report.wording import duration, number, rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import TimeSeries

_PER_SECOND = "transactions per second"
_GOODPUT = (
    "Goodput is what was answered ok. Where it lies below offered, the platform had too little room: a good one goes on at "
    "its own rate, a bad one sinks. The band, if there is one, is how long it took to work off what a spike had piled up."
)
_UNSEEN = 0.005  # of the height of a chart: about a pixel
_SAME = "all that was completed was answered ok, so it is the same as the chart above"
_LATE = 0.8  # of the axis: a label there stands left of its mark


def rates(series: TimeSeries, axis: TimeAxis, knots_s: Sequence[float]) -> Chart:
    """Offered, sent and completed over the target curve with its knots."""
    retried = "attempts" in series and not np.array_equal(
        series.values("attempts"), series.values("sent"), equal_nan=True
    )
    chart = over_time(
        "rate", "Transactions per second: asked, sent, answered",
        "All is well when the three lines lie on one another and on the grey target. Sent below offered: the generator could not "
        "keep up. Completed below sent: the platform fell behind." + (
            " What was completed was answered ok, so it is the goodput too." if _all_went_well(series) else ""
        ) + (
            " Diamonds are the curve's knots: what was published; between them the curve is smooth." if len(knots_s) else ""
        ),
        _PER_SECOND, axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=rate,
        lines=[
            Line("target curve", series.per_second("target"), "grey", "dot", more={"fill": "tozeroy", "fillcolor": "$band"}),
            Line("offered", series.per_second("offered"), "blue", width=3),
            Line("sent", series.per_second("sent"), "orange", "dash"),
            Line("completed", series.per_second("completed"), "green", width=1.5),
            *([Line("attempts, retries included", series.per_second("attempts"), "purple", "dashdot")] if retried else []),
        ],
    )  # fmt: skip
    if chart.data and len(knots_s) and "target" in series:
        chart.data.append(_knots(series, knots_s))
    return chart


def _knots(series: TimeSeries, knots_s: Sequence[float]) -> dict[str, Any]:
    """The knots at the height of the target of their window: the rate there is the slope that the curve has at them."""
    at = np.clip(np.searchsorted(series.starts_s, np.asarray(knots_s), side="right") - 1, 0, series.rows - 1)
    return {
        "type": "scatter", "mode": "markers", "name": "knots of the curve", "x": numbers(np.asarray(knots_s, np.float64)),
        "y": numbers(series.per_second("target")[at]), "cliponaxis": False,
        "marker": {"symbol": "diamond", "size": 9, "color": "$page", "line": {"color": "$text", "width": 2}},
    }  # fmt: skip


def goodput(series: TimeSeries, axis: TimeAxis, overload: dict[str, Any]) -> Chart:
    """Offered against what was answered ok; a band for the time that a spike took to drain.

    Where all that was completed was ok, and nothing had to drain, the first chart shows the same, and says so: this one is empty.
    """
    ended, drain = number(overload.get("spike_ended_s")), number(overload.get("drain_s"))
    lasted = number(overload.get("overloaded_s")) or 0.0
    drained = ended is not None and drain and lasted >= 1  # a shorter one is a hiccup, and no spike
    if _all_went_well(series) and not drained:
        return Chart("overload", "Offered against goodput", _GOODPUT, _PER_SECOND, missing=_SAME)
    chart = over_time(
        "overload", "Offered against goodput",
        _GOODPUT,
        _PER_SECOND, axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=rate,
        lines=[
            Line("offered", series.per_second("offered"), "blue", width=3),
            Line("goodput (ok)", series.per_second("ok"), "green", width=1.5),
        ],
    )  # fmt: skip
    if not chart.empty and ended is not None and drain and drained:
        x0, x1 = ended, ended + drain
        chart.layout["shapes"] = [
            {
                "type": "rect", "x0": x0, "x1": x1, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
                "fillcolor": "$orange", "opacity": 0.2, "line": {"width": 0},
            }
        ]  # fmt: skip
        chart.layout["annotations"] = [
            {
                "x": x1, "y": 1, "yref": "paper", "yanchor": "top", "text": f"drain {duration(drain)}", "showarrow": False,
                "xanchor": "right" if x1 > _LATE * axis.end_s else "left", "bgcolor": "$page",
                "font": {"color": "$text", "size": 12},
            }
        ]  # fmt: skip
    return chart


def _all_went_well(series: TimeSeries) -> bool:
    """Whether goodput is what was completed, window for window, but for what no line is thin enough to show."""
    if "completed" not in series or "ok" not in series:
        return False
    completed, ok = (np.nan_to_num(series.per_second(name)) for name in ("completed", "ok"))
    return bool((completed - ok <= _UNSEEN * completed.max()).all())


def goodputs(series: Sequence[tuple[str, TimeSeries]], axis: TimeAxis, limit: int) -> Chart:
    """Answers ok per second, of many runs; at most `limit` points each."""
    return compared(
        "goodput", "Goodput: transactions that succeeded, per second",
        "The higher the better. A line that stays down after a disturbance has passed is a platform that does not recover by "
        "itself.",
        "ok per second", axis=axis, show=rate, limit=limit,
        lines=[(label, one.middles_s, one.per_second("ok")) for label, one in series if "ok" in one],
    )  # fmt: skip
