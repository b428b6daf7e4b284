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

_NONE, _TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE = (
    int(leg) for leg in (Leg.NONE, Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE)
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


def sound_legs(kind: int) -> list[list[int]]:
    """The legs that an applied transaction of a kind may have, sorted."""
    if kind == Kind.AUTHORIZE:
        return [[_RESERVE]]
    return [[_RELEASE]] if kind == Kind.VOID else [[_TRANSFER], [_DEBIT, _CREDIT]]


def wrong(rows: list[Any], legs: list[tuple[int, int, int]]) -> str:  # noqa: PLR0911  a table
    """What is wrong with one transaction, of which `legs` (leg, fingerprint, place) stand in the journals.

    A leg `NONE` is a logged refusal. "" if nothing is wrong, "half" for a debit without its credit, "absent" if what its
    client was told stands nowhere.
    """
    if not rows:
        return "invented"
    if len(rows) > 1:
        return "idempotency"
    row = rows[0]
    kind, status = int(row["kind_reason"]) & 7, int(row["status"])
    if kind == Kind.LOOKUP:
        return "invented" if legs else ""
    booked = [leg for leg in legs if leg[0] != _NONE]
    refused = [leg for leg in legs if leg[0] == _NONE]
    if status == Status.UNKNOWN:
        return ""
    if status != Status.OK and booked:
        return "failed_but_applied"
    if status == Status.OK and refused:
        return "idempotency"  # refused once and applied later, or the other way round
    if status == Status.OK:
        return _wrong_in(row, booked, sound_legs(kind))
    if status in (Status.REJECTED, Status.FAILED) and row["lsn"]:
        return _wrong_in(row, refused, [[_NONE]])
    return "idempotency" if refused else ""  # told that it was not decided, and yet it was


def _wrong_in(row: Any, legs: list[tuple[int, int, int]], lawful: list[list[int]]) -> str:  # noqa: ANN401, PLR0911  a table
    kinds = sorted(leg for leg, _, _ in legs)
    prints = {print_ for _, print_, _ in legs}
    if not kinds:
        return "absent"
    if len(set(kinds)) < len(kinds) or (_TRANSFER in kinds and len(kinds) > 1):
        return "duplicated" if len(prints) == 1 else "idempotency"  # the second time with other parameters
    if prints != {int(row["fingerprint"])}:
        return "altered"
    if kinds == [_DEBIT]:
        return "half"
    if kinds == [_DEBIT, _DEAD]:
        return "dead_letter"
    if kinds not in lawful:
        return "torn"
    return "" if all(place == place_of(row) for leg, _, place in legs if leg != _CREDIT) else "phantom"


def place_of(row: Any) -> int:  # noqa: ANN401  one HISTORY row
    """The place in a shard's log that a client was told, as `places` writes it."""
    return (int(row["shard"]) << 32) | int(row["lsn"])
