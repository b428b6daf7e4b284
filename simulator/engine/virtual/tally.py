"""What the virtual clock counts on the way, beyond what a client sees: attempts, work for nobody, areas for Little's law.

Counted in the fewest increments that still give everything: `Tallies` of the measure package is filled from these at the end
(`fill`), since on this clock nobody reads it before.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import bit_length, fused, inlined, int64, kernel
from simulator.measure.recorder import KINDS, REASONS, STATUSES
from simulator.seeds import mix
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.measure.recorder import Tallies

NODE_BITS = 5  # sub-buckets of a node's histogram: 32 an octave, so within 1/32 of the value
NODE_COUNTS = (42 - NODE_BITS + 2) << NODE_BITS  # up to 2⁴² ns, an hour and more
LEVELS = 1_024  # true loads told apart; what is above counts as the highest

# Of the hashes in `Virtual.digests`, as in `ledger.digest`.
_STEP, _SALT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xE7037ED1A0B428DB)
_LOW_HALF, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class Count(IntEnum):
    """Positions in `Virtual.counts`."""

    EVENTS = 0  # handled
    ATTEMPTS = 1  # sent to a node
    RETRIES = 2  # of these
    HEDGES = 3
    RETRY_BUDGET_EMPTY = 4  # retries that the budget refused
    HEDGE_BUDGET_EMPTY = 5
    TIMEOUTS = 6  # attempts without an answer in time
    DEADLINES = 7  # transactions that reached theirs
    LATE_ANSWERS = 8  # answers to a client that had gone
    WASTED = 9  # services begun at nodes for a client that had gone
    WASTED_NS = 10  # and what they took
    CANCELLED = 11  # dropped before service, their client gone
    REPEATED = 12  # attempts that a shard had already applied, answered alike
    APPLIED = 13  # transactions applied by their shard
    ACKNOWLEDGED = 14  # transactions told ok
    ACKNOWLEDGED_NOT_APPLIED = 15  # of these not applied: an anomaly
    UNKNOWN_APPLIED = 16  # ended in doubt, and were applied
    REFUSED_APPLIED = 17  # ended with a no, and were applied: an anomaly
    CALLS = 18  # of the dependency
    CALL_LIMIT = 19  # refused by its limit
    CALL_ERRORS = 20  # while it was out
    CALLS_HUNG = 21
    QUEUE_FULL = 22  # attempts that a node's queue had no room for
    NO_NODE = 23  # attempts that the balancer had no node for
    NODE_DOWN = 24  # attempts that found their node dead
    RESET = 25  # attempts that a node died with
    NO_ROOM = 26  # retries and hedges given up for want of a row
    INSIDE_MAX = 27  # the most transactions at once
    LEFT = 28  # transactions inside at the end of the run, settled as unknown
    OFFERED = 29  # transactions taken from the source
    SETTLED = 30
    REGRET = 31  # Σ true load of the node chosen − least true load of those up, at the pick
    PICKS = 32  # of nodes that were up: those that REGRET sums over
    ADMISSION = 33  # attempts that a node turned away by its admission control
    ATTEMPTS_ENDED = 34  # rows of attempts given back
    MAIL = 35  # probes, their replies and idle messages that arrived
    MAIL_LOST = 36  # not sent, because too many were under way
    REPORTS = 37  # reports that arrived
    CONCURRENCY = 38  # attempts that a node refused for its adaptive limit
    DEAD_PICKS = 39  # of nodes that were down


COUNTS_KEPT = len(Count)


class Station(IntEnum):
    """Rows of `Virtual.little`."""

    NODES = 0  # queue and service at the gateway nodes
    SHARDS = 1
    DEPENDENCY = 2
    CLIENT = 3  # transactions, from intended to settled


ARRIVED, LEFT, SPENT_NS, AREA_NS, INSIDE, TOUCHED_NS = range(6)


class Virtual(NamedTuple):
    """`T` windows, `N` nodes, `S` shards. int64 unless said."""

    kinds: NDArray[np.int64]  # (T, KINDS) offered and sent, by the window of the intended time
    dropped: NDArray[np.int64]  # (T, KINDS) no row was free
    offered_minor: NDArray[np.int64]  # (T,)
    ended: NDArray[np.int64]  # (T, KINDS, STATUSES) by the window of the end
    reasons: NDArray[np.int64]  # (STATUSES, REASONS)
    settled_minor: NDArray[np.int64]  # (T,)
    node_sent: NDArray[np.int64]  # (T, N) attempts
    node_failed: NDArray[np.int64]  # (T, N) attempts that ended in anything but ok, for their client
    shard_ok: NDArray[np.int64]  # (T, S)
    inside_top: NDArray[np.int64]  # (T,) the most transactions at once
    attempts: NDArray[np.int64]  # (T,) by the window in which they were sent
    retries: NDArray[np.int64]  # (T,)
    node_busy_ns: NDArray[np.int64]  # (T, N) ∫ workers busy dt
    node_queue_ns: NDArray[np.int64]  # (T, N) ∫ waiting dt
    node_times: NDArray[np.uint32]  # (N, NODE_COUNTS) response times of ok, by the node that answered
    counts: NDArray[np.int64]  # (COUNTS_KEPT,)
    little: NDArray[
        np.int64
    ]  # (stations, 6): arrivals, departures, Σ time in it, ∫ number in it dt, number now, until when
    digests: NDArray[np.uint64]  # (2, 2) sums of hashes of what was acknowledged, of what was applied; see `add_hash`
    settled_ns: NDArray[np.int64]  # (1,)
    levels: NDArray[np.int64]  # (LEVELS + 1,) nodes up by true load; last: the least of them


def open_virtual(windows: int, nodes: int, shards: int) -> Virtual:
    """Zeroed tallies."""

    def area(*shape: int) -> NDArray[np.int64]:
        return np.zeros(shape, np.int64)

    return Virtual(
        kinds=area(windows, KINDS), dropped=area(windows, KINDS), offered_minor=area(windows),
        ended=area(windows, KINDS, STATUSES), reasons=area(STATUSES, REASONS), settled_minor=area(windows),
        node_sent=area(windows, nodes), node_failed=area(windows, nodes), shard_ok=area(windows, shards),
        inside_top=area(windows), attempts=area(windows), retries=area(windows), node_busy_ns=area(windows, nodes),
        node_queue_ns=area(windows, nodes), node_times=np.zeros((nodes, NODE_COUNTS), np.uint32),
        counts=area(COUNTS_KEPT), little=area(len(Station), 6), digests=np.zeros((2, 2), np.uint64),
        settled_ns=area(1), levels=area(LEVELS + 1),
    )  # fmt: skip


@inlined
def enter_level(levels: NDArray[np.int64], load: int) -> None:
    """A node's true load goes up by one from `load`; keeps the least known: one more, if it was the last there."""
    levels[min(load, LEVELS - 1)] -= 1
    levels[min(load + 1, LEVELS - 1)] += 1
    levels[LEVELS] += int64(levels[levels[LEVELS]] == 0)


@inlined
def leave_level(levels: NDArray[np.int64], load: int) -> None:
    """A node's true load goes down by one from `load`; keeps the least load known."""
    levels[min(load, LEVELS - 1)] -= 1
    levels[min(load - 1, LEVELS - 1)] += 1
    levels[LEVELS] = min(levels[LEVELS], load - 1)


@inlined
def coarse_index(value_ns: int) -> int:
    """The bucket of a time in a node's histogram: log-linear, 32 an octave."""
    value = min(max(value_ns, 0), (1 << 42) - 1)
    octave = bit_length(value | ((1 << (NODE_BITS + 1)) - 1)) - NODE_BITS - 1
    return (octave << NODE_BITS) + (value >> octave)


def coarse_middles_ns() -> NDArray[np.float64]:
    """The middle of each bucket of a node's histogram, (NODE_COUNTS,)."""
    index = np.arange(NODE_COUNTS, dtype=np.int64)
    octave = np.maximum((index >> NODE_BITS) - 1, 0)
    low = (index - (octave << NODE_BITS)) << octave
    return low + ((1 << octave) - 1) / 2


@inlined
def arrive(little: NDArray[np.int64], station: int, now_ns: int) -> None:
    """One more at a station; `little` is that of `Virtual`."""
    little[station, AREA_NS] += little[station, INSIDE] * (now_ns - little[station, TOUCHED_NS])
    little[station, TOUCHED_NS] = now_ns
    little[station, INSIDE] += 1
    little[station, ARRIVED] += 1


@inlined
def leave(little: NDArray[np.int64], station: int, now_ns: int, entered_ns: int) -> None:
    """One less at a station, which it entered at `entered_ns`."""
    little[station, AREA_NS] += little[station, INSIDE] * (now_ns - little[station, TOUCHED_NS])
    little[station, TOUCHED_NS] = now_ns
    little[station, INSIDE] -= 1
    little[station, LEFT] += 1
    little[station, SPENT_NS] += now_ns - entered_ns


@inlined
def add_hash(digests: NDArray[np.uint64], row: int, number: np.uint64) -> None:
    """Adds the 128-bit hash of a transaction to a sum, as `ledger.digest` does for legs."""
    low = mix(number + _STEP)
    before = digests[row, 0]
    digests[row, 0] = before + low
    digests[row, 1] += mix(low ^ _SALT ^ number) + np.uint64(before + low < before)


@fused
def add_hashes(digests: NDArray[np.uint64], row: int, numbers: NDArray[np.int64]) -> None:
    """Adds those of many: the same sum, its halves apart so that no carry stands between one number and the next."""
    low_sum = middle_sum = high_sum = np.uint64(0)
    for i in range(numbers.shape[0]):
        number = np.uint64(numbers[i])
        low = mix(number + _STEP)
        low_sum += low & _LOW_HALF
        middle_sum += low >> _HALF
        high_sum += mix(low ^ _SALT ^ number)
    middle_sum += low_sum >> _HALF
    low = (middle_sum << _HALF) | (low_sum & _LOW_HALF)
    before = digests[row, 0]
    digests[row, 0] = before + low
    digests[row, 1] += high_sum + (middle_sum >> _HALF) + np.uint64(before + low < before)


@kernel
def take_hash(digests: NDArray[np.uint64], row: int, number: np.uint64) -> None:
    """Takes back what `add_hash` has added."""
    low = mix(number + _STEP)
    before = digests[row, 0]
    digests[row, 0] = before - low
    digests[row, 1] -= mix(low ^ _SALT ^ number) + np.uint64(before < low)


def fill(tallies: Tallies, virtual: Virtual) -> None:
    """Writes what `Tallies` of the measure package says of a run, from what was counted here.

    `in_flight_max` and its like are written by the engine's own tables (`simulation`).
    """
    dropped = virtual.dropped.sum(axis=1)
    tallies.offered[:] = virtual.kinds.sum(axis=1) + dropped
    tallies.sent[:] = virtual.kinds.sum(axis=1)
    tallies.answered[:] = virtual.ended.sum(axis=1)
    # Here no transaction is refused for what it asks, only because the platform has no room or no node for it.
    tallies.refused[:] = tallies.answered[:, Status.REJECTED]
    tallies.offered_minor[:] = virtual.offered_minor
    tallies.settled_minor[:] = virtual.settled_minor
    tallies.node_sent[:] = virtual.node_sent
    tallies.shard_ok[:] = virtual.shard_ok
    tallies.in_flight_top[:] = virtual.inside_top
    tallies.by_kind[:] = virtual.ended.sum(axis=0)
    tallies.by_kind[:, Status.PENDING] = (virtual.kinds + virtual.dropped).sum(axis=0)
    tallies.by_reason[:] = virtual.reasons
    tallies.by_reason[Status.OK, Reason.NONE] = virtual.ended[:, :, Status.OK].sum()
    tallies.settled_ns[0] = virtual.settled_ns[0]
