"""What cannot be booked is found before anything of it is changed, whatever state the books are in and whatever is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.ledger.books import AVAILABLE, RESERVED, Books, open_books
from simulator.ledger.flaws import INT64_MAX, Flaw, PoisonError, is_poisoned, threshold_of
from simulator.ledger.output import FLAW, JOURNAL, MARKS, POISON_FAR, POISON_NEAR, REPLIES, TAKEN
from simulator.ledger.post import apply, bury
from simulator.shard.layout import RECORD, Leg, Message, Shape
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Node 0 of two has shards 0 and 2; accounts 0 … 7 are customers, 8 … 11 merchants. Account a is in shard a % 4.
SHAPE = Shape(nodes=2, shards=4, customers=8, merchants=4, opening_minor=1_000, remember=64)
ROWS_0 = SHAPE.rows(0)


class Node:
    """The books of node 0 and the rooms around them."""

    def __init__(self) -> None:
        self.books = open_books(SHAPE, 0)
        self.journal = np.zeros(64, RECORD)
        self.replies = np.zeros(64, OUTCOME)
        self.handed_on = np.zeros((2, 64), TRANSACTION)
        self.outbox = np.zeros((2, 64), TRANSACTION)
        self.marks = np.zeros(MARKS, np.int64)
        self.counts = np.zeros((3, 2), np.int64)  # handed on, outbox head, outbox forgotten

    def apply(self, *messages: NDArray[Any]) -> int:
        batch = np.concatenate(
            [*messages, np.zeros((1 << (len(messages) - 1).bit_length()) - len(messages), TRANSACTION)]
        )
        done: int = apply(
            self.books, batch, 0, len(messages), self.journal, self.replies, self.handed_on, self.outbox, self.marks,
            self.counts[0], self.counts[1], self.counts[2],
        )  # fmt: skip
        return done

    def bury(self, message: NDArray[Any]) -> int:
        lsn: int = bury(self.books, message, 0, self.journal, self.replies, self.marks)
        return lsn

    def everything(self) -> list[NDArray[Any]]:
        """A copy of all that an operation could change."""
        arrays = [a for a in self.books if isinstance(a, np.ndarray)]
        return [
            np.copy(a)
            for a in (*arrays, self.journal, self.replies, self.handed_on, self.outbox, self.counts, self.marks[:4])
        ]

    def money(self) -> int:
        """All that is here, in integers that cannot overflow; what peers owe counts as gone, what they sent as come."""
        parts = (self.books.accounts, self.books.transit_out, -self.books.transit_in.astype(object))
        return sum(int(value) for part in parts for value in part.ravel())

    def last_reply(self) -> tuple[int, int, int]:
        reply = self.replies[self.marks[REPLIES] - 1]
        return int(reply["status"]), int(reply["reason"]), int(reply["lsn"])


def message(
    number: int = 1, kind: int = Kind.PAYMENT, payer: int = 0, payee: int = 10, amount: int = 10, **more: int
) -> NDArray[Any]:
    made = np.zeros(1, TRANSACTION)
    made["id"], made["kind"], made["payer"], made["payee"], made["amount_minor"] = number, kind, payer, payee, amount
    for name, value in more.items():
        made[name] = value
    return made


def far_leg(number: int = 1, payer: int = 1, payee: int = 8, sequence: int = 1, **more: Any) -> NDArray[Any]:  # noqa: ANN401  fields of `message`
    return message(number, payer=payer, payee=payee, message=Message.CREDIT, sequence=sequence, **more)


def same(before: list[NDArray[Any]], after: list[NDArray[Any]]) -> bool:
    return all((a == b).all() for a, b in zip(before, after, strict=True))


def with_hold(node: Node) -> Node:
    assert node.apply(message(100, Kind.AUTHORIZE, payer=0, payee=8, amount=50)) == 1
    return node


def spoil(node: Node, what: str) -> NDArray[Any]:  # noqa: C901, PLR0911, PLR0912  a table
    """Brings the books into a state in which the message that is returned cannot be booked."""
    books = node.books
    match what:
        case "own payee's balance":
            books.accounts[books.base[0] + 8 // 4, AVAILABLE] = INT64_MAX - 9
            return message(payee=8)
        case "payee's balance in another shard of this node":
            books.accounts[books.base[2] + 10 // 4, AVAILABLE] = INT64_MAX - 9
            return message(payee=10)
        case "transit out":
            books.transit_out[0, 1] = INT64_MAX - 9
            return message(payee=9)
        case "transit out between own shards":
            books.transit_out[0, 2] = INT64_MAX - 9
            return message(payee=10)
        case "transit in between own shards":
            books.transit_in[2, 0] = INT64_MAX - 9
            return message(payee=10)
        case "positions of the other shard":
            books.lsn[2] = 2**32 - 1
            return message(payee=10)
        case "hold beyond what is reserved":
            with_hold(node).books.accounts[books.base[0], RESERVED] = 9
            return message(kind=Kind.POST, payee=8, related=100)
        case "void beyond what is reserved":
            with_hold(node).books.accounts[books.base[0], RESERVED] = 9
            return message(kind=Kind.VOID, payee=8, related=100)
        case "hold that is not counted":
            with_hold(node).books.holds[0] = 0
            return message(kind=Kind.VOID, payee=8, related=100, amount=50)
        case "reserved overflows":
            books.accounts[books.base[0], RESERVED] = INT64_MAX - 9
            return message(kind=Kind.AUTHORIZE, payee=8)
        case "freed amount overflows":
            with_hold(node).books.accounts[books.base[0], AVAILABLE] = INT64_MAX - 9
            return message(kind=Kind.VOID, payee=8, related=100)
        case "unknown message":
            return message(message=200)
        case "far leg to no account":
            return far_leg(payee=400)
        case "far leg of nothing":
            return far_leg(amount=0)
        case "far leg of a hold":
            return far_leg(kind=Kind.AUTHORIZE)
        case "far leg onto a full account":
            books.accounts[books.base[0] + 8 // 4, AVAILABLE] = INT64_MAX - 9
            return far_leg()
        case "far leg over a full transit account":
            books.transit_in[0, 1] = INT64_MAX - 9
            return far_leg()
        case _:
            books.lsn[0] = 2**32 - 1
            return far_leg()


SPOILT = {
    "own payee's balance": Flaw.BALANCE,
    "payee's balance in another shard of this node": Flaw.BALANCE,
    "transit out": Flaw.TRANSIT,
    "transit out between own shards": Flaw.TRANSIT,
    "transit in between own shards": Flaw.TRANSIT,
    "positions of the other shard": Flaw.POSITIONS,
    "hold beyond what is reserved": Flaw.RESERVED,
    "void beyond what is reserved": Flaw.RESERVED,
    "hold that is not counted": Flaw.HOLDS,
    "reserved overflows": Flaw.BALANCE,
    "freed amount overflows": Flaw.BALANCE,
    "unknown message": Flaw.MESSAGE,
    "far leg to no account": Flaw.ACCOUNT,
    "far leg of nothing": Flaw.AMOUNT,
    "far leg of a hold": Flaw.KIND,
    "far leg onto a full account": Flaw.BALANCE,
    "far leg over a full transit account": Flaw.TRANSIT,
    "far leg at the last position": Flaw.POSITIONS,
}


@pytest.mark.parametrize("what", SPOILT)
def test_each_flaw_is_found_in_front_of_its_operation_and_nothing_is_changed(what: str) -> None:
    node = Node()
    bad = spoil(node, what)
    before = node.everything()
    assert node.apply(bad) == 0
    assert Flaw(int(node.marks[FLAW])) == SPOILT[what]
    assert same(before, node.everything())


def test_every_flaw_has_a_case_here() -> None:
    assert {*SPOILT.values()} == {*Flaw} - {Flaw.NONE}


@pytest.mark.parametrize("what", SPOILT)
def test_what_was_asked_before_is_booked_and_what_comes_behind_waits(what: str) -> None:
    node = Node()
    bad = spoil(node, what)
    good = message(7, payer=2, payee=6)
    assert node.apply(good, bad, message(8, payer=2, payee=6)) == 1
    assert node.marks[TAKEN] == 1
    assert node.apply(message(8, payer=2, payee=6)) == 1


AMOUNTS = st.one_of(st.integers(-5, 60), st.integers(INT64_MAX - 60, INT64_MAX))
BALANCES = st.one_of(st.integers(0, 60), st.integers(INT64_MAX - 60, INT64_MAX))
MESSAGES: st.SearchStrategy[dict[str, int]] = st.builds(
    dict, kind=st.integers(0, 7), payer=st.sampled_from([0, 2, 4, 6, 1, 3]), payee=st.integers(0, 14), amount=AMOUNTS,
    related=st.sampled_from([0, 100]), message=st.sampled_from([Message.REQUEST, Message.CREDIT, 77]),
    sequence=st.integers(0, 3),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    asked=MESSAGES, here=st.lists(BALANCES, min_size=4, max_size=4), out=BALANCES, into=BALANCES,
    left=st.integers(0, 1), held=st.booleans(),
)  # fmt: skip
def test_whatever_is_asked_of_whatever_books_it_is_booked_as_a_whole_or_not_at_all(
    asked: dict[str, int], here: list[int], out: int, into: int, left: int, held: bool  # noqa: FBT001  drawn by hypothesis
) -> None:  # fmt: skip
    node = with_hold(Node()) if held else Node()
    books = node.books
    for row, value in enumerate(here):
        books.accounts[row, row % 2] = value
    books.transit_out[0, :] = out
    books.transit_in[:, 1] = into
    books.holds[0] = left
    before, money = node.everything(), node.money()
    done = node.apply(message(5, **asked))
    if done == 0:
        assert node.marks[FLAW] != 0
        assert same(before, node.everything())
    assert node.money() == money  # each leg moves from one side to the other: nothing is made, nothing wraps
    assert all((array >= 0).all() for array in (books.accounts, books.transit_out, books.transit_in))


def test_what_is_poisoned_raises_out_of_the_kernel_behind_all_that_it_had_booked() -> None:
    node = Node()
    threshold = threshold_of(0.2)
    ids = list(range(1, 200))
    bad = next(i for i in ids if is_poisoned(i, threshold))
    good = [i for i in ids if not is_poisoned(i, threshold)][:3]
    node.marks[POISON_NEAR] = threshold
    with pytest.raises(PoisonError):
        node.apply(*(message(i, amount=1) for i in (*good[:2], bad, good[2])))
    assert node.marks[TAKEN] == node.marks[REPLIES] == 2
    assert (node.replies["id"][:2] == good[:2]).all()


def test_an_id_that_is_known_already_is_answered_and_not_poisoned() -> None:
    node = Node()
    assert node.apply(message(3)) == 1
    node.marks[POISON_NEAR] = node.marks[POISON_FAR] = threshold_of(1)
    assert node.apply(message(3)) == 1
    assert node.last_reply()[0] == Status.OK


def test_a_far_leg_that_has_arrived_already_is_passed_over_and_not_poisoned() -> None:
    node = Node()
    assert node.apply(far_leg()) == 1
    node.marks[POISON_FAR] = threshold_of(1)
    assert node.apply(far_leg()) == 1
    with pytest.raises(PoisonError):
        node.apply(far_leg(number=2, sequence=2))


def test_the_share_of_the_poisoned_is_the_share_asked_for() -> None:
    found = sum(is_poisoned(i, threshold_of(0.01)) for i in range(1, 50_001))
    assert abs(found - 500) < 5 * 500**0.5
    assert is_poisoned(1, threshold_of(1.0))
    assert not any(is_poisoned(i, threshold_of(0.0)) for i in range(1, 1_000))


def test_a_buried_request_fails_for_good() -> None:
    node = Node()
    lsn = node.bury(message(9))
    assert node.last_reply() == (Status.FAILED, Reason.POISON, lsn) == (Status.FAILED, Reason.POISON, 1)
    record = node.journal[0]
    assert (record["id"], record["leg"], record["reason"], record["lsn"]) == (9, Leg.NONE, Reason.POISON, 1)
    assert node.apply(message(9)) == 1
    assert node.last_reply() == (Status.FAILED, Reason.POISON, 1)
    assert node.marks[JOURNAL] == 1


def test_burying_what_another_copy_has_booked_meanwhile_only_repeats_its_answer() -> None:
    node = Node()
    assert node.apply(message(9)) == 1
    told, records = node.last_reply(), int(node.marks[JOURNAL])
    assert node.bury(message(9)) == -1
    assert (node.last_reply(), int(node.marks[JOURNAL])) == (told, records)
    assert node.apply(far_leg()) == 1
    assert node.bury(far_leg()) == -1
    assert int(node.marks[JOURNAL]) == records + 1


def test_a_buried_lookup_is_told_so_and_leaves_no_record() -> None:
    node = Node()
    assert node.bury(message(9, Kind.LOOKUP, related=1)) == 0
    assert node.last_reply() == (Status.FAILED, Reason.POISON, 0)
    assert node.marks[JOURNAL] == 0


def test_a_buried_far_leg_moves_nothing_and_lets_the_next_one_by() -> None:
    node = Node()
    money = node.money()
    assert node.bury(far_leg(payee=400)) == 1
    assert (node.journal[0]["leg"], node.money(), node.marks[REPLIES]) == (Leg.DEAD, money, 0)
    assert node.apply(far_leg(number=2, sequence=2)) == 1
    assert node.books.sequence_in[0, 1] == 2
    assert isinstance(node.books, Books)
