"""What booking leaves behind: a record in the open frame, an answer, a remembered id, a message to another shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.kernel import inlined
from simulator.ledger.window import remember

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.ledger.books import Books

# Where each count stands in the `marks` array.
JOURNAL = 0  # records in the open frame
REPLIES = 1  # replies that wait for it
GAPS = 2  # numbered messages that came out of order; 0 unless a peer is broken
REFUSED = 3  # requests refused for a full queue
TAKEN = 4  # messages that the last `apply` took, also if it raised
FLAW = 5  # why it stopped in front of the next one; 0: for want of room
POISON_NEAR = 6  # requests whose hashed id is below this raise; 0: none
POISON_FAR = 7  # the same for far legs, and for tries
ALARMS = 8  # messages that must not be (`tcc`); 0 unless a peer is broken
RETURNED = 9  # transfers that were answered `ok` and whose money came back
RETURNED_MINOR = 10  # and how much money that was
MARKS = 11


@inlined
def write(
    books: Books, journal: NDArray[np.void], marks: NDArray[np.int64], shard: int, leg: int, reason: int, m: np.void
) -> int:
    """Appends the record of one leg to the open frame; returns its lsn."""
    lsn = books.lsn[shard] + 1
    books.lsn[shard] = lsn
    record = journal[marks[JOURNAL]]
    marks[JOURNAL] += 1
    record["id"] = m["id"]
    record["amount_minor"] = m["amount_minor"]
    record["related"] = m["related"]
    record["payer"] = m["payer"]
    record["payee"] = m["payee"]
    record["lsn"] = lsn
    record["shard"] = shard
    record["kind"] = m["kind"]
    record["leg"] = leg
    record["reason"] = reason
    return lsn


@inlined
def reply(
    replies: NDArray[np.void], marks: NDArray[np.int64], shard: int, lsn: int, status: int, reason: int, m: np.void
) -> None:
    """Queues the answer to a request; it is released once the open frame is as durable as asked."""
    outcome = replies[marks[REPLIES]]
    marks[REPLIES] += 1
    outcome["id"] = m["id"]
    outcome["lsn"] = lsn
    outcome["slot"] = m["slot"]
    outcome["shard"] = shard
    outcome["status"] = status
    outcome["reason"] = reason


@inlined
def fill_entry(
    books: Books, place: int, lsn: int, status: int, reason: int, state: int, remaining: int, m: np.void
) -> None:
    """Remembers a transaction under its id."""
    generation, position = remember(books, place, m["id"])
    entry = books.entries[place, generation, position]
    entry["amount_minor"] = m["amount_minor"]
    entry["remaining_minor"] = remaining
    entry["related"] = m["related"]
    entry["payer"] = m["payer"]
    entry["payee"] = m["payee"]
    entry["lsn"] = lsn
    entry["kind"] = m["kind"]
    entry["status"] = status
    entry["reason"] = reason
    entry["state"] = state


@inlined
def send(
    books: Books,
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    what: int,
    shard: int,
    sequence: int,
    reason: int,
    m: np.void,
) -> None:
    """Puts a message (layout.Message) about `m`, number `sequence` of its pair, into the outbox to the node of `shard`."""
    peer = books.owner[shard]
    message = outbox[peer, outbox_head[peer] & (outbox.shape[1] - 1)]
    message["id"] = m["id"]
    message["amount_minor"] = m["amount_minor"]
    message["related"] = m["related"]
    message["payer"] = m["payer"]
    message["payee"] = m["payee"]
    message["slot"] = reason
    message["kind"] = m["kind"]
    message["message"] = what
    message["sequence"] = sequence
    outbox_head[peer] += 1
