"""A simulation of one unit, block by block: the Python face of the kernels.

    simulation = Simulation(setup, grid_ns)
    while count := source.fill(block):
        simulation.step(block[:count])          # shows progress and stops between blocks
    results = simulation.finish()

Between two calls `now_ns`, `settled` and `inside` say how far it is. A run that is stopped early is finished all the same: what
is still inside is settled as in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.balancer.policy import open_fleet
from simulator.engine.virtual import direct, fast, general
from simulator.engine.virtual.calendar import ENTRY, open_calendar
from simulator.engine.virtual.guards import open_guards
from simulator.engine.virtual.model import CLASSES, Setup, compile_scenario
from simulator.engine.virtual.records import MAIL, MAIL_KEPT, NEVER_NS, NODE, NONE, SHARD, TRACE, open_pool
from simulator.engine.virtual.reports import KNOWN, open_reports
from simulator.engine.virtual.tally import Count, Station, Virtual, fill, open_virtual
from simulator.measure.grid import peak_grid
from simulator.measure.recorder import KINDS, Measured, Tallies, open_tallies
from simulator.measure.windows import PAIR, SparseHistograms, WindowHistograms
from simulator.seeds import Stream, stream_key
from simulator.transaction import TRANSACTION
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet
    from simulator.engine.wall import Source
    from simulator.scenario.model import Scenario

BLOCK = 16_384  # transactions made at a time: 1 MiB, which the second-level cache holds
NODES_APART = 16  # up to so many nodes have histograms of their own in each window; more share one
RESIDENT = 64  # windows whose histograms are dense at once, at least 2


class Engine(StrEnum):
    """Which kernels run a unit, from the fastest to the one that runs all; where several suit, the result is the same."""

    DIRECT = "direct"  # see `direct`
    FAST = "fast"  # see `fast`
    GENERAL = "general"  # see `general`


def engine_for(setup: Setup) -> Engine:
    """The fastest engine that suits a unit."""
    if direct.suits(setup):
        return Engine.DIRECT
    return Engine.FAST if fast.suits(setup) else Engine.GENERAL


@dataclass(frozen=True)
class LittleLaw:
    """One station: what Little's law says must agree, by independent sums.

    Attributes:
        station: its name.
        arrived: how many came, and
        left: how many went.
        mean_number: the time average of how many were there.
        mean_s: the mean time they were there (of those that left).
        rate_per_s: how many came in a second.
        inside: how many were still there at the end.
    """

    station: str
    arrived: int
    left: int
    mean_number: float
    mean_s: float
    rate_per_s: float
    inside: int


@dataclass(frozen=True)
class Results:
    """What a simulation of one unit found.

    Attributes:
        setup: what was simulated.
        edges: of the windows, ns.
        virtual: all that was counted.
        measured: response times per window × kind (× node up to 16 of them), none if they were counted elsewhere; service times
            are the same on this clock, lags 0.
        node_in_flight_max: attempts outstanding at each node, the most at once.
        shard_in_flight_max: transactions in flight of each shard, the most at once.
        fleet: the balancers' state at the end, with their health events.
        trace: TRACE rows by id − 1, where asked for.
        ended_ns: when the last thing happened.
        limits: each node's adaptive limit at the end; empty: there is none.
    """

    setup: Setup
    edges: NDArray[np.int64]
    virtual: Virtual
    measured: Measured
    node_in_flight_max: NDArray[np.int64]
    shard_in_flight_max: NDArray[np.int64]
    fleet: Fleet
    trace: NDArray[np.void]
    ended_ns: int
    limits: NDArray[np.float64]

    def count(self, which: Count) -> int:
        """One of the counts."""
        return int(self.virtual.counts[which])

    def tallies(self) -> Tallies:
        """What a client saw, as summary and report read it."""
        tallies = open_tallies(self.edges, self.setup.model.nodes, self.setup.model.shards)
        fill(tallies, self.virtual)
        tallies.in_flight_max[:] = self.node_in_flight_max
        tallies.shard_in_flight_max[:] = self.shard_in_flight_max
        tallies.totals[0] = tallies.totals[1] = self.measured.response.total().counts
        tallies.totals[2, 0] = int(tallies.sent.sum())
        return tallies

    def little(self) -> list[LittleLaw]:
        """Little's law, station by station."""
        span_s = max(self.ended_ns, 1) / 1e9
        return [
            LittleLaw(
                station.name.lower(), arrived, left, area / 1e9 / span_s, spent / 1e9 / left if left else 0.0,
                arrived / span_s, inside,
            )
            for station, (arrived, left, spent, area, inside, _) in zip(Station, self.virtual.little.tolist(), strict=True)
        ]  # fmt: skip

    def unbalanced(self) -> list[str]:
        """Where customers do not add up; empty if all do, as they must."""
        virtual, count = self.virtual, self.count
        sent, dropped = int(virtual.kinds.sum()), int(virtual.dropped.sum())
        ended = int(virtual.ended.sum())
        found = []
        if count(Count.OFFERED) != sent + dropped:
            found.append(f"{count(Count.OFFERED)} offered, but {sent} sent and {dropped} dropped")
        if ended != sent + dropped:
            found.append(f"{sent + dropped} offered, but {ended} ended")
        found += [
            f"{row.station}: {row.arrived} came, {row.left} left, {row.inside} are inside"
            for row in self.little()
            if row.arrived != row.left or row.inside
        ]
        for name, (_, _, spent, area, _, _) in zip(Station, virtual.little.tolist(), strict=True):
            if spent != area:
                found.append(f"{name.name.lower()}: ∫ number dt is {area} ns, but times add up to {spent} ns")
        return found


def open_windows(grid_ns: NDArray[np.int64], nodes: int) -> WindowHistograms:
    """Where a unit of so many nodes counts its response times; kinds are looked through once transactions of them have come."""
    windows = WindowHistograms(len(grid_ns) - 1, KINDS, nodes if nodes <= NODES_APART else 1, resident=RESIDENT)
    windows.used = set()
    return windows


class Simulation:
    """One unit's state, advanced by blocks of transactions."""

    def __init__(
        self, setup: Setup, grid_ns: NDArray[np.int64], *, arrivals_per_s: float = 25_000.0, traced: int = 0,
        engine: Engine | None = None, windows: WindowHistograms | None = None,
    ) -> None:  # fmt: skip
        """Prepares a run.

        Args:
            setup: what to simulate.
            grid_ns: edges of the windows to count in.
            arrivals_per_s: a guess at the most, for the width of what orders events; a wrong one costs time (much, if it is far
                too low) and changes nothing.
            traced: of so many transactions (ids 1 … traced), say what became of each.
            engine: which is to run it; None: the fastest that suits.
            windows: where to count response times, if several count in the same; None: in one of its own.

        Raises:
            ValueError: there are more windows than a record has room for, or the engine that is asked for does not suit.
        """
        model = setup.model
        if len(grid_ns) - 1 > np.iinfo(np.uint16).max:
            raise ValueError(f"{len(grid_ns) - 1} windows are too many; there are at most 65,535")
        self._setup = setup
        self._edges = np.ascontiguousarray(grid_ns, np.int64)
        self._shares = windows is not None
        self._windows = open_windows(grid_ns, model.nodes) if windows is None else windows
        self._virtual = open_virtual(len(grid_ns) - 1, model.nodes, model.shards)
        self._fleet = open_fleet(
            setup.settings, model.nodes, model.balancers, weights=setup.weights, seed=setup.seed,
            ring_least=setup.ring_least, table_size=setup.table_size,
        )  # fmt: skip
        self.engine = engine_for(setup) if engine is None else engine
        if (self.engine is Engine.DIRECT and not direct.suits(setup)) or (
            self.engine is Engine.FAST and not fast.suits(setup)
        ):
            raise ValueError(f"the {self.engine} path does not suit this platform")
        rows = (setup.in_flight, setup.attempt_rows) if self.engine is Engine.GENERAL else (1, 1)
        self._pool = open_pool(*rows)
        self._calendar = open_calendar(rows[1], 4.0 * arrivals_per_s, model.nodes * model.workers)
        self._direct = direct.open_direct(setup, arrivals_per_s) if self.engine is Engine.DIRECT else None
        self._fast = fast.open_fast(setup, arrivals_per_s) if self.engine is Engine.FAST else None
        self._nodes = np.zeros(model.nodes, NODE)
        if self.engine is Engine.GENERAL:
            self._nodes["head"] = self._nodes["tail"] = NONE
        self._nodes["slowness"] = 1.0 / setup.speed
        self._down = np.zeros(model.nodes, np.int64)
        self._classes = np.full((model.nodes, CLASSES, 2), NONE, np.int32)
        self._shards = np.zeros(model.shards, SHARD)
        self._shards["committing"] = NONE
        self._struck = np.zeros(2 * setup.attempt_rows if len(model.faults) else 2, ENTRY)
        self._budgets = setup.budgets.copy()
        self._guards = open_guards(setup.guards, model.nodes)
        self._trace = np.zeros(traced, TRACE)
        self._known = np.zeros((model.nodes, KNOWN))
        self._mail = np.zeros((2, MAIL_KEPT if model.talks else 1), MAIL)
        self._reports = open_reports(model, stream_key(setup.seed, Stream.REPORT))
        self._virtual.levels[0] = model.nodes
        ctl = np.zeros(general.SCALARS, np.int64)
        ctl[general.LATE_HEAD : general.LINES + 8] = NONE
        ctl[general.SWEEP_NS] = int(self._fleet.next_sweep_ns.min())
        self._ctl = ctl
        self._last_ns = 0

    @property
    def now_ns(self) -> int:
        """The time it has come to."""
        return int(self._ctl[general.NOW])

    @property
    def settled(self) -> int:
        """How many transactions have ended."""
        return int(self._virtual.counts[Count.OFFERED]) - self.inside

    @property
    def inside(self) -> int:
        """How many are in flight."""
        if self._direct is not None:
            return len(self._direct.rows) - int(self._direct.at[direct.FREE])
        if self._fast is not None:
            return int(self._fast.at[fast.MOST] - self._fast.at[fast.FREE_LIVE])
        return len(self._pool.live) - int(self._pool.free[1])

    def step(self, batch: NDArray[Any]) -> None:
        """Takes these transactions (TRANSACTION, in order, those of other units left out) and runs until the last of them."""
        if len(batch):
            self._last_ns = int(batch["intended_ns"][-1])
            self._run(batch, last=False, end_ns=NEVER_NS)
            self._note_kinds()

    def _note_kinds(self) -> None:
        self._windows.used |= set(np.flatnonzero(self._virtual.kinds.any(axis=0)).tolist())

    def _run(self, batch: NDArray[Any], *, last: bool, end_ns: int) -> None:
        position = 0
        while True:
            if self._direct is not None:
                position = direct.run(
                    batch, position, len(batch), int(last), end_ns, self._setup.model, self._direct, self._nodes, self._shards,
                    self._ctl, self._setup.settings, self._fleet, self._edges, self._virtual, self._windows.dense,
                    self._windows.slots, self._trace,
                )  # fmt: skip
            elif self._fast is not None:
                position = fast.run(
                    batch, position, len(batch), int(last), end_ns, self._setup.model, self._fast, self._nodes, self._shards,
                    self._ctl, self._budgets, self._setup.settings, self._fleet, self._edges, self._virtual,
                    self._windows.dense, self._windows.slots, self._trace,
                )  # fmt: skip
            else:
                position = self._run_general(batch, position, last=last, end_ns=end_ns)
            if self._ctl[general.NEED] < 0:
                return
            self._note_kinds()
            self._windows.admit(int(self._ctl[general.NEED]))

    def _run_general(self, batch: NDArray[Any], position: int, *, last: bool, end_ns: int) -> int:
        return int(
            general.run(
                batch, position, len(batch), int(last), end_ns, self._setup.model, self._pool, self._calendar, self._nodes,
                self._down, self._classes, self._shards, self._struck, self._ctl, self._budgets, self._setup.speed,
                self._setup.settings, self._fleet, self._edges, self._virtual, self._windows.dense, self._windows.slots,
                self._trace, self._known, self._mail, self._reports, self._guards,
            )
        )  # fmt: skip

    def finish(self) -> Results:
        """Runs until nothing is left, or `drain_ns` after the last arrival; what is then inside ends in doubt."""
        end_ns = self._last_ns + self._setup.drain_ns
        self._run(np.zeros(0, TRANSACTION), last=True, end_ns=end_ns)
        ended_ns = end_ns if self.inside else self.now_ns
        if self._direct is not None:
            direct.give_up(
                self._direct, self._nodes, self._shards, self._edges, self._virtual, self._trace, self._ctl, ended_ns
            )
            direct.complete(self._virtual)
        elif self._fast is not None:
            fast.give_up(
                self._setup.model, self._fast, self._nodes, self._shards, self._edges, self._virtual, self._trace, self._ctl,
                ended_ns,
            )  # fmt: skip
            fast.complete(self._virtual)
        else:
            general.give_up(
                self._setup.model, self._pool, self._nodes, self._shards, self._ctl, self._edges, self._virtual,
                self._windows.dense, self._windows.slots, self._trace, self._known, ended_ns,
            )  # fmt: skip
        self._note_kinds()
        if self._shares:
            response = SparseHistograms.empty(len(self._edges) - 1, KINDS, self._windows.nodes)
        else:
            response = self._windows.finish()
        return Results(
            setup=self._setup, edges=self._edges, virtual=self._virtual,
            measured=Measured(response, response, self._no_lag()),
            node_in_flight_max=self._nodes["flight_max"].astype(np.int64),
            shard_in_flight_max=self._shards["flight_max"].astype(np.int64),
            fleet=self._fleet, trace=self._trace, ended_ns=ended_ns,
            limits=self._guards.limits["limit"].copy() if self._setup.guards.limit.limiter else np.zeros(0),
        )  # fmt: skip

    def _no_lag(self) -> SparseHistograms:
        """What was sent, all of it at its intended time."""
        windows, kinds = np.nonzero(self._virtual.kinds)
        pairs = np.zeros(len(windows), PAIR)
        pairs["count"] = self._virtual.kinds[windows, kinds]
        cells = (windows * KINDS + kinds).astype(np.uint32)
        return SparseHistograms(len(self._edges) - 1, KINDS, 1, cells, np.arange(len(windows) + 1), pairs)


def simulate(
    scenario: Scenario, *, unit: int = 0, grid_ns: NDArray[np.int64] | None = None, source: Source | None = None,
    watch: Callable[[Simulation], bool] | None = None, traced: int = 0,
) -> Results:  # fmt: skip
    """Simulates one unit of a scenario from its first transaction to its last answer.

    Args:
        scenario: what to simulate.
        unit: which unit; the transactions of the others' payers are passed over.
        grid_ns: edges of the windows to count in; None: as fine as 2,450 windows allow round the peak.
        source: of transactions; None: the scenario's own.
        watch: called after each block; False stops the run.
        traced: of so many transactions, keep what became of each.

    Raises:
        ScenarioError: a trace or histogram file cannot be read.
    """
    from simulator.arrivals import build_rate  # noqa: PLC0415  only the peak is looked for

    rate = build_rate(scenario)
    peak_per_s, peak_s = rate.peak()
    setup = compile_scenario(scenario, unit)
    if grid_ns is None:
        grid_ns = peak_grid(int(rate.duration_s * 1e9), setup.drain_ns, int(peak_s * 1e9))
    simulation = Simulation(setup, grid_ns, arrivals_per_s=peak_per_s / scenario.fleet.units, traced=traced)
    transactions = (
        source if source is not None else build_source(scenario, payees=scenario.balancer.hash.key == "payee")
    )
    block = np.zeros(BLOCK, TRANSACTION)
    units = scenario.fleet.units
    while count := transactions.fill(block):
        batch = block[:count]
        simulation.step(batch if units == 1 else batch[batch["payer"] % units == unit])
        if watch is not None and not watch(simulation):
            break
    return simulation.finish()
