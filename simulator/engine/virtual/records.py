"""What is in flight, and what nodes and shards hold: fixed records in bounded tables, whole cache lines each.

A transaction in flight is one `LIVE` row, each of its attempts one `ATTEMPT` row. An attempt's row ends when neither the platform
works on it nor the client waits for it; a transaction's row when it is settled and has no attempt left. Rows come from a stack
of free ones, so the rows in use stay in the cache. Lists are threaded through the rows by row number; −1 ends a list.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1
NEVER_NS = 2**62

ATTEMPT = np.dtype(
    [
        ("time_ns", "<i8"),  # of its next event
        ("seq", "<i8"),  # orders events of one instant: the order in which they were scheduled
        ("sent_ns", "<i8"),
        ("entered_ns", "<i8"),  # the stage it is in
        ("live", "<i4"),  # its transaction's row
        ("next", "<i4"),  # in whatever list it waits: calendar, line, queue
        ("older", "<i4"),  # neighbours in the list of time-outs
        ("newer", "<i4"),
        ("node", "<i4"),
        ("balancer", "<u2"),
        ("found", "<u2"),  # how many its node held when it came, itself among them; 65,535: that or more
        ("number", "u1"),  # 0 the first, 1, 2 … retries and hedges as they come
        ("stage", "u1"),  # Stage
        ("awaited", "u1"),  # the client waits for it
        ("inside", "u1"),  # the platform has it
        ("doomed", "u1"),  # a node's death: it is dropped where it arrives
        ("status", "u1"),  # what the answer under way says: Answer
        ("origin", "u1"),  # FIRST, RETRIED, HEDGED
        ("spare", "u1"),
    ]
)
assert ATTEMPT.itemsize == 64, ATTEMPT.itemsize  # noqa: PLR2004, S101  a cache line

LIVE = np.dtype(
    [
        ("id", "<u8"),
        ("intended_ns", "<i8"),
        ("amount_minor", "<i8"),
        ("hedge_ns", "<i8"),  # when the next hedge is due
        ("hashed", "<u4"),  # the account that consistent hashing keeps together: payer or payee
        ("older", "<i4"),  # neighbours in the list of deadlines
        ("newer", "<i4"),
        ("before", "<i4"),  # neighbours in the list of hedges
        ("after", "<i4"),
        ("shard", "<u2"),
        ("window", "<u2"),  # of the intended time
        ("kind", "u1"),
        ("attempts", "u1"),  # rows of its attempts in use
        ("waiting", "u1"),  # of these: awaited by the client, a retry in its backoff included
        ("out", "u1"),  # of these: sent, and no answer yet
        ("made", "u1"),  # attempts numbered so far
        ("retries", "u1"),
        ("hedges", "u1"),
        ("flags", "u1"),  # SETTLED, APPLIED, DOUBT, UNKNOWN
    ]
)
assert LIVE.itemsize == 64, LIVE.itemsize  # noqa: PLR2004, S101  a cache line

FIRST, RETRIED, HEDGED = 0, 1, 2

SETTLED, APPLIED, DOUBT, IN_DOUBT = 1, 2, 4, 8

NODE = np.dtype(
    [
        ("touched_ns", "<i8"),  # until when the two areas are counted
        ("queue_area", "<i8"),  # ∫ waiting dt since the last window began, customers · ns
        ("busy_area", "<i8"),  # ∫ working dt
        ("slowness", "<f8"),  # what service times are multiplied with: faults over speed
        ("paused_ns", "<i8"),  # begins nothing before this
        ("working", "<i4"),
        ("waiting", "<i4"),
        ("head", "<i4"),  # of the queue: the oldest
        ("tail", "<i4"),
        ("flight", "<i4"),  # attempts sent here that balancers wait for
        ("flight_max", "<i4"),
    ]
)
assert NODE.itemsize == 64, NODE.itemsize  # noqa: PLR2004, S101  a cache line

SHARD = np.dtype(
    [
        ("free_ns", "<i8"),  # one by one: when the last that came will be done
        ("flight", "<i4"),  # transactions in flight that are this shard's
        ("flight_max", "<i4"),
        ("head", "<i4"),  # in batches: what the next commit takes
        ("tail", "<i4"),
        ("waiting", "<i4"),
        ("committing", "<i4"),  # the first of the batch under way, whose event is the batch's; NONE: idle
        ("others", "<i4"),  # the rest of the batch under way
        ("spare", "<i4", (7,)),
    ]
)
assert SHARD.itemsize == 64, SHARD.itemsize  # noqa: PLR2004, S101  a cache line


class Stage(IntEnum):
    """Where an attempt is; its next event, if it has one, is the end of that."""

    BACKOFF = 0  # a retry that waits to be sent
    TO_NODE = 1
    QUEUED = 2  # at the node; no event
    SERVED = 3
    TO_SHARD = 4
    COMMITTED = 5  # in a batch; the event is that of the batch's first
    BOOKED = 6  # the shard is done with it, and the dependency comes next
    CALLED = 7  # the dependency works on it
    HUNG = 8  # the dependency does not answer; no event
    REPLY = 9


class Answer(IntEnum):
    """What an attempt comes back with."""

    OK = 0
    FULL = 1  # the node's queue was full: refused
    LIMIT = 2  # the node's adaptive limit, or its admission control: refused
    DOWN = 3  # the node was not there: an error, and nothing happened
    RESET = 4  # the node died with it: an error, in doubt
    BROKEN = 5  # the dependency said error: booked here, not there
    NO_NODE = 6  # the balancer had none that may take it: refused
    LATE = 7  # no answer in time


class Faults(IntEnum):
    """What a row of the table of faults does."""

    DIES = 0
    RETURNS = 1
    SLOWS = 2
    RECOVERS = 3
    PAUSES = 4  # value: until when
    RESUMES = 5
    DEPENDENCY_OUT = 6  # value 1: it hangs
    DEPENDENCY_BACK = 7
    UNIT_LOST = 8
    UNIT_BACK = 9


# What became of each transaction, by id; for tests and for whoever checks the theory.
TRACE = np.dtype(
    [
        ("intended_ns", "<i8"),
        ("done_ns", "<i8"),  # when it was settled
        ("wait_ns", "<i8"),  # in its node's queue: of its first attempt, 0 until that is served
        ("node", "<i4"),  # that answered; NONE: none did
        ("status", "u1"),
        ("reason", "u1"),
        ("attempts", "u1"),
        ("spare", "u1"),
    ]
)

# A probe on its way to a node, or what a node says of itself on its way to a balancer.
MAIL = np.dtype(
    [
        ("time_ns", "<i8"),
        ("balancer", "<i4"),
        ("node", "<i4"),
        ("queue", "<f8"),
        ("latency_ns", "<f8"),
        ("number", "<i8"),
    ]
)
MAIL_KEPT = 65_536  # under way in each direction; more are lost, and counted

FAULT = np.dtype([("time_ns", "<i8"), ("what", "<i8"), ("node", "<i8"), ("value", "<f8")])


class Pool(NamedTuple):
    """The tables of what is in flight."""

    attempts: NDArray[np.void]  # (A,) ATTEMPT
    live: NDArray[np.void]  # (L,) LIVE
    free_attempts: NDArray[np.int32]  # (A,) a stack
    free_live: NDArray[np.int32]  # (L,) a stack
    free: NDArray[np.int64]  # (2,) how many of each
    last: NDArray[np.int32]  # (L,) the node a transaction was sent to last; NONE: to none yet


def open_pool(transactions: int, attempts: int) -> Pool:
    """Tables for so many at once."""
    rows = np.zeros(attempts, ATTEMPT)
    rows["live"] = NONE
    return Pool(
        attempts=rows,
        live=np.zeros(transactions, LIVE),
        free_attempts=np.arange(attempts - 1, -1, -1, dtype=np.int32),
        free_live=np.arange(transactions - 1, -1, -1, dtype=np.int32),
        free=np.array([attempts, transactions], np.int64),
        last=np.full(transactions, NONE, np.int32),
    )
