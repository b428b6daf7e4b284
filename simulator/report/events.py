"""What balancers thought of their nodes, as events: the same on both clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.balancer.fleet import Health
from simulator.measure import grid

if TYPE_CHECKING:
    from collections.abc import Iterable

HEALTH_EVENTS_MOST = 2_000  # in events.jsonl; their number is bounded by the engine, but a page is read by people


def health_events(health: Iterable[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Events of (time in ns, node, what); balancers that say the same of a node in one second make one, with their number."""
    grouped: dict[tuple[int, int, int], list[int]] = {}
    for time_ns, node, what in health:
        grouped.setdefault((time_ns // grid.NS_PER_S, node, what), []).append(time_ns)
    events = []
    for (_, node, what), times in list(grouped.items())[:HEALTH_EVENTS_MOST]:
        event: dict[str, Any] = {"t_s": round(times[0] / 1e9, 6), "event": Health(what).name.lower()}
        if node >= 0:
            event["node"] = node
        if len(times) > 1:
            event["times"] = len(times)
        events.append(event)
    return events
