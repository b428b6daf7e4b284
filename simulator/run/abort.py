"""Thresholds that may stop a run: judged while it goes on, from the counts that the engine shares.

Over the whole run so far they see what the end of it would. Over a stretch, times are those of the answers that came within it:
by the intended time, as a finished run is judged, they are known only when the engine hands over its histograms.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulator.measure.grid import NS_PER_S
from simulator.measure.histogram import COUNTS, Histogram
from simulator.measure.validity import ANSWERS_MIN
from simulator.report.observe import Observations, aggregate_ns
from simulator.report.thresholds import Judgement, aborted
from simulator.scenario.threshold import TIMES, Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.measure.recorder import Tallies
    from simulator.scenario.threshold import Threshold

EARLIEST_NS = NS_PER_S  # before that a rate is the rate of a start
_KEPT = 60  # moments of a stretch: it is sixty times as long as the time between two of them, or a minute and a second
_MEASURES = ("response_time", "service_time", "schedule_lag")


@dataclass
class _Recent:
    """The times of the answers of the last while: the run's histogram at moments past, sparse, and taken from it now."""

    length_ns: int
    moments: deque[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=deque)

    def look(self, now_ns: int, totals: NDArray[np.int64]) -> Histogram | None:
        """The histogram of what was added to `totals` within the stretch that ends now; None: it is not full yet."""
        apart_ns = max(self.length_ns // _KEPT, NS_PER_S)
        if not self.moments or now_ns - self.moments[-1][0] >= apart_ns:
            used = np.flatnonzero(totals)
            self.moments.append((now_ns, used, totals[used]))
        while len(self.moments) > 1 and now_ns - self.moments[1][0] >= self.length_ns:
            self.moments.popleft()
        then_ns, buckets, counts = self.moments[0]
        if now_ns - then_ns < self.length_ns:
            return None
        before = np.zeros(COUNTS, np.int64)
        before[buckets] = counts
        return Histogram(totals - before)


class EarlyJudge:
    """The thresholds of a run that may stop it. Bounded: at most sixty moments of each measure and length of stretch."""

    def __init__(self, thresholds: Sequence[Threshold], tallies: Tallies) -> None:
        self._tallies = tallies
        self._watched = [(at, threshold) for at, threshold in enumerate(thresholds) if threshold.abort]
        self._recent = {
            (threshold.metric, threshold.window_ns): _Recent(threshold.window_ns)
            for _, threshold in self._watched
            if threshold.metric in TIMES and threshold.window_ns is not None
        }

    def crossed(self, now_ns: int) -> tuple[int, Judgement] | None:
        """The first threshold that is crossed now, with its number among all; None: none is."""
        if not self._watched:
            return None
        recent = {
            key: recent.look(now_ns, self._tallies.totals[_MEASURES.index(key[0])].copy())
            for key, recent in self._recent.items()
        }
        if now_ns < EARLIEST_NS:
            return None
        observe = Observations(self._tallies, now_ns / NS_PER_S, None)
        for at, threshold in self._watched:
            if now_ns < threshold.after_ns:
                continue
            if threshold.metric in TIMES and threshold.window_ns is not None:
                seen = self._of(recent[threshold.metric, threshold.window_ns], threshold)
            elif threshold.metric in TIMES:
                seen = self._of(Histogram(self._tallies.totals[_MEASURES.index(threshold.metric)].copy()), threshold)
            elif threshold.window_ns is not None:
                seen = self._last_stretch(observe, threshold, now_ns)
            else:
                seen = observe.whole(threshold) if self._enough(threshold) else None
            if seen is not None and _is_crossed(threshold, seen):
                return at, aborted(threshold, seen, now_ns / NS_PER_S)
        return None

    @staticmethod
    def _of(histogram: Histogram | None, threshold: Threshold) -> float | None:
        if histogram is None or histogram.total < ANSWERS_MIN:
            return None  # a p99 of a handful is their maximum
        return aggregate_ns(histogram, threshold.aggregate, threshold.argument)

    def _enough(self, threshold: Threshold) -> bool:
        return threshold.measure is not Measure.FRACTION or int(self._tallies.offered.sum()) >= ANSWERS_MIN

    @staticmethod
    def _last_stretch(observe: Observations, threshold: Threshold, now_ns: int) -> float | None:
        if threshold.window_ns is None or now_ns < threshold.window_ns:
            return None
        values = observe.stretched(threshold).values
        return float(values[-1]) if len(values) and not np.isnan(values[-1]) else None


def _is_crossed(threshold: Threshold, seen: float) -> bool:
    if threshold.operator == "==" and threshold.measure is Measure.COUNT and threshold.window_ns is None:
        return seen > threshold.limit  # it may still come to be equal
    return not threshold.met_by(seen)
