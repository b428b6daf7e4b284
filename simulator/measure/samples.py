"""The platform as seen from outside while a run goes on: what waits, how long commits took, how busy each node was.

The control process looks a few times a second at counters that the platform keeps anyway, in shared memory: nothing is added to
the path of a transaction. Looks are gathered into rows of a second or more, at most `ROWS_MAX` of them, so that memory and file
do not grow with the run. What waits is the most that any look saw: a peak between two looks is missed. Commit times are exact:
the differences of the nodes' own histograms. Nothing is read with a lock; a cursor may be a moment older than its partner.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.measure.histogram import COUNTS, Histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_MAX = 2_000  # as many points as a chart draws
_NS_PER_S = 1_000_000_000


class PlatformSamples:
    """Gathers looks at a platform of `nodes` nodes and `shards` shards, over a run of `duration_s`."""

    def __init__(self, duration_s: float, nodes: int, shards: int) -> None:
        self._width_ns = max(ceil(duration_s / ROWS_MAX), 1) * _NS_PER_S
        self._row = 0
        self._since_ns = 0  # when the row under way began: at its first look
        self._queue = np.zeros(nodes, np.int64)
        self._in_flight = np.zeros(shards, np.int64)
        self._commits = np.zeros((nodes, COUNTS), np.int64)  # as they stood at the end of the row before
        self._busy_ns = np.zeros(nodes, np.int64)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._names(nodes, shards)}

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns of platform.csv so far: the rows that are whole."""
        return self._columns

    @staticmethod
    def _names(nodes: int, shards: int) -> list[str]:
        return [
            "second", "window_s", "commits", "commit_p50_ms", "commit_p99_ms", "commit_max_ms",
            *(f"node{node}_{what}" for node in range(nodes) for what in ("queue", "commit_p99_ms", "commit_share", "busy")),
            *(f"shard{shard}_in_flight" for shard in range(shards)),
        ]  # fmt: skip

    def look(
        self, now_ns: int, queue: NDArray[np.int64], in_flight: NDArray[np.int64], commits: NDArray[np.int64],
        busy_ns: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Takes one look.

        Args:
            now_ns: since the start of the run; looks come in order. Before the start nothing is taken.
            queue: requests that lie in front of each node, (nodes,).
            in_flight: sent to each shard and not yet answered, (shards,).
            commits: the histogram of each node's commit times since its start, (nodes, COUNTS).
            busy_ns: how long each node has worked since its start, (nodes,).
        """
        if now_ns < 0:
            return
        row = now_ns // self._width_ns
        if row > self._row:
            self._end_row(now_ns, commits, busy_ns)
            self._row, self._since_ns = row, now_ns
        np.maximum(self._queue, queue, out=self._queue)
        np.maximum(self._in_flight, in_flight, out=self._in_flight)

    def finish(self, now_ns: int, commits: NDArray[np.int64], busy_ns: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Ends the last row; returns the columns of platform.csv, one row a stretch of time. A cell that is not known is ""."""
        if now_ns > self._since_ns:
            self._end_row(now_ns, commits, busy_ns)
        return self._columns

    def _end_row(self, now_ns: int, commits: NDArray[np.int64], busy_ns: NDArray[np.int64]) -> None:
        """What was gathered since the row began; its length is that of its looks, so that a share is of the time it covers."""
        length_ns = max(now_ns - self._since_ns, 1)
        fresh = np.maximum(commits - self._commits, 0)
        worked = np.maximum(busy_ns - self._busy_ns, 0)
        whole = Histogram(fresh.sum(axis=0))
        cells: dict[str, Any] = {
            "second": round(self._since_ns / 1e9, 3),
            "window_s": round(length_ns / 1e9, 3),
            "commits": whole.total,
            "commit_p50_ms": _ms(whole.percentile_ns(50)),
            "commit_p99_ms": _ms(whole.percentile_ns(99)),
            "commit_max_ms": _ms(whole.max_ns),
        }
        for node, (waited, counts, busy) in enumerate(zip(self._queue.tolist(), fresh, worked.tolist(), strict=True)):
            one = Histogram(counts)
            cells |= {
                f"node{node}_queue": waited,
                f"node{node}_commit_p99_ms": _ms(one.percentile_ns(99)),
                f"node{node}_commit_share": round((one.mean_ns or 0.0) * one.total / length_ns, 4),
                f"node{node}_busy": round(busy / length_ns, 4),
            }
        cells |= {f"shard{shard}_in_flight": count for shard, count in enumerate(self._in_flight.tolist())}
        for name, column in self._columns.items():
            column.append(cells[name])
        self._commits[:] = commits
        self._busy_ns[:] = busy_ns
        self._queue[:] = 0
        self._in_flight[:] = 0


def _ms(ns: float | None) -> float | str:
    return "" if ns is None else round(ns / 1e6, 6)
