"""A digest of booked legs and logged refusals in bounded memory: Σ hash(leg) mod 2¹²⁸ in 4,096 buckets by id.

One digest is kept of what was acknowledged, one of what was applied; they must agree. A sum of 128-bit hashes does not let a
loss and a duplicate cancel, as plain counts do, and a bucket that differs says where to look: listing then needs the ids
of that bucket only. Two different multisets of legs agree by chance with probability 2⁻¹²⁸ a bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, kernel
from simulator.seeds import mix
from simulator.shard.layout import Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUCKETS = 4096

# The sides of a transaction that the digest counts, each once.
SIDE_DEBIT = 1
SIDE_CREDIT = 2
SIDE_RESERVE = 3
SIDE_RELEASE = 4
# Steps that no client sees, each of which another one must take back: added with the first, subtracted with the second.
STEP_BEGUN = 5  # at home: BEGIN, then COMMIT or ABORT
STEP_PROMISED = 6  # at the payee's shard: TRIED, then CONFIRMED or ROLLED_BACK
STEP_RETURNED = 7  # SEND_BACK, then TAKE_BACK
SIDE_REFUSAL = 8  # at home: NONE or ABORT

_NONE, _TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE = (
    int(leg) for leg in (Leg.NONE, Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE)
)
_BEGIN, _COMMIT, _ABORT, _TRIED, _CONFIRMED, _ROLLED_BACK, _SEND_BACK, _TAKE_BACK = (
    int(leg)
    for leg in (
        Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.TRIED, Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SEND_BACK, Leg.TAKE_BACK,
    )
)  # fmt: skip
_AUTHORIZE, _VOID, _LOOKUP = int(Kind.AUTHORIZE), int(Kind.VOID), int(Kind.LOOKUP)


@inlined
def bucket_of(key: np.uint64) -> np.uint64:
    """The bucket of a transaction id."""
    return mix(np.uint64(key) ^ np.uint64(0xA0761D6478BD642F)) >> np.uint64(52)


@inlined
def fingerprint(
    key: np.uint64, amount: np.int64, related: np.uint64, payer: np.uint32, payee: np.uint32, kind: np.uint8
) -> np.uint64:
    """64 bits of everything a client asked for; the same for two requests only if they ask for the same."""
    parties = (np.uint64(payer) << np.uint64(32)) | np.uint64(payee)
    h = mix(np.uint64(key) + np.uint64(0x9E3779B97F4A7C15))
    h = mix(h ^ np.uint64(amount))
    h = mix(h ^ parties)
    return mix(h ^ (np.uint64(related) * np.uint64(8) + np.uint64(kind)))


@inlined
def position(shard: int, lsn: int) -> np.uint64:
    """A place in a shard's log as one number."""
    return (np.uint64(shard) << np.uint64(48)) | np.uint64(lsn)


@inlined
def hash_of_side(key: np.uint64, print_: np.uint64, side: int, place: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The 128-bit hash of one side of a transaction, as (low, high)."""
    low = mix((print_ ^ mix(place)) + np.uint64(side) * np.uint64(0xD6E8FEB86659FD93))
    return low, mix(low ^ np.uint64(0xE7037ED1A0B428DB) ^ np.uint64(key))


@inlined
def add_side(sums: NDArray[np.uint64], key: np.uint64, print_: np.uint64, side: int, place: np.uint64) -> None:
    """Adds the 128-bit hash of one side of a transaction to its bucket.

    `place` is the `position` that its client was told, which is that of the near side; 0 for the far side.
    """
    low, high = hash_of_side(key, print_, side, place)
    bucket = bucket_of(key)
    before = sums[bucket, 0]
    after = before + low
    sums[bucket, 0] = after
    sums[bucket, 1] += high + np.uint64(after < before)


@kernel
def take_step(sums: NDArray[np.uint64], key: np.uint64, print_: np.uint64, step: int, again: bool) -> None:  # noqa: FBT001  a kernel's arguments are positional
    """Adds the hash of a step to its bucket; `again`: subtracts it, because the step that answers it was taken."""
    low, high = hash_of_side(key, print_, step, np.uint64(0))
    bucket = bucket_of(key)
    before = sums[bucket, 0]
    if again:
        sums[bucket, 0] = before - low
        sums[bucket, 1] -= high + np.uint64(before < low)
    else:
        after = before + low
        sums[bucket, 0] = after
        sums[bucket, 1] += high + np.uint64(after < before)


@kernel
def add_exchange(sums: NDArray[np.uint64], key: np.uint64, print_: np.uint64, leg: int, place: np.uint64) -> None:
    """Adds a leg of what passed between two shards of different nodes (`simulator.ledger.exchange`)."""
    if leg == _BEGIN or leg == _COMMIT or leg == _ABORT:
        take_step(sums, key, print_, STEP_BEGUN, leg != _BEGIN)
    if leg == _TRIED or leg == _CONFIRMED or leg == _ROLLED_BACK:
        take_step(sums, key, print_, STEP_PROMISED, leg != _TRIED)
    if leg == _SEND_BACK or leg == _TAKE_BACK:
        take_step(sums, key, print_, STEP_RETURNED, leg != _SEND_BACK)
    if leg == _COMMIT:
        add_side(sums, key, print_, SIDE_DEBIT, place)
    if leg == _ABORT:
        add_side(sums, key, print_, SIDE_REFUSAL, place)
    if leg == _CONFIRMED or leg == _SEND_BACK:
        # Money that was sent back did arrive: what comes after is the platform's own doing.
        add_side(sums, key, print_, SIDE_CREDIT, np.uint64(0))


@inlined
def add_acknowledged(sums: NDArray[np.uint64], key: np.uint64, print_: np.uint64, kind: int, place: np.uint64) -> None:
    """Adds the sides that a transaction of this kind, acknowledged at `place`, must have."""
    if kind == _AUTHORIZE:
        add_side(sums, key, print_, SIDE_RESERVE, place)
    elif kind == _VOID:
        add_side(sums, key, print_, SIDE_RELEASE, place)
    elif kind != _LOOKUP:
        add_side(sums, key, print_, SIDE_DEBIT, place)
        add_side(sums, key, print_, SIDE_CREDIT, np.uint64(0))


@inlined
def add_refused(sums: NDArray[np.uint64], key: np.uint64, print_: np.uint64, kind: int, place: np.uint64) -> None:
    """Adds the refusal of a transaction of this kind that was logged at `place`; a lookup logs nothing of its own."""
    if kind != _LOOKUP:
        add_side(sums, key, print_, SIDE_REFUSAL, place)


@kernel
def add_legs(records: NDArray[np.void], sums: NDArray[np.uint64]) -> None:
    """Adds every client-visible leg and refusal of `records` (RECORD) to `sums` (uint64, shape (BUCKETS, 2))."""
    for i in range(records.shape[0]):
        r = records[i]
        leg = r["leg"]
        key = r["id"]
        print_ = fingerprint(key, r["amount_minor"], r["related"], r["payer"], r["payee"], r["kind"])
        place = position(r["shard"], r["lsn"])
        if leg == _NONE:
            add_side(sums, key, print_, SIDE_REFUSAL, place)
        if leg >= _BEGIN:
            add_exchange(sums, key, print_, leg, place)
            continue
        if leg == _TRANSFER or leg == _DEBIT:
            add_side(sums, key, print_, SIDE_DEBIT, place)
        if leg == _TRANSFER or leg == _CREDIT:
            add_side(sums, key, print_, SIDE_CREDIT, np.uint64(0))
        if leg == _RESERVE:
            add_side(sums, key, print_, SIDE_RESERVE, place)
        if leg == _RELEASE:
            add_side(sums, key, print_, SIDE_RELEASE, place)
