"""Follows every refund, post, void and expiry to its original, from the journals alone.

Rules: the original stands in the books, before what refers to it, with the right parties (a refund's are swapped); refunds
together, less those that a far shard sent back, never exceed it, nor do post, void and expiry of a hold together. The kernels
that book keep such counts too; this look shares nothing with them.

Memory is bounded by what refers, not by what is referred to: up to `FOLLOWERS_MAX` records are held at once. If there are
more, they are taken in several sweeps by their original's id, each of which reads the journals twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.audit.id_set import IdSet
from simulator.kernel import int64, kernel
from simulator.seeds import mix
from simulator.shard.layout import RECORD, Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from simulator.audit.findings import Audit

FOLLOWERS_MAX = 1 << 20  # records of refunds, posts, voids and expiries held at once: 40 MiB

_TRANSFER, _DEBIT, _COMMIT, _RESERVE, _RELEASE, _EXPIRE, _TAKE_BACK = (
    int(leg) for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.COMMIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE, Leg.TAKE_BACK)
)
_ARRIVED = tuple(int(leg) for leg in (Leg.TRANSFER, Leg.CREDIT, Leg.CONFIRMED))
_PAYMENT, _REFUND, _POST = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.POST)


@kernel
def find_followers(records: NDArray[np.void], sweep: int, sweeps: int, out: NDArray[np.bool_]) -> int:
    """out[i]: whether records[i] refers to an original of this sweep; returns how many. A far leg never does."""
    found = 0
    for i in range(records.shape[0]):
        r = records[i]
        leg = r["leg"]
        kind = r["kind"]
        refers = leg == _RELEASE or leg == _EXPIRE
        refers |= (leg == _TRANSFER or leg == _DEBIT or leg == _COMMIT) and (kind == _REFUND or kind == _POST)
        refers |= leg == _TAKE_BACK and kind == _REFUND  # it may be made again
        if refers and sweeps > 1:
            original = r["id"] if leg == _EXPIRE else r["related"]
            refers = int64((mix(original) >> np.uint64(33)) % np.uint64(sweeps)) == sweep
        out[i] = refers
        found += refers
    return found


class LifeCycles:
    """Gathers while the journals are replayed (`add`), then judges (`check`)."""

    def __init__(self, most: int = FOLLOWERS_MAX) -> None:
        self._most = most
        self._count = 0
        self._kept: list[NDArray[np.void]] = []

    def add(self, records: NDArray[np.void]) -> None:
        """Notes what refers to an original among some records."""
        found = _followers(records, 0, 1)
        self._count += len(found)
        if self._count <= self._most:
            self._kept.append(found)
        else:
            self._kept.clear()  # too many to hold: `check` sweeps for them

    def check(self, frames: Callable[[], Iterable[NDArray[np.void]]], audit: Audit) -> None:
        """Judges all; `frames` reads the records of all journals."""
        if self._count <= self._most:
            self._judge(_joined(self._kept), frames(), audit)
            return
        sweeps = -(-2 * self._count // self._most)  # hashing is not quite even: half full on average
        for sweep in range(sweeps):
            found = _joined(_followers(records, sweep, sweeps) for records in frames())
            self._judge(found, frames(), audit)

    def _judge(self, followers: NDArray[np.void], frames: Iterable[NDArray[np.void]], audit: Audit) -> None:
        if not len(followers):
            return
        of_hold = followers["leg"] == _EXPIRE
        original = np.where(of_hold, followers["id"], followers["related"])
        wanted = IdSet(original[original != 0])
        there = _joined(wanted.among(records) for records in frames)
        held = there["leg"] == _RESERVE
        arrived = np.isin(there["leg"], _ARRIVED) & np.isin(there["kind"], (_PAYMENT, _POST))
        refunds = followers["kind"] == _REFUND
        orphans = [
            *_compare(followers[refunds], original[refunds], there[arrived], "over_refunded", audit, swapped=True),
            *_compare(followers[~refunds], original[~refunds], there[held], "over_posted", audit, swapped=False),
        ]
        audit.find("orphan", *sorted(set(orphans)))


def _followers(records: NDArray[np.void], sweep: int, sweeps: int) -> NDArray[np.void]:
    mask = np.zeros(len(records), np.bool_)
    find_followers(records, sweep, sweeps, mask)
    return records[mask]


def _joined(parts: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
    every = list(parts)
    return np.concatenate(every) if every else np.zeros(0, RECORD)


def _compare(
    followers: NDArray[np.void], original: NDArray[np.uint64], there: NDArray[np.void], name: str, audit: Audit, *,
    swapped: bool,
) -> Iterator[int]:  # fmt: skip
    """Finds originals of which more was taken than they are worth; yields followers that have no original."""
    if not len(followers):
        return
    if not len(there):
        yield from followers["id"].tolist()
        return
    there = there[np.lexsort((there["lsn"], there["id"]))]
    at = np.minimum(np.searchsorted(there["id"], original), len(there) - 1)
    found = there[at]
    payer, payee = ("payee", "payer") if swapped else ("payer", "payee")
    sound = (found["id"] == original) & (found["payer"] == followers[payer]) & (found["payee"] == followers[payee])
    # In one shard's log it must stand before; shards have no order among each other.
    sound &= (found["shard"] != followers["shard"]) | (found["lsn"] < followers["lsn"])
    taken = np.zeros(len(there), np.int64)
    amount = np.where(followers["leg"] == _TAKE_BACK, -followers["amount_minor"], followers["amount_minor"])
    np.add.at(taken, at[sound], amount[sound])
    audit.find(name, *there["id"][taken > there["amount_minor"]].tolist())
    yield from followers["id"][~sound].tolist()
