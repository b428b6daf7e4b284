"""Thresholds: what a run must meet, such as `response_time: p(99) < 50ms`; their grammar, without their judgement.

    expression := aggregate operator limit
    aggregate  := p(N) | mean | max | min | count | rate | anomalies      by metric, see METRICS
    operator   := < | <= | > | >= | == | !=
    limit      := 50ms | 50 (a time's bare number is milliseconds, as in k6) | 0.01 | 1% | 50000/s | 10_000

`simulator.report.thresholds` judges them against a run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from simulator.scenario.spelling import known_words
from simulator.scenario.units import NS_PER_MS, parse_duration, parse_rate, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping


class Measure(Enum):
    """What a metric's aggregate is measured in; the value is its base unit."""

    TIME = "ns"
    COUNT = "transactions"
    FRACTION = "of the offered transactions"
    RATE = "per second"
    RATIO = "max over mean"


_TIMES = MappingProxyType({"p": Measure.TIME, "mean": Measure.TIME, "max": Measure.TIME})
_OUTCOMES = MappingProxyType({"count": Measure.COUNT, "rate": Measure.FRACTION})

METRICS: Mapping[str, Mapping[str, Measure]] = MappingProxyType(
    {
        "response_time": _TIMES,  # intended start → done
        "service_time": _TIMES,  # fired → done
        "schedule_lag": _TIMES,  # intended → fired
        "ok": _OUTCOMES,
        "rejected": _OUTCOMES,
        "failed": _OUTCOMES,
        "unknown": _OUTCOMES,
        "dropped": _OUTCOMES,
        "throughput": MappingProxyType({"mean": Measure.RATE, "min": Measure.RATE}),  # by the fired time
        "imbalance": MappingProxyType({"max": Measure.RATIO}),  # the busiest node over the mean node
        "audit": MappingProxyType({"anomalies": Measure.COUNT}),
    }
)
"""Metric → its aggregates → what each is measured in."""

OPERATORS = ("<=", ">=", "==", "!=", "<", ">")

_EXAMPLES = MappingProxyType(
    {
        Measure.TIME: "50ms, 1.5s or 50 (milliseconds)",
        Measure.COUNT: "0 or 10_000",
        Measure.FRACTION: "1% or 0.01",
        Measure.RATE: "50000/s or 50000",
        Measure.RATIO: "1.2",
    }
)
_NUMBER = r"[0-9](?:_?[0-9])*(?:\.[0-9]+)?"
_EXPRESSION = re.compile(r"\s*([a-z_]+)\s*(?:\(\s*([^()]*?)\s*\))?\s*([<>=!]+)\s*(\S.*?)\s*")
_LONGEST = 200
_PERCENT = 100


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition of a run.

    Attributes:
        metric: a key of `METRICS`.
        aggregate: `p`, `mean`, `max`, `min`, `count`, `rate` or `anomalies`.
        argument: N of `p(N)`, in (0, 100]; None for the others.
        operator: one of `OPERATORS`.
        limit: in base units: ns, transactions, a fraction, per second, a ratio.
        expression: as it was written.
    """

    metric: str
    aggregate: str
    argument: float | None
    operator: str
    limit: float
    expression: str

    @property
    def measure(self) -> Measure:
        """What `limit` and the observed value are measured in."""
        return METRICS[self.metric][self.aggregate]

    def met_by(self, observed: float) -> bool:
        """Whether an observed value, in base units, is on the right side of the limit."""
        match self.operator:
            case "<":
                return observed < self.limit
            case "<=":
                return observed <= self.limit
            case ">":
                return observed > self.limit
            case ">=":
                return observed >= self.limit
            case "==":
                return observed == self.limit
            case _:
                return observed != self.limit


def parse_threshold(metric: str, expression: object) -> Threshold:
    """Reads one expression of one metric.

    Raises:
        ValueError: no such metric, or the expression doesn't parse; one line that says what would be right.
    """
    aggregates = METRICS.get(metric)
    if aggregates is None:
        raise ValueError(f"{quoted(metric)} is not a metric; {known_words(metric, METRICS)}")
    match = _EXPRESSION.fullmatch(expression) if isinstance(expression, str) and len(expression) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{quoted(expression)} is not a threshold; write for example {_example(aggregates)}")
    aggregate, argument, operator, limit = match.groups()
    if aggregate not in aggregates:
        known = ["p(99)" if name == "p" else name for name in aggregates]
        raise ValueError(f"{quoted(expression)}: {metric} has no {aggregate!r}; {known_words(aggregate, known)}")
    if operator not in OPERATORS:
        raise ValueError(f"{quoted(expression)}: {operator!r} is not a comparison; write one of < <= > >= == !=")
    return Threshold(
        metric=metric,
        aggregate=aggregate,
        argument=_argument(aggregate, argument, quoted(expression)),
        operator=operator,
        limit=_limit(limit, aggregates[aggregate], quoted(expression)),
        expression=str(expression),
    )


def _example(aggregates: Mapping[str, Measure]) -> str:
    name, measure = next(iter(aggregates.items()))
    limit = _EXAMPLES[measure].split()[0].rstrip(",")
    return f"'{'p(99)' if name == 'p' else name} {'==' if measure is Measure.COUNT else '<'} {limit}'"


def _argument(aggregate: str, written: str | None, expression: str) -> float | None:
    if aggregate != "p":
        if written is not None:
            raise ValueError(f"{expression}: {aggregate} takes nothing in parentheses")
        return None
    if written is None or re.fullmatch(_NUMBER, written) is None or not 0 < float(written) <= _PERCENT:
        raise ValueError(f"{expression}: p takes a percentile above 0 and up to 100, for example p(99) or p(99.9)")
    return float(written)


def _limit(written: str, measure: Measure, expression: str) -> float:
    """The limit in the measure's base unit."""
    bare = re.fullmatch(_NUMBER, written) is not None
    try:
        if bare and not (measure is Measure.FRACTION and float(written) > 1):
            return float(written) * (NS_PER_MS if measure is Measure.TIME else 1)
        if measure is Measure.TIME:
            return float(parse_duration(written))
        if measure is Measure.RATE:
            return parse_rate(written)
        if measure is Measure.FRACTION and re.fullmatch(f"{_NUMBER} ?%", written):
            return float(written.rstrip("% ")) / _PERCENT
    except ValueError:
        pass  # said below, with this measure's own examples
    raise ValueError(f"{expression}: {quoted(written)} is not a limit here; write for example {_EXAMPLES[measure]}")
