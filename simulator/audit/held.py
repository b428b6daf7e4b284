"""Money on its way over time, read off the journals when the run is over: float between shards, and what holds set aside.

*Float* is debited at the payer's shard and not yet credited at the payee's; *reserved* is what open holds, and tries that are not
settled, have taken from what their payers may spend. Each frame of a journal carries the time at which its commit began, so both
are known at every moment, in integers, and cost the running platform nothing. The signs are those of `simulator.audit.replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.shard.layout import Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.journal import Frames

_LEGS = 256  # a leg is one byte; custody records stand far from the others and move nothing
_POST = int(Kind.POST)


def _signs(pairs: dict[Leg, int]) -> NDArray[np.int64]:
    table = np.zeros(_LEGS, np.int64)
    for leg, sign in pairs.items():
        table[leg] = sign
    return table


_FLOAT = _signs({Leg.DEBIT: 1, Leg.COMMIT: 1, Leg.CREDIT: -1, Leg.CONFIRMED: -1, Leg.TAKE_BACK: -1})
# A post takes what an authorization has set aside already: its own try and its abort leave that where it is.
_RESERVED = _signs({Leg.RESERVE: 1, Leg.BEGIN: 1, Leg.RELEASE: -1, Leg.EXPIRE: -1, Leg.ABORT: -1, Leg.COMMIT: -1})
_RESERVED_POST = _signs({Leg.TRANSFER: -1, Leg.DEBIT: -1, Leg.COMMIT: -1})


class HeldMoney:
    """Takes frames while they are read, then says what was held at the end of each window of a grid (edges in ns, (T + 1,))."""

    def __init__(self, grid_ns: NDArray[np.int64]) -> None:
        self._grid_ns = grid_ns
        self._float = np.zeros(len(grid_ns) - 1, np.int64)
        self._reserved = np.zeros(len(grid_ns) - 1, np.int64)

    def look(self, frames: Frames) -> None:
        """Takes some frames of one journal."""
        if not len(frames.records):
            return
        legs, amounts = frames.records["leg"], frames.records["amount_minor"]
        posts = frames.records["kind"] == _POST
        windows = np.searchsorted(self._grid_ns, frames.committed_ns, side="right") - 1
        windows = np.repeat(np.clip(windows, 0, len(self._float) - 1), frames.counts)
        reserved = np.where(posts, _RESERVED_POST[legs], _RESERVED[legs])
        starts = np.flatnonzero(np.diff(windows, prepend=-1))  # neighbours share a window, and are summed first
        for sums, signs in ((self._float, _FLOAT[legs]), (self._reserved, reserved)):
            np.add.at(sums, windows[starts], np.add.reduceat(signs * amounts, starts))

    def columns(self, rows: int) -> dict[str, NDArray[np.int64]]:
        """`float_minor` and `reserved_minor` at the end of each window; what came after row `rows` counts in that row.

        So the last row of a series is the platform at rest, although its last commits came after the last answer.
        """
        found = {}
        for name, changes in (("float_minor", self._float), ("reserved_minor", self._reserved)):
            held = np.cumsum(changes)
            held[max(rows - 1, 0) :] = held[-1]
            found[name] = held
        return found
