from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_model import Answer, Asked, Ledger, Replay, changed

from simulator.ledger.books import AVAILABLE, ENTRY_LIFE_CYCLE, LSN_MAX, RESERVED, State, open_books
from simulator.ledger.exchange import forget
from simulator.ledger.output import GAPS, JOURNAL, MARKS, REFUSED, REPLIES
from simulator.ledger.post import apply, refuse
from simulator.shard.layout import RECORD, Leg, Message, Shape
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Step = tuple[int, int, int, int, int]

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels

SHARDS = 4
OPENING = 100
CUSTOMERS, MERCHANTS = 6, 4
# One shard, customers 0 and 1, merchant 2.
ONE_SHARD = Shape(nodes=1, shards=1, customers=2, merchants=1, opening_minor=1_000, remember=8)


def shape_of(nodes: int, remember: int = 256) -> Shape:
    return Shape(nodes, SHARDS, CUSTOMERS, MERCHANTS, OPENING, remember)


def message_of(asked: Asked) -> NDArray[Any]:
    message = np.zeros(1, TRANSACTION)
    message["id"] = asked.id
    message["kind"] = asked.kind
    message["payer"] = asked.payer
    message["payee"] = asked.payee
    message["amount_minor"] = asked.amount
    message["related"] = asked.related
    message["slot"] = slot_of(asked.id)
    message["message"] = Message.REQUEST
    return message


def slot_of(number: int) -> int:
    """A slot that no other field could be mistaken for."""
    return (number * 7_919 + 13) % 2**32


class Node:
    """The kernels' side of one node: books, and rooms of stated sizes around them."""

    def __init__(self, shape: Shape, node: int = 0, *, room: int = 64, outbox: int = 1_024) -> None:
        self.books = open_books(shape, node)
        self.journal = np.zeros(room, RECORD)
        self.replies = np.zeros(room, OUTCOME)
        self.handed_on = np.zeros((shape.nodes, room), TRANSACTION)
        self.handed_on_count = np.zeros(shape.nodes, np.int64)
        self.outbox = np.zeros((shape.nodes, outbox), TRANSACTION)
        self.outbox_head = np.zeros(shape.nodes, np.int64)
        self.outbox_sent = np.zeros(shape.nodes, np.int64)
        self.outbox_forgotten = np.zeros(shape.nodes, np.int64)
        self.marks = np.zeros(MARKS, np.int64)

    def take(self, messages: NDArray[Any]) -> int:
        """Applies messages, of which the kernel may stop early; returns how many it took."""
        circle = np.zeros(1 << max(len(messages) - 1, 0).bit_length(), TRANSACTION)
        start = len(circle) - 1  # so that a batch lies across the circle's seam
        for i, message in enumerate(messages):
            circle[(start + i) % len(circle)] = message
        return int(
            apply(
                self.books, circle, start, len(messages), self.journal, self.replies, self.handed_on, self.outbox,
                self.marks, self.handed_on_count, self.outbox_head, self.outbox_forgotten,
            )
        )  # fmt: skip

    def collect(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(records, replies) since the last time; makes room for more."""
        records = self.journal[: self.marks[JOURNAL]].copy()
        replies = self.replies[: self.marks[REPLIES]].copy()
        self.marks[JOURNAL] = self.marks[REPLIES] = 0
        return records, replies

    def ask(self, asked: Asked) -> tuple[Answer, NDArray[Any]]:
        """(the one answer, the records) of one request that is decided here."""
        assert self.take(message_of(asked)) == 1
        records, replies = self.collect()
        assert len(replies) == 1
        assert (replies["id"][0], replies["slot"][0]) == (asked.id, slot_of(asked.id))
        return answer_of(replies[0]), records

    def state_of(self, number: int) -> State:
        """The state of a remembered id."""
        states = self.books.entries["state"][self.books.entries["id"] == number]
        assert len(states) == 1
        return State(int(states[0]))


def answer_of(reply: Any) -> Answer:  # noqa: ANN401  one OUTCOME; numpy's scalar records are untyped
    return Answer(int(reply["status"]), int(reply["reason"]), int(reply["shard"]), int(reply["lsn"]))


def refused(reason: Reason, *, lsn: int, shard: int = 0) -> Answer:
    return Answer(Status.REJECTED, reason, shard, lsn)


class Platform:
    """Kernels and model side by side: every step is taken by both, and everything is compared after it."""

    def __init__(self, nodes: int, remember: int = 256) -> None:
        self.shape = shape_of(nodes, remember)
        self.model = Ledger(self.shape)
        self.replay = Replay(self.shape)
        self.nodes = [Node(self.shape, n) for n in range(nodes)]
        self.asked: list[Asked] = []
        self.seen: Counter[tuple[int, int]] = Counter()  # (kind, reason)

    def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.step(step)
            self.check()

    def step(self, step: Step) -> None:
        what, a, b, _, d = step
        if what < 82 or not self.asked:
            self.request(self.new_request(step), entry=d % len(self.nodes))
        elif what < 90:
            asked = self.asked[a % len(self.asked)]
            self.request(changed(asked, b % 6, SHARDS), entry=d % len(self.nodes))
        elif len(self.nodes) == 2:
            near = a % 2
            if what < 97:
                self.deliver(near, 1 - near, 1 + b % 3)
            else:
                self.deliver_again(near, 1 - near, b)

    def new_request(self, step: Step) -> Asked:
        what, a, b, c, d = step
        number = len(self.asked) + 1
        if what < 48:
            kind = Kind.PAYMENT if what < 32 else Kind.AUTHORIZE
            amount = (1, 7, 20, 40, 60, 100, 101, 0, -1, -(2**63), 2**63 - 1)[c % 11]
            asked = Asked(number, kind, _party(a), _party(b), amount)
        elif what < 52:
            old = self.asked[a % len(self.asked)] if self.asked else Asked(number, Kind.PAYMENT, 0, 1, 1)
            asked = Asked(number, Kind.LOOKUP, old.payer, old.payee, 0, old.id if b % 5 else 10**9)
        else:
            kind = Kind.REFUND if what < 60 else Kind.POST if what < 72 else Kind.VOID
            fitting = (Kind.PAYMENT, Kind.POST) if kind == Kind.REFUND else (Kind.AUTHORIZE,)
            originals = [old for old in self.asked if old.kind in fitting] if b % 9 else self.asked
            originals = originals or [Asked(10**6, Kind.PAYMENT, _party(a), _party(b), 50)]
            old = originals[a % len(originals)]
            swap = (kind == Kind.REFUND) != (c % 11 == 10)
            payer, payee = (old.payee, old.payer) if swap else (old.payer, old.payee)
            amount = (old.amount, max(old.amount // 2, 1), 1, old.amount + 1, 0)[(0, 0, 0, 1, 1, 1, 2, 2, 3, 4)[d % 10]]
            related = old.id if c % 13 else (0, 10**9, number)[d % 3]
            asked = Asked(number, kind, payer, payee, min(amount, 2**63 - 1), related)
        self.asked.append(asked)
        return asked

    def request(self, asked: Asked, entry: int) -> None:
        home = self.model.node_of(asked.payer)
        message = message_of(asked)
        if entry != home:
            node = self.nodes[entry]
            assert node.take(message) == 1
            assert not any(len(part) for part in node.collect())
            assert node.handed_on_count[home] == 1
            message = node.handed_on[home, :1].copy()
            assert message == message_of(asked)
            node.handed_on_count[home] = 0
        assert self.nodes[home].take(message) == 1
        records, replies = self.nodes[home].collect()
        self.replay.add_all(records)
        assert len(replies) == 1
        assert (replies["id"][0], replies["slot"][0]) == (asked.id, slot_of(asked.id))
        answer = answer_of(replies[0])
        assert answer == self.model.request(asked)
        self.seen[asked.kind, answer.reason] += 1
        for record in records:
            booked = (record["id"], record["kind"], record["payer"], record["payee"], record["amount_minor"])
            assert booked == (asked.id, asked.kind, asked.payer, asked.payee, asked.amount)
            assert (record["related"], record["reason"]) == (asked.related, answer.reason)

    def deliver(self, near: int, far: int, most: int) -> None:
        """Sends a peer what it has not had yet, at most this much."""
        node = self.nodes[near]
        for _ in range(min(most, int(node.outbox_head[far] - node.outbox_sent[far]))):
            message = node.outbox[far, int(node.outbox_sent[far]) % node.outbox.shape[1]]
            records = self.hand_over(far, message)
            assert [Leg(int(leg)) for leg in records["leg"]] == [Leg.CREDIT]
            self.replay.add_all(records)
            self.model.deliver(near, far)
            node.outbox_sent[far] += 1

    def deliver_again(self, near: int, far: int, which: int) -> None:
        """Sends a peer something that it has had already: nothing may come of it."""
        sent = int(self.nodes[near].outbox_sent[far])
        if sent:
            assert len(self.hand_over(far, self.nodes[near].outbox[far, which % sent])) == 0

    def hand_over(self, far: int, message: Any) -> NDArray[Any]:  # noqa: ANN401  one TRANSACTION
        assert self.nodes[far].take(np.array([message], TRANSACTION)) == 1
        records, replies = self.nodes[far].collect()
        assert len(replies) == 0
        return records

    def check(self) -> None:
        for n, node in enumerate(self.nodes):
            assert node.marks[GAPS] == node.marks[REFUSED] == 0
            for shard in range(n, SHARDS, len(self.nodes)):
                self.check_shard(node, shard)

    def check_shard(self, node: Node, shard: int) -> None:
        books = node.books
        first = int(books.base[shard])
        rows = books.accounts[first : first + self.shape.rows(shard)]
        accounts = range(shard, self.shape.accounts, SHARDS)
        opening = OPENING * len(range(shard, CUSTOMERS, SHARDS))
        assert rows.min() >= 0
        assert rows.sum() + books.transit_out[shard].sum() - books.transit_in[shard].sum() == opening
        for want in (self.model, self.replay):
            assert rows[:, AVAILABLE].tolist() == [want.available[a] for a in accounts]
            assert rows[:, RESERVED].tolist() == [want.reserved[a] for a in accounts]
            assert books.transit_out[shard].tolist() == [want.transit_out[shard, peer] for peer in range(SHARDS)]
            assert books.transit_in[shard].tolist() == [want.transit_in[shard, peer] for peer in range(SHARDS)]
        assert books.lsn[shard] == self.model.shards[shard].lsn == self.replay.lsn[shard]
        assert books.holds[shard] == self.model.shards[shard].open_holds


def _party(word: int) -> int:
    """Mostly an account; now and then none, the first one past the end among them."""
    accounts = CUSTOMERS + MERCHANTS
    parties: list[int] = [*range(accounts), *range(CUSTOMERS), accounts, 2**32 - 1]
    return parties[word % len(parties)]


words = st.integers(0, 999)
steps_of = st.lists(st.tuples(st.integers(0, 99), words, words, words, words), min_size=10, max_size=60)


@law
@given(steps_of)
def test_several_shards_on_one_node_do_what_the_model_does(steps: list[Step]) -> None:
    Platform(nodes=1).run(steps)


@law
@given(steps_of)
def test_two_nodes_that_send_each_other_credits_late_and_twice_do_what_the_model_does(steps: list[Step]) -> None:
    Platform(nodes=2).run(steps)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_long_run_meets_every_refusal_and_comes_to_rest_balanced(nodes: int) -> None:
    platform = Platform(nodes, remember=2_048)
    steps = np.random.default_rng(7).integers(0, [100, 1_000, 1_000, 1_000, 1_000], (1_500, 5))
    platform.run((int(w), int(a), int(b), int(c), int(d)) for w, a, b, c, d in steps)
    met = set(platform.seen)
    follow_ups = (Kind.REFUND, Kind.POST, Kind.VOID)
    moves = (Kind.PAYMENT, Kind.AUTHORIZE, *follow_ups)
    every = {
        (kind, reason) for kind in moves for reason in (Reason.NONE, Reason.AMOUNT, Reason.ACCOUNT, Reason.DUPLICATE)
    }
    every |= {(kind, Reason.FUNDS) for kind in (Kind.PAYMENT, Kind.AUTHORIZE, Kind.REFUND)}
    every |= {(kind, reason) for kind in follow_ups for reason in (Reason.NOT_FOUND, Reason.EXCEEDS)}
    every |= {(kind, Reason.STATE) for kind in (Kind.POST, Kind.VOID)}
    every |= {(Kind.LOOKUP, reason) for reason in (Reason.NONE, Reason.NOT_FOUND)}
    met -= {(Kind.LOOKUP, reason) for reason in Reason} - every  # the reasons of what was looked up
    assert met == every
    if nodes == 2:
        platform.deliver(0, 1, 10_000)
        platform.deliver(1, 0, 10_000)
        platform.check()
    out = sum(node.books.transit_out for node in platform.nodes)
    into = sum(node.books.transit_in for node in platform.nodes)
    assert np.array_equal(out, np.transpose(into))
    assert np.sum(out) > 0
    assert sum(int(node.books.accounts.sum()) for node in platform.nodes) == OPENING * CUSTOMERS


@law
@given(steps_of)
def test_a_batch_is_booked_as_its_messages_one_by_one(steps: list[Step]) -> None:
    platform = Platform(nodes=1)
    batch = np.zeros(len(steps), TRANSACTION)
    single = Node(platform.shape)
    answers, journal = [], []
    for i, step in enumerate(steps):
        repeats = step[0] >= 82 and platform.asked
        asked = platform.asked[step[1] % len(platform.asked)] if repeats else platform.new_request(step)
        batch[i] = message_of(asked)[0]
        answer, records = single.ask(asked)
        answers.append(answer)
        journal.extend(records.tolist())
    whole = Node(platform.shape, room=2 * len(steps) + 2)
    assert whole.take(batch) == len(batch)
    records, replies = whole.collect()
    assert [answer_of(reply) for reply in replies] == answers
    assert records.tolist() == journal


def test_a_message_is_not_begun_without_room_for_its_records_and_its_answer() -> None:
    across = [Asked(i, Kind.PAYMENT, 0, 1, 1) for i in range(1, 10)]
    node = Node(shape_of(1), room=5)  # each books two records
    batch = np.concatenate([message_of(asked) for asked in across])
    assert node.take(batch) == 2
    records, replies = node.collect()
    assert [int(i) for i in records["id"]] == [1, 1, 2, 2]
    assert [int(i) for i in replies["id"]] == [1, 2]
    assert node.take(batch[2:]) == 2
    node.replies = np.zeros(2, OUTCOME)
    assert node.take(batch[4:]) == 0
    assert node.books.accounts[:, AVAILABLE].sum() == OPENING * CUSTOMERS
    assert node.books.transit_out[0, 1] == 4


def test_requests_for_another_node_stop_when_there_is_no_room_to_hand_them_on() -> None:
    node = Node(shape_of(2), room=3)
    batch = np.concatenate([message_of(Asked(i, Kind.PAYMENT, 1, 0, 1)) for i in range(1, 6)])
    assert node.take(batch) == 3
    assert node.handed_on_count.tolist() == [0, 3]
    assert [int(i) for i in node.handed_on[1]["id"]] == [1, 2, 3]


@pytest.mark.parametrize("what", range(1, 6))
def test_a_known_id_with_other_parameters_is_refused_and_the_first_answer_stands(what: int) -> None:
    node = Node(shape_of(1))
    asked = Asked(5, Kind.PAYMENT, 0, 4, 10)
    first, _ = node.ask(asked)
    answer, records = node.ask(changed(asked, what, SHARDS))
    assert answer == refused(Reason.DUPLICATE, lsn=0)
    assert len(records) == 0
    assert node.ask(asked)[0] == first == Answer(Status.OK, Reason.NONE, 0, 1)


def test_an_id_that_was_refused_never_succeeds_later() -> None:
    node = Node(ONE_SHARD)
    too_much = Asked(1, Kind.PAYMENT, 0, 1, 1_500)
    first, records = node.ask(too_much)
    assert first == refused(Reason.FUNDS, lsn=1)
    assert records["leg"].tolist() == [Leg.NONE]
    node.ask(Asked(2, Kind.PAYMENT, 1, 0, 900))
    answer, records = node.ask(too_much)
    assert (answer, len(records)) == (first, 0)
    assert node.books.accounts[0, AVAILABLE] == 1_900


# Windows


def payment(number: int, amount: int = 1) -> Asked:
    return Asked(number, Kind.PAYMENT, number % 2, (number + 1) % 2, amount)


def known_of(node: Node, first_answers: dict[Asked, Answer]) -> list[int]:
    """Which ids get their first answer again, with nothing logged; asked for from the newest on."""
    known = []
    for asked, first in reversed(first_answers.items()):
        answer, records = node.ask(asked)
        if answer == first and not len(records):
            known.append(asked.id)
    return known


@law
@given(total=st.integers(1, 70))
def test_the_last_remembered_ids_are_always_known(total: int) -> None:
    node = Node(ONE_SHARD)
    answers = {payment(i): node.ask(payment(i))[0] for i in range(1, total + 1)}
    last = dict(list(answers.items())[-ONE_SHARD.remember :])
    assert known_of(node, last) == [asked.id for asked in reversed(last)]


@law
@given(holds=st.integers(1, 4), total=st.integers(8, 60))
def test_the_last_remembered_ids_are_known_beside_open_holds_too(holds: int, total: int) -> None:
    node = Node(ONE_SHARD)
    for i in range(1, holds + 1):
        node.ask(Asked(1_000 + i, Kind.AUTHORIZE, 0, 1, 10))
    answers = {payment(i): node.ask(payment(i))[0] for i in range(1, total + 1)}
    last = dict(list(answers.items())[-ONE_SHARD.remember :])
    assert known_of(node, last) == [asked.id for asked in reversed(last)]


def test_at_most_twice_as_many_ids_are_remembered() -> None:
    node = Node(ONE_SHARD)
    answers = {payment(i): node.ask(payment(i))[0] for i in range(1, 2 * ONE_SHARD.remember + 2)}
    oldest = next(iter(answers))
    answer, records = node.ask(oldest)
    assert (answer.lsn, len(records)) == (len(answers) + 1, 1)


@law
@given(
    holds=st.integers(1, 4),
    between=st.integers(0, 60),
    posted=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    scattered=st.integers(0, 3),
)
def test_open_holds_survive_any_number_of_generations(
    holds: int, between: int, posted: list[int], scattered: int
) -> None:
    node = Node(ONE_SHARD)
    for i in range(holds):
        node.ask(Asked(1_000 + i, Kind.AUTHORIZE, 0, 1, 10))
        for k in range(scattered):
            node.ask(payment(10 * i + k + 1))
    for i in range(between):
        node.ask(payment(100 + i))
    numbers = iter(range(2_000, 3_000))
    for i in range(holds):
        for kind, part in ((Kind.POST, posted[i]), (Kind.VOID, 10 - posted[i])):
            answer, _ = node.ask(Asked(next(numbers), kind, 0, 1, part, 1_000 + i))
            assert (answer.status, answer.reason) == (Status.OK, Reason.NONE)
            for _ in range(between):
                node.ask(payment(next(numbers)))
    assert node.books.accounts[:, RESERVED].sum() == 0
    assert node.books.accounts[:, AVAILABLE].sum() == 2 * ONE_SHARD.opening_minor
    assert node.books.holds[0] == 0


def test_a_hold_past_the_limit_is_refused_and_leaves_no_trace() -> None:
    node = Node(ONE_SHARD)
    most = ONE_SHARD.remember // 2
    for i in range(1, most + 1):
        assert node.ask(Asked(i, Kind.AUTHORIZE, 0, 1, 10))[0].status == Status.OK
    one_more = Asked(50, Kind.AUTHORIZE, 0, 1, 10)
    answer, records = node.ask(one_more)
    assert answer == refused(Reason.LIMIT, lsn=0)
    assert len(records) == 0
    assert node.books.accounts[0].tolist() == [1_000 - 10 * most, 10 * most]
    node.ask(Asked(51, Kind.VOID, 0, 1, 9, related=1))
    assert node.ask(one_more)[0].reason == Reason.LIMIT
    node.ask(Asked(52, Kind.VOID, 0, 1, 1, related=1))
    assert node.ask(one_more)[0].status == Status.OK


def test_a_shard_at_its_last_log_position_refuses_with_limit() -> None:
    node = Node(ONE_SHARD)
    node.books.lsn[0] = LSN_MAX - 1
    assert node.ask(payment(1))[0] == Answer(Status.OK, Reason.NONE, 0, LSN_MAX)
    answer, records = node.ask(payment(2))
    assert (answer, len(records)) == (refused(Reason.LIMIT, lsn=0), 0)
    assert node.ask(payment(1))[0].status == Status.OK


# The life-cycle of what is remembered

FOLLOW_UPS = {"post": Kind.POST, "void": Kind.VOID, "refund": Kind.REFUND}


def in_state(node: Node, state: State) -> Asked:
    """Brings an id into a state."""
    if state == State.REFUNDABLE:
        asked = Asked(1, Kind.PAYMENT, 0, 1, 10)
    elif state == State.PLAIN:
        asked = Asked(1, Kind.PAYMENT, 0, 1, 10_000)
    else:
        asked = Asked(1, Kind.AUTHORIZE, 0, 1, 10)
    node.ask(asked)
    if state == State.CLOSED:
        node.ask(Asked(2, Kind.POST, 0, 1, 10, related=1))
    assert node.state_of(1) == state
    return asked


@pytest.mark.parametrize("part", [4, 10])
@pytest.mark.parametrize("action", FOLLOW_UPS)
@pytest.mark.parametrize("state", [State.PLAIN, State.HELD, State.CLOSED, State.REFUNDABLE])
def test_what_the_life_cycle_does_not_list_is_refused(state: State, action: str, part: int) -> None:
    node = Node(ONE_SHARD)
    asked = in_state(node, state)
    payer, payee = (asked.payee, asked.payer) if action == "refund" else (asked.payer, asked.payee)
    before = node.books.accounts.copy()
    answer, records = node.ask(Asked(3, FOLLOW_UPS[action], payer, payee, part, related=1))
    allowed = ENTRY_LIFE_CYCLE.get((state, action), ())
    if allowed:
        assert answer.status == Status.OK
        assert node.state_of(1) == allowed[-1 if part == 10 else 0]
    else:
        assert answer.reason == (Reason.STATE if state == State.CLOSED and action != "refund" else Reason.NOT_FOUND)
        assert records["leg"].tolist() == [Leg.NONE]
        assert np.array_equal(node.books.accounts, before)
        assert node.state_of(1) == state


def test_refunds_in_parts_end_exactly_at_the_whole() -> None:
    node = Node(ONE_SHARD)
    node.ask(Asked(1, Kind.PAYMENT, 0, 1, 10))
    parts = [(4, Reason.NONE), (7, Reason.EXCEEDS), (6, Reason.NONE), (1, Reason.EXCEEDS)]
    for number, (part, reason) in enumerate(parts, 2):
        assert node.ask(Asked(number, Kind.REFUND, 1, 0, part, related=1))[0].reason == reason
    assert node.books.accounts[:2, AVAILABLE].tolist() == [1_000, 1_000]


def test_a_void_gives_back_and_a_post_settles_what_was_held() -> None:
    node = Node(ONE_SHARD)
    node.ask(Asked(1, Kind.AUTHORIZE, 0, 2, 100))
    assert node.books.accounts.tolist() == [[900, 100], [1_000, 0], [0, 0]]
    _, records = node.ask(Asked(2, Kind.POST, 0, 2, 70, related=1))
    assert records["leg"].tolist() == [Leg.TRANSFER]
    assert node.books.accounts.tolist() == [[900, 30], [1_000, 0], [70, 0]]
    _, records = node.ask(Asked(3, Kind.VOID, 0, 2, 30, related=1))
    assert records["leg"].tolist() == [Leg.RELEASE]
    assert node.books.accounts.tolist() == [[930, 0], [1_000, 0], [70, 0]]


def test_money_held_cannot_be_spent() -> None:
    node = Node(ONE_SHARD)
    node.ask(Asked(1, Kind.AUTHORIZE, 0, 2, 600))
    assert node.ask(Asked(2, Kind.PAYMENT, 0, 2, 401))[0].reason == Reason.FUNDS
    assert node.ask(Asked(3, Kind.PAYMENT, 0, 2, 400))[0].status == Status.OK


# Between nodes


def credits_of(node: Node, *asked: Asked) -> NDArray[Any]:
    """Books payments at node 0 and returns the far legs for node 1."""
    for one in asked:
        assert node.ask(one)[0].status == Status.OK
    return node.outbox[1, : node.outbox_head[1]].copy()


def test_a_gap_in_the_sequence_is_counted_and_not_applied() -> None:
    near, far = Node(shape_of(2), 0), Node(shape_of(2), 1)
    messages = credits_of(near, *(Asked(i, Kind.PAYMENT, 0, 1, i) for i in (1, 2, 3)))
    assert far.take(messages[1:]) == 2
    assert far.marks[GAPS] == 2
    assert len(far.collect()[0]) == 0
    assert far.books.transit_in.sum() == 0
    far.take(messages)
    assert far.marks[GAPS] == 2
    assert [int(i) for i in far.collect()[0]["id"]] == [1, 2, 3]
    assert far.books.transit_in[1, 0] == 6


def test_the_sequence_is_numbered_for_each_pair_of_shards() -> None:
    near, far = Node(shape_of(2), 0), Node(shape_of(2), 1)
    pairs = [(0, 1), (0, 3), (2, 1), (2, 3), (0, 1), (2, 3)]
    messages = credits_of(near, *(Asked(i, Kind.PAYMENT, payer, payee, 1) for i, (payer, payee) in enumerate(pairs, 1)))
    assert messages["sequence"].tolist() == [1, 1, 1, 1, 2, 2]
    far.take(messages[::-1][[1, 0, 3, 2, 5, 4]])  # a pair's own order is broken: the second before the first
    assert far.marks[GAPS] == 2
    assert far.books.sequence_in[1].tolist() == [1, 0, 1, 0]


def test_a_full_outbox_answers_overflow_and_books_nothing() -> None:
    node = Node(shape_of(2), 0, outbox=2)
    far = [Asked(i, Kind.PAYMENT, 0, 1, 10) for i in (1, 2, 3)]
    credits_of(node, *far[:2])
    before = node.books.accounts.copy()
    answer, records = node.ask(far[2])
    assert answer == refused(Reason.OVERFLOW, lsn=0)
    assert len(records) == 0
    assert node.outbox_head.tolist() == [0, 2]
    assert np.array_equal(node.books.accounts, before)
    assert node.books.transit_out[0, 1] == 20
    assert node.marks[REFUSED] == 1
    assert node.ask(Asked(4, Kind.PAYMENT, 0, 2, 10))[0].status == Status.OK  # stays on this node
    assert node.ask(Asked(5, Kind.AUTHORIZE, 0, 1, 10))[0].status == Status.OK  # sends nothing
    assert node.ask(far[0])[0] == Answer(Status.OK, Reason.NONE, 0, 1)  # is known
    node.outbox_forgotten[1] = 1
    assert node.ask(far[2])[0].status == Status.OK


def test_the_outbox_forgets_only_what_was_sent_and_is_durable_at_the_far_shard() -> None:
    node = Node(shape_of(2), 0, outbox=8)
    # shard pairs 0→1 #1, 2→1 #1, 0→1 #2, 0→3 #1
    pairs = [(0, 1), (2, 1), (0, 1), (0, 3)]
    credits_of(node, *(Asked(i, Kind.PAYMENT, payer, payee, 1) for i, (payer, payee) in enumerate(pairs, 1)))
    acked = np.zeros((SHARDS, SHARDS), np.int64)
    assert forget(node.outbox, 1, 0, 4, acked, SHARDS) == 0
    acked[1, 0] = 2
    assert forget(node.outbox, 1, 0, 4, acked, SHARDS) == 1  # the second stands in the way of the third
    acked[1, 2] = 1
    assert forget(node.outbox, 1, 1, 4, acked, SHARDS) == 3
    acked[3, 0] = 1
    assert forget(node.outbox, 1, 3, 3, acked, SHARDS) == 3  # the fourth was not sent yet
    assert forget(node.outbox, 1, 3, 4, acked, SHARDS) == 4


def test_what_a_full_ring_would_not_take_is_answered_overflow_one_by_one() -> None:
    node = Node(shape_of(2), 0)
    batch = np.concatenate([message_of(Asked(i, Kind.PAYMENT, 1 + 2 * (i % 2), 0, 1)) for i in range(1, 9)])
    refuse(node.books, batch, 2, 5, node.replies, node.marks)
    records, replies = node.collect()
    assert len(records) == 0
    assert replies["id"].tolist() == [3, 4, 5]
    assert replies["slot"].tolist() == [slot_of(i) for i in (3, 4, 5)]
    assert [answer_of(reply) for reply in replies] == [refused(Reason.OVERFLOW, lsn=0, shard=s) for s in (3, 1, 3)]
    assert node.marks[REFUSED] == 3
