"""The time series of a run's folder as columns that say what they hold: whole numbers stay whole, money above all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from simulator.errors import SimError

if TYPE_CHECKING:
    from simulator.report.folder import Cell, RunFolder

NS_PER_S = 1_000_000_000
# Columns that are figures of something continuous, though a value may happen to be whole.
_FLOATS = ("second", "window_s", "target")


def started_ns(run: RunFolder) -> int:
    """When the run began, ns since 1970.

    Raises:
        SimError: the summary does not say, or not as ISO 8601.
    """
    told = run.summary.get("started_at")
    try:
        at = datetime.fromisoformat(str(told))
    except ValueError as error:
        raise SimError(
            f"{run.path}/summary.json: started_at is {told!r}, not a time; nothing can be exported"
        ) from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * NS_PER_S)


def is_whole(name: str, cells: list[Cell]) -> bool:
    """Whether a column counts something."""
    return (
        name not in _FLOATS and not name.endswith(("_ms", "_s")) and not any(isinstance(cell, float) for cell in cells)
    )


def window_edges_ns(run: RunFolder) -> list[tuple[int, int]]:
    """The begin and end of each window of the series, ns since 1970; a window is a second long where it does not say.

    Raises:
        SimError: the run has no series.
    """
    seconds = run.series.get("second", [])
    if not seconds:
        raise SimError(f"{run.path}: timeseries.csv is missing or empty; there is nothing to export")
    lengths = run.series.get("window_s") or [1] * len(seconds)
    began = started_ns(run)
    return [
        (began + round((at or 0) * NS_PER_S), began + round(((at or 0) + (length or 0)) * NS_PER_S))
        for at, length in zip(seconds, lengths, strict=True)
    ]
