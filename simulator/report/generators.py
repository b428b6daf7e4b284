"""The generators of a run that had several, in a table: one that is slower than the others shows here and nowhere else."""

from __future__ import annotations

from typing import Any

from simulator.report.answerers import Rows
from simulator.report.wording import count, duration, ms, plain


def rows(summary: dict[str, Any]) -> Rows | None:
    """A row for each generator; None where there was one."""
    found = summary.get("generators")
    if not found:
        return None
    told: list[tuple[str, ...]] = [
        (
            f"{plain(own.get('generator', ''))}{' (lost)' if own.get('lost') else ''}",
            count(own.get("sent")),
            count(own.get("dropped")),
            ms(own.get("schedule_lag_p99_ms")),
            count(own.get("in_flight_max")),
            duration(own.get("cpu_s")),
        )
        for own in found
    ]
    return Rows(("generator", "sent", "dropped", "lag p99", "in flight max", "CPU time"), told)
