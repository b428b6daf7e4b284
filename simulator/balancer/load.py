"""What load means: the number by which two nodes are compared, smaller is better. Pick rules take any of these.

* in flight: this balancer's own requests at the node. The metric of Envoy's least request, Finagle's `leastLoaded`, gRPC's
  `least_request` (A48).
* peak EWMA: Finagle's `PeakEwma` (`finagle-core`, package `loadbalancer`); Linkerd and tower-balance follow it. An average of
  response times that decays by e^(−Δt/τ), τ = 10 s, and jumps at once to any response time above it; the load is
  cost × (in flight + 1). Finagle starts without history: such a node has load 0 while idle, and a penalty once a request is
  out, so that it gets one request until it has shown what it takes. Linkerd starts at 30 ms instead (`start_ns`).
* reported: the queue length that the node last reported, however old: Mitzenmacher's bulletin board ("How Useful Is Old
  Information?", IEEE TPDS 2000), on which balancers herd.
* C3: P. Suresh et al., "C3: Cutting Tail Latency in Cloud Data Stores via Adaptive Replica Selection", NSDI 2015, §3.1:
  Ψ = R − 1/μ + q̂³/μ with q̂ = 1 + in flight × clients + q. Its rate control (§3.2) is not modelled.

With unequal weights the load is divided by the weight; requests in flight then count the one about to be sent, or an idle node
would look alike at any weight.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from simulator.balancer.fleet import Load
from simulator.kernel import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Settings

_IN_FLIGHT, _PEAK_EWMA, _REPORTED = int(Load.IN_FLIGHT), int(Load.PEAK_EWMA), int(Load.REPORTED)


@kernel
def ramp(settings: Settings, views: NDArray[np.void], b: int, node: int, now_ns: int) -> float:
    """Slow start's factor of a node's weight, in (0, 1]: max(floor, (t/T)^(1/aggression)) for T after it became available.

    Envoy, `slow_start_config`: floor 10 %, aggression 1.
    """
    age = now_ns - views[b, node]["available_since_ns"]
    if age >= settings.slow_ns:
        return 1.0
    return max(settings.slow_floor, (max(age, 0) / settings.slow_ns) ** settings.slow_power)


@kernel
def weight_of(
    settings: Settings, views: NDArray[np.void], slow_until_ns: NDArray[np.int64], b: int, node: int, now_ns: int
) -> float:
    """The weight in force."""
    weight = views[b, node]["weight"]
    if now_ns < slow_until_ns[b]:
        weight *= ramp(settings, views, b, node, now_ns)
    return weight


@kernel
def peak_cost(settings: Settings, views: NDArray[np.void], b: int, node: int, now_ns: int) -> float:
    """The peak EWMA of a node's response times, ns, decayed until now; 0: no history.

    As in Finagle each look stores what has decayed. So between two answers the cost falls towards 0, not towards the last
    answer, and one that is looked at often is an envelope: up at once, down by e^(−Δt/τ).
    """
    view = views[b, node]
    cost = view["cost_ns"] * exp(-max(now_ns - view["stamp_ns"], 0) / settings.tau_ns)
    view["cost_ns"] = cost
    view["stamp_ns"] = now_ns
    return cost


@kernel
def observe(settings: Settings, views: NDArray[np.void], b: int, node: int, now_ns: int, took_ns: int) -> None:
    """A response time enters the averages that the load metric needs."""
    view = views[b, node]
    if settings.load == _PEAK_EWMA:
        if took_ns > view["cost_ns"]:
            view["cost_ns"] = took_ns
        else:
            fade = exp(-max(now_ns - view["stamp_ns"], 0) / settings.tau_ns)
            view["cost_ns"] = view["cost_ns"] * fade + took_ns * (1.0 - fade)
        view["stamp_ns"] = now_ns
    else:
        keep = settings.smoothing if view["response_ns"] > 0.0 else 0.0
        view["response_ns"] = keep * view["response_ns"] + (1.0 - keep) * took_ns


@kernel
def load_of(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    b: int, node: int, now_ns: int,
) -> float:  # fmt: skip
    """The load of a node as balancer b sees it at `now_ns`."""
    own = in_flight[b, node]
    if settings.load == _IN_FLIGHT:
        found = float(own)
    elif settings.load == _PEAK_EWMA:
        cost = peak_cost(settings, views, b, node, now_ns)
        found = settings.penalty_ns + own if cost == 0.0 and own != 0 else cost * (own + 1)
    elif settings.load == _REPORTED:
        found = views[b, node]["queue"]
    else:
        view = views[b, node]
        queue = 1.0 + own * settings.clients + view["queue_average"]
        found = view["response_ns"] - view["service_ns"] + queue * queue * queue * view["service_ns"]
    if settings.weighted or now_ns < slow_until_ns[b]:
        if settings.load == _IN_FLIGHT or settings.load == _REPORTED:
            found += 1.0
        found /= weight_of(settings, views, slow_until_ns, b, node, now_ns)
    return found
