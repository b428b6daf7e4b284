"""Tables of the transactions of a run: how they ended, and how long they took."""

from __future__ import annotations

from typing import Any

from simulator.report.blocks import Table
from simulator.report.wording import NO_DATA, count, metric_name, ms, plain, share

PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
_OUTCOMES = (
    ("ok", "applied, as durable as the scenario asks"),
    ("rejected", "the platform said no; nothing moved"),
    ("failed", "it did not happen, and we know it"),
    ("unknown", "in doubt at the end"),
    ("dropped", "never sent: the generator could not"),
)


def outcomes(summary: dict[str, Any]) -> Table:
    """How many ended how, and why."""
    counts, reasons = summary["counts"], summary.get("reasons") or {}
    offered = counts.get("offered") or 0
    rows = []
    for outcome, meaning in _OUTCOMES:
        n = counts.get(outcome)
        why = ", ".join(f"{metric_name(name)} {count(k)}" for name, k in (reasons.get(outcome) or {}).items() if k)
        part = share(n / offered) if offered and n is not None else NO_DATA
        rows.append((outcome, count(n), part, why, meaning))
    return Table(
        caption=f"How they ended: {count(offered)} offered, {count(counts.get('sent'))} sent",
        head=("outcome", "count", "share", "reasons", "meaning"),
        rows=rows,
        words=frozenset({0, 3, 4}),
    )


def latency(summary: dict[str, Any]) -> Table:
    """Percentiles of what customers, the platform and the generator took."""
    names = (
        ("response time: what customers felt", "response_time_ms"),
        ("service time: the platform's part", "service_time_ms"),
        ("schedule lag: the generator's own delay", "schedule_lag_ms"),
    )
    columns = ("mean", *PERCENTILES)
    return Table(
        caption="Times over the whole run",
        head=("time", *columns),
        rows=[(label, *(ms(summary.get(key, {}).get(column)) for column in columns)) for label, key in names],
    )


def kinds(summary: dict[str, Any]) -> Table:
    """The same by kind of transaction."""
    ends = ("offered", "ok", "rejected", "failed", "unknown", "dropped")
    rows = []
    for kind, found in (summary.get("by_kind") or {}).items():
        counts, times = found.get("counts", {}), found.get("response_time_ms", {})
        rows.append(
            (plain(kind), *(count(counts.get(name)) for name in ends), *(ms(times.get(p)) for p in PERCENTILES))
        )
    return Table("By kind of transaction, with response times", ("kind", *ends, *PERCENTILES), rows)
