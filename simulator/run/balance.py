"""What a run on the wall clock recorded of its balancer's behaviour.

Known there: attempts, attempts that ended badly and requests in flight of each node in windows of 100 ms, the balancer's
health events, when nodes were struck and back, goodput by second, what was tried again, and which keys the policy would move.
Not known: busy time, the true load at a pick (so no regret, and no picks of nodes that were down), capacity (so neither
efficiency nor the fluid bound).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.balancer.affinity import churn_without
from simulator.balancer.behaviour import FaultSpan, Recorded
from simulator.balancer.health import BAD_REFUSALS
from simulator.balancer.policy import fleet_from, settings_from
from simulator.fault.schedule import Fault
from simulator.measure.recorder import ClientCount
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from simulator.engine.wall import Ended
    from simulator.measure.recorder import Tallies
    from simulator.scenario.model import Scenario

_S = 1_000_000_000
_KEYS_MOST = 100_000
_NO_ROOM = [*BAD_REFUSALS, int(Reason.CIRCUIT)]


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
    scenario: Scenario, tallies: Tallies, events: Iterable[Mapping[str, Any]], ended: Ended, released_s: float,
    owners: NDArray[np.int64], balancers: int = 1,
) -> Recorded:  # fmt: skip
    """The record of a run that sent for `released_s`; the drain after it is no part of it.

    Args:
        scenario: what was run.
        tallies: what was counted.
        events: those of the nodes that the balancer picks from.
        ended: what the engine handed over.
        released_s: how long transactions were sent.
        owners: the node of each shard.
        balancers: how many sent; each generator is one.
    """
    width = int(tallies.fine_ns[0])
    end_ns = round(released_s * _S)
    windows = max(min(end_ns // width, len(tallies.fine_sent)), 1)
    seconds = max(min(end_ns // _S, len(tallies.offered)), 1)  # the wall clock's windows are seconds
    told = list(events)
    spans = fault_spans(told, end_ns)
    weights = scenario.balancer.weights
    return Recorded(
        window_ns=width, requests=tallies.fine_sent[:windows], in_flight=tallies.fine_in_flight_ns[:windows] / width,
        failed=tallies.fine_failed[:windows],
        weights=np.array(weights, np.float64) if weights else None, events=ended.health, events_in_all=ended.health_count,
        faults=spans, end_ns=end_ns,
        trigger_ns=(min(span.start_ns for span in spans), max(span.end_ns for span in spans)) if spans else None,
        balancers=balancers, series_ns=_S, offered=tallies.offered[:seconds], goodput=tallies.answered[:seconds, Status.OK],
        attempts=_attempts(tallies), errors=_errors(tallies, spans),
        churn=_churn(scenario, told, owners, tallies.node_sent.shape[1]),
    )  # fmt: skip


def _attempts(tallies: Tallies) -> dict[str, tuple[float, float]]:
    """Tier by tier: what came to it over the transactions that clients sent."""
    sent = float(tallies.sent.sum())
    attempts = sent + float(tallies.retried.sum())
    reached = attempts + float(tallies.client[ClientCount.ASKED_AGAIN]) - float(_nobody_there(tallies))
    return {"client": (attempts, sent), "nodes": (reached, sent)}


def _nobody_there(tallies: Tallies) -> int:
    ended = tallies.attempt_ended if tallies.attempt_ended.any() else tallies.by_reason
    return int(ended[Status.REJECTED, Reason.NODE_DOWN])


def _errors(tallies: Tallies, spans: Sequence[FaultSpan]) -> tuple[float, float, float] | None:
    """Transactions that ended badly, all of them, and the share of attempts that ended badly at a node while it was sick."""
    attempts = float(tallies.sent.sum() + tallies.retried.sum())
    if not spans or not attempts:
        return None
    width, last = int(tallies.fine_ns[0]), len(tallies.fine_failed)
    struck = np.zeros(
        tallies.fine_failed.shape, np.bool_
    )  # a window of a node counts once, however many faults meet in it
    for span in spans:
        struck[min(span.start_ns // width, last) : min(-(-span.end_ns // width), last), span.node] = True
    ended = tallies.by_reason
    failed = ended[Status.FAILED].sum() + ended[Status.UNKNOWN].sum() + ended[Status.REJECTED, _NO_ROOM].sum()
    return float(failed), float(tallies.sent.sum()), float(tallies.fine_failed[struck].sum()) / attempts


def _churn(
    scenario: Scenario, events: Iterable[Mapping[str, Any]], owners: NDArray[np.int64], nodes: int
) -> dict[str, float] | None:
    """Which keys the balancer moves when it leaves out the first node that was killed; None: none was, or no policy by key."""
    killed = (e.get("node") for e in events if e["event"] == "fault" and e.get("fault") == Fault.KILL)
    died = next((node for node in killed if isinstance(node, int)), None)
    if died is None or nodes < 2:  # noqa: PLR2004  of one node no key can move
        return None
    settings = settings_from(scenario.balancer)
    keys = np.arange(min(scenario.load.accounts, _KEYS_MOST), dtype=np.int64)
    opened = fleet_from(scenario.balancer, settings, nodes, seed=scenario.seed)
    return churn_without(settings, opened, keys, owners[keys % len(owners)], [died])
