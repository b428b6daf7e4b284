"""Whether a run's measurement may be believed: valid, generator-limited or inconclusive, with reasons.

A generator that cannot keep up measures itself. It shows in three ways: transactions it could not send at all, transactions it
sent late, and a dispatching process that was busy all the time. Each has one stated limit here. Whether the money is there is
not asked here but by the audit: figures may be sound though nobody could look into the books.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.measure.histogram import Histogram
    from simulator.measure.recorder import Tallies

BUSY_SHARE = 0.95  # of one core, in a second
BUSY_SECONDS_MAX = 0.1  # of the run's seconds
ANSWERS_MIN = 100  # fewer, and a p99 is no more than the maximum


@dataclass(frozen=True)
class Validity:
    """The verdict and why."""

    verdict: str  # valid | generator-limited | inconclusive
    reasons: list[str] = field(default_factory=list)


def judge(
    tallies: Tallies, lag: Histogram, *, seconds: int, lag_limit_ns: int, interrupted: bool, lost: Sequence[str] = ()
) -> Validity:  # fmt: skip
    """Judges a finished run of `seconds`; `lag_limit_ns` is what the p99 of its schedule lag may be.

    `lost` tells of generators that ended before their time: without them the load was not the scenario's.
    """
    limited = [*lost]
    dropped = int(tallies.answered[:, Status.DROPPED].sum())
    if dropped:
        limited.append(f"{dropped:,} transactions were never sent: the generator could not")
    lag_p99 = lag.percentile_ns(99)
    if lag_p99 is not None and lag_p99 > lag_limit_ns:
        limited.append(
            f"1 % of the transactions were sent {lag_p99 / 1e6:.1f} ms late or more; up to {lag_limit_ns / 1e6:.0f} ms "
            "is taken as on time"
        )
    busy = int(np.count_nonzero(tallies.cpu_ns[:seconds] > BUSY_SHARE * 1e9))
    if seconds and busy > BUSY_SECONDS_MAX * seconds:
        limited.append(f"the dispatching process had no CPU time to spare in {busy} of {seconds} seconds")
    if limited:
        return Validity("generator-limited", limited)
    open_points = []
    if interrupted:
        open_points.append("the run was interrupted before its end")
    if lag.total < ANSWERS_MIN:
        open_points.append(f"{lag.total:,} transactions were sent; percentiles need at least {ANSWERS_MIN:,}")
    return Validity("inconclusive" if open_points else "valid", open_points)
