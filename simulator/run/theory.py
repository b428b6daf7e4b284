"""What queueing theory says of a simulated run, where a closed form holds: its percentile plot is drawn beside the run's own.

One holds for a single station: Poisson arrivals at one rate, exponential service, first come first served, one node or a random
one of several (a random part of a Poisson process is one), nobody turned away, timed out or struck by a fault. Each node is then
M/M/c at its part of the rate, and all have one distribution of the time in the system. Behind it stand constant latencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.scenario.balancing import Balancer
from simulator.scenario.client import Client
from simulator.scenario.fleet import Platform

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

_NS_PER_S = 1e9
_PER_DECADE = 10  # points of the curve


def theory_of(scenario: Scenario, transactions: int, refused: int) -> dict[str, Any]:
    """`theory` for summary.json: its name and the quantile function of response times, as (1 / (1 − quantile), ms).

    Empty where no closed form holds. `transactions` is how far the run resolves; `refused` how many attempts found no room.
    """
    platform, rate = scenario.fleet, scenario.load.rate
    mean_ns = platform.service.mean
    if not _single_station(scenario) or refused or transactions < 1 or not isinstance(rate, float) or not mean_ns:
        return {}
    arrival, service = rate / platform.nodes, _NS_PER_S / mean_ns
    if arrival >= service * platform.workers:
        return {}
    # Here, not above: the roots need SciPy, which no other run has to load.
    from simulator.verify.queueing import MMc  # noqa: PLC0415

    queue = MMc(arrival, service, platform.workers)
    constant_ms = 2 * platform.network.client / 1e6
    inverses = [1.0]
    while inverses[-1] < transactions:
        inverses.append(10 ** (len(inverses) / _PER_DECADE))
    curve = [
        [round(inverse, 6), round(1e3 * queue.time_percentile(100 * (1 - 1 / inverse)) + constant_ms, 6)]
        for inverse in inverses
        if inverse > 1
    ]
    busy = queue.arrival / (queue.servers * queue.service)
    return {"theory": {"name": f"M/M/{platform.workers}, {busy:.0%} busy", "curve": curve}}


def _single_station(scenario: Scenario) -> bool:
    platform, load, plain = scenario.fleet, scenario.load, Platform()
    alike = ("units", "discipline", "concurrency", "admission", "dependency", "weights")
    balancer = scenario.balancer
    return (
        load.arrivals == "poisson"
        and load.mmpp is None
        and platform.service.distribution == "exponential"
        and platform.shards.service is None
        and platform.shards.commit is None
        and not platform.network.shard
        and all(getattr(platform, name) == getattr(plain, name) for name in alike)
        and scenario.client == Client()
        and not scenario.faults
        and (platform.nodes == 1 or balancer == Balancer(policy="random", balancers=balancer.balancers))
    )
