"""Who answered, in tables: the nodes behind a balancer as their answers name them, and what became of a sick one's part."""

from __future__ import annotations

from typing import Any, NamedTuple

from simulator.report import wording
from simulator.report.wording import NO_DATA, count, ms, plain, share

LISTED = 32


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
    return "never" if seconds is None else wording.duration(seconds)
