"""What a run on the virtual clock has to tell beyond any run: its platform and stations, what clients did, what struck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.engine.virtual.simulation import Engine
from simulator.engine.virtual.tally import Count, Station, coarse_middles_ns
from simulator.measure import grid
from simulator.report.events import health_events
from simulator.report.times import PERCENTILES
from simulator.scenario.capacity import bottleneck, capacities

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from simulator.engine.units import Whole
    from simulator.engine.virtual.tally import Virtual
    from simulator.fault.schedule import Schedule, Strike
    from simulator.measure.recorder import Measured, Tallies
    from simulator.scenario.fleet import Platform
    from simulator.scenario.model import Scenario


# What a client did, by its name in summary.json.
_CLIENT = {
    "attempts": Count.ATTEMPTS,
    "retries": Count.RETRIES,
    "hedges": Count.HEDGES,
    "timeouts": Count.TIMEOUTS,
    "deadlines": Count.DEADLINES,
    "retries_over_budget": Count.RETRY_BUDGET_EMPTY,
    "hedges_over_budget": Count.HEDGE_BUDGET_EMPTY,
    "given_up_for_room": Count.NO_ROOM,
    "late_answers": Count.LATE_ANSWERS,
    "queue_full": Count.QUEUE_FULL,
    "over_concurrency": Count.CONCURRENCY,
    "not_admitted": Count.ADMISSION,
    "no_node": Count.NO_NODE,
    "node_down": Count.NODE_DOWN,
    "connection_reset": Count.RESET,
    "begun_for_nobody": Count.WASTED,
    "cancelled": Count.CANCELLED,
    "answered_alike": Count.REPEATED,
    "unknown_but_applied": Count.UNKNOWN_APPLIED,
    "mail_lost": Count.MAIL_LOST,
}
_CALLS = {
    "calls": Count.CALLS,
    "over_limit": Count.CALL_LIMIT,
    "errors": Count.CALL_ERRORS,
    "hung": Count.CALLS_HUNG,
}


def sections(
    scenario: Scenario, whole: Whole, tallies: Tallies, released_s: float, *, took_s: float, processes: int
) -> dict[str, Any]:
    """The keys of summary.json that only a simulated run has."""
    platform = scenario.fleet
    sent = int(tallies.sent.sum())
    attempts = whole.count(Count.ATTEMPTS)
    busy_ns = int(whole.virtual.node_busy_ns.sum())
    client: dict[str, Any] = {name: whole.count(which) for name, which in _CLIENT.items()}
    client["amplification"] = round(attempts / sent, 6) if sent else None
    client["begun_for_nobody_share"] = round(whole.count(Count.WASTED_NS) / busy_ns, 6) if busy_ns else None
    told: dict[str, Any] = {
        "simulated": {
            "seconds": round(whole.ended_ns / 1e9, 6),
            "transactions": sent,
            "events": whole.count(Count.EVENTS),
            "took_s": round(took_s, 3),
            "transactions_per_real_s": round(sent / took_s, 1) if took_s else None,
            "faster_than_real": round(whole.ended_ns / 1e9 / took_s, 3) if took_s else None,
            "processes": processes,
            "engine": whole.engine.value,
            "fast_path": whole.engine is not Engine.GENERAL,
        },
        "platform": _platform(scenario),
        "over_capacity": over_capacity(platform, tallies, released_s),
        "client": client,
        "stations": _stations(platform, whole),
    }
    if platform.dependency is not None:
        told["dependency"] = {name: whole.count(which) for name, which in _CALLS.items()}
    return told


def _platform(scenario: Scenario) -> dict[str, Any]:
    platform = scenario.fleet
    least = bottleneck(platform)
    return {
        "given": scenario.platform is not None,
        "units": platform.units,
        "nodes": platform.nodes,
        "workers": platform.workers,
        "shards": platform.shards.count,
        "capacity_per_s": None if least is None or least.per_s is None else round(least.per_s, 3),
        "bottleneck": None if least is None else least.name,
        "stages": [
            {
                "stage": stage.name,
                "capacity_per_s": None if stage.per_s is None else round(stage.per_s, 3),
                "what": stage.what,
            }
            for stage in capacities(platform)
        ],
    }


def over_capacity(platform: Platform, tallies: Tallies, released_s: float) -> dict[str, Any] | None:
    """When more was offered than the platform can take: by how much in the worst second, and for how long; None: never.

    No error: an unstable system is what a scenario may ask for. Full seconds alone count, so that chance in a few
    milliseconds is no overload.
    """
    least = bottleneck(platform)
    if least is None or least.per_s is None:
        return None
    whole = grid.windows_until(tallies.grid_ns, int(released_s * grid.NS_PER_S))
    rates, lengths = grid.rates_and_lengths(tallies.grid_ns, tallies.offered, whole)
    over = rates > least.per_s
    if not over.any():
        return None
    worst = float(rates.max())
    return {
        "stage": least.name,
        "capacity_per_s": round(least.per_s, 3),
        "offered_per_s": round(worst, 3),
        "excess": round(worst / least.per_s - 1, 6),
        "seconds": round(float(lengths[over].sum()), 3),
    }


def _stations(platform: Platform, whole: Whole) -> list[dict[str, Any]]:
    """Each station's figures, and Little's law: the mean number there is rate × mean time, from sums that were kept apart."""
    span_s = max(whole.ended_ns, 1) / 1e9
    per_s = {stage.name: stage for stage in capacities(platform)}
    rows = []
    for station, (arrived, left, spent, area, _, _) in zip(Station, whole.virtual.little.tolist(), strict=True):
        name = station.name.lower()
        if not arrived:
            continue
        number, mean_s, rate = area / 1e9 / span_s, spent / 1e9 / left if left else 0.0, arrived / span_s
        row: dict[str, Any] = {
            "station": name,
            "arrivals": arrived,
            "arrivals_per_s": round(rate, 3),
            "mean_time_ms": round(mean_s * 1e3, 6),
            "mean_number": round(number, 6),
            "little_number": round(rate * mean_s, 6),
            "utilisation": None,
            "mean_queue": None,
        }
        if name == "nodes":
            workers = platform.nodes * platform.workers
            row["utilisation"] = round(int(whole.virtual.node_busy_ns.sum()) / 1e9 / span_s / workers, 6)
            row["mean_queue"] = round(int(whole.virtual.node_queue_ns.sum()) / 1e9 / span_s, 6)
        elif name == "shards" and platform.shards.commit is not None:
            pass  # how busy they are depends on how large the commits were, which is not recorded
        elif name in per_s and per_s[name].per_s:
            # By the utilisation law, from the mean service time: what serves is not watched there.
            used = rate / (platform.dependency.share if name == "dependency" and platform.dependency else 1.0)
            row["utilisation"] = round(min(used / (per_s[name].per_s or 1.0), 1.0), 6)
        rows.append(row)
    return rows


def node_times(virtual: Virtual, measured: Measured) -> list[dict[str, float | None]] | None:
    """Response times of each node (ms) where histograms are not kept by node and window; None: they are.

    From histograms of 32 buckets an octave: within about 3 %.
    """
    nodes = virtual.node_times.shape[0]
    if measured.response.nodes == nodes:
        return None
    middles = coarse_middles_ns()
    return [_coarse(counts, middles) for counts in virtual.node_times]


def _coarse(counts: NDArray[np.uint32], middles: NDArray[np.float64]) -> dict[str, float | None]:
    sums = np.cumsum(counts, dtype=np.int64)
    total = int(sums[-1])
    if not total:
        return dict.fromkeys(("mean", *(name for name, _ in PERCENTILES), "max"))

    def ms(ns: Any) -> float:  # noqa: ANN401  a scalar of NumPy's
        return round(float(ns) / 1e6, 6)

    found = {name: ms(middles[np.searchsorted(sums, max(1, int(p / 100 * total + 0.5)))]) for name, p in PERCENTILES}
    return {"mean": ms(counts @ middles / total), **found, "max": ms(middles[np.flatnonzero(counts)[-1]])}


def events_of(
    scenario: Scenario,
    schedule: Schedule,
    health: Sequence[tuple[int, int, int, int, int]],
    interrupted_s: float | None,
) -> list[dict[str, Any]]:
    """What goes to events.jsonl: faults as they begin and end, and what the balancers thought of their nodes.

    Balancers that say the same of a node in the same second make one event, with their number.
    """
    end_s = interrupted_s if interrupted_s is not None else float("inf")
    found: list[dict[str, Any]] = [{"t_s": 0.0, "event": "started", "clock": scenario.clock}]
    for strike in schedule.strikes:
        found += [event for event in _fault_events(strike) if event["t_s"] <= end_s]
    found += health_events((time_ns, node, what) for time_ns, _, _, node, what in health)
    if interrupted_s is not None:
        found.append({"t_s": round(interrupted_s, 6), "event": "interrupted"})
    return found


def _fault_events(strike: Strike) -> Iterable[dict[str, Any]]:
    what: dict[str, Any] = {"fault": strike.fault.value}
    if strike.unit is not None:
        what["unit"] = strike.unit
    elif len(strike.nodes) == 1:
        what["node"] = strike.nodes[0]
    elif strike.nodes:
        what["nodes"] = len(strike.nodes)
    yield {"t_s": round(strike.at_ns / 1e9, 6), "event": "fault", **what}
    if strike.until_ns is not None:
        yield {"t_s": round(strike.until_ns / 1e9, 6), "event": "fault_over", **what}
