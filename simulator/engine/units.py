"""The units of a simulated platform: each simulated by itself, in as many processes as asked for, and put together exactly.

Units share nothing, and customers who are failed over change units by a function of their number and the time alone. So a unit's
result does not depend on where or beside what it is simulated. Each process makes the whole stream of transactions (a pure
function of the seed) and takes those of its units out of it. What comes back is put together by adding and by placing arrays:
the result is the same with one process and with many.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.arrivals.build import build_rate
from simulator.engine.virtual.model import compile_scenario
from simulator.engine.virtual.simulation import BLOCK, NODES_APART, Engine, Simulation, open_windows
from simulator.engine.virtual.tally import Count, Virtual, open_virtual
from simulator.fault.schedule import Fault, Schedule
from simulator.kernel import int64, kernel
from simulator.measure.recorder import Measured
from simulator.measure.windows import SparseHistograms, add_up
from simulator.transaction import TRANSACTION
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from simulator.engine.virtual.simulation import Results
    from simulator.scenario.model import Scenario

NOW_NS, MADE, SETTLED, INSIDE = range(4)
PROGRESS = 4  # words by which a process says how far it is


@dataclass(frozen=True)
class Part:
    """What became of one unit; arrays are numbered within it.

    Attributes:
        unit: which.
        virtual: all that was counted.
        measured: response, service and lag per window × kind (× node). Units that are simulated in one process may count response
            times together; then the first has them all.
        node_in_flight_max: (nodes,) int64.
        shard_in_flight_max: (shards,) int64.
        health: the balancers' events (EVENT), in order, those that were kept.
        health_count: how many there were.
        ended_ns: when the last thing happened.
        unbalanced: where customers do not add up.
        cpu_s: what its process used since the unit before it was done; of several, the first bears what they share.
        engine: what ran it.
    """

    unit: int
    virtual: Virtual
    measured: Measured
    node_in_flight_max: NDArray[np.int64]
    shard_in_flight_max: NDArray[np.int64]
    health: NDArray[np.void]
    health_count: int
    ended_ns: int
    unbalanced: list[str]
    cpu_s: float
    engine: Engine


LOSS = np.dtype([("unit", "<i8"), ("from_ns", "<i8"), ("until_ns", "<i8")])  # while its payers go to the other units
_NEVER_NS = 2**62


def failovers(scenario: Scenario, duration_ns: int) -> NDArray[np.void]:
    """When the payers of a lost unit are served by the others (LOSS rows): from `platform.failover` after its loss to its return.

    Between a loss and its failover they are sent to their own unit, where they find nobody.
    """
    fleet = scenario.fleet
    if fleet.failover is None:
        return np.zeros(0, LOSS)
    schedule = Schedule(scenario.faults, fleet.nodes, duration_ns, scenario.seed, restart_ns=fleet.restart)
    rows = [
        (strike.unit, strike.at_ns + fleet.failover, _NEVER_NS if strike.until_ns is None else strike.until_ns)
        for strike in schedule.strikes
        if strike.fault is Fault.UNIT_LOSS
    ]
    return np.array(rows, LOSS) if rows else np.zeros(0, LOSS)


@kernel
def _moved(losses: NDArray[np.void], unit: int, now_ns: int) -> bool:
    for k in range(losses.shape[0]):
        if losses[k]["unit"] == unit and losses[k]["from_ns"] <= now_ns < losses[k]["until_ns"]:
            return True
    return False


@kernel
def take(batch: NDArray[np.void], units: int, unit: int, losses: NDArray[np.void], out: NDArray[np.void]) -> int:
    """Copies the transactions that a unit serves, in order; returns how many. `out` has room for all.

    A payer's unit is the account number modulo units. While that one is failed over, its payers are spread over the others by
    account number; if every other is failed over too, they stay.
    """
    found = 0
    for i in range(batch.shape[0]):
        payer = int64(batch[i]["payer"])
        home = payer % units
        if losses.shape[0] > 0 and units > 1 and _moved(losses, home, batch[i]["intended_ns"]):
            step = payer // units % (units - 1)
            for k in range(units - 1):
                other = (home + 1 + (step + k) % (units - 1)) % units
                if not _moved(losses, other, batch[i]["intended_ns"]):
                    home = other
                    break
        if home == unit:
            out[found] = batch[i]
            found += 1
    return found


def simulate_units(
    scenario: Scenario, units: Sequence[int], grid_ns: NDArray[np.int64], progress: NDArray[np.int64],
    stop_ns: Callable[[], int],
) -> list[Part]:  # fmt: skip
    """Simulates these units from the first transaction to the last answer, side by side over one stream.

    Args:
        scenario: what to simulate.
        units: which of its platform's units, in order.
        grid_ns: the edges of the windows to count in.
        progress: PROGRESS words, int64, written after each block.
        stop_ns: asked after each block; from this time on nothing more arrives, and what is inside comes to its end.

    Raises:
        ScenarioError: a trace or histogram file cannot be read.
    """
    began = time.process_time()
    count = scenario.fleet.units
    rate = build_rate(scenario)
    peak_per_s, _ = rate.peak()
    setups = [compile_scenario(scenario, unit) for unit in units]
    # Of large units times are kept for all nodes together, so those of one process can be counted in one place.
    nodes = setups[0].model.nodes
    together = open_windows(grid_ns, nodes) if len(units) > 1 and nodes > NODES_APART else None
    simulations = [
        Simulation(setup, grid_ns, arrivals_per_s=max(peak_per_s / count, 1.0), windows=together) for setup in setups
    ]
    source = build_source(scenario, payees=scenario.balancer.hash.key == "payee")
    losses = failovers(scenario, int(rate.duration_s * 1e9))
    block, own = np.zeros(BLOCK, TRANSACTION), np.zeros(BLOCK, TRANSACTION)
    while made := source.fill(block):
        batch = block[:made]
        for unit, simulation in zip(units, simulations, strict=True):
            simulation.step(batch if count == 1 else own[: take(batch, count, unit, losses, own)])
        _tell(progress, simulations, source.made, int(batch["intended_ns"][-1]))
        if progress[NOW_NS] >= stop_ns():
            break
    parts = []
    for unit, simulation in zip(units, simulations, strict=True):
        results = simulation.finish()
        used, began = time.process_time() - began, time.process_time()
        parts.append(_part(unit, results, used, simulation))
        _tell(progress, simulations, source.made, int(progress[NOW_NS]))
    if together is not None:
        response = together.finish()
        parts[0] = replace(parts[0], measured=Measured(response, response, parts[0].measured.lag))
    return parts


def _tell(progress: NDArray[np.int64], simulations: Sequence[Simulation], made: int, now_ns: int) -> None:
    progress[NOW_NS] = now_ns
    progress[MADE] = made
    progress[SETTLED] = sum(simulation.settled for simulation in simulations)
    progress[INSIDE] = sum(simulation.inside for simulation in simulations)


def _part(unit: int, results: Results, cpu_s: float, simulation: Simulation) -> Part:
    fleet = results.fleet
    return Part(
        unit, results.virtual, results.measured, results.node_in_flight_max, results.shard_in_flight_max,
        fleet.events[: min(int(fleet.event_count[0]), len(fleet.events))].copy(), int(fleet.event_count[0]),
        results.ended_ns, results.unbalanced(), cpu_s, simulation.engine,
    )  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """All units together; nodes and shards by their numbers in the platform."""

    virtual: Virtual
    measured: Measured
    node_in_flight_max: NDArray[np.int64]
    shard_in_flight_max: NDArray[np.int64]
    health: list[tuple[int, int, int, int, int]]  # ns, unit, balancer, node (−1: none), what (fleet.Health); in order
    health_count: int  # how many there were; fewer may have been kept
    ended_ns: int
    unbalanced: list[str]
    cpu_s: float
    engine: Engine  # the most general that a unit needed

    def count(self, which: Count) -> int:
        """One of the counts, summed over the units."""
        return int(self.virtual.counts[which])


def put_together(parts: Sequence[Part], units: int, windows: int) -> Whole:
    """Adds up what adds up, and places what belongs to nodes and shards; any order of the parts gives the same.

    Node n of unit u is node u × (nodes of a unit) + n, shard s of it shard s × units + u, as in `engine.virtual.model`. What is
    the most at once of a unit is added up as well: the units' peaks need not fall together, so it is an upper bound.
    """
    parts = sorted(parts, key=lambda part: part.unit)
    nodes, shards = len(parts[0].node_in_flight_max), len(parts[0].shard_in_flight_max)
    virtual = open_virtual(windows, nodes * units, shards * units)
    flight, held = np.zeros(nodes * units, np.int64), np.zeros(shards * units, np.int64)
    for part in parts:
        own = slice(part.unit * nodes, (part.unit + 1) * nodes)
        for name in Virtual._fields:
            whole: NDArray[Any] = getattr(virtual, name)
            piece: NDArray[Any] = getattr(part.virtual, name)
            if name in _BY_NODE:
                whole[..., own] = piece
            elif name == "node_times":
                whole[own] = piece
            elif name == "shard_ok":
                whole[:, part.unit :: units] = piece
            elif name == "settled_ns":
                whole[:] = np.maximum(whole, piece)
            elif name == "little":
                whole[:, :5] += piece[:, :5]
                whole[:, 5] = np.maximum(whole[:, 5], piece[:, 5])
            else:
                np.add(whole, piece, out=whole)
        flight[own] = part.node_in_flight_max
        held[part.unit :: units] = part.shard_in_flight_max
    return Whole(
        virtual=virtual,
        measured=_measured(parts, units),
        node_in_flight_max=flight,
        shard_in_flight_max=held,
        health=sorted(
            (
                int(row["time_ns"]),
                part.unit,
                int(row["balancer"]),
                _node(int(row["node"]), part.unit, nodes),
                int(row["what"]),
            )
            for part in parts
            for row in part.health
        ),
        health_count=sum(part.health_count for part in parts),
        ended_ns=max(part.ended_ns for part in parts),
        unbalanced=[text if units == 1 else f"unit {part.unit}: {text}" for part in parts for text in part.unbalanced],
        cpu_s=sum(part.cpu_s for part in parts),
        engine=max((part.engine for part in parts), key=list(Engine).index),
    )


_BY_NODE = frozenset({"node_sent", "node_failed", "node_busy_ns", "node_queue_ns"})


def _node(node: int, unit: int, nodes: int) -> int:
    return node if node < 0 else unit * nodes + node


def _measured(parts: Sequence[Part], units: int) -> Measured:
    numbers = [part.unit for part in parts]
    response = _join([part.measured.response for part in parts], numbers, units)
    lag = _join([part.measured.lag for part in parts], numbers, units)
    return Measured(response, response, lag)  # on this clock a response takes what its service takes


def _join(pieces: Sequence[SparseHistograms], numbers: Sequence[int], units: int) -> SparseHistograms:
    """Histograms of all units: by node while the whole platform has few, else of all nodes together."""
    apart = pieces[0].nodes
    nodes = apart * units if apart * units <= NODES_APART and apart > 1 else 1
    cells = []
    for piece, unit in zip(pieces, numbers, strict=True):
        window_kind, node = piece.cells // np.uint32(apart), piece.cells % np.uint32(apart)
        place = node + np.uint32(unit * apart) if nodes > 1 else np.uint32(0)
        cells.append((window_kind * np.uint32(nodes) + place).astype(np.uint32))
    return add_up(pieces, cells, nodes)
