"""The highest rates that this machine reaches, each measured for a second or less: a look, made of the benchmarks' own parts.

The platform and the sink share the cores with the generator, as they do in a run on one machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.bench import virtual
from simulator.bench.generate import closed_loop, http_scenario, noop_scenario, open_loop
from simulator.bench.interruption import Interruption
from simulator.bench.premade import AS_THEY_COME, premake
from simulator.bench.rig import OPENING_MINOR, Rig, Workplace, disk_cap_bytes
from simulator.bench.saturation import saturate
from simulator.bench.sink import Sink
from simulator.doctor.figures import Ceilings
from simulator.shard.layout import Durability, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONNECTIONS = 64
_NOOP_PER_S = 4_000_000  # more than an engine releases, so that it is late and shows how fast it is


@dataclass(frozen=True)
class Effort:
    """How long each part is measured."""

    http_s: float = 0.8
    http_tries: int = 5
    embedded_s: float = 0.6
    noop_s: float = 0.3
    virtual_transactions: int = 400_000
    timer_s: float = 1.0
    disk_s: float = 0.7


_WARM_TRANSACTIONS = 20_000
QUICK = Effort(0.2, 2, 0.15, 0.05, 50_000, 0.15, 0.1)
STEPS = 4


def warm_the_simulated() -> None:
    """Compiles or loads what the virtual clock needs: its speed is that of kernels that are there."""
    for full in (False, True):
        virtual.run(virtual.fleet(10, _WARM_TRANSACTIONS, full=full))


def measure_ceilings(effort: Effort, folder: Path, step: Callable[[str], None]) -> Ceilings:
    """Measures all of them; `step` is told of each. Journals go to a temporary folder below `folder`."""
    step("HTTP against a sink on loopback")
    open_per_s, closed_per_s, cpu_us = _http(effort)
    step("the engine alone")
    noop = _noop(effort)
    step("the embedded platform")
    memory, group = _embedded(effort, folder)
    step("the virtual clock")
    simple, _, _ = virtual.run(virtual.fleet(100, effort.virtual_transactions))
    full, _, _ = virtual.run(virtual.fleet(100, effort.virtual_transactions, full=True))
    return Ceilings(
        http_open_per_s=open_per_s, http_closed_per_s=closed_per_s, http_connections=CONNECTIONS, http_cpu_us=cpu_us,
        noop_per_s=noop, embedded_memory_per_s=memory, embedded_group_per_s=group,
        virtual_simple_per_s=round(simple), virtual_full_per_s=round(full),
    )  # fmt: skip


def rates_to_try(closed_per_s: float, tries: int) -> Iterator[float]:
    """Rates below a closed loop's ceiling, from the highest on: nine tenths of it, then each three quarters of the one before."""
    rate = 0.9 * closed_per_s
    for _ in range(tries):
        yield rate
        rate *= 0.75


def _http(effort: Effort) -> tuple[float | None, float | None, float | None]:
    with Sink() as sink:
        closed = closed_loop(http_scenario([sink.url], 1.0, 1.0, CONNECTIONS), effort.http_s)
        for rate in rates_to_try(closed.per_s, effort.http_tries):
            found = open_loop(http_scenario([sink.url], rate, effort.http_s, CONNECTIONS))
            if found.held():
                cpu_us = found.cpu_us_per_request
                return round(found.asked_per_s), round(closed.per_s), None if cpu_us is None else round(cpu_us, 2)
    return None, round(closed.per_s), None


def _noop(effort: Effort) -> float | None:
    return round(open_loop(noop_scenario(_NOOP_PER_S, effort.noop_s)).achieved_per_s)


def _embedded(effort: Effort, folder: Path) -> tuple[float, float]:
    shape = Shape(2, 16, 1_000_000, 10_000, OPENING_MINOR, 1 << 17)
    premade = premake(shape, AS_THEY_COME, 1 << 18)
    found = []
    with Interruption() as interruption, Workplace(folder) as place:
        for durability in (Durability.MEMORY, Durability.GROUP):
            with Rig(shape, durability, place) as rig:
                load = saturate(
                    rig, premade.by_node(shape), interruption, warm_up_s=effort.embedded_s / 3,
                    seconds=effort.embedded_s, disk_bytes=disk_cap_bytes(place),
                )  # fmt: skip
            found.append(float(round(load.ok / load.measured_s)))
    return found[0], found[1]
