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

HEIGHT = 300
_TOP, _BOTTOM = 14, 46
_LEGEND = 20  # a row of it
_GAP = 10  # between labels
_CHARACTER = 7.2  # of the page's font, at most: nothing measures text before a browser does
COLOURS = ("blue", "orange", "green", "purple", "grey", "red")
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_TICKS = 6


@dataclass(frozen=True)
class _Frame:
    """Of a drawing: its name in the style sheet, and its measures in units of its own.

    Every drawing is made twice, and the window's width says which one is shown: made smaller, a wide one cannot be read.
    """

    name: str
    width: int
    left: int
    right: int
    ticks_most: int  # along the x axis
    label: int  # room for the labels of rows


_FRAMES = (_Frame("wide", 860, 70, 24, 12, 190), _Frame("slim", 380, 74, 20, 4, 152))


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
    return Markup("\n").join(_chart(frame, title, lines, x, y, x_title, y_title) for frame in _FRAMES)


def _chart(frame: _Frame, title: str, lines: Sequence[Line], x: Axis, y: Axis, x_title: str, y_title: str) -> Markup:
    legend, above = _legend(frame, [line.label for line in lines]) if len(lines) > 1 else ([], 0)
    parts = [
        _open(frame, title, HEIGHT + above, -above),
        *legend,
        *_grid(frame, x, y),
        *_titles(frame, x_title, y_title),
    ]
    for at, line in enumerate(lines):
        colour, dash = COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]
        parts += _drawn(frame, line, x, y, colour, dash)
    return Markup("\n").join([*parts, Markup("</svg>")])


def _open(frame: _Frame, title: str, height: int, top: int = 0) -> Markup:
    return Markup('<svg class="drawn {}" viewBox="0 {} {} {}" role="img" aria-label="{}">').format(
        frame.name, top, frame.width, height, title
    )


def _at(frame: _Frame, x: Axis, y: Axis, point: tuple[float, float]) -> tuple[float, float]:
    across = frame.left + x.part(point[0]) * (frame.width - frame.left - frame.right)
    down = HEIGHT - _BOTTOM - y.part(point[1]) * (HEIGHT - _TOP - _BOTTOM)
    return round(across, 1), round(down, 1)


def _some(frame: _Frame, ticks: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    """Every so many, if they are too many or their labels too long to stand side by side; the last one is kept."""
    longest = max((len(label) for _, label in ticks), default=1) * _CHARACTER + _GAP
    most = max(min(frame.ticks_most, int((frame.width - frame.left - frame.right) / longest)), 1)
    step = -(-len(ticks) // most) or 1
    return ticks[(len(ticks) - 1) % step :: step] if ticks else ticks


def _beneath(frame: _Frame, across: float, down: float, label: str) -> Markup:
    """A label under an axis, about its place, but within the drawing."""
    over = across + len(label) * _CHARACTER / 2 > frame.width
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        frame.width if over else across, down, "end" if over else "middle", label
    )


def _grid(frame: _Frame, x: Axis, y: Axis) -> list[Markup]:
    parts = []
    for value, label in y.ticks:
        _, down = _at(frame, x, y, (x.low, value))
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>').format(
                frame.left, down, frame.width - frame.right, frame.left - 8, down + 4, label
            )
        )
    for value, label in _some(frame, x.ticks):
        across, _ = _at(frame, x, y, (value, y.low))
        parts.append(
            Markup('<path class="grid" d="M{} {}V{}"/>{}').format(
                across, _TOP, HEIGHT - _BOTTOM, _beneath(frame, across, HEIGHT - _BOTTOM + 18, label)
            )
        )
    return parts


def _titles(frame: _Frame, x_title: str, y_title: str) -> list[Markup]:
    return [
        Markup('<text x="{}" y="{}" text-anchor="middle" class="title">{}</text>').format(
            (frame.width + frame.left - frame.right) / 2, HEIGHT - 6, x_title
        ),
        Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle" class="title">{}</text>').format(
            (HEIGHT - _BOTTOM + _TOP) / 2, y_title
        ),
    ]


def _drawn(frame: _Frame, line: Line, x: Axis, y: Axis, colour: str, dash: str) -> list[Markup]:
    path, pen = [], "M"
    for across, up in zip(line.x, line.y, strict=True):
        if up is None or (y.log and up <= 0):
            pen = "M"
            continue
        path.append("{}{} {}".format(pen, *_at(frame, x, y, (across, up))))
        pen = "L"
    parts = [
        Markup('<path class="line {}" stroke-dasharray="{}" d="{}"/>').format(colour, dash, "".join(path)),
    ]
    for at, mark in enumerate(line.marks):
        up = line.y[at]
        if mark and up is not None:
            across, down = _at(frame, x, y, (line.x[at], up))
            title = Markup("<title>{}</title>").format(line.titles[at]) if line.titles else ""
            parts.append(
                Markup('<circle class="{}" cx="{}" cy="{}" r="4">{}</circle>').format(mark, across, down, title)
            )
    return parts


def _legend(frame: _Frame, labels: Sequence[str]) -> tuple[list[Markup], int]:
    """The names of lines in rows above the plot, and how high they are together."""
    rows: list[list[tuple[int, str, float]]] = [[]]
    across = float(frame.left)
    for at, label in enumerate(labels):
        width = 28 + _CHARACTER * len(label) + 16
        if rows[-1] and across + width > frame.width:
            rows.append([])
            across = float(frame.left)
        rows[-1].append((at, label, across))
        across += width
    parts = []
    for number, row in enumerate(rows):
        down = _LEGEND * (number - len(rows)) + _TOP
        for at, label, start in row:
            colour, dash = COLOURS[at % len(COLOURS)], _DASHES[at // len(COLOURS) % len(_DASHES)]
            parts.append(
                Markup(
                    '<path class="line {}" stroke-dasharray="{}" d="M{} {}h22"/><text x="{}" y="{}">{}</text>'
                ).format(colour, dash, round(start, 1), down - 4, round(start + 28, 1), down, label)
            )
    return parts, _LEGEND * len(rows)


def intervals(title: str, rows: Sequence[tuple[str, float, float, float, str]], unit: str) -> Markup:
    """Changes with their intervals, one row each, about a line at nought.

    Args:
        title: for who hears it.
        rows: label, low, change, high, and a colour; in `unit`. Bounds that are not finite reach to the edge.
        unit: of the axis.
    """
    finite = [value for _, low, change, high, _ in rows for value in (low, change, high) if math.isfinite(value)]
    x = linear(finite or [0.0])
    return Markup("\n").join(_intervals(frame, title, rows, x, unit) for frame in _FRAMES)


def _intervals(
    frame: _Frame, title: str, rows: Sequence[tuple[str, float, float, float, str]], x: Axis, unit: str
) -> Markup:
    height = 30 * len(rows) + _BOTTOM + _TOP
    left = frame.label
    parts = [_open(frame, title, height)]

    def place(value: float) -> float:
        return round(left + min(max(x.part(value), 0.0), 1.0) * (frame.width - left - frame.right), 1)

    labelled = {value for value, _ in _some(frame, x.ticks)}
    for value, label in x.ticks:
        nought = abs(value) < 1e-12  # noqa: PLR2004  what is left of a sum of steps
        if value not in labelled and not nought:
            continue
        parts.append(
            Markup('<path class="{}" d="M{} {}V{}"/>{}').format(
                "nought" if nought else "grid", place(value), _TOP, height - _BOTTOM,
                _beneath(frame, place(value), height - _BOTTOM + 18, label if value in labelled else ""),
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
            (frame.width + left - frame.right) / 2, height - 6, unit
        )
    )
    return Markup("\n").join([*parts, Markup("</svg>")])
