"""Judges a run by its thresholds: what was observed, and whether that is what the scenario asks.

A threshold is a limit for this run's own figures, so it is judged by what was observed, as in k6: without a test, and so without
false alarms that several of them could add up. Those against a baseline are another matter: `simulator.compare.gate` judges
them, all together, and until then they stand as not compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.scenario.threshold import Measure, Threshold
from simulator.scenario.units import NS_PER_MS, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.report.observe import Observe, Stretched

NOT_COMPARED = "not compared with a baseline"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One threshold and what became of it.

    Attributes:
        metric: what was measured, with its tags.
        expression: the condition, as the scenario writes it.
        observed: what was measured, for people: `12.3 ms`, `0.4 %`, `no data`; over stretches of the worst one.
        value: the same as a number: milliseconds for times, else the base unit; None: nothing was observed.
        passed: whether the condition holds; never where nothing was observed.
        baseline: whether it names a baseline.
        aborted_at_s: when crossing it stopped the run; None: it did not.
        note: what else there is to know of it: which stretch, why the run was stopped, what a comparison showed.
    """

    metric: str
    expression: str
    observed: str
    value: float | None
    passed: bool
    baseline: bool = False
    aborted_at_s: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {
            "metric": self.metric,
            "expression": self.expression,
            "observed": self.value if self.value is None else round(self.value, 6),
            "observed_text": self.observed,
            "passed": self.passed,
            **({"note": self.note} if self.note else {}),
            **({"baseline": None} if self.baseline else {}),
            **({"aborted_at_s": round(self.aborted_at_s, 3)} if self.aborted_at_s is not None else {}),
        }


def judge(thresholds: Iterable[Threshold], observe: Observe) -> list[Judgement]:
    """Judges each threshold, in order.

    Args:
        thresholds: as `Scenario.threshold_list` has them.
        observe: gives what was measured.
    """
    return [_judge(threshold, observe) for threshold in thresholds]


def _judge(threshold: Threshold, observe: Observe) -> Judgement:
    if threshold.window_ns is not None:
        return _judge_stretches(threshold, observe.stretched(threshold))
    return judgement_of(threshold, observe.whole(threshold))


def judgement_of(threshold: Threshold, observed: float | None) -> Judgement:
    """The judgement of a value in base units; None or nan: nothing was observed."""
    if observed is None or math.isnan(observed):
        # What was not measured cannot have met anything: a run without traffic must not pass.
        return Judgement(threshold.name, threshold.expression, "no data", None, passed=False)
    compared = threshold.factor is not None
    return Judgement(
        metric=threshold.name,
        expression=threshold.expression,
        observed=text_of(observed, threshold.measure),
        value=shown(observed, threshold.measure),
        passed=compared or threshold.met_by(observed),
        baseline=compared,
        note=NOT_COMPARED if compared else "",
    )


def _judge_stretches(threshold: Threshold, seen: Stretched) -> Judgement:
    """The worst stretch: of those that cross the limit the one furthest beyond it, else the one nearest to it."""
    known = np.flatnonzero(~np.isnan(seen.values))
    if not len(known):
        return judgement_of(threshold, None)
    values = seen.values[known]
    crossed = np.array([not threshold.met_by(float(value)) for value in values])
    distance = np.abs(values - threshold.limit)
    worst = int(known[np.argmax(np.where(crossed, distance, -1.0)) if crossed.any() else np.argmin(distance)])
    found = judgement_of(threshold, float(seen.values[worst]))
    return replace(found, note=f"from {_second(seen.from_s[worst])} to {_second(seen.to_s[worst])}")


def _second(at_s: float) -> str:
    return f"{at_s:.1f}".removesuffix(".0") + " s"


def aborted(threshold: Threshold, observed: float, at_s: float) -> Judgement:
    """The judgement of a threshold that stopped a run, whatever the rest of the run would have shown."""
    found = judgement_of(threshold, observed)
    window = f"over {format_duration(threshold.window_ns)}, " if threshold.window_ns is not None else ""
    return replace(found, note=f"{window}at {_second(at_s)}: the run was stopped", passed=False, aborted_at_s=at_s)


def shown(observed: float, measure: Measure) -> float:
    """A value in base units as summary.json has it: times in milliseconds."""
    return observed / NS_PER_MS if measure is Measure.TIME else observed


def text_of(observed: float, measure: Measure) -> str:
    """A value in base units, for people."""
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
