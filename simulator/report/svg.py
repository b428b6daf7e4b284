"""Charts drawn as SVG where the page is made: no script, a few kilobytes, and the page's own colours in light and dark.

For pages that nobody zooms into: comparisons and trends. Text is escaped by the template engine; what is made here is markup of
numbers and of labels that went through `markupsafe`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 860, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 14, 46
COLOURS = ("blue", "orange", "green", "purple", "grey", "red")
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_TICKS = 6


@dataclass(frozen=True)
class Line:
    """One line of a chart; None breaks it. `marks`: a colour for each point that is drawn as a dot, empty for none."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    marks: Sequence[str] = ()
    titles: Sequence[str] = ()  # what each dot says when it is pointed at


@dataclass(frozen=True)
class Axis:
    """A scale from numbers to pixels; `ticks` are (value, label)."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def part(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1 at the high end."""
        low, high, at = (math.log10(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.5


def linear(values: Sequence[float], *, from_zero: bool = True) -> Axis:
    """An axis with round ticks over some values."""
    low = min([0.0, *values]) if from_zero else min(values, default=0.0)
    high = max(values, default=1.0)
    if high <= low:
        high = low + 1
    step = _round_step((high - low) / _TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(
        first * step, last * step, log=False, ticks=tuple((k * step, _number(k * step)) for k in range(first, last + 1))
    )


def logarithmic(values: Sequence[float]) -> Axis:
    """A logarithmic axis over values above 0, with 1, 2, 5 where there is room."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    steps = (1, 2, 5) if high - low <= 3 else (1,)  # noqa: PLR2004  decades with room for three ticks
    ticks = [step * 10.0**decade for decade in range(low, high) for step in steps] + [10.0**high]
    return Axis(10.0**low, 10.0**high, log=True, ticks=tuple((tick, _number(tick)) for tick in ticks))


def _round_step(wanted: float) -> float:
    decade = 10.0 ** math.floor(math.log10(wanted))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= wanted * 0.999)


def _number(value: float) -> str:
    return f"{value:,.10g}" if abs(value) < 1e6 else f"{value:,.0f}"  # noqa: PLR2004  no exponent on an axis


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, x_title: str, y_title: str) -> Markup:
    """A chart of lines, with a legend if there are several. `title` is for who hears it rather than sees it."""
    parts = [_open(title), *_grid(x, y), *_titles(x_title, y_title)]
    for at, line in enumerate(lines):
        colour, dash = COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]
        parts += _drawn(line, x, y, colour, dash)
    if len(lines) > 1:
        parts += _legend([line.label for line in lines])
    return Markup("\n").join([*parts, Markup("</svg>")])


def _open(title: str) -> Markup:
    return Markup('<svg class="drawn" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)


def _at(x: Axis, y: Axis, point: tuple[float, float]) -> tuple[float, float]:
    across = _LEFT + x.part(point[0]) * (WIDTH - _LEFT - _RIGHT)
    down = HEIGHT - _BOTTOM - y.part(point[1]) * (HEIGHT - _TOP - _BOTTOM)
    return round(across, 1), round(down, 1)


def _grid(x: Axis, y: Axis) -> list[Markup]:
    parts = []
    for value, label in y.ticks:
        _, down = _at(x, y, (x.low, value))
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT, down, WIDTH - _RIGHT, _LEFT - 8, down + 4, label
            )
        )
    for value, label in x.ticks:
        across, _ = _at(x, y, (value, y.low))
        parts.append(
            Markup('<path class="grid" d="M{} {}V{}"/><text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                across, _TOP, HEIGHT - _BOTTOM, across, HEIGHT - _BOTTOM + 18, label
            )
        )
    return parts


def _titles(x_title: str, y_title: str) -> list[Markup]:
    return [
        Markup('<text x="{}" y="{}" text-anchor="middle" class="title">{}</text>').format(
            (WIDTH + _LEFT - _RIGHT) / 2, HEIGHT - 6, x_title
        ),
        Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle" class="title">{}</text>').format(
            (HEIGHT - _BOTTOM + _TOP) / 2, y_title
        ),
    ]


def _drawn(line: Line, x: Axis, y: Axis, colour: str, dash: str) -> list[Markup]:
    path, pen = [], "M"
    for across, up in zip(line.x, line.y, strict=True):
        if up is None or (y.log and up <= 0):
            pen = "M"
            continue
        path.append("{}{} {}".format(pen, *_at(x, y, (across, up))))
        pen = "L"
    parts = [
        Markup('<path class="line {}" stroke-dasharray="{}" d="{}"/>').format(colour, dash, "".join(path)),
    ]
    for at, mark in enumerate(line.marks):
        up = line.y[at]
        if mark and up is not None:
            across, down = _at(x, y, (line.x[at], up))
            title = Markup("<title>{}</title>").format(line.titles[at]) if line.titles else ""
            parts.append(
                Markup('<circle class="{}" cx="{}" cy="{}" r="4">{}</circle>').format(mark, across, down, title)
            )
    return parts


def _legend(labels: Sequence[str]) -> list[Markup]:
    parts, across = [], _LEFT + 8
    for at, label in enumerate(labels):
        colour, dash = COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]
        parts.append(
            Markup('<path class="line {}" stroke-dasharray="{}" d="M{} {}h22"/><text x="{}" y="{}">{}</text>').format(
                colour, dash, across, _TOP + 8, across + 28, _TOP + 12, label
            )
        )
        across += 44 + 7 * len(label)
    return parts


def intervals(title: str, rows: Sequence[tuple[str, float, float, float, str]], unit: str) -> Markup:
    """Changes with their intervals, one row each, about a line at nought.

    Args:
        title: for who hears it.
        rows: label, low, change, high, and a colour; in `unit`. Bounds that are not finite reach to the edge.
        unit: of the axis.
    """
    finite = [value for _, low, change, high, _ in rows for value in (low, change, high) if math.isfinite(value)]
    reach = max([abs(value) for value in finite] or [1.0]) or 1.0
    x = linear([-reach, reach], from_zero=False)
    height = 30 * len(rows) + _BOTTOM + _TOP
    left = 190
    parts = [Markup('<svg class="drawn" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, height, title)]

    def place(value: float) -> float:
        return round(left + min(max(x.part(value), 0.0), 1.0) * (WIDTH - left - _RIGHT), 1)

    for value, label in x.ticks:
        parts.append(
            Markup('<path class="{}" d="M{} {}V{}"/><text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                "nought" if abs(value) < 1e-12 else "grid",  # noqa: PLR2004  what is left of a sum of steps
                place(value), _TOP, height - _BOTTOM, place(value), height - _BOTTOM + 18, label,
            )
        )  # fmt: skip
    for at, (label, low, change, high, colour) in enumerate(rows):
        down = _TOP + 30 * at + 15
        parts.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="end">{}</text><path class="bar {}" d="M{} {}H{}"/>'
                '<circle class="{}" cx="{}" cy="{}" r="5"/>'
            ).format(left - 10, down + 4, label, colour, place(low), down, place(high), colour, place(change), down)
        )
    parts.append(
        Markup('<text x="{}" y="{}" text-anchor="middle" class="title">{}</text>').format(
            (WIDTH + left - _RIGHT) / 2, height - 6, unit
        )
    )
    return Markup("\n").join([*parts, Markup("</svg>")])
