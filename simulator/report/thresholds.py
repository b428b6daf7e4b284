"""Judges a run by its thresholds: what was observed, and whether that is what the scenario asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.scenario.threshold import Measure, Threshold
from simulator.scenario.units import NS_PER_MS

Observe = Callable[[str, str, float | None], float | None]
"""(metric, aggregate, N of p(N)) → the observed value in base units; None: nothing was observed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One threshold and what became of it.

    Attributes:
        metric: what was measured.
        expression: the condition, as the scenario writes it.
        observed: what was measured, for people: `12.3 ms`, `0.4 %`, `no data`.
        value: the same as a number: milliseconds for times, else the base unit; None: nothing was observed.
        passed: whether the condition holds; never where nothing was observed.
    """

    metric: str
    expression: str
    observed: str
    value: float | None
    passed: bool


def judge(thresholds: Iterable[Threshold], observe: Observe) -> list[Judgement]:
    """Judges each threshold, in order.

    Args:
        thresholds: as `Scenario.threshold_list` has them.
        observe: gives what was measured, in base units: ns, transactions, a fraction, per second, a ratio.
    """
    return [_judge(threshold, observe) for threshold in thresholds]


def _judge(threshold: Threshold, observe: Observe) -> Judgement:
    observed = observe(threshold.metric, threshold.aggregate, threshold.argument)
    if observed is None or math.isnan(observed):
        # What was not measured cannot have met anything: a run without traffic must not pass.
        return Judgement(threshold.metric, threshold.expression, "no data", None, passed=False)
    return Judgement(
        metric=threshold.metric,
        expression=threshold.expression,
        observed=_text(observed, threshold.measure),
        value=observed / NS_PER_MS if threshold.measure is Measure.TIME else observed,
        passed=threshold.met_by(observed),
    )


def _text(observed: float, measure: Measure) -> str:
    match measure:
        case Measure.TIME:
            # To the microsecond: a value just past its limit must not read as the limit.
            return f"{_short(observed / NS_PER_MS, 3)} ms"
        case Measure.FRACTION:
            return f"{_short(observed * 100, 4)} %"
        case Measure.RATE:
            return f"{_short(observed, 1)}/s"
        case Measure.RATIO:
            return _short(observed, 3)
        case Measure.COUNT:
            return f"{observed:,.0f}"


def _short(number: float, decimals: int) -> str:
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".")
