"""The local fleet of a run over HTTP: gateways, the balancer program before them, and the faults that strike them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.balancer.behaviour import spread
from simulator.balancer.sickness import sickness
from simulator.fault.schedule import Fault, Schedule
from simulator.gateway.fleet import Fleet
from simulator.gateway.proxy import ProxyProcess
from simulator.gateway.server import Listen
from simulator.measure.answerers import WINDOW_NS
from simulator.measure.histogram import Histogram
from simulator.report.times import times_ms

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from simulator.measure.answerers import Answerers
    from simulator.scenario.gateway_fleet import GatewayFleet
    from simulator.scenario.model import Scenario
    from simulator.shard.pool import Pool

_DOWN_NS = 1_000_000_000  # how long a killed gateway is down where the fault does not say


class Spell(NamedTuple):
    """A time in which a gateway was sick."""

    fault: str
    gateway: int
    from_ns: int
    until_ns: int


class LocalFleet:
    """Gateways in front of `pool`, which has as many doors. `folder` is the run's."""

    def __init__(self, scenario: Scenario, fleet: GatewayFleet, pool: Pool, folder: Path, duration_ns: int) -> None:
        names = [f"gateway-{number}" for number in range(fleet.nodes)]
        here = Listen("127.0.0.1", 0)
        self._fleet = Fleet(pool, names, [here] * fleet.nodes, currency=scenario.currency, in_flight=fleet.in_flight)
        self.proxy: ProxyProcess | None = None
        if fleet.proxy is not None:
            connections = scenario.backend.http.connections if scenario.backend.http is not None else 0
            place = folder / fleet.proxy.program
            place.mkdir()
            self.proxy = ProxyProcess(fleet.proxy, self._fleet.places, place, connections)
        struck = [fault for fault in scenario.faults if fault.strikes_gateway]
        self._schedule = Schedule(struck, fleet.nodes, duration_ns, scenario.seed, _DOWN_NS)
        self._slowed: list[tuple[int, int]] = []  # (until_ns, gateway)
        self._down: dict[int, int] = {}  # when a killed one was struck
        self.spells: list[Spell] = []
        self._failed = False

    @property
    def names(self) -> list[str]:
        """What the gateways call themselves."""
        return self._fleet.names

    @property
    def targets(self) -> list[str]:
        """What the run sends to: the program before them, or else the gateways."""
        return [self.proxy.url] if self.proxy is not None else self._fleet.urls

    @property
    def pids(self) -> list[int]:
        """Every process of it."""
        return [*self._fleet.pids, *(self.proxy.pids if self.proxy is not None else [])]

    @property
    def unsettled(self) -> bool:
        """Whether a killed gateway is not back yet."""
        return self._fleet.unsettled

    def next_ns(self) -> int | None:
        """When a fault is due or over; None: never."""
        moments = [until for until, _ in self._slowed]
        if self._schedule.next_ns is not None:
            moments.append(self._schedule.next_ns)
        return min(moments, default=None)

    def start(self) -> None:
        """Starts the gateways, then the program before them. Raises BackendError."""
        self._fleet.start()
        if self.proxy is not None:
            self.proxy.start()

    def act(self, now_ns: int) -> list[dict[str, Any]]:
        """Does what is due and looks after who ended; returns an event for each thing that happened."""
        events = []
        for strike in self._schedule.due(now_ns):
            (gateway,) = strike.nodes
            until = strike.until_ns if strike.until_ns is not None else now_ns
            # Told as of before it strikes: what clients see of it must not seem to come first.
            about: dict[str, Any] = {
                "t_s": round(now_ns / 1e9, 6), "event": "fault", "fault": str(strike.fault), "gateway": gateway,
            }  # fmt: skip
            if strike.fault is Fault.SLOW:
                self._fleet.slow(gateway, strike.factor, strike.delay_ns)
                self._slowed.append((until, gateway))
                self.spells.append(Spell("slow", gateway, now_ns, until))
                about |= {"factor": strike.factor, "delay_s": strike.delay_ns / 1e9}
            else:
                about["pid"] = self._fleet.strike(gateway, max(until - now_ns, 0) / 1e9)
                self._down.setdefault(gateway, now_ns)
            events.append(about)
        for until, gateway in [entry for entry in self._slowed if entry[0] <= now_ns]:
            self._slowed.remove((until, gateway))
            if all(other != gateway for _, other in self._slowed):
                self._fleet.slow(gateway, 1.0, 0)
            events.append({"event": "fault_over", "fault": "slow", "gateway": gateway})
        for notice in self._fleet.supervise():
            events.append({"event": notice.event, "gateway": notice.gateway, **notice.details})
            if notice.event == "gateway_ready" and notice.gateway in self._down:
                self.spells.append(Spell("kill", notice.gateway, self._down.pop(notice.gateway), now_ns))
        return events

    def failures(self) -> list[str]:
        """What stopped and does not come back."""
        gone = self.proxy.failure if self.proxy is not None else None
        return [*self._fleet.failures(), *([gone] if gone is not None else [])]

    def stop(self) -> bool:
        """Ends the program, then lets the gateways answer what they have; False if one would not."""
        if self.proxy is not None:
            self.proxy.kill()
        for gateway in range(len(self.names)):
            self._fleet.slow(gateway, 1.0, 0)
        return self._fleet.stop()

    def kill(self) -> None:
        """Ends everything at once."""
        if self.proxy is not None:
            self.proxy.kill()
        self._fleet.kill()


def of_targets(events: list[dict[str, Any]], *, proxied: bool) -> list[dict[str, Any]]:
    """What happened to the gateways as targets, told of `node`s; behind a program they are not the run's to pick from."""
    mine = [] if proxied else [event for event in events if "gateway" in event]
    return [{**e, "node": e["gateway"], "event": e["event"].replace("gateway_", "node_")} for e in mine]


def answers_by_second(answerers: Answerers) -> NDArray[np.int64]:
    """Answers by second and name, int64 (seconds, names)."""
    fine, each = answerers.by_window, 1_000_000_000 // WINDOW_NS
    found: NDArray[np.int64] = fine.reshape(len(fine) // each, each, fine.shape[1]).sum(axis=1)
    return found


def answered_by(answerers: Answerers, spells: list[Spell], gateways: list[str]) -> dict[str, Any]:
    """Who answered, for summary.json: shares, evenness, and what became of a sick gateway's part.

    `gateways` are the names by number, of a fleet of our own; without one nobody knows who was sick when.
    """
    names = answerers.names
    by_window = answerers.by_window
    load = by_window.sum(axis=0)
    evenness = spread(load)
    nobody = answerers.nobody
    told: dict[str, Any] = {
        "nodes": [
            {
                "node": name,
                "answered": int(load[at]),
                "share": round(float(load[at] / max(load.sum(), 1)), 6),
                "service_time_ms": times_ms(Histogram(answerers.service_of(at))),
            }
            for at, name in enumerate(names)
        ],
        "nobody": int(nobody.sum()),
        "imbalance_max_over_mean": round(evenness.imbalance_max_over_mean, 6) if evenness else None,
        "jain": round(evenness.jain, 6) if evenness else None,
        "noise_floor": round(evenness.noise_floor, 6) if evenness else None,
        "faults": [],
    }
    for spell in spells:
        if gateways[spell.gateway] not in names:
            continue
        found = sickness(by_window, WINDOW_NS, names.index(gateways[spell.gateway]), spell.from_ns, spell.until_ns)
        within = nobody[spell.from_ns // WINDOW_NS : -(-spell.until_ns // WINDOW_NS)]
        told["faults"].append(
            {
                "fault": spell.fault,
                "node": gateways[spell.gateway],
                "at_s": round(spell.from_ns / 1e9, 3),
                "until_s": round(spell.until_ns / 1e9, 3),
                "share": None if found.share is None else round(found.share, 6),
                "detection_s": None if found.detection_s is None else round(found.detection_s, 3),
                "readmission_s": None if found.readmission_s is None else round(found.readmission_s, 3),
                "answered_by_nobody": int(within.sum()),
            }
        )
    return told
