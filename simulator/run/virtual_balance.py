"""What a run on the virtual clock recorded of its balancers' behaviour: all there is to know.

Requests at a node are those that it has, waiting or in service: what a look inside would see, not what a balancer believes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.affinity import churn_without
from simulator.balancer.behaviour import FaultSpan, Recorded
from simulator.balancer.fleet import EVENT
from simulator.balancer.policy import fleet_from, settings_from
from simulator.engine.virtual.tally import ARRIVED, Count, Station
from simulator.fault.schedule import Fault
from simulator.measure import grid
from simulator.scenario.capacity import bottleneck
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.engine.units import Whole
    from simulator.fault.schedule import Strike
    from simulator.scenario.model import Scenario

_S = grid.NS_PER_S
_SICK = (Fault.KILL, Fault.PAUSE, Fault.SLOW, Fault.UNIT_LOSS)
_GUARD_NS = _S  # before a trigger: who came then may still be served in it
_KEYS_MOST = 100_000


def recorded_of(
    scenario: Scenario, whole: Whole, grid_ns: NDArray[np.int64], target: NDArray[np.float64], strikes: Sequence[Strike],
    released_s: float,
) -> Recorded:  # fmt: skip
    """The record of a run that sent for `released_s`; the drain after it is no part of it.

    Args:
        scenario: what was simulated.
        whole: what came of it.
        grid_ns: the edges that it was counted in; windows of unequal length are joined to the longest of them.
        target: transactions that the rate asks for in each window, (T,).
        strikes: the faults.
        released_s: how long transactions came.
    """
    fleet, virtual = scenario.fleet, whole.virtual
    end_ns = round(released_s * _S)
    firsts, width = grid.uniform(grid_ns)
    windows = max(end_ns // width, 1)

    def joined(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.add.reduceat(counts, firsts, axis=0)[:windows]
        return found

    busy = joined(virtual.node_busy_ns)
    weights = scenario.balancer.weights or fleet.weights
    report = scenario.balancer.report
    trigger = _trigger(scenario, strikes, grid_ns, target, end_ns)
    return Recorded(
        window_ns=width, requests=joined(virtual.node_sent), in_flight=(busy + joined(virtual.node_queue_ns)) / width,
        busy=busy, failed=joined(virtual.node_failed),
        offered=joined((virtual.kinds + virtual.dropped).sum(axis=1)),
        goodput=joined(virtual.ended[:, :, Status.OK].sum(axis=1)),
        weights=np.array(weights, np.float64) if weights else None,
        balancers=scenario.balancer.balancers, units=fleet.units,
        events=health_events(whole, scenario.balancer.balancers), events_in_all=whole.health_count,
        faults=fault_spans(scenario, strikes, end_ns), trigger_ns=trigger, end_ns=end_ns,
        delay_ns=report.every + report.delay if report is not None else None,
        regret_sum=float(whole.count(Count.REGRET)), picks=whole.count(Count.PICKS),
        dead_picks=whole.count(Count.DEAD_PICKS), attempts=_attempts(whole), errors=_errors(whole),
        times_s=_times_s(scenario, whole, grid_ns, target, trigger[0] if trigger else end_ns),
        fluid=_fluid(scenario, grid_ns, target, trigger), churn=_churn(scenario, strikes),
    )  # fmt: skip


def health_events(whole: Whole, balancers: int) -> NDArray[np.void]:
    """The kept health events as fleet.EVENT rows, balancers numbered through all units."""
    rows = [(time_ns, unit * balancers + b, node, what) for time_ns, unit, b, node, what in whole.health]
    return np.array(rows, EVENT) if rows else np.zeros(0, EVENT)


def fault_spans(scenario: Scenario, strikes: Sequence[Strike], end_ns: int) -> tuple[FaultSpan, ...]:
    """When nodes were dead, paused or slow, each by its number in the platform; cut off at the end of the run."""
    nodes = scenario.fleet.nodes // scenario.fleet.units
    spans = []
    for strike in strikes:
        if strike.fault not in _SICK or strike.at_ns >= end_ns:
            continue
        struck = strike.nodes if strike.unit is None else range(strike.unit * nodes, (strike.unit + 1) * nodes)
        until = end_ns if strike.until_ns is None else min(strike.until_ns, end_ns)
        spans += [FaultSpan(node, strike.at_ns, until) for node in struck]
    return tuple(spans)


def _trigger(
    scenario: Scenario, strikes: Sequence[Strike], grid_ns: NDArray[np.int64], target: NDArray[np.float64], end_ns: int
) -> tuple[int, int] | None:
    """What a collapse would outlast: from the first fault to the end of the last; without faults while the rate is too high."""
    if strikes:
        untils = [end_ns if strike.until_ns is None else min(strike.until_ns, end_ns) for strike in strikes]
        return strikes[0].at_ns, max(untils)
    least = bottleneck(scenario.fleet)
    if least is None or least.per_s is None:
        return None
    over = np.flatnonzero(target / grid.lengths_s(grid_ns) > least.per_s)
    return (int(grid_ns[over[0]]), int(grid_ns[over[-1] + 1])) if len(over) else None


def _attempts(whole: Whole) -> dict[str, tuple[float, float]]:
    """Tier by tier: what came to it over the transactions that clients sent."""
    sent = float(whole.virtual.kinds.sum())
    tiers = {"client": (float(whole.count(Count.ATTEMPTS)), sent)}
    for station in (Station.NODES, Station.SHARDS):
        arrived = float(whole.virtual.little[station, ARRIVED])
        if arrived:
            tiers[station.name.lower()] = (arrived, sent)
    if whole.count(Count.CALLS):
        tiers["dependency"] = (float(whole.count(Count.CALLS)), sent)
    return tiers


def _errors(whole: Whole) -> tuple[float, float, float] | None:
    """Transactions that did not end ok, all of them, and the share of attempts that a fault made fail."""
    attempts = whole.count(Count.ATTEMPTS)
    struck = sum(whole.count(c) for c in (Count.NODE_DOWN, Count.RESET, Count.CALL_ERRORS, Count.CALLS_HUNG))
    if not attempts:
        return None
    ended = whole.virtual.ended.sum(axis=(0, 1))
    sent = float(whole.virtual.kinds.sum())
    return sent - float(ended[Status.OK]), sent, struck / attempts


def _times_s(
    scenario: Scenario, whole: Whole, grid_ns: NDArray[np.int64], target: NDArray[np.float64], until_ns: int
) -> tuple[float, float, float] | None:
    """Mean times before anything struck: measured, of one queue for all workers, of a queue for each node chosen at random.

    Theory has them for Poisson arrivals at a constant rate, exponential services, equal nodes and nothing behind them, as
    long as nothing failed and nothing was sent twice; else None.
    """
    from simulator.verify.queueing import MMc  # noqa: PLC0415  it loads SciPy, which takes a while

    fleet, virtual = scenario.fleet, whole.virtual
    last = grid.windows_until(grid_ns, max(until_ns - _GUARD_NS, 0))
    service = fleet.service
    per_s = target[:last] / grid.lengths_s(grid_ns)[:last]
    plain = (
        last > 0 and scenario.load.arrivals == "poisson" and fleet.units == 1 and not fleet.weights
        and service.distribution == "exponential" and fleet.discipline == "fcfs" and fleet.dependency is None
        and fleet.shards.service is None and fleet.shards.commit is None
        and bool((np.abs(per_s - per_s[0]) <= 1e-6 * per_s[0]).all())
    )  # fmt: skip
    if not plain or virtual.node_failed[:last].any() or virtual.dropped[:last].any():
        return None
    if virtual.attempts[:last].sum() != virtual.kinds[:last].sum():
        return None
    mean_ns = whole.measured.response.before(last).mean_ns
    rate, served = float(per_s[0]), _S / service.mean if service.mean else 0.0
    if mean_ns is None or not 0 < rate < served * fleet.workers * fleet.nodes:
        return None
    central = MMc(rate, served, fleet.workers * fleet.nodes).mean_time
    at_random = MMc(rate / fleet.nodes, served, fleet.workers).mean_time
    return mean_ns / _S - 2 * fleet.network.client / _S, central, at_random


def _fluid(
    scenario: Scenario, grid_ns: NDArray[np.int64], target: NDArray[np.float64], trigger: tuple[int, int] | None
) -> tuple[float, float] | None:
    """ρ₀ before the trigger and r, the retries of a request that fails; None: unknown, or work for nobody costs nothing."""
    least, client = bottleneck(scenario.fleet), scenario.client
    if trigger is None or least is None or least.per_s is None or client.cancel or client.timeout is None:
        return None
    first = grid.windows_until(grid_ns, trigger[0])
    if not first:
        return None
    retries = client.retries
    again = 0.0 if retries is None else float(retries.max)
    if retries is not None and retries.budget is not None:
        again = min(again, retries.budget.ratio)
    return float(target[:first].sum()) / (int(grid_ns[first]) / _S) / least.per_s, again


def _churn(scenario: Scenario, strikes: Sequence[Strike]) -> dict[str, float] | None:
    """Of the first node that died: which keys its balancers move when they leave it out; None: none died, or no policy by key."""
    fleet, balancer = scenario.fleet, scenario.balancer
    nodes, shards = fleet.nodes // fleet.units, fleet.shards.count // fleet.units
    died = next((strike.nodes[0] for strike in strikes if strike.fault is Fault.KILL), None)
    if died is None or nodes < 2:  # noqa: PLR2004  of one node no key can move
        return None
    settings = settings_from(balancer)
    unit = died // nodes
    keys = np.arange(unit, min(scenario.load.accounts, _KEYS_MOST * fleet.units), fleet.units, dtype=np.int64)
    homes = keys // fleet.units % shards % nodes
    alone = balancer.model_copy(update={"weights": balancer.weights[unit * nodes : (unit + 1) * nodes], "balancers": 1})
    told = fleet.weights[unit * nodes : (unit + 1) * nodes]
    opened = fleet_from(alone, settings, nodes, weights=told, seed=scenario.seed)
    return churn_without(settings, opened, keys, homes, [died % nodes])
