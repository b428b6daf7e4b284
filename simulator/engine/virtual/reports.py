"""What nodes know of themselves, and tell all balancers now and then.

Each node reports once an interval, at a moment of its own that comes from a hash of its number: those of real nodes do not
start together either, and balancers that heard of all nodes at one instant would all change their minds at it. The way takes
the same time for every node and balancer, so reports arrive in the order in which they were sent: a ring holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.engine.virtual.model import Model

# Columns of what a node knows: mean service (ns), answers and errors since the last report, ∫ busy dt now and then, and when
# it reported last.
SERVICE, SERVED, ERRORS, BUSY, BUSY_THEN, SAID = range(6)
KNOWN = 6

REPORT = np.dtype(
    [
        ("arrives_ns", "<i8"),
        ("node", "<i8"),
        ("queue", "<f8"),
        ("service_ns", "<f8"),
        ("utilization", "<f8"),
        ("served_per_s", "<f8"),
        ("errors_per_s", "<f8"),
    ]
)
NEXT_NS, TURN, BASE_NS, HEAD, HELD = range(5)
_NEVER_NS = 2**62


class Reports(NamedTuple):
    """Reports to come and under way."""

    at: NDArray[
        np.int64
    ]  # (5,) when the next is made, whose turn it is, when this round began; the ring's head and number
    order: NDArray[np.int32]  # (N,) nodes in the order of their moments
    offset_ns: NDArray[np.int64]  # (N,) these moments within an interval
    ring: NDArray[np.void]  # (R,) REPORT


def open_reports(model: Model, seed_key: np.uint64) -> Reports:
    """None yet; the first ones come in the second interval, over one that is whole."""
    every, nodes = model.report_ns, model.nodes
    if not every:
        return Reports(
            np.array([_NEVER_NS, 0, 0, 0, 0]), np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, REPORT)
        )
    offset = np.array([int(mix(np.uint64(seed_key) ^ np.uint64(n))) % every for n in range(nodes)], np.int64)
    order = np.argsort(offset, kind="stable").astype(np.int32)
    kept = (model.delay_ns // every + 2) * nodes
    first = every + int(offset[order[0]])
    return Reports(np.array([first, 0, every, 0, 0]), order, offset[order], np.zeros(kept, REPORT))


@kernel
def report(
    reports: Reports, known: NDArray[np.float64], now_ns: int, every_ns: int, delay_ns: int, workers: int, silent: int,
    queue: float, busy_ns: float,
) -> None:  # fmt: skip
    """The node whose turn it is reports; who is dead or stands still (`silent`) says nothing."""
    at = reports.at
    n = int64(reports.order[at[TURN]])
    span = max(now_ns - known[n, SAID], 1.0)
    if silent == 0:
        row = reports.ring[(at[HEAD] + at[HELD]) % reports.ring.shape[0]]
        at[HELD] += 1
        row["arrives_ns"] = now_ns + delay_ns
        row["node"] = n
        row["queue"] = queue
        row["service_ns"] = known[n, SERVICE]
        row["utilization"] = (busy_ns - known[n, BUSY_THEN]) / (span * workers)
        row["served_per_s"] = known[n, SERVED] * 1e9 / span
        row["errors_per_s"] = known[n, ERRORS] * 1e9 / span
    known[n, BUSY_THEN] = busy_ns
    known[n, SERVED] = 0.0
    known[n, ERRORS] = 0.0
    known[n, SAID] = now_ns
    at[TURN] += 1
    if at[TURN] == reports.order.shape[0]:
        at[TURN] = 0
        at[BASE_NS] += every_ns
    at[NEXT_NS] = at[BASE_NS] + reports.offset_ns[at[TURN]]


@kernel
def take_report(reports: Reports) -> int:
    """Takes the oldest under way; returns its place in the ring, where it stands until the next one is made."""
    place = reports.at[HEAD]
    reports.at[HEAD] = (place + 1) % reports.ring.shape[0]
    reports.at[HELD] -= 1
    return int64(place)
