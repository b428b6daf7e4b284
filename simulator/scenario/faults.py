"""A fault that a scenario plans: what breaks, where, when, and how often."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from simulator.scenario.base import Model, NonNegativeNs, PositiveNs, Problem, not_yet, refuse
from simulator.scenario.units import format_duration, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_STRIKES = 1_000  # of one fault: more would be a condition, not a fault

_TARGET_PATTERN = r"^((node|gateway)\[(\*|0|[1-9][0-9]{0,4})\]|unit\[(0|[1-9][0-9]{0,2})\])$"

SLOW_FACTOR = 10.0  # of a slow node, where the fault does not say

VIRTUAL_ONLY = ("slow", "unit_loss", "dependency")
LASTING = ("pause", "poison", *VIRTUAL_ONLY)  # they take a while; the others strike in an instant (on the wall clock)


def _fault_target(target: str) -> str:
    if re.fullmatch(_TARGET_PATTERN, target) is None:
        raise ValueError(
            f"{quoted(target)} is not a target; write for example 'node[0]', or 'node[*]' for a random one"
        )
    return target


class PlannedFault(Model):
    """Something that breaks during the run, once or again and again."""

    at: NonNegativeNs = Field(
        description="When it strikes, from the start; with every: when the first interval begins."
    )
    fault: Annotated[
        Literal["kill", "power_loss", "pause", "poison", "slow", "unit_loss", "dependency"],
        not_yet(
            "latency", "bandwidth", "loss", "timeout", "reset_peer", "partition", "disk_full", "io", "cpu",
            "retry_storm", instead="kill, power_loss, pause or poison",
        ),
    ] = Field(
        description=(
            "kill: a node's process ends at once · pause: it stands still, then goes on · "
            "power_loss: every node is killed, and what its disk had not synced is gone · "
            "poison: the booking of some operations fails inside the node. On the virtual clock also · "
            "slow: a node takes factor times as long · unit_loss: a unit is gone · dependency: the dependency is out."
        )
    )  # fmt: skip
    target: (
        Annotated[str, AfterValidator(_fault_target), Field(json_schema_extra={"pattern": _TARGET_PATTERN})] | None
    ) = Field(
        default=None,
        description="node[0], node[1] …, or node[*]: a random one each time; gateway[0] of a fleet; unit[0] … for unit_loss.",
    )
    for_: PositiveNs | None = Field(
        alias="for",
        default=None,
        description="How long it lasts; left out: to the end of the run. On the virtual clock also how long a kill does.",
    )
    every: PositiveNs | None = Field(default=None, description="Strikes again this long after; left out: strikes once.")
    times: Annotated[int, Field(ge=1, le=MOST_STRIKES)] | None = Field(
        default=None, description="How often it strikes, with every; left out: to the end of the run."
    )
    spread: Literal["random"] | None = Field(
        default=None,
        description="random: each strike falls at random inside its own interval of every; left out: at its start.",
    )
    factor: Annotated[float, Field(gt=1, le=1_000_000)] | None = Field(
        default=None, description="slow: how many times as long what the node begins meanwhile takes; 10 if left out."
    )
    delay: PositiveNs | None = Field(
        default=None, description="slow of a gateway: how much longer each answer takes, beside or instead of factor."
    )
    mode: Literal["error", "hang"] | None = Field(
        default=None,
        description="dependency: error: it says so at once, the default · hang: no answer while it is out.",
    )

    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="poison: which share of the transactions fails, picked by their ids."
    )
    heals_after: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="poison: so many tries fail, the next succeeds; left out: none does."
    )
    leg: Literal["near", "far"] | None = Field(
        default=None,
        description=(
            "poison: near: requests fail, and their clients are told, the default · far: credits of what is paid already "
            "fail, and the audit names them."
        ),
    )

    @model_validator(mode="after")
    def _is_one_fault(self) -> Self:
        refuse([*self._target_problems(), *self._parameter_problems(), *self._repeat_problems()])
        return self

    def _target_problems(self) -> Iterable[Problem]:
        if self.fault == "power_loss":
            if self.node is not None:
                yield ("target",), "power_loss takes every node at once; write 'node[*]', or leave target out"
        elif self.fault == "dependency":
            if self.target is not None:
                yield ("target",), "there is one dependency; leave target out"
        elif self.fault == "unit_loss":
            if self.unit is None:
                yield ("target",), "is missing; unit_loss takes one unit: write 'unit[0]'"
        elif self.target is None and self.fault == "poison":
            return
        elif self.target is None:
            yield ("target",), f"is missing; {self.fault} strikes one node: write 'node[0]', or 'node[*]' for any"
        elif self.unit is not None:
            yield ("target",), f"{self.fault} strikes a node; write 'node[0]', or 'node[*]' for any"

    def _parameter_problems(self) -> Iterable[Problem]:
        if self.factor is not None and self.fault != "slow":
            yield ("factor",), f"is of no use to {self.fault}; only slow takes it"
        if self.strikes_gateway and self.fault not in ("kill", "slow"):
            yield ("fault",), f"{self.fault!r} does not happen to a gateway; write kill or slow, or strike a node"
        if self.delay is not None and not (self.fault == "slow" and self.strikes_gateway):
            yield ("delay",), "is of use only to slow of a gateway; leave it out"
        if self.mode is not None and self.fault != "dependency":
            yield ("mode",), f"is of no use to {self.fault}; only dependency takes it"
        if self.fault != "poison":
            for key in ("share", "heals_after", "leg"):
                if getattr(self, key) is not None:
                    yield (key,), f"is of no use to {self.fault}; only poison takes it"
        elif self.share is None:
            yield ("share",), "is missing; say which share of the transactions fails, for example 0.001"

    def _repeat_problems(self) -> Iterable[Problem]:
        if self.every is None:
            for key in ("times", "spread"):
                if getattr(self, key) is not None:
                    yield (key,), "is of no use to a fault that strikes once; write every too, for example every: 5s"
        elif (self.fault in LASTING and self.for_ is None) or (self.for_ or 0) > self.every:
            lasting = "to the end" if self.for_ is None else f"of {format_duration(self.for_)}"
            every, noun = format_duration(self.every), "pauses" if self.fault == "pause" else f"{self.fault} faults"
            yield ("for",), f"{noun} {lasting} every {every} would overlap; write at most {every}"

    def problems_on(self, clock: str, *, gateways: bool) -> Iterable[Problem]:
        """What is wrong with it on this clock, and for a platform that has gateways or none."""
        if self.strikes_gateway:
            if clock == "virtual":
                yield ("target",), "the virtual clock's nodes are its gateways; write node in place of gateway"
            elif not gateways:
                yield ("target",), "this backend has no gateways; strike a node, or write backend.http.fleet"
            return
        if clock == "virtual":
            if self.fault == "poison":
                yield ("fault",), "'poison' happens on the wall clock only; write clock: wall, or another fault"
            return
        if self.fault in VIRTUAL_ONLY:
            yield (
                ("fault",),
                f"{self.fault!r} happens on the virtual clock only; write clock: virtual, or another fault",
            )
        elif self.for_ is not None and self.fault not in LASTING:
            yield ("for",), f"{self.fault} strikes in an instant and takes no duration; leave for out"

    @property
    def takes_every_node(self) -> bool:
        """Whether it strikes all nodes at once."""
        return self.fault == "power_loss" or (self.fault == "poison" and self.target is None)

    @property
    def strikes_gateway(self) -> bool:
        """Whether a gateway of the fleet is struck, not a node of the ledger behind it."""
        return self.target is not None and self.target.startswith("gateway[")

    @property
    def gateway(self) -> int | None:
        """The gateway that is struck; None: a random one each time, or none."""
        return self._index_of("gateway")

    @property
    def node(self) -> int | None:
        """The node that is struck; None: a random one each time, or all of them (`takes_every_node`)."""
        return self._index_of("node")

    @property
    def unit(self) -> int | None:
        """The unit that is lost; None: this is no loss of a unit."""
        return self._index_of("unit")

    def _index_of(self, noun: str) -> int | None:
        target = str(self.target)
        inside = target.removeprefix(f"{noun}[").removesuffix("]")
        return int(inside) if inside != target and inside.isdigit() else None

    def strikes(self, duration_ns: int) -> int:
        """How often it strikes in a run of this length; repeated without `times`, as often as lies within the run."""
        if self.every is None:
            return 1
        return self.times if self.times is not None else self._strikes_that_fit(duration_ns)

    def _strikes_that_fit(self, duration_ns: int) -> int:
        left_ns, every_ns = duration_ns - self.at, self.every or 1
        # A strike may fall anywhere in a spread interval, so all of that lies within the run; else its start does.
        return left_ns // every_ns if self.spread else -(-left_ns // every_ns)

    def problems_in(self, duration_ns: int) -> Iterable[Problem]:
        """What is wrong with it in a run of this length."""
        run = f"the run lasts {format_duration(duration_ns)}"
        if self.at >= duration_ns:
            yield ("at",), f"{format_duration(self.at)} is past the end, {run}; write less"
            return
        if self.every is None:
            return
        fits, every = self._strikes_that_fit(duration_ns), format_duration(self.every)
        if fits < 1:
            longest = format_duration(duration_ns - self.at)
            message = f"an interval of {every} from {format_duration(self.at)} on reaches past the end, {run}"
            yield ("every",), f"{message}; write at most {longest}"
        elif self.strikes(duration_ns) > fits:
            yield ("times",), f"{self.times} strikes {every} apart reach past the end, {run}; write at most {fits}"
        elif self.strikes(duration_ns) > MOST_STRIKES:
            message = f"every {every} strikes {fits} times, and a fault does at most {MOST_STRIKES} times"
            yield ("every",), f"{message}; write a longer every, or how many times"
