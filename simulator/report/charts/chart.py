"""One chart: a Plotly figure as plain data, with its unit, how to read it, and the same in figures for who cannot see it.

Colours are written `$blue`: the page's script puts the theme's own in their place, so one figure is right in light, dark and
print. Each line differs in colour and in dash, so that it can be told apart without colour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.report import wording
from simulator.report.blocks import Table
from simulator.report.charts import axis as axes
from simulator.report.charts.downsample import POINTS_MAX, kept, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import Floats

COLOURS = ("blue", "orange", "green", "purple", "grey", "red")
DASHES = ("solid", "dash", "dot", "dashdot")
HEAT = [[0.0, "$heat0"], [0.25, "$heat1"], [0.5, "$heat2"], [0.75, "$heat3"], [1.0, "$heat4"]]
_MARKED = 3  # fewer points make no line that could be seen


@dataclass(frozen=True)
class Line:
    """One line over time or over percentiles; `values` is what is drawn, NaN where nothing is known."""

    label: str
    values: Floats
    colour: str
    dash: str = "solid"
    width: float = 2
    more: dict[str, Any] = field(default_factory=dict)  # of the Plotly trace

    def known(self) -> bool:
        """Whether there is anything to draw."""
        return bool((~np.isnan(self.values)).any())


@dataclass(frozen=True)
class Chart:
    """What the page shows of one figure.

    Attributes:
        key: its name in the page.
        title: what it shows.
        reading: how to read it.
        unit: of what is drawn.
        data: Plotly traces; none: there is nothing to draw.
        layout: Plotly's layout, but for what the page gives to all.
        linked: its x axis is the run's time, and follows the others'.
        numbers: the same in figures: for each line the least, the most, and when.
        log_switch: the reader may change the y axis between logarithmic and linear.
        missing: why there is nothing to draw, if that is not plain from the files' absence.
    """

    key: str
    title: str
    reading: str
    unit: str
    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    linked: bool = False
    numbers: Table | None = None
    log_switch: bool = False
    missing: str = ""

    @property
    def tall(self) -> bool:
        """Whether it has many rows, and needs more height than lines do."""
        return any(trace["type"] == "heatmap" for trace in self.data)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.data

    def figure(self) -> dict[str, Any]:
        """What the page's script needs, ready for JSON."""
        return {
            "key": self.key, "data": self.data, "layout": self.layout, "linked": self.linked, "logSwitch": self.log_switch,
        }  # fmt: skip


def look(at: int) -> tuple[str, str]:
    """Colour and dash of the at-th of many lines that are alike: 24 can be told apart."""
    return COLOURS[at % len(COLOURS)], DASHES[at // len(COLOURS) % len(DASHES)]


def trace(line: Line, x: Floats, limit: int = POINTS_MAX) -> dict[str, Any]:
    """A line as a Plotly trace of at most `limit` points, with its peaks."""
    some = kept(line.values, limit)
    y = numbers(line.values[some])
    few = sum(value is not None for value in y) < _MARKED
    return {
        "type": "scatter", "mode": "lines+markers" if few else "lines", "name": line.label, "x": numbers(x[some]), "y": y,
        "line": {"color": f"${line.colour}", "dash": line.dash, "width": line.width},
        "marker": {"color": f"${line.colour}"}, "connectgaps": False, **line.more,
    }  # fmt: skip


def over_time(
    key: str, title: str, reading: str, unit: str, *, axis: TimeAxis, seconds: Floats, lines: Sequence[Line],
    show: Callable[[object], str], log: bool = False, limit: int = POINTS_MAX, floor: float = 0.0, missing: str = "",
    widths: Floats | None = None,
) -> Chart:  # fmt: skip
    """A chart of lines over the run's time.

    Args:
        key: see `Chart`, as the three after it.
        title: as above.
        reading: as above.
        unit: of the y axis.
        axis: the run's time.
        seconds: when each value was, (T,).
        lines: with T values each; those without any are left out.
        show: writes a value in the table, with its unit.
        log: the y axis starts logarithmic, and the reader may change that.
        limit: points of a line.
        floor: the least value on a logarithmic axis, which has no nought.
        missing: why there may be nothing.
        widths: of the windows that begin at `seconds`, (T,): a value of a window is drawn in its middle.
    """
    lines = [line for line in lines if len(line.values) == len(seconds) and line.known()]
    if not lines:
        return Chart(key, title, reading, unit, missing=missing)
    drawn = [np.maximum(line.values, floor) if log else line.values for line in lines]
    y = axes.plain(unit)
    if log:
        highest = max(float(np.nanmax(values)) for values in drawn)
        y = axes.logarithmic(unit, max(min(float(np.nanmin(values)) for values in drawn), floor), max(highest, floor))
    x = seconds if widths is None else seconds + np.nan_to_num(widths) / 2
    return Chart(
        key, title, reading, unit,
        [trace(Line(line.label, values, line.colour, line.dash, line.width, line.more), x, limit)
         for line, values in zip(lines, drawn, strict=True)],
        {"xaxis": axis.layout(), "yaxis": y, "hovermode": "x unified", "showlegend": len(lines) > 1},
        linked=True, log_switch=log, numbers=extremes(title, [(line.label, line.values) for line in lines], seconds, show),
    )  # fmt: skip


def compared(
    key: str, title: str, reading: str, unit: str, *, axis: TimeAxis, lines: Sequence[tuple[str, Floats, Floats]],
    show: Callable[[object], str], limit: int, floor: float = 0.0,
) -> Chart:  # fmt: skip
    """The same figure of many runs, each with times of its own: (label, seconds, values) each. `floor` > 0: logarithmic."""
    lines = [line for line in lines if not np.isnan(line[2]).all()]
    if not lines:
        return Chart(key, title, reading, unit)
    drawn = [(label, x, np.maximum(y, floor) if floor else y) for label, x, y in lines]
    heights = np.concatenate([y for _, _, y in drawn])
    y_axis = axes.logarithmic(unit, float(np.nanmin(heights)), float(np.nanmax(heights))) if floor else axes.plain(unit)
    data = [trace(Line(label, y, *look(at)), x, limit) for at, (label, x, y) in enumerate(drawn)]
    layout = {"xaxis": axis.layout(), "yaxis": y_axis, "hovermode": "x unified", "showlegend": len(drawn) > 1}
    rows = [row for label, x, y in lines if (table := extremes("", [(label, y)], x, show)) for row in table.rows]
    numbers = Table(f"{title}: in figures", ("", "lowest", "highest", "highest at"), rows)
    return Chart(key, title, reading, unit, data, layout, linked=True, numbers=numbers, log_switch=floor > 0)


def extremes(
    title: str, rows: Sequence[tuple[str, Floats]], seconds: Floats, show: Callable[[object], str]
) -> Table | None:
    """The least and the most of each row of values, and when the most was: a chart in figures. Of all points, not of those drawn.

    No averages: of percentiles they would mean nothing.
    """
    told = []
    for label, values in rows:
        if np.isnan(values).all():
            continue
        top = int(np.nanargmax(values))
        told.append((label, show(float(np.nanmin(values))), show(float(values[top])), moment(float(seconds[top]))))
    return Table(f"{title}: in figures", ("", "lowest", "highest", "highest at"), told) if told else None


def moment(seconds: float) -> str:
    """A time of the run, for a table."""
    return f"{seconds:,.1f} s" if seconds < axes.CLOCK_FROM_S else wording.duration(seconds)


def compact(value: float) -> str:
    """A number of any size in a few characters."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004  three digits


def heat_map(
    key: str, title: str, reading: str, unit: str, *, axis: TimeAxis, edges_s: Floats, y: dict[str, Any],
    y_values: list[Any], z: Floats, texts: Callable[[float], str], colour_unit: str, hover: str, table: Table | None,
    log: bool = False,
) -> Chart:  # fmt: skip
    """A heat map over the run's time.

    Args:
        key: see `Chart`, as the three after it.
        title: as above.
        reading: as above.
        unit: of the y axis.
        axis: the run's time.
        edges_s: the edges of the bins of time, (B + 1,).
        y: the layout of the y axis.
        y_values: the middles of the rows, or one edge more than there are.
        z: what is drawn, (rows, B); NaN is left out.
        texts: writes a value of the colour scale.
        colour_unit: what the colour says, with its unit.
        hover: Plotly's template for a cell; `customdata` is the value.
        table: the same in figures.
        log: colours by the logarithm, so that one in a million still shows.
    """
    drawn = np.full(z.shape, np.nan)
    np.log10(z, out=drawn, where=z > 0) if log else np.copyto(drawn, z)
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    ticks = np.linspace(low, high, 3) if high > low else np.array([low])
    bar = {
        # Above the plot, so that the plot is as wide as every other and the same second stands in the same place.
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "len": 0.5, "thickness": 10,
        "tickmode": "array", "tickvals": numbers(ticks), "ticktext": [texts(10**tick if log else tick) for tick in ticks],
        "tickfont": {"color": "$muted", "size": 11}, "tickangle": 0, "outlinewidth": 0,
        "title": {"text": colour_unit, "side": "top", "font": {"color": "$muted", "size": 12}},
    }  # fmt: skip
    made = {
        "type": "heatmap", "x": numbers(edges_s), "y": y_values, "z": [numbers(row) for row in drawn],
        "customdata": [numbers(row) for row in z], "colorscale": HEAT, "zmin": low, "zmax": high if high > low else low + 1,
        "hovertemplate": hover + "<extra></extra>", "hoverongaps": False, "colorbar": bar,
    }  # fmt: skip
    layout = {
        "xaxis": axis.layout(),
        "yaxis": y,
        "hovermode": "closest",
        "showlegend": False,
        "margin": {"t": 64, "autoexpand": False},
    }
    return Chart(key, title, reading, unit, [made], layout, linked=True, numbers=table)
