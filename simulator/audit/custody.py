"""Who owns which shard while journals are replayed: a shard that moved has its log in several of them.

Each journal is one stream, read in order. A node's stream waits at a MOVE_IN until the stream of the node that the shard comes
from has reached the MOVE_OUT of the same move; so every shard's log is replayed in the order of its positions, and of each
journal only the stretch being read is in memory. Waiting cannot go in a circle in sound journals, because moves are made one
after the other: the first one that anybody waits for has its MOVE_OUT behind no other wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import kernel
from simulator.shard.layout import Custody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simulator.audit.findings import Audit

_EXAMPLES = 20


class _Passage(NamedTuple):
    """A shard on its way: what its MOVE_OUT says."""

    shard: int
    source: int
    target: int
    lsn: int


@kernel
def strangers(records: NDArray[np.void], owners: NDArray[np.int64], node: int, examples: NDArray[np.uint64]) -> int:
    """Counts records of shards that `node` does not own; fills `examples` with the first ids."""
    found = 0
    for i in range(records.shape[0]):
        shard = np.int64(records[i]["shard"])
        if shard < owners.shape[0] and owners[shard] != node:
            if found < examples.shape[0]:
                examples[found] = records[i]["id"]
            found += 1
    return found


class Custodians:
    """Follows who owns each shard; `lsn` (shards,) is the ledger's, which the replay moves on."""

    def __init__(self, nodes: int, lsn: NDArray[np.int64], audit: Audit) -> None:
        self._nodes = nodes
        self._lsn = lsn
        self._audit = audit
        self.owners = np.arange(len(lsn), dtype=np.int64) % nodes
        self._under_way: dict[int, _Passage] = {}  # by the number of the move
        self._examples = np.zeros(_EXAMPLES, np.uint64)

    def in_order(self, journals: list[Iterator[NDArray[np.void]]]) -> Iterator[tuple[int, NDArray[np.void]]]:
        """(node, records of legs) of all journals, in an order in which each shard's log is whole."""
        streams = {node: self._split(journal) for node, journal in enumerate(journals)}
        waiting: dict[int, np.void] = {}
        while streams:
            moved = False
            for node in list(streams):
                if node in waiting and int(waiting[node]["id"]) not in self._under_way:
                    continue
                moved = True
                if node in waiting:
                    self._arrive(node, waiting.pop(node))
                for piece in streams[node]:
                    if isinstance(piece, np.ndarray):
                        yield node, piece
                    elif piece["leg"] == Custody.MOVE_OUT:
                        self._depart(node, piece)
                    else:
                        waiting[node] = piece
                        break
                else:
                    del streams[node]
            if not moved:
                # Nobody can go on: a shard came from nowhere. It is said, and the rest is audited all the same.
                node = min(waiting, key=lambda n: int(waiting[n]["id"]))
                self._arrive(node, waiting.pop(node))

    @staticmethod
    def _split(journal: Iterator[NDArray[np.void]]) -> Iterator[NDArray[np.void] | np.void]:
        """The records of legs, and between them each record of a move by itself."""
        for records in journal:
            start = 0
            for at in np.flatnonzero(records["leg"] >= Custody.MOVE_OUT).tolist():
                yield records[start:at]
                yield records[at]
                start = at + 1
            yield records[start:]

    def check(self, node: int, records: NDArray[np.void]) -> None:
        """Whether a node books only on shards that it owns."""
        found = int(strangers(records, self.owners, node, self._examples))
        if found:
            self._audit.find("two_writers", *self._examples[:found].tolist(), count=found)

    def _depart(self, node: int, record: np.void) -> None:
        shard, number, lsn = int(record["shard"]), int(record["id"]), int(record["lsn"])
        if self._is_no_shard(node, record):
            return
        if self.owners[shard] != node or number in self._under_way:
            self._wrong(f"node {node} gave shard {shard} away in move {number}, but did not own it")
            return
        self._reached(shard, lsn, f"as it left node {node}")
        self._under_way[number] = _Passage(shard, node, int(record["related"]), lsn)
        self.owners[shard] = -1

    def _arrive(self, node: int, record: np.void) -> None:
        shard, number, lsn = int(record["shard"]), int(record["id"]), int(record["lsn"])
        if self._is_no_shard(node, record):
            return
        passage = self._under_way.pop(number, None)
        if passage is None:
            self._wrong(f"node {node} took shard {shard} over in move {number}, but no journal says that it left")
        elif passage != (shard, int(record["related"]), node, lsn):
            self._wrong(
                f"node {node} took shard {shard} over in move {number} at position {lsn}; node {passage.source} gave shard "
                f"{passage.shard} to node {passage.target} at position {passage.lsn}"
            )
        self._reached(shard, lsn, f"as node {node} took it over")
        self.owners[shard] = node

    def _is_no_shard(self, node: int, record: np.void) -> bool:
        beyond = int(record["shard"]) >= len(self.owners)
        if beyond:
            self._wrong(f"node {node}'s journal moves shard {int(record['shard'])}, which there is not")
        return beyond

    def _reached(self, shard: int, lsn: int, when: str) -> None:
        """A move names the last position of the log; what is missing before it no later record would show at once."""
        have = int(self._lsn[shard])
        if have < lsn:
            self._audit.find("log_gap", count=lsn - have)
            self._lsn[shard] = lsn
        elif have > lsn:
            self._audit.find("log_repeat", count=have - lsn)
        if have != lsn:
            self._audit.reasons.append(f"shard {shard} stood at position {lsn} {when}; the journals have it at {have}")

    def _wrong(self, reason: str) -> None:
        self._audit.find("two_writers", count=1)
        self._audit.reasons.append(reason)

    def conclude(self) -> None:
        """A shard that left and never arrived has no owner; whoever was to take it did not come back."""
        for number, passage in self._under_way.items():
            self._audit.doubt(
                f"shard {passage.shard} left node {passage.source} in move {number}, and node {passage.target} has not taken it"
            )
