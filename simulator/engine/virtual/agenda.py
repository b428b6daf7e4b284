"""An agenda: rows in the order of the times at which they are due. A calendar queue that sorts a bucket when its time has come.

Bucket k of the wheel holds the rows of [k · 2^shift, (k + 1) · 2^shift) ns as a list, and a bitmap finds the next bucket that is
not empty. The width is chosen for less than one row a bucket, so that there is mostly nothing to sort, and what comes next is
known without a search: the processor rarely guesses a branch wrong, and that, not the number of instructions, is what an event
list costs. (`calendar`, whose bucket at hand is a heap, guesses at each level of it.) To put a row in touches no other row, which
with many thousands of them would be in no cache near by. What lies beyond the wheel waits in a heap (`far`) until it is due.

Invariants: the wheel holds only rows of [now, now + the wheel's length), where now is the time of the last `put`, before which
nothing is left; so no two buckets share a place. The first bucket that is not empty is at place `at[NEXT_PLACE]` and sorted,
`at[NEXT_NS]` is the time of its first row, `at[TAIL]` its last row; the others hold what was put in last first. `at[FAR_NS]` is
the time of the heap's first. Rows have `time_ns` and `next`; of one instant, the one put in first comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.engine.virtual.calendar import ENTRY, heap_pop, heap_push
from simulator.engine.virtual.records import NEVER_NS, NONE
from simulator.kernel import fused, inlined, int64, kernel, trailing_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_BUCKETS, MOST_BUCKETS = 16_384, 131_072  # 64 and 512 KiB of list heads, of which only those in use are touched
_WIDEST, _NARROWEST = 40, 2  # shifts: a bucket of 18 minutes, of 4 ns

# Scalars of the agenda, in `Agenda.at`.
SHIFT, IN_WHEEL, IN_FAR, NEXT_PLACE, NEXT_NS, FAR_NS, PUT, TAIL = range(8)


class Agenda(NamedTuple):
    """Rows by the time at which they are due; each at most once."""

    heads: NDArray[np.int32]  # (buckets,), a power of two
    filled: NDArray[np.uint64]  # (buckets / 64,) a bit for each bucket that is not empty
    far: NDArray[np.void]  # (R,) ENTRY, a binary heap
    at: NDArray[np.int64]  # (8,) see above


def open_agenda(rows: int, per_s: float, servers: int) -> Agenda:
    """An empty agenda.

    Args:
        rows: how many rows there are at most.
        per_s: a guess at how many are due a second, for the width of a bucket. A wrong one costs time and changes nothing.
        servers: for the length, which is that of some services of all of them, so that few rows go to the heap.
    """
    buckets = min(max(1 << (16 * servers - 1).bit_length(), LEAST_BUCKETS), MOST_BUCKETS)
    at = np.zeros(8, np.int64)
    gap_ns = 1e9 / max(per_s, 1e-3)
    narrow, long = np.floor(np.log2(0.5 * gap_ns)), np.ceil(np.log2(8 * servers * gap_ns / buckets))
    at[SHIFT] = int(np.clip(max(narrow, long), _NARROWEST, _WIDEST))
    at[NEXT_NS] = at[FAR_NS] = NEVER_NS
    return Agenda(
        heads=np.full(buckets, NONE, np.int32),
        filled=np.zeros(buckets // 64, np.uint64),
        far=np.zeros(rows + 1, ENTRY),
        at=at,
    )


@inlined
def next_ns(agenda: Agenda) -> int:
    """When the first row is due; `NEVER_NS`: there is none."""
    return min(agenda.at[NEXT_NS], agenda.at[FAR_NS])


@inlined
def peek(agenda: Agenda) -> int:
    """The row that `take` would take; there is one."""
    at = agenda.at
    return int64(agenda.far[0]["row"] if at[FAR_NS] <= at[NEXT_NS] else agenda.heads[at[NEXT_PLACE]])


@inlined
def _insert(rows: NDArray[np.void], head: int, r: int, below_ns: int) -> int:
    """Puts row r into a sorted list, behind those that are due before `below_ns`; returns the first of it."""
    if head == NONE or rows[head]["time_ns"] >= below_ns:
        rows[r]["next"] = head
        return r
    before = head
    following = int64(rows[before]["next"])
    while following != NONE and rows[following]["time_ns"] < below_ns:
        before = following
        following = int64(rows[before]["next"])
    rows[r]["next"] = following
    rows[before]["next"] = r
    return head


@kernel
def _sort(agenda: Agenda, rows: NDArray[np.void], place: int) -> None:
    """Sorts the list of a bucket, and finds its tail.

    What was put in last is at its head, and mostly due last: so this is mostly one step a row.
    """
    done = int64(NONE)
    r = int64(agenda.heads[place])
    while r != NONE:
        following = int64(rows[r]["next"])
        done = _insert(rows, done, r, rows[r]["time_ns"])
        r = following
    agenda.heads[place] = done
    while rows[done]["next"] != NONE:
        done = int64(rows[done]["next"])
    agenda.at[TAIL] = done


@kernel
def _reverse(agenda: Agenda, rows: NDArray[np.void], place: int) -> None:
    """Brings a bucket's sorted list into the order of those that are not."""
    done = int64(NONE)
    r = int64(agenda.heads[place])
    while r != NONE:
        following = int64(rows[r]["next"])
        rows[r]["next"] = done
        done = r
        r = following
    agenda.heads[place] = done


@fused
def put(agenda: Agenda, rows: NDArray[np.void], r: int, time_ns: int, now: int) -> None:
    """Puts row r in, which is due at `time_ns`, its own, ≥ `now`. Nothing that is in is due before `now`."""
    at, heads = agenda.at, agenda.heads
    bucket = time_ns >> at[SHIFT]
    if bucket - (now >> at[SHIFT]) >= heads.shape[0]:
        heap_push(agenda.far, at[IN_FAR], time_ns, at[PUT], r)
        at[IN_FAR] += 1
        at[PUT] += 1
        at[FAR_NS] = min(at[FAR_NS], time_ns)
        return
    place = bucket & (heads.shape[0] - 1)
    at[IN_WHEEL] += 1
    if at[IN_WHEEL] > 1 and place == at[NEXT_PLACE]:
        if time_ns >= rows[at[TAIL]]["time_ns"]:  # as where many are put in for one instant
            rows[r]["next"] = NONE
            rows[at[TAIL]]["next"] = r
            at[TAIL] = r
        else:
            heads[place] = _insert(rows, int64(heads[place]), r, time_ns + 1)
            at[NEXT_NS] = min(at[NEXT_NS], time_ns)
        return
    rows[r]["next"] = heads[place]
    heads[place] = r
    agenda.filled[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
    if time_ns < at[NEXT_NS]:
        if at[IN_WHEEL] > 1 and heads[at[NEXT_PLACE]] != at[TAIL]:
            _reverse(agenda, rows, at[NEXT_PLACE])
        at[NEXT_NS] = time_ns
        at[NEXT_PLACE] = place
        at[TAIL] = r


@fused
def take(agenda: Agenda, rows: NDArray[np.void]) -> int:
    """Takes the first row out; there is one."""
    at, heads, filled = agenda.at, agenda.heads, agenda.filled
    if at[FAR_NS] <= at[NEXT_NS]:
        r = int64(agenda.far[0]["row"])
        heap_pop(agenda.far, at[IN_FAR])
        at[IN_FAR] -= 1
        at[FAR_NS] = agenda.far[0]["time_ns"] if at[IN_FAR] > 0 else int64(NEVER_NS)
        return r
    place = at[NEXT_PLACE]
    r = int64(heads[place])
    following = int64(rows[r]["next"])
    heads[place] = following
    at[IN_WHEEL] -= 1
    if following == NONE:
        word = place >> 6
        bits = filled[word] & ~(np.uint64(1) << np.uint64(place & 63))
        filled[word] = bits
        if at[IN_WHEEL] == 0:
            at[NEXT_NS] = NEVER_NS
            return r
        bits = (bits >> np.uint64(place & 63)) << np.uint64(place & 63)
        while bits == np.uint64(0):
            word = (word + 1) & (filled.shape[0] - 1)
            bits = filled[word]
        place = (word << 6) + trailing_zeros(bits)
        at[NEXT_PLACE] = place
        at[TAIL] = heads[place]
        if rows[at[TAIL]]["next"] != NONE:
            _sort(agenda, rows, place)
        following = int64(heads[place])
    at[NEXT_NS] = rows[following]["time_ns"]
    return r
