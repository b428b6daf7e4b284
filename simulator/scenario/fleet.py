"""The platform that the virtual clock simulates: units of gateway nodes and shards, what each takes, how they queue.

On the wall clock the platform is the backend, real; what stands here is a model of one. Left out, the model is that of
`backend.embedded`: `embedded_model` says with which figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario.base import Model, PositiveNs, Problem, refuse
from simulator.scenario.guards import Admission, Concurrency  # noqa: TC001  pydantic reads the annotations
from simulator.scenario.service import Latency, ServiceTime
from simulator.scenario.units import NS_PER_S, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.scenario.platform import Embedded


def _written(duration_ns: int) -> Any:  # noqa: ANN401  a model is built from what a scenario would write
    return format_duration(duration_ns)


MOST_NODES = 65_535  # TRANSACTION.node is 16 bits wide
MOST_SHARDS = 65_535  # and so is OUTCOME.shard

KindName = Literal["payment", "refund", "authorize", "post", "void"]


class Network(Model):
    """Constant one-way latencies."""

    client: Latency = Field(default=0, description="Client to node, and back again.")
    shard: Latency = Field(default=0, description="Node to shard, and back again.")


class Commit(Model):
    """Group commit: what waits at a shard is committed together, in base + n × per_record."""

    base: Latency = Field(description="What a commit takes however small, such as one fdatasync.")
    per_record: Latency = Field(default=0, description="What each transaction adds to it.")


class Shards(Model):
    """The stage of the ledger: each payer has a shard, a single server, first come first served."""

    count: Annotated[int, Field(ge=1, le=MOST_SHARDS)] = Field(default=16, description="In all, over the units.")
    service: ServiceTime | None = Field(
        default=None, description="What one transaction takes at its shard; left out, and no commit: nothing."
    )
    commit: Commit | None = Field(default=None, description="Service in batches instead of one by one.")

    @model_validator(mode="after")
    def _serves_one_way(self) -> Self:
        if self.service is not None and self.commit is not None:
            refuse([(("commit",), "a shard serves one by one or in batches; write service or commit, not both")])
        return self


class Dependency(Model):
    """What some transactions need from outside once their shard has them: the bank."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="The share of transactions that need it."
    )
    kinds: tuple[KindName, ...] = Field(strict=False, default=(), description="Only these kinds; none: all of them.")
    latency: ServiceTime = Field(description="What one call takes, the way there and back included.")
    limit: Annotated[int, Field(ge=0, le=4_194_304)] = Field(
        default=0, description="Calls at once; one more is refused at once. 0: as many as come."
    )


class Platform(Model):
    """A model of a payment platform, for the virtual clock."""

    units: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Cells that share nothing; a payer belongs to one, by account number modulo units."
    )
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = Field(default=2, description="Gateway nodes in all.")
    workers: Annotated[int, Field(ge=1, le=4_096)] = Field(default=1, description="Transactions a node serves at once.")
    service: ServiceTime = Field(
        default=ServiceTime(mean=_written(1_000_000)), description="What one transaction takes of a node's worker."
    )
    queue: Annotated[int, Field(ge=0, le=4_194_304)] = Field(
        default=65_536, description="How many may wait at a node; one more is refused at once."
    )
    discipline: Literal["fcfs", "lifo", "adaptive_lifo", "priority"] = Field(
        default="fcfs",
        description=(
            "Who is served next · fcfs: the oldest · lifo: the newest · adaptive_lifo: the newest while the queue has "
            "not been empty for a while · priority: by kind, the oldest first within one."
        ),
    )
    adaptive_after: PositiveNs = Field(
        default=100_000_000, description="adaptive_lifo: newest first once the queue has not been empty for this long."
    )
    priority: tuple[KindName, ...] = Field(
        strict=False,
        default=("void", "post", "authorize", "payment", "refund"),
        description="priority: the kinds from first to last served; those left out come last, alike.",
    )
    concurrency: Concurrency | None = Field(
        default=None, description="An adaptive limit on what a node holds at once; {} for Gradient2, left out: off."
    )
    admission: Admission | None = Field(
        default=None, description="Whom a node turns away when overloaded; {} for CoDel, left out: off."
    )
    network: Network = Field(default=Network(), description="Latencies between client, node and shard.")
    shards: Shards = Field(default=Shards(), description="The stage of the ledger.")
    dependency: Dependency | None = Field(default=None, description="A third stage elsewhere, such as the bank.")
    weights: tuple[Annotated[float, Field(gt=0, le=1_000)], ...] = Field(
        strict=False,
        max_length=MOST_NODES,
        default=(),
        description="Speed of each node, and what weighted policies are told; one for each node, or none: all 1.",
    )
    restart: PositiveNs = Field(
        default=NS_PER_S, description="How long a killed node is down where the fault does not say."
    )
    failover: Latency | None = Field(
        default=5 * NS_PER_S,
        description="How long after the loss of a unit its payers go to the others.",
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterable[Problem]:
        for place, count, noun in (
            (("nodes",), self.nodes, "nodes"),
            (("shards", "count"), self.shards.count, "shards"),
        ):
            if count % self.units:
                below, above = count - count % self.units, count + -count % self.units
                near = f"{below} or {above}" if below else f"{above}"
                yield place, f"{count} {noun} do not divide evenly into {self.units} units; write {near}"
        if self.weights and len(self.weights) != self.nodes:
            yield ("weights",), f"{len(self.weights)} weights for {self.nodes} nodes; write one for each, or none"
        if len(set(self.priority)) < len(self.priority):
            yield ("priority",), "names a kind twice; each stands once"


# What the embedded platform takes, from docs/performance.md (2 nodes on 2 cores, "as they come"): 6.2 M transactions/s
# in `memory`, so 0.32 µs a transaction and node; 0.09 ms for an answer at light load, nearly all of it waking up three
# processes, so 45 µs each way; an fdatasync of 0.25 ms; 3.0 M transactions/s in `group` over 16 shards.
_NODE_NS = 320
_WAKE_NS = 45_000
_SYNC_NS = 250_000
_WRITE_NS = 20_000
_RECORD_NS = 300


def embedded_model(embedded: Embedded | None) -> Platform:
    """The model of the built-in platform; None, for any other backend: of the built-in one with its defaults.

    A node is one worker; every shard commits by itself, where the real node commits all its shards in one.
    """
    if embedded is None:
        return Platform(
            service=ServiceTime(distribution="deterministic", mean=_written(_NODE_NS)),
            network=Network(client=_written(_WAKE_NS)),
        )
    commit = None
    if embedded.durability == "group":
        commit = Commit(base=_written(_SYNC_NS), per_record=_written(_RECORD_NS))
    elif embedded.durability != "memory":
        commit = Commit(base=_written(_WRITE_NS), per_record=_written(_RECORD_NS))
    return Platform(
        nodes=embedded.nodes,
        service=ServiceTime(distribution="deterministic", mean=_written(_NODE_NS)),
        queue=embedded.queue,
        network=Network(client=_written(_WAKE_NS)),
        shards=Shards(count=embedded.shards, commit=commit),
    )
