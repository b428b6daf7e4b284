"""How much single runs of one build differ by more than their own seconds show: where memory lies, what else the machine does.

One pair of runs cannot tell that from a change. Repeated runs can: `Measured` is the spread that such runs showed, here, of this
scenario. Where there are none, `assumed` is what short runs on a small machine showed (docs/compare.md says how that was found),
and every comparison says which of the two it used. On the virtual clock nothing lies between runs but chance,
which their seconds do show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simulator.compare.samples import OUTCOMES, TIMES
from simulator.compare.welch import combined
from simulator.report.wording import goodput_per_s, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from simulator.compare.metric import Metric

OTHERS_MAX = 0.10  # of all CPU time, used by other processes during a run: up to there the machine was the run's own
STEAL_MAX = 0.01  # likewise, given to other guests; both are where `sim doctor` draws the line
OTHERS_MUCH = 0.50  # beyond, there is no saying whether a run found a free core when it needed one
RUNS_LEAST = 5  # a spread of fewer runs is known less well than the assumed one fits
_SHARE = 0.25  # of a share, as a part of itself: not measured, since short runs of a platform that keeps up have none
_RATE = 0.01  # of goodput: three times what was measured, all of which was chance in the arrivals
_MEAN_AT = 95.0  # a mean follows its tail


Variance = tuple[float, float]  # with its degrees of freedom


class Spread(Protocol):
    """What two single runs differ by beyond their own seconds."""

    def told(self, metrics: Sequence[Metric]) -> str:
        """What it comes to for some metrics (no shares), and where it is from, in words."""

    def widen(self, metric: Metric, level: float, within: Variance | None) -> Variance | None:
        """The variance of a difference of two single runs, with what lies between them; None: nothing is known of it.

        Args:
            metric: what is compared.
            level: its value, the mean of both runs.
            within: what blocks of time show; None: there are too few of them.
        """


@dataclass(frozen=True)
class Assumed:
    """The default, see `assumed`: standard deviations of the logarithm.

    Measured in 72 runs of 8 s of scenarios/smoke.yaml at 10,000/s on two cores, by how much of the machine others had
    meanwhile, and rounded up; docs/compare.md has the table.
    """

    of_machine: str  # in words
    rate: float
    times: tuple[tuple[float, float], ...]  # up to which percentile, how much
    freedom: float  # runs that showed it, less one

    def of(self, metric: Metric, level: float) -> float:
        """The standard deviation of one run."""
        if metric.is_share:
            return _SHARE * level
        if not metric.is_time:
            return self.rate
        at = metric.argument if metric.argument is not None else _MEAN_AT
        return next(spread for percent, spread in self.times if at <= percent)

    def told(self, metrics: Sequence[Metric]) -> str:
        """See `Spread`."""
        each = _listed((metric, self.of(metric, 0.0)) for metric in metrics)
        return (
            f"beyond that single runs are taken to differ by {each}: assumed, not measured here ({self.of_machine}; "
            f"sim run --repeat {RUNS_LEAST} measures it)"
        )

    def widen(self, metric: Metric, level: float, within: Variance | None) -> Variance | None:
        """Adds it: it is what runs differ by beyond their own seconds, which may show anything where there are few of them."""
        return None if within is None else combined([within, (2 * self.of(metric, level) ** 2, self.freedom)])


@dataclass(frozen=True)
class Measured:
    """What repeated runs showed: `found` is the standard deviation of one run by (name, aggregate, percentile)."""

    source: str  # which runs, in words
    runs: int
    found: Mapping[tuple[str, str, float | None], float]

    def of(self, metric: Metric) -> float | None:
        """The standard deviation of one run; of a percentile that summaries do not have, that of the next one up."""
        if metric.aggregate != "p":
            return self.found.get((metric.name, metric.aggregate, None))
        above = [
            (at, spread)
            for (name, _, at), spread in self.found.items()
            if name == metric.name and at is not None and at >= (metric.argument or 0.0)
        ]
        return min(above)[1] if above else None

    def told(self, metrics: Sequence[Metric]) -> str:
        """See `Spread`."""
        each = _listed((metric, spread) for metric in metrics if (spread := self.of(metric)) is not None)
        return f"single runs are taken to differ by at least {each}: measured, {self.source}"

    def widen(self, metric: Metric, level: float, within: Variance | None) -> Variance | None:
        """A floor, not added: whole runs that differ have what their seconds show in it already, and need no blocks."""
        spread = self.of(metric)
        if spread is None:
            return _UNKNOWN.widen(metric, level, within)
        between = (2 * spread**2, self.runs - 1.0)
        return between if within is None else max(within, between)


def assumed(environments: Sequence[Mapping[str, Any]], *, overloaded: bool = False) -> Assumed:
    """The spread that is assumed of runs with these environment.json.

    Args:
        environments: of both runs.
        overloaded: whether one of them was offered more than it could take: its goodput is then not what was asked for, but how
            fast the machine was, and that differs as the median of the times does.
    """
    found = _assumed(most_taken(environments))
    return replace(found, rate=max(found.rate, found.times[0][1])) if overloaded else found


def was_alone(environments: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other process and no other guest had a notable share of the machine in any of the runs."""
    return all(found is not None and _is_alone(*found) for found in map(_taken, environments))


def most_taken(environments: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The most that others had of the machine in one of the runs: (processes, guests); None: it is not known of all."""
    found = [_taken(environment) for environment in environments]
    if not found or any(one is None for one in found):
        return None
    known = [one for one in found if one is not None]
    return max(others for others, _ in known), max(steal for _, steal in known)


def measured(summaries: Sequence[Mapping[str, Any]], source: str) -> Measured:
    """The spread of repeated runs, from their summaries: at least two.

    Percentiles that are nought or missing in one of them are left out.
    """
    found: dict[tuple[str, str, float | None], float] = {}
    for name in TIMES:
        of_runs = [summary.get(f"{name}_ms") or {} for summary in summaries]
        for key in ("mean", "p50", "p90", "p95", "p99", "p99.9"):
            values = [number(times.get(key)) or 0.0 for times in of_runs]
            at = None if key == "mean" else float(key[1:])
            _put(found, (name, "mean" if at is None else "p", at), values)
    _put(found, ("throughput", "mean", None), [goodput_per_s(dict(summary)) or 0.0 for summary in summaries])
    for name in OUTCOMES:
        counts = [summary.get("counts") or {} for summary in summaries]
        ended = [sum(number(one.get(outcome)) or 0.0 for outcome in OUTCOMES) for one in counts]
        shares = [(number(one.get(name)) or 0.0) / max(n, 1.0) for one, n in zip(counts, ended, strict=True)]
        found[name, "rate", None] = float(np.std(shares, ddof=1))
    return Measured(source, len(summaries), found)


def _listed(found: Iterable[tuple[Metric, float]]) -> str:
    """`1% in goodput, 5% in response time p50`."""
    return ", ".join(f"{_percent(math.expm1(spread))} in {metric.label}" for metric, spread in found)


def _percent(part: float) -> str:
    return f"{100 * part:.2g}%" if part < 1 else f"{100 * part:.0f}%"


def _put(
    found: dict[tuple[str, str, float | None], float], key: tuple[str, str, float | None], values: Sequence[float]
) -> None:
    if min(values) > 0:
        found[key] = float(np.std([math.log(value) for value in values], ddof=1))


def _taken(environment: Mapping[str, Any]) -> tuple[float, float] | None:
    noise = environment.get("noise")
    if not isinstance(noise, dict) or (others := number(noise.get("others_share"))) is None:
        return None
    return others, number(noise.get("steal_share")) or 0.0


def _is_alone(others: float, steal: float) -> bool:
    return others <= OTHERS_MAX and steal <= STEAL_MAX


_OWN = Assumed("the machine was the runs' own", _RATE, ((50.0, 0.08), (90.0, 0.15), (99.0, 0.30), (100.0, 0.45)), 18)
_SHARED = Assumed("others had a part of the machine", _RATE, ((50.0, 0.25), (90.0, 0.30), (100.0, 0.45)), 37)
_CROWDED = Assumed("others had most of the machine", _RATE, ((50.0, 0.9), (100.0, 1.1)), 71)
_UNKNOWN = replace(_SHARED, of_machine="how much of the machine others had is not known")


def _assumed(taken: tuple[float, float] | None) -> Assumed:
    if taken is None:
        return _UNKNOWN
    others, steal = taken
    if _is_alone(others, steal):
        return _OWN
    told = f"others had up to {100 * others:.0f}% of the machine"
    if steal > STEAL_MAX:
        told += f", other guests {100 * steal:.0f}%"
    return replace(_CROWDED if others + steal > OTHERS_MUCH else _SHARED, of_machine=told)
