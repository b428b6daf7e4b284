"""What happened during a run, and on what machine, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.report.blocks import Table
from simulator.report.wording import NO_DATA, metric_name, number, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.report.folder import RunFolder

ROWS_MAX = 200  # events in a table; events.jsonl has all


def events(run: RunFolder) -> Table:
    """The first events, in order of time."""
    rows = []
    for event in run.events[:ROWS_MAX]:
        t = number(event.get("t_s"))
        rest = ", ".join(
            f"{metric_name(key)} {_short(value)}" for key, value in event.items() if key not in {"t_s", "event"}
        )
        rows.append((NO_DATA if t is None else f"{t:.3f} s", metric_name(event.get("event", "")), rest))
    note = f"The first {ROWS_MAX} of {len(run.events):,}; events.jsonl has all." if len(run.events) > ROWS_MAX else ""
    return Table("What happened, and when", ("at", "event", "details"), rows, words=frozenset({0, 1, 2}), note=note)


def environment(run: RunFolder) -> list[tuple[str, str]]:
    """The machine and its software, as far as it bears on the figures."""
    return [(metric_name(key), _short(value)) for key, value in run.environment.items()]


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_pairs(value.items()))
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return plain(value)


def _pairs(items: Iterable[tuple[Any, Any]]) -> Iterable[str]:
    return (f"{plain(key)} {plain(value)}" for key, value in items)
