"""Doors: how several gateways, each a process of its own, speak to one platform at once.

A door has rings of its own to and from every node, so each ring keeps one producer and one consumer, whoever dies. What the
dispatcher of an embedded run uses stands apart (`simulator.shard.worker.Wiring`); doors are numbered from 1 in the upper bits of
a transaction's slot, which the node that answers looks at: it need not be the one that the transaction entered.

A gateway has no more in flight than a reply ring has room for, so a full one belongs to a gateway that is gone. What finds no
room there is counted and forgotten: its client was told nothing, and asks again by the same id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.ledger.inquiry import answer
from simulator.shard.layout import ANSWER, QUESTION
from simulator.shard.ring import Doorbell, Ring
from simulator.transaction import OUTCOME, TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.ledger.books import Books

DOOR_SHIFT = 26  # of a slot: below are 64 M places, the dispatcher of an embedded run needs 4 M
DOORS_MAX = (1 << (32 - DOOR_SHIFT)) - 1
_QUESTIONS = 4_096  # slots of the rings of questions, and of twice as many answers
_ANSWERED_MAX = 1_024  # questions that a node answers a turn, a door


class Door:
    """The rings of one gateway to and from `nodes` nodes, `queue` slots each, and the bell that wakes it."""

    def __init__(self, nodes: int, queue: int) -> None:
        self.requests = [Ring(queue, TRANSACTION) for _ in range(nodes)]
        self.replies = [Ring(2 * queue, OUTCOME) for _ in range(nodes)]
        self.questions = [Ring(_QUESTIONS, QUESTION) for _ in range(nodes)]
        self.answers = [Ring(2 * _QUESTIONS, ANSWER) for _ in range(nodes)]
        self.bell = Doorbell()


class Doors:
    """A node's side of every door."""

    def __init__(self, doors: Sequence[Door], node: int, row: Any) -> None:  # noqa: ANN401  one NODE_BOARD record
        self._doors = doors
        self._node = node
        self._row = row
        self._questions = np.zeros(_ANSWERED_MAX, QUESTION)
        self._answers = [np.zeros(_ANSWERED_MAX, ANSWER) for _ in doors]
        self._answered = [0] * len(doors)

    @property
    def requests(self) -> list[Ring]:
        """Where clients' transactions come in."""
        return [door.requests[self._node] for door in self._doors]

    def look_up(self, books: Books) -> bool:
        """Answers what is asked, from the books as they are; says whether anything was.

        The answers wait for `hand_out`, so that none tells of anything less durable than a reply would.
        """
        moved = False
        for number, door in enumerate(self._doors):
            count = door.questions[self._node].pop(self._questions)
            self._answered[number] = count
            if count:
                answer(books, self._questions, count, self._answers[number])
                moved = True
        return moved

    def hand_out(self, replies: NDArray[np.void]) -> None:
        """Gives each door its replies (OUTCOME) and answers."""
        owner = replies["slot"] >> DOOR_SHIFT if len(replies) else replies["slot"]
        for number, door in enumerate(self._doors):
            mine = replies[owner == number + 1]
            count = self._answered[number]
            if not len(mine) and not count:
                continue
            pushed = door.replies[self._node].push(mine)
            pushed += door.answers[self._node].push(self._answers[number][:count])
            self._answered[number] = 0
            self._row["unread"] += len(mine) + count - pushed
            door.bell.ring()
