"""What keeps an operation from being booked, looked for before anything of it is changed: all or nothing for each.

A *refusal* is a lawful answer (no funds, no such account) and is decided in `simulator.ledger.post`. A *flaw* is something that
cannot be true, or that 64 bits cannot hold: booking it would harm other accounts. The kernel stops in front of such an
operation and says which flaw it is; whoever called it sets the operation aside and goes on with its neighbours.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulator.kernel import inlined, int64
from simulator.ledger.books import AVAILABLE, RESERVED, Books
from simulator.seeds import mix
from simulator.transaction import Kind


class Flaw(IntEnum):
    """Why an operation cannot be booked."""

    NONE = 0
    MESSAGE = 1
    ACCOUNT = 2
    AMOUNT = 3
    KIND = 4
    BALANCE = 5
    TRANSIT = 6
    RESERVED = 7
    HOLDS = 8
    POSITIONS = 9


FLAWS = {
    Flaw.MESSAGE: "it is neither a request nor a far leg",
    Flaw.ACCOUNT: "its payee is no account of this platform",
    Flaw.AMOUNT: "its amount is not above 0",
    Flaw.KIND: "its kind moves no money between shards",
    Flaw.BALANCE: "a balance would pass 64 bits",
    Flaw.TRANSIT: "a transit account would pass 64 bits",
    Flaw.RESERVED: "its hold has more left than its account has reserved",
    Flaw.HOLDS: "its shard has a hold and counts none",
    Flaw.POSITIONS: "the positions of a shard's log are used up",
}

INT64_MAX = 2**63 - 1
_LSN_LAST = 2**32 - 1  # a journal record has four bytes for it
_SALT = 0x5851F42D4C957F2D  # so that which ids are poisoned has nothing to do with where their accounts and buckets are

_NONE, _AMOUNT, _KIND, _ACCOUNT = int(Flaw.NONE), int(Flaw.AMOUNT), int(Flaw.KIND), int(Flaw.ACCOUNT)
_BALANCE, _TRANSIT, _RESERVED, _HOLDS = int(Flaw.BALANCE), int(Flaw.TRANSIT), int(Flaw.RESERVED), int(Flaw.HOLDS)
_POSITIONS = int(Flaw.POSITIONS)
_PAYMENT, _REFUND, _AUTHORIZE, _POST, _VOID = (
    int(kind) for kind in (Kind.PAYMENT, Kind.REFUND, Kind.AUTHORIZE, Kind.POST, Kind.VOID)
)


class PoisonError(Exception):
    """Raised out of the booking of an operation that a scenario's fault `poison` has picked."""


def threshold_of(share: float) -> int:
    """What a hashed id must be below for `share` (0 … 1) of all ids; 0: none."""
    return min(int(share * 2**63), INT64_MAX)


@inlined
def is_poisoned(key: int, threshold: int) -> bool:
    """Whether this id is among those that a fault has picked; the same ids for the same threshold, whatever the run."""
    return threshold > 0 and int64(mix(np.uint64(key) ^ np.uint64(_SALT)) >> np.uint64(1)) < threshold


@inlined
def flaw_of_credit(books: Books, origin: int, shard: int, payee: int, amount: int) -> int:
    """What keeps an amount from transit(origin → shard) from its payee there."""
    if payee >= books.accounts_count:
        return _ACCOUNT
    if books.transit_in[shard, origin] > INT64_MAX - amount:
        return _TRANSIT
    if books.accounts[books.base[shard] + payee // books.shards, AVAILABLE] > INT64_MAX - amount:
        return _BALANCE
    if books.lsn[shard] >= _LSN_LAST:
        return _POSITIONS
    return _NONE


@inlined
def flaw_of_far_leg(books: Books, origin: int, shard: int, m: np.void) -> int:
    """What keeps a peer's credit from being booked; it has been through a ring, so nothing of it is taken on trust."""
    kind = m["kind"]
    if m["amount_minor"] <= 0:
        return _AMOUNT
    if kind != _PAYMENT and kind != _REFUND and kind != _POST:
        return _KIND
    return flaw_of_credit(books, origin, shard, int64(m["payee"]), m["amount_minor"])


@inlined
def flaw_at_home(  # noqa: PLR0911  one line for each
    books: Books, origin: int, shard: int, commits: bool, returns: bool, m: np.void  # noqa: FBT001  a kernel knows no keywords
) -> int:  # fmt: skip
    """What keeps a peer's answer to a transfer (a vote, money that comes back) from being booked at the payer's shard.

    `commits`: money leaves what is reserved. `returns`: it comes from transit(origin → shard).
    """
    amount = m["amount_minor"]
    payer = int64(m["payer"])
    if amount <= 0:
        return _AMOUNT
    if payer >= books.accounts_count:
        return _ACCOUNT
    if books.lsn[shard] >= _LSN_LAST:
        return _POSITIONS
    row = books.base[shard] + payer // books.shards
    if commits and books.accounts[row, RESERVED] < amount:
        return _RESERVED
    if commits and books.transit_out[shard, origin] > INT64_MAX - amount:
        return _TRANSIT
    if returns and books.transit_in[shard, origin] > INT64_MAX - amount:
        return _TRANSIT
    return _BALANCE if returns and books.accounts[row, AVAILABLE] > INT64_MAX - amount else _NONE


@inlined
def flaw_of_request(  # noqa: PLR0911  one line for each
    books: Books, shard: int, far: int, row: int, closes: bool, m: np.void  # noqa: FBT001  a kernel knows no keywords
) -> int:  # fmt: skip
    """What keeps a request that is not refused from being booked at its home.

    `row` is the payer's; `closes`: a hold has nothing left after it.
    """
    kind = m["kind"]
    amount = m["amount_minor"]
    if kind == _POST or kind == _VOID:
        if books.accounts[row, RESERVED] < amount:
            return _RESERVED
        if closes and books.holds[shard] <= 0:
            return _HOLDS
    if kind == _AUTHORIZE:
        return _BALANCE if books.accounts[row, RESERVED] > INT64_MAX - amount else _NONE
    if kind == _VOID:
        return _BALANCE if books.accounts[row, AVAILABLE] > INT64_MAX - amount else _NONE
    payee = int64(m["payee"])
    if far == shard:
        payee_row = books.base[shard] + payee // books.shards
        return _BALANCE if books.accounts[payee_row, AVAILABLE] > INT64_MAX - amount else _NONE
    if books.transit_out[shard, far] > INT64_MAX - amount:
        return _TRANSIT
    if books.place[far] >= 0:
        return flaw_of_credit(books, shard, far, payee, amount)
    return _NONE
