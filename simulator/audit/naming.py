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
_ONLY_STEPS = frozenset({Leg.BEGIN, Leg.ABORT, Leg.TRIED, Leg.ROLLED_BACK})
_AT_HOME = frozenset({Leg.TRANSFER, Leg.DEBIT, Leg.COMMIT, Leg.RESERVE, Leg.RELEASE})  # stand where the client was told
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


def wrong(  # noqa: C901, PLR0911  a table
    rows: list[Any], legs: list[tuple[int, int, int]]
) -> str:
    """What is wrong with one transaction, of which `legs` (leg, fingerprint, place; no SILENT ones) were applied.

    "" if nothing, "half" for a part whose other part may be on its way, "absent" for none at all.
    """
    if not rows:
        return "invented"
    if len(rows) > 1:
        return "idempotency"
    row = rows[0]
    kind, status = int(row["kind_reason"]) & 7, int(row["status"])
    if kind == Kind.LOOKUP:
        return "invented" if legs else ""
    end = end_of([leg for leg, _, _ in legs])
    if status == Status.UNKNOWN:
        return ""
    if status != Status.OK:
        if any(leg not in _ONLY_STEPS for leg, _, _ in legs):
            return "failed_but_applied"
        return {"none": "", "torn": "torn"}.get(end, "half")
    if end in ("none", "undecided") or (end == "half" and all(leg in _ONLY_STEPS for leg, _, _ in legs)):
        return "absent"
    if end == "duplicated":
        return "duplicated"
    if any(print_ != int(row["fingerprint"]) for _, print_, _ in legs):
        return "altered"
    if end == "half":
        return "half"
    if end == "dead_letter":
        return "dead_letter"
    if end != {Kind.AUTHORIZE: "held", Kind.VOID: "released"}.get(Kind(kind), "moved"):
        return "torn"
    told = (int(row["shard"]) << 32) | int(row["lsn"])
    return "" if all(place == told for leg, _, place in legs if leg in _AT_HOME) else "phantom"
