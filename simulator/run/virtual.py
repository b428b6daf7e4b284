"""A run on the virtual clock: the scenario's platform simulated, summed up and written like any other run.

The control process has the terminal and Ctrl-C; the simulation runs in children, one for each unit while there are cores. A
process that may not have children (a sweep's worker) simulates in itself.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import __version__, process
from simulator.arrivals.build import build_rate
from simulator.audit.virtual import audit_virtual
from simulator.balancer.behaviour import describe
from simulator.engine.units import INSIDE, MADE, NOW_NS, PROGRESS, SETTLED, Part, Whole, put_together, simulate_units
from simulator.engine.virtual.records import MAIL_KEPT
from simulator.engine.virtual.simulation import Engine
from simulator.engine.virtual.tally import Count, fill
from simulator.errors import BackendError, ScenarioError, SimError
from simulator.fault.schedule import Schedule
from simulator.measure.grid import lengths_s, peak_grid
from simulator.measure.recorder import open_tallies
from simulator.measure.validity import Validity
from simulator.report.export import write_events, write_hlog, write_json, write_series
from simulator.report.first_limit import with_first_limit
from simulator.report.simulated import events_of, node_times, sections
from simulator.report.snapshot import Pace, Phase, Snapshot
from simulator.report.summary import Results, series_columns, summarise
from simulator.run.folder import whoever_listens
from simulator.run.memory import pss_bytes
from simulator.run.theory import theory_of
from simulator.run.virtual_balance import recorded_of
from simulator.scenario.loader import dump_scenario
from simulator.scenario.virtual_plan import processes
from simulator.shard.layout import shared_array
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.measure.recorder import Tallies
    from simulator.report.view import View
    from simulator.run.interrupts import Asked
    from simulator.scenario.model import Scenario

_LOOK_S = 0.1
_NEVER_NS = 2**62


@dataclass
class VirtualRun:
    """The moving parts of a simulated run."""

    scenario: Scenario
    folder: Path
    grid_ns: NDArray[np.int64]
    duration_s: float
    expected: float
    target: NDArray[np.float64]  # transactions that the rate asks for in each window
    progress: NDArray[np.int64]  # (processes, PROGRESS), shared
    stop_ns: NDArray[np.int64]  # (1,) shared
    alone: bool  # in this process
    children: list[tuple[ForkProcess, Connection]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    interrupted: bool = False
    rss_peak_bytes: int = 0
    began: float = 0.0
    took_s: float = 0.0

    def kill(self) -> None:
        """Ends every process of the run at once."""
        for child, _ in self.children:
            process.kill(child)

    def execute(self, interrupts: Asked, view: View) -> None:
        """Simulates to the end, or to the first interrupt. Raises BackendError if a process ends early."""
        self.began = time.monotonic()
        if self.alone:
            self.parts = self._here(interrupts, view)
        else:
            self._in_children(interrupts, view)
        self.took_s = time.monotonic() - self.began
        self._look(view, "draining")

    def _here(self, interrupts: Asked, view: View) -> list[Part]:
        looked = [0.0]

        def stop() -> int:
            now = time.monotonic()
            if now - looked[0] >= _LOOK_S:
                looked[0] = now
                self._hear(interrupts)
                self._look(view, "running")
            return int(self.stop_ns[0])

        units = range(self.scenario.fleet.units)
        return simulate_units(self.scenario, units, self.grid_ns, self.progress[0], stop)

    def _in_children(self, interrupts: Asked, view: View) -> None:
        count = len(self.progress)
        for number in range(count):
            here, there = Pipe()
            units = range(number, self.scenario.fleet.units, count)
            child = process.start(
                f"simulation {number}", _simulate, self.scenario, units, self.grid_ns, self.progress[number],
                self.stop_ns, there,
            )  # fmt: skip
            there.close()
            self.children.append((child, here))
        waiting = dict(self.children)
        while waiting:
            ready = wait(list(waiting.values()), _LOOK_S)
            self._hear(interrupts)
            self._look(view, "running")
            for child, connection in list(waiting.items()):
                if connection in ready:
                    self.parts += _receive(child, connection)
                    child.join()
                    del waiting[child]

    def _hear(self, interrupts: Asked) -> None:
        """Passes a first interrupt on: all stop at the time that the first of them has come to."""
        if interrupts.count and not self.interrupted:
            self.interrupted = True
            self.stop_ns[0] = max(int(self.progress[:, NOW_NS].max()), 1)

    def _look(self, view: View, phase: Phase) -> None:
        pids = [os.getpid(), *(child.pid or 0 for child, _ in self.children)]
        self.rss_peak_bytes = max(self.rss_peak_bytes, sum(pss_bytes(pid) for pid in pids))
        with whoever_listens():
            view.update(self._snapshot(phase))

    def _snapshot(self, phase: Phase) -> Snapshot:
        # The slowest process says how far the run is: each makes the whole stream.
        made, now_s = int(self.progress[:, MADE].min()), int(self.progress[:, NOW_NS].min()) / 1e9
        real_s = (self.took_s or time.monotonic() - self.began) if self.began else 0.0
        done = min(made / self.expected, 1.0) if self.expected else 1.0
        return Snapshot(
            phase=phase,
            elapsed_s=now_s,
            duration_s=self.duration_s,
            counts={"offered": made, "settled": int(self.progress[:, SETTLED].sum()), "dropped": 0},
            in_flight=int(self.progress[:, INSIDE].sum()),
            offered_per_s=[],
            completed_per_s=[],
            target_total=self.expected,
            response_ms=None,
            node_share=[],
            thresholds=[],
            pace=Pace(real_s, made / real_s if real_s else 0.0, real_s * (1 - done) / done if done else None),
        )

    def conclude(self, view: View, *, started: datetime, began: float) -> dict[str, Any]:
        """Puts the units together, audits, judges and writes the results; returns the summary."""
        with whoever_listens():
            view.update(self._snapshot("auditing"))
        whole = put_together(self.parts, self.scenario.fleet.units, len(self.grid_ns) - 1)
        self.parts = []
        audit = audit_virtual(whole.virtual, whole.unbalanced, by_construction=whole.engine is Engine.DIRECT).to_dict()
        tallies = _tallies(whole, self.grid_ns)
        with whoever_listens():
            view.update(self._snapshot("reporting"))
        results = self._results(whole, tallies, audit, started, time.monotonic() - began)
        columns = series_columns(results, self.target)
        events = events_of(self.scenario, self._strikes(), whole.health, self.interrupted_s)
        summary = with_first_limit(summarise(results), columns, {}, dump_scenario(self.scenario), events)
        folder = self.folder
        write_json(folder / "audit.json", audit)
        write_series(folder / "timeseries.csv", columns)
        write_hlog(folder / "latency.hlog", whole.measured, self.grid_ns, started.timestamp())
        write_events(folder / "events.jsonl", events)
        write_json(folder / "summary.json", summary)
        return summary

    @property
    def interrupted_s(self) -> float | None:
        """When it was interrupted, in its own time; None: it was not."""
        return int(self.progress[:, NOW_NS].max()) / 1e9 if self.interrupted else None

    def _strikes(self) -> Schedule:
        scenario = self.scenario
        return Schedule(
            scenario.faults, scenario.fleet.nodes, int(self.duration_s * 1e9), scenario.seed,
            restart_ns=scenario.fleet.restart,
        )  # fmt: skip

    def _results(
        self, whole: Whole, tallies: Tallies, audit: dict[str, Any], started: datetime, wall_s: float
    ) -> Results:
        scenario, fleet = self.scenario, self.scenario.fleet
        released_s = self.interrupted_s if self.interrupted_s is not None else self.duration_s
        nodes = fleet.nodes // fleet.units
        return Results(
            scenario=scenario.name, description=scenario.description, clock=scenario.clock, seed=scenario.seed,
            currency=scenario.currency, policy=scenario.balancer.policy, thresholds=scenario.threshold_list,
            version=__version__, started_at=started.isoformat(timespec="seconds"), wall_s=wall_s,
            duration_s=released_s, tallies=tallies, measured=whole.measured, validity=_validity(self, tallies, whole),
            audit=audit, owners=[s % fleet.units * nodes + s // fleet.units % nodes for s in range(fleet.shards.count)],
            applied=tallies.shard_ok.sum(axis=0).tolist(),
            resources={"rss_peak_bytes": self.rss_peak_bytes, "cpu_s": round(whole.cpu_s, 3)},
            interrupted=self.interrupted, stop_reason="interrupted" if self.interrupted else "duration",
            extra_series={
                "attempts": whole.virtual.attempts, "retries": whole.virtual.retries, **_waiting(whole, self.grid_ns),
            },
            behaviour=describe(
                recorded_of(scenario, whole, self.grid_ns, self.target, self._strikes().strikes, released_s)
            ),
            node_times=node_times(whole.virtual, whole.measured),
            extra=sections(scenario, whole, tallies, released_s, took_s=self.took_s, processes=len(self.progress))
            | theory_of(scenario, int(tallies.sent.sum()), whole.count(Count.QUEUE_FULL)),
        )  # fmt: skip


def supported(scenario: Scenario) -> None:
    """Raises ScenarioError for what cannot be run on this clock: nothing that the loader lets pass."""
    if scenario.load.rate is None:  # pragma: no cover  the model has seen to it
        raise ScenarioError("a scenario has a load")


def assemble(scenario: Scenario, folder: Path, _allowed: Collection[str] = ()) -> VirtualRun:
    """Everything a simulated run starts from; no process yet. Nothing real is loaded, so nothing need be allowed."""
    rate = build_rate(scenario)
    _, peak_s = rate.peak()
    grid_ns = peak_grid(int(rate.duration_s * 1e9), scenario.dispatcher.drain, int(peak_s * 1e9))
    edges = np.minimum(grid_ns / 1e9, rate.duration_s)
    alone = multiprocessing.current_process().daemon
    count = 1 if alone else processes(scenario)
    return VirtualRun(
        scenario, folder, grid_ns, rate.duration_s, rate.total, np.diff(rate.cumulative(edges)),
        shared_array(count * PROGRESS, np.int64).reshape(count, PROGRESS), _never(), alone,
    )  # fmt: skip


def _never() -> NDArray[np.int64]:
    word = shared_array(1, np.int64)
    word[0] = _NEVER_NS
    return word


def _simulate(
    scenario: Scenario, units: range, grid_ns: NDArray[np.int64], progress: NDArray[np.int64],
    stop_ns: NDArray[np.int64], connection: Connection,
) -> None:  # fmt: skip
    """The body of a child: sends its units' parts one by one, or the text of what is wrong."""
    try:
        for part in simulate_units(scenario, units, grid_ns, progress, lambda: int(stop_ns[0])):
            _send(connection, part)
        connection.send(None)
    except SimError as error:
        connection.send(error)


def _send(connection: Connection, part: Part) -> None:
    """Sends a part, its arrays as they lie: pickled whole they would be held three times, and a day's are large."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(part, protocol=5, buffer_callback=arrays.append)
    connection.send((text, [array.raw().nbytes for array in arrays]))
    for array in arrays:
        if array.raw().nbytes:
            connection.send_bytes(array.raw())


def _receive(child: ForkProcess, connection: Connection) -> list[Part]:
    parts = []
    try:
        while (found := connection.recv()) is not None:
            if isinstance(found, SimError):
                raise found
            text, lengths = found
            arrays = [bytearray(length) for length in lengths]
            for array in arrays:
                if array:
                    connection.recv_bytes_into(array)
            parts.append(pickle.loads(text, buffers=arrays))  # noqa: S301  from a process of our own
    except (EOFError, OSError):  # the second: in the middle of an array
        child.join()
        raise BackendError(f"a process that simulates ended early (code {child.exitcode})") from None
    return parts


def _tallies(whole: Whole, grid_ns: NDArray[np.int64]) -> Tallies:
    """What a client saw, as summary and report read it."""
    virtual = whole.virtual
    tallies = open_tallies(grid_ns, virtual.node_sent.shape[1], virtual.shard_ok.shape[1])
    # The two that are large are not held twice: filling them from themselves changes nothing.
    tallies = tallies._replace(node_sent=virtual.node_sent, shard_ok=virtual.shard_ok)
    fill(tallies, virtual)
    tallies.in_flight_max[:] = whole.node_in_flight_max
    tallies.shard_in_flight_max[:] = whole.shard_in_flight_max
    for row, sparse in zip(tallies.totals, whole.measured, strict=True):
        row[:] = sparse.total().counts
    return tallies


def _waiting(whole: Whole, grid_ns: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """How many waited at a node in each window: the mean over time, of all nodes and of the fullest one."""
    waited_ns = whole.virtual.node_queue_ns
    lengths_ns = lengths_s(grid_ns) * 1e9
    return {
        "waiting": (waited_ns.mean(axis=1) / lengths_ns).round(4),
        "waiting_max": (waited_ns.max(axis=1, initial=0) / lengths_ns).round(4),
    }


def _validity(run: VirtualRun, tallies: Tallies, whole: Whole) -> Validity:
    """A simulation cannot fall behind; it can be stopped early, or be too small for what is in flight."""
    reasons = []
    if run.interrupted:
        reasons.append("the run was interrupted before its end")
    dropped = int(tallies.answered[:, Status.DROPPED].sum())
    if dropped:
        room = run.scenario.dispatcher.in_flight
        reasons.append(
            f"{dropped:,} transactions found {room:,} in flight already and were not simulated; raise dispatcher.in_flight, "
            "or give clients a timeout or queues a limit"
        )
    mail_lost = whole.count(Count.MAIL_LOST)
    if mail_lost:
        reasons.append(
            f"{mail_lost:,} probes or messages between balancers and nodes were not sent, because {MAIL_KEPT:,} were under way; "
            "the policy was simulated with less than it asks for"
        )
    return Validity("inconclusive" if reasons else "valid", reasons)
