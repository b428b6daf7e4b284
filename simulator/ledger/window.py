"""The window of remembered ids: what makes a repeated id harmless, and refunds and holds findable.

A shard keeps two generations of `remember` entries, each with an open-addressing index of twice as many slots (so it is half
full, three quarters at the most with every hold open, and a probe is short). New entries go to the current generation; when
that is full the older one is emptied and becomes current. So the last `remember` ids are always known, at most twice as many,
and nothing is ever deleted singly.
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
def find(books: Books, place: int, key: np.uint64) -> tuple[int, int]:
    """(generation, position) of the entry with this id, or (-1, 0). The current generation is looked at first."""
    mask = np.uint64(books.slots.shape[2] - 1)
    start = mix(key) & mask
    for turn in range(2):
        generation = books.current[place] ^ turn
        slot = start
        while True:
            position = books.slots[place, generation, slot]
            if position == 0:
                break
            if books.entries[place, generation, position - 1]["id"] == key:
                return generation, int64(position) - 1
            slot = (slot + np.uint64(1)) & mask
    return -1, 0


@inlined
def _enter(books: Books, place: int, generation: int, position: int, key: np.uint64) -> None:
    mask = np.uint64(books.slots.shape[2] - 1)
    slot = mix(key) & mask
    while books.slots[place, generation, slot] != 0:
        slot = (slot + np.uint64(1)) & mask
    books.slots[place, generation, slot] = position + 1


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
