"""Thresholds: what a run must meet, such as `response_time: p(99) < 50ms`; their grammar, without their judgement.

    metric     := name [ "{" tag ":" value { "," tag ":" value } "}" ]        response_time{kind:refund}
    expression := aggregate operator limit [ "for" duration ]
    aggregate  := p(N) | mean (avg) | med | max | min | count | rate | anomalies      by metric, see METRICS
    operator   := < | <= | > | >= | == | !=
    limit      := value | "baseline" [ "*" factor ] [ ("+" | "-") value ]
    value      := 50ms | 50 (a time's bare number is milliseconds, as in k6) | 0.01 | 1% | 50000/s | 10_000

`simulator.report.thresholds` judges them against a run, `simulator.compare` those against a baseline.
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


_TIMES = MappingProxyType({"p": Measure.TIME, "mean": Measure.TIME, "max": Measure.TIME, "min": Measure.TIME})
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

TIMES = frozenset({"response_time", "service_time", "schedule_lag"})
KINDS = ("payment", "refund", "authorize", "post", "void", "lookup")  # in the order of their numbers

TAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(sorted(TIMES), ("kind", "node")),
        "ok": ("kind", "node", "shard"),
        "throughput": ("kind", "node", "shard"),
        **dict.fromkeys(("rejected", "failed", "unknown", "dropped"), ("kind",)),
    }
)
"""Metric → the tags it is kept by; none for the others."""

OPERATORS = ("<=", ">=", "==", "!=", "<", ">")

_ALIASES = {"avg": "mean", "med": "p"}  # k6's words
_MEDIAN = 50.0
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
_METRIC = re.compile(r"\s*([^{}\s]*)\s*(?:\{([^{}]*)\})?\s*")
_EXPRESSION = re.compile(r"\s*([a-z_]+)\s*(?:\(\s*([^()]*?)\s*\))?\s*([<>=!]+)\s*(\S.*?)(?:\s+for\s+(\S+))?\s*")
_BASELINE = re.compile(rf"baseline(?:\s*\*\s*({_NUMBER}))?(?:\s*([+-])\s*(\S.*))?")
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
        limit: in base units: ns, transactions, a fraction, per second, a ratio. Against a baseline what is added to it.
        expression: as it was written.
        tags: (tag, value) of the transactions that count; none: all.
        window_ns: it must hold in every stretch of the run that is so long; None: over the whole run.
        factor: of the baseline's value, to which `limit` is added; None: nothing is compared with a baseline.
        abort: crossing it stops the run,
        after_ns: from this long after the start on.
    """

    metric: str
    aggregate: str
    argument: float | None
    operator: str
    limit: float
    expression: str
    tags: tuple[tuple[str, str], ...] = ()
    window_ns: int | None = None
    factor: float | None = None
    abort: bool = False
    after_ns: int = 0

    @property
    def measure(self) -> Measure:
        """What `limit` and the observed value are measured in."""
        return METRICS[self.metric][self.aggregate]

    @property
    def name(self) -> str:
        """The metric with its tags: `response_time{kind:refund}`."""
        tags = ",".join(f"{tag}:{value}" for tag, value in self.tags)
        return f"{self.metric}{{{tags}}}" if tags else self.metric

    def tag(self, name: str) -> str | None:
        """The value of a tag; None: all of them count."""
        return dict(self.tags).get(name)

    def met_by(self, observed: float, baseline: float = 0.0) -> bool:
        """Whether an observed value, in base units, is on the right side of the limit; `baseline` where it names one."""
        limit = self.limit if self.factor is None else self.factor * baseline + self.limit
        match self.operator:
            case "<":
                return observed < limit
            case "<=":
                return observed <= limit
            case ">":
                return observed > limit
            case ">=":
                return observed >= limit
            case "==":
                return observed == limit
            case _:
                return observed != limit


def parse_threshold(metric: str, expression: object, *, abort: bool = False, after_ns: int = 0) -> Threshold:
    """Reads one expression of one metric, which may carry tags.

    Raises:
        ValueError: no such metric or tag, the expression doesn't parse, or asks for what is not kept; one line that says
            what would be right.
    """
    name, tags = parse_metric(metric)
    aggregates = METRICS[name]
    match = _EXPRESSION.fullmatch(expression) if isinstance(expression, str) and len(expression) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{quoted(expression)} is not a threshold; write for example {_example(aggregates)}")
    word, argument, operator, limit, window = match.groups()
    aggregate = _ALIASES.get(word, word)
    if aggregate not in aggregates:
        known = ["p(99)" if known == "p" else known for known in aggregates]
        raise ValueError(f"{quoted(expression)}: {name} has no {word!r}; {known_words(word, known)}")
    if operator not in OPERATORS:
        raise ValueError(f"{quoted(expression)}: {operator!r} is not a comparison; write one of < <= > >= == !=")
    factor, bound = _limit(limit, aggregates[aggregate], quoted(expression))
    threshold = Threshold(
        metric=name,
        aggregate=aggregate,
        argument=_argument(word, argument, quoted(expression)),
        operator=operator,
        limit=bound,
        expression=str(expression),
        tags=tags,
        window_ns=_window(window, quoted(expression)),
        factor=factor,
        abort=abort,
        after_ns=after_ns,
    )
    problem = _not_kept(threshold) or _not_early(threshold)
    if problem:
        raise ValueError(f"{quoted(expression)}: {problem}")
    return threshold


def parse_metric(written: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A metric and its tags, in the order of `TAGS`: `response_time{kind:refund}`.

    Raises:
        ValueError: no such metric, tag or value; one line that says what would be right.
    """
    match = _METRIC.fullmatch(written) if len(written) <= _LONGEST else None
    name, inside = match.groups() if match is not None else (written, None)
    if name not in METRICS:
        raise ValueError(f"{quoted(written)} is not a metric; {known_words(name, METRICS)}")
    if inside is None:
        return name, ()
    known = TAGS.get(name, ())
    if not known:
        raise ValueError(f"{quoted(written)}: {name} is not kept by any tag; leave the braces out")
    found: dict[str, str] = {}
    for part in inside.split(","):
        tag, colon, value = (piece.strip() for piece in part.partition(":"))
        if tag not in known or not colon:
            example = f"{name}{{{known[0]}:{'refund' if known[0] == 'kind' else '0'}}}"
            raise ValueError(f"{quoted(written)}: {quoted(part.strip())} is not a tag; write for example {example}")
        if tag in found:
            raise ValueError(f"{quoted(written)}: {tag} stands there twice; write one threshold for each")
        if tag == "kind" and value not in KINDS:
            raise ValueError(f"{quoted(written)}: {quoted(value)} is not a kind; {known_words(value, KINDS)}")
        if tag != "kind" and not re.fullmatch(r"[0-9]{1,5}", value):
            raise ValueError(f"{quoted(written)}: {quoted(value)} is not the number of a {tag}; write for example 0")
        found[tag] = value if tag == "kind" else str(int(value))
    if "shard" in found and len(found) > 1:
        raise ValueError(f"{quoted(written)}: shards are not counted by anything else as well; write shard alone")
    return name, tuple((tag, found[tag]) for tag in known if tag in found)


def _example(aggregates: Mapping[str, Measure]) -> str:
    name, measure = next(iter(aggregates.items()))
    limit = _EXAMPLES[measure].split()[0].rstrip(",")
    return f"'{'p(99)' if name == 'p' else name} {'==' if measure is Measure.COUNT else '<'} {limit}'"


def _argument(word: str, written: str | None, expression: str) -> float | None:
    if word != "p":
        if written is not None:
            raise ValueError(f"{expression}: {word} takes nothing in parentheses")
        return _MEDIAN if word == "med" else None
    if written is None or re.fullmatch(_NUMBER, written) is None or not 0 < float(written) <= _PERCENT:
        raise ValueError(f"{expression}: p takes a percentile above 0 and up to 100, for example p(99) or p(99.9)")
    return float(written)


def _window(written: str | None, expression: str) -> int | None:
    if written is None:
        return None
    try:
        length_ns = parse_duration(written)
    except ValueError as error:
        raise ValueError(f"{expression}: {error}") from None
    if length_ns <= 0:
        raise ValueError(f"{expression}: a stretch of {written} holds nothing; write for example 10s")
    return length_ns


def _limit(written: str, measure: Measure, expression: str) -> tuple[float | None, float]:
    """The factor of the baseline's value, and what is added to it or stands alone, in the measure's base unit."""
    if not written.startswith("baseline"):
        return None, _value(written, measure, expression)
    match = _BASELINE.fullmatch(written)
    if match is None:
        raise ValueError(f"{expression}: write the limit as baseline, baseline * 1.10 or baseline + {_first(measure)}")
    factor, sign, added = match.groups()
    bound = _value(added, measure, expression) if added is not None else 0.0
    return float(factor) if factor is not None else 1.0, -bound if sign == "-" else bound


def _first(measure: Measure) -> str:
    return _EXAMPLES[measure].split()[0].rstrip(",")


def _value(written: str, measure: Measure, expression: str) -> float:
    """A limit in the measure's base unit."""
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


def _not_kept(threshold: Threshold) -> str | None:  # noqa: PLR0911  one line for each thing that is not kept
    """What it asks for that no run keeps; None: nothing."""
    metric, aggregate, window = threshold.metric, threshold.aggregate, threshold.window_ns
    if aggregate == "rate" and {"node", "shard"} & dict(threshold.tags).keys():
        return "what was offered is not known by node or shard; write count, or leave the tag out"
    if window is not None:
        if metric == "audit":
            return "the books are checked once, at the end; leave 'for' out"
        if metric == "throughput" and aggregate == "min":
            return "min is of single seconds already; write mean, or leave 'for' out"
        if threshold.tags and (metric in {"rejected", "failed", "unknown", "dropped"} or aggregate == "rate"):
            return "this is counted by kind over the whole run only; leave 'for' or the tag out"
    if threshold.factor is not None:
        if threshold.tags or window is not None:
            return "a baseline is compared as a whole; leave the tag and 'for' out"
        if aggregate not in {"p", "mean", "rate"} or threshold.argument == _PERCENT:
            return "only p(N), mean and rate can be compared with a baseline: chance alone moves single extremes and counts"
        if threshold.operator in {"==", "!="}:
            return "no two runs are equal; compare with a baseline by < <= > or >="
    return None


def _not_early(threshold: Threshold) -> str | None:
    """Why it cannot stop a run that is still going on; None: it can, or need not."""
    if not threshold.abort:
        return None
    if threshold.metric == "audit" or threshold.factor is not None:
        return "this is known only at the end and cannot stop a run; leave abort out"
    if threshold.metric in TIMES | {"throughput", "ok"} and threshold.tags and threshold.tag("shard") is None:
        return "while a run goes on this is not counted by tag; leave the tag or abort out"
    if (
        threshold.measure is Measure.COUNT
        and threshold.window_ns is None
        and threshold.operator not in {"<", "<=", "=="}
    ):
        return "a count only grows, so only a limit above it (< <= ==) can stop a run; leave abort out"
    return None
