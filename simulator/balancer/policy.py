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
    Fleet,
    Load,
    Rule,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MS, _S = 1_000_000, 1_000_000_000


class Pair(NamedTuple):
    """A policy: what load means, how a node is picked, and the defaults that belong to it."""

    load: Load
    rule: Rule
    defaults: Mapping[str, Any] = {}


POLICIES: Mapping[str, Pair] = {
    "random": Pair(Load.IN_FLIGHT, Rule.RANDOM),
    "round_robin": Pair(Load.IN_FLIGHT, Rule.ROUND_ROBIN),
    "p2c": Pair(Load.IN_FLIGHT, Rule.DRAWS),
    "p2c_distinct": Pair(Load.IN_FLIGHT, Rule.DISTINCT),
    "jsq": Pair(Load.IN_FLIGHT, Rule.SCAN),
    "peak_ewma": Pair(Load.PEAK_EWMA, Rule.DISTINCT),
    "affinity": Pair(Load.IN_FLIGHT, Rule.AFFINITY),
}

# Finagle: Long.MaxValue >> 16, in ns; far above any load that is a time, and exact in a float64 with the requests added.
_PENALTY_NS = float((2**63 - 1) >> 16)

DEFAULTS = Settings(
    load=int(Load.IN_FLIGHT), rule=int(Rule.DRAWS), choices=2, bias=1.0, weighted=0,
    tau_ns=10.0 * _S, start_ns=0.0, penalty_ns=_PENALTY_NS,
    clients=1.0, smoothing=0.9,
    load_factor=0.0, infer_idle=1,
    probes=3.0, pool=16, probe_age_ns=_S, removals=1.0, hot_quantile=0.84, probe_uses=1.0,
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


def open_fleet(
    settings: Settings, nodes: int, balancers: int = 1, *, weights: NDArray[np.float64] | None = None,
    in_flight: NDArray[np.int64] | None = None, seed: int = 0,  # noqa: ARG001  for apertures to come
) -> Fleet:  # fmt: skip
    """A fleet on which nothing has happened.

    Args:
        settings: of the policy; they say which tables are needed.
        nodes: N ≥ 1.
        balancers: K ≥ 1.
        weights: of the nodes, shape (N,), above 0; None: all alike. Only their ratios matter.
        in_flight: where to count requests in flight, shape (K, N), zeroed; None: an array of the fleet's own.
        seed: of what is fixed at random, such as each balancer's aperture.
    """
    k, n = balancers, nodes
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64) / np.mean(weights)
    views = np.zeros((k, n), VIEW)
    views["cost_ns"] = settings.start_ns
    views["reported_ns"] = -1
    views["reporting_since_ns"] = -1
    views["available_since_ns"] = -NEVER_NS
    views["weight"] = weight
    every = np.tile(np.arange(n, dtype=np.int32), (k, 1))
    return Fleet(
        in_flight=np.zeros((k, n), np.int64) if in_flight is None else in_flight,
        total=np.zeros(k, np.int64), weight=weight, ready=every, place=every.copy(),
        ready_count=np.full(k, n, np.int64), span=np.full(k, n, np.int64), cursor=np.zeros(k, np.int64), views=views,
        stale=np.ones(k, np.int64), slow_until_ns=np.full(k, -NEVER_NS, np.int64),
        next_sweep_ns=np.full(k, NEVER_NS, np.int64), due_ns=np.full((k, 2), NEVER_NS, np.int64),
        heap=np.zeros((1, 1), np.int32), deadline=np.zeros((1, 1)), turn=np.zeros((1, 1), np.int64),
        heap_size=np.zeros(k, np.int64), virtual=np.zeros((k, 2)),
        idle=np.zeros((1, 1), np.int32), idle_head=np.zeros(k, np.int64), idle_count=np.zeros(k, np.int64),
        point=np.zeros(1, np.uint64), owner=np.zeros(1, np.int32), table=np.zeros((1, 1), np.int32),
        scratch=np.zeros((3, n), np.int64),
        pool=np.zeros((k, settings.pool), PROBE), pool_count=np.zeros(k, np.int64), owed=np.zeros((k, 3)),
        recent=np.zeros((k, 2, RECENT)), recent_count=np.zeros(k, np.int64),
        width=np.full(k, n, np.int64), smooth=np.zeros((k, 2)),
        events=np.zeros(EVENTS, EVENT), event_count=np.zeros(1, np.int64),
    )  # fmt: skip
