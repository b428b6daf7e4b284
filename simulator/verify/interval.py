"""Confidence from independent replications: what an average is worth.

Within one simulation neighbouring customers are correlated, so a standard error over customers would be far too small. Whole
replications with seeds of their own are independent, and Student's t over their means is an honest interval (A. Law, "Simulation
Modeling and Analysis", 5th edition, 2015, section 9.4). Many intervals are judged together, so each is widened by Bonferroni's
inequality until all of them hold at once with the confidence asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Interval:
    """An estimate with what it may be off by."""

    mean: float
    half_width: float

    def holds(self, expected: float) -> bool:
        """Whether a value lies inside, rounding aside."""
        return abs(self.mean - expected) <= self.half_width + 1e-9 * abs(expected)

    @property
    def relative(self) -> float:
        """The half width as a share of the estimate."""
        return self.half_width / abs(self.mean) if self.mean else float("inf")


def each_of(checks: int, confidence: float) -> float:
    """The confidence that each of `checks` intervals needs for all to hold together with `confidence`."""
    return 1.0 - (1.0 - confidence) / max(checks, 1)


def of_replications(means: Sequence[float], confidence: float) -> Interval:
    """The mean of replications, with Student's t.

    Args:
        means: one value from each of at least two independent replications.
        confidence: that the interval covers the truth, in (0, 1).
    """
    values = np.asarray(means, np.float64)
    if len(values) < 2:  # noqa: PLR2004  a spread needs two
        raise ValueError(f"{len(values)} replication tells nothing about its own spread; make two or more")
    t = float(stdtrit(len(values) - 1, 0.5 + confidence / 2.0))
    return Interval(float(values.mean()), t * float(values.std(ddof=1)) / sqrt(len(values)))
