"""Queues alone: arrivals, stations, a policy over servers, and what each customer met. For whoever checks the theory.

The same engine as a scenario's runs here, with a source of its own that draws no accounts and no amounts. So what agrees with
theory here is the code that simulates payments.

    observed = observe(Queue(rate_per_s=900.0, service=exponential(1e-3)), customers=1_000_000, warm_up=100_000, seed=1)
    observed.wait_s.mean()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simulator.arrivals.process import Mmpp, Poisson, Regular
from simulator.arrivals.rate import Rate
from simulator.balancer.policy import settings_of
from simulator.engine.virtual.model import compile_unit
from simulator.engine.virtual.simulation import BLOCK, Engine, LittleLaw, Simulation
from simulator.engine.virtual.tally import Count
from simulator.kernel import kernel
from simulator.scenario.client import Client
from simulator.scenario.fleet import Platform
from simulator.scenario.service import ServiceTime
from simulator.seeds import Stream, stream_key, uniform
from simulator.transaction import TRANSACTION, Kind, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from simulator.arrivals.process import Arrivals
    from simulator.balancer.fleet import Settings
    from simulator.engine.virtual.simulation import Results

_UNBOUNDED = 4_194_304
_KINDS = (Kind.PAYMENT, Kind.REFUND, Kind.AUTHORIZE, Kind.POST, Kind.VOID)


def _written(seconds: float) -> str:
    return f"{round(seconds * 1e9)}ns"


def exponential(mean_s: float) -> ServiceTime:
    """Exponential service times."""
    return ServiceTime.model_validate({"distribution": "exponential", "mean": _written(mean_s)})


def deterministic(mean_s: float) -> ServiceTime:
    """Always the same."""
    return ServiceTime.model_validate({"distribution": "deterministic", "mean": _written(mean_s)})


def gamma(mean_s: float, cv2: float) -> ServiceTime:
    """Gamma with this squared coefficient of variation; 1/k for an integer k is Erlang's of k stages."""
    return ServiceTime.model_validate({"distribution": "gamma", "mean": _written(mean_s), "shape": 1.0 / cv2})


def lognormal(mean_s: float, cv2: float) -> ServiceTime:
    """Lognormal with this squared coefficient of variation."""
    sigma = float(np.sqrt(np.log1p(cv2)))
    return ServiceTime.model_validate({"distribution": "lognormal", "mean": _written(mean_s), "sigma": sigma})


def pareto(mean_s: float, alpha: float) -> ServiceTime:
    """Pareto with this exponent of the tail."""
    return ServiceTime.model_validate({"distribution": "pareto", "mean": _written(mean_s), "alpha": alpha})


@dataclass(frozen=True)
class Queue:
    """One station, or `nodes` of them behind a balancer, and perhaps a second single server behind all of them.

    Attributes:
        rate_per_s: of arrivals, > 0; 0 < rate. A `Rate` for one that changes.
        service: of a server, see `exponential` and its like.
        arrivals: how they scatter about the rate.
        servers: of one node.
        nodes: how many nodes.
        room: how many may wait at a node; None: any number.
        discipline: of the nodes' queues. With priority, classes are served in their order.
        classes: shares of customers by class, at most five; class 0 is served first.
        then: of the second server; None: there is none.
        commit_s: the second server takes all that waits at once, in this time; 0: it does not. Instead of `then`.
        policy: the balancer's, by name, or its settings.
        balancers: independent ones.
        weights: of the nodes; None: all alike.
        travel_s: one way between client and node.
        client: time-outs, retries, hedges; None: none.
        mmpp: burst, share and period_s for bursty arrivals.
    """

    rate_per_s: float | Rate
    service: ServiceTime
    arrivals: Literal["poisson", "regular", "mmpp"] = "poisson"
    servers: int = 1
    nodes: int = 1
    room: int | None = None
    discipline: Literal["fcfs", "lifo", "priority"] = "fcfs"
    classes: tuple[float, ...] = (1.0,)
    then: ServiceTime | None = None
    commit_s: float = 0.0
    policy: str | Settings = "p2c"
    balancers: int = 1
    weights: tuple[float, ...] = ()
    travel_s: float = 0.0
    client: Client | None = None
    mmpp: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Observed:
    """What the customers behind the warm-up met, in order of arrival, shape (customers,).

    Attributes:
        arrived_s: when, float64; of those that were served.
        wait_s: in the queue of the node, float64; of those that were served.
        time_s: from arrival to answer, float64; of those that were served.
        node: that served them.
        served: whether they were.
        kind: class, 0 first.
        little: Little's law for each station over the whole run, warm-up included.
        counts: `tally.Count` of the whole run.
        events: how many events it took.
        records: what the engine recorded against what its trace says, by name; over the whole run.
    """

    arrived_s: NDArray[np.float64]
    wait_s: NDArray[np.float64]
    time_s: NDArray[np.float64]
    node: NDArray[np.int32]
    served: NDArray[np.bool_]
    kind: NDArray[np.int64]
    little: list[LittleLaw]
    counts: NDArray[np.int64]
    events: int
    records: dict[str, tuple[float, float]]

    @property
    def blocked(self) -> float:
        """The share of customers that found no room."""
        return float(1.0 - self.served.mean())


@kernel
def _classes(key: np.uint64, first: int, bounds: NDArray[np.float64], out: NDArray[np.int64]) -> None:
    for i in range(out.shape[0]):
        drawn = uniform(key, first + i)
        found = 0
        while found < bounds.shape[0] and drawn >= bounds[found]:
            found += 1
        out[i] = found


class Customers:
    """A source of transactions that are customers and nothing else: number, instant, class."""

    def __init__(self, arrivals: Arrivals, classes: tuple[float, ...], seed: int, customers: int) -> None:
        self._arrivals = arrivals
        self._bounds = np.cumsum(np.array(classes) / sum(classes))[:-1]
        self._key = stream_key(seed, Stream.KIND)
        self._left = customers
        self._made = 0

    def fill(self, batch: NDArray[Any]) -> int:
        """As `workload.source.Source.fill`."""
        room = batch[: min(self._left, len(batch))]
        times = np.empty(len(room), np.int64)
        count = self._arrivals.fill(times) if len(room) else 0
        made = room[:count]
        made.view(np.uint8)[:] = 0
        made["id"] = np.arange(self._made + 1, self._made + 1 + count, dtype=np.uint64)
        made["intended_ns"] = times[:count]
        made["kind"] = np.array(_KINDS, np.uint8)[self.classes_of(self._made, count)]
        made["payer"] = made["id"] & 0xFFFFFFFF
        made["amount_minor"] = 1
        self._made += count
        self._left -= count
        return count

    def classes_of(self, first: int, count: int) -> NDArray[np.int64]:
        """The classes of `count` customers from number `first` on."""
        if not len(self._bounds):
            return np.zeros(count, np.int64)
        found = np.empty(count, np.int64)
        _classes(self._key, first, self._bounds, found)
        return found


def records_of(results: Results) -> dict[str, tuple[float, float]]:
    """Histogram and tallies against the trace, which must agree exactly; buckets are made out anew here, by division."""
    trace, tallies = results.trace, results.tallies()
    ok = trace["status"] == Status.OK
    times = np.sort((trace["done_ns"] - trace["intended_ns"])[ok])
    held = {
        f"{status.name.lower()} counted": (
            float(tallies.answered[:, status].sum()), float(np.count_nonzero(trace["status"] == status))
        )
        for status in (Status.OK, Status.REJECTED, Status.UNKNOWN, Status.DROPPED)
    }  # fmt: skip
    recorded = results.measured.response.total()
    mean, p99 = recorded.mean_ns, recorded.percentile_ns(99)
    if len(times):
        # A bucket is 1/2,048 to 1/1,024 of its values wide.
        width = np.exp2(np.maximum(np.floor(np.log2(np.maximum(times, 1))) - 10, 0)).astype(np.int64)
        low = times // width * width
        at = max(1, int(0.99 * len(times) + 0.5)) - 1
        held["recorded mean"] = (mean or 0.0, float((low + width // 2).mean()))
        held["recorded p99"] = (float(p99 or 0), float(low[at] + width[at] - 1))
    return held


def observe(queue: Queue, *, customers: int, warm_up: int = 0, seed: int = 1, general: bool = False) -> Observed:
    """Simulates `warm_up` customers, then `customers` more, until all have left.

    Memory is 24 bytes for each. Independent replications take different seeds. `general`: by the general engine even where a
    faster one would do.

    Raises:
        ValueError: the queue is none.
    """
    total = customers + warm_up
    if not 1 <= len(queue.classes) <= len(_KINDS):
        raise ValueError(f"there are 1 to {len(_KINDS)} classes, not {len(queue.classes)}")
    rate = queue.rate_per_s if isinstance(queue.rate_per_s, Rate) else Rate.constant(
        queue.rate_per_s, 1.5 * total / queue.rate_per_s + 100.0 / queue.rate_per_s
    )  # fmt: skip
    second = (
        {"commit": {"base": _written(queue.commit_s)}}
        if queue.commit_s
        else {"service": queue.then}
        if queue.then
        else {}
    )
    platform = Platform.model_validate(
        {
            "nodes": queue.nodes,
            "workers": queue.servers,
            "service": queue.service,
            "queue": _UNBOUNDED if queue.room is None else queue.room,
            "discipline": queue.discipline,
            "priority": [kind.name.lower() for kind in _KINDS],
            "network": {"client": _written(queue.travel_s)},
            "shards": {"count": 1, **second},
            "weights": list(queue.weights),
        }
    )
    settings = settings_of(queue.policy) if isinstance(queue.policy, str) else queue.policy
    setup = compile_unit(
        platform, queue.client or Client(), settings, seed=seed, balancers=queue.balancers,
        in_flight=1 << 20, drain_ns=2**61,
    )  # fmt: skip
    edges = np.array([0, 2**62], np.int64)
    simulation = Simulation(
        setup, edges, arrivals_per_s=rate.peak()[0], traced=total, engine=Engine.GENERAL if general else None
    )
    source = Customers(_arrivals(queue, rate, seed), queue.classes, seed, total)
    block = np.zeros(BLOCK, TRANSACTION)
    while count := source.fill(block):
        simulation.step(block[:count])
    results = simulation.finish()
    rows = results.trace[warm_up:]
    served = rows["status"] == Status.OK
    return Observed(
        arrived_s=rows["intended_ns"][served] / 1e9,
        wait_s=rows["wait_ns"][served] / 1e9,
        time_s=(rows["done_ns"] - rows["intended_ns"])[served] / 1e9,
        node=rows["node"][served],
        served=served,
        kind=source.classes_of(warm_up, len(rows))[served],
        little=results.little(),
        counts=results.virtual.counts,
        events=results.count(Count.EVENTS),
        records=records_of(results),
    )


def _arrivals(queue: Queue, rate: Rate, seed: int) -> Arrivals:
    if queue.arrivals == "regular":
        return Regular(rate)
    if queue.arrivals == "mmpp":
        options = queue.mmpp or {"burst": 3.0, "share": 0.2, "period_s": 1.0}
        return Mmpp(rate, seed, burst=options["burst"], share=options["share"], period_s=options["period_s"])
    return Poisson(rate, seed)
