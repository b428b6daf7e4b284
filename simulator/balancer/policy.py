"""The policies by name: each is a load metric and a pick rule, with the defaults of its reference.

What each pair is, where it comes from and how it differs from its neighbours: docs/balancing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.balancer.fleet import (
    EVENT,
    EVENTS,
    NEVER_NS,
    PROBE,
    RECENT,
    VIEW,
    Deadlines,
    Fleet,
    Hashing,
    Idle,
    Load,
    Probing,
    Rule,
    Settings,
    shuffle,
)
from simulator.balancer.hashing import build_ring
from simulator.seeds import Stream, bits, stream_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from simulator.scenario.balancing import Balancer

_MS, _S = 1_000_000, 1_000_000_000


class Pair(NamedTuple):
    """A policy: what load means, how a node is picked, and the defaults that belong to it."""

    load: Load
    rule: Rule
    defaults: Mapping[str, Any] = {}


POLICIES: Mapping[str, Pair] = {
    "random": Pair(Load.IN_FLIGHT, Rule.RANDOM),
    "round_robin": Pair(Load.IN_FLIGHT, Rule.ROUND_ROBIN),
    "weighted_round_robin": Pair(Load.IN_FLIGHT, Rule.SMOOTH),
    "p2c": Pair(Load.IN_FLIGHT, Rule.DRAWS, {"bias": 1.0}),
    "p2c_distinct": Pair(Load.IN_FLIGHT, Rule.DISTINCT),
    "jsq": Pair(Load.IN_FLIGHT, Rule.SCAN),
    "jiq": Pair(Load.IN_FLIGHT, Rule.IDLE),
    "peak_ewma": Pair(Load.PEAK_EWMA, Rule.DISTINCT),
    "ring_hash": Pair(Load.IN_FLIGHT, Rule.RING),
    "maglev": Pair(Load.IN_FLIGHT, Rule.MAGLEV),
    "bounded_load": Pair(Load.IN_FLIGHT, Rule.RING, {"load_factor": 1.25}),
    "prequal": Pair(Load.IN_FLIGHT, Rule.PROBES),
    "aperture": Pair(Load.IN_FLIGHT, Rule.DISTINCT, {"aperture_ns": 15.0 * _S}),
    "orca": Pair(Load.IN_FLIGHT, Rule.DEADLINE, {"update_ns": _S}),
    "c3": Pair(Load.C3, Rule.DRAWS, {"choices": 3}),
    "affinity": Pair(Load.IN_FLIGHT, Rule.AFFINITY),
}

RING_LEAST, RING_MOST = 1_024, 8 << 20  # Envoy: minimum_ring_size, maximum_ring_size
TABLE_SIZE = 65_537  # Maglev, §3.4; Envoy's default: prime

# Finagle: Long.MaxValue >> 16, in ns; far above any load that is a time, and exact in a float64 with the requests added.
_PENALTY_NS = float((2**63 - 1) >> 16)

DEFAULTS = Settings(
    load=int(Load.IN_FLIGHT), rule=int(Rule.DRAWS), choices=2, bias=0.0, weighted=0,
    tau_ns=10.0 * _S, start_ns=0.0, penalty_ns=_PENALTY_NS,
    clients=1.0, smoothing=0.9,
    load_factor=0.0, infer_idle=1,
    probes=3.0, pool=16, probe_age_ns=_S, removals=1.0, hot_quantile=0.84, spare_probes=1.0,
    aperture_ns=0.0, load_low=0.875, load_high=1.125,
    update_ns=0, blackout_ns=10 * _S, expiry_ns=180 * _S, error_penalty=1.0,
    outlier=0, errors_in_a_row=5, interval_ns=10 * _S, ejection_ns=30 * _S, ejection_max_ns=300 * _S, ejected_max=0.1,
    rate_nodes=5, rate_requests=100, rate_deviations=1.9,
    panic=0.5, slow_ns=0, slow_floor=0.1, slow_power=1.0,
    circuit_requests=0, circuit_node=0,
)  # fmt: skip


def settings_of(policy: str, **changes: float) -> Settings:
    """The settings of a policy by its name, with fields changed; KeyError if there is none of that name."""
    pair = POLICIES[policy]
    values = {"load": int(pair.load), "rule": int(pair.rule), **pair.defaults, **changes}
    # Of the default's type, always: kernels are compiled for the types of the fields.
    return DEFAULTS._replace(**{name: type(getattr(DEFAULTS, name))(value) for name, value in values.items()})


def settings_from(balancer: Balancer, *, weights: Sequence[float] = (), virtual: bool = False) -> Settings:
    """The settings of a scenario's balancer.

    `weights`, of the platform, count where the balancer has none of its own. With `virtual` nodes can tell when they are
    idle, where there are several balancers.
    """
    told = virtual and balancer.balancers > 1
    ejection, slow = balancer.outlier_ejection, balancer.slow_start
    changes: dict[str, float] = {
        "tau_ns": balancer.ewma.decay, "start_ns": balancer.ewma.start,
        "clients": balancer.balancers, "infer_idle": not told,
        "probes": balancer.probes.per_query, "pool": balancer.probes.pool, "probe_age_ns": balancer.probes.age,
        "removals": balancer.probes.removals, "hot_quantile": balancer.probes.hot,
        "load_low": balancer.aperture.low, "load_high": balancer.aperture.high,
        "blackout_ns": balancer.orca.blackout, "expiry_ns": balancer.orca.expiry, "error_penalty": balancer.orca.error_penalty,
        "weighted": len(set(balancer.weights or weights)) > 1, "panic": balancer.panic,
        "circuit_requests": balancer.circuit.requests or 0, "circuit_node": balancer.circuit.per_node or 0,
    }  # fmt: skip
    if balancer.policy == "p2c":
        changes["bias"] = balancer.bias
    if balancer.policy == "aperture":
        changes["aperture_ns"] = balancer.aperture.window
    if balancer.policy == "orca":
        changes["update_ns"] = balancer.orca.update
    if balancer.choices is not None:
        changes["choices"] = balancer.choices
    if balancer.load is not None:
        changes["load"] = Load[balancer.load.upper()]
    if balancer.hash.load_factor is not None:
        changes["load_factor"] = balancer.hash.load_factor
    if ejection is not None:
        changes |= {
            "outlier": 1, "errors_in_a_row": ejection.in_a_row, "interval_ns": ejection.interval, "ejection_ns": ejection.base,
            "ejection_max_ns": ejection.longest, "ejected_max": ejection.share, "rate_nodes": ejection.min_nodes,
            "rate_requests": ejection.min_requests, "rate_deviations": ejection.deviations,
        }  # fmt: skip
    if slow is not None:
        changes |= {"slow_ns": slow.window, "slow_floor": slow.floor, "slow_power": 1.0 / slow.aggression}
    return settings_of(balancer.policy, **changes)


def fleet_from(
    balancer: Balancer, settings: Settings, nodes: int, *, weights: Sequence[float] = (),
    in_flight: NDArray[np.int64] | None = None, seed: int = 0,
) -> Fleet:  # fmt: skip
    """The fleet of a scenario's balancer; `weights` of the platform count where the balancer has none of its own."""
    used = balancer.weights or weights
    return open_fleet(
        settings, nodes, balancer.balancers, weights=np.array(used) if used else None, in_flight=in_flight, seed=seed,
        ring_least=balancer.hash.ring, table_size=balancer.hash.table,
    )  # fmt: skip


def open_fleet(
    settings: Settings, nodes: int, balancers: int = 1, *, weights: NDArray[np.float64] | None = None,
    in_flight: NDArray[np.int64] | None = None, seed: int = 0, ring_least: int = RING_LEAST, ring_most: int = RING_MOST,
    table_size: int = TABLE_SIZE,
) -> Fleet:  # fmt: skip
    """A fleet on which nothing has happened.

    Args:
        settings: of the policy; they say which tables are needed.
        nodes: N ≥ 1.
        balancers: K ≥ 1.
        weights: of the nodes, shape (N,), above 0; None: all alike. Only their ratios matter.
        in_flight: where to count requests in flight, shape (K, N), zeroed; None: an array of the fleet's own.
        seed: of what is fixed at random, such as each balancer's aperture.
        ring_least: points on the ring at least.
        ring_most: points on the ring at most.
        table_size: of Maglev, a prime above the number of nodes.
    """
    k, n = balancers, nodes
    rule = Rule(settings.rule)
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64) / np.mean(weights)
    views = np.zeros((k, n), VIEW)
    views["cost_ns"] = settings.start_ns
    views["reported_ns"] = views["reporting_since_ns"] = -1
    views["available_since_ns"] = -NEVER_NS
    views["weight"] = weight
    ready = np.tile(np.arange(n, dtype=np.int32), (k, 1))
    place = ready.copy()
    if settings.aperture_ns > 0:
        shuffle(ready, place, stream_key(seed, Stream.APERTURE))
    start = stream_key(seed, Stream.CURSOR)
    cursor = np.array([int(bits(start, b)) % n for b in range(k)], np.int64)
    can_differ = settings.weighted or settings.slow_ns > 0 or settings.update_ns > 0
    by_deadline = rule is Rule.DEADLINE or (can_differ and rule in (Rule.DRAWS, Rule.ROUND_ROBIN))
    heaps = (k, n) if by_deadline else (1, 1)
    due_ns = np.full((k, 2), NEVER_NS, np.int64)
    if settings.outlier:
        due_ns[:, 0] = settings.interval_ns + settings.interval_ns * np.arange(k) // k
    if settings.update_ns:
        due_ns[:, 1] = settings.update_ns + settings.update_ns * np.arange(k) // k
    no_point = (np.zeros(1, np.uint64), np.zeros(1, np.int32))
    point, owner = build_ring(weight, ring_least, ring_most) if rule is Rule.RING else no_point
    return Fleet(
        in_flight=np.zeros((k, n), np.int64) if in_flight is None else in_flight,
        total=np.zeros(k, np.int64) if in_flight is None else in_flight.sum(axis=1),
        weight=weight, ready=ready, place=place,
        ready_count=np.full(k, n, np.int64), span=np.full(k, n, np.int64), cursor=cursor, views=views,
        stale=np.ones(k, np.int64), panicking=np.zeros(k, np.int64), slow_until_ns=np.full(k, -NEVER_NS, np.int64),
        next_sweep_ns=due_ns.min(axis=1), due_ns=due_ns,
        width=np.full(k, 1 if settings.aperture_ns > 0 else n, np.int64), smooth=np.zeros((k, 2)),
        deadlines=Deadlines(
            heap=np.zeros(heaps, np.int32), deadline=np.zeros(heaps), turn=np.zeros(heaps, np.int64),
            size=np.zeros(k, np.int64), clock=np.zeros(k), turns=np.zeros(k, np.int64),
        ),
        idle=_idle_lists(settings, views, rule is Rule.IDLE),
        hashing=Hashing(
            point, owner, np.zeros((k, table_size) if rule is Rule.MAGLEV else (1, 1), np.int32), np.zeros((3, n), np.int64)
        ),
        probing=Probing(
            pool=np.zeros((k, settings.pool), PROBE), held=np.zeros(k, np.int64), owed=np.zeros((k, 2)),
            removals=np.zeros(k, np.int64), recent=np.zeros((k, RECENT)), ordered=np.zeros((k, RECENT)),
            replies=np.zeros(k, np.int64),
        ),
        events=np.zeros(EVENTS, EVENT), event_count=np.zeros(1, np.int64),
    )  # fmt: skip


def _idle_lists(settings: Settings, views: NDArray[np.void], wanted: bool) -> Idle:  # noqa: FBT001  of this module alone
    """At the start every node is idle: in the list of each balancer that finds out by itself, else in one list only."""
    k, n = views.shape
    idle = Idle(np.zeros((k, n) if wanted else (1, 1), np.int32), np.zeros(k, np.int64), np.zeros(k, np.int64))
    for b in range(k if wanted else 0):
        mine = np.arange(n) if settings.infer_idle else np.arange(b, n, k)
        idle.ring[b, : len(mine)] = mine
        idle.held[b] = len(mine)
        views["idle"][b, mine] = 1
    return idle
