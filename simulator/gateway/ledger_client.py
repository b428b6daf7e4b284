"""The asyncio face of an embedded platform: requests go into a door's rings in batches, answers come back as futures.

What one turn of the event loop asks for is pushed at its end, a batch for each node, and one ring of its bell. A node that has
answers rings the door's bell, which the loop watches. Each request has a slot of a bounded table, which holds what was asked
until it is answered: a node that was restarted is asked again, and its ids make that harmless. A slot carries a count of
its uses, so that an answer that comes too late meets nobody else's request.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.shard.door import DOOR_SHIFT
from simulator.shard.layout import ANSWER, QUESTION, Found, Inquiry, NodeState
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.door import Door
    from simulator.shard.layout import Board, Shape
    from simulator.shard.ring import Doorbell

IN_FLIGHT_MAX = 1 << 16  # a slot's lowest 16 bits; above them ten for its uses, then the door's
_USES = (1 << (DOOR_SHIFT - 16)) - 1
_LOOK_S = 0.02  # how often time-outs and returning nodes are looked for
_POP = 4_096
_ROW = struct.Struct("<QqqqQIIIBBHQ")  # a TRANSACTION
assert _ROW.size == TRANSACTION.itemsize  # noqa: S101  two descriptions of one layout
_NO_ROOM = (int(Reason.OVERFLOW), int(Reason.LIMIT))


class Decision(NamedTuple):
    """What the ledger says to a request."""

    status: int  # Status
    reason: int  # Reason
    shard: int
    lsn: int


class Account(NamedTuple):
    """A balance, minor units, as of a position in its shard's log."""

    available_minor: int
    reserved_minor: int
    shard: int
    lsn: int


class Entry(NamedTuple):
    """A transaction as the ledger remembers it."""

    id: int
    amount_minor: int
    remaining_minor: int
    related: int
    payer: int
    payee: int
    lsn: int
    shard: int
    kind: int
    status: int
    reason: int


class BusyError(Exception):
    """The bound of what may be in flight is reached: nothing was sent."""


class InDoubtError(Exception):
    """No answer in time: it may have been booked or not, and asking again by the same id tells."""


class _Question(NamedTuple):
    future: asyncio.Future[NDArray[np.void] | None]
    what: int
    key: int
    waiting: set[int]  # nodes that have not answered
    heard: list[NDArray[np.void]]
    deadline: float


class LedgerClient:
    """One gateway's end of its door, used from one event loop.

    Args:
        shape: of the platform.
        door: this gateway's.
        number: of the door, from 0.
        board: the platform's.
        node_bells: of the nodes.
        in_flight: requests at once, at most; no more than the slots of the door's rings.
        timeout_s: how long an answer may take; then the request is in doubt.
    """

    def __init__(
        self, shape: Shape, door: Door, number: int, board: Board, node_bells: list[Doorbell], *, in_flight: int,
        timeout_s: float,
    ) -> None:  # fmt: skip
        if not 0 < in_flight <= min(IN_FLIGHT_MAX, door.requests[0].capacity):
            raise ValueError(f"{in_flight} requests in flight do not fit this door's rings")
        self._shape = shape
        self._door = door
        self._high = (number + 1) << DOOR_SHIFT
        self._board = board
        self._bells = node_bells
        self._timeout_s = timeout_s
        self._owners: list[int] = shape.owners().tolist()
        self._table = np.zeros(in_flight, TRANSACTION)
        self._bytes = memoryview(self._table.view(np.uint8))  # type: ignore[arg-type]  # an array is a buffer
        self._futures: list[asyncio.Future[Decision] | None] = [None] * in_flight
        self._ids = [0] * in_flight
        # Uses begin anywhere, so that what the gateway before left behind meets nobody.
        self._uses = [int.from_bytes(os.urandom(2), "little") & _USES] * in_flight
        self._again = bytearray(in_flight)  # whether more than one copy may be under way
        self._free = list(range(in_flight - 1, -1, -1))
        self._staged: list[list[int]] = [[] for _ in range(shape.nodes)]
        self._flushing = False
        self._retry: list[list[int]] = [[] for _ in range(shape.nodes)]
        self._deadlines: deque[tuple[float, int, int]] = deque()
        self._questions: dict[int, _Question] = {}
        self._next_question = 0
        self._outcomes = np.zeros(_POP, OUTCOME)
        self._answers = np.zeros(_POP, ANSWER)
        self._incarnations = board.nodes["incarnation"].copy()
        self._loop: asyncio.AbstractEventLoop
        self._look: asyncio.TimerHandle | None = None
        self.stray = 0  # answers to what nobody waits for any more

    # ---- life ----

    def open(self) -> None:
        """Begins to listen, on the running loop. What an earlier holder of the door left unread is thrown away."""
        self._loop = asyncio.get_running_loop()
        for ring in self._door.replies:
            while ring.pop(self._outcomes):
                pass
        for ring in self._door.answers:
            while ring.pop(self._answers):
                pass
        self._loop.add_reader(self._door.bell.fileno(), self._rang)
        self._look = self._loop.call_later(_LOOK_S, self._look_around)

    def close(self) -> None:
        """Stops listening; whoever still waits is in doubt."""
        self._loop.remove_reader(self._door.bell.fileno())
        if self._look is not None:
            self._look.cancel()
        for index, future in enumerate(self._futures):
            if future is not None:
                self._give_up(index, future)

    @property
    def in_flight(self) -> int:
        """Requests and questions without an answer."""
        return len(self._futures) - len(self._free) + len(self._questions)

    # ---- requests ----

    def submit(
        self, kind: Kind, key: int, payer: int, payee: int, amount_minor: int, related: int = 0
    ) -> asyncio.Future[Decision]:
        """Asks the ledger to book; the future ends in its decision or in InDoubtError. Raises BusyError at the bound."""
        if not self._free:
            raise BusyError
        index = self._free.pop()
        uses = self._uses[index] = (self._uses[index] + 1) & _USES
        node = self._owners[payer % self._shape.shards]
        _ROW.pack_into(
            self._bytes, index * 64, key, 0, 0, amount_minor, related, payer, payee, self._high | uses << 16 | index, kind, 0,
            node, 0,
        )  # fmt: skip
        future: asyncio.Future[Decision] = self._loop.create_future()
        self._futures[index] = future
        self._ids[index] = key
        self._again[index] = 0
        self._deadlines.append((self._loop.time() + self._timeout_s, index, uses))
        self._staged[node].append(index)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Pushes what this turn of the loop asked for; what finds no room is refused at once."""
        self._flushing = False
        for node, staged in enumerate(self._staged):
            if not staged:
                continue
            pushed = self._door.requests[node].push(self._table[staged])
            self._bells[node].ring()
            for index in staged[pushed:]:
                shard = int(self._table["payer"][index]) % self._shape.shards
                self._settle(index, Decision(Status.REJECTED, Reason.OVERFLOW, shard, 0))
            staged.clear()

    def _settle(self, index: int, decision: Decision) -> None:
        future = self._futures[index]
        if future is None:
            return
        self._futures[index] = None
        self._free.append(index)
        if not future.done():  # its client may have gone
            future.set_result(decision)

    def _give_up(self, index: int, future: asyncio.Future[Decision]) -> None:
        self._futures[index] = None
        self._free.append(index)
        if not future.done():
            future.set_exception(InDoubtError())

    # ---- questions ----

    async def account(self, number: int) -> Account | None:
        """An account's balance; None: there is no such account."""
        if number >= self._shape.accounts:
            return None
        told = await self._ask(Inquiry.ACCOUNT, number, {self._owners[number % self._shape.shards]})
        if told is None:
            return None
        return Account(int(told["amount_minor"]), int(told["remaining_minor"]), int(told["shard"]), int(told["lsn"]))

    async def transaction(self, key: int) -> Entry | None:
        """What the ledger remembers under an id; None: nothing (any more)."""
        told = await self._ask(Inquiry.TRANSACTION, key, set(range(self._shape.nodes)))
        if told is None:
            return None
        names = [name for name in Entry._fields if name != "id"]
        return Entry(key, *(int(told[name]) for name in names))

    async def _ask(self, what: Inquiry, key: int, nodes: set[int]) -> NDArray[np.void] | None:
        if len(self._questions) >= len(self._futures):
            raise BusyError
        self._next_question = (self._next_question + 1) & 0xFFFF_FFFF
        slot = self._next_question
        future: asyncio.Future[NDArray[np.void] | None] = self._loop.create_future()
        question = _Question(future, what, key, nodes, [], self._loop.time() + self._timeout_s)
        self._questions[slot] = question
        for node in tuple(nodes):
            self._put(slot, question, node)
        try:
            return await future
        finally:
            self._questions.pop(slot, None)

    def _put(self, slot: int, question: _Question, node: int) -> None:
        row = np.zeros(1, QUESTION)
        row["key"], row["slot"], row["what"] = question.key, slot, question.what
        if not self._door.questions[node].push(row) and not question.future.done():
            question.future.set_exception(BusyError())
        self._bells[node].ring()

    def _hear(self, node: int, told: NDArray[np.void]) -> None:
        question = self._questions.get(int(told["slot"]))
        if (
            question is None
            or question.key != int(told["key"])
            or node not in question.waiting
            or question.future.done()
        ):
            self.stray += 1
            return
        question.waiting.discard(node)
        if told["found"] == Found.ALL:
            question.future.set_result(told)
            return
        if told["found"] == Found.FAR:
            question.heard.append(told)
        if not question.waiting:
            question.future.set_result(question.heard[0] if question.heard else None)

    # ---- from the platform ----

    def _rang(self) -> None:
        self._door.bell.clear()
        for ring in self._door.replies:
            while count := ring.pop(self._outcomes):
                for key, lsn, _, _, slot, shard, status, reason in self._outcomes[:count].tolist():
                    self._answered(key, lsn, slot, shard, status, reason)
        for node, ring in enumerate(self._door.answers):
            while count := ring.pop(self._answers):
                for told in self._answers[:count].copy():
                    self._hear(node, told)

    def _answered(self, key: int, lsn: int, slot: int, shard: int, status: int, reason: int) -> None:
        index = slot & 0xFFFF
        if index >= len(self._futures) or self._futures[index] is None or self._ids[index] != key:
            self.stray += 1
            return
        if slot >> 16 & _USES != self._uses[index]:
            self.stray += 1
            return
        if self._again[index] and reason in _NO_ROOM and lsn == 0:
            # A refusal for want of room that was not logged speaks for one copy only, and the other may be booked: ask until
            # there is a decision.
            self._retry[int(self._table["node"][index])].append(index)
            return
        self._settle(index, Decision(status, reason, shard, lsn))

    def _look_around(self) -> None:
        """Time-outs, and nodes that came back and may have lost what they had not answered."""
        self._look = self._loop.call_later(_LOOK_S, self._look_around)
        now = self._loop.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, index, uses = self._deadlines.popleft()
            future = self._futures[index]
            if future is not None and uses == self._uses[index]:
                self._give_up(index, future)
        for question in list(self._questions.values()):
            if question.deadline <= now and not question.future.done():
                question.future.set_exception(InDoubtError())
        changed = self._board.nodes["incarnation"] != self._incarnations
        if changed.any():
            back = np.flatnonzero(changed & (self._board.nodes["state"] >= NodeState.READY)).tolist()
            for node in back:
                self._incarnations[node] = self._board.nodes["incarnation"][node]
                self._ask_again(node)
        self._push_again()

    def _ask_again(self, node: int) -> None:
        waiting = [index for index, future in enumerate(self._futures) if future is not None]
        mine = [index for index in waiting if int(self._table["node"][index]) == node]
        for index in mine:
            self._again[index] = 1
        self._retry[node] = mine
        for slot, question in list(self._questions.items()):
            if node in question.waiting:
                self._put(slot, question, node)

    def _push_again(self) -> None:
        for node, retry in enumerate(self._retry):
            wanted = [index for index in retry if self._futures[index] is not None]
            if wanted:
                pushed = self._door.requests[node].push(self._table[wanted])
                self._bells[node].ring()
                wanted = wanted[pushed:]
            self._retry[node] = wanted

    async def quiet(self, timeout_s: float) -> bool:
        """Waits until nothing is in flight; False if that took too long."""
        deadline = time.monotonic() + timeout_s
        while self.in_flight:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True
