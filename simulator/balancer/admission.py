"""Admission control at a node: what to take, and what to let go, when there is more than can be served.

* CoDel: Nichols, Jacobson, RFC 8289: once every request has waited longer than the target (5 ms) for a whole interval (100
  ms), one is dropped as it leaves the queue, the next after interval/√2, then /√3 …, until the wait is below the target.
* controlled delay: Maurer, "Fail at Scale", ACM Queue 13(8), 2015 (Facebook): a request may wait 100 ms; but only 5 ms
  while the queue has not been empty for the last 100 ms.
* adaptive LIFO: the same article: the newest first while the queue has not been empty for that long, else the oldest. It
  lets nobody go, so in a scenario it is a discipline: `platform.discipline: adaptive_lifo`.
* DAGOR: Zhou et al., "Overload Control for Scaling WeChat Microservices", SoCC 2018: a node is overloaded when requests
  waited more than 20 ms on average over a window (1 s or 2,000 requests). Each request has a priority (business, then
  user); a cursor lets in those up to some level. After a window with overload it moves so that 5 % fewer than were taken
  would have been let in, after one without so that 1 % more would have been, by the histogram of the priorities that
  arrived.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET_NS, INTERVAL_NS = 5_000_000, 100_000_000
DAGOR_QUEUEING_NS, DAGOR_WINDOW_NS, DAGOR_WINDOW_REQUESTS = 20_000_000, 1_000_000_000, 2_000
DAGOR_DOWN, DAGOR_UP = 0.05, 0.01
USERS = 128
LEVELS = 8 * USERS  # of DAGOR's compound priority here: 8 of business × 128 of users, as in the paper

CODEL = np.dtype(
    [("above_until_ns", "<i8"), ("next_ns", "<i8"), ("drops", "<i8"), ("last_drops", "<i8"), ("dropping", "<i8")]
)


@kernel
def codel_drops(
    states: NDArray[np.void], row: int, now_ns: int, waited_ns: int, queued: int, target_ns: int, interval_ns: int
) -> bool:  # fmt: skip
    """Whether the request at the head of the queue is dropped as it leaves.

    Call it again for the next one if so. `queued`: how many wait behind it; the last one is never dropped.
    """
    state = states[row]
    good = False
    if waited_ns < target_ns or queued == 0:
        state["above_until_ns"] = 0
    elif state["above_until_ns"] == 0:
        state["above_until_ns"] = now_ns + interval_ns
    else:
        good = now_ns >= state["above_until_ns"]
    if state["dropping"] != 0:
        if not good:
            state["dropping"] = 0
        elif now_ns >= state["next_ns"]:
            state["drops"] += 1
            state["next_ns"] += int64(interval_ns / sqrt(state["drops"]))
            return True
        return False
    if not good:
        return False
    state["dropping"] = 1
    # A queue that was bad lately resumes near the rate of drops that had controlled it (RFC 8289, §5.5).
    fresh = state["drops"] - state["last_drops"]
    recently = now_ns - state["next_ns"] < 16 * interval_ns
    state["drops"] = fresh if fresh > 1 and recently else 1
    state["next_ns"] = now_ns + int64(interval_ns / sqrt(state["drops"]))
    state["last_drops"] = state["drops"]
    return True


@kernel
def may_wait_ns(now_ns: int, last_empty_ns: int, target_ns: int, interval_ns: int) -> int:
    """Controlled delay: how long a request that joins the queue now may wait; `last_empty_ns`: when the queue was last empty."""
    return target_ns if last_empty_ns < now_ns - interval_ns else interval_ns


@kernel
def newest_first(now_ns: int, last_empty_ns: int, interval_ns: int) -> bool:
    """Adaptive LIFO: whether the newest request is served next."""
    return last_empty_ns < now_ns - interval_ns


DAGOR = np.dtype(
    [
        ("level", "<i8"),  # priorities up to this one are let in; 0 is the highest
        ("arrived", "<i4", (LEVELS,)),  # in this window, by priority
        ("requests", "<i8"),  # in this window
        ("taken", "<i8"),  # of these
        ("served", "<i8"),
        ("waited_ns", "<f8"),  # in all, by those served
        ("since_ns", "<i8"),
    ]
)


def open_dagor(rows: int) -> NDArray[np.void]:
    """One DAGOR row a node; everybody is let in."""
    states = np.zeros(rows, DAGOR)
    states["level"] = LEVELS - 1
    return states


@kernel
def dagor_admits(states: NDArray[np.void], row: int, priority: int) -> bool:
    """Whether a request of this priority, 0 … LEVELS − 1, is taken; counts it."""
    state = states[row]
    state["arrived"][priority] += 1
    state["requests"] += 1
    if priority > state["level"]:
        return False
    state["taken"] += 1
    return True


@kernel
def dagor_served(states: NDArray[np.void], row: int, waited_ns: int) -> None:
    """A request began service after waiting so long."""
    states[row]["served"] += 1
    states[row]["waited_ns"] += waited_ns


@kernel
def dagor_window(states: NDArray[np.void], row: int, now_ns: int, queueing_ns: int, window_ns: int) -> None:
    """Ends the window if it is over, and moves the level; call it on each arrival, before it is judged."""
    state = states[row]
    if now_ns - state["since_ns"] < window_ns and state["requests"] < DAGOR_WINDOW_REQUESTS:
        return
    overloaded = state["served"] > 0 and state["waited_ns"] > float(queueing_ns) * state["served"]
    level = state["level"]
    if overloaded:
        goal = state["taken"] * (1.0 - DAGOR_DOWN)
        let_in = float(state["taken"])
        while level > 0 and let_in > goal:
            let_in -= state["arrived"][level]
            level -= 1
    elif level < LEVELS - 1:
        goal = state["taken"] * (1.0 + DAGOR_UP)
        let_in = float(state["taken"])
        while level < LEVELS - 1 and let_in <= goal:
            level += 1
            let_in += state["arrived"][level]
    state["level"] = level
    for i in range(LEVELS):
        state["arrived"][i] = 0
    state["requests"] = 0
    state["taken"] = 0
    state["served"] = 0
    state["waited_ns"] = 0.0
    state["since_ns"] = now_ns
