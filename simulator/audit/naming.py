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

# Legs that book nothing for a transaction's client: an audit of what became of it passes over them.
SILENT = (Leg.NONE, Leg.EXPIRE, Leg.REFUSED, Leg.SUSPENDED, Leg.PASSED, Leg.ALARM)
# Steps, each of which another one must settle. They set money aside or promise to take it; they pay nobody.
_STEPS = ((Leg.BEGIN, (Leg.COMMIT, Leg.ABORT)), (Leg.TRIED, (Leg.CONFIRMED, Leg.ROLLED_BACK)))
REFUSALS = frozenset({Leg.NONE, Leg.ABORT})  # of which a client is told the position
_ONLY_STEPS = frozenset({Leg.BEGIN, Leg.ABORT, Leg.TRIED, Leg.ROLLED_BACK})
AT_HOME = frozenset({Leg.TRANSFER, Leg.DEBIT, Leg.COMMIT, Leg.RESERVE, Leg.RELEASE})  # stand where the client was told
_MOVED = (
    [Leg.TRANSFER],
    [Leg.DEBIT, Leg.CREDIT],
    [Leg.COMMIT, Leg.CONFIRMED],
    [Leg.DEBIT, Leg.SEND_BACK, Leg.TAKE_BACK],  # lawful: refused at the payee's shard, and given back
)
_HALF = ([Leg.DEBIT], [Leg.COMMIT], [Leg.DEBIT, Leg.SEND_BACK])
_DEAD = ([Leg.DEBIT, Leg.DEAD], [Leg.COMMIT, Leg.DEAD], [Leg.DEBIT, Leg.DEAD, Leg.SEND_BACK])


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


def end_of(legs: list[int]) -> str:  # noqa: PLR0911  a table
    """What the legs of one transaction (without SILENT ones) amount to.

    "moved", "held", "released": applied in full. "none": nothing of it. "undecided": money set aside, and no decision.
    "dead_letter": the far leg could not be booked. "half": a part, which is lawful only while the other is on its way.
    "duplicated", "torn": what must never be.
    """
    paid = sorted(leg for leg in legs if leg not in _ONLY_STEPS)
    if len(set(paid)) < len(paid) or (Leg.TRANSFER in paid and len(paid) > 1):
        return "duplicated"
    open_steps = [legs.count(step) - sum(legs.count(leg) for leg in settles) for step, settles in _STEPS]
    if paid in _HALF:
        return "half"
    if paid in _DEAD:
        return "dead_letter"
    if paid:
        end = {Leg.RESERVE: "held", Leg.RELEASE: "released"}.get(Leg(paid[0])) if len(paid) == 1 else None
        end = end or ("moved" if paid in _MOVED else "torn")
        return end if not any(open_steps) else "torn"
    if open_steps[0] > 0:
        return "undecided"
    if min(open_steps) < 0:
        return "torn"
    return "half" if open_steps[1] else "none"


def wrong(rows: list[Any], legs: list[tuple[int, int, int]]) -> str:
    """What is wrong with one transaction, of which `legs` (leg, fingerprint, place) stand in the journals.

    Of SILENT legs only `NONE` is among them, a logged refusal. "" if nothing is wrong, "half" for a part whose other part may be
    on its way, "absent" if what its client was told stands nowhere.
    """
    if not rows:
        return "invented"
    if len(rows) > 1:
        return "idempotency"
    row = rows[0]
    status = int(row["status"])
    if int(row["kind_reason"]) & 7 == Kind.LOOKUP:
        return "invented" if legs else ""
    if status == Status.UNKNOWN:
        return ""
    return _wrong_success(row, legs) if status == Status.OK else _wrong_no(row, legs)


def _wrong_success(row: Any, legs: list[tuple[int, int, int]]) -> str:  # noqa: ANN401, PLR0911  a table
    if any(leg == Leg.NONE for leg, _, _ in legs):
        return "idempotency"  # refused once and applied later, or the other way round
    end = end_of([leg for leg, _, _ in legs])
    if end in ("none", "undecided") or (end == "half" and all(leg in _ONLY_STEPS for leg, _, _ in legs)):
        return "absent"
    prints = {print_ for _, print_, _ in legs}
    if end == "duplicated":
        return "duplicated" if len(prints) == 1 else "idempotency"  # the second time with other parameters
    if prints != {int(row["fingerprint"])}:
        return "altered"
    if end in ("half", "dead_letter"):
        return end
    if end != {Kind.AUTHORIZE: "held", Kind.VOID: "released"}.get(Kind(int(row["kind_reason"]) & 7), "moved"):
        return "torn"
    return "" if all(place == place_of(row) for leg, _, place in legs if leg in AT_HOME) else "phantom"


def _wrong_no(row: Any, legs: list[tuple[int, int, int]]) -> str:  # noqa: ANN401  a table
    booked = [leg for leg, _, _ in legs if leg != Leg.NONE]
    if any(leg not in _ONLY_STEPS for leg in booked):
        return "failed_but_applied"
    end = end_of(booked)
    if end != "none":
        return "torn" if end == "torn" else "half"
    refused = [leg for leg in legs if leg[0] in REFUSALS]
    if int(row["status"]) not in (Status.REJECTED, Status.FAILED) or not row["lsn"]:
        return "idempotency" if refused else ""  # told that it was not decided, and yet it was
    return _wrong_refusal(row, refused)


def _wrong_refusal(row: Any, refused: list[tuple[int, int, int]]) -> str:  # noqa: ANN401  one HISTORY row
    prints = {print_ for _, print_, _ in refused}
    if not refused:
        return "absent"
    if len(refused) > 1:
        return "duplicated" if len(prints) == 1 else "idempotency"
    if prints != {int(row["fingerprint"])}:
        return "altered"
    return "" if refused[0][2] == place_of(row) else "phantom"


def place_of(row: Any) -> int:  # noqa: ANN401  one HISTORY row
    """The place in a shard's log that a client was told, as `places` writes it."""
    return (int(row["shard"]) << 32) | int(row["lsn"])
