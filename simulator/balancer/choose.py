"""The balancer's six verbs, over `Settings` and `Fleet`: choose, note_sent, note_answered, note_message, note_report, sweep.

A balancer knows what it sent, what came back, and what nodes tell it; never the nodes themselves. An engine calls

* `choose` once for each attempt, and `note_sent` when the attempt leaves;
* `note_answered` exactly once for each `note_sent`, also when it timed out or was refused;
* `note_message` when a probe's reply or an idle message arrives at this balancer, which was meant for it alone;
* `note_report` when a node's periodic report does, as late as the network makes it;
* `sweep` when `fleet.next_sweep_ns[b]` has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.balancer.aperture import adjust
from simulator.balancer.draw import below, distinct, distinct_plain, draws, least_busy, plain, scan, two_plain
from simulator.balancer.fleet import NEVER_NS, Health, Load, Rule, note_event
from simulator.balancer.hashing import in_table, on_ring, with_room
from simulator.balancer.health import count_answer, sweep_outliers
from simulator.balancer.idle import join_idle, take_idle
from simulator.balancer.load import observe
from simulator.balancer.orca import note_utilization, update_weights
from simulator.balancer.probes import hot_cold, take_reply
from simulator.balancer.schedule import earliest, smooth
from simulator.kernel import inlined, int64, kernel
from simulator.seeds import bits, mix

if TYPE_CHECKING:
    import numpy as np

    from simulator.balancer.fleet import Fleet, Settings

_RANDOM, _ROUND_ROBIN, _DRAWS = int(Rule.RANDOM), int(Rule.ROUND_ROBIN), int(Rule.DRAWS)
_DISTINCT, _SCAN, _SMOOTH = int(Rule.DISTINCT), int(Rule.SCAN), int(Rule.SMOOTH)
_DEADLINE, _IDLE, _RING = int(Rule.DEADLINE), int(Rule.IDLE), int(Rule.RING)
_AFFINITY = int(Rule.AFFINITY)
_MAGLEV, _PROBES = int(Rule.MAGLEV), int(Rule.PROBES)
_IN_FLIGHT, _PEAK_EWMA, _C3 = int(Load.IN_FLIGHT), int(Load.PEAK_EWMA), int(Load.C3)
_FIRST_SENT = int(Health.FIRST_SENT)
_PAIR = 2
# Rules that may as well pick another node; the others are bound to it by a key, or use up what they know with each pick.
REDRAWN = (_RANDOM, _ROUND_ROBIN, _DRAWS, _DISTINCT, _SCAN, _SMOOTH, _DEADLINE)
AGAIN = 1 << 62  # what a second pick adds to an attempt's number: beyond all numbers of attempts


@kernel
def choose_rarely(  # noqa: C901, PLR0911  one branch a rule
    settings: Settings, fleet: Fleet, b: int, now_ns: int, key: np.uint64, word: np.uint64, hash_key: np.uint64
) -> int:  # fmt: skip
    """The rules that need more than requests in flight: apart, so that they burden neither the hot path nor its compilation."""
    span = fleet.span[b]
    rule = settings.rule
    flight, views, slow, ready = fleet.in_flight, fleet.views, fleet.slow_until_ns, fleet.ready
    if rule == _DISTINCT:
        places = min(fleet.width[b], span) if settings.aperture_ns > 0.0 else int64(ready.shape[1])
        return distinct(settings, flight, views, slow, ready, b, now_ns, word, places, span)
    if rule == _SCAN:
        return scan(settings, flight, views, slow, ready, b, now_ns, word, span)
    if rule == _SMOOTH:
        return smooth(settings, views, slow, ready, b, now_ns, span)
    in_turn = rule == _ROUND_ROBIN or (rule == _DRAWS and settings.load == _IN_FLIGHT)
    if rule == _DEADLINE or (in_turn and (settings.weighted or now_ns < slow[b])):
        return earliest(settings, flight, views, slow, ready, fleet.stale, fleet.deadlines, b, now_ns, key, span)
    if rule == _DRAWS:
        return draws(settings, flight, views, slow, ready, b, now_ns, word, span)
    if rule == _RING or rule == _MAGLEV:
        hashed = mix(hash_key)
        if rule == _RING:
            node = on_ring(fleet.hashing, fleet.place, b, hashed, span)
        else:
            node = in_table(fleet.hashing, fleet.weight, ready, fleet.stale, b, hashed, span)
        if settings.load_factor > 0.0:
            node = with_room(settings.load_factor, flight, fleet.total, fleet.weight, ready, b, node, hashed, span)
        return node
    if rule == _PROBES:
        return hot_cold(settings, fleet.probing, ready, fleet.place, b, now_ns, word, span)
    if rule == _IDLE:
        node = take_idle(settings, flight, fleet.idle, views, fleet.place, b, span)
        if node >= 0:
            return node
    return int64(ready[b, below(word, span)])


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
    simple = plain(settings, fleet.slow_until_ns, b, now_ns)
    whole = span == fleet.ready.shape[1]
    if simple and rule == _DRAWS and settings.choices == _PAIR:
        node = two_plain(fleet.in_flight, fleet.ready, b, word, span)
    elif simple and rule == _DISTINCT and whole and span > 1 and settings.aperture_ns == 0.0:
        node = distinct_plain(fleet.in_flight, fleet.ready, b, word, span)
    elif simple and rule == _SCAN and whole:
        node = least_busy(fleet.in_flight, b, word)
    elif rule == _RANDOM:
        node = int64(fleet.ready[b, below(word, span)])
    elif simple and rule == _ROUND_ROBIN:
        at = fleet.cursor[b] if fleet.cursor[b] < span else 0
        fleet.cursor[b] = at + 1
        node = int64(fleet.ready[b, at])
    elif rule == _AFFINITY:
        node = int64(home_node) if fleet.place[b, home_node] < span else int64(fleet.ready[b, home_node % span])
    else:
        node = choose_rarely(settings, fleet, b, now_ns, key, word, hash_key)
    if settings.circuit_node > 0 and fleet.in_flight[b, node] >= settings.circuit_node:
        return -1
    return node


@inlined
def note_sent(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int) -> None:
    """Balancer b has sent a request to `node`."""
    fleet.in_flight[b, node] += 1
    fleet.total[b] += 1
    if settings.aperture_ns > 0.0:
        adjust(settings, fleet.total, fleet.width, fleet.smooth, b, now_ns, fleet.ready.shape[1])
    if settings.outlier != 0 and fleet.views[b, node]["first"] != 0:
        fleet.views[b, node]["first"] = 0
        note_event(fleet.events, fleet.event_count, b, node, _FIRST_SENT, now_ns)


@inlined
def note_answered(settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, took_ns: int, good: int) -> None:
    """A request that balancer b sent to `node` has ended after `took_ns`; `good` 0: by an error or a time-out."""
    fleet.in_flight[b, node] -= 1
    fleet.total[b] -= 1
    if settings.load == _PEAK_EWMA or settings.load == _C3:
        observe(settings, fleet.views, b, node, now_ns, took_ns)
    if settings.aperture_ns > 0.0:
        adjust(settings, fleet.total, fleet.width, fleet.smooth, b, now_ns, fleet.ready.shape[1])
    if settings.rule == _IDLE and settings.infer_idle != 0 and fleet.in_flight[b, node] == 0:
        join_idle(fleet.idle, fleet.views, b, node)
    if settings.outlier != 0:
        count_answer(settings, fleet, b, node, now_ns, good)


@kernel
def note_message(
    settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int, word: np.uint64, queue: float, latency_ns: float
) -> None:  # fmt: skip
    """What `node` tells balancer b alone: the reply to its probe (Prequal), or that it is idle (JIQ).

    Args:
        settings: the policy.
        fleet: the state.
        b: which balancer.
        node: who says it.
        now_ns: when it arrives.
        word: a random word of this message's own, for what is rounded at random.
        queue: requests at the node, waiting or in service. Of an idle message 0.
        latency_ns: the node's estimate of its response time at that queue length.
    """
    if settings.rule == _PROBES:
        take_reply(settings, fleet.probing, b, node, now_ns, queue, latency_ns, fleet.ready.shape[1], word)
    elif settings.rule == _IDLE and settings.infer_idle == 0 and queue == 0.0:
        join_idle(fleet.idle, fleet.views, b, node)


@kernel
def note_report(
    settings: Settings, fleet: Fleet, b: int, node: int, now_ns: int,
    queue: float, service_ns: float, utilization: float, served_per_s: float, errors_per_s: float,
) -> None:  # fmt: skip
    """What `node` says of itself to everybody, now and then, arrives at balancer b.

    Args:
        settings: the policy.
        fleet: the state.
        b: which balancer.
        node: who says it.
        now_ns: when it arrives.
        queue: requests at the node, waiting or in service.
        service_ns: its mean service time (C3).
        utilization: its busy share, 0 … 1 and above.
        served_per_s: requests answered a second.
        errors_per_s: of these with an error.
    """
    view = fleet.views[b, node]
    if settings.update_ns > 0:
        note_utilization(settings, fleet.views, b, node, now_ns, utilization, served_per_s, errors_per_s)
        return
    if settings.load == _C3:
        keep = settings.smoothing if view["reported_ns"] >= 0 else 0.0
        view["queue_average"] = keep * view["queue_average"] + (1.0 - keep) * queue
        view["service_ns"] = keep * view["service_ns"] + (1.0 - keep) * service_ns
    view["queue"] = queue
    view["reported_ns"] = now_ns


@kernel
def sweep(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> None:
    """The periodic duties of balancer b, as far as they are due; sets `next_sweep_ns`."""
    due = fleet.due_ns
    if now_ns >= due[b, 0]:
        sweep_outliers(settings, fleet, b, now_ns)
        due[b, 0] += settings.interval_ns * (1 + (now_ns - due[b, 0]) // settings.interval_ns)
    if now_ns >= due[b, 1]:
        update_weights(settings, fleet.views, fleet.stale, fleet.deadlines, b, now_ns)
        due[b, 1] += settings.update_ns * (1 + (now_ns - due[b, 1]) // settings.update_ns)
    fleet.next_sweep_ns[b] = min(due[b, 0], due[b, 1], NEVER_NS)
