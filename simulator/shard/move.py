"""A node's part in moving a shard from one node to another while the run goes on.

    REQUESTED   the pool names shard, old and new owner. Every node but the old owner parks requests for the shard and says up
                to where its ring to the old owner may still hold some (its *fence*). The old owner goes on booking.
    FROZEN      the old owner has taken everything up to all fences and answered it. It writes the shard's image, logs MOVE_OUT,
                syncs both, and books nothing there any more.
    TAKEN       the new owner has loaded the image, logged and synced MOVE_IN, booked what had become due between shards that are
                neighbours now, and put itself on the board as the owner. Each node sends it what it parked, in order and before
                anything newer, and what it still owes to the shard.
    IDLE        every node has done so; the pool may move another one.

Order. Requests for one key that entered through one node are either all taken by the old owner before it freezes (they lie
before that node's fence in a first-in-first-out ring), or parked at the node that they entered. None overtakes another, because
a node hands on what it parked before it lets a newer one go to the new owner. `docs/shards.md` argues this at length.

Each step can be repeated: a node that was killed finds in its journal whether it had done it, and on the board (which
outlives it) whether it had said so. `tests/test_move.py` crashes every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from simulator.kernel import kernel
from simulator.ledger.hand_over import owed_by, owed_to, room_needed, send_on
from simulator.ledger.output import JOURNAL, REPLIES
from simulator.ledger.post import refuse
from simulator.shard import image
from simulator.shard.image import image_path
from simulator.shard.journal import JournalError
from simulator.shard.layout import RECORD, Custody, Durability, MovePhase, MoveWord
from simulator.shard.ring import HEAD, TAIL, load_acquire, store_release
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.ledger.books import Books
    from simulator.shard.layout import Board, Shape
    from simulator.shard.poison import PoisonGuard
    from simulator.shard.ring import Doorbell, Ring

PARKED_MAX = 8_192  # requests that a node parks for a shard on its way; beyond, they are refused as overflow


class Move(NamedTuple):
    """The move under way."""

    number: int
    shard: int
    source: int
    target: int


@kernel
def _look(words: NDArray[np.int64], index: int) -> int:
    value: int = load_acquire(words, index)
    return value


@kernel
def _publish(words: NDArray[np.int64], index: int, value: int) -> None:
    store_release(words, index, value)


def look(words: NDArray[np.int64], index: int) -> int:
    """A word, and with it everything that was written before the word was published."""
    return int(_look(words, int(index)))


def publish(words: NDArray[np.int64], index: int, value: int) -> None:
    """Writes a word after everything that was written before it."""
    _publish(words, int(index), int(value))


def custody_record(leg: Custody, move: Move, peer: int, lsn: int) -> NDArray[np.void]:
    """The record by which a journal says that a shard leaves for `peer`, or comes from it."""
    record = np.zeros(1, RECORD)
    record["id"], record["related"], record["lsn"] = move.number, peer, lsn
    record["shard"], record["leg"] = move.shard, leg
    return record


class Rings(Protocol):
    """What a mover needs of a platform's wiring."""

    peers: list[list[Ring | None]]
    node_bells: list[Doorbell]


class Owner(Protocol):
    """What a mover needs of its node (`simulator.shard.worker.Node`, which says what each is)."""

    node: int
    shape: Shape
    board: Board
    folder: Path
    durability: Durability
    books: Books
    guard: PoisonGuard
    marks: NDArray[np.int64]
    pending: NDArray[np.void]
    handed_on: NDArray[np.void]
    handed_on_count: NDArray[np.int64]
    outbox: NDArray[np.void]
    outbox_head: NDArray[np.int64]
    outbox_durable: NDArray[np.int64]
    outbox_sent: NDArray[np.int64]
    outbox_forgotten: NDArray[np.int64]

    @property
    def wiring(self) -> Rings:
        """Rings and bells."""
        ...

    def now_ns(self) -> int:
        """The run's clock."""
        ...

    def owns(self, shards: NDArray[np.int64]) -> None:
        """From here on these shards are the node's."""
        ...

    def seal(self, record: NDArray[np.void]) -> None:
        """Writes and syncs one record by itself. Raises OSError."""
        ...

    def commit(self) -> None:
        """Ends the open frame. Raises OSError."""
        ...

    def send_out(self) -> bool:
        """Lets go what is durable."""
        ...


class Mover:
    """What a node does for moves; it turns the node's own wheels, and is called once a turn."""

    def __init__(self, node: Owner) -> None:
        self.node = node
        self.board = node.board
        self.park = node.shape.nodes  # the row of `handed_on` and `outbox` for a shard whose owner is not settled
        self.own = node.node  # its own row of `outbox`: owed between two shards that are both here now
        self._found = np.empty(node.shape.nodes * node.outbox.shape[1], TRANSACTION)  # pages cost memory once touched

    # ---- at the start ----

    def find_owners(self) -> None:
        """Sets whom this node sends to from what the board says: another move may have happened since it was killed."""
        books = self.node.books
        books.owner[:] = self.board.owners
        phase, move = self._read()
        if phase in (MovePhase.REQUESTED, MovePhase.FROZEN) and move.source != self.node.node:
            books.owner[move.shard] = self.park

    def pieces(
        self, stretches: Iterable[NDArray[np.void]], view: Books, sequence: NDArray[np.int64], *, restoring: bool, refilling: bool
    ) -> Iterator[NDArray[np.void]]:  # fmt: skip
        """A journal's records without those of moves, which take effect between them.

        `restoring`: on the books; always on `view.place` and `sequence`, which follow a second reading. `refilling`: what came
        with a shard and is still owed goes into the outbox.
        """
        node = self.node
        phase, move = self._read()
        moving = move.number if phase in (MovePhase.REQUESTED, MovePhase.FROZEN) else 0
        for records in stretches:
            start = 0
            for at in np.flatnonzero(records["leg"] >= Custody.MOVE_OUT):
                yield records[start:at]
                start = int(at) + 1
                record = records[at]
                shard, number = int(record["shard"]), int(record["id"])
                if record["leg"] == Custody.MOVE_OUT:
                    view.place[shard] = -1
                    if restoring:
                        image.drop(node.books, shard)
                    if number == moving:
                        node.books.owner[shard] = self.park
                    continue
                found = image.read(image_path(node.folder, number), number, shard)
                if found.lsn != int(record["lsn"]):
                    raise JournalError(
                        f"{image_path(node.folder, number)}: ends at position {found.lsn} of shard {shard}, "
                        f"but node {node.node}'s journal took it over at {record['lsn']}"
                    )
                if restoring:
                    image.load(found, node.books)
                view.place[shard] = shard
                sequence[shard] = image.sequence_out(found, node.books)
                if refilling:
                    send_on(view, found.messages, len(found.messages), node.outbox, node.outbox_head, self.board.acked)
            yield records[start:]

    def resume(self) -> None:
        """What a move had not brought to its end when this node was killed. Raises JournalError if journal and board disagree."""
        node = self.node
        phase, move = self._read()
        expected = self.board.owners == node.node
        found = node.books.place >= 0
        differ = expected != found
        if phase in (MovePhase.REQUESTED, MovePhase.FROZEN):
            differ[move.shard] = False  # whether it had left, or come, only the journal knows
            if found[move.shard]:
                node.books.owner[move.shard] = node.node
                self._send_on_what_we_owe(move)
            elif move.source == node.node:
                node.books.owner[move.shard] = self.park
        if differ.any():
            raise JournalError(
                f"node {node.node}'s journal and the run disagree about who owns shard {int(np.flatnonzero(differ)[0])}"
            )
        node.owns(np.flatnonzero(found))
        self._settle_between_own()

    # ---- each turn ----

    @property
    def busy(self) -> bool:
        """Whether a move is under way."""
        return look(self.board.move, MoveWord.PHASE) != MovePhase.IDLE

    def step(self) -> bool:
        """Does what the move under way asks of this node now; says whether that was anything. Raises OSError."""
        phase = look(self.board.move, MoveWord.PHASE)
        if phase == MovePhase.IDLE:
            return False
        _, move = self._read()
        me = self.node.node
        if phase == MovePhase.TAKEN:
            moved = look(self.board.switched, me) != move.number and self._switch(move)
        elif me == move.source:
            moved = phase == MovePhase.REQUESTED and self._freeze(move)
        elif phase == MovePhase.FROZEN and me == move.target:
            moved = self._take(move)
        else:
            moved = self._park(move)
        self._refuse_what_is_too_much()  # last: an answer that waits keeps a shard from being frozen or taken
        return moved

    def _read(self) -> tuple[int, Move]:
        words = self.board.move
        phase = look(words, MoveWord.PHASE)
        return phase, Move(
            *(int(words[w]) for w in (MoveWord.NUMBER, MoveWord.SHARD, MoveWord.SOURCE, MoveWord.TARGET))
        )

    def _park(self, move: Move) -> bool:
        """Keeps requests for the shard here from now on, and tells the old owner what it must take before it freezes."""
        node, me = self.node, self.node.node
        if node.books.owner[move.shard] != self.park:
            node.books.owner[move.shard] = self.park
        if look(self.board.fenced, me) == move.number or node.handed_on_count[move.source]:
            return False
        if me == move.target:
            image.make_room(node.books, move.shard)
        ring = node.wiring.peers[me][move.source]
        assert ring is not None  # noqa: S101  there is one between any two nodes
        self.board.fence[me] = ring.cursors[HEAD]
        publish(self.board.fenced, me, move.number)
        node.wiring.node_bells[move.source].ring()
        return True

    def _refuse_what_is_too_much(self) -> None:
        """Refuses the newest of what is parked beyond the bound."""
        node = self.node
        count = int(node.handed_on_count[self.park])
        refused = min(count - PARKED_MAX, len(node.pending) - int(node.marks[REPLIES]))
        if refused <= 0:
            return
        parked = node.handed_on[self.park]
        refuse(node.books, parked, PARKED_MAX, PARKED_MAX + refused, node.pending, node.marks)
        parked[PARKED_MAX : count - refused] = parked[PARKED_MAX + refused : count].copy()
        node.handed_on_count[self.park] = count - refused
        self.board.park_refused[node.node] += refused

    def _is_clean(self) -> bool:
        """Whether nothing booked here is still to be written or answered."""
        return not self.node.marks[JOURNAL] and not self.node.marks[REPLIES]

    def _may_freeze(self, move: Move) -> bool:
        """Whether everything that may still reach the old owner for this shard was taken, made durable and answered.

        Answers must be out because whoever asks again after a crash asks the new owner, which has the books but not these.
        A node that was itself restarted also waits until the dispatcher has asked it again for what it had lost.
        """
        node, me = self.node, self.node.node
        if look(self.board.asked, me) != self.board.nodes["incarnation"][me]:
            return False
        for peer in range(node.shape.nodes):
            ring = node.wiring.peers[peer][me]
            if ring is None:
                continue
            if look(self.board.fenced, peer) != move.number or ring.cursors[TAIL] < self.board.fence[peer]:
                return False
        if len(node.guard.aside):
            self._settle_between_own()
            node.send_out()
        return self._is_clean()

    def _freeze(self, move: Move) -> bool:
        """The old owner's step."""
        node = self.node
        if node.books.place[move.shard] >= 0:
            if not self._may_freeze(move):
                return False
            self.board.move[MoveWord.STOPPED_NS] = node.now_ns()
            self._log_out(move, self._write_image(move))
            self._leave(move.shard)
        return self._say_frozen(move)

    def _write_image(self, move: Move) -> int:
        """Writes the image; returns the shard's last position."""
        node = self.node
        count = owed_by(
            node.books, move.shard, node.outbox, node.outbox_head, node.outbox_forgotten, self.board.acked, self._found
        )
        image.write(
            image_path(node.folder, move.number), move.number, node.books, move.shard, self._found[:count],
            durable=node.durability != Durability.MEMORY,
        )  # fmt: skip
        return int(node.books.lsn[move.shard])

    def _log_out(self, move: Move, lsn: int) -> None:
        self.node.seal(custody_record(Custody.MOVE_OUT, move, move.target, lsn))

    def _leave(self, shard: int) -> None:
        """This node does not own the shard any more: requests for it wait, credits for it are passed over."""
        books = self.node.books
        image.drop(books, shard)
        books.owner[shard] = self.park
        self.node.owns(np.flatnonzero(books.place >= 0))

    def _say_frozen(self, move: Move) -> bool:
        node, words = self.node, self.board.move
        words[MoveWord.KEYS] = node.shape.rows(move.shard)
        words[MoveWord.BYTES] = image_path(node.folder, move.number).stat().st_size
        words[MoveWord.FROZEN_NS] = node.now_ns()
        publish(words, MoveWord.PHASE, MovePhase.FROZEN)
        node.wiring.node_bells[move.target].ring()
        return True

    def _take(self, move: Move) -> bool:
        """The new owner's step. Raises ImageError, JournalError, OSError."""
        node, books = self.node, self.node.books
        if not self._is_clean():
            return False
        if books.place[move.shard] < 0:
            found = image.read(image_path(node.folder, move.number), move.number, move.shard)
            if not self._has_room_for(found.messages, len(found.messages)):
                return False
            image.load(found, books)
            self._log_in(move, found.lsn)
            books.owner[move.shard] = node.node
            node.owns(np.flatnonzero(books.place >= 0))
            self._claim_what_is_owed(move, found.messages)
        self._settle_between_own()
        self._say_taken(move)
        return True

    def _log_in(self, move: Move, lsn: int) -> None:
        self.node.seal(custody_record(Custody.MOVE_IN, move, move.source, lsn))

    def _claim_what_is_owed(self, move: Move, messages: NDArray[np.void]) -> None:
        """What the shard owes to others, and what this node's shards owe to it, goes where it belongs now."""
        node = self.node
        send_on(node.books, messages, len(messages), node.outbox, node.outbox_head, self.board.acked)
        self._send_on_what_we_owe(move)

    def _send_on_what_we_owe(self, move: Move) -> None:
        """Turns to the shard's present owner with everything that our shards still owe to it."""
        node = self.node
        count = self._owed_to(move)
        send_on(node.books, self._found, count, node.outbox, node.outbox_head, self.board.acked)
        self._empty(self.park)

    def _owed_to(self, move: Move) -> int:
        """Fills `_found` with what our shards owe to this one, oldest first; returns how much."""
        node = self.node
        count = 0
        for row in (move.source, self.park):
            if row != self.own:
                count = owed_to(
                    node.books, move.shard, row, node.outbox, node.outbox_head, node.outbox_forgotten, self.board.acked,
                    self._found, count,
                )  # fmt: skip
        return count

    def _empty(self, row: int) -> None:
        node = self.node
        head = node.outbox_head[row]
        node.outbox_sent[row] = node.outbox_durable[row] = node.outbox_forgotten[row] = head

    def _has_room_for(self, messages: NDArray[np.void], count: int) -> bool:
        node = self.node
        needed = np.zeros(len(node.outbox), np.int64)
        room_needed(node.books, messages, count, needed)
        free = node.outbox.shape[1] - (node.outbox_head - node.outbox_forgotten)
        return bool((needed <= free).all())

    def _settle_between_own(self) -> None:
        """Books what one shard of this node owes to another; before the move it would have gone through a ring.

        From here on such a pair books both legs at once, so what is older must be there first.
        """
        node = self.node
        later = node.now_ns()
        while True:
            start, head = int(node.outbox_forgotten[self.own]), int(node.outbox_head[self.own])
            if start < head:
                node.outbox_forgotten[self.own] += node.guard.book(node.outbox[self.own], start, head - start, later)
            later = self._hurry(later)
            if node.outbox_forgotten[self.own] == head and not len(node.guard.aside):
                break
        self._empty(self.own)

    def _hurry(self, later: int) -> int:
        """Tries what is set aside for a flaw again at once, for as often as it would be tried in its time; returns that time.

        It must be booked or buried here before a shard leaves, and before a pair of shards begins to book both legs at once.
        """
        node = self.node
        due = node.guard.aside.next_due_ns()
        if due is not None:
            later = max(later, due)
            node.guard.try_again(later)
        node.commit()
        return later

    def _say_taken(self, move: Move) -> None:
        node, board = self.node, self.board
        board.applied[move.shard] = node.books.lsn[move.shard]
        board.move[MoveWord.RESUMED_NS] = node.now_ns()
        publish(board.owners, move.shard, node.node)
        publish(board.move, MoveWord.PHASE, MovePhase.TAKEN)
        self._switch(move)
        for bell in node.wiring.node_bells:
            bell.ring()

    def _switch(self, move: Move) -> bool:
        """Turns to the new owner: what was parked first, then everything newer."""
        node, me = self.node, self.node.node
        count = int(node.handed_on_count[self.park])
        parked = node.handed_on[self.park]
        if me == move.target:
            # All of it before anything newer. There is room for their answers: none wait yet, and more may wait than be parked.
            done, later = 0, node.now_ns()
            while done < count:
                done += node.guard.book(parked, done, count - done, later)
                later = self._hurry(later) if done < count else later
            node.handed_on_count[self.park] = 0
            self.board.parked[me] += count
        else:
            ahead = int(node.handed_on_count[move.target])
            owed = self._owed_to(move)
            free = node.outbox.shape[1] - (node.outbox_head[move.target] - node.outbox_forgotten[move.target])
            if ahead + count > node.handed_on.shape[1] or owed > free:
                return False
            node.books.owner[move.shard] = move.target
            node.handed_on[move.target, ahead : ahead + count] = parked[:count]
            node.handed_on_count[move.target] = ahead + count
            node.handed_on_count[self.park] = 0
            self.board.parked[me] += count
            self._send_on_what_we_owe(move)
        publish(self.board.switched, me, move.number)
        return True


def images_of(folder: Path) -> list[Path]:
    """The images that a run has left in the folder of its journals."""
    return [*folder.glob("move-*.image"), *folder.glob("move-*.image.part")]
