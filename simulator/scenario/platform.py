"""What a scenario's load is sent to, and how: the backend, the balancer before its nodes, the dispatcher."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from simulator.scenario.base import LONGEST_NS, Model, PositiveNs, between, is_mapping, refuse
from simulator.scenario.http import Http  # noqa: TC001  pydantic reads the annotation
from simulator.scenario.load import HIGHEST_RATE_PER_S
from simulator.scenario.rebalance import Rebalance, problems_with
from simulator.scenario.spelling import known_words
from simulator.scenario.units import NS_PER_S, DurationNs, MoneyMinor, RatePerS, format_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGIN_GROUP = "simulator.backends"


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        below = 1 << (number.bit_length() - 1)
        raise ValueError(f"{number} is not a power of two; the nearest are {below} and {2 * below}")
    return number


class Interval(Model):
    """The journal is synced once an interval: a power cut loses at most that much."""

    interval: Annotated[DurationNs, between(1_000_000, 60 * NS_PER_S)] = Field(description="Between two syncs.")


class Poison(Model):
    """What happens to an operation that cannot be booked: so many tries, then a dead letter."""

    tries: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="How often it is tried in all; then it fails for good."
    )
    wait: Annotated[DurationNs, between(0, 60 * NS_PER_S)] = Field(
        default=10_000_000, description="Least time between two tries; what must not overtake it waits too."
    )
    dead_letters: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=10_000, description="Lines of a node's dead-letter file, which also ends at 8 MiB; the rest is counted."
    )


def _whole_rate(per_s: float) -> float:
    if per_s < 1 or per_s != int(per_s) or per_s > HIGHEST_RATE_PER_S:
        raise ValueError(
            f"{format_rate(per_s)!r} is no rate for a node; write a whole number a second, at most "
            f"{format_rate(HIGHEST_RATE_PER_S)}"
        )
    return per_s


class HotAccount(Model):
    """The most popular merchants, each split into sub-accounts that merge exactly."""

    split: Annotated[int, Field(ge=1, le=256)] = Field(
        description="Sub-accounts of each, in as many different shards; 1: not split."
    )
    accounts: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=1, description="How many merchants are split, the most popular first."
    )


class Embedded(Model):
    """The platform built in: worker processes that own shards of the ledger."""

    nodes: Annotated[int, Field(ge=1, le=16)] = Field(default=2, description="Worker processes.")
    shards: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="Shards of the ledger, spread over the nodes; at least as many as nodes."
    )
    durability: Annotated[
        Annotated[Literal["memory", "os", "group"], Tag("durability name")] | Annotated[Interval, Tag("Interval")],
        Discriminator(lambda value: "Interval" if is_mapping(value) else "durability name"),
    ] = Field(
        default="group",
        description=(
            "memory: lost with the process · os: written, not synced · {interval: 10ms}: synced once an interval · "
            "group: synced before the reply."
        ),
    )
    overflow: Literal["refuse", "block", "drop_oldest"] = Field(
        default="refuse",
        description=(
            "What a full ring does · refuse: it says no · block: the dispatcher holds the next one back, and its lateness "
            "counts · drop_oldest: the oldest waiting one makes room and is rejected."
        ),
    )
    protocol: Literal["outbox", "tcc", "unsafe_dual_write"] = Field(
        default="outbox",
        description=(
            "How a transfer crosses to a shard of another node · outbox: debit, answer, deliver until acknowledged; a refused "
            "credit comes back · tcc: try, then confirm or cancel, and answer when that is decided · unsafe_dual_write: "
            "debit, answer, send the credit once: wrong on purpose, a kill shows it."
        ),
    )
    balance_limit: MoneyMinor | None = Field(
        default=None, description="The most an account may hold, as wallet rules do; beyond it a credit is refused."
    )
    queue: Annotated[int, Field(ge=1_024, le=1_048_576), AfterValidator(_power_of_two)] = Field(
        default=65_536, description="Ring slots per node, a power of two."
    )
    remember: Annotated[int, Field(ge=1_024, le=4_194_304), AfterValidator(_power_of_two)] = Field(
        default=131_072, description="Ids each shard remembers at least (at most twice as many), a power of two."
    )
    snapshot_records: Annotated[int, Field(ge=100_000, le=1_000_000_000)] = Field(
        default=20_000_000,
        description="Journal records between two snapshots of a node; bounds how long a restart replays.",
    )
    max_rate: Annotated[RatePerS, AfterValidator(_whole_rate)] | None = Field(
        default=None,
        description=(
            "How many requests a second each node takes from its clients, to model a smaller platform; left out: all it can."
        ),
    )
    poison: Poison = Field(default=Poison(), description="What happens to an operation that cannot be booked.")
    restarts: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=1_000, description="How often a dead node is started again; 0: a dead node ends the run."
    )
    hold_expiry: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=600 * NS_PER_S, description="How long an authorize may stay open; then the platform releases it."
    )

    rebalance: Rebalance | None = Field(
        default=None,
        description=(
            "Shards that move between nodes during the run · [{at: 20s, shard: 3, to: 'node[1]'}]: then · auto, or "
            "{auto: {every: 5s, imbalance: 1.25, moves: 4}}: by load."
        ),
    )

    hot_account: HotAccount | None = Field(
        default=None,
        description="Splits the most popular merchants, for example {split: 8}; left out: nobody is split.",
    )

    @model_validator(mode="after")
    def _each_sub_account_has_a_shard(self) -> Self:
        if self.hot_account is not None and self.hot_account.split > self.shards:
            message = f"{self.hot_account.split} sub-accounts need as many shards; there are {self.shards}"
            refuse([(("hot_account", "split"), f"{message}: write at most {self.shards}, or more shards")])
        return self

    @model_validator(mode="after")
    def _every_node_owns_a_shard(self) -> Self:
        if self.rebalance is not None:
            found = problems_with(self.rebalance, nodes=self.nodes, shards=self.shards, protocol=self.protocol)
            refuse((("rebalance", *place), message) for place, message in found)
        if self.shards < self.nodes:
            refuse([(("shards",), f"{self.shards} shards leave some of {self.nodes} nodes without one; write more")])
        return self

    @model_validator(mode="after")
    def _a_refused_credit_has_a_way_back(self) -> Self:
        if self.balance_limit is not None and self.protocol == "unsafe_dual_write":
            message = "unsafe_dual_write has no way to give a refused credit back; write protocol: outbox or tcc"
            refuse([(("balance_limit",), message)])
        if self.balance_limit is not None and self.rebalance is not None:
            message = "shards cannot move where credits may be refused; leave balance_limit or rebalance out"
            refuse([(("balance_limit",), message)])
        if self.balance_limit is not None and self.hot_account is not None:
            message = "would hold for each sub-account and not for the merchant; leave balance_limit or hot_account out"
            refuse([(("balance_limit",), message)])
        return self


class Noop(Model):
    """Answers at once and does nothing: it measures the simulator itself."""


class Backend(Model):
    """What the load is sent to: exactly one of the built-in backends, or a plug-in by its registered name."""

    # A plug-in's options are its own business: they stand beside the built-in names and are passed on as they are.
    model_config = ConfigDict(extra="allow", json_schema_extra={"minProperties": 1, "maxProperties": 1})
    __pydantic_extra__: dict[str, dict[str, JsonValue]] = Field(init=False)

    built_in: ClassVar[tuple[str, ...]] = ("embedded", "http", "noop")

    embedded: Embedded | None = Field(default=None, description="The platform built in.")
    http: Http | None = Field(default=None, description="A payment gateway elsewhere, over HTTP.")
    noop: Noop | None = Field(default=None, description="Answers at once and does nothing.")

    @model_validator(mode="after")
    def _is_exactly_one(self) -> Self:
        plugins = self.__pydantic_extra__ or {}
        registered = {point.name for point in entry_points(group=PLUGIN_GROUP)} if plugins else set()
        refuse(
            ((name,), f"there is no such backend; {known_words(name, [*self.built_in, *sorted(registered)])}")
            for name in plugins
            if name not in registered
        )
        chosen = [*(name for name in self.built_in if getattr(self, name) is not None), *plugins]
        if len(chosen) != 1:
            said = f"{' and '.join(chosen)} are named" if chosen else "none is named"
            refuse([((), f"{said}; a run has exactly one backend, for example {{embedded: {{nodes: 2}}}}")])
        return self

    @property
    def name(self) -> str:
        """`embedded`, `http`, `noop` or the plug-in's name."""
        plugins = self.__pydantic_extra__ or {}
        return next(name for name in (*plugins, *self.built_in) if name in plugins or getattr(self, name) is not None)

    @property
    def ledger(self) -> Embedded | None:
        """The platform whose journals the run keeps: the embedded one, or that of its own gateways; None: somebody else's.

        Each ring of a gateway holds what it may have in flight.
        """
        fleet = self.http.fleet if self.http is not None else None
        if fleet is None:
            return self.embedded
        queue = max(1_024, 1 << (fleet.in_flight - 1).bit_length())
        asked = fleet.ledger
        return Embedded(
            nodes=asked.nodes, shards=asked.shards, durability=asked.durability, remember=asked.remember, queue=queue
        )

    @property
    def plugin_options(self) -> Mapping[str, JsonValue]:
        """What the scenario tells a plug-in; empty for the built-in backends."""
        return (self.__pydantic_extra__ or {}).get(self.name, {})


class Dispatcher(Model):
    """Releases each transaction at its intended time, and counts what it could not send."""

    in_flight: Annotated[int, Field(ge=1_024, le=4_194_304)] = Field(
        default=262_144, description="How many transactions may wait for their answer at once."
    )
    patience: PositiveNs = Field(
        default=5 * NS_PER_S, description="A transaction that is later than this is dropped and counted."
    )
    lag_limit: PositiveNs = Field(
        default=10_000_000,
        description="A run of which 1 % or more was sent later than this is generator-limited, and so invalid.",
    )
    drain: PositiveNs = Field(
        default=15 * NS_PER_S, description="How long to wait for the last answers after the last transaction."
    )
