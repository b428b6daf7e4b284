"""The far leg of a transfer at the payee's shard, and the way back of one that the payee's account may not take.

`send_back` and `take_back` change the books as one journal record says; booking writes that record, replay reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.output import fill_entry, write
from simulator.ledger.window import find
from simulator.shard.layout import Leg
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REFUND = int(Kind.REFUND)
_OK, _REJECTED, _NONE, _LIMIT = int(Status.OK), int(Status.REJECTED), int(Reason.NONE), int(Reason.LIMIT)
_PLAIN, _REFUNDABLE = int(State.PLAIN), int(State.REFUNDABLE)
_LEG_CREDIT = int(Leg.CREDIT)


@inlined
def has_room(books: Books, row: int, amount: int) -> bool:
    """Whether an account may take `amount` (above 0) more; asked only where there is a limit."""
    held = books.accounts[row, AVAILABLE] + books.accounts[row, RESERVED]
    if books.incoming.shape[0] > 0:
        held += books.incoming[row]
    return held <= books.limit_minor - amount


@inlined
def credit_here(
    books: Books, journal: NDArray[np.void], marks: NDArray[np.int64], origin: int, shard: int, m: np.void
) -> None:
    """Books the far leg at the payee's shard: Dr transit(origin → here), Cr payee."""
    amount = m["amount_minor"]
    shards = np.uint32(books.shards)
    books.sequence_in[shard, origin] += 1
    books.transit_in[shard, origin] += amount
    books.accounts[books.base[shard] + m["payee"] // shards, AVAILABLE] += amount
    lsn = write(books, journal, marks, shard, _LEG_CREDIT, _NONE, m)
    state = _PLAIN if m["kind"] == _REFUND else _REFUNDABLE
    fill_entry(books, books.place[shard], lsn, _OK, _NONE, state, amount, m)


@inlined
def unrefund(books: Books, place: int, m: np.void) -> None:
    """Takes a refund back that did not come about: its original may be refunded again, if it is still remembered."""
    generation, position = find(books, place, m["related"])
    if generation >= 0:
        original = books.entries[place, generation, position]
        if (
            original["state"] == _REFUNDABLE
            and original["remaining_minor"] <= original["amount_minor"] - m["amount_minor"]
        ):
            original["remaining_minor"] += m["amount_minor"]


@kernel
def send_back(books: Books, shard: int, origin: int, lsn: int, m: np.void) -> None:
    """SEND_BACK, at the payee's shard: Dr transit(origin → here), Cr transit(here → origin). Its id is remembered as refused."""
    books.transit_in[shard, origin] += m["amount_minor"]
    books.transit_out[shard, origin] += m["amount_minor"]
    fill_entry(books, books.place[shard], lsn, _REJECTED, _LIMIT, _PLAIN, 0, m)


@kernel
def take_back(books: Books, shard: int, origin: int, m: np.void) -> None:
    """TAKE_BACK, at the payer's shard: Dr transit(origin → here), Cr payer.

    It cannot be refused, whatever the payer holds by now. What a post had taken from a hold becomes available: the hold is not
    opened again. The first answer, ok, stands.
    """
    books.transit_in[shard, origin] += m["amount_minor"]
    row = books.base[shard] + m["payer"] // np.uint32(books.shards)
    books.accounts[row, AVAILABLE] += m["amount_minor"]
    if m["kind"] == _REFUND:
        unrefund(books, books.place[shard], m)
