"""Rebuilds a node's books from its journal: what a restart does, record by record, in the order they were booked.

Booking and restoring must agree to the last field, including the window of remembered ids, or a client that asks again after a
restart would be told something else than before. One thing starts anew: the term of holds that are still open, counted from
the restart, because the journal does not carry it. `tests/test_recovery.py` holds the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.credit import send_back, take_back
from simulator.ledger.holds import note_hold
from simulator.ledger.output import fill_entry, send
from simulator.ledger.tcc import abort, begin, break_promise, commit, confirm, promise, refuse_try, roll_back, suspend
from simulator.ledger.window import find
from simulator.shard.layout import SENDS, Leg
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REFUND, _POST, _VOID = int(Kind.REFUND), int(Kind.POST), int(Kind.VOID)
_OK, _REJECTED, _NONE = int(Status.OK), int(Status.REJECTED), int(Reason.NONE)
_LEG_NONE, _LEG_TRANSFER, _LEG_DEBIT, _LEG_CREDIT, _LEG_RESERVE, _LEG_RELEASE, _LEG_EXPIRE = (
    int(leg) for leg in (Leg.NONE, Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_LEG_DEAD, _POISON, _FAILED = int(Leg.DEAD), int(Reason.POISON), int(Status.FAILED)
_BEGIN, _COMMIT, _ABORT, _TRIED, _REFUSED = (
    int(leg) for leg in (Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.TRIED, Leg.REFUSED)
)
_CONFIRMED, _ROLLED_BACK, _SUSPENDED, _SEND_BACK, _TAKE_BACK = (
    int(leg) for leg in (Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED, Leg.SEND_BACK, Leg.TAKE_BACK)
)
_PLAIN, _HELD, _CLOSED, _REFUNDABLE = int(State.PLAIN), int(State.HELD), int(State.CLOSED), int(State.REFUNDABLE)
_NODE_DOWN = int(Reason.NODE_DOWN)
# By leg, the message that it sends, 0 for none.
_SENDS = np.array([SENDS.get(Leg(leg), 0) for leg in range(max(Leg) + 1)], np.int64)


@inlined
def other_shard(r: np.void, shard: int, shards: int) -> int:
    """Of the two shards of a transfer, the one that `shard` is not."""
    near = int64(r["payer"] % np.uint32(shards))
    return int64(r["payee"] % np.uint32(shards)) if near == shard else near


@inlined
def message_of(leg: int, reason: int) -> int:
    """The message (layout.Message) that left with a record; 0: none."""
    return 0 if leg == _ABORT and reason != _NODE_DOWN else _SENDS[leg]


@kernel
def restore_exchange(  # noqa: C901, PLR0912  a table
    books: Books, shard: int, other: int, lsn: int, r: np.void
) -> None:
    """Books a record of what passed between two shards of different nodes (`simulator.ledger.exchange`) again."""
    leg = r["leg"]
    # An ABORT answers a vote, unless a restart made it: then it is the CANCEL that counts, and no message came in.
    if leg != _BEGIN and not (leg == _ABORT and r["reason"] == _NODE_DOWN):
        books.sequence_in[shard, other] += 1
    if message_of(leg, r["reason"]) != 0:
        books.sequence_out[shard, other] += 1
    if leg == _BEGIN:
        begin(books, shard, lsn, 0, r)
    elif leg == _COMMIT:
        commit(books, shard, lsn, r)
    elif leg == _ABORT:
        abort(books, shard, lsn, int64(r["reason"]), r)
    elif leg == _TRIED:
        promise(books, shard, lsn, r)
    elif leg == _REFUSED:
        refuse_try(books, shard, lsn, int64(r["reason"]), r)
    elif leg == _CONFIRMED:
        confirm(books, shard, other, lsn, r)
    elif leg == _ROLLED_BACK:
        roll_back(books, shard, lsn, r)
    elif leg == _SUSPENDED:
        suspend(books, shard, lsn, r)
    elif leg == _LEG_DEAD:
        break_promise(books, shard, lsn, r)
    elif leg == _SEND_BACK:
        send_back(books, shard, other, lsn, r)
    elif leg == _TAKE_BACK:
        take_back(books, shard, other, r)


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
        if leg > _LEG_EXPIRE:
            restore_exchange(books, shard, other_shard(r, shard, books.shards), lsn, r)
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
    """Puts messages that their shard has not acknowledged (`acked[to, from]`) into the outbox again.

    `sequence` counts the messages of each shard pair while the journal is read a second time. The other shard passes over those
    that it had taken all the same. There is room: the ones not acknowledged fitted before.
    """
    for i in range(records.shape[0]):
        r = records[i]
        what = message_of(r["leg"], r["reason"])
        if what == 0:
            continue
        shard = int64(r["shard"])
        to = other_shard(r, shard, books.shards)
        sequence[shard, to] += 1
        if books.place[to] < 0 and acked[to, shard] < sequence[shard, to]:
            send(books, outbox, outbox_head, what, to, sequence[shard, to], int64(r["reason"]), r)
