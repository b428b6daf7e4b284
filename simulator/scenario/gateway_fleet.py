"""A local fleet of reference gateways in front of one ledger, and the balancer that may stand before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from simulator.scenario.base import Model, between, refuse
from simulator.scenario.units import NS_PER_S, DurationNs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.scenario.base import Problem


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        below = 1 << (number.bit_length() - 1)
        raise ValueError(f"{number} is not a power of two; the nearest are {below} and {2 * below}")
    return number


class Ledger(Model):
    """The platform that all gateways of a fleet share; its journals are what the audit reads."""

    nodes: Annotated[int, Field(ge=1, le=16)] = Field(default=1, description="Processes of the ledger.")
    shards: Annotated[int, Field(ge=1, le=256)] = Field(default=16, description="Of the ledger, at least one a node.")
    durability: Literal["os", "group"] = Field(
        default="group", description="os: written, not synced · group: synced before the answer."
    )
    remember: Annotated[int, Field(ge=1_024, le=4_194_304), AfterValidator(_power_of_two)] = Field(
        default=131_072, description="Ids each shard remembers at least, a power of two."
    )

    @model_validator(mode="after")
    def _every_node_owns_a_shard(self) -> Self:
        if self.shards < self.nodes:
            refuse([(("shards",), f"{self.shards} shards leave some of {self.nodes} nodes without one; write more")])
        return self


class Proxy(Model):
    """A load balancer of the field between the run and its fleet: the program, started with a config that is written for it."""

    program: Literal["nginx", "haproxy"] = Field(description="Which; it must be installed.")
    policy: Literal["round_robin", "least_connections", "random"] = Field(
        default="round_robin", description="How it picks a gateway; random: the less loaded of two."
    )
    retry_after: Annotated[DurationNs, between(100_000_000, 60 * NS_PER_S)] = Field(
        default=NS_PER_S,
        description="nginx: how long a gateway that failed is left alone. haproxy: between two health checks.",
    )


class GatewayFleet(Model):
    """Gateways that are started before the run and stopped after it."""

    nodes: Annotated[int, Field(ge=1, le=16)] = Field(default=1, description="Gateway processes.")
    ledger: Ledger = Field(default=Ledger(), description="What they all stand before.")
    in_flight: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=8_192, description="Requests at once in each; beyond: 429."
    )
    proxy: Proxy | None = Field(
        default=None, description="nginx or haproxy before them; left out: the balancer picks a gateway."
    )

    def problems_of(self, accounts: int) -> Iterable[Problem]:
        """What does not fit the rest of the scenario; places are below `fleet`."""
        if self.ledger.shards > accounts:
            message = f"{self.ledger.shards} shards are more than the {accounts} accounts they share"
            yield ("ledger", "shards"), f"{message}; write at most {accounts} shards or more accounts"
