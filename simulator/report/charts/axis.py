"""The axes of charts: the run's time, shared by all charts over it, and values, linear or logarithmic, with plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from simulator.report.charts.series import TimeSeries

CLOCK_FROM_S = 600.0  # of longer runs nobody reads seconds
_FEW_DECADES = 3


@dataclass(frozen=True)
class TimeAxis:
    """The run's time. Figures have seconds throughout; of a long run the page's script makes hours and minutes of them.

    It must, because the library takes numbers on an axis of dates for local time, and small ones for years.
    """

    end_s: float

    @classmethod
    def over(cls, series: TimeSeries) -> TimeAxis:
        """From the start of a run to the end of its last window."""
        return cls(series.end_s)

    @property
    def clock(self) -> bool:
        """Whether times are drawn as hours, minutes and seconds."""
        return self.end_s >= CLOCK_FROM_S

    @property
    def unit(self) -> str:
        """The axis's unit in words."""
        return "hours:minutes since the start" if self.clock else "seconds since the start"

    @property
    def hover(self) -> str:
        """A moment, in Plotly's templates."""
        return "%{x}" if self.clock else "%{x} s"

    def span(self) -> list[float]:
        """The whole axis, in seconds."""
        return [0.0, self.end_s]

    def layout(self) -> dict[str, Any]:
        """The x axis of a chart over time."""
        made = {**_lines(), "title": _title(self.unit), "range": self.span()}
        if not self.clock:
            return {**made, "hoverformat": ".1f"}
        stops = [
            {"dtickrange": [None, 1_000], "value": "%H:%M:%S.%L"},
            {"dtickrange": [1_000, 60_000], "value": "%H:%M:%S"},
            {"dtickrange": [60_000, None], "value": "%H:%M"},
        ]
        return {**made, "type": "date", "tickformatstops": stops, "hoverformat": "%H:%M:%S.%L"}


def plain(unit: str) -> dict[str, Any]:
    """An axis from nought."""
    return {**_lines(), "title": _title(unit), "type": "linear", "rangemode": "tozero", "separatethousands": True}


def logarithmic(unit: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis over values that lie in [low, high], low > 0, with ticks written as plain numbers.

    1, 2, 5, 10, 20 … while they fit, whole decades beyond, instead of the library's lone 2s and 5s.
    """
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    steps = (1, 2, 5) if last - first <= _FEW_DECADES else (1,)
    ticks = [float(f"{step}e{decade}") for decade in range(first, last + 1) for step in steps]
    texts = [f"{tick:,.0f}" if tick >= 1 else f"{tick:.9f}".rstrip("0") for tick in ticks]
    return {**_lines(), "title": _title(unit), "type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def percentile(inverse: float) -> str:
    """1 / (1 − quantile) as a percentage: 1000 → 99.9%."""
    nines = float(np.log10(inverse))
    whole = abs(nines - round(nines)) < 1e-6  # noqa: PLR2004  rounding alone
    digits = round(nines) - 2 if whole else int(np.ceil(nines)) - 1  # between the decades one digit more
    return f"{100 * (1 - 1 / inverse):.{min(max(digits, 0), 9)}f}%"


def percentiles(highest: float) -> dict[str, Any]:
    """The x axis of an HDR plot: 1 / (1 − quantile), logarithmic, up to `highest`."""
    marks = [mark for mark in (1, 2, *(10**n for n in range(1, 10))) if mark <= highest * 1.0001]
    return {
        **_lines(), "title": _title("percentile (% of transactions)"), "type": "log", "tickangle": 0, "tickmode": "array",
        "tickvals": marks, "ticktext": [percentile(mark) for mark in marks],
    }  # fmt: skip


def _lines() -> dict[str, Any]:
    return {"gridcolor": "$grid", "linecolor": "$line", "zerolinecolor": "$line", "color": "$muted", "ticks": ""}


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 8, "font": {"color": "$text", "size": 14}}
