"""The embedded platform as a backend: the dispatcher's ends of the rings to and from the node processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.shard.layout import NodeState
from simulator.shard.split import to_booked
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.layout import Board, Shape
    from simulator.shard.ring import Ring
    from simulator.shard.worker import Wiring


_BOOKED = 8_192  # transactions of split accounts that are put into the platform's words at a time


class EmbeddedBackend:
    """Speaks to the nodes of a `simulator.shard.pool.Pool` from one other process.

    It is the platform's door: clients name merchants, and what goes in names the accounts that they are booked on.
    """

    def __init__(self, shape: Shape, wiring: Wiring, board: Board) -> None:
        self._shape = shape
        self._wiring = wiring
        self._board = board
        self._split = shape.split
        self._booked = np.zeros(_BOOKED if self._split.hot else 0, TRANSACTION)
        self._incarnations = board.nodes["incarnation"].copy()
        self._told: list[int] = []  # what `returned` said last
        self._seen = self._incarnations.copy()  # as they were before the rings were last emptied
        self._back = np.zeros(shape.nodes, np.bool_)  # the nodes that were back then

    @property
    def nodes(self) -> int:
        """The node processes."""
        return self._shape.nodes

    def owners(self) -> NDArray[np.int64]:
        """The node that owns each shard: the board's own words, which change when a shard moves."""
        return self._board.owners

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        """Pushes what fits into the node's ring and wakes it."""
        ring = self._wiring.requests[node]
        taken = ring.push(batch) if self._split.hot == 0 else self._push_booked(ring, batch)
        self._wiring.node_bells[node].ring()
        return taken

    def _push_booked(self, ring: Ring, batch: NDArray[np.void]) -> int:
        """Pushes a copy of what fits; the client's own stays as it is, for whoever asks again."""
        taken = 0
        while taken < len(batch):
            asked = batch[taken : taken + _BOOKED]
            booked = self._booked[: len(asked)]
            to_booked(asked, booked, self._split)
            pushed = ring.push(booked)
            taken += pushed
            if pushed < len(asked):
                break
        return taken

    def poll(self, outcomes: NDArray[np.void]) -> int:
        """Takes answers from every node in turn."""
        board = self._board.nodes
        self._seen[:] = board["incarnation"]
        self._back = (self._seen != self._incarnations) & (board["state"] >= NodeState.READY)
        count = 0
        for ring in self._wiring.replies:
            if count == len(outcomes):
                break
            count += ring.pop(outcomes[count:])
        return count

    def returned(self) -> list[int]:
        """The nodes that were restarted and were ready again at the last poll.

        Not those that came back since: what the life before had answered may still be in the ring, and whoever asked again
        before taking it could be told one thing by the old life and another by the new. Those of the call before have been
        asked again by now; a shard that one of them owns may move on from here on.
        """
        if self._told:
            self._board.asked[self._told] = self._incarnations[self._told]
            self._told = []
        if not self._back.any():
            return []
        back = np.flatnonzero(self._back)
        self._incarnations[back] = self._seen[back]
        self._back[:] = False
        self._told = [int(node) for node in back]
        return self._told

    def wait(self, timeout_s: float) -> None:
        """Sleeps until a node rings, at most this long."""
        self._wiring.dispatcher_bell.wait(timeout_s)
