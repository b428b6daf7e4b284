"""The window of remembered ids: what makes a repeated id harmless, and refunds and holds findable.

A shard keeps two generations of `remember` entries, each with an open-addressing index of twice as many slots (so it is half
full, three quarters at the most with every hold open, and a probe is short). New entries go to the current generation; when
that is full the older one is emptied and becomes current. So the last `remember` ids are always known, at most twice as many,
and nothing is ever deleted singly.
A slot holds an entry's position + 1 and, in the bits above those a position can need, a tag: bits of the id's hash that the
slot's own number does not have. An id that is new (nearly all are) is told from its neighbours in the index by their tags, so
their entries, each a wait for memory, are not looked at: with 2 million ids in a shard that halves the cost of a payment.
What is pending (open holds, and transfers that are tried and not settled) is carried over into the new generation, which
takes `remember` new ids beside it: money set aside or promised is never forgotten. It is at most half of `remember`
(`pending_max`, enforced where such entries are made).
"""

from __future__ import annotations

import numpy as np

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.books import Books, State
from simulator.seeds import mix

_HELD, _POSTING, _TRIED = int(State.HELD), int(State.POSTING), int(State.TRIED)


@inlined
def _tag(hashed: np.uint64, mask: np.uint64) -> np.uint32:
    """What a slot has beside the position: positions + 1 stay below the number of slots, mask + 1."""
    return np.uint32((hashed >> np.uint64(32)) & ~mask & np.uint64(0xFFFFFFFF))


@inlined
def find(books: Books, place: int, key: np.uint64) -> tuple[int, int]:
    """(generation, position) of the entry with this id, or (-1, 0). The current generation is looked at first."""
    mask = np.uint64(books.slots.shape[2] - 1)
    hashed = mix(key)
    start = hashed & mask
    tag = _tag(hashed, mask)
    for turn in range(2):
        generation = books.current[place] ^ turn
        slot = start
        while True:
            found = books.slots[place, generation, slot]
            if found == 0:
                break
            if (found ^ tag) <= np.uint32(mask):
                position = int64(found ^ tag) - 1
                if books.entries[place, generation, position]["id"] == key:
                    return generation, position
            slot = (slot + np.uint64(1)) & mask
    return -1, 0


@inlined
def _enter(books: Books, place: int, generation: int, position: int, key: np.uint64) -> None:
    mask = np.uint64(books.slots.shape[2] - 1)
    hashed = mix(key)
    slot = hashed & mask
    while books.slots[place, generation, slot] != 0:
        slot = (slot + np.uint64(1)) & mask
    books.slots[place, generation, slot] = np.uint32(position + 1) | _tag(hashed, mask)


@inlined
def is_pending(state: int) -> bool:
    """Whether something is still to come of an entry in this state: HELD, POSTING, TRYING, TRIED."""
    return state == _HELD or _POSTING <= state <= _TRIED


@kernel
def _turn_over(books: Books, place: int) -> None:
    """Empties the older generation, keeping what is pending at its front, and makes it current."""
    generation = books.current[place] ^ 1
    kept = 0
    for position in range(books.used[place, generation]):
        if is_pending(books.entries[place, generation, position]["state"]):
            if kept != position:
                books.entries[place, generation, kept] = books.entries[place, generation, position]
            kept += 1
    books.slots[place, generation, :] = 0
    for position in range(kept):
        _enter(books, place, generation, position, books.entries[place, generation, position]["id"])
    books.used[place, generation] = kept
    books.carried[place] = kept
    books.current[place] = generation


@inlined
def remember(books: Books, place: int, key: np.uint64) -> tuple[int, int]:
    """Makes room for a new id (not yet known) and returns its (generation, position); the caller fills the entry."""
    if books.used[place, books.current[place]] == books.carried[place] + books.slots.shape[2] // 2:
        _turn_over(books, place)
    generation = books.current[place]
    position = books.used[place, generation]
    books.used[place, generation] = position + 1
    books.entries[place, generation, position]["id"] = key
    _enter(books, place, generation, position, key)
    return generation, position


@kernel
def pending_max(books: Books) -> int:
    """How many open holds and unsettled tries a shard may have together."""
    return books.slots.shape[2] // 4
