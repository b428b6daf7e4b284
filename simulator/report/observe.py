"""What thresholds can name, observed in a run's counts and histograms: over all of it, or over each stretch of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from simulator.balancer.behaviour import spread
from simulator.measure import grid
from simulator.measure.histogram import Histogram, bucket_width_ns, highest_equivalent_ns
from simulator.measure.stretch import (
    Stretches,
    cells_of,
    counted_by_window,
    histogram_of,
    sliding,
    stretches,
)
from simulator.scenario.threshold import KINDS, TIMES
from simulator.transaction import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.measure.recorder import Measured, Tallies
    from simulator.measure.windows import SparseHistograms
    from simulator.scenario.threshold import Threshold

_ENDED = (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED)
_MEASURES = ("response_time", "service_time", "schedule_lag")


class Stretched(NamedTuple):
    """What was observed in each stretch; all of shape (K,)."""

    values: NDArray[np.float64]  # in base units; nan: nothing was observed
    from_s: NDArray[np.float64]
    to_s: NDArray[np.float64]


class Observe(Protocol):
    """Gives what a threshold asks for, in base units: ns, transactions, a fraction, per second, a ratio."""

    def whole(self, threshold: Threshold) -> float | None:
        """Over the whole run; None: nothing was observed."""
        ...

    def stretched(self, threshold: Threshold) -> Stretched:
        """Over each stretch of `threshold.window_ns`."""
        ...


def counts_of(by_status: NDArray[np.int64]) -> dict[str, int]:
    """The contract's counts from a row by status, whose column PENDING holds what was offered.

    offered = sent + dropped; sent = ok + rejected + failed + unknown.
    """
    ended = {status.name.lower(): int(by_status[status]) for status in _ENDED}
    offered = int(by_status[Status.PENDING])
    return {"offered": offered, "sent": offered - ended["dropped"], **ended}


def aggregate_ns(histogram: Histogram, aggregate: str, argument: float | None) -> float | None:
    """`p`, `mean`, `min` or `max` of a distribution of times; None: it is empty."""
    match aggregate:
        case "p":
            return histogram.percentile_ns(argument or 0.0)
        case "mean":
            return histogram.mean_ns
        case "max":
            return histogram.max_ns
        case _:
            used = np.flatnonzero(histogram.counts)[:1]
            return int((highest_equivalent_ns(used) - bucket_width_ns(used) + 1)[0]) if len(used) else None


class Observations:
    """Of a finished run; without `measured` of one that is still going on, where times by tag or stretch are not known."""

    def __init__(
        self, tallies: Tallies, duration_s: float, anomalies: int | None, measured: Measured | None = None
    ) -> None:
        self._tallies = tallies
        self._duration_s = duration_s
        self._anomalies = anomalies
        self._measured = measured

    # ---- over the whole run ----

    def whole(self, threshold: Threshold) -> float | None:
        """The observed value; None if there is none yet."""
        metric, aggregate = threshold.metric, threshold.aggregate
        if metric in TIMES:
            histogram = self._times(threshold)
            return None if histogram is None else aggregate_ns(histogram, aggregate, threshold.argument)
        if metric == "throughput":
            return self._throughput(threshold)
        if metric == "imbalance":
            found = spread(self._tallies.node_sent.sum(axis=0))
            return found.imbalance_max_over_mean if found else None
        if metric == "audit":
            return None if self._anomalies is None else float(self._anomalies)
        return self._outcome(threshold)

    def _times(self, threshold: Threshold) -> Histogram | None:
        if not threshold.tags:
            # A copy: NumPy will not look for the non-zero in what others still count into.
            return Histogram(self._tallies.totals[_MEASURES.index(threshold.metric)].copy())
        chosen = self._chosen(threshold)
        return None if chosen is None else histogram_of(*chosen)

    def _chosen(self, threshold: Threshold) -> tuple[SparseHistograms, NDArray[np.bool_]] | None:
        """The histograms that a threshold is about, and which of their cells; None: they are not kept like that."""
        if self._measured is None:
            return None
        measure = threshold.metric if threshold.metric in TIMES else "response_time"  # which holds the ok ones
        sparse = self._measured[_MEASURES.index(measure)]
        kind, node = threshold.tag("kind"), threshold.tag("node")
        if node is not None and (sparse.nodes != self._tallies.node_sent.shape[1] or int(node) >= sparse.nodes):
            return None  # of large simulated fleets they are kept for all nodes together
        place = KINDS.index(kind) if kind is not None else None
        return sparse, cells_of(sparse, place, int(node) if node is not None else None)

    def _outcome(self, threshold: Threshold) -> float | None:
        kind = threshold.tag("kind")
        if threshold.tag("node") is not None or threshold.tag("shard") is not None:
            ok = self._ok_by_window(threshold)
            return None if ok is None else float(ok.sum())
        rows = self._tallies.by_kind
        counts = counts_of(rows.sum(axis=0) if kind is None else rows[KINDS.index(kind)])
        count = counts[threshold.metric]
        if threshold.aggregate == "count":
            return float(count)
        return count / counts["offered"] if counts["offered"] else None

    def _throughput(self, threshold: Threshold) -> float | None:
        """Answers `ok` per second: of the whole run, or of its worst full second (or longer window)."""
        ok = self._ok_by_window(threshold)
        if ok is None:
            return None
        if threshold.aggregate == "mean":
            return float(ok.sum()) / self._duration_s if self._duration_s else None
        edges = self._tallies.grid_ns
        rates = grid.per_second(edges, ok, grid.windows_until(edges, self._released_ns))
        return float(rates.min()) if len(rates) else None

    def _ok_by_window(self, threshold: Threshold) -> NDArray[np.int64] | None:
        """Answers `ok` in each window: by the time of the answer; by kind or node by the intended time."""
        shard = threshold.tag("shard")
        if shard is not None:
            by_shard = self._tallies.shard_ok
            return by_shard[:, int(shard)] if int(shard) < by_shard.shape[1] else None
        if threshold.tags:
            chosen = self._chosen(threshold)
            return None if chosen is None else counted_by_window(*chosen)
        return self._tallies.answered[:, Status.OK]

    # ---- over each stretch ----

    @property
    def _released_ns(self) -> int:
        return int(self._duration_s * grid.NS_PER_S)

    def stretched(self, threshold: Threshold) -> Stretched:
        """What each stretch shows; none of them where the run had no whole window, or nothing is kept."""
        edges = self._tallies.grid_ns
        over = stretches(edges, self._released_ns, threshold.window_ns or 1)
        values = self._values(threshold, over)
        if values is None:
            over, values = Stretches(over.first[:0], over.stop[:0]), np.zeros(0)
        return Stretched(values, edges[over.first] / grid.NS_PER_S, edges[over.stop] / grid.NS_PER_S)

    def _values(self, threshold: Threshold, over: Stretches) -> NDArray[np.float64] | None:
        if threshold.metric in TIMES:
            return self._times_in(threshold, over)
        if threshold.metric == "imbalance":
            load = over.sums(self._tallies.node_sent)
            mean = load.mean(axis=1)
            return _ratio(load.max(axis=1), mean)
        return self._counts_in(threshold, over)

    def _times_in(self, threshold: Threshold, over: Stretches) -> NDArray[np.float64] | None:
        chosen = self._chosen(threshold)
        if chosen is None:
            return None
        found = (aggregate_ns(h, threshold.aggregate, threshold.argument) for h in sliding(*chosen, over))
        return np.array([np.nan if value is None else value for value in found])

    def _counts_in(self, threshold: Threshold, over: Stretches) -> NDArray[np.float64] | None:
        tallies = self._tallies
        if threshold.metric in {"ok", "throughput"}:
            by_window = self._ok_by_window(threshold)
        else:
            by_window = tallies.answered[:, Status[threshold.metric.upper()]]
        if by_window is None:
            return None
        counts = over.sums(by_window).astype(np.float64)
        if threshold.metric == "throughput":
            return counts / ((tallies.grid_ns[over.stop] - tallies.grid_ns[over.first]) / grid.NS_PER_S)
        if threshold.aggregate == "count":
            return counts
        # Of what ended in the stretch: of what was offered in it, answers may be late, and the share past one.
        ended = over.sums(tallies.answered[:, list(_ENDED)].sum(axis=1))
        return _ratio(counts, ended)


def _ratio(over: NDArray[Any], under: NDArray[Any]) -> NDArray[np.float64]:
    """Nan where there is nothing to divide by."""
    ratio: NDArray[np.float64] = np.divide(over, under, out=np.full(len(under), np.nan), where=under > 0)
    return ratio
