"""Runs held against a baseline: which metrics, by what method, and what is concluded of all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.compare.differences import same_load
from simulator.compare.effects import BEYOND_LEAST, by_blocks, by_runs, known_in
from simulator.compare.metric import Metric
from simulator.compare.samples import merged
from simulator.compare.sides import refuse_invalid, what_differs
from simulator.compare.spreads import RUNS_LEAST, assumed
from simulator.compare.stored import spread_for
from simulator.compare.verdict import LEVEL, POWER, Finding, judge, overall
from simulator.report.wording import duration

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from simulator.compare.effects import Effect
    from simulator.compare.samples import Sample
    from simulator.compare.sides import Side
    from simulator.compare.spreads import Spread
    from simulator.compare.verdict import Word

SHARES = ("rejected", "failed", "unknown", "dropped")
METRICS = (
    Metric("throughput", "mean"),
    *(Metric("response_time", "p", percent) for percent in (50.0, 90.0, 99.0, 99.9)),
    *(Metric(share, "rate") for share in SHARES),
)
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Comparison:
    """One run, or repeated ones, against the baseline."""

    run: Side
    baseline: Side
    method: str  # in words
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def word(self) -> Word:
        """What all findings come to."""
        return overall(self.findings)

    def as_json(self) -> dict[str, Any]:
        """As `sim compare --json` prints it: times in ms, changes as parts of one; null: without bound or not known."""
        return {
            "run": self.run.name,
            "baseline": self.baseline.name,
            "verdict": self.word,
            "method": self.method,
            "notes": list(self.notes),
            "metrics": [_row(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class Read:
    """Both sides' samples, cut to what they have in common, and how they are to be compared."""

    runs: Sequence[Sample]
    baselines: Sequence[Sample]
    paired: bool
    spread: Spread | None  # of single runs on a real machine
    method: str
    notes: list[str] = field(default_factory=list)

    @property
    def repeated(self) -> bool:
        """Whether a side has more than one run."""
        return len(self.runs) > 1 or len(self.baselines) > 1

    def effect(self, metric: Metric) -> Effect:
        """The difference in one metric, which must be known of both."""
        if self.repeated:
            return by_runs(self.runs, self.baselines, metric)
        return by_blocks(self.runs[0], self.baselines[0], metric, paired=self.paired, spread=self.spread)

    def knows(self, metric: Metric) -> bool:
        """Whether both sides say enough of it."""
        return all(
            known_in(merged(side, "")[0] if len(side) > 1 else side[0], metric) for side in (self.runs, self.baselines)
        )

    def has_any(self, metric: Metric) -> bool:
        """Whether a share is above nought anywhere: if not there is nothing to compare."""
        samples = (*self.runs, *self.baselines)
        return not metric.is_share or any(sample.outcomes[metric.name].any() for sample in samples)


def read_both(run: Side, baseline: Side, measures: Collection[str] = ("response_time",)) -> Read:
    """Reads both sides, and decides how they are compared."""
    runs, others = run.samples(measures), baseline.samples(measures)
    notes: list[str] = []
    if len(runs) > 1 or len(others) > 1:
        method = f"{_runs(len(runs))} against {_runs(len(others))}, by how much runs differ from one another"
        return Read(runs, others, paired=False, spread=None, method=method)
    (here,), (there,) = runs, others
    paired = same_load(run.scenario, baseline.scenario) and abs(here.slice_s - there.slice_s) < 1e-6 * here.slice_s
    if paired and here.slices != there.slices:
        common = min(here.slices, there.slices)
        here, there = here.until(common), there.until(common)
        notes.append(f"compared over the first {duration(here.duration_s)}, which both have")
    spread: Spread | None = None
    if not (run.simulated and baseline.simulated):
        spread = spread_for(run, baseline) or assumed(
            [run.environment, baseline.environment], overloaded=run.overloaded or baseline.overloaded
        )
    drawn = "the same blocks of time drawn from both" if paired else "blocks of time drawn from each"
    method = f"one run against another, {drawn}; {_told(spread)}"
    return Read([here], [there], paired=paired, spread=spread, method=method, notes=notes)


def _told(spread: Spread | None) -> str:
    """What was taken for the spread between runs, for people."""
    if spread is None:
        return "on the virtual clock nothing else is taken to differ between two runs"
    return spread.told([METRICS[0], METRICS[1], METRICS[3]])


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def compare(runs: Sequence[Side], baseline: Side, *, force: bool = False) -> list[Comparison]:
    """Holds each of some runs against the baseline; all metrics of all of them are judged together.

    Raises:
        InvalidRunError: the figures of one are not to be believed, unless `force`.
        SimError: a file of one is missing or cannot be read.
    """
    if not force:
        refuse_invalid(baseline, "the baseline")
        for run in runs:
            refuse_invalid(run, "the run")
    read = [read_both(run, baseline) for run in runs]
    effects = [
        [pair.effect(metric) for metric in METRICS if pair.has_any(metric) and pair.knows(metric)] for pair in read
    ]
    findings = iter(judge([effect for pair in effects for effect in pair]))
    compared = []
    for run, pair, found in zip(runs, read, effects, strict=True):
        notes = (*what_differs(run, baseline), *pair.notes, *_few(pair, found))
        compared.append(Comparison(run, baseline, pair.method, tuple(next(findings) for _ in found), notes))
    return compared


def _few(pair: Read, effects: Sequence[Effect]) -> list[str]:
    """What was left out because there was too little of it, and what is shown but decides nothing."""
    left = [metric.label for metric in METRICS if metric.is_time and not pair.knows(metric)]
    told = [f"left out, with fewer than {BEYOND_LEAST} values beyond: {', '.join(left)}"] if left else []
    if short := [effect.metric.label for effect in effects if not effect.enough]:
        those = "all of it" if len(short) == len(effects) else ", ".join(short)
        told.append(
            f"too short for a conclusion: {those}; that comes from too few stretches of time that are independent: run longer, "
            f"or repeat (sim run --repeat {RUNS_LEAST})"
        )
    return told


def _row(finding: Finding) -> dict[str, Any]:
    effect, scale = finding.effect, _NS_PER_MS if finding.effect.metric.is_time else 1.0
    unit = "ms" if effect.metric.is_time else "share" if effect.metric.is_share else "per_s"
    return {
        "metric": effect.metric.label,
        "unit": unit,
        "baseline": round(effect.baseline / scale, 6),
        "run": round(effect.run / scale, 6),
        "difference": round((effect.run - effect.baseline) / scale, 6),
        "change": _finite(finding.change),
        "interval": [_finite(finding.low), _finite(finding.high)],
        "smallest_that_would_show": _finite(finding.smallest),
        "p_adjusted": _finite(finding.p),
        "verdict": finding.word,
        "level": LEVEL,
        "power": POWER,
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
