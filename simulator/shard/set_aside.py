"""Operations that could not be booked and wait for another try, each in front of those that must not overtake it.

An operation is set aside under its *key*: a request under its payer, whose requests keep their order, a message between two
shards (a far leg, a try) under their pair, whose numbers must arrive without a gap. What comes later under the same key waits
behind it; everybody else goes on. So one bad operation delays at most what belongs to its own payer or pair, and that no longer
than `tries` × `wait`.

Nothing here is durable, and nothing needs to be: an operation that waits is neither booked nor answered, so after a restart
its client or peer asks again, and its tries begin anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.shard.layout import Message, route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROOM = 4_096  # operations that wait at a node, those behind others included; beyond, its inbound rings wait
NO_KEY = -(2**62)  # what is not booked here waits behind nobody
_REQUEST = int(Message.REQUEST)


@dataclass
class Waiting:
    """One operation that waits."""

    message: NDArray[np.void]  # TRANSACTION, shape (1,)
    tries: int = 0  # how often it was tried; 0: it only waits behind another
    due_ns: int = 0  # when it may be tried again
    why: str = ""  # why it could not be booked the last time


def keys_of(messages: NDArray[Any], here: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The key of each message (TRANSACTION[n]) as int64[n]; `here[s]` says whether shard s is booked here."""
    shards = len(here)
    payer = messages["payer"].astype(np.int64)
    origin, to = route(messages, shards)
    pair = -1 - (to * shards + origin)
    keys: NDArray[np.int64] = np.where(
        messages["message"] != _REQUEST, pair, np.where(here[payer % shards], payer, NO_KEY)
    )
    return keys


class SetAside:
    """What waits at one node, by key."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self._queues: dict[int, deque[Waiting]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether nothing more may be set aside now."""
        return self._count >= self.room

    def blocked(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these must wait behind what is here."""
        return np.isin(keys, np.fromiter(self._queues, np.int64, len(self._queues)))

    def add(self, key: int, waiting: Waiting) -> None:
        """Puts one at the end of its queue. There must be room."""
        self._queues.setdefault(key, deque()).append(waiting)
        self._count += 1

    def due(self, now_ns: int) -> Iterator[tuple[int, Waiting]]:
        """The first of each queue that may be tried by now; what follows one that is dropped comes next, at once."""
        for key in list(self._queues):
            while (queue := self._queues.get(key)) and queue[0].due_ns <= now_ns:
                first = queue[0]
                yield key, first
                if queue and queue[0] is first:
                    break

    def drop_first(self, key: int) -> None:
        """Takes the first of a queue out: it is booked, or never will be."""
        queue = self._queues[key]
        queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[key]

    def next_due_ns(self) -> int | None:
        """When the next one may be tried; None: nothing waits."""
        return min((queue[0].due_ns for queue in self._queues.values()), default=None)
