"""The calendar queue: what is to happen, in the order of (time, sequence number). O(1) where events lie evenly.

R. Brown, "Calendar Queues: A Fast O(1) Priority Queue Implementation for the Simulation Event Set Problem", CACM 31, 1988,
here as a wheel: bucket k holds the events of [k · 2^shift, (k + 1) · 2^shift) ns as a list through the attempts' rows, and a
bitmap finds the next bucket that is not empty.
The bucket that time has come to is emptied into a small binary heap (`near`), from which
events are taken; what is scheduled into it later is pushed there. What lies beyond the wheel's last bucket waits in another
heap (`far`) and moves to the wheel when its bucket comes within reach.

Invariants: near holds exactly the buckets ≤ `current`; the wheel those in (current, current + buckets); far the rest. So near's
top is the next event, and the order is exact whatever the width; the width only decides what it costs. It doubles when
buckets are mostly empty and is cut when they are crowded, which is looked at every `_LOOK` buckets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.engine.virtual.records import NONE
from simulator.kernel import fused, inlined, int64, kernel, trailing_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_BUCKETS, MOST_BUCKETS = 8_192, 131_072  # 32 and 512 KiB of list heads
_LOOK = 1_024
_CROWDED, _SPARSE = 4.0, 1.25  # events a bucket that was not empty
_WIDEST, _NARROWEST = 40, 2  # shifts: a bucket of 18 minutes, of 4 ns

ENTRY = np.dtype([("time_ns", "<i8"), ("seq", "<i8"), ("row", "<i8")])

# Scalars of the calendar, in `Calendar.at`.
CURRENT, SHIFT, IN_WHEEL, IN_NEAR, IN_FAR, OPENED, DRAINED, SKIPPED = range(8)


class Calendar(NamedTuple):
    """Events of attempts; at most one each."""

    heads: NDArray[np.int32]  # (buckets,), a power of two
    filled: NDArray[np.uint64]  # (buckets / 64,) a bit for each bucket that is not empty
    near: NDArray[np.void]  # (A,) ENTRY, a binary heap
    far: NDArray[np.void]  # (A,) ENTRY, a binary heap
    at: NDArray[np.int64]  # (8,) see above


def open_calendar(attempts: int, events_per_s: float, servers: int = 1) -> Calendar:
    """An empty calendar for at most `attempts` events at once, its width chosen for about one event a bucket.

    With one event a bucket the wheel must be as long as what is under way is numerous, which is some times the servers.
    """
    buckets = min(max(1 << (8 * servers - 1).bit_length(), LEAST_BUCKETS), MOST_BUCKETS)
    at = np.zeros(8, np.int64)
    gap = 1e9 / max(events_per_s, 1e-3)
    at[SHIFT] = min(max(int(np.log2(max(gap, 1.0))), _NARROWEST), _WIDEST)
    at[CURRENT] = -1
    return Calendar(
        heads=np.full(buckets, NONE, np.int32),
        filled=np.zeros(buckets // 64, np.uint64),
        near=np.zeros(attempts + 1, ENTRY),
        far=np.zeros(attempts + 1, ENTRY),
        at=at,
    )


@inlined
def _before(one: np.void, other: np.void) -> bool:
    return one["time_ns"] < other["time_ns"] or (one["time_ns"] == other["time_ns"] and one["seq"] < other["seq"])


@fused
def heap_push(heap: NDArray[np.void], size: int, time_ns: int, seq: int, row: int) -> None:
    """Adds an entry to a heap of `size` entries."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        up = heap[parent]
        if up["time_ns"] < time_ns or (up["time_ns"] == time_ns and up["seq"] < seq):
            break
        heap[i] = heap[parent]
        i = parent
    heap[i]["time_ns"] = time_ns
    heap[i]["seq"] = seq
    heap[i]["row"] = row


@kernel
def heap_pop(heap: NDArray[np.void], size: int) -> None:
    """Removes the first of `size` ≥ 1 entries."""
    heap_remove(heap, size, 0)


@kernel
def heap_remove(heap: NDArray[np.void], size: int, i: int) -> None:
    """Removes entry i: the last one takes its place and moves down or up."""
    last = size - 1
    if i == last:
        return
    time_ns, seq, row = heap[last]["time_ns"], heap[last]["seq"], heap[last]["row"]
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last and _before(heap[child + 1], heap[child]):
            child += 1
        down = heap[child]
        if time_ns < down["time_ns"] or (time_ns == down["time_ns"] and seq < down["seq"]):
            break
        heap[i] = heap[child]
        i = child
    heap_push(heap, i, time_ns, seq, row)


@inlined
def link(calendar: Calendar, attempts: NDArray[np.void], a: int, bucket: int) -> None:
    """Puts a row into a bucket that is within reach."""
    place = bucket & (calendar.heads.shape[0] - 1)
    attempts[a]["next"] = calendar.heads[place]
    calendar.heads[place] = a
    calendar.filled[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
    calendar.at[IN_WHEEL] += 1


@fused
def add(calendar: Calendar, attempts: NDArray[np.void], a: int) -> None:
    """Schedules attempt a at its `time_ns` and `seq`."""
    at = calendar.at
    bucket = attempts[a]["time_ns"] >> at[SHIFT]
    if bucket <= at[CURRENT]:
        heap_push(calendar.near, at[IN_NEAR], attempts[a]["time_ns"], attempts[a]["seq"], a)
        at[IN_NEAR] += 1
        at[DRAINED] += 1
    elif bucket < at[CURRENT] + calendar.heads.shape[0]:
        link(calendar, attempts, a, bucket)
    else:
        heap_push(calendar.far, at[IN_FAR], attempts[a]["time_ns"], attempts[a]["seq"], a)
        at[IN_FAR] += 1


@kernel
def _rescale(calendar: Calendar, attempts: NDArray[np.void], shift: int) -> None:
    """Gives the wheel another width, between two buckets; near is empty."""
    at = calendar.at
    moved = NONE
    for place in range(calendar.heads.shape[0]):
        a = calendar.heads[place]
        calendar.heads[place] = NONE
        while a != NONE:
            following = attempts[a]["next"]
            attempts[a]["next"] = moved
            moved = a
            a = following
    for word in range(calendar.filled.shape[0]):
        calendar.filled[word] = np.uint64(0)
    at[IN_WHEEL] = 0
    # The end of the current bucket, in the new width: buckets up to it stay closed, which near may hold at any width.
    end = (at[CURRENT] + 1) << at[SHIFT]
    at[SHIFT] = shift
    at[CURRENT] = (end >> shift) - 1
    while moved != NONE:
        following = attempts[moved]["next"]
        add(calendar, attempts, moved)
        moved = following
    _reach(calendar, attempts)


@kernel
def _reach(calendar: Calendar, attempts: NDArray[np.void]) -> None:
    """Moves what has come within reach from far to the wheel."""
    at = calendar.at
    while at[IN_FAR] > 0 and calendar.far[0]["time_ns"] >> at[SHIFT] < at[CURRENT] + calendar.heads.shape[0]:
        a = int64(calendar.far[0]["row"])
        heap_pop(calendar.far, at[IN_FAR])
        at[IN_FAR] -= 1
        add(calendar, attempts, a)


@kernel
def _adapt(calendar: Calendar, attempts: NDArray[np.void]) -> None:
    """Looks back on the last buckets and gives the wheel a better width; near is empty, and stays so."""
    at = calendar.at
    crowd = at[DRAINED] / at[OPENED]
    sparse = at[SKIPPED] > 8 * at[OPENED] and crowd < _SPARSE
    shift = at[SHIFT]
    at[OPENED] = 0
    at[DRAINED] = 0
    at[SKIPPED] = 0
    if crowd > _CROWDED and shift > _NARROWEST:
        while crowd > 2.0 and shift > _NARROWEST:  # noqa: PLR2004  halved until about one is left
            crowd *= 0.5
            shift -= 1
        _rescale(calendar, attempts, shift)
    elif sparse and shift < _WIDEST:
        _rescale(calendar, attempts, shift + 1)


@kernel
def open_next(calendar: Calendar, attempts: NDArray[np.void]) -> bool:
    """With near empty, empties the next bucket into it; False: there is nothing left at all."""
    at = calendar.at
    if at[IN_WHEEL] + at[IN_FAR] == 0:
        return False
    if at[OPENED] >= _LOOK or (at[OPENED] > 0 and at[DRAINED] >= 16 * _LOOK):
        _adapt(calendar, attempts)
    if at[IN_WHEEL] == 0:
        at[CURRENT] = calendar.far[0]["time_ns"] >> at[SHIFT]
        _reach(calendar, attempts)  # at least the first goes into near
        return True
    mask = calendar.heads.shape[0] - 1
    start = (at[CURRENT] + 1) & mask
    word = start >> 6
    found = calendar.filled[word] & (~np.uint64(0) << np.uint64(start & 63))
    while found == np.uint64(0):
        word = (word + 1) & (mask >> 6)
        found = calendar.filled[word]
    place = (word << 6) + trailing_zeros(found)
    steps = (place - start) & mask
    at[SKIPPED] += steps
    at[CURRENT] += 1 + steps
    a = int64(calendar.heads[place])
    calendar.heads[place] = NONE
    calendar.filled[place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
    while a != NONE:
        following = int64(attempts[a]["next"])
        heap_push(calendar.near, at[IN_NEAR], attempts[a]["time_ns"], attempts[a]["seq"], a)
        at[IN_NEAR] += 1
        at[IN_WHEEL] -= 1
        at[DRAINED] += 1
        a = following
    at[OPENED] += 1
    if at[IN_FAR] > 0:
        _reach(calendar, attempts)
    return True


@inlined
def take(calendar: Calendar) -> int:
    """Removes the first event of near, which is not empty, and returns its attempt."""
    a = int64(calendar.near[0]["row"])
    if calendar.at[IN_NEAR] > 1:
        heap_pop(calendar.near, calendar.at[IN_NEAR])
    calendar.at[IN_NEAR] -= 1
    return a


@kernel
def remove(calendar: Calendar, attempts: NDArray[np.void], a: int) -> None:
    """Takes back the event of attempt a, which is scheduled. Searches its bucket or heap: for faults, which are rare."""
    at = calendar.at
    bucket = attempts[a]["time_ns"] >> at[SHIFT]
    if at[CURRENT] < bucket < at[CURRENT] + calendar.heads.shape[0]:
        place = bucket & (calendar.heads.shape[0] - 1)
        other = int64(calendar.heads[place])
        if other == a:
            calendar.heads[place] = attempts[a]["next"]
            if calendar.heads[place] == NONE:
                calendar.filled[place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
        else:
            while int64(attempts[other]["next"]) != a:
                other = int64(attempts[other]["next"])
            attempts[other]["next"] = attempts[a]["next"]
        at[IN_WHEEL] -= 1
        return
    near = bucket <= at[CURRENT]
    heap = calendar.near if near else calendar.far
    size = at[IN_NEAR] if near else at[IN_FAR]
    i = 0
    while heap[i]["row"] != a:
        i += 1
    heap_remove(heap, size, i)
    if near:
        at[IN_NEAR] -= 1
    else:
        at[IN_FAR] -= 1
