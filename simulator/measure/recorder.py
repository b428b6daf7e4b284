"""What is measured while a run goes on: tallies per window in shared memory, and histograms per window × kind × node.

The tallies are shared so that the process with the terminal reads them while the dispatcher writes; each word has one writer
and a reader that is a moment behind does no harm. Windows (`measure.grid`) are counted from the start of the run; on the wall
clock each is a second. Latency and `offered` belong to the window of the *intended* time, `sent` to that of the fired time,
everything about answers to that of the answer: bucketing throughput by intended time would inflate it under saturation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import inlined, kernel
from simulator.measure.histogram import COUNTS, Histogram, index_of
from simulator.measure.windows import SparseHistograms, WindowHistograms
from simulator.shard.layout import shared_array
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = len(Kind)
STATUSES = len(Status)
REASONS = max(Reason) + 1

# History: one row for each transaction as it ended, in that order; what the auditor holds against the journals. Two more sorts
# of rows stand among them, told by their flags: when a lookup was asked, and answers to what was not in flight (any more).
HISTORY = np.dtype(
    [
        ("id", "<u8"),
        ("fingerprint", "<u8"),  # simulator.ledger.digest.fingerprint of what was asked
        ("lsn", "<u4"),
        ("shard", "u1"),
        ("flags", "u1"),  # REORDERED, or SECOND or ASKED for a row of another sort; attempts − 1 in the upper four bits
        ("status", "u1"),
        ("kind_reason", "u1"),  # kind in the low three bits, reason above
    ]
)
REORDERED = 1  # answered at or before a log position that was already acknowledged when it was asked
SECOND = 2  # an answer to nothing in flight: a second one, as a rule; it has no fingerprint and no kind
ASKED = (
    4  # a lookup goes out now: `fingerprint` is the id that it asks about, `lsn` who asks (the payer); no answer yet
)
ATTEMPTS_SHIFT = 4  # how often a transaction was sent, beyond the first time: 0 … 15
assert HISTORY.itemsize == 24, HISTORY.itemsize  # noqa: PLR2004, S101  an on-disk format


class Tallies(NamedTuple):
    """Counts that kernels write; `T` windows, `N` nodes, `S` shards. All int64 and in shared memory."""

    grid_ns: NDArray[np.int64]  # (T + 1,) the edges of the windows, see measure.grid
    offered: NDArray[np.int64]  # (T,)
    sent: NDArray[np.int64]  # (T,)
    answered: NDArray[np.int64]  # (T, STATUSES)
    refused: NDArray[np.int64]  # (T,) those of them that decide nothing: rejected for overflow, limit, circuit
    offered_minor: NDArray[np.int64]  # (T,)
    settled_minor: NDArray[np.int64]  # (T,) booked between accounts by ok payments, refunds and posts
    node_sent: NDArray[np.int64]  # (T, N) attempts: what was tried again counts each time
    shard_ok: NDArray[np.int64]  # (T, S)
    in_flight_top: NDArray[np.int64]  # (T,) the most at once
    by_kind: NDArray[np.int64]  # (KINDS, STATUSES); row: kind − 1; column PENDING: offered
    by_reason: NDArray[np.int64]  # (STATUSES, REASONS)
    in_flight: NDArray[np.int64]  # (N,)
    in_flight_max: NDArray[np.int64]  # (N,)
    shard_in_flight: NDArray[np.int64]  # (S,)
    shard_in_flight_max: NDArray[np.int64]  # (S,)
    shard_credited: NDArray[np.int64]  # (S,) ok payments and posts, by the shard of the account that they were paid to
    hot_by_status: NDArray[np.int64]  # (STATUSES,) transactions with a hot key; column PENDING: offered
    hot_response: NDArray[np.int64]  # (COUNTS,) their part of totals[RESPONSE]; the rest is the cold keys'
    totals: NDArray[np.int64]  # (3, COUNTS) response, service, lag of the whole run
    stray: NDArray[np.int64]  # (1,) answers to nothing that was in flight
    settled_ns: NDArray[np.int64]  # (1,) when the last transaction was settled
    cpu_ns: NDArray[np.int64]  # (T,) CPU time that the dispatching process used in each window
    last_second_ns: NDArray[
        np.int64
    ]  # (4,) p50, p99, p99.9 of `response_time` of a second, and one more than its number
    fine_ns: NDArray[np.int64]  # (2,) the length of a fine window; until when in flight is accounted for
    fine_sent: NDArray[
        np.int64
    ]  # (F, N) sent in each fine window, what comes later in the last; F is 1 if nobody asked
    fine_in_flight_ns: NDArray[np.int64]  # (F, N) in flight × time
    fine_failed: NDArray[np.int64]  # (F, N) attempts that ended badly (balancer.health.is_bad), by when they did
    retried: NDArray[np.int64]  # (T,) attempts beyond a transaction's first, by the window in which they were sent
    node_retried: NDArray[np.int64]  # (N,) of node_sent
    attempt_ended: NDArray[np.int64]  # (STATUSES, REASONS) how attempts ended; all 0 where none is ever tried again
    client: NDArray[np.int64]  # (CLIENT_COUNTS,) by ClientCount


class ClientCount(IntEnum):
    """Positions in `Tallies.client`: what became of attempts that might have been tried again."""

    DEADLINES = 0  # transactions that reached theirs
    OVER_BUDGET = 1  # retries that the budget refused
    NO_ROOM = 2  # retries given up because as many as there may be were waiting
    NO_NODE = 3  # retries that the balancer had no node for
    NO_CONNECTION = 4  # retries that found none free in time
    OVER_CAP = 5  # retries beyond the most requests that a run may send
    ENDED = 6  # retries that waited when the run was stopped
    ASKED_AGAIN = 7  # second copies offered to nodes that came back; no attempts of a client's


CLIENT_COUNTS = len(ClientCount)

FINE_NS = 100_000_000  # a tenth of a second, as the behaviour figures are read …
FINE_MOST = 72_000  # … for two hours; longer runs have longer windows, and so a bound on their memory


def open_tallies(grid_ns: NDArray[np.int64], nodes: int, shards: int, *, fine: bool = False) -> Tallies:
    """Zeroed tallies for a run counted in the windows between these edges, drain included; with `fine` finer ones beside."""
    windows = len(grid_ns) - 1

    def area(*shape: int) -> NDArray[np.int64]:
        return shared_array(int(np.prod(shape)), np.int64).reshape(shape)

    edges = area(windows + 1)
    edges[:] = grid_ns
    length_ns = int(grid_ns[-1])
    fine_ns = area(2)
    fine_ns[0] = FINE_NS * max(-(-length_ns // (FINE_NS * FINE_MOST)), 1) if fine else max(length_ns, 1)
    fines = -(-length_ns // int(fine_ns[0]))
    return Tallies(
        grid_ns=edges, offered=area(windows), sent=area(windows), answered=area(windows, STATUSES),
        refused=area(windows), offered_minor=area(windows),
        settled_minor=area(windows), node_sent=area(windows, nodes), shard_ok=area(windows, shards),
        in_flight_top=area(windows), by_kind=area(KINDS, STATUSES), by_reason=area(STATUSES, REASONS),
        in_flight=area(nodes), in_flight_max=area(nodes), shard_in_flight=area(shards), shard_in_flight_max=area(shards),
        shard_credited=area(shards), hot_by_status=area(STATUSES), hot_response=area(COUNTS),
        totals=area(3, COUNTS), stray=area(1), settled_ns=area(1),
        cpu_ns=area(windows), last_second_ns=area(4),
        fine_ns=fine_ns, fine_sent=area(fines, nodes), fine_in_flight_ns=area(fines, nodes),
        fine_failed=area(fines, nodes), retried=area(windows), node_retried=area(nodes),
        attempt_ended=area(STATUSES, REASONS), client=area(CLIENT_COUNTS),
    )  # fmt: skip


RESPONSE, SERVICE, LAG = 0, 1, 2


class Dense(NamedTuple):
    """The resident windows of the three `WindowHistograms`, for kernels."""

    response: NDArray[np.uint32]  # (slot, kind, node, bucket)
    service: NDArray[np.uint32]
    lag: NDArray[np.uint32]
    slots: NDArray[np.int64]  # (T,) the slot of a window; -1: admit it first. The same for all three.


@inlined
def second_of(time_ns: int, seconds: int) -> int:
    """The window a time belongs to where windows are seconds (the wall clock); what comes after the last counts as the last."""
    return min(max(time_ns, 0) // 1_000_000_000, seconds - 1)


@inlined
def note_fine(tallies: Tallies, node: int, now_ns: int) -> None:
    """Counts what is sent in its fine window."""
    window = min(max(now_ns, 0) // tallies.fine_ns[0], tallies.fine_sent.shape[0] - 1)
    tallies.fine_sent[window, node] += 1


@inlined
def note_failed(tallies: Tallies, node: int, now_ns: int) -> None:
    """Counts an attempt that ended badly in its fine window."""
    window = min(max(now_ns, 0) // tallies.fine_ns[0], tallies.fine_failed.shape[0] - 1)
    tallies.fine_failed[window, node] += 1


@kernel
def account_in_flight(tallies: Tallies, now_ns: int) -> None:
    """What is in flight has been so since the last call; call it before that changes."""
    width = tallies.fine_ns[0]
    last = tallies.fine_in_flight_ns.shape[0] - 1
    since = tallies.fine_ns[1]
    while since < now_ns:
        window = min(since // width, last)
        until = min(now_ns, (window + 1) * width) if window < last else now_ns
        for node in range(tallies.in_flight.shape[0]):
            tallies.fine_in_flight_ns[window, node] += tallies.in_flight[node] * (until - since)
        since = until
    tallies.fine_ns[1] = since


@inlined
def note(
    histograms: NDArray[np.uint32],
    totals: NDArray[np.int64],
    measure: int,
    slot: int,
    kind: int,
    node: int,
    value_ns: int,
) -> None:
    """Counts one time in its window's histogram and in the run's."""
    bucket = index_of(value_ns)
    histograms[slot, kind - 1, node, bucket] += 1
    totals[measure, bucket] += 1


class Measured(NamedTuple):
    """The histograms of a finished run."""

    response: SparseHistograms
    service: SparseHistograms
    lag: SparseHistograms


class Recorder:
    """Owns the histograms per window; keeps the three in step, so that one `slots` array serves all."""

    def __init__(self, windows: int, nodes: int, spill: Path | None = None) -> None:
        """`spill`: the folder in which windows that are over wait for the end of the run; None: in memory."""
        self._all = tuple(WindowHistograms(windows, KINDS, nodes, resident=8, spill=spill) for _ in range(3))
        response, service, lag = self._all
        self.dense = Dense(response.dense, service.dense, lag.dense, response.slots)

    def admit(self, window: int) -> None:
        """Makes a window resident; kernels ask for it by stopping at the first transaction that needs it."""
        for histograms in self._all:
            histograms.admit(window)

    def response_of_window(self, window: int) -> Histogram:
        """Response times of a resident window."""
        return self._all[RESPONSE].of_window(window)

    def finish(self) -> Measured:
        """Everything recorded."""
        return Measured(*(histograms.finish() for histograms in self._all))
