"""The balancer's five verbs, over `Settings` and `Fleet`: choose, note_sent, note_answered, note_report, sweep.

A balancer knows what it sent, what came back, and what nodes tell it; never the nodes themselves. An engine calls

* `choose` once for each attempt, and `note_sent` when the attempt leaves;
* `note_answered` exactly once for each `note_sent`, also when it timed out or was refused;
* `note_report` when a report or a probe's reply arrives at this balancer, as late as the network makes it;
* `sweep` when `fleet.next_sweep_ns[b]` has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.balancer.draw import below, distinct, distinct_plain, draws, least_busy, plain, scan, two_plain
from simulator.balancer.fleet import NEVER_NS, Load, Rule
from simulator.balancer.load import observe
from simulator.kernel import inlined, int64, kernel
from simulator.seeds import bits

if TYPE_CHECKING:
    import numpy as np

    from simulator.balancer.fleet import Fleet, Settings

_RANDOM, _ROUND_ROBIN, _DRAWS = int(Rule.RANDOM), int(Rule.ROUND_ROBIN), int(Rule.DRAWS)
_DISTINCT, _SCAN, _AFFINITY = int(Rule.DISTINCT), int(Rule.SCAN), int(Rule.AFFINITY)
PAIR = 2
_PEAK_EWMA, _C3 = int(Load.PEAK_EWMA), int(Load.C3)


@kernel
def choose_rarely(
    settings: Settings, fleet: Fleet, b: int, now_ns: int, word: np.uint64, hash_key: np.uint64, home_node: int  # noqa: ARG001  for rules to come
) -> int:  # fmt: skip
    """The rules that are not a few instructions: apart, so that they burden neither the hot path nor its compilation."""
    rule = settings.rule
    if rule == _DRAWS:
        return draws(settings, fleet, b, now_ns, word)
    if rule == _DISTINCT:
        return distinct(settings, fleet, b, now_ns, word)
    if rule == _SCAN:
        return scan(settings, fleet, b, now_ns, word)
    if fleet.place[b, home_node] < fleet.span[b]:
        return int64(home_node)
    return int64(fleet.ready[b, home_node % fleet.span[b]])


@inlined
def choose(
    settings: Settings, fleet: Fleet, b: int, now_ns: int, key: np.uint64, index: int, hash_key: np.uint64, home_node: int
) -> int:  # fmt: skip
    """The node that balancer b sends its next request to; −1: none may take it (a circuit limit, or none is available).

    Args:
        settings: the policy.
        fleet: the state; a pick advances what the rule keeps (a cursor, a heap, a pool), so ask once for each attempt.
        b: which balancer.
        now_ns: the time of the pick.
        key: the random stream of the balancers.
        index: the number of this attempt, all balancers together; the counter of that stream.
        hash_key: what consistent hashing keeps together, for example the payer.
        home_node: the node that owns the payer.
    """
    span = fleet.span[b]
    if span == 0 or (settings.circuit_requests > 0 and fleet.total[b] >= settings.circuit_requests):
        return -1
    rule = settings.rule
    word = bits(key, index)
    simple = plain(settings, fleet, b, now_ns)
    whole = span == fleet.ready.shape[1]
    if simple and rule == _DRAWS and settings.choices == PAIR:
        node = two_plain(fleet, b, word)
    elif simple and rule == _DISTINCT and whole and span > 1 and settings.aperture_ns == 0.0:
        node = distinct_plain(fleet, b, word, span)
    elif simple and rule == _SCAN and whole:
        node = least_busy(fleet, b, word)
    elif rule == _RANDOM:
        node = int64(fleet.ready[b, below(word, span)])
    elif rule == _ROUND_ROBIN:
        at = fleet.cursor[b] if fleet.cursor[b] < span else 0
        fleet.cursor[b] = at + 1
        node = int64(fleet.ready[b, at])
    else:
        node = choose_rarely(settings, fleet, b, now_ns, word, hash_key, home_node)
    if settings.circuit_node > 0 and fleet.in_flight[b, node] >= settings.circuit_node:
        return -1
    return node


@inlined
def note_sent(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int) -> None:  # noqa: ARG001  the verbs' signature
    """Balancer b has sent a request to `node`."""
    fleet.in_flight[b, node] += 1
    fleet.total[b] += 1


@inlined
def note_answered(
    settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, took_ns: int, good: int  # noqa: ARG001  for outlier ejection to come
) -> None:  # fmt: skip
    """A request that balancer b sent to `node` has ended after `took_ns`; `good` 0: by an error or a time-out."""
    fleet.in_flight[b, node] -= 1
    fleet.total[b] -= 1
    if settings.load == _PEAK_EWMA or settings.load == _C3:
        observe(settings, fleet, b, node, now_ns, took_ns)


@kernel
def note_report(
    settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int,  # noqa: ARG001  for policies to come
    queue: float, latency_ns: float, utilization: float, served_per_s: float, errors_per_s: float,  # noqa: ARG001  for policies to come
) -> None:  # fmt: skip
    """What `node` says of itself arrives at balancer b.

    Args:
        settings: the policy.
        fleet: the state.
        b: which balancer.
        node: who says it.
        now_ns: when it arrives.
        queue: requests at the node, waiting or in service. 0 is the idle message of JIQ.
        latency_ns: the node's estimate of its response time at that queue length (Prequal), its service time (C3).
        utilization: busy share, 0 … 1 and above.
        served_per_s: requests served a second.
        errors_per_s: of these with an error.
    """
    view = fleet.views[b, node]
    view["queue"] = queue
    view["reported_ns"] = now_ns


@kernel
def sweep(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> None:  # noqa: ARG001  the verbs' signature
    """The periodic duties of balancer b, as far as they are due; sets `next_sweep_ns`."""
    fleet.next_sweep_ns[b] = NEVER_NS
