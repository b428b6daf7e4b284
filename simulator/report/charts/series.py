"""The columns of a run's time series as arrays: counts as they stand, or as rates over windows of any length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from simulator.report.folder import Columns

Floats = NDArray[np.float64]

_MOMENT = 0.05  # of the best second's answers, all together


@dataclass(frozen=True)
class TimeSeries:
    """A table of windows; a cell without a number is NaN. Only what is asked for is made an array."""

    columns: Columns
    rows: int

    @classmethod
    def of(cls, columns: Columns) -> TimeSeries:
        """The columns of a `timeseries.csv` or `platform.csv`; those without `second` have no place in time, and no rows."""
        return cls(columns, len(columns.get("second", [])))

    def __contains__(self, column: str) -> bool:
        return self.rows > 0 and column in self.columns

    def values(self, column: str) -> Floats:
        """A column as it stands, (rows,); NaN throughout where there is none of that name."""
        cells = self.columns.get(column, [])[: self.rows]
        found = np.full(self.rows, np.nan)
        found[: len(cells)] = [float(cell) if isinstance(cell, int | float) else np.nan for cell in cells]
        return found

    def per_second(self, column: str) -> Floats:
        """What is counted in each window, as a rate."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.values(column) / self.lengths_s

    @cached_property
    def starts_s(self) -> Floats:
        """Where each window starts; one that does not say starts at its number."""
        starts = self.values("second")
        return np.where(np.isnan(starts), np.arange(self.rows, dtype=np.float64), starts)

    @cached_property
    def lengths_s(self) -> Floats:
        """How long each window is; a second where that is not told."""
        if "window_s" not in self.columns:
            return np.ones(self.rows)
        return self.values("window_s")

    @property
    def middles_s(self) -> Floats:
        """Where the middle of each window is: where a value of it is drawn."""
        return self.starts_s + np.nan_to_num(self.lengths_s) / 2

    @property
    def end_s(self) -> float:
        """Where the last window ends; 1 for no rows."""
        return float(np.nanmax(self.starts_s + np.nan_to_num(self.lengths_s))) if self.rows else 1.0

    def matrix(self, names: list[str]) -> Floats:
        """Some columns as they stand, (len(names), rows)."""
        return np.array([self.values(name) for name in names]).reshape(len(names), self.rows)

    def without_the_last_moment(self) -> TimeSeries:
        """Leaves out last windows in which nothing was asked and next to nothing answered.

        They are the few milliseconds of a drain; as points of a line they would read as a collapse.
        """
        if "offered" not in self or "completed" not in self:
            return self
        offered, completed = (np.nan_to_num(self.per_second(name)) for name in ("offered", "completed"))
        answered = np.cumsum(np.nan_to_num(self.values("completed"))[::-1])[::-1]  # from each window to the end
        kept = np.flatnonzero((offered > 0) | (answered >= max(_MOMENT * completed.max(), 1e-9)))
        return replace(self, rows=max(int(kept[-1]) + 1 if len(kept) else 0, 1))
