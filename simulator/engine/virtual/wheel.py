"""A wheel: rows by the time at which they are due, for those of which only what is due until now is asked for.

A calendar queue (see `calendar`) without the heap for the bucket at hand: the bucket that time has come to stays in the wheel,
and of it only what is due is taken. Bucket k holds the rows of [k · 2^shift, (k + 1) · 2^shift) ns as a list, a bitmap finds the
next bucket that is not empty, and what lies beyond the last bucket waits in a heap (`far`).

Invariants: between two calls of `take_due` the wheel holds the buckets in [current, current + buckets), far the rest, and nothing
that was due at the last call; what is put in is not due before it. Rows have `time_ns`, `id` and `next`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.engine.virtual import calendar as cal
from simulator.engine.virtual.general import SEQ
from simulator.engine.virtual.records import NONE
from simulator.kernel import fused, inlined, int64, prefetch, trailing_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.engine.virtual.calendar import Calendar


@inlined
def put(wheel: Calendar, rows: NDArray[np.void], ctl: NDArray[np.int64], r: int, time_ns: int) -> None:
    """Puts a row in, which is due at `time_ns`, its own."""
    at = wheel.at
    bucket = time_ns >> at[cal.SHIFT]
    if bucket < at[cal.CURRENT] + wheel.heads.shape[0]:
        cal.link(wheel, rows, r, bucket)
    else:
        cal.heap_push(wheel.far, at[cal.IN_FAR], time_ns, ctl[SEQ], r)
        at[cal.IN_FAR] += 1
        ctl[SEQ] += 1


@inlined
def _into(due: NDArray[np.int32], first: int, found: int, rows: NDArray[np.void], r: int) -> None:
    """Sorts row r into due[first:found], the last due first: as those of one instant lie in their bucket."""
    time_ns = rows[r]["time_ns"]
    i = found
    while i > first:
        other = int64(due[i - 1])
        if rows[other]["time_ns"] > time_ns or (
            rows[other]["time_ns"] == time_ns and rows[other]["id"] >= rows[r]["id"]
        ):
            break
        due[i] = other
        i -= 1
    due[i] = r


@fused
def _empty(
    wheel: Calendar, rows: NDArray[np.void], due: NDArray[np.int32], found: int, now: int, place: int,
    in_order: bool,  # noqa: FBT001  a constant where it is merged
) -> int:  # fmt: skip
    """Takes what is due out of one bucket; returns how much there is in `due` now."""
    first = found
    later = NONE
    r = int64(wheel.heads[place])
    while r != NONE:
        following = int64(rows[r]["next"])
        if rows[r]["time_ns"] > now:
            rows[r]["next"] = later
            later = r
        else:
            if in_order:
                _into(due, first, found, rows, r)
            else:
                due[found] = r
            found += 1
        r = following
    wheel.at[cal.IN_WHEEL] -= found - first
    wheel.heads[place] = later
    if later == NONE:
        wheel.filled[place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
    if in_order:
        for i in range((found - first) >> 1):
            due[first + i], due[found - 1 - i] = due[found - 1 - i], due[first + i]
    return found


@fused
def take_due(
    wheel: Calendar, rows: NDArray[np.void], due: NDArray[np.int32], now: int,
    in_order: bool,  # noqa: FBT001  a constant where it is merged
) -> int:  # fmt: skip
    """Takes what is due until now out of a wheel, into `due`; returns how much. Bucket by bucket, or in order of time."""
    at = wheel.at
    mask = wheel.heads.shape[0] - 1
    bucket = now >> at[cal.SHIFT]
    current = at[cal.CURRENT]
    final = min(bucket, current + mask)
    found = 0
    while at[cal.IN_WHEEL] > 0 and current <= final:
        place = current & mask
        word = wheel.filled[place >> 6] >> np.uint64(place & 63)
        if word == np.uint64(0):
            current += 64 - (place & 63)
            continue
        current += trailing_zeros(word)
        if current > final:
            break
        found = _empty(wheel, rows, due, found, now, current & mask, in_order)
        if current == final:
            break
        current += 1
    at[cal.CURRENT] = bucket
    while at[cal.IN_FAR] > 0 and wheel.far[0]["time_ns"] >> at[cal.SHIFT] < bucket + wheel.heads.shape[0]:
        r = int64(wheel.far[0]["row"])
        cal.heap_pop(wheel.far, at[cal.IN_FAR])
        at[cal.IN_FAR] -= 1
        if rows[r]["time_ns"] <= now:
            due[found] = r
            found += 1
        else:
            cal.link(wheel, rows, r, rows[r]["time_ns"] >> at[cal.SHIFT])
    return found


@inlined
def look_ahead(wheel: Calendar, rows: NDArray[np.void], nodes: NDArray[np.void], now: int) -> None:
    """Asks for the cache lines of what is due soon, rows and their nodes. A wrong guess does no harm."""
    mask = wheel.heads.shape[0] - 1
    bucket = now >> wheel.at[cal.SHIFT]
    ahead = int64(wheel.heads[(bucket + 12) & mask])
    if ahead != NONE:
        prefetch(rows, (ahead,))
    ahead = int64(wheel.heads[(bucket + 4) & mask])
    if ahead != NONE:
        prefetch(nodes, (int64(rows[ahead]["node"]),))
