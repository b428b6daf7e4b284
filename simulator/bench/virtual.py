"""`sim bench virtual`: how many transactions a second the virtual clock simulates on one core, beside SimPy and Ciw.

Every figure includes making the transactions and recording what became of them. Time is that of the process, not of the clock on
the wall, so a busy machine blurs it less. SimPy (event-driven, generators) and Ciw (queueing networks) run the same M/M/1 in
the same minute; where one is not installed its ratio is left out. They come with the `dev` extra.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.arrivals.build import build_rate
from simulator.arrivals.process import Poisson
from simulator.engine.virtual.model import compile_scenario
from simulator.engine.virtual.simulation import BLOCK, Simulation
from simulator.engine.virtual.stations import Customers
from simulator.engine.virtual.tally import Count
from simulator.report.export import environment
from simulator.scenario.model import Scenario
from simulator.transaction import TRANSACTION
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from simulator.engine.wall import Source

SCHEMA = 1
_RHO = 0.9
_RHO_FULL = 0.7
_RATE_PER_S = 1_000_000
NODES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    transactions: int = 10_000_000  # so many that what a run costs once does not count
    customers: int = 50_000  # that the baselines serve
    rounds: int = 3

    def steps(self) -> int:
        """How many steps `measure` will tell of."""
        return self.rounds * (2 + len(NODES) + 1) + 2


def settings(*, quick: bool = False, rounds: int | None = None) -> Settings:
    """What to measure; `quick` is a look, not a measurement."""
    asked = Settings(200_000, 5_000, 1) if quick else Settings()
    return Settings(asked.transactions, asked.customers, asked.rounds if rounds is None else rounds)


@dataclass(frozen=True)
class Figure:
    """One cell: transactions a second of one core, the median of all rounds.

    Attributes:
        name: what was run.
        per_s: the median.
        rounds_per_s: each round's.
        share_generating: of the time, spent on making the transactions.
        events_per_transaction: of the engine.
        baselines: name → how many times as fast as it.
    """

    name: str
    per_s: float
    rounds_per_s: tuple[float, ...]
    share_generating: float
    events_per_transaction: float
    baselines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All figures, and the cost of a transaction over that at 10 nodes."""

    figures: tuple[Figure, ...]
    cost_by_nodes: Mapping[int, float]
    baselines_per_s: Mapping[str, float]
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "schema": SCHEMA,
            "figures": [
                {
                    "name": figure.name, "per_s": figure.per_s, "rounds_per_s": list(figure.rounds_per_s),
                    "share_generating": figure.share_generating,
                    "events_per_transaction": figure.events_per_transaction, "times_baseline": dict(figure.baselines),
                }
                for figure in self.figures
            ],
            "cost_by_nodes": {str(nodes): cost for nodes, cost in self.cost_by_nodes.items()},
            "baselines_per_s": dict(self.baselines_per_s),
            "machine": dict(self.machine),
        }  # fmt: skip


def fleet(nodes: int, transactions: int, *, full: bool = False) -> Scenario:
    """P2C over so many nodes at ρ 0.9; `full`: at 0.7, with a second stage, time-outs, and retries with a budget."""
    # With retries at 0.9 the budget's fifth more would not fit any more: what is to be measured is no collapse.
    service_ns = round(nodes * (_RHO_FULL if full else _RHO) / _RATE_PER_S * 1e9)
    service = f"{service_ns}ns"
    platform: dict[str, Any] = {"nodes": nodes, "service": {"mean": service}, "shards": {"count": 256}}
    data: dict[str, Any] = {
        "name": "bench", "clock": "virtual", "duration": f"{round(transactions / _RATE_PER_S * 1e9)}ns",
        "load": {"rate": f"{_RATE_PER_S}/s", "mix": {"payment": 1}}, "platform": platform,
    }  # fmt: skip
    if full:
        platform["network"] = {"client": "200us", "shard": "50us"}
        platform["shards"]["service"] = {"mean": f"{round(256 * 0.5 / _RATE_PER_S * 1e9)}ns"}
        # A time-out that about one customer in a hundred meets: retries are part of what is measured, and no collapse, in which
        # the retries' load makes more of them (three in ten time out once 10 million have come, with half a millisecond less).
        data["client"] = {"timeout": f"{6 * service_ns + 1_500_000}ns", "retries": {"budget": {}}}
    return Scenario.from_data(data)


def queue(customers: int) -> Scenario:
    """M/M/1 at ρ 0.9."""
    return Scenario.from_data(
        {
            "name": "mm1", "clock": "virtual", "duration": f"{customers}ms", "load": {"rate": "1000/s", "mix": {"payment": 1}},
            "platform": {"nodes": 1, "service": {"mean": "900us"}, "shards": {"count": 1}},
        }
    )  # fmt: skip


def run(scenario: Scenario, *, bare: bool = False) -> tuple[float, float, float]:
    """Simulates it; returns transactions a second of process time, the share of making them, events a transaction.

    With `bare` they are customers without accounts and amounts, as SimPy's and Ciw's are.
    """
    block = np.zeros(BLOCK, TRANSACTION)
    duration_ns = scenario.duration_ns or 0
    edges = np.arange(0, duration_ns + 200_000_000, max(100_000_000, duration_ns // 100), dtype=np.int64)
    rate = build_rate(scenario)
    simulation = Simulation(compile_scenario(scenario), np.append(edges, 2**61), arrivals_per_s=rate.peak()[0])
    customers = Customers(Poisson(rate, scenario.seed), (1.0,), scenario.seed, int(2 * rate.total) + 1_000)
    source: Source = customers if bare else build_source(scenario, payees=False)
    began = time.process_time()
    making = 0.0
    total = 0
    while True:
        before = time.process_time()
        count = source.fill(block)
        making += time.process_time() - before
        if not count:
            break
        simulation.step(block[:count])
        total += count
    results = simulation.finish()
    took = time.process_time() - began
    return total / took, making / took, results.count(Count.EVENTS) / total


def with_simpy(customers: int) -> float:
    """Customers a second of SimPy on M/M/1."""
    simpy = import_module("simpy")
    draw = random.Random(1)  # noqa: S311  a baseline, in its users' own way
    environment = simpy.Environment()
    server = simpy.Resource(environment, capacity=1)
    waits: list[float] = []

    def customer() -> Any:  # noqa: ANN401  a generator of SimPy's events
        came = environment.now
        with server.request() as granted:
            yield granted
            waits.append(environment.now - came)
            yield environment.timeout(draw.expovariate(1.0))

    def source() -> Any:  # noqa: ANN401  as above
        for _ in range(customers):
            environment.process(customer())
            yield environment.timeout(draw.expovariate(_RHO))

    environment.process(source())
    began = time.process_time()
    environment.run()
    return len(waits) / (time.process_time() - began)


def with_ciw(customers: int) -> float:
    """Customers a second of Ciw on M/M/1."""
    ciw = import_module("ciw")
    ciw.seed(1)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(_RHO)],
        service_distributions=[ciw.dists.Exponential(1.0)],
        number_of_servers=[1],
    )
    simulation = ciw.Simulation(network)
    began = time.process_time()
    simulation.simulate_until_max_time(customers / _RHO)
    took = time.process_time() - began
    return len(simulation.get_all_records()) / took


BASELINES: Mapping[str, Callable[[int], float]] = {"simpy": with_simpy, "ciw": with_ciw}


def measure(asked: Settings, step: Callable[[str], None], folder: Path) -> Results:
    """Measures everything; `step` is told of each step as it begins."""
    step("compiling")
    warm = Settings(20_000, 1_000, 1)
    run(fleet(10, warm.transactions))
    run(fleet(10, warm.transactions, full=True))
    baselines: dict[str, float] = {}
    for name, baseline in BASELINES.items():
        step(f"{name} on M/M/1")
        try:
            version(name)
        except PackageNotFoundError:
            continue
        baselines[name] = median(baseline(asked.customers) for _ in range(asked.rounds))
    cells: dict[str, Callable[[], tuple[float, float, float]]] = {
        "M/M/1": lambda: run(queue(asked.transactions), bare=True),
        "two choices, 100 nodes": lambda: run(fleet(100, asked.transactions)),
        "full model, 100 nodes": lambda: run(fleet(100, asked.transactions, full=True)),
    }
    for nodes in NODES:
        cells.setdefault(f"two choices, {nodes} nodes", lambda nodes=nodes: run(fleet(nodes, asked.transactions)))  # type: ignore[misc] # a default argument of a lambda
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cells}
    # Round by round, so that what disturbs the machine for a while disturbs all of them.
    for _ in range(asked.rounds):
        for name, cell in cells.items():
            step(name)
            rounds[name].append(cell())
    figures = tuple(_figure(name, found, baselines if name == "M/M/1" else {}) for name, found in rounds.items())
    per_s = {figure.name: figure.per_s for figure in figures}
    least = per_s[f"two choices, {NODES[0]} nodes"]
    return Results(
        figures=figures,
        cost_by_nodes={nodes: least / per_s[f"two choices, {nodes} nodes"] for nodes in NODES},
        baselines_per_s=baselines,
        machine=environment(folder),
    )


def _figure(name: str, found: list[tuple[float, float, float]], baselines: Mapping[str, float]) -> Figure:
    per_s = median(speed for speed, _, _ in found)
    return Figure(
        name, per_s, tuple(speed for speed, _, _ in found), median(share for _, share, _ in found),
        median(events for _, _, events in found), {other: per_s / speed for other, speed in baselines.items()},
    )  # fmt: skip


def render(results: Results) -> str:
    """The figures as plain text."""
    lines = [f"{'one core':<28}{'M/s':>8}{'making':>9}{'events':>8}   beside it"]
    for figure in results.figures:
        beside = ", ".join(f"{times:,.0f} × {name}" for name, times in figure.baselines.items())
        lines.append(
            f"{figure.name:<28}{figure.per_s / 1e6:>8.2f}{figure.share_generating:>8.0%} "
            f"{figure.events_per_transaction:>7.2f}   {beside}"
        )
    costs = ", ".join(f"{nodes:,}: {cost:.2f}" for nodes, cost in results.cost_by_nodes.items())
    lines.append(f"cost of a transaction by nodes, over that of {NODES[0]}: {costs}")
    if not results.baselines_per_s:
        lines.append("neither SimPy nor Ciw is installed; pip install '.[dev]' for the ratios")
    return "\n".join(lines)
