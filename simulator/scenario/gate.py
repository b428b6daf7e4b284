"""A threshold as a scenario writes it: its expression alone, or with what happens when it is crossed early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from simulator.scenario.base import Model, NonNegativeNs, refuse
from simulator.scenario.threshold import METRICS, TAGS

if TYPE_CHECKING:
    from simulator.scenario.base import Problem

MOST = 100  # of one metric

METRIC_PATTERN = (
    "^(" + "|".join(f"{name}(\\{{[^{{}}]*\\}})?" if name in TAGS else name for name in sorted(METRICS)) + ")$"
)
"""A metric with or without tags, for editors; `simulator.scenario.threshold.parse_metric` says what is wrong with one."""


class Gate(Model):
    """One threshold of a metric."""

    threshold: Annotated[str, Field(max_length=200)] = Field(
        description="What must hold, for example 'p(99) < 50ms', 'rate < 1% for 10s', 'p(99) <= baseline * 1.10'."
    )
    abort: bool = Field(
        default=False, description="Crossing it stops a run on the wall clock, which still drains, audits and reports."
    )
    after: NonNegativeNs | None = Field(
        default=None, description="With abort: not before this long after the start; left out: at once."
    )

    @model_validator(mode="after")
    def _after_belongs_to_abort(self) -> Self:
        problems: list[Problem] = []
        if self.after is not None and not self.abort:
            problems.append((("after",), "is only read with abort: true; write that as well, or leave it out"))
        refuse(problems)
        return self

    @model_serializer(mode="wrap")
    def _short(self, serialize: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401  a text or a mapping
        return serialize(self) if self.abort else self.threshold


def _named(value: object) -> object:
    """An expression may stand alone."""
    return {"threshold": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    """A single threshold may stand without its list."""
    return [value] if isinstance(value, str | dict | Gate) else value


Gates = Annotated[
    tuple[Annotated[Gate, BeforeValidator(_named, json_schema_input_type=str | Gate)], ...],
    Field(strict=False, max_length=MOST),
    BeforeValidator(_listed, json_schema_input_type=str | Gate | list[str | Gate]),
]
