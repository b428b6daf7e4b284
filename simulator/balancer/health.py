"""Who is available: outlier ejection, panic, slow start.

Outlier ejection as in Envoy (`outlier_detection`), with its defaults:

* 5 errors in a row (`consecutive_5xx`) eject a node at once;
* every 10 s (`interval`), of the nodes with at least 100 answers since the last sweep (`success_rate_request_volume`), if
  there are at least 5 of them (`success_rate_minimum_hosts`), those with a success rate below mean − 1.9 σ
  (`success_rate_stdev_factor` 1900) are ejected;
* a node stays out for 30 s × the number of its ejections (`base_ejection_time`), at most 300 s (`max_ejection_time`), and
  comes back with the first sweep after that; each sweep that finds it in lowers the number by one;
* at most 10 % of the nodes are out (`max_ejection_percent`), but one always may be.

Panic (Envoy, `healthy_panic_threshold`): while fewer than 50 % of the nodes are available all of them are used, the others
with them. Slow start (Envoy, `slow_start_config`): a node that comes back begins with 10 % of its weight; see `load.ramp`.

The sweeps of K balancers are spread over one interval, as those of processes that started at different times.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from simulator.balancer.fleet import Health, Rule, note_event, swap
from simulator.balancer.idle import join_idle
from simulator.kernel import inlined, int64, kernel
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from simulator.balancer.fleet import Fleet, Settings

_OK, _REJECTED = int(Status.OK), int(Status.REJECTED)
BAD_REFUSALS = (int(Reason.OVERFLOW), int(Reason.LIMIT), int(Reason.NODE_DOWN))  # no room, or nobody there
_IN_A_ROW, _BY_RATE = int(Health.EJECTED_IN_A_ROW), int(Health.EJECTED_BY_RATE)
_READMITTED = int(Health.READMITTED)
_PANIC_BEGAN, _PANIC_ENDED = int(Health.PANIC_BEGAN), int(Health.PANIC_ENDED)
_IDLE = int(Rule.IDLE)


@inlined
def is_bad(status: int, reason: int) -> bool:
    """Whether an answer speaks against the node that gave it: an error, a time-out, or a no for want of room.

    On both clocks. A refusal of business (no funds) is a good answer, as a 4xx is for Envoy and a full queue's 503 is not.
    """
    return not (status == _OK or (status == _REJECTED and reason not in BAD_REFUSALS))


@kernel
def settle_span(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> None:
    """After a change of who is available: panic, or not; tables are stale."""
    nodes = fleet.ready.shape[1]
    panics = fleet.ready_count[b] < settings.panic * nodes
    if panics != (fleet.panicking[b] != 0):
        fleet.panicking[b] = int64(panics)
        note_event(fleet.events, fleet.event_count, b, -1, _PANIC_BEGAN if panics else _PANIC_ENDED, now_ns)
    fleet.span[b] = nodes if panics else fleet.ready_count[b]
    fleet.stale[b] = 1


@kernel
def take_out(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, what: int) -> None:
    """Balancer b takes an available `node` out of its picks, for the reason `what` (Health)."""
    if fleet.place[b, node] >= fleet.ready_count[b]:
        return
    fleet.ready_count[b] -= 1
    swap(fleet.ready, fleet.place, b, fleet.place[b, node], fleet.ready_count[b])
    note_event(fleet.events, fleet.event_count, b, node, what, now_ns)
    settle_span(settings, fleet, b, now_ns)


@kernel
def take_back(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int) -> None:
    """Balancer b uses `node` again; slow start begins."""
    if fleet.place[b, node] < fleet.ready_count[b]:
        return
    swap(fleet.ready, fleet.place, b, fleet.place[b, node], fleet.ready_count[b])
    fleet.ready_count[b] += 1
    view = fleet.views[b, node]
    view["available_since_ns"] = now_ns
    view["first"] = 1
    view["current"] = 0.0
    view["errors_in_a_row"] = 0
    view["good"] = 0
    view["answers"] = 0
    if settings.slow_ns > 0:
        fleet.slow_until_ns[b] = now_ns + settings.slow_ns
    if settings.rule == _IDLE and settings.infer_idle != 0 and fleet.in_flight[b, node] == 0:
        join_idle(fleet.idle, fleet.views, b, node)
    note_event(fleet.events, fleet.event_count, b, node, _READMITTED, now_ns)
    settle_span(settings, fleet, b, now_ns)


@kernel
def eject(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, what: int) -> None:
    """Ejects an outlier, if the share of nodes that may be out allows it."""
    nodes = fleet.ready.shape[1]
    view = fleet.views[b, node]
    view["errors_in_a_row"] = 0
    out = nodes - fleet.ready_count[b]
    if fleet.place[b, node] >= fleet.ready_count[b] or (out > 0 and out + 1 > settings.ejected_max * nodes):
        return
    # Past the longest time a further ejection changes nothing; not counted, it need not be worked off either.
    if settings.ejection_ns * view["backoff"] < settings.ejection_max_ns:
        view["backoff"] += 1
    view["ejected_ns"] = now_ns
    take_out(settings, fleet, b, node, now_ns, what)


@kernel
def count_answer(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, good: int) -> None:
    """An answer enters the node's record; the fifth error in a row ejects it."""
    view = fleet.views[b, node]
    view["answers"] += 1
    if good != 0:
        view["good"] += 1
        view["errors_in_a_row"] = 0
        return
    view["errors_in_a_row"] += 1
    if view["errors_in_a_row"] >= settings.errors_in_a_row:
        eject(settings, fleet, b, node, now_ns, _IN_A_ROW)


@kernel
def ejection_ends_ns(settings: Settings, fleet: Fleet, b: int, node: int) -> int:
    """When the node may come back, with the first sweep from then on."""
    view = fleet.views[b, node]
    longest = max(settings.ejection_ns, settings.ejection_max_ns)
    return int64(view["ejected_ns"]) + min(settings.ejection_ns * int64(view["backoff"]), longest)


@kernel
def _return_and_forgive(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> None:
    for node in range(fleet.ready.shape[1]):
        view = fleet.views[b, node]
        if fleet.place[b, node] < fleet.ready_count[b]:
            view["backoff"] = max(view["backoff"] - 1, 0)
        elif view["backoff"] > 0 and now_ns >= ejection_ends_ns(settings, fleet, b, node):
            take_back(settings, fleet, b, node, now_ns)


@kernel
def sweep_outliers(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> None:
    """Returns those whose time is over, then judges the success rates since the last sweep."""
    _return_and_forgive(settings, fleet, b, now_ns)
    judged = 0
    total = 0.0
    squares = 0.0
    for node in range(fleet.ready.shape[1]):
        view = fleet.views[b, node]
        if fleet.place[b, node] < fleet.ready_count[b] and view["answers"] >= settings.rate_requests:
            rate = view["good"] / view["answers"]
            judged += 1
            total += rate
            squares += rate * rate
    if judged >= settings.rate_nodes:
        mean = total / judged
        lowest = mean - settings.rate_deviations * sqrt(max(squares / judged - mean * mean, 0.0))
        for node in range(fleet.ready.shape[1]):
            view = fleet.views[b, node]
            available = fleet.place[b, node] < fleet.ready_count[b]
            # The margin is the rounding of the sums: equal rates must not eject each other.
            rate = view["good"] / max(view["answers"], 1) + 1e-9
            if available and view["answers"] >= settings.rate_requests and rate < lowest:
                eject(settings, fleet, b, node, now_ns, _BY_RATE)
    for node in range(fleet.ready.shape[1]):
        fleet.views[b, node]["good"] = 0
        fleet.views[b, node]["answers"] = 0
