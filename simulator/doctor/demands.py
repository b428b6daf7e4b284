"""What a scenario asks of the machine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.backend.http.build import descriptors_needed
from simulator.scenario import virtual_plan
from simulator.scenario.plan import plan

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario


@dataclass(frozen=True)
class Demands:
    """The figures that are held against the machine's.

    Attributes:
        backend: `http`, `noop`, `virtual`, the durability of the embedded platform, or a plug-in's name.
        peak_per_s: the highest rate.
        transactions: all of them, expected.
        processes: that generate, or simulate.
        connections: over HTTP, 0 otherwise; to so many
        targets: of them, and
        by_port: whether these take local ports (a Unix socket takes none).
        keep_alive: whether connections are used again.
        descriptors: open files that one generator needs.
        memory_bytes: by the plan's estimate, as
        disk_bytes: is.
        lag_limit_ms: beyond which the run is not valid.
    """

    backend: str
    peak_per_s: float
    transactions: float
    processes: int
    connections: int
    targets: int
    by_port: bool
    keep_alive: bool
    descriptors: int
    memory_bytes: int
    disk_bytes: int
    lag_limit_ms: float


def demands_of(scenario: Scenario) -> Demands:
    """Works it out; nothing is resolved or connected to. Raises ScenarioError as `plan`."""
    planned = plan(scenario)
    http = scenario.backend.http if scenario.clock != "virtual" else None
    processes = 1 if http is None else http.generators
    connections = 0 if http is None else http.connections
    return Demands(
        backend=_backend(scenario),
        peak_per_s=planned.peak_per_s,
        transactions=planned.transactions_expected,
        processes=virtual_plan.processes(scenario) if scenario.clock == "virtual" else processes,
        connections=connections,
        targets=1 if http is None else len(http.targets),
        by_port=http is not None and not all(url.startswith("http://unix:") for url in http.targets),
        keep_alive=http is None or http.keep_alive,
        descriptors=0 if http is None else descriptors_needed(http),
        memory_bytes=planned.memory_bytes,
        disk_bytes=planned.disk_bytes,
        lag_limit_ms=scenario.dispatcher.lag_limit / 1e6,
    )


def _backend(scenario: Scenario) -> str:
    if scenario.clock == "virtual":
        return "virtual"
    embedded = scenario.backend.embedded
    if embedded is None:
        return scenario.backend.name
    return embedded.durability if isinstance(embedded.durability, str) else "interval"
