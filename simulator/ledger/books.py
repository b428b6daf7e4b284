"""The books of one node: arrays for the balances, transit accounts and remembered ids of the shards it owns.

`Books` is a NamedTuple of arrays, so that a Numba kernel takes it whole. Index `s` below is a shard number; arrays of one
row per shard are sized for all shards of the platform (they are small), those with a row per account or per remembered
id only for the owned ones.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.shard.layout import NO_LIMIT, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.layout import Shape

AVAILABLE = 0
RESERVED = 1

# Where a peer answers (votes, money sent back), new transfers leave three quarters of each outbox to answers and decisions.
# That is enough that no node ever waits for a peer that waits for it: docs/shards.md has the argument.
_ANSWERED_SHIFT = 2

# A journal record has four bytes for a position. A shard that comes near the end refuses requests with Reason.LIMIT; what is
# left above is for credits, which cannot be refused, and more than all outboxes together can hold.
LSN_MAX = 2**32 - 2**24


class State(IntEnum):
    """What a remembered transaction can still become; see `ENTRY_LIFE_CYCLE`."""

    PLAIN = 0  # nothing more
    HELD = 1  # an authorize with an amount left to post or void
    CLOSED = 2  # an authorize wholly posted or voided
    REFUNDABLE = 3  # the payee's side of a payment or post; `remaining` may be refunded
    # Only with `protocol: tcc`; see simulator.ledger.tcc.
    POSTING = 4  # a hold of which a post is under way: nothing else may be done to it until that is decided
    TRYING = 5  # home: begun and not decided; `remaining_minor` has the slot that waits for the answer
    TRIED = 6  # the payee's shard: promised, and not yet told what to do
    ROLLED_BACK = 7  # the payee's shard: promised, and cancelled
    SUSPENDED = 8  # the payee's shard: cancelled before it was tried


# What may happen to a remembered transaction, and what it is afterwards. Anything not listed is refused with Reason.STATE
# (or NOT_FOUND, where the related id was never such a thing).
ENTRY_LIFE_CYCLE: dict[tuple[State, str], tuple[State, ...]] = {
    (State.HELD, "post"): (State.HELD, State.CLOSED),  # in part, or the rest
    (State.HELD, "void"): (State.HELD, State.CLOSED),
    (State.HELD, "expiry"): (State.CLOSED,),
    (State.REFUNDABLE, "refund"): (State.REFUNDABLE,),  # until nothing remains: then EXCEEDS
    (State.HELD, "try"): (State.POSTING,),  # a post to a shard of another node, under `tcc`
    (State.POSTING, "commit"): (State.HELD, State.CLOSED),
    (State.POSTING, "abort"): (State.HELD,),
}

# One remembered transaction: what its client asked for, what it was told, and what can still be done to it.
ENTRY = np.dtype(
    [
        ("id", "<u8"),
        ("amount_minor", "<i8"),
        ("remaining_minor", "<i8"),
        ("related", "<u8"),
        ("payer", "<u4"),
        ("payee", "<u4"),
        ("lsn", "<u4"),
        ("kind", "u1"),
        ("status", "u1"),
        ("reason", "u1"),
        ("state", "u1"),
    ]
)
assert ENTRY.itemsize == 48, ENTRY.itemsize  # noqa: PLR2004, S101  the memory estimate of `sim check` counts on it


class Books(NamedTuple):
    """The state that the ledger's kernels read and write."""

    node: int
    shards: int
    accounts_count: int
    protocol: int  # layout.Protocol
    limit_minor: int  # what an account may hold; NO_LIMIT: anything
    outbox_shift: int  # new transfers use 1 / 2**shift of an outbox; the rest is for what answers a peer
    accounts: NDArray[np.int64]  # (owned accounts, 2): available, reserved
    base: NDArray[np.int64]  # (s,) row of the shard's first account; -1: not owned
    place: NDArray[np.int64]  # (s,) the shard's place in entries, slots and used; -1: not owned
    owner: NDArray[np.int64]  # (s,) the node that owns the shard
    lsn: NDArray[np.int64]  # (s,) last position written
    holds: NDArray[np.int64]  # (s,) open holds
    tries: NDArray[np.int64]  # (s,) entries TRYING or TRIED: carried over like open holds
    undecided: NDArray[np.int64]  # (1,) entries TRYING, all shards: each needs outbox room for its decision
    incoming: NDArray[np.int64]  # (owned accounts,) promised to take, minor units; empty without `tcc` or a limit
    transit_out: NDArray[np.int64]  # (s, peer) sent from here, minor units, ever
    transit_in: NDArray[np.int64]  # (s, peer) arrived here from the peer, minor units, ever
    sequence_out: NDArray[np.int64]  # (s, peer) last message number sent
    sequence_in: NDArray[np.int64]  # (s, peer) last message number applied
    entries: NDArray[np.void]  # (place, generation, position)
    slots: NDArray[np.uint32]  # (place, generation, hash slot): tag and position + 1; 0: empty
    used: NDArray[np.int64]  # (place, generation) entries in use
    current: NDArray[np.int64]  # (place,) the generation that takes new entries
    carried: NDArray[np.int64]  # (place,) open holds that it began with
    now_ns: NDArray[np.int64]  # (1,) the time that new holds are made at
    hold_ids: NDArray[np.uint64]  # (place, circle) holds in the order they were made, closed ones among them
    hold_made_ns: NDArray[np.int64]  # (place, circle)
    hold_ends: NDArray[np.int64]  # (place, 2) ever-growing positions: the oldest, and one past the newest


# Which part of a field is one shard's: what a move hands over, and a snapshot need not keep of the others.
BY_ACCOUNT = ("accounts",)  # rows from base[s] on
BY_SHARD = ("lsn", "holds", "transit_out", "transit_in", "sequence_out", "sequence_in", "tries")  # row s
BY_PLACE = ("entries", "slots", "used", "current", "carried", "hold_ids", "hold_made_ns", "hold_ends")  # row place[s]
OF_THE_NODE = (
    "node", "shards", "accounts_count", "base", "place", "owner", "now_ns", "protocol", "limit_minor", "outbox_shift",
    "undecided", "incoming",  # only with protocols under which shards do not move
)  # fmt: skip
assert {*BY_ACCOUNT, *BY_SHARD, *BY_PLACE, *OF_THE_NODE} == {*Books._fields}  # noqa: S101  a field left out would stay behind


def rows_of(books: Books, shard: int) -> slice:
    """Where the accounts of a shard stand."""
    first = int(books.base[shard])
    return slice(first, first + (books.accounts_count - shard + books.shards - 1) // books.shards)


def touched(shape: tuple[int, ...], dtype: np.dtype[np.void] | type[np.integer[Any]]) -> NDArray[Any]:
    """A zeroed array whose memory is really there: a first touch in the middle of a run costs up to a millisecond a page."""
    array: NDArray[Any] = np.empty(shape, dtype)
    array.view(np.uint8).fill(0)
    return array


def open_books(shape: Shape, node: int, *, any_shard: bool = False) -> Books:
    """Fresh books for the shards that `node` owns at the start: customers at the opening balance, merchants at 0.

    Memory: 16 bytes an account; for each of `shape.remember` ids in each shard 136 bytes (two entries, four
    index slots, a place in the queue of holds), and up to 48 more with every hold open. With `any_shard` there are
    addresses for every shard of the platform, but memory only for those owned: of the others no page was ever touched.
    """
    owner = shape.owners()
    owned = np.flatnonzero(owner == node)
    housed = np.arange(shape.shards) if any_shard else owned
    rows = np.array([shape.rows(int(s)) for s in housed], np.int64)
    base = np.full(shape.shards, -1, np.int64)
    base[housed] = np.cumsum(rows) - rows
    place = np.full(shape.shards, -1, np.int64)
    place[owned] = owned if any_shard else np.arange(len(owned))
    places = len(housed)
    accounts = np.zeros((int(rows.sum()), 2), np.int64)
    for shard, first in zip(owned, base[owned], strict=True):
        customers = (shape.customers - int(shard) + shape.shards - 1) // shape.shards
        accounts[first : first + max(customers, 0), AVAILABLE] = shape.opening_minor
    # Room for `remember` new ids beside all the open holds that a generation may begin with; only the former is touched.
    entries = np.zeros((places, 2, shape.remember + shape.remember // 2), ENTRY)
    slots = np.zeros((places, 2, 2 * shape.remember), np.uint32)
    hold_ids = np.zeros((places, shape.remember), np.uint64)
    hold_made_ns = np.zeros((places, shape.remember), np.int64)
    for p in place[owned]:
        for part in (
            entries[p, 0, : shape.remember],
            entries[p, 1, : shape.remember],
            slots[p],
            hold_ids[p],
            hold_made_ns[p],
        ):
            part.view(np.uint8).fill(0)
    s = shape.shards
    tcc, limited = shape.protocol == Protocol.TCC, shape.balance_limit_minor != NO_LIMIT
    return Books(
        node=node,
        shards=s,
        accounts_count=shape.accounts,
        protocol=int(shape.protocol),
        limit_minor=shape.balance_limit_minor,
        outbox_shift=_ANSWERED_SHIFT if tcc or limited else 0,
        accounts=accounts,
        base=base,
        place=place,
        owner=owner,
        lsn=np.zeros(s, np.int64),
        holds=np.zeros(s, np.int64),
        tries=np.zeros(s, np.int64),
        undecided=np.zeros(1, np.int64),
        incoming=np.zeros(len(accounts) if tcc and limited else 0, np.int64),
        transit_out=np.zeros((s, s), np.int64),
        transit_in=np.zeros((s, s), np.int64),
        sequence_out=np.zeros((s, s), np.int64),
        sequence_in=np.zeros((s, s), np.int64),
        entries=entries,
        slots=slots,
        used=np.zeros((places, 2), np.int64),
        current=np.zeros(places, np.int64),
        carried=np.zeros(places, np.int64),
        now_ns=np.zeros(1, np.int64),
        hold_ids=hold_ids,
        hold_made_ns=hold_made_ns,
        hold_ends=np.zeros((places, 2), np.int64),
    )
