"""Try, confirm, cancel: a transfer between shards of two nodes that the payee's shard may refuse before anything moves.

Home, the payer's shard, reserves the money and asks (TRY); the payee's shard promises or refuses, and says so (VOTE); home
decides, and the record of that decision is the commit point: only then is the client answered and the payee's shard told
(CONFIRM, CANCEL). Nobody waits: what is under way is an entry in the window of each side, carried over like an open hold.

What each side does with each message stands in the two tables below, which the kernels look up. Every message is numbered
and leaves a record, so the channel itself passes over what is sent twice; the rows for messages that say something known are
the second fence, by transaction id.

The functions that take an `lsn` change the books as one journal record says; booking writes that record, replay reads it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.credit import has_room, unrefund
from simulator.ledger.output import fill_entry
from simulator.ledger.window import find, pending_max
from simulator.shard.layout import Leg, Message
from simulator.transaction import Kind, Reason, Status


class Home(IntEnum):
    """Where a transfer stands at the payer's shard."""

    ABSENT = 0  # not known (any more)
    TRYING = 1
    DECIDED = 2  # committed or aborted; also an id that never was a try


class Far(IntEnum):
    """Where it stands at the payee's."""

    ABSENT = 0
    TRIED = 1
    COMMITTED = 2
    ROLLED_BACK = 3
    SUSPENDED = 4
    REFUSED = 5
    OTHER = 6  # the id is known, but as something else: of another payer, to another payee, or of another amount


# What a message makes of a transfer, and the record that it leaves; every pair is listed. ALARM: must never come, and is
# written down and not obeyed.
HOME_LIFE_CYCLE: dict[tuple[Home, bool], tuple[Home, Leg]] = {  # by whether the VOTE is yes
    (Home.TRYING, True): (Home.DECIDED, Leg.COMMIT),
    (Home.TRYING, False): (Home.DECIDED, Leg.ABORT),
    # Home was restarted and aborted; the vote was on its way. Its CANCEL is too.
    (Home.DECIDED, True): (Home.DECIDED, Leg.PASSED),
    (Home.DECIDED, False): (Home.DECIDED, Leg.PASSED),
    (Home.ABSENT, True): (Home.ABSENT, Leg.PASSED),
    (Home.ABSENT, False): (Home.ABSENT, Leg.PASSED),
}
FAR_LIFE_CYCLE: dict[tuple[Far, Message], tuple[Far, Leg]] = {
    (Far.ABSENT, Message.TRY): (Far.TRIED, Leg.TRIED),  # or REFUSED, for want of room in the account or among the tries
    (Far.TRIED, Message.TRY): (Far.TRIED, Leg.PASSED),  # has voted, and the vote is delivered until it is acknowledged
    # An id that is over is not tried again, and whoever tries it is told so.
    (Far.COMMITTED, Message.TRY): (Far.COMMITTED, Leg.REFUSED),
    (Far.ROLLED_BACK, Message.TRY): (Far.ROLLED_BACK, Leg.REFUSED),
    (Far.SUSPENDED, Message.TRY): (Far.SUSPENDED, Leg.REFUSED),
    (Far.REFUSED, Message.TRY): (Far.REFUSED, Leg.REFUSED),
    (Far.TRIED, Message.CONFIRM): (Far.COMMITTED, Leg.CONFIRMED),
    (Far.COMMITTED, Message.CONFIRM): (Far.COMMITTED, Leg.PASSED),  # acknowledged again
    (Far.ABSENT, Message.CONFIRM): (Far.ABSENT, Leg.ALARM),
    (Far.ROLLED_BACK, Message.CONFIRM): (Far.ROLLED_BACK, Leg.ALARM),
    (Far.SUSPENDED, Message.CONFIRM): (Far.SUSPENDED, Leg.ALARM),
    (Far.REFUSED, Message.CONFIRM): (Far.REFUSED, Leg.ALARM),
    (Far.TRIED, Message.CANCEL): (Far.ROLLED_BACK, Leg.ROLLED_BACK),
    (Far.ABSENT, Message.CANCEL): (Far.SUSPENDED, Leg.SUSPENDED),
    (Far.ROLLED_BACK, Message.CANCEL): (Far.ROLLED_BACK, Leg.PASSED),
    (Far.SUSPENDED, Message.CANCEL): (Far.SUSPENDED, Leg.PASSED),
    (Far.REFUSED, Message.CANCEL): (Far.REFUSED, Leg.PASSED),  # home was restarted before the refusal arrived
    (Far.COMMITTED, Message.CANCEL): (Far.COMMITTED, Leg.ALARM),
    # What one home does with an id is nothing to another's transfer of the same id, which stays as it is.
    (Far.OTHER, Message.TRY): (Far.OTHER, Leg.REFUSED),
    (Far.OTHER, Message.CONFIRM): (Far.OTHER, Leg.ALARM),
    (Far.OTHER, Message.CANCEL): (Far.OTHER, Leg.PASSED),  # its home was restarted before the refusal arrived
}
# The same as arrays, for the kernels: the leg, by state and message (or vote).
HOME_LEG = np.array([[HOME_LIFE_CYCLE[home, yes][1] for yes in (False, True)] for home in Home], np.int64)
FAR_LEG = np.array(
    [[FAR_LIFE_CYCLE.get((far, message), (far, Leg.ALARM))[1] for message in Message] for far in Far], np.int64
)

_REFUND, _POST = int(Kind.REFUND), int(Kind.POST)
_PENDING, _OK, _REJECTED, _FAILED = (
    int(status) for status in (Status.PENDING, Status.OK, Status.REJECTED, Status.FAILED)
)
_NONE, _LIMIT, _NODE_DOWN, _POISON = (
    int(reason) for reason in (Reason.NONE, Reason.LIMIT, Reason.NODE_DOWN, Reason.POISON)
)
_PLAIN, _HELD, _CLOSED, _REFUNDABLE = int(State.PLAIN), int(State.HELD), int(State.CLOSED), int(State.REFUNDABLE)
_POSTING, _TRYING, _TRIED = int(State.POSTING), int(State.TRYING), int(State.TRIED)
_ROLLED_BACK, _SUSPENDED = int(State.ROLLED_BACK), int(State.SUSPENDED)
_HOME_ABSENT, _HOME_TRYING, _HOME_DECIDED = (int(home) for home in Home)
_FAR_ABSENT, _FAR_TRIED, _FAR_COMMITTED, _FAR_ROLLED_BACK, _FAR_SUSPENDED, _FAR_REFUSED, _FAR_OTHER = (
    int(far) for far in Far
)


@kernel
def tries_are_full(books: Books, shard: int) -> bool:
    """Whether a shard may take no more holds or tries."""
    return books.holds[shard] + books.tries[shard] >= pending_max(books)


@inlined
def home_state(books: Books, place: int, key: np.uint64) -> int:
    """Where a transfer stands at home (Home)."""
    generation, position = find(books, place, key)
    if generation < 0:
        return _HOME_ABSENT
    return _HOME_TRYING if books.entries[place, generation, position]["state"] == _TRYING else _HOME_DECIDED


@inlined
def far_state(books: Books, place: int, m: np.void) -> int:
    """Where a transfer stands at the payee's shard (Far)."""
    generation, position = find(books, place, m["id"])
    if generation < 0:
        return _FAR_ABSENT
    entry = books.entries[place, generation, position]
    if entry["payer"] != m["payer"] or entry["payee"] != m["payee"] or entry["amount_minor"] != m["amount_minor"]:
        return _FAR_OTHER
    if entry["state"] == _TRIED:
        return _FAR_TRIED
    if entry["state"] == _ROLLED_BACK:
        return _FAR_ROLLED_BACK
    if entry["state"] == _SUSPENDED:
        return _FAR_SUSPENDED
    return _FAR_COMMITTED if entry["status"] == _OK else _FAR_REFUSED


@inlined
def conclude(
    books: Books, place: int, lsn: int, status: int, reason: int, state: int, remaining: int, m: np.void
) -> None:
    """Settles the pending entry of `m`. From here on it is remembered as if it were new: its answer was not known before."""
    generation, position = find(books, place, m["id"])
    entry = books.entries[place, generation, position]
    if generation == books.current[place]:
        entry["remaining_minor"] = remaining
        entry["lsn"] = lsn
        entry["status"] = status
        entry["reason"] = reason
        entry["state"] = state
    else:
        entry["state"] = _PLAIN  # not pending any more, so not carried over; the new one is found first
        fill_entry(books, place, lsn, status, reason, state, remaining, m)


# At home.


@kernel
def begin(books: Books, shard: int, lsn: int, slot: int, m: np.void) -> None:
    """BEGIN: sets the payer's money aside, unless a hold has it already. `slot` is where the client waits."""
    place = books.place[shard]
    amount = m["amount_minor"]
    if m["kind"] != _POST:
        row = books.base[shard] + m["payer"] // np.uint32(books.shards)
        books.accounts[row, AVAILABLE] -= amount
        books.accounts[row, RESERVED] += amount
    if m["kind"] == _POST or m["kind"] == _REFUND:
        generation, position = find(books, place, m["related"])
        if generation >= 0:
            original = books.entries[place, generation, position]
            if m["kind"] == _POST:
                original["state"] = _POSTING
            else:
                original["remaining_minor"] -= amount
    books.tries[shard] += 1
    books.undecided[0] += 1
    fill_entry(books, place, lsn, _PENDING, _NONE, _TRYING, slot, m)


@kernel
def commit(books: Books, shard: int, lsn: int, m: np.void) -> None:
    """COMMIT: reserved → transit. The transfer is TRYING."""
    place = books.place[shard]
    shards = np.uint32(books.shards)
    amount = m["amount_minor"]
    books.accounts[books.base[shard] + m["payer"] // shards, RESERVED] -= amount
    books.transit_out[shard, m["payee"] % shards] += amount
    if m["kind"] == _POST:
        generation, position = find(books, place, m["related"])
        hold = books.entries[place, generation, position]
        hold["remaining_minor"] -= amount
        if hold["remaining_minor"] == 0:
            hold["state"] = _CLOSED
            books.holds[shard] -= 1
        else:
            hold["state"] = _HELD
    books.tries[shard] -= 1
    books.undecided[0] -= 1
    conclude(books, place, lsn, _OK, _NONE, _PLAIN, 0, m)


@inlined
def status_of_no(reason: int) -> int:
    """What the client is told of a transfer that was aborted for this reason."""
    return _FAILED if reason == _POISON else _REJECTED


@kernel
def abort(books: Books, shard: int, lsn: int, reason: int, m: np.void) -> None:
    """ABORT: everything is as if it had not begun. The transfer is TRYING."""
    place = books.place[shard]
    amount = m["amount_minor"]
    if m["kind"] == _POST:
        generation, position = find(books, place, m["related"])
        books.entries[place, generation, position]["state"] = _HELD
    else:
        row = books.base[shard] + m["payer"] // np.uint32(books.shards)
        books.accounts[row, RESERVED] -= amount
        books.accounts[row, AVAILABLE] += amount
        if m["kind"] == _REFUND:
            unrefund(books, place, m)
    books.tries[shard] -= 1
    books.undecided[0] -= 1
    conclude(books, place, lsn, status_of_no(reason), reason, _PLAIN, 0, m)


@kernel
def waits_in_slot(books: Books, place: int, key: np.uint64) -> int:
    """The slot in which the client of a TRYING transfer waits."""
    generation, position = find(books, place, key)
    return int64(books.entries[place, generation, position]["remaining_minor"])


# At the payee's shard.


@inlined
def promise_amount(books: Books, shard: int, amount: int, m: np.void) -> None:
    """Notes what an account is to receive (negative: no longer), where there is a limit."""
    if books.incoming.shape[0] > 0:
        books.incoming[books.base[shard] + m["payee"] // np.uint32(books.shards)] += amount


@kernel
def objection(books: Books, shard: int, m: np.void) -> int:
    """Why a shard does not take a TRY of an id that it does not know (Reason); NONE: it does."""
    if tries_are_full(books, shard):
        return _LIMIT
    row = books.base[shard] + m["payee"] // np.uint32(books.shards)
    if books.limit_minor >= 0 and not has_room(books, row, m["amount_minor"]):
        return _LIMIT
    return _NONE


@kernel
def promise(books: Books, shard: int, lsn: int, m: np.void) -> None:
    """TRIED: ABSENT → TRIED."""
    books.tries[shard] += 1
    promise_amount(books, shard, m["amount_minor"], m)
    fill_entry(books, books.place[shard], lsn, _PENDING, _NONE, _TRIED, 0, m)


@kernel
def refuse_try(books: Books, shard: int, lsn: int, reason: int, m: np.void) -> None:
    """REFUSED: ABSENT → REFUSED; an id that is known stays what it is."""
    place = books.place[shard]
    if find(books, place, m["id"])[0] < 0:
        fill_entry(books, place, lsn, _REJECTED, reason, _PLAIN, 0, m)


@kernel
def confirm(books: Books, shard: int, origin: int, lsn: int, m: np.void) -> None:
    """CONFIRMED: TRIED → COMMITTED, Dr transit(origin → here), Cr payee."""
    amount = m["amount_minor"]
    books.tries[shard] -= 1
    promise_amount(books, shard, -amount, m)
    books.transit_in[shard, origin] += amount
    books.accounts[books.base[shard] + m["payee"] // np.uint32(books.shards), AVAILABLE] += amount
    state = _PLAIN if m["kind"] == _REFUND else _REFUNDABLE
    conclude(books, books.place[shard], lsn, _OK, _NONE, state, amount, m)


@kernel
def roll_back(books: Books, shard: int, lsn: int, m: np.void) -> None:
    """ROLLED_BACK: TRIED → ROLLED_BACK."""
    books.tries[shard] -= 1
    promise_amount(books, shard, -m["amount_minor"], m)
    conclude(books, books.place[shard], lsn, _REJECTED, _NODE_DOWN, _ROLLED_BACK, 0, m)


@kernel
def break_promise(books: Books, shard: int, lsn: int, m: np.void) -> None:
    """DEAD: what was confirmed cannot be booked; its money stays on transit, and nothing is promised any more."""
    if far_state(books, books.place[shard], m) == _FAR_TRIED:
        books.tries[shard] -= 1
        promise_amount(books, shard, -m["amount_minor"], m)
        conclude(books, books.place[shard], lsn, _FAILED, _POISON, _ROLLED_BACK, 0, m)


@kernel
def suspend(books: Books, shard: int, lsn: int, m: np.void) -> None:
    """SUSPENDED: ABSENT → SUSPENDED, as long as the window remembers it."""
    fill_entry(books, books.place[shard], lsn, _REJECTED, _NODE_DOWN, _SUSPENDED, 0, m)
