"""What a run on the virtual clock will take: memory, processes, real time. Estimates; each constant says what it stands for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from simulator.scenario.capacity import bottleneck, capacities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.scenario.model import Scenario

_PROCESS_BYTES = 150_000_000  # an interpreter with NumPy, Numba and the compiled kernels
_ROW_BYTES = 64 + 4  # a transaction or an attempt in flight, and its place in the stack of free rows
_WINDOWS = 2_500  # see simulator.measure.grid
_COUNT_BYTES = 8
_NODE_COUNTS = 4  # of each node in each window: sent, busy, waiting, and once more in the merged tallies
_SHARD_COUNTS = 2
_HISTOGRAM_BYTES = 60_000_000  # of windows and kinds, those that are dense and those that are not
_DAGOR_BYTES = 4_200  # of a node: how many came of each priority
_FAST_PER_S = 9_000_000.0  # one step, and clients that only wait, on one core
_GENERAL_PER_S = 3_000_000.0  # with shards, time-outs and retries, where each process makes the stream for all units
_START_S = 3.0
_REPORT_S = 5.0


def processes(scenario: Scenario) -> int:
    """How many processes simulate: one for each unit, at most one a core."""
    return min(scenario.fleet.units, len(os.sched_getaffinity(0)))


def memory_bytes(scenario: Scenario) -> int:
    """All processes together."""
    fleet, rows = scenario.fleet, scenario.dispatcher.in_flight
    client = scenario.client
    rows += rows + rows // 2 if client.retries is not None or client.hedge is not None else rows
    tallies = _WINDOWS * _COUNT_BYTES * (_NODE_COUNTS * fleet.nodes + _SHARD_COUNTS * fleet.shards.count)
    # A unit has rows for as many in flight as the scenario says, as the units are simulated apart.
    running = processes(scenario)
    nodes = fleet.nodes // fleet.units
    known = scenario.balancer.memory_bytes(nodes)
    if fleet.admission is not None and fleet.admission.rule == "dagor":
        known += nodes * _DAGOR_BYTES
    return (running + 1) * _PROCESS_BYTES + running * (rows * _ROW_BYTES + _HISTOGRAM_BYTES + known) + tallies


def run_s(scenario: Scenario, transactions: float) -> float:
    """Real time, start and report included."""
    fleet, client = scenario.fleet, scenario.client
    single = fleet.shards.service is None and fleet.shards.commit is None and fleet.dependency is None
    single = single and fleet.admission is None and fleet.concurrency is None
    alone = client.timeout is None and client.deadline is None and client.retries is None and client.hedge is None
    per_s = _FAST_PER_S if single and alone and not scenario.faults else _GENERAL_PER_S
    return _START_S + transactions / per_s / processes(scenario) + _REPORT_S


def rows(scenario: Scenario, peak_per_s: float) -> Iterator[tuple[str, str]]:
    """Lines of `sim check` about the model: its stages, and how the peak compares with what they can take."""
    fleet = scenario.fleet
    given = "" if scenario.platform is not None else ", a model of the embedded platform"
    units = f"{fleet.units} units of {fleet.nodes // fleet.units:,} nodes" if fleet.units > 1 else "one unit"
    yield "platform", f"simulated: {units}{given}"
    for stage in capacities(fleet):
        limit = f"up to {stage.per_s:,.0f}/s" if stage.per_s is not None else "no known limit"
        yield stage.name, f"{limit} ({stage.what})"
    least = bottleneck(fleet)
    if least is not None and least.per_s is not None:
        share = peak_per_s / least.per_s
        if share > 1:
            yield (
                "load",
                f"the peak exceeds what the {least.name} can take by {100 * (share - 1):.3g} %: a queue will grow",
            )
        else:
            yield "load", f"the peak is {100 * share:.3g} % of what the {least.name} can take"
