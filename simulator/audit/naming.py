"""Names what is wrong with single transactions, once sums have shown that something is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.kernel import kernel
from simulator.ledger.digest import bucket_of, fingerprint
from simulator.shard.layout import Leg
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE, _EXPIRE = (
    int(leg) for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_DEAD = int(Leg.DEAD)


@kernel
def in_buckets(ids: NDArray[np.uint64], wanted: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """out[i]: whether ids[i] falls into a wanted bucket."""
    for i in range(ids.shape[0]):
        out[i] = wanted[bucket_of(ids[i])]


@kernel
def fingerprints(records: NDArray[np.void], out: NDArray[np.uint64]) -> None:
    """The fingerprint of what each record booked."""
    for i in range(records.shape[0]):
        r = records[i]
        out[i] = fingerprint(r["id"], r["amount_minor"], r["related"], r["payer"], r["payee"], r["kind"])


def places(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """The place in a shard's log of each history row or record, as one number."""
    places: NDArray[np.int64] = (rows["shard"].astype(np.int64) << 32) | rows["lsn"].astype(np.int64)
    return places


def wrong(rows: list[Any], legs: list[tuple[int, int, int]]) -> str:  # noqa: C901, PLR0911  a table
    """What is wrong with one transaction, of which `legs` (leg, fingerprint, place) were applied.

    "" if nothing, "half" for a debit without its credit, "absent" for none at all.
    """
    if not rows:
        return "invented"
    if len(rows) > 1:
        return "idempotency"
    row = rows[0]
    if int(row["kind_reason"]) & 7 == Kind.LOOKUP:
        return "invented" if legs else ""
    status = int(row["status"])
    if status != Status.OK:
        return "failed_but_applied" if legs and status != Status.UNKNOWN else ""
    kinds = sorted(leg for leg, _, _ in legs)
    if not kinds:
        return "absent"
    if len(set(kinds)) < len(kinds) or (_TRANSFER in kinds and len(kinds) > 1):
        return "duplicated"
    if any(print_ != int(row["fingerprint"]) for _, print_, _ in legs):
        return "altered"
    if kinds == [_DEBIT]:
        return "half"
    if kinds == [_DEBIT, _DEAD]:
        return "dead_letter"
    kind = int(row["kind_reason"]) & 7
    lawful: list[list[int]] = [[_TRANSFER], [_DEBIT, _CREDIT]]
    if kind == Kind.AUTHORIZE:
        lawful = [[_RESERVE]]
    elif kind == Kind.VOID:
        lawful = [[_RELEASE]]
    if kinds not in lawful:
        return "torn"
    told = (int(row["shard"]) << 32) | int(row["lsn"])
    return "" if all(place == told for leg, _, place in legs if leg != _CREDIT) else "phantom"
