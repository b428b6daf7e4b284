"""The generator alone: the engine of a run over a target that is no bottleneck, open loop and closed.

Open loop is what a run does: the same engine, dispatcher and backend, transactions at their intended times. Closed loop keeps
every connection busy and is a ceiling of the HTTP driver, comparable with tools such as wrk; it is no way to measure a platform.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import process
from simulator.arrivals.build import build_rate
from simulator.backend.backend import NoopBackend
from simulator.backend.http.build import build_http, check_descriptors
from simulator.clock import WallClock
from simulator.dispatcher import Dispatcher, WhenFull
from simulator.engine.wall import WallEngine, drive
from simulator.errors import BackendError, SimError
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import HISTORY, LAG, RESPONSE, Recorder, Tallies, open_tallies
from simulator.scenario.model import Scenario
from simulator.shard.layout import shared_array
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Status
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from simulator.backend.backend import Backend
    from simulator.backend.http.backend import HttpBackend

LAG_LIMIT_MS = 1.0
SENT_SHARE_MIN = 0.999
_START_NS = 50_000_000
_PATIENCE_S = 60  # a generator that is late still sends, so that what it reaches can be read off
_DRAIN_S = 10
_GRACE_S = 120.0  # a process that has said nothing by then hangs


@dataclass(frozen=True)
class OpenLoop:
    """What became of a rate that was asked for.

    Attributes:
        asked_per_s: the rate.
        offered: transactions that were due.
        sent: of these, those that went out.
        ok: of these, those that were answered well.
        elapsed_s: from the start to the last answer.
        cpu_s: that the generator's process took.
        response_ms: from the intended instant to the answer, by percentile; None where nothing was answered.
        lag_ms: from the intended instant to the release, likewise.
    """

    asked_per_s: float
    offered: int
    sent: int
    ok: int
    elapsed_s: float
    cpu_s: float
    response_ms: dict[str, float | None]
    lag_ms: dict[str, float | None]

    @property
    def achieved_per_s(self) -> float:
        """Answered well, over the time that took."""
        return self.ok / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def cpu_us_per_request(self) -> float | None:
        """Of the generator alone."""
        return self.cpu_s / self.sent * 1e6 if self.sent else None

    def held(self, lag_limit_ms: float = LAG_LIMIT_MS) -> bool:
        """Whether the generator kept its schedule: 99.9 % sent and answered, 99 % of that within the limit of lag."""
        lag = self.lag_ms["p99"]
        enough = SENT_SHARE_MIN * self.offered
        return (
            self.offered > 0 and self.sent >= enough and self.ok >= enough and lag is not None and lag <= lag_limit_ms
        )


@dataclass(frozen=True)
class ClosedLoop:
    """What every connection busy comes to."""

    connections: int
    answered: int
    ok: int
    elapsed_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answered / self.elapsed_s


def http_scenario(targets: Sequence[str], rate_per_s: float, seconds: float, connections: int) -> Scenario:
    """Unique POSTs of payments at a regular rate; each has its own id, parties and amount in a JSON body."""
    return Scenario.from_data(
        {
            "name": "generate", "duration": f"{round(seconds * 1e9)}ns",
            "load": {"rate": f"{rate_per_s:.3f}/s", "arrivals": "regular", "accounts": 100_000, "mix": {"payment": 1}},
            "backend": {"http": {"targets": list(targets), "connections": connections}},
            "dispatcher": {"patience": f"{_PATIENCE_S}s", "drain": f"{_DRAIN_S}s"},
        }
    )  # fmt: skip


def noop_scenario(rate_per_s: float, seconds: float) -> Scenario:
    """The same transactions, released into nothing."""
    return Scenario.from_data(
        {
            "name": "generate", "duration": f"{round(seconds * 1e9)}ns",
            "load": {"rate": f"{rate_per_s:.3f}/s", "arrivals": "regular", "accounts": 100_000, "mix": {"payment": 1}},
            "backend": {"noop": {}},
            "dispatcher": {"patience": f"{_PATIENCE_S}s", "drain": f"{_DRAIN_S}s"},
        }
    )  # fmt: skip


def open_loop(scenario: Scenario) -> OpenLoop:
    """Releases the scenario's transactions at their times; its backend is HTTP on this machine, or noop.

    Raises:
        BackendError: a target cannot be reached, or the process that generates ended early.
    """
    duration_s = (scenario.duration_ns or 0) / 1e9
    seconds = int(np.ceil(duration_s + _PATIENCE_S + _DRAIN_S)) + 2
    epoch = shared_array(1, np.int64)
    clock = WallClock(epoch)
    backend: Backend = _http(scenario, clock) if scenario.backend.http is not None else NoopBackend()
    tallies = open_tallies(seconds_grid(seconds), backend.nodes, len(backend.owners()))
    stop = shared_array(1, np.int64)

    def make(write: Any) -> tuple[Recorder, WallEngine]:  # noqa: ANN401  a callable; see MakeEngine
        recorder = Recorder(seconds, backend.nodes)
        dispatcher = Dispatcher(
            backend, scenario.balancer, scenario.seed, tallies, recorder, in_flight=scenario.dispatcher.in_flight,
            patience_ns=scenario.dispatcher.patience, write=write,
            when_full=WhenFull.WAIT if scenario.backend.http is not None else WhenFull.HOLD,
        )  # fmt: skip
        return recorder, WallEngine(dispatcher, build_source(scenario), clock, stop, drain_ns=scenario.dispatcher.drain)

    rows = round(build_rate(scenario).total) + 1
    with tempfile.TemporaryDirectory(prefix="sim-generate-") as folder:
        here, there = Pipe()
        engine = process.start("engine", drive, there, make, Path(folder) / "history.bin", rows * HISTORY.itemsize)
        there.close()
        try:
            _received(here, _GRACE_S)
            clock.start(_START_NS)
            here.send("go")
            ended = _received(here, duration_s + _PATIENCE_S + _DRAIN_S + _GRACE_S)
            engine.join(_GRACE_S)
        finally:
            process.kill(engine)
            here.close()
    return read_off(tallies, scenario, ended.cpu_s)


def read_off(tallies: Tallies, scenario: Scenario, cpu_s: float) -> OpenLoop:
    """What a finished engine's tallies say."""
    duration_s = (scenario.duration_ns or 0) / 1e9
    by_status = tallies.by_kind.sum(axis=0)
    offered = int(by_status[Status.PENDING])
    return OpenLoop(
        asked_per_s=offered / duration_s if duration_s else 0.0,
        offered=offered,
        sent=offered - int(by_status[Status.DROPPED]),
        ok=int(by_status[Status.OK]),
        elapsed_s=max(int(tallies.settled_ns[0]) / 1e9, duration_s),
        cpu_s=cpu_s,
        response_ms=_percentiles_ms(Histogram(tallies.totals[RESPONSE])),
        lag_ms=_percentiles_ms(Histogram(tallies.totals[LAG])),
    )


def closed_loop(scenario: Scenario, seconds: float) -> ClosedLoop:
    """Keeps every connection of an HTTP scenario busy for so long. Raises BackendError as `open_loop`."""
    clock = WallClock(shared_array(1, np.int64))
    clock.start(0)
    backend = _http(scenario, clock)
    here, there = Pipe()
    child = process.start("generator", _keep_busy, there, backend, len(backend.targets), scenario, seconds)
    there.close()
    try:
        found: ClosedLoop = _received(here, seconds + _GRACE_S)
        child.join(_GRACE_S)
    finally:
        process.kill(child)
        here.close()
    return found


def _keep_busy(connection: Connection, backend: HttpBackend, nodes: int, scenario: Scenario, seconds: float) -> None:
    http = scenario.backend.http
    connections = (http.connections if http is not None else nodes) // nodes
    try:
        backend.open()
    except SimError as error:
        connection.send(error)
        return
    made = np.zeros(1 << 14, TRANSACTION)
    made["id"] = np.arange(1, len(made) + 1)
    made["payer"], made["payee"] = np.arange(len(made)), np.arange(len(made))[::-1]
    made["amount_minor"], made["kind"] = 100 + made["id"] % 10_000, int(Kind.PAYMENT)
    outcomes = np.zeros(4_096, OUTCOME)
    places, idle, answered, ok = [0] * nodes, [connections] * nodes, 0, 0
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds
    while time.perf_counter() < end:
        for node in range(nodes):
            place = places[node]
            wanted = made[place : place + idle[node]]
            wanted["slot"] = node
            taken = backend.offer(node, wanted)
            idle[node] -= taken
            places[node] = (place + taken) % len(made)
        backend.wait(0.05)
        while count := backend.poll(outcomes):
            answered += count
            ok += int((outcomes["status"][:count] == int(Status.OK)).sum())
            for node, freed in enumerate(np.bincount(outcomes["slot"][:count], minlength=nodes).tolist()):
                idle[node] += freed
    took, used = time.perf_counter() - began, time.process_time() - cpu
    backend.close()
    connection.send(ClosedLoop(connections * nodes, answered, ok, took, used))
    connection.close()


def _http(scenario: Scenario, clock: WallClock) -> HttpBackend:
    http = scenario.backend.http
    if http is None:
        raise ValueError("this scenario has no HTTP backend")
    check_descriptors(http)
    return build_http(
        http, currency=scenario.currency, run=f"{os.getpid():x}-{time.time_ns():x}", allowed=(), environ={}, now_ns=clock.now_ns,
    )  # fmt: skip


def _received(connection: Connection, timeout_s: float) -> Any:  # noqa: ANN401  what the child sends
    if not connection.poll(timeout_s):
        raise BackendError(f"the process that generates said nothing for {timeout_s:.0f} s")
    try:
        received = connection.recv()
    except EOFError:
        raise BackendError("the process that generates the load ended early") from None
    if isinstance(received, SimError):
        raise received
    return received


def _percentiles_ms(histogram: Histogram) -> dict[str, float | None]:
    values = {name: histogram.percentile_ns(p) for name, p in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9))}
    values["max"] = histogram.max_ns
    return {name: None if ns is None else round(ns / 1e6, 6) for name, ns in values.items()}
