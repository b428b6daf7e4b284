"""What a node refuses to protect itself: adaptive limits on its concurrency, admission control. Virtual clock only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario.base import Model, PositiveNs, Problem, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable

_MS, _S = 1_000_000, 1_000_000_000
_MOST = 1_000_000

Bound = Annotated[int, Field(ge=1, le=_MOST)]


class Concurrency(Model):
    """How many transactions a node lets in at once, learnt from how long they take there; Netflix's concurrency-limits."""

    limit: Literal["gradient2", "vegas", "aimd"] = Field(
        default="gradient2",
        description="gradient2: by the last time over the long average · vegas: by the last over the least · aimd: by errors.",
    )
    start: Bound = Field(default=20, description="The limit at the beginning, and after the node was killed.")
    least: Bound | None = Field(default=None, description="Never below; left out: 20, for vegas 1.")
    most: Bound | None = Field(default=None, description="Never above; left out: 200, for vegas 1,000.")
    slow: PositiveNs = Field(default=5 * _S, description="aimd: a longer time counts as an error.")

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most."""
        usual = (1, 1_000) if self.limit == "vegas" else (20, 200)
        return self.least or usual[0], self.most or usual[1]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterable[Problem]:
        least, most = self.bounds
        if not least <= self.start <= most:
            yield (
                ("start",),
                f"{self.start} is not between least and most, {least} … {most}; write least and most, or start",
            )


class Admission(Model):
    """Whom a node turns away when more comes than it can serve."""

    rule: Literal["codel", "controlled_delay", "dagor"] = Field(
        default="codel",
        description=(
            "codel: drops ever faster while all wait longer than target · controlled_delay: whoever waited longer than "
            "interval, or than target in a queue that was not empty for interval · dagor: by priority, while the mean wait is "
            "above queueing."
        ),
    )
    target: PositiveNs = Field(default=5 * _MS, description="codel, controlled_delay: RFC 8289's 5ms.")
    interval: PositiveNs = Field(default=100 * _MS, description="codel, controlled_delay: RFC 8289's 100ms.")
    queueing: PositiveNs = Field(default=20 * _MS, description="dagor: overloaded above this mean wait; WeChat's 20ms.")
    window: PositiveNs = Field(default=_S, description="dagor: between two judgements, or 2,000 requests; WeChat's 1s.")

    @model_validator(mode="after")
    def _target_is_shorter(self) -> Self:
        if self.target >= self.interval:
            refuse([(("target",), "is not below interval; RFC 8289 has 5ms and 100ms")])
        return self
