"""How much one run differs from another in a metric, and how sure that is.

Times and rates are compared by their ratio, shares (of what was refused, failed …) by their difference, because nought has no
ratio. The estimate is always of the whole run: merged histograms and sums, never an average over slices.

Its standard error comes from resampling (`blocks`): of two runs by blocks of time, of repeated runs by leaving out one run
after the other. Then Student's t with as many degrees of freedom as there were blocks, less one: few blocks say little about
how much blocks differ, and a normal quantile would forget that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulator.compare import blocks
from simulator.compare.samples import OUTCOMES, TIMES, Sample, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RESAMPLES = 1_000  # the standard error itself is then known to 2 %
BLOCKS_LEAST = 6  # fewer that are independent, and nothing is concluded from blocks of time
BEYOND_LEAST = 10  # values beyond a percentile, or it is the maximum under another name
RESOLUTION = 2 / 1_024  # of a ratio of two times: either is known within a bucket of its histogram
_PERCENT = 100.0

# How much two runs of one build differ beyond what their own seconds show: where memory lies, what else the machine does,
# how warm the disk is. Standard deviation of the logarithm (of a share: of itself), by what is compared. Only repeated runs can
# measure it; for single ones this is assumed, on the cautious side, and the output says so. What a machine really shows is
# printed by `benchmarks/bench_compare_aa.py`.
SPREAD_RATE = 0.01
SPREAD_SHARE = 0.25
SPREAD_TIMES = ((50.0, 0.05), (90.0, 0.08), (95.0, 0.12), (99.0, 0.20), (100.0, 0.35))


@dataclass(frozen=True)
class Metric:
    """What is compared: `aggregate` is `p` (of `argument`), `mean` or `rate`, as in thresholds."""

    name: str  # response_time, service_time, schedule_lag, throughput, ok, rejected, failed, unknown, dropped
    aggregate: str
    argument: float | None = None

    @property
    def is_time(self) -> bool:
        """Whether it is a time, in ns."""
        return self.name in TIMES

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what ended; compared by difference."""
        return self.name in OUTCOMES

    @property
    def more_is_better(self) -> bool:
        """Whether a rise is good news."""
        return self.name in {"throughput", "ok"}

    @property
    def label(self) -> str:
        """What people call it: `response time p99`."""
        words = self.name.replace("_", " ")
        if self.aggregate == "p":
            return f"{words} p{self.argument:g}"
        return {"throughput": "goodput", "mean": f"{words} mean"}.get(
            self.name if self.name == "throughput" else self.aggregate, words
        )

    @property
    def spread(self) -> float:
        """How much two runs of one build are taken to differ, see SPREAD_TIMES."""
        if self.is_share:
            return SPREAD_SHARE
        if not self.is_time:
            return SPREAD_RATE
        at = self.argument if self.argument is not None else 95.0  # a mean follows its tail
        return next(spread for percent, spread in SPREAD_TIMES if at <= percent)


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


def by_blocks(run: Sample, baseline: Sample, metric: Metric, *, paired: bool, spread: bool, seed: int = 1) -> Effect:
    """The difference of two single runs, from blocks of their time.

    Args:
        run: the one to judge, and
        baseline: the one to judge it by.
        metric: what is compared.
        paired: both were asked for the same rate at the same time, so the same blocks are drawn from either: what the load
            itself does to the figures then cancels. Their slices must agree.
        spread: whether runs differ beyond what their own time shows (`Metric.spread`): on a real machine, not in a simulation.
        seed: of the resampling, so that a comparison can be repeated.
    """
    random = np.random.default_rng(seed)
    of_run, of_baseline = influence(run, metric), influence(baseline, metric)
    if paired:
        series = of_run - of_baseline
        length = blocks.block_length(series)
        weights = blocks.draw(run.slices, length, RESAMPLES, random)
        drawn = _change(metric, resampled(run, metric, weights), resampled(baseline, metric, weights))
        short = blocks.shortfall(series, length)
        count = run.slices / length / short  # as many as are independent of one another
        variance = _variance(drawn, run.slices / length) * short
        freedom = max(count - 1, 1.0)
        fewest = count
    else:
        parts = []
        for sample, series in ((run, of_run), (baseline, of_baseline)):
            length = blocks.block_length(series)
            estimates = resampled(sample, metric, blocks.draw(sample.slices, length, RESAMPLES, random))
            short = blocks.shortfall(series, length)
            spread_of = _variance(estimates if metric.is_share else np.log(estimates), sample.slices / length)
            parts.append((spread_of * short, sample.slices / length / short))
        variance, freedom = _together(parts)
        fewest = min(count for _, count in parts)
    here, there = _whole(run, metric), _whole(baseline, metric)
    if spread:
        width = metric.spread * ((here + there) / 2 if metric.is_share else 1.0)
        variance, freedom = _with_spread(variance, freedom, 2 * width**2)
    change = float(_change(metric, np.array([here]), np.array([there]))[0])
    return Effect(metric, here, there, change, math.sqrt(variance), freedom, enough=fewest >= BLOCKS_LEAST)


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
        variance, freedom = _together([(scatter / n, float(n)) for scatter, n in many])
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


def _variance(drawn: Numbers, count: float) -> float:
    """Of resampled estimates; a sample of `count` blocks spreads less than what it is drawn from, by (count − 1)/count."""
    return float(np.var(drawn)) * (count / (count - 1) if count > 1 else 1.0)


def _together(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The variance of a difference of independent estimates, and its degrees of freedom (Welch and Satterthwaite)."""
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return 0.0, max(sum(count - 1 for _, count in parts), 1.0)
    below = sum(part**2 / max(count - 1, 1.0) for part, count in parts)
    return variance, max(variance**2 / below, 1.0)


def _with_spread(variance: float, freedom: float, spread: float) -> tuple[float, float]:
    """Adds a variance that is taken as known, which raises the degrees of freedom (Satterthwaite)."""
    if variance <= 0:
        return spread, max(freedom, 1.0)
    return variance + spread, freedom * ((variance + spread) / variance) ** 2
