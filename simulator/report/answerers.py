"""Who answered, in tables: the nodes behind a balancer as their answers name them, and what became of a sick one's part."""

from __future__ import annotations

from typing import Any, NamedTuple

from simulator.report import wording
from simulator.report.wording import NO_DATA, count, ms, plain, share

LISTED = 32
FINEST_S = 0.1  # the windows of `simulator.measure.answerers`


class Rows(NamedTuple):
    """A table without its dress."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def nodes(summary: dict[str, Any]) -> Rows | None:
    """The nodes that answered; None where nobody asked who."""
    found = summary.get("answered_by")
    if not found:
        return None
    rows: list[tuple[str, ...]] = [
        (
            plain(node.get("node", "")),
            share(node.get("share")),
            count(node.get("answered")),
            ms((node.get("service_time_ms") or {}).get("p50")),
            ms((node.get("service_time_ms") or {}).get("p99")),
        )
        for node in found.get("nodes", [])[:LISTED]
    ]
    return Rows(("answered by", "share", "answers", "p50", "p99"), rows)


def facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """How evenly the answers were spread, and how many had no name; nothing where nobody asked who."""
    found = summary.get("answered_by") or {}
    if not found.get("nodes"):
        return []
    told = [
        ("busiest node over the average (1 is even)", _decimal(found.get("imbalance_max_over_mean"), 3)),
        ("Jain's fairness index (1 is even)", _decimal(found.get("jain"), 4)),
        ("unevenness that chance alone makes (coefficient of variation)", _decimal(found.get("noise_floor"), 4)),
        ("answers without a name: errors, connections that ended", count(found.get("nobody"))),
        ("attempts over requests, client", _decimal((summary.get("client") or {}).get("amplification"), 3)),
    ]
    return [(label, value) for label, value in told if value != NO_DATA]


def _decimal(value: object, places: int) -> str:
    n = wording.number(value)
    return NO_DATA if n is None else f"{n:.{places}f}"


def faults(summary: dict[str, Any]) -> Rows | None:
    """What became of each sick node's part; None where there was none."""
    found = (summary.get("answered_by") or {}).get("faults")
    if not found:
        return None
    rows: list[tuple[str, ...]] = [
        (
            f"{plain(fault.get('node', ''))} {plain(fault.get('fault', ''))}",
            wording.duration(fault.get("at_s")),
            share(fault.get("share")),
            _after(fault.get("detection_s")),
            NO_DATA if fault.get("detection_s") is None else _after(fault.get("readmission_s")),
            count(fault.get("answered_by_nobody")),
        )
        for fault in found[:LISTED]
    ]
    return Rows(("sick", "at", "its share", "left out after", "back after", "unanswered"), rows)


def _after(seconds: float | None) -> str:
    """How long it took; answers are counted by tenths of a second, and nothing finer is known."""
    if seconds is None:
        return "never"
    return "<0.1s" if seconds < FINEST_S else wording.duration(seconds)
