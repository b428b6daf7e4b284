"""Runs whose truth is known: times that are autocorrelated over seconds, made without a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.compare.samples import Sample, Times
from simulator.measure.histogram import COUNTS, highest_equivalent_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VALUES = highest_equivalent_ns(np.arange(COUNTS, dtype=np.int64))


# What runs are like, by name: arguments of `synthetic`.
KINDS: dict[str, dict[str, Any]] = {
    "steady": {"persistence": 0.0},
    "autocorrelated": {"persistence": 0.5},
    "strongly autocorrelated": {"persistence": 0.8},
    "spike": {"persistence": 0.5, "trend": True},
    "spike, strongly autocorrelated": {"persistence": 0.8, "trend": True},
    "drifting alike": {"persistence": 0.5, "warming": 0.5},
    "drifting apart": {"persistence": 0.5, "drift": 0.1},
    "heavy-tailed": {"persistence": 0.5, "tail": 1.5},
    "heavy-tailed with stalls": {"persistence": 0.5, "tail": 1.5, "stalls": 0.05},
}


def synthetic(  # each argument is a way in which runs differ
    random: np.random.Generator,
    *,
    slices: int = 60,
    per_slice: int = 2_000,
    persistence: float = 0.6,
    unrest: float = 0.15,
    slower: float = 1.0,
    refused: float = 0.001,
    trend: bool = False,
    warming: float = 0.0,
    drift: float = 0.0,
    tail: float = 0.0,
    stalls: float = 0.0,
) -> Sample:
    """A run of so many seconds, each with about `per_slice` answers.

    Args:
        random: where its chance comes from.
        slices: seconds.
        per_slice: transactions a second, on average.
        persistence: of the level from one second to the next: an AR(1) process, as of a queue that fills and drains.
        unrest: standard deviation of the logarithm of that level.
        slower: by which factor every time is longer than it would be.
        refused: the share refused.
        trend: whether the load climbs and falls, and times with it.
        warming: by how much times are longer (as a logarithm) at the end than at the start, in every run alike.
        drift: likewise by chance: its standard deviation, each run has a slope of its own.
        tail: times follow Pareto's law of this shape from their median on; 0: they are lognormal.
        stalls: the chance of a second that everything in it waits for, up to a second.
    """
    noise = random.normal(size=slices) * unrest * np.sqrt(1 - persistence**2)
    level = np.empty(slices)
    level[0] = random.normal() * unrest
    for second in range(1, slices):
        level[second] = persistence * level[second - 1] + noise[second]
    level += (warming + drift * random.normal()) * np.linspace(-0.5, 0.5, slices)
    shape = 1 + 2 * np.exp(-(((np.arange(slices) - slices / 4) / (slices / 8)) ** 2)) if trend else np.ones(slices)
    offered = random.poisson(per_slice * shape)
    rejected = random.binomial(offered, refused)
    total = int(offered.sum())
    times_ns = 2e6 * ((1 + random.pareto(tail, total)) if tail else random.lognormal(0.0, 0.7, total))
    times_ns *= np.repeat(np.exp(level) * shape * slower, offered)
    stalled = np.repeat(random.random(slices) < stalls, offered)
    times_ns[stalled] += random.uniform(0.0, 1e9, int(stalled.sum()))
    return sample_of(np.minimum(times_ns, 6e10).astype(np.int64), offered, rejected)


def sample_of(times_ns: NDArray[np.int64], offered: NDArray[np.int64], rejected: NDArray[np.int64]) -> Sample:
    """A run of these times, so many in each second, in order."""
    buckets = bucket_of(times_ns)
    used = np.unique(buckets)
    second = np.repeat(np.arange(len(offered)), offered)
    counts = np.zeros((len(offered), len(used)))
    np.add.at(counts, (second, np.searchsorted(used, buckets)), 1.0)
    nothing = np.zeros(len(offered))
    outcomes = {
        "ok": (offered - rejected).astype(np.float64), "rejected": rejected.astype(np.float64),
        "failed": nothing, "unknown": nothing, "dropped": nothing,
    }  # fmt: skip
    return Sample("synthetic", np.ones(len(offered)), outcomes, {"response_time": Times(_VALUES[used], counts)})


def bucket_of(values_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each value: the first whose highest value is not below it."""
    return np.searchsorted(_VALUES, values_ns)
