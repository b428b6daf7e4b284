"""Charts of money: what was settled against the target curve, what is held on the way, and what nobody knows yet.

Values are divided into major units only here, for the height of a pixel: every sum of money in words stays an integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.report.charts.chart import Chart, Line, over_time
from simulator.report.wording import count, money_short, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import Floats, TimeSeries

_MINOR = 100  # to the major unit


def settled(series: TimeSeries, axis: TimeAxis, currency: str) -> Chart:
    """Value settled up to each moment, against offered and the target curve."""
    offered = series.values("offered_minor")
    lines = [
        Line("offered", _so_far(offered) / _MINOR, "blue", "dash"),
        Line("settled", _so_far(series.values("settled_minor")) / _MINOR, "green", width=3),
    ]
    asked = float(np.nansum(series.values("offered"))) if "offered" in series else 0.0
    if "target" in series and asked:
        # The curve asks for transactions; at the average amount that was asked for, they are this much money.
        target = _so_far(series.values("target")) * (float(np.nansum(offered)) / asked) / _MINOR
        more = {"fill": "tozeroy", "fillcolor": "$band"}
        lines.insert(0, Line("target curve", target, "grey", "dot", more=more))
    return over_time(
        "value", "Money settled so far, against the target curve",
        "Settled is what payments, refunds and posts have moved by then. It should run beside the target curve, which is the "
        "scenario's number of transactions at the average amount asked for. The distance to offered is money that was asked for "
        "and not moved: rejected, failed, dropped, only held, or still on its way.",
        f"{plain(currency)} since the start", axis=axis, show=_show(currency), lines=lines,
        seconds=np.append([0.0], series.starts_s + np.nan_to_num(series.lengths_s)),
    )  # fmt: skip


def flow(series: TimeSeries, axis: TimeAxis, currency: str) -> Chart:
    """Value offered and settled per second."""
    return over_time(
        "flow", "Money per second: offered and settled",
        "The distance between the two lines is money that was asked for and not (yet) moved in that second.",
        f"{plain(currency)} per second", axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=_show(currency, "/s"),
        lines=[
            Line("offered", series.per_second("offered_minor") / _MINOR, "blue", width=3),
            Line("settled", series.per_second("settled_minor") / _MINOR, "green", width=1.5),
        ],
    )  # fmt: skip


def held(series: TimeSeries, axis: TimeAxis, currency: str) -> Chart:
    """Money that is neither the payer's to spend nor the payee's yet: float between shards, and holds."""
    return over_time(
        "held", "Money on its way: float and reserved",
        "Float is debited at the payer's shard and not yet credited at the payee's; it goes back to nought when the run is over, "
        "or money is missing. Reserved is what open holds have set aside. Both as the journals' commits have them, at the end of "
        "each second.",
        plain(currency), axis=axis, seconds=series.starts_s + np.nan_to_num(series.lengths_s), show=_show(currency),
        lines=[
            Line("float, between shards", series.values("float_minor") / _MINOR, "orange"),
            Line("reserved by holds", series.values("reserved_minor") / _MINOR, "purple", "dash"),
        ],
        missing="it is read off the journals, and this run has none of them or is of an older version",
    )  # fmt: skip


def in_doubt(series: TimeSeries, axis: TimeAxis) -> Chart:
    """Transactions whose client does not know what became of them."""
    values = np.full(series.rows, np.nan)
    if all(name in series for name in ("sent", "ok", "rejected", "failed")):
        known = sum(
            (np.nan_to_num(series.values(name)) for name in ("ok", "rejected", "failed")), np.zeros(series.rows)
        )
        values = np.maximum(np.cumsum(np.nan_to_num(series.values("sent")) - known), 0)
    return over_time(
        "doubt", "In doubt: sent, and the client does not know",
        "Transactions sent and not known to have ended, at the end of each window. What is left when the run is over ended "
        "unknown: nobody can tell its client whether the money moved.",
        "transactions in doubt", axis=axis, seconds=series.starts_s + np.nan_to_num(series.lengths_s), show=count,
        lines=[Line("in doubt", values, "red")],
    )  # fmt: skip


def _so_far(values: Floats) -> Floats:
    """The running sum, from nought before the first window, (T + 1,); NaN throughout if nothing is known."""
    return (
        np.append([0.0], np.cumsum(np.nan_to_num(values))) if (~np.isnan(values)).any() else np.append(values, np.nan)
    )


def _show(currency: str, suffix: str = "") -> Callable[[object], str]:
    def show(value: object) -> str:
        return money_short(round(value * _MINOR), currency) + suffix if isinstance(value, float) else ""

    return show
