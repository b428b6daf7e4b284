"""Holds that nobody completes: found in the order they were made, and released when their term is over.

A term is the same for all holds, so they expire in the order they were made and a queue is enough. A completed hold stays in the
queue until it is at its front, or until the queue is full and is swept: open holds are at most half of it (`pending_max`), so
a sweep always makes room, and costs as much as the pushes since the one before. A hold of which a post is under way
(`protocol: tcc`) waits at the front until that is decided, and those behind it with it; unless its decision was buried as a
dead letter, which no other follows before a restart: then it goes round, and holds nobody back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.flaws import Flaw
from simulator.ledger.output import FLAW, JOURNAL, TAKEN
from simulator.ledger.window import find
from simulator.shard.layout import Leg

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HELD, _CLOSED, _POSTING = int(State.HELD), int(State.CLOSED), int(State.POSTING)
_EXPIRE = int(Leg.EXPIRE)
_NEVER = -1  # in place of the time a hold was made: its post will not be decided in this life of the node
_FLAW_RESERVED = int(Flaw.RESERVED)


@kernel
def is_open(books: Books, place: int, key: np.uint64) -> bool:
    """Whether a hold still has something to post or void."""
    generation, position = find(books, place, key)
    if generation < 0:
        return False
    state = books.entries[place, generation, position]["state"]
    return state == _HELD or state == _POSTING


@kernel
def sweep(books: Books, place: int) -> None:
    """Takes the completed holds out of a full queue."""
    circle = books.hold_ids.shape[1]
    kept = books.hold_ends[place, 0]
    for at in range(books.hold_ends[place, 0], books.hold_ends[place, 1]):
        key = books.hold_ids[place, at % circle]
        if is_open(books, place, key):
            books.hold_ids[place, kept % circle] = key
            books.hold_made_ns[place, kept % circle] = books.hold_made_ns[place, at % circle]
            kept += 1
    books.hold_ends[place, 1] = kept


@inlined
def note_hold(books: Books, place: int, key: np.uint64) -> None:
    """Queues a new hold for its expiry."""
    circle = books.hold_ids.shape[1]
    if books.hold_ends[place, 1] - books.hold_ends[place, 0] == circle:
        sweep(books, place)
    at = books.hold_ends[place, 1]
    books.hold_ids[place, at % circle] = key
    books.hold_made_ns[place, at % circle] = books.now_ns[0]
    books.hold_ends[place, 1] = at + 1


@kernel
def wait_no_more(books: Books, place: int, key: np.uint64) -> None:
    """Marks a hold whose post will not be decided, so that it does not keep those behind it from their expiry."""
    circle = books.hold_ids.shape[1]
    for at in range(books.hold_ends[place, 0], books.hold_ends[place, 1]):
        if books.hold_ids[place, at % circle] == key:
            books.hold_made_ns[place, at % circle] = _NEVER


@kernel
def expire(  # noqa: PLR0915  one pass over each queue, straight
    books: Books, term_ns: int, journal: NDArray[np.void], marks: NDArray[np.int64]
) -> int:
    """Releases every hold older than its term, as far as the open frame has room; returns how many.

    A hold that has more left than its account has reserved is left as it is and not looked at again: marks[FLAW] then says
    so, marks[TAKEN] has its id, and the rest waits for the next call.
    """
    marks[FLAW] = 0
    shards = np.uint32(books.shards)
    circle = books.hold_ids.shape[1]
    released = 0
    for shard in range(books.shards):
        place = books.place[shard]
        if place < 0:
            continue
        end = books.hold_ends[place, 1]  # what goes round is looked at again in the next call
        while books.hold_ends[place, 0] < end and marks[JOURNAL] < journal.shape[0]:
            at = books.hold_ends[place, 0] % circle
            undecided = books.hold_made_ns[place, at] == _NEVER
            if not undecided and books.hold_made_ns[place, at] + term_ns > books.now_ns[0]:
                break
            generation, position = find(books, place, books.hold_ids[place, at])
            if generation >= 0 and books.entries[place, generation, position]["state"] == _POSTING:
                if not undecided:
                    break
                behind = books.hold_ends[place, 1] % circle
                books.hold_ids[place, behind] = books.hold_ids[place, at]
                books.hold_made_ns[place, behind] = _NEVER
                books.hold_ends[place, 0] += 1
                books.hold_ends[place, 1] += 1
                continue
            books.hold_ends[place, 0] += 1
            if generation < 0 or books.entries[place, generation, position]["state"] != _HELD:
                continue
            entry = books.entries[place, generation, position]
            amount = entry["remaining_minor"]
            row = books.base[shard] + entry["payer"] // shards
            if books.accounts[row, RESERVED] < amount:
                marks[FLAW] = _FLAW_RESERVED
                marks[TAKEN] = int64(entry["id"])
                return released
            books.accounts[row, RESERVED] -= amount
            books.accounts[row, AVAILABLE] += amount
            books.holds[shard] -= 1
            books.lsn[shard] += 1
            entry["remaining_minor"] = 0
            entry["state"] = _CLOSED
            record = journal[marks[JOURNAL]]
            marks[JOURNAL] += 1
            record["id"] = entry["id"]
            record["amount_minor"] = amount
            record["related"] = entry["related"]
            record["payer"] = entry["payer"]
            record["payee"] = entry["payee"]
            record["lsn"] = books.lsn[shard]
            record["shard"] = shard
            record["kind"] = entry["kind"]
            record["leg"] = _EXPIRE
            record["reason"] = 0
            released += 1
    return released
