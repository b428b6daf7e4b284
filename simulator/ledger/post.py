"""The kernels that book transactions: requests at the payer's shard (its home, which decides), credits at the payee's.

The default protocol's path is here; what the others need beside it is called from here, in `simulator.ledger.exchange`.

Invariants, checked by the tests in `tests/test_ledger.py` against a plain-Python model:
  * each shard balances: Σ available + Σ reserved + Σ transit_out − Σ transit_in = its opening balance, after every message;
  * available and reserved are never negative;
  * an id is applied at most once while it is remembered, and always answered alike;
  * nothing that needs journal, reply or outbox room starts without that room;
  * an operation is booked as a whole or not at all: what keeps it from being booked (`simulator.ledger.flaws`) is found first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64, kernel, prefetch
from simulator.ledger.books import AVAILABLE, LSN_MAX, RESERVED, Books, State
from simulator.ledger.credit import credit_here, has_room
from simulator.ledger.exchange import begin_here, receive
from simulator.ledger.flaws import INT64_MAX, Flaw, PoisonError, flaw_of_far_leg, flaw_of_request, is_poisoned
from simulator.ledger.holds import note_hold
from simulator.ledger.output import (
    FLAW,
    GAPS,
    JOURNAL,
    POISON_FAR,
    POISON_NEAR,
    REFUSED,
    REPLIES,
    TAKEN,
    fill_entry,
    reply,
    send,
    write,
)  # fmt: skip
from simulator.ledger.tcc import tries_are_full
from simulator.ledger.window import find
from simulator.seeds import mix
from simulator.shard.layout import Leg, Message, Protocol
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AHEAD = 12  # messages between asking for a cache line and using it: about a memory latency

_PAYMENT, _REFUND, _AUTHORIZE, _POST, _VOID, _LOOKUP = (int(k) for k in Kind)
_OK, _REJECTED, _FAILED = int(Status.OK), int(Status.REJECTED), int(Status.FAILED)
_NONE, _FUNDS, _DUPLICATE, _OVERFLOW = int(Reason.NONE), int(Reason.FUNDS), int(Reason.DUPLICATE), int(Reason.OVERFLOW)
_NOT_FOUND, _EXCEEDS, _STATE, _LIMIT = int(Reason.NOT_FOUND), int(Reason.EXCEEDS), int(Reason.STATE), int(Reason.LIMIT)
_ACCOUNT, _AMOUNT, _POISON = int(Reason.ACCOUNT), int(Reason.AMOUNT), int(Reason.POISON)
_LEG_NONE, _LEG_TRANSFER, _LEG_DEBIT, _LEG_RESERVE, _LEG_RELEASE = (
    int(leg) for leg in (Leg.NONE, Leg.TRANSFER, Leg.DEBIT, Leg.RESERVE, Leg.RELEASE)
)
_LEG_DEAD = int(Leg.DEAD)
_REQUEST, _CREDIT, _UNSAFE_CREDIT = int(Message.REQUEST), int(Message.CREDIT), int(Message.UNSAFE_CREDIT)
_LAST_MESSAGE = int(max(Message))
_FLAW_MESSAGE, _FLAW_BALANCE = int(Flaw.MESSAGE), int(Flaw.BALANCE)
_OUTBOX, _TCC = int(Protocol.OUTBOX), int(Protocol.TCC)
_PLAIN, _HELD, _CLOSED, _REFUNDABLE = int(State.PLAIN), int(State.HELD), int(State.CLOSED), int(State.REFUNDABLE)
_POSTING, _TRYING = int(State.POSTING), int(State.TRYING)


@inlined
def related_entry(  # noqa: PLR0911  one line for each refusal
    books: Books, place: int, m: np.void
) -> tuple[int, int, int]:
    """(generation, position, reason): the hold that a post or void names, or the payment that a refund names, and why not if not.

    A hold must have the same parties, a payment the swapped ones.
    """
    generation, position = find(books, place, m["related"])
    if generation < 0:
        return -1, 0, _NOT_FOUND
    entry = books.entries[place, generation, position]
    if m["kind"] == _REFUND:
        if entry["state"] != _REFUNDABLE:
            return -1, 0, _NOT_FOUND
        if entry["payer"] != m["payee"] or entry["payee"] != m["payer"]:
            return -1, 0, _ACCOUNT
    else:
        if entry["kind"] != _AUTHORIZE or entry["status"] != _OK:
            return -1, 0, _NOT_FOUND
        if entry["state"] != _HELD:
            return -1, 0, _LIMIT if entry["state"] == _POSTING else _STATE
        if entry["payer"] != m["payer"] or entry["payee"] != m["payee"]:
            return -1, 0, _ACCOUNT
    if m["amount_minor"] > entry["remaining_minor"]:
        return -1, 0, _EXCEEDS
    return generation, position, _NONE


@inlined
def reject(
    books: Books,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    marks: NDArray[np.int64],
    shard: int,
    reason: int,
    m: np.void,
) -> None:
    """Says no and remembers it in the log, so that this id never succeeds later."""
    lsn = write(books, journal, marks, shard, _LEG_NONE, reason, m)
    fill_entry(books, books.place[shard], lsn, _REJECTED, reason, _PLAIN, 0, m)
    reply(replies, marks, shard, lsn, _REJECTED, reason, m)


@inlined
def request(  # noqa: C901, PLR0911, PLR0912, PLR0915  a kernel is long but straight
    books: Books,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    outbox: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox_head: NDArray[np.int64],
    outbox_forgotten: NDArray[np.int64],
    shard: int,
    m: np.void,
) -> None:
    """Decides and books one request at its home, `shard`, the payer's; or leaves why it cannot be booked in marks[FLAW]."""
    shards = np.uint32(books.shards)
    place = books.place[shard]
    kind = m["kind"]
    amount = m["amount_minor"]
    payer = m["payer"]
    payee = m["payee"]

    if kind == _LOOKUP:
        generation, position = find(books, place, m["related"])
        if generation >= 0 and books.entries[place, generation, position]["payer"] == payer:
            entry = books.entries[place, generation, position]
            if entry["state"] == _TRYING:
                reply(replies, marks, shard, 0, _REJECTED, _STATE, m)  # there is no answer yet
                return
            reply(replies, marks, shard, entry["lsn"], entry["status"], entry["reason"], m)
        else:
            reply(replies, marks, shard, 0, _REJECTED, _NOT_FOUND, m)
        return

    generation, position = find(books, place, m["id"])
    if generation >= 0:
        entry = books.entries[place, generation, position]
        same = (
            entry["amount_minor"] == amount
            and entry["payer"] == payer
            and entry["payee"] == payee
            and entry["kind"] == kind
            and entry["related"] == m["related"]
        )
        if same and entry["state"] == _TRYING:
            entry["remaining_minor"] = m["slot"]  # whoever asked last is answered, when it is decided
        elif same:
            reply(replies, marks, shard, entry["lsn"], entry["status"], entry["reason"], m)
        else:
            reply(replies, marks, shard, 0, _REJECTED, _DUPLICATE, m)
        return

    if is_poisoned(m["id"], marks[POISON_NEAR]):
        raise PoisonError("the scenario's fault poison")

    # Refusals that are not remembered: the platform has no room now, and a later attempt may find it.
    far = payee % shards
    moves = kind == _PAYMENT or kind == _REFUND or kind == _POST
    remote = moves and payee < books.accounts_count and far != shard and books.place[far] < 0
    peer = books.owner[far]
    tried = remote and books.protocol == _TCC
    under_way = outbox_head[peer] - outbox_forgotten[peer] + books.undecided[0]
    if remote and under_way >= outbox.shape[1] >> books.outbox_shift:
        marks[REFUSED] += 1
        reply(replies, marks, shard, 0, _REJECTED, _OVERFLOW, m)
        return
    if books.lsn[shard] >= LSN_MAX or ((tried or kind == _AUTHORIZE) and tries_are_full(books, shard)):
        reply(replies, marks, shard, 0, _REJECTED, _LIMIT, m)
        return

    # Refusals that stand.
    if amount <= 0:
        reject(books, journal, replies, marks, shard, _AMOUNT, m)
        return
    if (
        kind < _PAYMENT
        or kind > _VOID
        or payer >= books.accounts_count
        or payee >= books.accounts_count
        or payer == payee
    ):
        reject(books, journal, replies, marks, shard, _ACCOUNT, m)
        return
    row = books.base[shard] + payer // shards
    if kind == _REFUND or kind == _POST or kind == _VOID:
        generation, position, reason = related_entry(books, place, m)
        if reason == _LIMIT:  # a post of this hold is under way: how it ends decides what may follow
            reply(replies, marks, shard, 0, _REJECTED, _LIMIT, m)
            return
        if generation < 0:
            reject(books, journal, replies, marks, shard, reason, m)
            return
    if kind != _POST and kind != _VOID and books.accounts[row, AVAILABLE] < amount:
        reject(books, journal, replies, marks, shard, _FUNDS, m)
        return
    if (
        books.limit_minor >= 0
        and moves
        and books.place[far] >= 0
        and not has_room(books, books.base[far] + int64(payee // shards), amount)
    ):
        # The payee's balance can be seen from here: whatever the protocol, nothing needs to be sent to be refused.
        reject(books, journal, replies, marks, shard, _LIMIT, m)
        return
    closes = generation >= 0 and books.entries[place, generation, position]["remaining_minor"] == amount
    flaw = flaw_of_request(books, shard, far, row, closes, m)
    if tried and kind != _POST and books.accounts[row, RESERVED] > INT64_MAX - amount:
        flaw = _FLAW_BALANCE
    if flaw != 0:
        marks[FLAW] = flaw
        return
    if tried:
        begin_here(books, journal, marks, outbox, outbox_head, shard, int64(far), m)
        return

    if generation >= 0:
        entry = books.entries[place, generation, position]
        entry["remaining_minor"] -= amount
        if kind != _REFUND and entry["remaining_minor"] == 0:
            entry["state"] = _CLOSED
            books.holds[shard] -= 1

    if kind == _AUTHORIZE:
        books.accounts[row, AVAILABLE] -= amount
        books.accounts[row, RESERVED] += amount
        books.holds[shard] += 1
        lsn = write(books, journal, marks, shard, _LEG_RESERVE, _NONE, m)
        fill_entry(books, place, lsn, _OK, _NONE, _HELD, amount, m)
        note_hold(books, place, m["id"])
    elif kind == _VOID:
        books.accounts[row, RESERVED] -= amount
        books.accounts[row, AVAILABLE] += amount
        lsn = write(books, journal, marks, shard, _LEG_RELEASE, _NONE, m)
        fill_entry(books, place, lsn, _OK, _NONE, _PLAIN, 0, m)
    else:
        books.accounts[row, RESERVED if kind == _POST else AVAILABLE] -= amount
        if far == shard:
            books.accounts[books.base[shard] + payee // shards, AVAILABLE] += amount
            lsn = write(books, journal, marks, shard, _LEG_TRANSFER, _NONE, m)
            fill_entry(books, place, lsn, _OK, _NONE, _PLAIN if kind == _REFUND else _REFUNDABLE, amount, m)
        else:
            books.transit_out[shard, far] += amount
            books.sequence_out[shard, far] += 1
            lsn = write(books, journal, marks, shard, _LEG_DEBIT, _NONE, m)
            fill_entry(books, place, lsn, _OK, _NONE, _PLAIN, 0, m)
            if remote:
                what = _CREDIT if books.protocol == _OUTBOX else _UNSAFE_CREDIT
                send(books, outbox, outbox_head, what, far, books.sequence_out[shard, far], _NONE, m)
            else:
                # Both shards are ours: the two legs share the frame, so they become durable together or not at all.
                credit_here(books, journal, marks, shard, far, m)
    reply(replies, marks, shard, lsn, _OK, _NONE, m)


@inlined
def credit(books: Books, journal: NDArray[np.void], marks: NDArray[np.int64], m: np.void) -> None:
    """Books a credit that a peer sent, or leaves why it cannot be booked in marks[FLAW].

    One already applied is passed over (the peer sends again until acknowledged).
    """
    origin = int64(m["payer"] % np.uint32(books.shards))
    shard = int64(m["payee"] % np.uint32(books.shards))
    if books.place[shard] < 0:
        marks[GAPS] += 1  # not ours: its sender still has it
        return
    expected = books.sequence_in[shard, origin] + 1
    sequence = int64(m["sequence"])
    if sequence == expected:
        if is_poisoned(m["id"], marks[POISON_FAR]):
            raise PoisonError("the scenario's fault poison")
        flaw = flaw_of_far_leg(books, origin, shard, m)
        if flaw != 0:
            marks[FLAW] = flaw
            return
        credit_here(books, journal, marks, origin, shard, m)
    elif sequence > expected:
        marks[GAPS] += 1


@inlined
def look_ahead(books: Books, m: np.void) -> None:
    """Asks for the cache lines that booking `m` will need: with millions of accounts each would be a wait for memory.

    Entries are written one after another, but one row of them a shard: too many streams for the processor to see by itself. Which
    one `m` will get is not known yet; two further on is near enough.
    """
    shards = np.uint32(books.shards)
    near = m["payer"] % shards
    far = m["payee"] % shards
    slot = int64(mix(m["id"]) & np.uint64(books.slots.shape[2] - 1))
    place = books.place[near]
    if place >= 0:
        prefetch(books.accounts, (books.base[near] + int64(m["payer"] // shards), 0))
        prefetch(books.slots, (place, 0, slot))
        prefetch(books.slots, (place, 1, slot))
        prefetch(books.entries, (place, books.current[place], books.used[place, books.current[place]] + 2))
    place = books.place[far]
    if place >= 0:
        prefetch(books.accounts, (books.base[far] + int64(m["payee"] // shards), 0))
        if far != near:
            prefetch(books.slots, (place, books.current[place], slot))  # a far leg is entered, and not looked for
            prefetch(books.entries, (place, books.current[place], books.used[place, books.current[place]] + 2))


@kernel
def apply(  # noqa: C901  a kernel is long but straight
    books: Books,
    slots: NDArray[np.void],
    start: int,
    count: int,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    handed_on: NDArray[np.void],
    outbox: NDArray[np.void],
    marks: NDArray[np.int64],
    handed_on_count: NDArray[np.int64],
    outbox_head: NDArray[np.int64],
    outbox_forgotten: NDArray[np.int64],
) -> int:
    """Books slots[start … start+count) of a power-of-two circle; returns how many it took before room ran out.

    It also stops in front of an operation that cannot be booked: marks[FLAW] then says why, and of that operation nothing was
    changed. If it raises, the same holds for the one behind the marks[TAKEN] that it took.

    Writes records to `journal`, answers to `replies`, requests for shards of other nodes to handed_on[node], far legs for
    other nodes to the circle outbox[node]; `marks` has the first two lengths.
    """
    mask = slots.shape[0] - 1
    marks[FLAW] = 0
    for i in range(count):
        marks[TAKEN] = i
        if i + _AHEAD < count:
            look_ahead(books, slots[(start + i + _AHEAD) & mask])
        if marks[JOURNAL] + 2 > journal.shape[0] or marks[REPLIES] >= replies.shape[0]:
            return i
        m = slots[(start + i) & mask]
        if m["message"] != _REQUEST and m["message"] <= _LAST_MESSAGE:
            if m["message"] == _CREDIT and books.limit_minor < 0:
                credit(books, journal, marks, m)
            elif not receive(books, journal, replies, marks, outbox, outbox_head, outbox_forgotten, m):
                return i
            if marks[FLAW] != 0:
                return i
            continue
        shard = m["payer"] % np.uint32(books.shards)
        if books.place[shard] >= 0:
            if m["message"] == _REQUEST:
                request(books, journal, replies, outbox, marks, outbox_head, outbox_forgotten, shard, m)
            else:
                marks[FLAW] = _FLAW_MESSAGE
            if marks[FLAW] != 0:
                return i
            continue
        node = books.owner[shard]
        if handed_on_count[node] >= handed_on.shape[1]:
            return i
        handed_on[node, handed_on_count[node]] = m
        handed_on_count[node] += 1
    marks[TAKEN] = count
    return count


@kernel
def bury(
    books: Books,
    slots: NDArray[np.void],
    at: int,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    marks: NDArray[np.int64],
) -> int:
    """Ends an operation that cannot be booked, slots[at], for good.

    Returns the position of its record; 0 for a lookup, which has none; -1 if another copy of it was booked meanwhile.

    A request fails: its id is remembered, so that it never succeeds later, and its client is told. A far leg cannot be refused,
    for its debit is durable: its number counts as arrived, so that what comes behind it goes on, and the money stays on the
    transit account. Both are in the log, so a restart agrees. Needs room for one record and one reply.
    """
    m = slots[at]
    shards = np.uint32(books.shards)
    if m["message"] == _CREDIT:
        origin = int64(m["payer"] % shards)
        far = int64(m["payee"] % shards)
        if books.place[far] < 0 or int64(m["sequence"]) != books.sequence_in[far, origin] + 1:
            return -1
        books.sequence_in[far, origin] += 1
        return write(books, journal, marks, far, _LEG_DEAD, _POISON, m)
    shard = int64(m["payer"] % shards)
    place = books.place[shard]
    if m["kind"] == _LOOKUP:
        reply(replies, marks, shard, 0, _FAILED, _POISON, m)
        return 0
    generation, position = find(books, place, m["id"])
    if generation >= 0:
        entry = books.entries[place, generation, position]
        reply(replies, marks, shard, entry["lsn"], entry["status"], entry["reason"], m)
        return -1
    lsn = write(books, journal, marks, shard, _LEG_NONE, _POISON, m)
    fill_entry(books, place, lsn, _FAILED, _POISON, _PLAIN, 0, m)
    reply(replies, marks, shard, lsn, _FAILED, _POISON, m)
    return lsn


@kernel
def refuse(
    books: Books, batch: NDArray[np.void], start: int, stop: int, replies: NDArray[np.void], marks: NDArray[np.int64]
) -> None:
    """Answers positions start … stop of a power-of-two circle with overflow. Needs that much reply room."""
    for i in range(start, stop):
        m = batch[i & (batch.shape[0] - 1)]
        marks[REFUSED] += 1
        reply(replies, marks, m["payer"] % np.uint32(books.shards), 0, _REJECTED, _OVERFLOW, m)
