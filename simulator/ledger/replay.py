"""Rebuilds a node's books from its journal: what a restart does, record by record, in the order they were booked.

Booking and restoring must agree to the last field, including the window of remembered ids, or a client that asks again after a
restart would be told something else than before. One thing starts anew: the term of holds that are still open, counted from
the restart, because the journal does not carry it. `tests/test_recovery.py` holds the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.holds import note_hold
from simulator.ledger.post import fill_entry, send_credit
from simulator.ledger.window import find
from simulator.shard.layout import Leg
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REFUND, _POST, _VOID = int(Kind.REFUND), int(Kind.POST), int(Kind.VOID)
_OK, _REJECTED, _NONE = int(Status.OK), int(Status.REJECTED), int(Reason.NONE)
_LEG_NONE, _LEG_TRANSFER, _LEG_DEBIT, _LEG_CREDIT, _LEG_RESERVE, _LEG_RELEASE, _LEG_EXPIRE = (
    int(leg) for leg in (Leg.NONE, Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_LEG_DEAD, _POISON, _FAILED = int(Leg.DEAD), int(Reason.POISON), int(Status.FAILED)
_PLAIN, _HELD, _CLOSED, _REFUNDABLE = (int(s) for s in State)


@kernel
def restore(  # noqa: C901, PLR0912, PLR0915  a kernel is long but straight
    books: Books, records: NDArray[np.void]
) -> int:
    """Books every record again; returns how many did not fit this node (0 unless the journal is another's)."""
    astray = 0
    shards = np.uint32(books.shards)
    for i in range(records.shape[0]):
        r = records[i]
        shard = int64(r["shard"])
        leg = r["leg"]
        if shard >= books.shards or books.place[shard] < 0 or r["lsn"] != books.lsn[shard] + 1:
            astray += 1
            continue
        place = books.place[shard]
        amount = r["amount_minor"]
        payer_row = books.base[shard] + int64(r["payer"] // shards)
        payee_row = books.base[shard] + int64(r["payee"] // shards)
        far = int64(r["payee"] % shards)
        lsn = books.lsn[shard] + 1
        books.lsn[shard] = lsn
        if leg == _LEG_CREDIT:
            origin = int64(r["payer"] % shards)
            books.sequence_in[shard, origin] += 1
            books.transit_in[shard, origin] += amount
            books.accounts[payee_row, AVAILABLE] += amount
            fill_entry(books, place, lsn, _OK, _NONE, _PLAIN if r["kind"] == _REFUND else _REFUNDABLE, amount, r)
            continue
        if leg == _LEG_DEAD:
            books.sequence_in[shard, int64(r["payer"] % shards)] += 1
            continue
        if leg == _LEG_NONE:
            status = _FAILED if r["reason"] == _POISON else _REJECTED
            fill_entry(books, place, lsn, status, r["reason"], _PLAIN, 0, r)
            continue
        completes = r["kind"] == _REFUND or r["kind"] == _POST or r["kind"] == _VOID or leg == _LEG_EXPIRE
        generation, position = find(books, place, r["id"] if leg == _LEG_EXPIRE else r["related"])
        if completes and generation >= 0:
            entry = books.entries[place, generation, position]
            entry["remaining_minor"] -= amount
            if r["kind"] != _REFUND and entry["remaining_minor"] == 0:
                entry["state"] = _CLOSED
                books.holds[shard] -= 1
        if leg == _LEG_EXPIRE:
            books.accounts[payer_row, RESERVED] -= amount
            books.accounts[payer_row, AVAILABLE] += amount
        elif leg == _LEG_RESERVE:
            books.accounts[payer_row, AVAILABLE] -= amount
            books.accounts[payer_row, RESERVED] += amount
            books.holds[shard] += 1
            fill_entry(books, place, lsn, _OK, _NONE, _HELD, amount, r)
            note_hold(books, place, r["id"])
        elif leg == _LEG_RELEASE:
            books.accounts[payer_row, RESERVED] -= amount
            books.accounts[payer_row, AVAILABLE] += amount
            fill_entry(books, place, lsn, _OK, _NONE, _PLAIN, 0, r)
        else:
            books.accounts[payer_row, RESERVED if r["kind"] == _POST else AVAILABLE] -= amount
            if leg == _LEG_TRANSFER:
                books.accounts[payee_row, AVAILABLE] += amount
                fill_entry(books, place, lsn, _OK, _NONE, _PLAIN if r["kind"] == _REFUND else _REFUNDABLE, amount, r)
            else:
                books.transit_out[shard, far] += amount
                books.sequence_out[shard, far] += 1
                fill_entry(books, place, lsn, _OK, _NONE, _PLAIN, 0, r)
    return astray


@kernel
def refill_outbox(
    books: Books,
    records: NDArray[np.void],
    sequence: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    acked: NDArray[np.int64],
) -> None:
    """Puts far legs that their shard has not acknowledged (`acked[far, near]`) into the outbox again.

    `sequence` counts the messages of each shard pair while the journal is read a second time. The far shard passes over those
    that it had booked all the same. There is room: the ones not acknowledged fitted before.
    """
    shards = np.uint32(books.shards)
    for i in range(records.shape[0]):
        r = records[i]
        if r["leg"] != _LEG_DEBIT:
            continue
        shard = int64(r["shard"])
        far = int64(r["payee"] % shards)
        sequence[shard, far] += 1
        if books.place[far] < 0 and acked[far, shard] < sequence[shard, far]:
            send_credit(books, outbox, outbox_head, sequence[shard, far], far, r)
