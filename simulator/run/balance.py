"""What a run on the wall clock recorded of its balancer's behaviour.

Known there: requests and requests in flight of each node in windows of 100 ms, the balancer's health events, when nodes
were struck and back, goodput by second. Not known: busy time, the true load at a pick (so no regret), failures by node and
window, errors that were injected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.balancer.behaviour import FaultSpan, Recorded
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from simulator.engine.wall import Ended
    from simulator.measure.recorder import Tallies

_S = 1_000_000_000


def fault_spans(events: Iterable[Mapping[str, Any]], end_ns: int) -> tuple[FaultSpan, ...]:
    """When nodes were sick, from a run's events: from a kill or a power loss until ready again, from a pause until it is over."""
    since: dict[int, int] = {}
    spans = []
    for event in events:
        node, at = event.get("node"), round(event["t_s"] * _S)
        if not isinstance(node, int):
            continue
        if event["event"] == "fault":
            since.setdefault(node, at)
        elif event["event"] in ("fault_over", "node_ready") and node in since:
            spans.append(FaultSpan(node, since.pop(node), at))
    return tuple(spans + [FaultSpan(node, at, end_ns) for node, at in since.items() if at < end_ns])


def recorded_of(
    tallies: Tallies, events: Iterable[Mapping[str, Any]], ended: Ended, released_s: float, weights: Sequence[float],
    balancers: int = 1,
) -> Recorded:  # fmt: skip
    """The record of a run that sent for `released_s`; the drain after it is no part of it. Each generator is a balancer."""
    width = int(tallies.fine_ns[0])
    end_ns = round(released_s * _S)
    windows = max(min(end_ns // width, len(tallies.fine_sent)), 1)
    seconds = max(min(end_ns // _S, len(tallies.offered)), 1)  # the wall clock's windows are seconds
    spans = fault_spans(events, end_ns)
    return Recorded(
        window_ns=width, requests=tallies.fine_sent[:windows], in_flight=tallies.fine_in_flight_ns[:windows] / width,
        weights=np.array(weights, np.float64) if weights else None, events=ended.health, events_in_all=ended.health_count,
        faults=spans, end_ns=end_ns,
        trigger_ns=(min(span.start_ns for span in spans), max(span.end_ns for span in spans)) if spans else None,
        balancers=balancers, series_ns=_S, offered=tallies.offered[:seconds], goodput=tallies.answered[:seconds, Status.OK],
    )  # fmt: skip
