"""A node: one process that owns shards, books what reaches it, and makes it durable before it answers.

One turn of the loop: take what waits in the inbound rings, book it all (`simulator.ledger`), commit the records as one
frame, then release what the commit made true: replies to the dispatcher, far legs to peers, acknowledgements of the far legs
booked here. Load decides the batch: while a commit is under way the rings fill, and the next turn takes it all (group
commit without a timer). Every room is bounded, and each bound is an answer: a full peer ring refuses the request that was to
be handed on, a full outbox refuses cross-node transfers, and unreleased replies stop the intake, so the inbound ring fills
and the dispatcher is told.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import process
from simulator.ledger.books import AVAILABLE, ENTRY, RESERVED, State, open_books, touched
from simulator.ledger.digest import BUCKETS, add_legs
from simulator.ledger.exchange import abort_undecided, bury_message, forget
from simulator.ledger.flaws import FLAWS, Flaw
from simulator.ledger.hand_over import send_on
from simulator.ledger.holds import expire
from simulator.ledger.output import (
    ALARMS,
    FLAW,
    GAPS,
    JOURNAL,
    MARKS,
    REFUSED,
    REPLIES,
    RETURNED,
    RETURNED_MINOR,
    TAKEN,
)  # fmt: skip
from simulator.ledger.post import apply, bury, refuse
from simulator.ledger.replay import refill_outbox, restore
from simulator.measure.histogram import count_one
from simulator.shard import snapshot
from simulator.shard.dead_letters import DeadLetters, dead_letters_path
from simulator.shard.door import Door, Doors
from simulator.shard.journal import Journal, JournalError, JournalReader, closing_path, journal_path
from simulator.shard.layout import (
    FILE_HEADER,
    RECORD,
    Board,
    Durability,
    Message,
    NodeState,
    Protocol,
    Shape,
    Stop,
    unsynced_ns_max,
)  # fmt: skip
from simulator.shard.move import Mover
from simulator.shard.poison import DEFAULT_RULES, Calls, PoisonGuard, PoisonRules, nothing
from simulator.shard.ring import HEAD, TAIL, Doorbell, Ring, push_wrapped, release, waiting
from simulator.shard.snapshot import Point, snapshot_path
from simulator.shard.split import as_asked, parts_of
from simulator.shard.throttle import TokenBucket
from simulator.transaction import OUTCOME, TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.ledger.books import Books

TURN_MAX = 16_384  # requests a turn takes from one ring, so that no producer starves another
_OUTBOX = 1 << 17  # far legs that a peer has not acknowledged, a peer
_EXPIRY_LOOK_NS = 1_000_000  # how often a node looks for holds whose term is over
_IDLE_S = 0.1  # how long an idle node sleeps before it looks around by itself
_QUIESCE_S = 0.001  # the same while stopping: a peer's acknowledgement rings no bell
_THROTTLED_S = 0.001  # how long it sleeps when it has taken all that it is provisioned for
_COUNTED = {"refused": REFUSED, "sequence_gaps": GAPS, "alarms": ALARMS}  # what of `marks` is on the board
_BLOCKED_S = 0.000_2  # how long it sleeps when a full ring is what it waits for


class Wiring:
    """The rings and doorbells of one platform, made before the fork.

    `requests[n]` leads from the dispatcher to node n, `replies[n]` back, `peers[a][b]` from node a to node b. `doors` are the
    gateways', of which each has rings of its own.
    """

    def __init__(self, nodes: int, queue: int, doors: int = 0) -> None:
        self.requests = [Ring(queue, TRANSACTION) for _ in range(nodes)]
        self.replies = [Ring(2 * queue, OUTCOME) for _ in range(nodes)]
        self.peers = [[Ring(queue, TRANSACTION) if a != b else None for b in range(nodes)] for a in range(nodes)]
        self.node_bells = [Doorbell() for _ in range(nodes)]
        self.dispatcher_bell = Doorbell()
        self.doors = [Door(nodes, queue) for _ in range(doors)]

    @property
    def from_clients(self) -> list[Ring]:
        """Every ring that leads into the platform."""
        return [*self.requests, *(ring for door in self.doors for ring in door.requests)]

    def drain(self) -> None:
        """Takes every reply, of which nobody wants to know any more: a full ring would stop its node."""
        scratch = np.zeros(4_096, OUTCOME)
        for ring in (*self.replies, *(ring for door in self.doors for ring in door.replies)):
            ring.pop(scratch)

    def lose(self) -> None:
        """Empties the rings into and between the nodes, and those to the dispatcher; no node may be alive."""
        peers = (ring for row in self.peers for ring in row if ring is not None)
        for ring in (*self.from_clients, *peers, *self.replies):
            ring.cursors[TAIL] = ring.cursors[HEAD]

    def close(self) -> None:
        """Closes this process's ends of the doorbells; rings are memory, and go with their last user."""
        for bell in (*self.node_bells, self.dispatcher_bell, *(door.bell for door in self.doors)):
            bell.close()


class Node:
    """The state of one node process and its turn."""

    def __init__(  # noqa: PLR0915  one line for each part of the state
        self, node: int, shape: Shape, wiring: Wiring, board: Board, *,
        folder: Path, durability: Durability, interval_ns: int, run: int,
        hold_term_ns: int = 600_000_000_000, drop_oldest: bool = False,
        snapshot_records: int = 20_000_000, poison: PoisonRules = DEFAULT_RULES, max_rate: int | None = None,
        movable: bool = False,
    ) -> None:  # fmt: skip
        self.node = node
        self.shape = shape
        self.split = shape.split
        self.board = board
        self.row: Any = board.nodes[node]
        self.folder = folder
        self.durability = durability
        self.interval_ns = unsynced_ns_max(durability, interval_ns)
        self.epoch = int(board.epoch[0])
        self.hold_term_ns = hold_term_ns
        self.drop_oldest = drop_oldest
        self.snapshot_records = snapshot_records
        self.since_snapshot = 0
        self.snapshot_pid = 0
        self.abandoned = 0  # undecided transfers whose votes were buried: no other will come
        self.books = open_books(shape, node, any_shard=movable)
        self.wiring = wiring
        self.doors = Doors(wiring.doors, node, self.row) if wiring.doors else None
        self.inbound = [wiring.requests[node], *(self.doors.requests if self.doors else ())]
        self.inbound += [ring for a in range(shape.nodes) if (ring := wiring.peers[a][node]) is not None]
        self.peers = [(b, ring) for b, ring in enumerate(wiring.peers[node]) if ring is not None]
        self.records = touched((4 * TURN_MAX * len(self.inbound),), RECORD)
        self.pending = touched((2 * TURN_MAX * len(self.inbound),), OUTCOME)
        self.released = 0  # replies already pushed of those pending
        self.durable = 0  # replies that may be released
        # Where shards move, one row more for a shard on its way, and room behind each outbox for what comes with a shard.
        rows = shape.nodes + movable
        self.handed_on = touched((rows, TURN_MAX), TRANSACTION)
        self.handed_on_count = np.zeros(rows, np.int64)
        self.outbox = np.zeros((rows, (_OUTBOX << movable) if shape.nodes > 1 else 1), TRANSACTION)
        for peer, _ in self.peers:
            self.outbox[peer].view(np.uint8).fill(0)  # as `touched`
        self.outbox_head = np.zeros(rows, np.int64)
        self.outbox_durable = np.zeros(rows, np.int64)
        self.outbox_sent = np.zeros(rows, np.int64)
        self.outbox_forgotten = np.zeros(rows, np.int64)
        self.admitted_from = np.zeros(rows, np.int64) if movable else self.outbox_forgotten
        self.marks = np.zeros(MARKS, np.int64)
        self.published = np.zeros(MARKS, np.int64)  # `marks` as they were when they were last put on the board
        self.synced_ns = 0
        self.expired_ns = 0
        self.unsynced = False
        self.sums = np.zeros((BUCKETS, 2), np.uint64)  # used where nothing is written: Durability.MEMORY
        self.owned = np.flatnonzero(self.books.place >= 0)
        self.incarnations = board.nodes["incarnation"].copy()
        self.guard = PoisonGuard(
            self.books, self.marks, self.row, board.poison[node], Calls(self._apply, self._bury, self._has_room), poison,
            DeadLetters(dead_letters_path(folder, node), lines_max=poison.dead_letters),
        )  # fmt: skip
        self.bucket = None if max_rate is None else TokenBucket(max_rate, self.now_ns())
        self.mover = Mover(self) if movable else None
        recovered = self._open_journal(journal_path(folder, node), run)
        if self.mover is not None:
            self.mover.resume()
        if recovered:
            self._abort_undecided()

    def _open_journal(self, path: Path, run: int) -> bool:
        """Goes on where the journal ends, or begins a new one; says whether there was one."""
        if path.exists():
            self._recover(path)
            return True
        self.journal = Journal.create(self.folder, self.node, self.shape, self.durability, run)
        self._note_sync(0)
        return False

    def _note_sync(self, at_ns: int) -> None:
        """Says on the board how far the journal is synced: before a peer or client is told of anything that rests on it."""
        self.row["synced_bytes"] = self.journal.size
        self.row["synced_ns"] = at_ns

    def _recover(self, path: Path) -> None:
        """Rebuilds the books from the journal, and what peers may not have got. Raises JournalError for a damaged one.

        Which far legs to send again depends on what peers had made durable, and a peer that is itself recovering knows that
        only after reading its journal. So among several that recover the journal is read once more, when all are that far.
        """
        began = time.monotonic_ns()
        kept = snapshot_path(self.folder, self.node)
        found = snapshot.read(kept, self.node, self.books, len(self.outbox), path)
        if found is None:
            snapshot.discard(kept)  # before the journal grows past it, and it looks like one of this journal
        point, unsent = found or (Point(FILE_HEADER.itemsize, 0), [])
        if self.mover is not None:
            self.mover.find_owners()
        self._put_back(unsent)
        self.books.now_ns[0] = self.now_ns()  # the term of holds found in the journal begins now
        place, numbers = self.books.place.copy(), self.books.sequence_out.copy()  # as the journal begins to be read
        peers_know = all(int(self.board.nodes["state"][b]) > NodeState.RECOVERED for b, _ in self.peers)
        reader = JournalReader(path, start=point.journal_bytes, frames=point.journal_frames, last_at=point.last_at)
        astray = 0
        replayed = 0
        view, sequence = self._view(place), numbers.copy()
        for records in self._pieces(reader, view, sequence, restoring=True, refilling=peers_know):
            astray += restore(self.books, records)
            replayed += len(records)
            self.guard.restored(records, self.now_ns())
            if peers_know and self.redelivers:
                refill_outbox(view, records, sequence, self.outbox, self.outbox_head, self.board.acked)
        if astray:
            raise JournalError(f"{path}: {astray} records do not follow from those before them")
        self.journal = Journal.resume(reader, self.durability)
        self._note_sync(self.now_ns())  # before peers read `acked`: they then forget what they would have sent again
        self.owns(np.flatnonzero(self.books.place >= 0))
        self.guard.recovered({int(shard): int(self.books.lsn[shard]) for shard in self.owned})
        self.board.applied[self.owned] = self.books.lsn[self.owned]
        self.board.acked[self.owned] = self.books.sequence_in[self.owned]
        self.row["state"] = NodeState.RECOVERED
        while any(int(self.board.nodes["state"][b]) == NodeState.STARTING for b, _ in self.peers):
            time.sleep(_QUIESCE_S)
        if not peers_know and self.redelivers:
            again = JournalReader(path, start=point.journal_bytes, frames=point.journal_frames)
            # From the same start: the first reading has set the numbers of a shard that came here to those of its arrival, and
            # counted on from there, what it sent before a time elsewhere would pass for what it sent after.
            view, sequence = self._view(place), numbers.copy()
            for records in self._pieces(again, view, sequence, restoring=False, refilling=True):
                refill_outbox(view, records, sequence, self.outbox, self.outbox_head, self.board.acked)
        self.outbox_durable[:] = self.outbox_head
        self.since_snapshot = replayed  # or a node that is killed often would never come to write one
        self.row["replayed"] += replayed
        self.row["replay_ns"] += time.monotonic_ns() - began

    def _view(self, place: NDArray[np.int64]) -> Books:
        """The books as they are, but with shards where they were when the journal begins to be read."""
        return self.books if self.mover is None else self.books._replace(place=place.copy())

    def _pieces(
        self, reader: JournalReader, view: Books, sequence: NDArray[np.int64], *, restoring: bool, refilling: bool
    ) -> Iterator[NDArray[np.void]]:
        """The records of legs, many frames at a time; where shards move, their moves take effect in between."""
        stretches = reader.stretches()
        if self.mover is None:
            return stretches
        return self.mover.pieces(stretches, view, sequence, restoring=restoring, refilling=refilling)

    def _put_back(self, unsent: list[NDArray[np.void]]) -> None:
        """Puts far legs that a snapshot has, and that are not acknowledged, into the outbox of whoever is to get them now."""
        for messages in unsent:
            send_on(self.books, messages, len(messages), self.outbox, self.outbox_head, self.board.acked)

    def owns(self, shards: NDArray[np.int64]) -> None:
        """From here on these are the shards whose words on the board this node writes."""
        self.owned = shards

    @property
    def redelivers(self) -> bool:
        """Whether what is sent to peers is kept until they acknowledge it."""
        return self.shape.protocol != Protocol.UNSAFE_DUAL_WRITE

    def _abort_undecided(self) -> None:
        """Aborts what was begun and not decided (`protocol: tcc`): whoever waits for it asks again, and is told no."""
        entries = self.books.entries
        undecided = [
            rows[rows["state"] == State.TRYING]
            for place, generation in np.ndindex(*self.books.used.shape)
            for rows in (entries[place, generation, : self.books.used[place, generation]],)
        ]
        found = np.concatenate([*undecided, np.zeros(0, ENTRY)])
        done = -1
        while done < len(found):
            done = abort_undecided(
                self.books, found, max(done, 0), self.records, self.marks, self.outbox, self.outbox_head
            )
            self.commit()

    def now_ns(self) -> int:
        """Nanoseconds since the start of the run."""
        return time.monotonic_ns() - int(self.board.epoch_ns[0])

    def turn(self) -> bool:
        """One turn; says whether anything moved. Raises OSError when the journal cannot be made durable."""
        now_ns = self.now_ns()
        self.books.now_ns[0] = now_ns
        moved = self.mover is not None and self.mover.step()
        if now_ns - self.expired_ns > _EXPIRY_LOOK_NS:
            self.expired_ns = now_ns
            self.row["expired"] += expire(self.books, self.hold_term_ns, self.records, self.marks)
            if self.marks[FLAW]:
                self._note_stuck_hold(now_ns)
        moved |= self.take()
        moved |= self._hand_on()
        if self.doors is not None:
            moved |= self.doors.look_up(self.books)
        self.commit()
        self._snapshot()
        moved |= self.send_out()
        return moved

    @property
    def client_rings(self) -> int:
        """How many of the inbound rings, the first ones, come from clients."""
        return 1 + len(self.wiring.doors)

    def take(self) -> bool:
        """Books what waits in the inbound rings, in memory only; says whether there was anything."""
        now_ns = int(self.books.now_ns[0])
        taken = int(len(self.guard.aside) > 0 and self.guard.try_again(now_ns))
        clients = self.client_rings
        for number, ring in enumerate(self.inbound):
            there = waiting(ring.cursors)
            if there == 0:
                continue
            from_clients = number < clients
            if self.drop_oldest and from_clients:
                there -= self._shed(ring, there)
            count = min(there, TURN_MAX)
            if from_clients and self.bucket is not None and self.board.stop[0] == Stop.RUN:
                count = min(count, self.bucket.available(now_ns))
            done = self.guard.book(ring.slots, int(ring.cursors[TAIL]), count, now_ns)
            if done:
                release(ring.cursors, done)
                taken += done
                if from_clients and self.bucket is not None:
                    self.bucket.spend(done)
        return taken > 0

    def _apply(self, slots: NDArray[Any], start: int, count: int) -> int:
        if self.mover is not None:
            # What comes with a shard finds room beyond what requests may fill.
            np.subtract(self.outbox_forgotten, _OUTBOX, out=self.admitted_from)
        done: int = apply(
            self.books, slots, start, count, self.records, self.pending, self.handed_on, self.outbox, self.marks,
            self.handed_on_count, self.outbox_head, self.admitted_from,
        )  # fmt: skip
        return done

    def _bury(self, slots: NDArray[Any], at: int) -> int:
        if slots[at]["message"] in (Message.REQUEST, Message.CREDIT):
            lsn: int = bury(self.books, slots, at, self.records, self.pending, self.marks)
        else:
            lsn = bury_message(self.books, slots, at, self.records, self.marks, self.outbox, self.outbox_head)
            self.abandoned += lsn >= 0 and slots[at]["message"] == Message.VOTE
        return lsn

    def _has_room(self) -> bool:
        """Whether one operation more finds room for what it leaves behind."""
        return bool(
            self.marks[JOURNAL] + 2 <= len(self.records)
            and self.marks[REPLIES] < len(self.pending)
            and (self.outbox_head - self.outbox_forgotten < self.outbox.shape[1]).all()
        )

    def _note_stuck_hold(self, now_ns: int) -> None:
        """A hold whose account has less reserved than it should cannot expire; somebody must look at it."""
        found = nothing()
        found["id"] = self.marks[TAKEN]
        self.guard.note(
            found[0], what="expiry", lsn=0, shard=0, now_ns=now_ns, tries=1, why=FLAWS[Flaw(int(self.marks[FLAW]))]
        )

    def _shed(self, ring: Ring, there: int) -> int:
        """Refuses the oldest requests of a ring that is nearly full, so that the newest find room; returns how many."""
        room = len(self.pending) - int(self.marks[REPLIES])
        excess = min(max(there - ring.capacity * 3 // 4, 0), room)
        if excess:
            start = int(ring.cursors[TAIL])
            refuse(self.books, ring.slots, start, start + excess, self.pending, self.marks)
            release(ring.cursors, excess)
        return excess

    def _hand_on(self) -> bool:
        """Passes requests to the owners of their shards; what does not fit is refused."""
        moved = False
        for node, ring in self.peers:
            count = int(self.handed_on_count[node])
            if count == 0:
                continue
            batch = self.handed_on[node, :count]
            fitted = ring.push(batch)
            room = len(self.pending) - int(self.marks[REPLIES])
            refused = min(count - fitted, room)
            refuse(self.books, self.handed_on[node], fitted, fitted + refused, self.pending, self.marks)
            left = count - fitted - refused
            self.handed_on[node, :left] = batch[fitted + refused :].copy()
            self.handed_on_count[node] = left
            self.row["handed_on"] += fitted
            self.wiring.node_bells[node].ring()
            moved |= fitted + refused > 0
        return moved

    def commit(self) -> None:
        """Makes the open frame as durable as asked; only then may what depends on it leave."""
        count = int(self.marks[JOURNAL])
        began = time.monotonic_ns()
        if count:
            records = self.records[:count]
            if self.durability == Durability.MEMORY:
                add_legs(as_asked(records, self.split), self.sums)
            else:
                self.row["bytes"] += self.journal.append(records, began - int(self.board.epoch_ns[0]))
                self.unsynced = True
            self.marks[JOURNAL] = 0
        if self.unsynced and (
            self.durability == Durability.GROUP
            or began - self.synced_ns >= self.interval_ns
            or int((self.outbox_head - self.outbox_durable).max()) > _OUTBOX // 4
            or self.board.stop[0] != Stop.RUN
        ):
            self.journal.sync()
            self.synced_ns = began
            self.unsynced = False
            self._note_sync(began - int(self.board.epoch_ns[0]))
        if count:
            self.since_snapshot += count
            took = time.monotonic_ns() - began
            self.row["frames"] += 1
            self.row["records"] += count
            count_one(self.board.commits[self.node], took)
            self.board.applied[self.owned] = self.books.lsn[self.owned]
        self.durable = int(self.marks[REPLIES])
        self.guard.committed()
        if not self.unsynced:
            # Between nodes only what is synced counts, whatever the clients were promised: a far leg whose debit a power loss
            # takes would be money from nowhere, and one forgotten too early would be money lost.
            self.outbox_durable[:] = self.outbox_head
            self.board.acked[self.owned] = self.books.sequence_in[self.owned]

    def seal(self, record: NDArray[np.void]) -> None:
        """Writes and syncs one record that other nodes will build upon, whatever the durability; nothing else may be open."""
        if self.durability != Durability.MEMORY:
            self.row["bytes"] += self.journal.append(record, self.now_ns())
            self.journal.sync()
            self.synced_ns = time.monotonic_ns()
            self._note_sync(self.synced_ns - int(self.board.epoch_ns[0]))
            self.row["frames"] += 1
        self.unsynced = False
        self.outbox_durable[:] = self.outbox_head
        self.board.acked[self.owned] = self.books.sequence_in[self.owned]

    def _snapshot(self) -> None:
        """Forks a copy that writes a snapshot, once there is enough new in the journal and the copy before is done."""
        if self.snapshot_pid and os.waitpid(self.snapshot_pid, os.WNOHANG)[0]:
            self.snapshot_pid = 0
        if self.snapshot_pid or self.since_snapshot < self.snapshot_records or self.durability == Durability.MEMORY:
            return
        self.since_snapshot = 0
        point = Point(self.journal.size, self.journal.frames, *self.journal.last)
        try:
            self.snapshot_pid = os.fork()
        except OSError:
            return  # no memory for a copy now; the next one will do
        if self.snapshot_pid == 0:
            code = 1
            try:
                process.die_with_parent()
                os.nice(10)
                mask = self.outbox.shape[1] - 1
                first = self.outbox_forgotten if self.redelivers else self.outbox_head
                unsent = [
                    self.outbox[peer, np.arange(first[peer], self.outbox_head[peer]) & mask]
                    for peer in range(len(self.outbox))
                ]
                path = snapshot_path(self.folder, self.node)
                snapshot.write(path, self.node, self.books, unsent, point, self.journal.fileno())
                code = 0
            except OSError:
                pass  # the one before stands, and the next restart replays more; the exit code tells
            finally:
                os._exit(code)

    def send_out(self) -> bool:
        """Pushes what is durable: replies to the dispatcher, far legs to peers. What does not fit stays for the next turn."""
        moved = False
        if self.doors is not None:
            moved = self.durable > 0
            self.doors.hand_out(self.pending[: self.durable])
            self.released = self.durable
        elif self.released < self.durable:
            batch = self.pending[self.released : self.durable]
            batch["epoch"] = self.epoch
            pushed = self.wiring.replies[self.node].push(batch)
            self.released += pushed
            if pushed:
                self.wiring.dispatcher_bell.ring()
                moved = True
        if self.released == self.marks[REPLIES]:
            self.released = 0
            self.durable = 0
            self.marks[REPLIES] = 0
        for node, ring in self.peers:
            if self.incarnations[node] != self.board.nodes["incarnation"][node]:
                # The peer was restarted: what it had taken and not yet made durable went with it, so all of it goes again.
                self.incarnations[node] = self.board.nodes["incarnation"][node]
                if self.redelivers:
                    self.outbox_sent[node] = self.outbox_forgotten[node]
            sent = int(self.outbox_sent[node])
            pushed = push_wrapped(ring.cursors, ring.slots, self.outbox[node], sent, int(self.outbox_durable[node]))
            if pushed:
                self.outbox_sent[node] = sent + pushed
                self.wiring.node_bells[node].ring()
                moved = True
            if not self.redelivers:
                self.outbox_forgotten[node] = self.outbox_sent[node]
                continue
            self.outbox_forgotten[node] = forget(
                self.outbox, node, int(self.outbox_forgotten[node]), int(self.outbox_sent[node]), self.board.acked,
                self.shape.shards,
            )  # fmt: skip
        return moved

    def owes(self) -> bool:
        """Whether anything here still waits for room or for a peer."""
        return bool(
            self.marks[REPLIES]
            or self.books.undecided[0] > self.abandoned
            or self.handed_on_count.any()
            or (self.outbox_forgotten < self.outbox_head).any()
            or any(len(ring) for ring in self.inbound)
            or len(self.guard.aside)
            or (self.mover is not None and self.mover.busy)
        )

    def blocked(self) -> bool:
        """Whether something durable waits for room in a ring, which no doorbell will announce."""
        return bool(self.marks[REPLIES] or self.handed_on_count.any() or (self.outbox_sent < self.outbox_durable).any())

    def serve(self) -> None:
        """Turns until told to close, then closes the books."""
        bell = self.wiring.node_bells[self.node]
        self.row["state"] = NodeState.READY
        while True:
            began = time.monotonic_ns()
            if self.row["state"] == NodeState.QUIET and any(len(ring) for ring in self.inbound):
                # Before it takes anything, so that nobody believes it quiet meanwhile.
                self.row["state"] = NodeState.READY
            moved = self.turn()
            self.row["busy_ns"] += time.monotonic_ns() - began
            if moved:
                continue
            stop = self.board.stop[0]
            if stop == Stop.CLOSE:
                break
            if stop == Stop.QUIESCE:
                self.row["state"] = NodeState.READY if self.owes() else NodeState.QUIET
            self.publish()
            if self.blocked():
                time.sleep(_BLOCKED_S)
            else:
                bell.wait(self._patience_s(int(stop)))
        self.close()
        self.row["state"] = NodeState.STOPPED

    def close(self) -> None:
        """Closes the journal and writes the closing sheet."""
        self.publish()
        self.journal.close()
        self.guard.close()
        self._close_books()

    def _patience_s(self, stop: int) -> float:
        """How long to sleep when there is nothing to do: shorter while a sync is due or peers are about to acknowledge."""
        if stop == Stop.QUIESCE or len(self.guard.aside):
            return _QUIESCE_S
        if self.bucket is not None and any(len(ring) for ring in self.inbound[: self.client_rings]):
            return _THROTTLED_S
        return min(_IDLE_S, self.interval_ns / 1e9) if self.unsynced else _IDLE_S

    def publish(self) -> None:
        """Puts the slower counters on the board."""
        for name, mark in _COUNTED.items():
            self.row[name] += self.marks[mark] - self.published[mark]  # what a life before counted stays
        self.published[:] = self.marks
        self.row["outbox_max"] = max(
            int(self.row["outbox_max"]), int((self.outbox_head - self.outbox_forgotten).max(initial=0))
        )
        self.row["cpu_ns"] = time.process_time_ns()

    def _close_books(self) -> None:
        """Writes the closing sheet: what this node's memory says, for the auditor to hold against the journal."""
        shards = []
        for shard in self.owned:
            first = int(self.books.base[shard])
            rows = self.books.accounts[first : first + self.shape.rows(int(shard))]
            shards.append(
                {
                    "shard": int(shard),
                    "lsn": int(self.books.lsn[shard]),
                    "available_minor": int(rows[:, AVAILABLE].sum()),
                    "reserved_minor": int(rows[:, RESERVED].sum()),
                    "transit_out_minor": self.books.transit_out[shard].tolist(),
                    "transit_in_minor": self.books.transit_in[shard].tolist(),
                }
            )
        sheet: dict[str, Any] = {"node": self.node, "durability": self.durability.name.lower(), "shards": shards}
        if self.split.hot:
            sheet["hot_accounts"] = self._parts()
        if self.durability == Durability.MEMORY:
            sheet["sums"] = self.sums.tolist()
            sheet["alarms"] = int(self.marks[ALARMS])
            sheet["returned"] = [int(self.marks[RETURNED]), int(self.marks[RETURNED_MINOR])]
        closing_path(self.folder, self.node).write_text(json.dumps(sheet), "utf-8")

    def _parts(self) -> list[dict[str, int]]:
        """The sub-accounts that live here, and the merchants whose parts they are."""
        parts = []
        for rank in range(self.split.hot):
            for account in parts_of(self.split, rank):
                shard = account % self.shape.shards
                if self.books.place[shard] >= 0:
                    base = int(self.books.base[shard])
                    available, reserved = self.books.accounts[base + account // self.shape.shards].tolist()
                    merchant = self.split.customers + rank
                    parts.append(
                        {
                            "merchant": merchant,
                            "account": account,
                            "available_minor": available,
                            "reserved_minor": reserved,
                        }
                    )
        return parts


def serve(node: int, shape: Shape, wiring: Wiring, board: Board, **options: Any) -> None:  # noqa: ANN401  passed to Node
    """The body of a node process. A journal that cannot be written ends it: nothing unacknowledged is answered any more."""
    row: Any = board.nodes[node]
    row["pid"] = os.getpid()
    try:
        Node(node, shape, wiring, board, **options).serve()
    except OSError as error:
        row["errno"] = error.errno or 5
        row["state"] = NodeState.FAILED
        wiring.dispatcher_bell.ring()
