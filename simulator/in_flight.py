"""The in-flight table: one row for each transaction between its release and its end, of bounded size.

A row's number, its slot, travels with the transaction and comes back in the outcome, so that settling needs no search. Whoever
releases, tries again or settles works on the same rows; all of them are one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import inlined
from simulator.ledger.books import touched
from simulator.measure.recorder import ATTEMPTS_SHIFT
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_PICKED = -2
BETWEEN = 128  # in `attempts`: none of them is under way, the next one waits for its time


class InFlight(NamedTuple):
    """The in-flight table; `C` slots."""

    table: NDArray[np.void]  # (C,) TRANSACTION; id 0: free
    seen_lsn: NDArray[np.int64]  # (C,) the shard's highest acknowledged position when it was fired
    free: NDArray[np.uint32]  # (C,) a stack of free slots: the one last freed is the one still in the cache
    free_count: NDArray[np.int64]  # (1,)
    seen_epoch: NDArray[np.int64]  # (C,) the epoch that position is of
    acknowledged_lsn: NDArray[np.int64]  # (S,) highest acknowledged position of each shard
    epoch: NDArray[np.int64]  # (S,) the epoch it is of: after a power loss positions may be given out again
    picks: NDArray[np.int64]  # (2,) how many nodes were picked; the last pick, if its stage was full, else NOT_PICKED
    asked: NDArray[
        np.uint8
    ]  # (C,) 1: offered again, so that more than one copy may be under way; 2: and to be once more
    again: NDArray[np.uint32]  # (C,) a stack of slots to be asked about once more
    again_count: NDArray[np.int64]  # (1,)
    seconds: NDArray[np.int64]  # (1,) answers to nothing in flight that were written down
    attempts: NDArray[np.uint8]  # (C,) how often it was sent so far, and BETWEEN
    attempted_ns: NDArray[np.int64]  # (C,) when it was sent last; where it waits for that, when its node was picked


def open_in_flight(slots: int, shards: int) -> InFlight:
    """An empty table."""
    return InFlight(
        table=touched((slots,), TRANSACTION),
        seen_lsn=np.zeros(slots, np.int64),
        seen_epoch=np.zeros(slots, np.int64),
        free=np.arange(slots - 1, -1, -1, dtype=np.uint32),
        free_count=np.array([slots], np.int64),
        acknowledged_lsn=np.zeros(shards, np.int64),
        epoch=np.zeros(shards, np.int64),
        picks=np.array([0, NOT_PICKED], np.int64),
        asked=np.zeros(slots, np.uint8),
        again=np.zeros(slots, np.uint32),
        again_count=np.zeros(1, np.int64),
        seconds=np.zeros(1, np.int64),
        attempts=np.zeros(slots, np.uint8),
        attempted_ns=np.zeros(slots, np.int64),
    )


@inlined
def in_history(attempts: int) -> int:
    """A row's `attempts` as a history row has them, in its flags."""
    return (max(attempts & (BETWEEN - 1), 1) - 1) << ATTEMPTS_SHIFT
