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

_TARGET_PATTERN = r"^node\[(\*|0|[1-9][0-9]{0,3})\]$"


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
        Literal["kill", "power_loss", "pause"],
        not_yet(
            "latency", "bandwidth", "loss", "timeout", "reset_peer", "partition", "disk_full", "io", "cpu", "unit_loss",
            "dependency", "retry_storm", instead="kill, power_loss or pause",
        ),
    ] = Field(
        description=(
            "kill: a node's process ends at once · pause: it stands still, then goes on · "
            "power_loss: every node is killed, and what its disk had not synced is gone."
        )
    )  # fmt: skip
    target: (
        Annotated[str, AfterValidator(_fault_target), Field(json_schema_extra={"pattern": _TARGET_PATTERN})] | None
    ) = Field(
        default=None,
        description="node[0], node[1] …, or node[*]: a random node each time; power_loss takes every node.",
    )
    for_: PositiveNs | None = Field(
        alias="for", default=None, description="How long a pause lasts; left out: to the end of the run."
    )
    every: PositiveNs | None = Field(default=None, description="Strikes again this long after; left out: strikes once.")
    times: Annotated[int, Field(ge=1, le=MOST_STRIKES)] | None = Field(
        default=None, description="How often it strikes, with every; left out: to the end of the run."
    )
    spread: Literal["random"] | None = Field(
        default=None,
        description="random: each strike falls at random inside its own interval of every; left out: at its start.",
    )

    @model_validator(mode="after")
    def _is_one_fault(self) -> Self:
        refuse([*self._target_problems(), *self._repeat_problems()])
        return self

    def _target_problems(self) -> Iterable[Problem]:
        if self.fault == "power_loss":
            if self.node is not None:
                yield ("target",), "power_loss takes every node at once; write 'node[*]', or leave target out"
        elif self.target is None:
            yield ("target",), f"is missing; {self.fault} strikes one node: write 'node[0]', or 'node[*]' for any"

    def _repeat_problems(self) -> Iterable[Problem]:
        if self.for_ is not None and self.fault != "pause":
            yield ("for",), f"{self.fault} strikes in an instant and takes no duration; leave for out"
        if self.every is None:
            for key in ("times", "spread"):
                if getattr(self, key) is not None:
                    yield (key,), "is of no use to a fault that strikes once; write every too, for example every: 5s"
        elif self.fault == "pause" and (self.for_ is None or self.for_ > self.every):
            lasting = "to the end" if self.for_ is None else f"of {format_duration(self.for_)}"
            every = format_duration(self.every)
            yield ("for",), f"pauses {lasting} every {every} would overlap; write at most {every}"

    @property
    def node(self) -> int | None:
        """The node that is struck; None: a random one each time (power_loss: all)."""
        return None if self.target in (None, "node[*]") else int(str(self.target)[len("node[") : -1])

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
