"""The window of remembered ids: what makes a repeated id harmless, and refunds and holds findable.

A shard keeps two generations of `remember` entries, each with an open-addressing index of twice as many slots (so it is at
most half full, and a probe is short). New entries go to the current generation; when that is full the older one is emptied
and becomes current. So the last `remember` ids are always known, at most twice as many, and nothing is ever deleted singly.
Open holds are carried over into the new generation: money held is never forgotten. They are at most half of it
(`holds_max`, enforced where holds are made), so a new generation always has room.
"""

from __future__ import annotations

import numpy as np
from simulator.kernel import inlined, kernel

from simulator.ledger.books import Books, State

_HELD = int(State.HELD)


@inlined
def mix(x: np.uint64) -> np.uint64:
    """A 64-bit finaliser: every input bit reaches every output bit (splitmix64; Steele, Lea and Flood 2014)."""
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inlined
def find(books: Books, place: int, key: np.uint64) -> int:
    """generation × remember + position of the entry with this id, or -1. The current generation is looked at first."""
    remember = books.entries.shape[2]
    mask = np.uint64(books.index.shape[2] - 1)
    start = mix(key) & mask
    for turn in range(2):
        generation = books.current[place] ^ turn
        slot = start
        while True:
            position = books.index[place, generation, slot]
            if position == 0:
                break
            if books.entries[place, generation, position - 1]["id"] == key:
                return generation * remember + position - 1
            slot = (slot + np.uint64(1)) & mask
    return -1


@inlined
def _enter(books: Books, place: int, generation: int, position: int, key: np.uint64) -> None:
    mask = np.uint64(books.index.shape[2] - 1)
    slot = mix(key) & mask
    while books.index[place, generation, slot] != 0:
        slot = (slot + np.uint64(1)) & mask
    books.index[place, generation, slot] = position + 1


@kernel
def _turn_over(books: Books, place: int) -> None:
    """Empties the older generation, keeping its open holds at its front, and makes it current."""
    generation = books.current[place] ^ 1
    kept = 0
    for position in range(books.count[place, generation]):
        if books.entries[place, generation, position]["state"] == _HELD:
            if kept != position:
                books.entries[place, generation, kept] = books.entries[place, generation, position]
            kept += 1
    books.index[place, generation, :] = 0
    for position in range(kept):
        _enter(books, place, generation, position, books.entries[place, generation, position]["id"])
    books.count[place, generation] = kept
    books.current[place] = generation


@inlined
def remember(books: Books, place: int, key: np.uint64) -> int:
    """Makes room for a new id (not yet known) and returns generation × remember + position; the caller fills the entry."""
    size = books.entries.shape[2]
    if books.count[place, books.current[place]] == size:
        _turn_over(books, place)
    generation = books.current[place]
    position = books.count[place, generation]
    books.count[place, generation] = position + 1
    books.entries[place, generation, position]["id"] = key
    _enter(books, place, generation, position, key)
    return generation * size + position


@kernel
def holds_max(books: Books) -> int:
    """How many open holds a shard may have."""
    return books.entries.shape[2] // 2
