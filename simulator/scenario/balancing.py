"""How the node is picked that a transaction enters: the policy, what it knows, and whom it takes for available."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from simulator.scenario.base import LONGEST_NS, Model, NonNegativeNs, PositiveNs, Problem, between, refuse
from simulator.scenario.units import NS_PER_S, DurationNs

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BALANCERS = 1_024
MOST_VIEWS = 2_000_000  # balancers × nodes: 160 bytes each
MOST_REPORTS = 2_000_000  # under way at once: 56 bytes each
MOST_ENTRIES = 50_000_000  # of Maglev's tables, all balancers together: 4 bytes each
RING_MOST = 8 << 20  # points; Envoy's maximum_ring_size
_VIEW_BYTES = 160 + 24  # a VIEW, who is available, requests in flight; a place in the heap of turns
_PROBE_BYTES, _ENTRY_BYTES, _POINT_BYTES, _REPORT_BYTES = 40, 4, 12, 56
_TABLE_MOST = 5_000_011  # Envoy's limit of Maglev's table

PolicyName = Literal[
    "random", "round_robin", "weighted_round_robin", "p2c", "p2c_distinct", "jsq", "jiq", "peak_ewma", "ring_hash", "maglev",
    "bounded_load", "prequal", "aperture", "orca", "c3", "affinity",
]  # fmt: skip

_COMPARES_LOADS = ("p2c", "p2c_distinct", "jsq", "peak_ewma", "aperture", "c3")
_PASSES_OVER_WEIGHTS = ("random", "jiq", "prequal", "orca", "affinity")
_HAS_NO_RAMP = ("random", "jiq", "prequal", "affinity", "ring_hash", "maglev", "bounded_load")
_VIRTUAL_ONLY = {
    "prequal": "probes that nodes answer",
    "orca": "reports of the nodes' utilization",
    "c3": "reports of the nodes' queues and service times",
}

Share = Annotated[float, Field(ge=0, le=1)]


class Report(Model):
    """What nodes tell the balancers of themselves, and how stale it is when it arrives. Virtual clock only."""

    every: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=100_000_000,
        description="Between two reports of a node, at least 1ms; each node at a moment of its own.",
    )
    delay: NonNegativeNs = Field(default=1_000_000, description="From a node to a balancer; the same for all.")

    def kept(self, nodes: int) -> int:
        """How many reports of so many nodes may be under way at once."""
        return (self.delay // self.every + 2) * nodes


class PeakEwma(Model):
    """The load metric peak EWMA; Finagle's defaults."""

    decay: PositiveNs = Field(default=10 * NS_PER_S, description="τ: a peak falls by e^(−Δt/τ).")
    start: NonNegativeNs = Field(
        default=0, description="What a node without history is taken to need; 0s: a penalty (Finagle); 30ms in Linkerd."
    )


class Probes(Model):
    """Prequal's probes; the paper's defaults."""

    per_query: Annotated[float, Field(gt=0, le=16)] = Field(default=3.0, description="Probes sent with each request.")
    pool: Annotated[int, Field(ge=2, le=256)] = Field(default=16, description="Replies that a balancer keeps.")
    age: PositiveNs = Field(default=NS_PER_S, description="How long a reply may be used.")
    removals: Annotated[float, Field(ge=0, le=16)] = Field(
        default=1.0, description="Replies removed with each request."
    )
    hot: Share = Field(default=0.84, description="A node is hot above this quantile of requests in flight.")


class Aperture(Model):
    """Finagle's aperture with its defaults."""

    window: PositiveNs = Field(default=15 * NS_PER_S, description="Over which requests in flight are smoothed.")
    low: Annotated[float, Field(gt=0, le=1_000)] = Field(default=0.875, description="Below: one node fewer.")
    high: Annotated[float, Field(gt=0, le=1_000)] = Field(default=1.125, description="Above: one node more.")

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.low >= self.high:
            refuse([(("low",), f"{self.low} is not below high, {self.high}")])
        return self


class Orca(Model):
    """Weighted round robin by reports; the defaults of gRPC's proposal A58."""

    blackout: NonNegativeNs = Field(
        default=10 * NS_PER_S, description="A node's weight counts after reporting this long."
    )
    expiry: PositiveNs = Field(default=180 * NS_PER_S, description="A weight without a new report ends after this.")
    update: Annotated[DurationNs, between(100_000_000, LONGEST_NS)] = Field(
        default=NS_PER_S, description="Between two takings over of the weights; at least 100ms."
    )
    error_penalty: Annotated[float, Field(ge=0, le=1_000)] = Field(
        default=1.0, description="How much errors count as utilization."
    )


def _prime(number: int) -> int:
    if number % 2 == 0 or any(number % d == 0 for d in range(3, int(number**0.5) + 1, 2)):
        raise ValueError(f"{number} is not a prime; Maglev's table needs one, for example 65537 or 655373")
    return number


class Hashing(Model):
    """Consistent hashing: `ring_hash`, `bounded_load`, `maglev`."""

    key: Literal["payer", "payee"] = Field(default="payer", description="Whose transactions stay together.")
    load_factor: Annotated[float, Field(gt=1, le=100)] | None = Field(
        default=None,
        description="Bounded load: no node above this many times the mean; left out: no bound, 1.25 for bounded_load.",
    )
    ring: Annotated[int, Field(ge=1, le=RING_MOST)] = Field(default=1_024, description="Points on the ring at least.")
    table: Annotated[int, Field(ge=3, le=_TABLE_MOST), AfterValidator(_prime)] = Field(
        default=65_537, description="Entries of Maglev's table, a prime."
    )


class OutlierEjection(Model):
    """Nodes that answer with errors are left out for a while; Envoy's defaults."""

    in_a_row: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=5, description="Errors in a row that eject.")
    interval: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=10 * NS_PER_S, description="Between two sweeps, which judge success rates and let nodes back in."
    )
    base: PositiveNs = Field(default=30 * NS_PER_S, description="Out for this long times the number of ejections …")
    longest: PositiveNs = Field(default=300 * NS_PER_S, description="… but for this long at most.")
    share: Share = Field(default=0.1, description="Of the nodes that may be out at once; one always may.")
    min_nodes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=5, description="Success rates are compared among this many nodes at least …"
    )
    min_requests: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=100, description="… each with this many answers since the last sweep."
    )
    deviations: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.9, description="Ejected below the mean success rate less this many standard deviations."
    )


class SlowStart(Model):
    """A node that comes back gets its share little by little; Envoy's defaults."""

    window: PositiveNs = Field(description="How long it takes.")
    floor: Annotated[float, Field(gt=0, le=1)] = Field(default=0.1, description="The least part of its weight.")
    aggression: Annotated[float, Field(gt=0, le=100)] = Field(default=1.0, description="1: linear; more: sooner.")


class Circuit(Model):
    """Limits on what one balancer has in flight; beyond them it refuses at once."""

    requests: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="In flight of a balancer, all nodes together; Envoy: 1024. Left out: no limit."
    )
    per_node: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="In flight of a balancer at the node it picked; left out: no limit."
    )


class Balancer(Model):
    """How the node is picked that a transaction enters."""

    policy: PolicyName = Field(
        default="p2c",
        description=(
            "random · round_robin · weighted_round_robin · p2c: the less busy of two at random · p2c_distinct: of two "
            "different ones · jsq: the least busy · jiq: an idle one · peak_ewma: by response times · ring_hash, maglev, "
            "bounded_load: by the payer · prequal: by probes · aperture: p2c_distinct among few · orca: by reported "
            "utilization · c3: by reported queues · affinity: the payer's own node."
        ),
    )
    choices: Annotated[int, Field(ge=2, le=10)] | None = Field(
        default=None, description="p2c, c3: how many nodes are compared; left out: 2, for c3 3."
    )
    load: Literal["in_flight", "peak_ewma", "reported", "c3"] | None = Field(
        default=None, description="What policies that compare loads compare; left out: the policy's own."
    )
    bias: Annotated[float, Field(ge=0, le=10)] = Field(
        default=1.0, description="p2c with unequal weights: w / (in flight + 1)^bias."
    )
    weights: tuple[Annotated[float, Field(gt=0, le=1_000)], ...] = Field(
        strict=False, max_length=100_000, default=(),
        description="Of the nodes, one each; none: those of the platform, or all alike.",
    )  # fmt: skip
    balancers: Annotated[int, Field(ge=1, le=MOST_BALANCERS)] = Field(
        default=1, description="Independent instances; each knows its own requests only. Virtual clock only."
    )
    report: Report | None = Field(default=None, description="Nodes tell balancers about themselves; left out: nothing.")
    ewma: PeakEwma = Field(default=PeakEwma(), description="Of peak_ewma.")
    probes: Probes = Field(default=Probes(), description="Of prequal.")
    aperture: Aperture = Field(default=Aperture(), description="Of aperture.")
    orca: Orca = Field(default=Orca(), description="Of orca.")
    hash: Hashing = Field(default=Hashing(), description="Of ring_hash, bounded_load and maglev.")
    outlier_ejection: OutlierEjection | None = Field(
        default=None, description="Leave out nodes that fail; {} for Envoy's numbers, left out: off."
    )
    panic: Share = Field(default=0.5, description="With fewer available than this share, all nodes are used; 0: never.")
    slow_start: SlowStart | None = Field(default=None, description="For nodes that come back; left out: off.")
    circuit: Circuit = Field(default=Circuit(), description="Limits on requests in flight.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterable[Problem]:
        if self.load is not None and self.policy not in _COMPARES_LOADS:
            yield (("load",), f"{self.policy} compares no loads; {', '.join(_COMPARES_LOADS)} do")
        if self.weights and self.policy in _PASSES_OVER_WEIGHTS:
            yield (("weights",), f"{self.policy} passes over weights; weighted_round_robin or p2c heed them")
        if self.slow_start is not None and self.policy in _HAS_NO_RAMP:
            yield (("slow_start",), f"{self.policy} gives no node a part of its share; round_robin or p2c do")
        elif self.slow_start is not None and self.outlier_ejection is None:
            yield (("slow_start",), "no node ever comes back without outlier_ejection; write outlier_ejection: {}")

    def memory_bytes(self, nodes: int) -> int:
        """What the balancers before so many nodes keep: their views, tables and pools, and reports under way."""
        total = _VIEW_BYTES * self.balancers * nodes + _PROBE_BYTES * self.balancers * self.probes.pool
        if self.policy == "maglev":
            total += _ENTRY_BYTES * self.balancers * self.hash.table
        if self.policy in ("ring_hash", "bounded_load"):
            total += _POINT_BYTES * max(self.hash.ring, nodes)
        if self.report is not None:
            total += _REPORT_BYTES * self.report.kept(nodes)
        return total

    def problems_on(self, clock: str, nodes: int | None, units: int = 1) -> Iterable[Problem]:
        """What is wrong with it on a clock and for so many nodes a unit (None: unknown); places are below `balancer`."""
        virtual = clock == "virtual"
        needs = _VIRTUAL_ONLY.get(self.policy) or _VIRTUAL_ONLY.get(self.load or "")
        if self.load == "reported":
            needs = "reports of the nodes' queues"
        place = ("load",) if self.policy not in _VIRTUAL_ONLY and needs else ("policy",)
        name = self.load if place == ("load",) else self.policy
        if needs and not virtual:
            yield (
                place,
                f"{name} needs {needs}, which only the virtual clock has; write clock: virtual, or p2c or peak_ewma",
            )
        elif needs and name != "prequal" and self.report is None:
            yield place, f"{name} needs {needs}; write balancer.report: {{every: 100ms, delay: 1ms}}"
        if not virtual and self.balancers > 1:
            yield ("balancers",), "the wall clock has one balancer; write clock: virtual, or leave it out"
        if not virtual and self.report is not None:
            yield ("report",), "nodes report nothing on the wall clock; write clock: virtual, or leave it out"
        if nodes is None:
            return
        if self.weights and len(self.weights) != nodes * units:
            yield ("weights",), f"{len(self.weights)} weights for {nodes * units} nodes; write one for each"
        yield from self._size_problems(nodes)
        if self.policy == "maglev" and self.hash.table < nodes:
            yield ("hash", "table"), f"{self.hash.table} entries are too few for {nodes} nodes; 100 a node are usual"

    def _size_problems(self, nodes: int) -> Iterable[Problem]:
        kept = self.report.kept(nodes) if self.report is not None else 0
        if kept > MOST_REPORTS:
            message = (
                f"{kept:,} reports of {nodes} nodes would be under way at once, and there are at most {MOST_REPORTS:,}"
            )
            yield ("report",), f"{message}; write a longer every or a shorter delay"
        if self.policy == "maglev" and self.balancers * self.hash.table > MOST_ENTRIES:
            message = f"{self.balancers} tables of {self.hash.table} entries are more than {MOST_ENTRIES:,}"
            yield ("hash", "table"), f"{message}; write a smaller table or fewer balancers"
        if self.balancers * nodes > MOST_VIEWS:
            most = max(MOST_VIEWS // nodes, 1)
            yield ("balancers",), f"{self.balancers} balancers over {nodes} nodes are too many; write at most {most}"
