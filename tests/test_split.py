"""Split accounts: where the parts live, which part a transaction finds, and that together they are the merchant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_model import Asked
from test_ledger import Node, message_of

from simulator.backend.embedded import EmbeddedBackend
from simulator.dispatcher import Dispatcher
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.measure.grid import seconds_grid
from simulator.measure.recorder import Recorder, open_tallies
from simulator.scenario.balancing import Balancer
from simulator.shard.layout import Board, Shape
from simulator.shard.split import (
    Split,
    as_asked,
    booked_account,
    client_account,
    home_of,
    homes,
    parts_of,
    split_of,
    to_booked,
    unsplit,
)
from simulator.shard.worker import Wiring
from simulator.transaction import TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels

CUSTOMERS, MERCHANTS, SHARDS, OPENING = 10, 3, 4, 100


def shape_of(nodes: int, hot: int, ways: int) -> Shape:
    return Shape(nodes, SHARDS, CUSTOMERS, MERCHANTS, OPENING, 256, hot_accounts=hot, hot_split=ways)


# ---- layout and law ----

Size = tuple[int, int, int, int, int]
sizes = st.tuples(
    st.integers(1, 10_000), st.integers(1, 500), st.integers(1, 8), st.integers(0, 30), st.integers(2, 256)
)


def made(size: Size, hot: int) -> tuple[Split, int]:
    """(a split, its nodes)."""
    customers, merchants, nodes, more, ways = size
    shards = min(nodes + more, 256)
    ways = min(ways, shards)
    return split_of(customers, merchants, shards, nodes, min(hot, merchants), ways), nodes


@law
@given(sizes, st.integers(1, 40))
def test_the_parts_of_a_merchant_live_in_as_many_different_shards(size: Size, hot: int) -> None:
    split, _ = made(size, hot)
    everyone = [account for rank in range(split.hot) for account in parts_of(split, rank)]
    assert everyone == list(range(split.clients, split.clients + split.extra))  # behind the merchants, without a gap
    for rank in range(split.hot):
        assert len({account % split.shards for account in parts_of(split, rank)}) == split.ways
        assert {client_account(split, account) for account in parts_of(split, rank)} == {split.customers + rank}


@law
@given(sizes, st.integers(1, 40), st.integers(0, 10**6))
def test_a_payment_finds_a_part_of_its_merchant_in_the_payers_shard_or_on_its_node(
    size: Size, hot: int, who: int
) -> None:
    split, nodes = made(size, hot)
    if split.hot == 0:
        return
    payer = who % split.customers
    rank = who % split.hot
    part = booked_account(split, split.customers + rank, payer)
    assert part in parts_of(split, rank)
    shards = {account % split.shards for account in parts_of(split, rank)}
    if payer % split.shards in shards:
        assert part % split.shards == payer % split.shards
    elif split.ways % nodes == 0 and split.shards % nodes == 0:
        assert part % split.shards % nodes == payer % split.shards % nodes
    assert booked_account(split, payer, split.customers + rank) == payer  # customers are booked on themselves


@pytest.mark.parametrize(("nodes", "shards", "ways"), [(2, 16, 16), (2, 16, 4), (3, 16, 5), (4, 64, 12), (1, 5, 2)])
def test_the_parts_get_even_shares_of_the_payers(nodes: int, shards: int, ways: int) -> None:
    split = split_of(120_000, 10, shards, nodes, 2, ways)
    found = [booked_account(split, split.customers + 1, payer) for payer in range(split.customers)]
    counts = np.bincount(np.array(found) - parts_of(split, 1).start, minlength=ways)
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


@pytest.mark.parametrize("ways", [0, 1])
def test_one_part_is_the_whole(ways: int) -> None:
    split = split_of(100, 10, 4, 2, 3, ways)
    assert (split.hot, split.extra) == (0, 0)
    assert [booked_account(split, account, 5) for account in range(200)] == list(range(200))
    shape = Shape(2, 4, 100, 10, 1, 8, hot_accounts=3, hot_split=ways)
    assert shape.accounts == 110
    assert [client_account(unsplit(4), account) for account in range(200)] == list(range(200))


def test_more_parts_than_shards_and_more_split_merchants_than_merchants_are_refused() -> None:
    with pytest.raises(ValueError, match="5 parts need as many shards; there are 4"):
        split_of(100, 10, 4, 2, 1, 5)
    with pytest.raises(ValueError, match="11 merchants cannot be split; there are 10"):
        Shape(2, 4, 100, 10, 1, 8, hot_accounts=11, hot_split=2)


@law
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=20))
def test_a_batch_is_booked_as_each_of_its_transactions_is_and_reads_back(parties: list[tuple[int, int]]) -> None:
    split = split_of(1_000, 50, 8, 2, 3, 4)
    asked = np.zeros(len(parties), TRANSACTION)
    known = [(a % 1_100, b % 1_100) for a, b in parties]
    asked["payer"], asked["payee"] = np.array(known, np.uint32).T
    asked["id"] = np.arange(1, len(parties) + 1)
    before = asked.copy()
    booked = np.zeros(len(parties) + 3, TRANSACTION)
    to_booked(asked, booked, split)
    assert (asked == before).all()
    booked = booked[: len(parties)]
    found = np.zeros(len(parties), np.int64)
    homes(asked, split, found)
    for row, (payer, payee), home in zip(booked, known, found, strict=True):
        assert (row["payer"], row["payee"]) == (
            booked_account(split, payer, payee),
            booked_account(split, payee, payer),
        )
        assert home == row["payer"] % 8 == home_of(split, payer, payee)
        for booked_on, said in ((row["payer"], payer), (row["payee"], payee)):
            # A number that clients do not know is no account, a sub-account's own number least of all.
            assert (client_account(split, booked_on) == said) == (said < split.clients)
            assert (booked_on >= split.clients + split.extra) == (said >= split.clients)
    kept = booked.copy()
    assert as_asked(booked, unsplit(8)) is booked
    as_asked(booked, split)
    assert (booked == kept).all()


# ---- exactness ----


class Platform:
    """The kernels of a whole platform, asked in the words of its clients."""

    def __init__(self, nodes: int, hot: int, ways: int) -> None:
        self.shape = shape_of(nodes, hot, ways)
        self.split = self.shape.split
        self.nodes = [Node(self.shape, n) for n in range(nodes)]

    def ask(self, asked: Asked) -> tuple[int, int]:
        """(status, reason); what is between the nodes arrives at once."""
        message = message_of(asked)
        booked = np.zeros(1, TRANSACTION)
        to_booked(message, booked, self.split)
        node = self.nodes[int(booked["payer"][0]) % SHARDS % len(self.nodes)]
        assert node.take(booked) == 1
        records, replies = node.collect()
        for record in as_asked(records, self.split):
            if max(asked.payer, asked.payee) < CUSTOMERS + MERCHANTS:
                assert (record["payer"], record["payee"]) == (asked.payer, asked.payee)
        for far, other in enumerate(self.nodes):
            while node.outbox_sent[far] < node.outbox_head[far]:
                at = int(node.outbox_sent[far]) % node.outbox.shape[1]
                other.take(node.outbox[far, at : at + 1])
                other.collect()
                node.outbox_sent[far] += 1
        (reply,) = replies
        return int(reply["status"]), int(reply["reason"])

    def balance(self, account: int) -> tuple[int, int]:
        """(available, reserved) of a booked account."""
        books = self.nodes[account % SHARDS % len(self.nodes)].books
        row = books.accounts[int(books.base[account % SHARDS]) + account // SHARDS]
        return int(row[AVAILABLE]), int(row[RESERVED])

    def balances(self) -> list[tuple[int, int]]:
        """(available, reserved) of each account that clients know, merged from its parts."""
        found = []
        for account in range(CUSTOMERS + MERCHANTS):
            rank = account - CUSTOMERS
            if 0 <= rank < self.split.hot:
                assert self.balance(account) == (0, 0)  # its own number stays empty
                parts = [self.balance(part) for part in parts_of(self.split, rank)]
                found.append((sum(a for a, _ in parts), sum(r for _, r in parts)))
            else:
                found.append(self.balance(account))
        return found


Step = tuple[int, int, int, int]


def asked_in(steps: list[Step], *, merchants_pay: bool) -> list[Asked]:
    """Payments and holds to merchants, refunds, posts and voids in parts and beyond, repeated and changed ids."""
    done: list[Asked] = []
    for what, a, b, c in steps:
        number = len(done) + 1
        merchant = CUSTOMERS + (0, 0, 0, 1, 2)[b % 5]
        payer, payee = a % CUSTOMERS, merchant
        if merchants_pay and c % 4 == 0:
            payer, payee = payee, payer
        amount = (1, 7, 20, 40, 101, 0)[c % 6]
        originals = [old for old in done if old.kind in (Kind.PAYMENT, Kind.POST, Kind.AUTHORIZE)]
        if what < 40 or not originals:
            done.append(Asked(number, Kind.PAYMENT if what < 30 else Kind.AUTHORIZE, payer, payee, amount))
        elif what < 80:
            kind = Kind.REFUND if what < 60 else Kind.POST if what < 72 else Kind.VOID
            old = originals[a % len(originals)]
            part = (old.amount, max(old.amount // 2, 1), old.amount + 1)[c % 3]
            parties = (old.payee, old.payer) if kind == Kind.REFUND else (old.payer, old.payee)
            done.append(Asked(number, kind, *parties, part, old.id))
        elif what < 90:
            done.append(done[a % len(done)])  # once more
        elif what < 95:
            done.append(replace(done[a % len(done)], amount=amount + 1))
        elif what < 98:
            old = done[a % len(done)]
            done.append(Asked(number, Kind.LOOKUP, old.payer, old.payee, 0, old.id))
        else:
            done.append(Asked(number, Kind.PAYMENT, payer, CUSTOMERS + MERCHANTS + a % 9, amount))  # no such account
    return done


words = st.integers(0, 999)
steps_of = st.lists(st.tuples(st.integers(0, 99), words, words, words), min_size=5, max_size=50)
splits = st.sampled_from([(1, 1, 2), (1, 2, 4), (2, 1, 4), (2, 3, 3), (2, 2, 2), (4, 1, 4), (2, 1, 2)])


@law
@given(steps_of, splits)
def test_split_or_not_every_answer_and_every_merged_balance_is_the_same(
    steps: list[Step], layout: tuple[int, int, int]
) -> None:
    nodes, hot, ways = layout
    whole, parts = Platform(nodes, 0, 1), Platform(nodes, hot, ways)
    for asked in asked_in(steps, merchants_pay=False):
        assert parts.ask(asked) == whole.ask(asked), asked
        assert parts.balances() == whole.balances()


@law
@given(steps_of, splits)
def test_a_split_merchant_who_pays_may_lack_the_money_in_one_part_and_nothing_else_differs(
    steps: list[Step], layout: tuple[int, int, int]
) -> None:
    nodes, hot, ways = layout
    whole, parts = Platform(nodes, 0, 1), Platform(nodes, hot, ways)
    for asked in asked_in(steps, merchants_pay=True):
        told, expected = parts.ask(asked), whole.ask(asked)
        if told != expected:
            # The one difference; what comes later follows from it.
            assert (told, expected) == ((Status.REJECTED, Reason.FUNDS), (Status.OK, Reason.NONE))
            assert CUSTOMERS <= asked.payer < CUSTOMERS + hot
            return
        assert parts.balances() == whole.balances()


def test_a_part_that_lacks_the_money_refuses_though_the_others_have_it() -> None:
    # The stated difference, once for certain: two customers of different parts pay, the merchant pays one of them more.
    platform = Platform(2, 1, 4)
    assert platform.ask(Asked(1, Kind.PAYMENT, 0, CUSTOMERS, 20)) == (Status.OK, Reason.NONE)
    assert platform.ask(Asked(2, Kind.PAYMENT, 1, CUSTOMERS, 20)) == (Status.OK, Reason.NONE)
    assert platform.ask(Asked(3, Kind.PAYMENT, CUSTOMERS, 0, 30)) == (Status.REJECTED, Reason.FUNDS)
    assert platform.ask(Asked(4, Kind.REFUND, CUSTOMERS, 0, 20, 1)) == (Status.OK, Reason.NONE)


def test_refunds_alone_never_run_a_part_dry() -> None:
    # Every refund takes back what one payment brought to that very part, so all of them together find their money.
    platform = Platform(2, 1, 4)
    for number in range(1, 101):
        paid = Asked(number, Kind.PAYMENT, number % CUSTOMERS, CUSTOMERS, 1 + number % 7)
        assert platform.ask(paid) == (Status.OK, Reason.NONE)
    for number in range(1, 101):
        back = Asked(1_000 + number, Kind.REFUND, CUSTOMERS, number % CUSTOMERS, 1 + number % 7, number)
        assert platform.ask(back) == (Status.OK, Reason.NONE)
        assert platform.ask(back) == (Status.OK, Reason.NONE)  # repeated: the same answer, once booked
    assert platform.balances() == [(OPENING, 0)] * CUSTOMERS + [(0, 0)] * MERCHANTS


# ---- at the door ----


def test_the_door_books_on_parts_and_leaves_what_the_client_asked_as_it_is() -> None:
    shape = shape_of(2, 1, 4)
    wiring = Wiring(2, 16)
    backend = EmbeddedBackend(shape, wiring, Board(shape))
    asked = np.zeros(20, TRANSACTION)
    asked["id"] = np.arange(1, 21)
    asked["payer"] = np.arange(20) % CUSTOMERS
    asked["payee"] = CUSTOMERS
    before = asked.copy()
    assert backend.offer(1, asked) == 16  # a full ring takes what fits
    taken = np.zeros(20, TRANSACTION)
    assert wiring.requests[1].pop(taken) == 16
    wiring.close()
    assert (asked == before).all()
    assert (taken["id"][:16] == asked["id"][:16]).all()
    assert set(taken["payee"][:16].tolist()) == set(parts_of(shape.split, 0))
    assert (taken["payee"][:16] % SHARDS == taken["payer"][:16] % SHARDS).all()


class _Deaf:
    """Two nodes that take everything and never answer."""

    nodes = 2

    def __init__(self) -> None:
        self.taken: list[tuple[int, NDArray[Any]]] = []
        self.back: list[int] = []

    def owners(self) -> NDArray[np.int64]:
        return np.arange(SHARDS, dtype=np.int64) % 2

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        self.taken.append((node, batch.copy()))
        return len(batch)

    def poll(self, outcomes: NDArray[np.void]) -> int:  # noqa: ARG002  it never has any
        return 0

    def returned(self) -> list[int]:
        back, self.back = self.back, []
        return back

    def wait(self, timeout_s: float) -> None:
        raise AssertionError(timeout_s)


def test_the_dispatcher_asks_the_node_again_that_decides_for_the_part() -> None:
    # A refund's payer is the merchant: its home is the shard of the part, not of the merchant's own number.
    split = shape_of(2, 1, 4).split
    backend = _Deaf()
    dispatcher = Dispatcher(
        backend, Balancer(policy="affinity"), 1, open_tallies(seconds_grid(2), 2, SHARDS), Recorder(2, 2),
        in_flight=64, patience_ns=10**9, write=lambda _: None, split=split,
    )  # fmt: skip
    asked = np.zeros(8, TRANSACTION)
    asked["id"] = np.arange(1, 9)
    asked["kind"] = Kind.REFUND
    asked["payer"], asked["payee"], asked["amount_minor"] = CUSTOMERS, np.arange(8), 1
    dispatcher.release(asked, 0)
    home = {number: home_of(split, CUSTOMERS, number - 1) % 2 for number in range(1, 9)}
    assert {int(i): node for node, batch in backend.taken for i in batch["id"]} == home
    assert set(home.values()) == {0, 1}
    backend.taken.clear()
    backend.back = [1]
    dispatcher.ask_again()
    assert {int(i): node for node, batch in backend.taken for i in batch["id"]} == {
        i: 1 for i, n in home.items() if n == 1
    }
    assert all((batch["payer"] == CUSTOMERS).all() for _, batch in backend.taken)  # in the client's words
