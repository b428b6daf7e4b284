"""What passes between two shards of different nodes, apart from a credit that cannot be refused (simulator.ledger.post).

A kernel of its own, called and not pasted in, so that the path of the default protocol stays as short as it was. Each message
leaves one record, because records are what the numbers of messages are rebuilt from, and each record sends at most one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.credit import credit_here, has_room, send_back, take_back
from simulator.ledger.flaws import PoisonError, flaw_at_home, flaw_of_far_leg, is_poisoned
from simulator.ledger.holds import wait_no_more
from simulator.ledger.output import (
    ALARMS,
    FLAW,
    GAPS,
    JOURNAL,
    POISON_FAR,
    REPLIES,
    RETURNED,
    RETURNED_MINOR,
    reply,
    send,
    write,
)  # fmt: skip
from simulator.ledger.tcc import (
    FAR_LEG,
    HOME_LEG,
    Far,
    Home,
    abort,
    begin,
    break_promise,
    commit,
    confirm,
    far_state,
    home_state,
    objection,
    promise,
    refuse_try,
    roll_back,
    status_of_no,
    suspend,
    waits_in_slot,
)  # fmt: skip
from simulator.shard.layout import SENDS, Leg, Message
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.ledger.books import Books

_OK, _REJECTED = int(Status.OK), int(Status.REJECTED)
_NONE, _STATE, _LIMIT, _NODE_DOWN = int(Reason.NONE), int(Reason.STATE), int(Reason.LIMIT), int(Reason.NODE_DOWN)
_DUPLICATE = int(Reason.DUPLICATE)
_POISON, _DEAD = int(Reason.POISON), int(Leg.DEAD)
_BEGIN, _COMMIT, _ABORT, _TRIED, _REFUSED = (
    int(leg) for leg in (Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.TRIED, Leg.REFUSED)
)
_CONFIRMED, _ROLLED_BACK, _SUSPENDED, _PASSED, _ALARM, _SEND_BACK, _TAKE_BACK = (
    int(leg)
    for leg in (
        Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED, Leg.PASSED, Leg.ALARM, Leg.SEND_BACK, Leg.TAKE_BACK,
    )
)  # fmt: skip
_CREDIT, _UNSAFE_CREDIT, _TRY, _CONFIRM, _CANCEL, _VOTE, _RETURN = (
    int(message) for message in Message if message is not Message.REQUEST
)
_POST = int(Kind.POST)
_TRYING_AT_HOME, _OTHER_AT_FAR = int(Home.TRYING), int(Far.OTHER)
# By leg, the message that it sends, 0 for none.
_SENDS = np.array([SENDS.get(Leg(leg), 0) for leg in range(max(Leg) + 1)], np.int64)


@inlined
def is_backward(message: int) -> bool:
    """Whether a message goes from the payee's shard to the payer's."""
    return message == _VOTE or message == _RETURN


@inlined
def leave(
    books: Books, outbox: NDArray[np.void], outbox_head: NDArray[np.int64], shard: int, to: int, leg: int, reason: int, m: np.void
) -> None:  # fmt: skip
    """Sends the message that goes with a record just written at `shard`."""
    books.sequence_out[shard, to] += 1
    send(books, outbox, outbox_head, _SENDS[leg], to, books.sequence_out[shard, to], reason, m)


@kernel
def begin_here(
    books: Books,
    journal: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    shard: int,
    far: int,
    m: np.void,
) -> None:
    """Begins a transfer that its home has nothing against; the client is answered when it is decided."""
    lsn = write(books, journal, marks, shard, _BEGIN, _NONE, m)
    begin(books, shard, lsn, m["slot"], m)
    leave(books, outbox, outbox_head, shard, far, _BEGIN, _NONE, m)


@kernel
def decide_here(
    books: Books,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    shard: int,
    far: int,
    m: np.void,
) -> None:
    """Takes a VOTE: decides, once, and answers the client."""
    place = books.place[shard]
    reason = int64(m["slot"])
    leg = HOME_LEG[home_state(books, place, m["id"]), int64(reason == _NONE)]
    if leg == _PASSED:
        write(books, journal, marks, shard, _PASSED, _NONE, m)
        return
    # The answer's slot is kept here, because a peer that was restarted rebuilds its votes from records, which have none.
    slot = waits_in_slot(books, place, m["id"])
    lsn = write(books, journal, marks, shard, leg, reason, m)
    if leg == _COMMIT:
        commit(books, shard, lsn, m)
        leave(books, outbox, outbox_head, shard, far, _COMMIT, _NONE, m)
        reply(replies, marks, shard, lsn, _OK, _NONE, m)
    else:
        abort(books, shard, lsn, reason, m)  # the other side has nothing to undo
        reply(replies, marks, shard, lsn, status_of_no(reason), reason, m)
    replies[marks[REPLIES] - 1]["slot"] = slot


@kernel
def take_part_here(
    books: Books,
    journal: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    shard: int,
    origin: int,
    m: np.void,
) -> None:
    """Takes a TRY, CONFIRM or CANCEL at the payee's shard, as the table says."""
    state = far_state(books, books.place[shard], m)
    leg = FAR_LEG[state, int64(m["message"])]
    reason = _NONE
    if leg == _TRIED:
        reason = objection(books, shard, m)
        if reason != _NONE:
            leg = _REFUSED
    elif leg == _REFUSED:
        reason = _DUPLICATE if state == _OTHER_AT_FAR else _STATE
    elif leg == _ALARM:
        marks[ALARMS] += 1
    lsn = write(books, journal, marks, shard, leg, reason, m)
    if leg == _TRIED:
        promise(books, shard, lsn, m)
        leave(books, outbox, outbox_head, shard, origin, leg, _NONE, m)
    elif leg == _REFUSED:
        refuse_try(books, shard, lsn, reason, m)
        leave(books, outbox, outbox_head, shard, origin, leg, reason, m)
    elif leg == _CONFIRMED:
        confirm(books, shard, origin, lsn, m)
    elif leg == _ROLLED_BACK:
        roll_back(books, shard, lsn, m)
    elif leg == _SUSPENDED:
        suspend(books, shard, lsn, m)


@kernel
def flaw_of_message(books: Books, origin: int, shard: int, m: np.void) -> int:
    """What keeps a peer's message from being booked at `shard` (Flaw); nothing of it is taken on trust."""
    message = m["message"]
    if message == _CREDIT or message == _UNSAFE_CREDIT or message == _TRY or message == _CONFIRM:
        return flaw_of_far_leg(books, origin, shard, m)
    # A vote that comes after home has aborted takes nothing from anybody.
    yes = message == _VOTE and m["slot"] == _NONE
    commits = yes and home_state(books, books.place[shard], m["id"]) == _TRYING_AT_HOME
    return flaw_at_home(books, origin, shard, commits, message == _RETURN, m)


@kernel
def receive(  # noqa: C901, PLR0911, PLR0912  a kernel is long but straight
    books: Books,
    journal: NDArray[np.void],
    replies: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
    outbox_forgotten: NDArray[np.int64],
    m: np.void,
) -> bool:
    """Takes a message from a peer; False, with nothing done, if its answer finds no room in the outbox now.

    What keeps it from being booked is left in marks[FLAW], and nothing is done either. One already taken is passed over (the
    peer sends again until acknowledged). Needs room for a record and a reply.
    """
    shards = np.uint32(books.shards)
    message = m["message"]
    shard = int64(m["payee"] % shards)
    origin = int64(m["payer"] % shards)
    if is_backward(message):
        shard, origin = origin, shard
    if books.place[shard] < 0:
        marks[GAPS] += 1  # not ours: its sender still has it
        return True
    expected = books.sequence_in[shard, origin] + 1
    sequence = int64(m["sequence"])
    if sequence != expected and message != _UNSAFE_CREDIT:
        if sequence > expected:
            marks[GAPS] += 1
        return True
    peer = books.owner[origin]
    if outbox_head[peer] - outbox_forgotten[peer] >= outbox.shape[1]:
        return False
    if (message == _CREDIT or message == _UNSAFE_CREDIT or message == _TRY) and is_poisoned(m["id"], marks[POISON_FAR]):
        raise PoisonError("the scenario's fault poison")
    flaw = flaw_of_message(books, origin, shard, m)
    if flaw != 0:
        marks[FLAW] = flaw
        return True
    if message == _UNSAFE_CREDIT:
        credit_here(books, journal, marks, origin, shard, m)
        return True
    if message == _CREDIT:
        row = books.base[shard] + int64(m["payee"] // shards)
        if has_room(books, row, m["amount_minor"]):
            credit_here(books, journal, marks, origin, shard, m)
            return True
        books.sequence_in[shard, origin] = expected
        lsn = write(books, journal, marks, shard, _SEND_BACK, _LIMIT, m)
        send_back(books, shard, origin, lsn, m)
        leave(books, outbox, outbox_head, shard, origin, _SEND_BACK, _LIMIT, m)
        return True
    books.sequence_in[shard, origin] = expected
    if message == _RETURN:
        write(books, journal, marks, shard, _TAKE_BACK, _LIMIT, m)
        take_back(books, shard, origin, m)
        marks[RETURNED] += 1
        marks[RETURNED_MINOR] += m["amount_minor"]
    elif message == _VOTE:
        decide_here(books, journal, replies, marks, outbox, outbox_head, shard, origin, m)
    else:
        take_part_here(books, journal, marks, outbox, outbox_head, shard, origin, m)
    return True


@kernel
def bury_message(
    books: Books,
    slots: NDArray[np.void],
    at: int,
    journal: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
) -> int:
    """Ends a message that cannot be booked, slots[at], for good; its number counts as taken.

    Returns the position of its record; -1 if another copy of it was taken meanwhile. A TRY is refused, so its client is told
    that it failed. What is paid already (CONFIRM, RETURN, an unsafe credit) stays on the transit account. A VOTE that the books
    contradict is an alarm: its transfer stays undecided, and its money reserved. Needs room for a record and a message.
    """
    m = slots[at]
    shards = np.uint32(books.shards)
    message = m["message"]
    shard = int64(m["payee"] % shards)
    origin = int64(m["payer"] % shards)
    if is_backward(message):
        shard, origin = origin, shard
    numbered = message != _UNSAFE_CREDIT
    if books.place[shard] < 0 or (numbered and int64(m["sequence"]) != books.sequence_in[shard, origin] + 1):
        return -1
    books.sequence_in[shard, origin] += 1
    if message == _TRY:
        lsn = write(books, journal, marks, shard, _REFUSED, _POISON, m)
        refuse_try(books, shard, lsn, _POISON, m)
        leave(books, outbox, outbox_head, shard, origin, _REFUSED, _POISON, m)
        return lsn
    if message == _VOTE or message == _CANCEL:
        marks[ALARMS] += 1
        if message == _VOTE and m["kind"] == _POST:
            wait_no_more(books, books.place[shard], m["related"])
        return write(books, journal, marks, shard, _ALARM, _POISON, m)
    lsn = write(books, journal, marks, shard, _DEAD, _POISON, m)
    break_promise(books, shard, lsn, m)
    return lsn


@kernel
def abort_undecided(
    books: Books,
    entries: NDArray[np.void],
    start: int,
    journal: NDArray[np.void],
    marks: NDArray[np.int64],
    outbox: NDArray[np.void],
    outbox_head: NDArray[np.int64],
) -> int:
    """After a restart: aborts what was begun and not decided, `entries` (ENTRY) from `start` on, as far as the frame has room.

    Returns how far it came. Clients that ask again are told so. Each has outbox room, which was kept free when it began.
    """
    shards = np.uint32(books.shards)
    for i in range(start, entries.shape[0]):
        if marks[JOURNAL] >= journal.shape[0]:
            return i
        m = entries[i]
        shard = int64(m["payer"] % shards)
        lsn = write(books, journal, marks, shard, _ABORT, _NODE_DOWN, m)
        abort(books, shard, lsn, _NODE_DOWN, m)
        leave(books, outbox, outbox_head, shard, int64(m["payee"] % shards), _ABORT, _NODE_DOWN, m)
    return entries.shape[0]


@kernel
def forget(
    outbox: NDArray[np.void], node: int, forgotten: int, sent: int, acked: NDArray[np.int64], shards: int
) -> int:
    """The new `forgotten` position of one peer's outbox: past every sent message that is durable at its receiver.

    `acked[to, from]` is the last durable sequence; messages of one shard pair stand in order, so the first one that is
    not yet durable stops the walk and nothing behind it is lost sight of.
    """
    mask = outbox.shape[1] - 1
    while forgotten < sent:
        m = outbox[node, forgotten & mask]
        to, origin = m["payee"] % np.uint32(shards), m["payer"] % np.uint32(shards)
        if is_backward(m["message"]):
            to, origin = origin, to
        if acked[to, origin] < int64(m["sequence"]):
            break
        forgotten += 1
    return forgotten
