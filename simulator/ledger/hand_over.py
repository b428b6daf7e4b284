"""What a shard's move does to the messages between shards: which are still owed, and in whose outbox they belong now.

A message is owed while its far shard has not acknowledged its number. Copies of one message may stand in several outboxes;
that is harmless, because the far shard applies exactly the next number of a pair and passes over what it has. What
matters is that whoever owns the near shard has *every* owed message of a pair, in order, in the outbox to the owner of the far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel
from simulator.ledger.exchange import is_backward

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.ledger.books import Books


@kernel
def owed_by(
    books: Books,
    near: int,
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    outbox_forgotten: NDArray[np.int64],
    acked: NDArray[np.int64],
    found: NDArray[np.void],
) -> int:
    """Copies what shard `near` is still to deliver to shards of other nodes, in order for each pair; returns how many.

    `found` has room for a whole outbox to each node. Only the outbox to a far shard's present owner is looked into: it has
    everything that is owed to that shard.
    """
    shards = np.uint32(books.shards)
    mask = outbox.shape[1] - 1
    count = 0
    for row in range(outbox.shape[0]):
        for at in range(outbox_forgotten[row], outbox_head[row]):
            m = outbox[row, at & mask]
            far = int64(m["payee"] % shards)
            if int64(m["payer"] % shards) != near or books.place[far] >= 0 or books.owner[far] != row:
                continue
            if acked[far, near] < int64(m["sequence"]):
                found[count] = m
                count += 1
    return count


@kernel
def owed_to(
    books: Books,
    far: int,
    row: int,
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    outbox_forgotten: NDArray[np.int64],
    acked: NDArray[np.int64],
    found: NDArray[np.void],
    start: int,
) -> int:
    """Appends to found[:start] what this node's shards still owe to shard `far` from one outbox.

    Returns how many there are then.
    """
    shards = np.uint32(books.shards)
    mask = outbox.shape[1] - 1
    count = start
    for at in range(outbox_forgotten[row], outbox_head[row]):
        m = outbox[row, at & mask]
        near = int64(m["payer"] % shards)
        if int64(m["payee"] % shards) == far and books.place[near] >= 0 and acked[far, near] < int64(m["sequence"]):
            found[count] = m
            count += 1
    return count


@kernel
def room_needed(books: Books, messages: NDArray[np.void], count: int, needed: NDArray[np.int64]) -> None:
    """Counts messages[:count] by the outbox that `send_on` would put each into."""
    for i in range(count):
        needed[books.owner[int64(messages[i]["payee"] % np.uint32(books.shards))]] += 1


@kernel
def send_on(
    books: Books,
    messages: NDArray[np.void],
    count: int,
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    acked: NDArray[np.int64],
) -> None:
    """Puts those of messages[:count] that are still owed into the outbox to the owner of the shard that they go to, in order."""
    shards = np.uint32(books.shards)
    mask = outbox.shape[1] - 1
    for i in range(count):
        m = messages[i]
        to = int64(m["payee"] % shards)
        origin = int64(m["payer"] % shards)
        if is_backward(m["message"]):
            to, origin = origin, to
        if acked[to, origin] < int64(m["sequence"]):
            row = books.owner[to]
            outbox[row, outbox_head[row] & mask] = m
            outbox_head[row] += 1
