"""Better, worse, or no evidence: differences judged all together, with what could have been seen at all.

Several metrics are several chances to be fooled. Holm's step-down procedure (S. Holm, "A simple sequentially rejective multiple
test procedure", Scandinavian Journal of Statistics 6, 1979) keeps the chance of even one false alarm among all of them at 5 %,
whatever the dependence between them, and percentiles of one run depend on one another a great deal. Benjamini and Hochberg's
would find a little more, but promises only that few of the alarms are false: once one metric has really changed, others
may be called worse that did not. For a gate a false alarm costs more than a missed nuance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scipy.special import stdtr, stdtrit

from simulator.compare.effects import RESOLUTION, Effect

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.05  # the chance of any false alarm in a comparison
POWER = 0.80  # of seeing a difference of the size that is called the smallest

_CHANGE_MOST = math.log(1_000)  # who can only see a thousandfold change can see none

Word = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Finding:
    """What is concluded of one difference. Changes are as people say them: 0.05 is 5 % more, of a share 5 points more."""

    effect: Effect
    change: float
    low: float  # the 95 % interval of this metric by itself
    high: float
    smallest: float  # the smallest change that would have been seen, four times in five
    p: float  # that chance alone shows so much in one of the metrics, all of them considered
    word: Word


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: each is the level at which its hypothesis would be rejected."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min((len(ps) - rank) * ps[at], 1.0))
        adjusted[at] = highest
    return adjusted


def two_sided(effect: Effect) -> float:
    """That chance alone shows so large a difference, of this metric by itself."""
    if not effect.enough or is_too_small(effect):
        return 1.0
    if effect.error <= 0:
        return 0.0  # it never varied, and yet it differs
    return float(2 * stdtr(effect.freedom, -abs(effect.change) / effect.error))


def beyond(effect: Effect, change: float, *, above: bool) -> float:
    """That chance alone takes a run so far past `change` (one-sided), which is where the baseline's limit lies."""
    if not effect.enough:
        return 1.0
    past = effect.change - change if above else change - effect.change
    if past <= 0 or (not effect.metric.is_share and past <= RESOLUTION):
        return 1.0
    return float(stdtr(effect.freedom, -past / effect.error)) if effect.error > 0 else 0.0


def is_too_small(effect: Effect) -> bool:
    """Whether a difference is within what histograms can tell apart, or none at all."""
    return abs(effect.change) <= (RESOLUTION if effect.metric.is_time else 0.0) or effect.change == 0


def smallest(effect: Effect, tests: int, *, sides: int = 2) -> float:
    """The smallest change, as `Effect.change`, that this pair would have shown with POWER among so many tests.

    (t of the first step of Holm's procedure + t of the power) × standard error: H. S. Bloom, "Minimum detectable effects",
    Evaluation Review 19, 1995.
    """
    if not effect.enough:
        return math.inf
    most = 1.0 if effect.metric.is_share else _CHANGE_MOST
    needed = stdtrit(effect.freedom, 1 - LEVEL / (sides * max(tests, 1))) + stdtrit(effect.freedom, POWER)
    least = float(needed) * effect.error
    return least if least <= most else math.inf


def judge(effects: Sequence[Effect]) -> list[Finding]:
    """What is concluded of each difference, all of them considered."""
    adjusted = holm([two_sided(effect) for effect in effects])
    return [_finding(effect, p, len(effects)) for effect, p in zip(effects, adjusted, strict=True)]


def _finding(effect: Effect, p: float, tests: int) -> Finding:
    reach = float(stdtrit(effect.freedom, 1 - LEVEL / 2)) * effect.error
    word: Word = "no evidence"
    if p <= LEVEL:
        word = "better" if (effect.change > 0) == effect.metric.more_is_better else "worse"
    return Finding(
        effect=effect,
        change=said(effect, effect.change),
        low=said(effect, effect.change - reach) if effect.enough else -math.inf,
        high=said(effect, effect.change + reach) if effect.enough else math.inf,
        smallest=said(effect, smallest(effect, tests)),
        p=p,
        word=word,
    )


def said(effect: Effect, change: float) -> float:
    """A change as people say it: of a logarithm the part that was added."""
    if effect.metric.is_share or change == math.inf:
        return change
    return math.expm1(min(change, 700.0))  # beyond, no float holds it


def overall(findings: Sequence[Finding]) -> Word:
    """Worse if anything is, else better if anything is."""
    words = {finding.word for finding in findings}
    return "worse" if "worse" in words else "better" if "better" in words else "no evidence"
