"""The seam between the simulator and what it drives, and `NoopBackend`, which measures the simulator's own overhead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from simulator.transaction import OUTCOME, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Backend(Protocol):
    """What the dispatcher needs of a backend. Every implementation passes `tests/backend_contract.py`.

    `offer` and `poll` are called from one process and never wait. Each transaction that `offer` accepts is answered by
    exactly one outcome of `poll`, with its `id` and `slot`; one that it does not accept by none.
    """

    @property
    def nodes(self) -> int:
        """How many nodes a transaction may enter."""
        ...

    def owners(self) -> NDArray[np.int64]:
        """The node that owns each shard, shape (shards,). The shard of a transaction is `payer % shards`.

        A platform that splits hot accounts says so to the dispatcher (`simulator.shard.split`). One array for the whole run,
        read again at each use: its values change where shards move.
        """
        ...

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        """Takes the first k of `batch` (TRANSACTION) into a node's queue and returns k: the rest did not fit."""
        ...

    def poll(self, outcomes: NDArray[np.void]) -> int:
        """Moves up to len(outcomes) answers (OUTCOME) out; returns how many."""
        ...

    def returned(self) -> list[int]:
        """Nodes that came back since this was last asked and may have lost what they had not answered.

        The dispatcher then offers them again what is in flight; the ids make that harmless.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Sleeps until there may be answers, at most this long."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A backend that has something to open in the process that uses it, before the clock runs: sockets, for example."""

    def open(self) -> None:
        """Opens it. Raises BackendError, with one line for the user, if that cannot be."""
        ...

    def close(self) -> None:
        """Closes it; what is in flight stays unanswered."""
        ...


Turn = Callable[[], "float | None"]
"""One turn of an engine: returns how many seconds it may wait for answers before the next, 0.0: none, None: it was the last."""


@runtime_checkable
class Loops(Protocol):
    """A backend with an event loop of its own, which takes the engine's turns from inside it instead of being waited for.

    Entering and leaving a loop costs system calls, many more than a turn does.
    """

    def repeat(self, turn: Turn) -> None:
        """Takes turns until one returns None, each when its time is over or answers have come; raises what a turn raises."""
        ...


class NoopBackend:
    """Answers every transaction with `ok` at the next poll: what is left is the simulator's own cost."""

    def __init__(self, nodes: int = 1, shards: int = 1, queue: int = 65_536) -> None:
        self._nodes = nodes
        self._shards = shards
        self._outcomes = np.zeros(queue, OUTCOME)
        self._count = 0
        self._lsn = np.zeros(shards, np.int64)

    @property
    def nodes(self) -> int:
        """As many as asked for; nothing tells them apart."""
        return self._nodes

    def owners(self) -> NDArray[np.int64]:
        """Shards dealt out in turn."""
        return np.arange(self._shards, dtype=np.int64) % self._nodes

    def offer(self, node: int, batch: NDArray[np.void]) -> int:  # noqa: ARG002  all nodes are one
        """Takes what fits of the batch."""
        taken = min(len(batch), len(self._outcomes) - self._count)
        answers = self._outcomes[self._count : self._count + taken]
        asked = batch[:taken]
        answers["id"] = asked["id"]
        answers["slot"] = asked["slot"]
        shard = asked["payer"] % self._shards
        answers["shard"] = shard
        answers["status"] = Status.OK
        for s in np.unique(shard):
            mine = shard == s
            answers["lsn"][mine] = self._lsn[s] + np.arange(1, int(mine.sum()) + 1)
            self._lsn[s] += int(mine.sum())
        self._count += taken
        return taken

    def poll(self, outcomes: NDArray[np.void]) -> int:
        """Hands over what was taken, in order."""
        count = min(len(outcomes), self._count)
        outcomes[:count] = self._outcomes[:count]
        self._outcomes[: self._count - count] = self._outcomes[count : self._count].copy()
        self._count -= count
        return count

    def returned(self) -> list[int]:
        """Nobody ever leaves."""
        return []

    def wait(self, timeout_s: float) -> None:
        """Sleeps, unless there are answers already."""
        if not self._count and timeout_s > 0:
            time.sleep(timeout_s)
