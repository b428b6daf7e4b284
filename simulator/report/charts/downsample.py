"""Fewer points than a screen has pixels, and no peak lost: what keeps the charts of a billion transactions small."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.report.charts.series import Floats

POINTS_MAX = 2_000  # of a line: more than a screen has pixels
BINS_MAX = 300  # of a heat map, along its time

_SIGNIFICANT = 7  # digits of a number in the page


def kept(y: Floats, limit: int = POINTS_MAX) -> NDArray[np.int64]:
    """Which points of a line to draw, at most `limit` (≥ 2) of them, in order.

    Of each of limit / 2 equal stretches the lowest and the highest stay, so no peak is lost and no dip. A stretch without any
    number keeps one point, so a gap stays a gap.
    """
    if len(y) <= limit:
        return np.arange(len(y))
    found: list[int] = []
    for start, stop in pairwise(edges(len(y), limit // 2)):
        part = y[start:stop]
        if np.isnan(part).all():
            found.append(start)
        else:
            found += sorted({start + int(np.nanargmin(part)), start + int(np.nanargmax(part))})
    return np.array(found, np.int64)


def edges(rows: int, groups: int) -> list[int]:
    """Where each of at most `groups` groups of neighbouring rows begins, as equal as can be, and `rows` at the end."""
    groups = max(min(groups, rows), 1)
    return [rows * at // groups for at in range(groups + 1)]


def pooled(matrix: Floats, bounds: list[int], how: Callable[..., Floats]) -> Floats:
    """A matrix (…, rows) with its last axis in groups, each made one by `how` (np.nanmax keeps peaks, np.nansum counts)."""
    parts = []
    for start, stop in pairwise(bounds):
        part = matrix[..., start:stop]
        empty = np.asarray(np.isnan(part).all(axis=-1))
        parts.append(np.where(empty, np.nan, how(np.where(empty[..., np.newaxis], 0.0, part), axis=-1)))
    return np.stack(parts, axis=-1) if parts else matrix[..., :0]


def numbers(values: Floats) -> list[int | float | None]:
    """Numbers as JSON has them: seven digits, which no pixel can tell from more; None for NaN."""
    return [None if value != value else _short(value) for value in values.tolist()]  # noqa: PLR0124  NaN is not itself


def _short(value: float) -> int | float:
    short = float(f"{value:.{_SIGNIFICANT}g}")
    return int(short) if short.is_integer() else short
