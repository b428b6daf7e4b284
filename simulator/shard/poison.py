"""Books batches in such a way that an operation which fails harms nobody else: set aside, tried again, given up in good order.

The kernel stops in front of an operation that it cannot book (`simulator.ledger.flaws`), or raises there; either way of that
one nothing was changed, and everything before it stands. It is set aside (`simulator.shard.set_aside`) and the batch goes on
behind it. After `tries` tries in all, at least `wait_ns` apart, it is buried: one record in the journal
(`simulator.ledger.post.bury`) and one line in the node's dead-letter file.

Without any such operation this costs nothing but a look at an empty room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.ledger.flaws import FLAWS, Flaw
from simulator.ledger.output import FLAW, POISON_FAR, POISON_NEAR, TAKEN
from simulator.shard.dead_letters import DEAD_LEGS, LOST_LINE, DeadLetters, letter, what_of
from simulator.shard.layout import BACKWARD, Message
from simulator.shard.set_aside import SetAside, Waiting, keys_of
from simulator.transaction import TRANSACTION, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.ledger.books import Books

_HEALS_AFTER = 2  # the place of that number in a row of the board's `poison`


class PoisonRules(NamedTuple):
    """How often an operation that fails is tried, and how much is kept of those that never succeed."""

    tries: int = 3
    wait_ns: int = 10_000_000
    dead_letters: int = 10_000  # lines of a node's file


DEFAULT_RULES = PoisonRules()


class Calls(NamedTuple):
    """What the node does with its own rooms: `apply(slots, start, count)`, `bury(slots, at)`, is there `room()` for one more."""

    apply: Callable[[NDArray[Any], int, int], int]
    bury: Callable[[NDArray[Any], int], int]
    room: Callable[[], bool]


class PoisonGuard:
    """Stands between a node and the kernel that books for it."""

    def __init__(
        self, books: Books, marks: NDArray[np.int64], row: Any, asked: NDArray[np.int64], calls: Calls,  # noqa: ANN401  one NODE_BOARD record
        rules: PoisonRules, letters: DeadLetters,
    ) -> None:  # fmt: skip
        """`row` is the node's on the board, `asked` what a fault poisons there now."""
        self._books = books
        self._marks = marks
        self._row = row
        self._asked = asked
        self._calls = calls
        self._rules = rules
        self._letters = letters
        self._written: list[dict[str, Any]] = []  # letters whose records wait for their commit
        self.aside = SetAside()

    def book(self, slots: NDArray[Any], start: int, count: int, now_ns: int) -> int:
        """Books or sets aside slots[start … start+count) of a circle; returns how many until there was no room."""
        self._marks[POISON_NEAR : POISON_FAR + 1] = self._asked[:_HEALS_AFTER]
        done, why = (0, None) if len(self.aside) else self._apply(slots, start, count)
        if done == count or (why is None and not len(self.aside)):
            return done
        messages = slots[(start + np.arange(count)) & (len(slots) - 1)]
        keys = keys_of(messages, self._books.place >= 0)
        blocked = self.aside.blocked(keys)
        while done < count:
            if why is not None or blocked[done]:
                if self.aside.full:
                    break  # it stays in its ring, and all behind it, until there is room
                waiting = Waiting(messages[done : done + 1].copy())
                if why is not None:
                    self._failed(waiting, why, now_ns)
                self.aside.add(int(keys[done]), waiting)
                blocked[done + 1 :] |= keys[done + 1 :] == keys[done]
                done, why = done + 1, None
                continue
            ahead = blocked[done:]
            stretch = int(ahead.argmax()) or len(ahead)  # up to the next one that must wait
            taken, why = self._apply(slots, start + done, stretch)
            done += taken
            if why is None and taken < stretch:
                break
        return done

    def try_again(self, now_ns: int) -> bool:
        """Tries what is due, and what waited behind it; says whether anything was booked or buried."""
        self._marks[POISON_NEAR : POISON_FAR + 1] = self._asked[:_HEALS_AFTER]
        moved = False
        for key, waiting in self.aside.due(now_ns):
            if not self._calls.room():
                break
            if waiting.tries >= self._rules.tries:
                self._bury(waiting, now_ns)
            else:
                done, why = self._apply_alone(waiting)
                if why is not None:
                    self._failed(waiting, why, now_ns)
                    if waiting.tries < self._rules.tries:
                        continue
                    self._bury(waiting, now_ns)
                elif not done:
                    break
                elif waiting.tries:
                    self._row["healed"] += 1
            self.aside.drop_first(key)
            moved = True
        return moved

    def _apply_alone(self, waiting: Waiting) -> tuple[int, str | None]:
        if waiting.tries:
            self._row["retried"] += 1
        if 0 < self._asked[_HEALS_AFTER] <= waiting.tries:
            self._marks[POISON_NEAR : POISON_FAR + 1] = 0
        result = self._apply(waiting.message, 0, 1)
        self._marks[POISON_NEAR : POISON_FAR + 1] = self._asked[:_HEALS_AFTER]
        return result

    def _apply(self, slots: NDArray[Any], start: int, count: int) -> tuple[int, str | None]:
        """(how many were taken, why the next one could not be booked; None: it could, or there was no room)."""
        self._marks[TAKEN] = 0
        try:
            done = self._calls.apply(slots, start, count)
        except Exception as error:  # noqa: BLE001  whatever one operation raises, its neighbours have nothing to do with it
            return int(self._marks[TAKEN]), f"{type(error).__name__}: {error}"
        flaw = int(self._marks[FLAW])
        return done, FLAWS[Flaw(flaw)] if flaw else None

    def _failed(self, waiting: Waiting, why: str, now_ns: int) -> None:
        waiting.tries += 1
        waiting.why = why
        waiting.due_ns = now_ns + self._rules.wait_ns
        if waiting.tries == 1:
            self._row["set_aside"] += 1

    def _bury(self, waiting: Waiting, now_ns: int) -> None:
        message = waiting.message[0]
        lsn = int(self._calls.bury(waiting.message, 0))
        if lsn < 0:
            return
        far_leg = int(message["message"]) != Message.REQUEST
        party = message["payee" if far_leg and int(message["message"]) not in BACKWARD else "payer"]
        self.note(
            message, what="far_leg" if far_leg else "request", lsn=lsn, shard=int(party) % self._books.shards,
            now_ns=now_ns, tries=waiting.tries, why=waiting.why,
        )  # fmt: skip

    def note(
        self, message: Any, *, what: str, lsn: int, shard: int, now_ns: int, tries: int | None, why: str  # noqa: ANN401  one TRANSACTION or RECORD
    ) -> None:  # fmt: skip
        """Something is dead; its line is written after the next commit."""
        self._written.append(letter(message, what=what, lsn=lsn, shard=shard, t_ns=now_ns, tries=tries, why=why))

    def committed(self) -> None:
        """The records of what was buried are as durable as asked: now it may be told."""
        for found in self._written:
            self._row["dead_credits" if found["what"] == "far_leg" else "dead_requests"] += 1
            if not self._letters.write(found):
                self._row["dead_unwritten"] += 1
        self._written.clear()

    def restored(self, records: NDArray[Any], now_ns: int) -> None:
        """Writes the lines that a crash has prevented, for what a restart finds in the journal (RECORD[n])."""
        if self._letters.full:
            return
        for record in records[(records["reason"] == Reason.POISON) & np.isin(records["leg"], DEAD_LEGS)]:
            shard, lsn = int(record["shard"]), int(record["lsn"])
            if not self._letters.knows(shard, lsn, int(record["id"])):
                self.note(record, what=what_of(record), lsn=lsn, shard=shard, now_ns=now_ns, tries=None, why=LOST_LINE)

    def recovered(self, last: dict[int, int]) -> None:
        """The journal is read to its end, `last` is each shard's position there: lines of what lay beyond have no record now."""
        self._letters.drop_beyond(last)

    def close(self) -> None:
        """Closes the dead-letter file."""
        self._letters.close()


def nothing() -> NDArray[np.void]:
    """One empty message, to write a letter about something that never was in a ring."""
    return np.zeros(1, TRANSACTION)
