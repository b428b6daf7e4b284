"""A run's thresholds on a baseline: each fails only with evidence that its limit is passed, all of them together at 5 %.

The question is one-sided: is the run past `baseline * 1.10`, not past the baseline? What lies beyond the limit by no more than
chance could take it there passes, with a word on how much would have been seen. So a gate of several thresholds raises a false
alarm in at most one of twenty runs even where every figure stands exactly at its limit, and hardly ever where nothing changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simulator.compare.comparison import read_both
from simulator.compare.metric import Metric
from simulator.compare.sides import refuse_invalid, what_differs
from simulator.compare.verdict import LEVEL, beyond, holm, said, smallest
from simulator.report.summary import verdict_of
from simulator.report.thresholds import shown, text_of
from simulator.scenario.threshold import TIMES, Threshold, parse_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.compare.comparison import Read
    from simulator.compare.effects import Effect
    from simulator.compare.sides import Side
    from simulator.report.wording import Summary

CHANGE_TOLD_MOST = 1_000  # times; an interval that reaches further is not worth a figure
NOT_KNOWN = "too little was measured to compare it"


def thresholds_on_baseline(items: Sequence[dict[str, Any]]) -> list[Threshold]:
    """Those of a summary's thresholds that name a baseline, parsed, in order."""
    return [parse_threshold(str(item["metric"]), item["expression"]) for item in items if "baseline" in item]


def hold(run: Side, baseline: Side, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Judges thresholds that name a baseline, all together.

    Args:
        run: one run, or repeated ones.
        baseline: what they are held against; its figures must be valid.
        items: of summary.json's `thresholds` those with a `baseline`, at least one.

    Returns:
        The same items with `observed`, `baseline` and `limit` (times in ms), `change` and `smallest_that_would_show` (0.1 is
        10 %, of a share 10 points), `p_adjusted`, `passed` and `note`.

    Raises:
        InvalidRunError: the baseline's figures are not to be believed.
        SimError: a file is missing or cannot be read.
    """
    refuse_invalid(baseline, "the baseline")
    thresholds = thresholds_on_baseline(items)
    measures = sorted({threshold.metric for threshold in thresholds if threshold.metric in TIMES})
    read = read_both(run, baseline, measures)
    effects = [_effect(read, threshold) for threshold in thresholds]
    ps = [1.0 if effect is None else _past(effect, t) for effect, t in zip(effects, thresholds, strict=True)]
    return [
        {**item, **_judged(threshold, effect, p, len(ps))}
        for item, threshold, effect, p in zip(items, thresholds, effects, holm(ps), strict=True)
    ]


def hold_run(summary: Summary, run: Side, baseline: Side) -> Summary:
    """A run's summary with its thresholds on the baseline judged, its verdict with them, and what speaks against comparing."""
    items = [item for item in summary["thresholds"] if "baseline" in item]
    if not items:
        return summary
    judged = iter(hold(run, baseline, items))
    thresholds = [next(judged) if "baseline" in item else item for item in summary["thresholds"]]
    return {
        **summary,
        "thresholds": thresholds,
        "verdict": verdict_of(
            summary["audit"],
            summary["validity"]["verdict"],
            summary["failure"],
            passed=all(item["passed"] for item in thresholds) and not summary.get("tripped"),
        ),
        "baseline": {"name": baseline.name, "started_at": baseline.started_at, "notes": what_differs(run, baseline)},
    }


def _effect(read: Read, threshold: Threshold) -> Effect | None:
    aggregate = "rate" if threshold.aggregate == "rate" else threshold.aggregate
    metric = Metric(threshold.metric, aggregate, threshold.argument)
    return read.effect(metric) if read.knows(metric) else None


def _allowed(effect: Effect, threshold: Threshold) -> float:
    """The limit as a change from the baseline, as `Effect.change` is one; −∞: nothing is allowed at all."""
    limit = limit_of(effect, threshold)
    if effect.metric.is_share:
        return limit - effect.baseline
    return math.log(limit / effect.baseline) if limit > 0 else -math.inf


def limit_of(effect: Effect, threshold: Threshold) -> float:
    """What the threshold comes to with this baseline, in base units."""
    return (threshold.factor or 0.0) * effect.baseline + threshold.limit


def _past(effect: Effect, threshold: Threshold) -> float:
    return beyond(effect, _allowed(effect, threshold), above=threshold.operator in {"<", "<="})


def _judged(threshold: Threshold, effect: Effect | None, p: float, tests: int) -> dict[str, Any]:
    if effect is None:
        return {"passed": True, "note": NOT_KNOWN}
    passed = p > LEVEL
    seen = said(effect, smallest(effect, tests, sides=1))
    return {
        "observed": round(shown(effect.run, threshold.measure), 6),
        "observed_text": text_of(effect.run, threshold.measure),
        "baseline": round(shown(effect.baseline, threshold.measure), 6),
        "limit": round(shown(limit_of(effect, threshold), threshold.measure), 6),
        "change": round(said(effect, effect.change), 6),
        "smallest_that_would_show": round(seen, 6) if math.isfinite(seen) else None,
        "p_adjusted": round(p, 6),
        "passed": passed,
        "note": _note(threshold, effect, seen, passed=passed),
    }


def _note(threshold: Threshold, effect: Effect, seen: float, *, passed: bool) -> str:
    told = f"baseline {text_of(effect.baseline, threshold.measure)}, {change_text(effect, said(effect, effect.change))}"
    if not passed:
        return f"{told}: worse than allowed"
    if not effect.enough:
        return f"{told}: too short for a conclusion"
    if not threshold.met_by(effect.run, effect.baseline):
        told += ": past the limit, but chance alone may do that"
    allowed = abs(said(effect, _allowed(effect, threshold)))
    return told if seen <= allowed else f"{told}; less than {change_text(effect, seen)} would not have shown"


def change_text(effect: Effect, change: float) -> str:
    """A change for people: `+3.2%`, of a share `+0.12 points`."""
    if not math.isfinite(change):
        return "any change"
    if effect.metric.is_share:
        return f"{100 * change:+.3g} points"
    if change > CHANGE_TOLD_MOST:
        return f"more than {CHANGE_TOLD_MOST:,} times"
    return f"{100 * change:+.1f}%" if abs(change) < 10 else f"{1 + change:,.0f} times"  # noqa: PLR2004  readable up to there
