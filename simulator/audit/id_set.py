"""A set of transaction ids that chunks of rows are held against: fast where nearly none is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_LEAST = 1 << 10


@kernel
def insert(table: NDArray[np.uint64], ids: NDArray[np.uint64]) -> None:
    """Puts ids (not 0) into an open-addressing table of a power of two of slots, more than there are ids."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(ids.shape[0]):
        at = mix(ids[i]) & mask
        while table[int64(at)] != 0 and table[int64(at)] != ids[i]:
            at = (at + np.uint64(1)) & mask
        table[int64(at)] = ids[i]


@kernel
def probe(table: NDArray[np.uint64], rows: NDArray[np.void], out: NDArray[np.bool_]) -> int:
    """out[i]: whether the table holds rows[i]["id"]; returns how many."""
    mask = np.uint64(table.shape[0] - 1)
    found = 0
    for i in range(rows.shape[0]):
        key = rows[i]["id"]
        at = mix(key) & mask
        while table[int64(at)] != 0 and table[int64(at)] != key:
            at = (at + np.uint64(1)) & mask
        out[i] = table[int64(at)] == key and key != 0
        found += out[i]
    return found


class IdSet:
    """Ids, at 16 to 64 bytes each. An id is never 0."""

    def __init__(self, ids: Iterable[int] | NDArray[np.uint64]) -> None:
        self.ids = np.unique(ids if isinstance(ids, np.ndarray) else np.fromiter(ids, np.uint64))
        size = max(_LEAST, 1 << (2 * len(self.ids)).bit_length())
        self._table = np.zeros(size, np.uint64)
        insert(self._table, self.ids.astype(np.uint64))

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, rows: NDArray[np.void]) -> NDArray[np.bool_]:
        """Whether the `id` of each row is in the set."""
        mask = np.zeros(len(rows), np.bool_)
        if len(self):
            probe(self._table, rows, mask)
        return mask

    def among(self, rows: NDArray[np.void]) -> NDArray[np.void]:
        """A copy of the rows whose `id` is in the set, in order."""
        return rows[self.mask(rows)]

    def split(self, rows: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """(rows whose `id` is in the set, the others), each in order; `rows` itself if there is nothing to take out."""
        mask = np.zeros(len(rows), np.bool_)
        if not len(self) or not probe(self._table, rows, mask):
            return np.zeros(0, rows.dtype), rows  # no view: kept, that would keep all of `rows`
        return rows[mask], rows[~mask]
