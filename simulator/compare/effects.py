"""How much one run differs from another in a metric, and how sure that is.

Times and rates are compared by their ratio, shares (of what was refused, failed …) by their difference, because nought has no
ratio. The estimate is always of the whole run: merged histograms and sums, never an average over slices.

Its standard error comes from resampling (`blocks`): of two runs by blocks of time, of repeated runs by leaving out one run
after the other. Then Student's t with as many degrees of freedom as there were blocks that the figure comes from, less one: few
blocks say little about how much blocks differ, and a normal quantile would forget that. What two runs differ by beyond
what their own time shows is no block's to tell: `spreads` has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulator.compare import blocks
from simulator.compare.samples import OUTCOMES, Sample, merged
from simulator.compare.welch import combined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.compare.metric import Metric
    from simulator.compare.spreads import Spread

    Numbers = NDArray[np.float64]

RESAMPLES = 1_000  # the standard error itself is then known to 2 %
BLOCKS_LEAST = 2.0  # independent ones that a figure comes from: of fewer nothing is known about how much blocks differ
FREEDOM_LEAST = (
    2.0  # below, a t-distribution has no variance, and what it says is more about itself than about the runs
)
BEYOND_LEAST = 10  # values beyond a percentile, or it is the maximum under another name
RESOLUTION = 2 / 1_024  # of a ratio of two times: either is known within a bucket of its histogram
_PERCENT = 100.0


@dataclass(frozen=True)
class Effect:
    """A difference: `change` is the logarithm of run over baseline, of a share run less baseline; `error` its standard error."""

    metric: Metric
    run: float  # in base units: ns, per second, a share
    baseline: float
    change: float
    error: float
    freedom: float  # degrees of freedom of the error
    enough: bool  # whether there was enough to conclude anything from


def known_in(sample: Sample, metric: Metric) -> bool:
    """Whether a run says anything of a metric: enough values beyond a percentile, anything at all otherwise."""
    if metric.is_time:
        times = sample.times.get(metric.name)
        if times is None:
            return False
        beyond = 1 - metric.argument / _PERCENT if metric.argument is not None else 1.0
        return times.total * beyond >= BEYOND_LEAST
    return sum(float(counts.sum()) for counts in sample.outcomes.values()) > 0


def estimate(sample: Sample, metric: Metric, weights: Numbers) -> Numbers:
    """The metric where each slice counts `weights[r, k]` times: float64 (R, K) → (R,), in base units."""
    if metric.is_time:
        times = sample.times[metric.name]
        if metric.aggregate == "mean":
            sums = times.counts @ times.values_ns.astype(np.float64)
            means: Numbers = (weights @ sums) / np.maximum(weights @ times.counts.sum(axis=1), 1)
            return means
        return _percentile(times.values_ns, weights @ times.counts, metric.argument)
    if metric.name == "throughput":
        # Of a run without any answer half of one is taken, so that there is a ratio.
        rates: Numbers = np.maximum(weights @ sample.outcomes["ok"], 0.5) / (weights @ sample.seconds)
        return rates
    ended = weights @ np.sum([sample.outcomes[name] for name in OUTCOMES], axis=0)
    shares: Numbers = (weights @ sample.outcomes[metric.name]) / np.maximum(ended, 1)
    return shares


def resampled(sample: Sample, metric: Metric, weights: Numbers) -> Numbers:
    """As `estimate`, for many weights: a percentile is found within a group of values, where `estimate` is exact."""
    if not metric.is_time or metric.aggregate == "mean":
        return estimate(sample, metric, weights)
    grouped = sample.times[metric.name].grouped
    counts = weights @ grouped.counts
    upto = np.cumsum(counts, axis=1)
    rank = np.maximum((metric.argument or 0.0) / _PERCENT * upto[:, -1], 1e-9)
    at = np.minimum((upto < rank[:, None]).sum(axis=1), upto.shape[1] - 1)
    rows = np.arange(len(weights))
    inside = counts[rows, at]
    part = np.where(inside > 0, 1 - (upto[rows, at] - rank) / np.maximum(inside, 1e-9), 1.0)
    found: Numbers = np.exp(grouped.low[at] + np.clip(part, 0.0, 1.0) * (grouped.high[at] - grouped.low[at]))
    return found


def _percentile(values_ns: NDArray[np.int64], counts: Numbers, percent: float | None) -> Numbers:
    """By the rank that `Histogram.percentile_ns` takes; (R, V) → (R,)."""
    below = np.cumsum(counts, axis=1)
    rank = np.maximum(1.0, np.floor((percent or 0.0) / _PERCENT * below[:, -1] + 0.5))
    at = np.minimum((below < rank[:, None]).sum(axis=1), len(values_ns) - 1)
    found: Numbers = np.maximum(values_ns[at], 1).astype(np.float64)
    return found


def influence(sample: Sample, metric: Metric) -> Numbers:
    """How much each slice moves the estimate, to first order and up to a factor: whose autocorrelation sets the block length.

    Of a percentile q that is (how many of the slice's values lie beyond it, less their share) over the density there
    (the Bahadur representation), the density taken from the quantile function's slope.
    """
    moved: Numbers
    if metric.name == "throughput":
        counted = sample.outcomes["ok"]
        moved = counted / max(counted.sum(), 1) - sample.seconds / sample.seconds.sum()
        return moved * sample.slices
    if metric.is_share:
        counted = sample.outcomes[metric.name]
        ended = np.sum([sample.outcomes[name] for name in OUTCOMES], axis=0)
        moved = (counted - ended * (counted.sum() / max(ended.sum(), 1))) / max(ended.sum(), 1)
        return moved * sample.slices
    times = sample.times[metric.name]
    totals = times.counts.sum(axis=1)
    if metric.aggregate == "mean":
        sums = times.counts @ times.values_ns.astype(np.float64)
        moved = (sums - totals * (sums.sum() / totals.sum())) / sums.sum()
        return moved * sample.slices
    part = (metric.argument or 0.0) / _PERCENT
    whole = times.counts.sum(axis=0, keepdims=True)
    reach = min(part, 1 - part) / 4
    low, here, high = (
        _percentile(times.values_ns, whole, _PERCENT * at)[0] for at in (part - reach, part, part + reach)
    )
    slope = max(math.log(high / low), RESOLUTION) / (2 * reach) if reach else 1.0
    beyond = times.counts[:, times.values_ns > here].sum(axis=1)
    moved = (beyond - totals * (1 - part)) * (slope / max(totals.sum(), 1))
    return moved * sample.slices


def leverage(sample: Sample, metric: Metric) -> Numbers:
    """How many values of each slice the figure comes from: of a percentile those of the tail that is twice as large; (K,)."""
    if metric.name == "throughput":
        return sample.outcomes["ok"]
    if metric.is_share:
        return sample.outcomes[metric.name]
    times = sample.times[metric.name]
    if metric.aggregate == "mean":
        sums: Numbers = times.counts @ times.values_ns.astype(np.float64)
        return sums
    percent = metric.argument or 0.0
    above = percent >= _PERCENT / 2
    whole = times.counts.sum(axis=0, keepdims=True)
    edge = _percentile(times.values_ns, whole, _PERCENT - 2 * (_PERCENT - percent) if above else 2 * percent)[0]
    counted: Numbers = times.counts[:, times.values_ns >= edge if above else times.values_ns <= edge].sum(axis=1)
    return counted


def by_blocks(
    run: Sample, baseline: Sample, metric: Metric, *, paired: bool, spread: Spread | None, seed: int = 1
) -> Effect:
    """The difference of two single runs, from blocks of their time.

    Args:
        run: the one to judge, and
        baseline: the one to judge it by.
        metric: what is compared.
        paired: both were asked for the same rate at the same time, so the same blocks are drawn from either: what the load
            itself does to the figures then cancels. Their slices must agree.
        spread: how much runs differ beyond what their own time shows: on a real machine; None in a simulation.
        seed: of the resampling, so that a comparison can be repeated.
    """
    random = np.random.default_rng(seed)
    sides = [(sample, influence(sample, metric), leverage(sample, metric)) for sample in (run, baseline)]
    if paired:
        (_, of_run, here_from), (_, of_baseline, there_from) = sides
        found = _Blocks.of(of_run - of_baseline, here_from + there_from)
        weights = blocks.draw(run.slices, found.length, RESAMPLES, random)
        drawn = _change(metric, resampled(run, metric, weights), resampled(baseline, metric, weights))
        within, fewest = (found.variance(drawn), max(found.count - 1, 1.0)), found.count
    else:
        parts, counts = [], []
        for sample, series, comes_from in sides:
            found = _Blocks.of(series, comes_from)
            estimates = resampled(sample, metric, blocks.draw(sample.slices, found.length, RESAMPLES, random))
            parts.append((found.variance(estimates if metric.is_share else np.log(estimates)), found.count - 1))
            counts.append(found.count)
        within, fewest = combined(parts), min(counts)
    here, there = _whole(run, metric), _whole(baseline, metric)
    known = within if fewest >= BLOCKS_LEAST else None
    if spread is not None:
        known = spread.widen(metric, (here + there) / 2, known)
    variance, freedom = known or within
    change = float(_change(metric, np.array([here]), np.array([there]))[0])
    enough = known is not None and freedom >= FREEDOM_LEAST
    return Effect(metric, here, there, change, math.sqrt(variance), freedom, enough=enough)


@dataclass(frozen=True)
class _Blocks:
    """How a series is cut into blocks, and what these are worth.

    Attributes:
        length: in slices.
        effective: how many blocks the figure comes from.
        short: by how much they understate the variance.
    """

    length: int
    effective: float
    short: float

    @classmethod
    def of(cls, series: Numbers, comes_from: Numbers) -> _Blocks:
        length = blocks.block_length(series)
        short = blocks.shortfall(series, length, blocks.effective(comes_from, 1))
        return cls(length, blocks.effective(comes_from, length), short)

    @property
    def count(self) -> float:
        """How many that are independent of one another."""
        return self.effective / self.short

    def variance(self, drawn: Numbers) -> float:
        """Of what the resampled estimates are of.

        A figure that comes from m blocks is resampled about its own value, which takes one of the m away, as it does from a
        variance about the sample's own mean: resamples spread less than runs do, by (m − 1)/m.
        """
        m = max(self.effective, BLOCKS_LEAST)
        return float(np.var(drawn)) * m / (m - 1) * self.short


def by_runs(runs: Sequence[Sample], baselines: Sequence[Sample], metric: Metric) -> Effect:
    """The difference of repeated runs, from how much the runs of each side differ: at least two on one side.

    The jackknife over runs: the metric of all but one, for each. It needs no assumption about what happens within a run, and
    sees what lies between runs as well. A side of one run is taken to scatter as the other does.
    """
    sides = [_leave_one_out(side, metric) for side in (runs, baselines)]
    many = [(scatter, n) for _, scatter, n in sides if n > 1]
    if not many:
        raise ValueError("two single runs are compared by blocks of time")
    if len(many) == 1:
        scatter, n = many[0]
        variance = scatter * sum(1 / count for _, _, count in sides)
        freedom = float(n - 1)
    else:
        variance, freedom = combined([(scatter / n, n - 1.0) for scatter, n in many])
    here, there = sides[0][0], sides[1][0]
    change = float(_change(metric, np.array([here]), np.array([there]))[0])
    return Effect(metric, here, there, change, math.sqrt(variance), freedom, enough=True)


def _leave_one_out(side: Sequence[Sample], metric: Metric) -> tuple[float, float, int]:
    """The estimate of all runs together, the variance of a single one about it, and how many there are."""
    together, of_run = merged(side, side[0].name)
    n = len(side)
    everything = np.ones((1, together.slices))
    whole = float(estimate(together, metric, everything)[0])
    if n == 1:
        return whole, 0.0, 1
    without = (of_run[None, :] != np.arange(n)[:, None]).astype(np.float64)
    left = estimate(together, metric, without)
    scale = (lambda x: x) if metric.is_share else np.log
    pseudo = n * scale(np.array(whole)) - (n - 1) * scale(left)
    return whole, float(np.var(pseudo, ddof=1)), n


def _whole(sample: Sample, metric: Metric) -> float:
    return float(estimate(sample, metric, np.ones((1, sample.slices)))[0])


def _change(metric: Metric, run: Numbers, baseline: Numbers) -> Numbers:
    return run - baseline if metric.is_share else np.log(run / baseline)
