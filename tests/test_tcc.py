"""Transfers that the payee's shard may refuse: two nodes against the plain model, messages late, sent twice, lost by a kill."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_model import Answer, Asked, Ledger, Replay, changed
from test_ledger import OPENING, SHARDS, Node, Platform, answer_of, message_of, refused, shape_of, slot_of, steps_of

from simulator.ledger.books import AVAILABLE, RESERVED, Books, State
from simulator.ledger.exchange import abort_undecided, bury_message, forget
from simulator.ledger.flaws import Flaw
from simulator.ledger.holds import expire
from simulator.ledger.output import ALARMS, FLAW, JOURNAL, RETURNED, RETURNED_MINOR
from simulator.ledger.replay import refill_outbox, restore
from simulator.ledger.tcc import FAR_LIFE_CYCLE, HOME_LIFE_CYCLE, Far, Home, far_state, home_state
from simulator.shard.layout import NO_LIMIT, SENDS, Leg, Message, Protocol, Shape
from simulator.shard.set_aside import keys_of
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Step = tuple[int, int, int, int, int]

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels

TCC = replace(shape_of(2), protocol=Protocol.TCC)
OUTBOX = shape_of(2)
FAR_MESSAGES = (Message.TRY, Message.CONFIRM, Message.CANCEL)
# Not in the journal: the time, the term of a hold, and the slot that an undecided transfer's client waits in.
OF_THE_PRESENT = {"now_ns", "hold_ids", "hold_made_ns", "hold_ends", "entries"}


class Exchange(Platform):
    """Two nodes and the model side by side; nodes are killed and come back from their journals."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.model = Ledger(shape)
        self.replay = Replay(shape)
        self.nodes = [Node(shape, n) for n in range(2)]
        self.asked: list[Asked] = []
        self.seen: Counter[tuple[int, int]] = Counter()
        self.legs: Counter[Leg] = Counter()
        self.journals: list[list[NDArray[Any]]] = [[], []]
        self.slots: dict[int, int] = {}  # where the client of each transaction waits
        self.waiting: dict[int, Asked] = {}
        self.told: dict[int, Answer] = {}

    def step(self, step: Step) -> None:
        what, a, b, c, d = step
        if what < 60 or not self.asked:
            self.request(self.new_request((what * 82 // 60, a, b, c, d)), entry=0)
        elif what < 66:
            self.request(changed(self.asked[a % len(self.asked)], b % 6, SHARDS), entry=0)
        elif what < 90:
            self.deliver(a % 2, 1 - a % 2, 1 + b % 5)
        elif what < 94:
            self.deliver_again(a % 2, 1 - a % 2, b)
        else:
            self.kill(a % 2, taken=b % 4)

    def request(self, asked: Asked, entry: int) -> None:  # noqa: ARG002  straight to its home
        home = self.model.node_of(asked.payer)
        message = message_of(asked)
        known = self.waiting.get(asked.id)
        slot = slot_of(asked.id) + len(self.slots)
        message["slot"] = slot
        if known is None or known == asked:
            self.slots[asked.id] = slot
        assert self.nodes[home].take(message) == 1
        replies = self.note(home)
        answer = self.model.request(asked)
        if answer is None:
            assert len(replies) == 0
            self.waiting[asked.id] = asked
            return
        assert [answer_of(reply) for reply in replies] == [answer]
        assert (replies["id"][0], replies["slot"][0]) == (asked.id, slot)
        self.seen[asked.kind, answer.reason] += 1
        if answer.lsn and asked.kind != Kind.LOOKUP:
            assert self.told.setdefault(asked.id, answer) == answer

    def note(self, node: int) -> NDArray[Any]:
        """Keeps what a node has written; returns what it has answered."""
        records, replies = self.nodes[node].collect()
        self.journals[node].append(records)
        self.replay.add_all(records)
        self.legs.update(Leg(int(leg)) for leg in records["leg"])
        return replies

    def deliver(self, near: int, far: int, most: int) -> None:
        node = self.nodes[near]
        for _ in range(min(most, int(node.outbox_head[far] - node.outbox_sent[far]))):
            message = node.outbox[far, int(node.outbox_sent[far]) % node.outbox.shape[1]]
            sent = self.model.under_way[near, far][0]
            assert (message["message"], message["id"], message["slot"]) == (sent.what, sent.asked.id, sent.reason)
            assert self.nodes[far].take(np.array([message])) == 1
            replies = self.note(far)
            self.model.deliver(near, far)
            answered, self.model.answered = self.model.answered, []
            assert [(int(reply["id"]), answer_of(reply)) for reply in replies] == answered
            for (key, answer), slot in zip(answered, replies["slot"].tolist(), strict=True):
                assert slot == self.slots[key]
                assert self.told.setdefault(key, answer) == answer
                del self.waiting[key]
            node.outbox_sent[far] += 1
        node.outbox_forgotten[far] = forget(
            node.outbox, far, int(node.outbox_forgotten[far]), int(node.outbox_sent[far]), self.acked(), SHARDS
        )
        assert node.outbox_forgotten[far] == node.outbox_sent[far]

    def acked(self) -> NDArray[np.int64]:
        """What each shard has made durable of each other's messages."""
        return np.array([self.nodes[shard % 2].books.sequence_in[shard] for shard in range(SHARDS)])

    def deliver_again(self, near: int, far: int, which: int) -> None:
        sent = min(int(self.nodes[near].outbox_sent[far]), self.nodes[near].outbox.shape[1])
        if sent:
            assert self.nodes[far].take(self.nodes[near].outbox[far, which % sent : which % sent + 1]) == 1
            assert not any(len(part) for part in self.nodes[far].collect())

    def kill(self, number: int, taken: int) -> None:
        """Kills a node that has just booked `taken` messages in memory only, and starts it from its journal."""
        dead, peer = self.nodes[number], self.nodes[1 - number]
        before = {name: np.copy(getattr(dead.books, name)) for name in Books._fields if name not in OF_THE_PRESENT}
        unsent = dead.outbox[
            1 - number, int(dead.outbox_forgotten[1 - number]) : int(dead.outbox_head[1 - number])
        ].copy()
        first, last = int(peer.outbox_sent[number]), int(peer.outbox_head[number])
        dead.take(peer.outbox[number, first : min(first + taken, last)])
        node = self.nodes[number] = Node(self.shape, number)
        written = np.concatenate(self.journals[number]) if self.journals[number] else dead.journal[:0]
        assert restore(node.books, written) == 0
        for name, value in before.items():
            assert np.array_equal(getattr(node.books, name), value), name
        acked = self.acked()
        refill_outbox(node.books, written, np.zeros((SHARDS, SHARDS), np.int64), node.outbox, node.outbox_head, acked)
        refilled = node.outbox[1 - number, : int(node.outbox_head[1 - number])]
        for name in ("id", "message", "sequence", "amount_minor", "payer", "payee", "kind", "related"):
            assert refilled[name].tolist() == unsent[name].tolist()
        entries = node.books.entries[node.books.entries["state"] == State.TRYING]
        assert abort_undecided(node.books, entries, 0, node.journal, node.marks, node.outbox, node.outbox_head) == len(
            entries
        )
        self.note(number)
        self.model.restart(number)
        for asked in [asked for asked in self.waiting.values() if self.model.node_of(asked.payer) == number]:
            del self.waiting[asked.id]
            self.request(asked, entry=0)  # the client asks again, and is told what became of it
            assert self.told[asked.id].reason == Reason.NODE_DOWN

    def check(self) -> None:
        super().check()
        for shard in range(SHARDS):
            books = self.nodes[shard % 2].books
            assert books.tries[shard] == self.model.shards[shard].tries
            accounts = range(shard, self.shape.accounts, SHARDS)
            if len(books.incoming):
                first = int(books.base[shard])
                promised = books.incoming[first : first + len(accounts)]
                assert promised.tolist() == [self.model.incoming[a] for a in accounts]
            for account in accounts if self.shape.protocol == Protocol.TCC else ():
                held = self.model.available[account] + self.model.reserved[account] + self.model.incoming[account]
                assert self.shape.balance_limit_minor == NO_LIMIT or held <= self.shape.balance_limit_minor
        for n, node in enumerate(self.nodes):
            trying = [entry for s in self.model.shards[n::2] for entry in s.known.values() if entry.trying]
            assert node.books.undecided[0] == len(trying)
            assert node.marks[ALARMS] == self.model.alarms == 0
        for one in self.model.shards:
            self.check_refunds(one)

    def check_refunds(self, shard: Any) -> None:  # noqa: ANN401  the model's Shard
        """Never more is given back than was paid."""
        refunded: Counter[int] = Counter()
        for entry in shard.known.values():
            mine = entry.asked.payer % SHARDS == shard.number  # not the payee's side of somebody else's refund
            if entry.asked.kind == Kind.REFUND and entry.answer.status == Status.OK and mine:
                refunded[entry.asked.related] += entry.asked.amount * (1 - self.model.returned[entry.asked.id])
        for key, amount in refunded.items():
            assert amount <= shard.known[key].asked.amount

    def rest(self) -> None:
        """Delivers all that is under way, and asserts that nothing is left over."""
        while any(self.model.under_way.values()):
            self.deliver(0, 1, 10_000)
            self.deliver(1, 0, 10_000)
        self.check()
        out = sum(node.books.transit_out for node in self.nodes)
        assert np.array_equal(out, np.transpose(sum(node.books.transit_in for node in self.nodes)))
        assert sum(int(node.books.accounts.sum()) for node in self.nodes) == OPENING * self.shape.customers
        assert not self.waiting
        assert not any(shard.tries for shard in self.model.shards)

    def run(self, steps: Iterable[Step]) -> None:
        super().run(steps)
        self.rest()


limits = st.sampled_from([NO_LIMIT, OPENING, OPENING + 30])


@law
@given(steps_of, limits)
def test_try_confirm_cancel_does_what_the_model_does_whatever_is_late_repeated_or_killed(
    steps: list[Step], limit: int
) -> None:
    Exchange(replace(TCC, balance_limit_minor=limit)).run(steps)


@law
@given(steps_of, limits)
def test_refused_credits_come_back_whatever_is_late_repeated_or_killed(steps: list[Step], limit: int) -> None:
    Exchange(replace(OUTBOX, balance_limit_minor=limit)).run(steps)


def long_run(shape: Shape, limit: int) -> Exchange:
    platform = Exchange(replace(shape, balance_limit_minor=limit, remember=2_048))
    steps = np.random.default_rng(11).integers(0, [100, 1_000, 1_000, 1_000, 1_000], (1_500, 5))
    platform.run((int(w), int(a), int(b), int(c), int(d)) for w, a, b, c, d in steps)
    return platform


def test_a_long_run_of_tcc_takes_every_lawful_path_and_comes_to_rest_balanced() -> None:
    met = long_run(TCC, OPENING + 10).legs
    lawful = {leg for _, leg in (*HOME_LIFE_CYCLE.values(), *FAR_LIFE_CYCLE.values())} | {Leg.BEGIN}
    # Messages are numbered, so what comes out of order comes never: these two need a channel that is broken.
    assert lawful - {Leg.ALARM, Leg.SUSPENDED} <= set(met)
    assert not {Leg.ALARM, Leg.SUSPENDED, Leg.SEND_BACK} & set(met)


def test_a_long_run_of_the_outbox_with_a_limit_sends_money_back_and_takes_all_of_it() -> None:
    platform = long_run(OUTBOX, OPENING)
    assert platform.legs[Leg.SEND_BACK] == platform.legs[Leg.TAKE_BACK] == platform.model.returned.total() > 10


# The tables


def test_every_state_knows_what_every_message_means() -> None:
    assert set(FAR_LIFE_CYCLE) == set(product(Far, FAR_MESSAGES))
    assert set(HOME_LIFE_CYCLE) == set(product(Home, (True, False)))
    assert set(SENDS) & {leg for _, leg in FAR_LIFE_CYCLE.values()} == {Leg.TRIED, Leg.REFUSED}


def message(what: Message, sequence: int, asked: Asked, reason: int = Reason.NONE) -> NDArray[Any]:
    made = message_of(asked)
    made["message"], made["sequence"], made["slot"] = what, sequence, reason
    return made


PAID = Asked(7, Kind.PAYMENT, 0, 1, 10)  # from shard 0 on node 0 to shard 1 on node 1
TO_STATE: dict[Far, tuple[Message, ...]] = {
    Far.ABSENT: (),
    Far.TRIED: (Message.TRY,),
    Far.COMMITTED: (Message.TRY, Message.CONFIRM),
    Far.ROLLED_BACK: (Message.TRY, Message.CANCEL),
    Far.SUSPENDED: (Message.CANCEL,),
    Far.REFUSED: (Message.TRY,),
    Far.OTHER: (Message.TRY,),
}


@pytest.mark.parametrize("what", FAR_MESSAGES)
@pytest.mark.parametrize("state", Far)
def test_the_payees_shard_does_what_its_table_says(state: Far, what: Message) -> None:
    node = Node(replace(TCC, balance_limit_minor=OPENING + 10), 1)
    if state == Far.REFUSED:
        node.books.accounts[0, AVAILABLE] += 5  # there is no room for ten more
    for sequence, earlier in enumerate(TO_STATE[state], 1):
        about = replace(PAID, payer=2 * SHARDS) if state == Far.OTHER else PAID  # of another client of the same home
        assert node.take(message(earlier, sequence, about)) == 1
    node.collect()
    assert far_state(node.books, int(node.books.place[1]), message_of(PAID)[0]) == state
    before, sent = node.books.accounts.copy(), int(node.outbox_head[0])
    assert node.take(message(what, len(TO_STATE[state]) + 1, PAID)) == 1
    records, replies = node.collect()
    after, leg = FAR_LIFE_CYCLE[state, what]
    assert records["leg"].tolist() == [leg]
    assert len(replies) == 0
    assert far_state(node.books, int(node.books.place[1]), message_of(PAID)[0]) == after
    assert node.books.tries[1] == (after in (Far.TRIED, Far.OTHER))
    assert node.books.incoming.sum() == (PAID.amount if after in (Far.TRIED, Far.OTHER) else 0)
    assert node.marks[ALARMS] == (leg == Leg.ALARM)
    credited = PAID.amount if leg == Leg.CONFIRMED else 0
    assert (node.books.accounts - before)[:, AVAILABLE].sum() == credited
    assert node.books.transit_in[1, 0] == (PAID.amount if after == Far.COMMITTED else 0)
    assert int(node.outbox_head[0]) - sent == (leg in SENDS)
    if leg in SENDS:
        vote = node.outbox[0, sent]
        assert (vote["message"], vote["slot"] == Reason.NONE) == (Message.VOTE, leg == Leg.TRIED)
    # And a restart finds the same.
    again = Node(replace(TCC, balance_limit_minor=OPENING + 10), 1)
    again.books.lsn[1] = records["lsn"][0] - 1
    assert restore(again.books, records) == 0
    assert again.books.sequence_in[1, 0] == 1


@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.parametrize("state", Home)
def test_home_does_what_its_table_says(state: Home, yes: bool) -> None:  # noqa: FBT001  a parameter
    node = Node(TCC, 0)
    if state != Home.ABSENT:
        assert node.take(message_of(PAID)) == 1
    received = 0
    if state == Home.DECIDED:
        received = 1
        assert node.take(message(Message.VOTE, received, PAID, Reason.LIMIT)) == 1
    node.collect()
    before, sent = node.books.accounts.copy(), int(node.outbox_head[1])
    assert home_state(node.books, int(node.books.place[0]), np.uint64(PAID.id)) == state
    assert node.take(message(Message.VOTE, received + 1, PAID, Reason.NONE if yes else Reason.LIMIT)) == 1
    records, replies = node.collect()
    after, leg = HOME_LIFE_CYCLE[state, yes]
    assert records["leg"].tolist() == [leg]
    assert home_state(node.books, int(node.books.place[0]), np.uint64(PAID.id)) == after
    change = node.books.accounts - before
    if leg == Leg.PASSED:
        assert not change.any()
        assert (len(replies), int(node.outbox_head[1])) == (0, sent)
        return
    assert change[0].tolist() == [0 if yes else 10, -10]
    assert node.books.transit_out[0, 1] == (10 if yes else 0)
    assert [(int(r["status"]), int(r["reason"]), int(r["slot"])) for r in replies] == [
        (Status.OK, Reason.NONE, slot_of(7)) if yes else (Status.REJECTED, Reason.LIMIT, slot_of(7))
    ]
    assert [int(m) for m in node.outbox["message"][1, sent : int(node.outbox_head[1])]] == [Message.CONFIRM] * yes


# What is pending


SMALL = replace(TCC, remember=8)


def local(number: int) -> Asked:
    """A payment within shard 0."""
    return Asked(number, Kind.PAYMENT, *((0, 4) if number % 2 else (4, 0)), 1)


@pytest.mark.parametrize("after", [0, 7, 8, 40])
def test_an_undecided_transfer_survives_any_number_of_generations_and_is_remembered_from_its_decision_on(
    after: int,
) -> None:
    node = Node(SMALL, 0)
    assert node.take(message_of(PAID)) == 1
    node.collect()
    for number in range(100, 100 + after):
        node.ask(local(number))
    assert node.take(message(Message.VOTE, 1, PAID)) == 1
    _, (reply,) = node.collect()
    for number in range(200, 200 + SMALL.remember - 1):
        node.ask(local(number))
    again, records = node.ask(PAID)
    assert (again, len(records)) == (answer_of(reply), 0)
    assert node.books.tries[0] == node.books.undecided[0] == 0


@pytest.mark.parametrize("after", [0, 7, 8, 40])
def test_a_promise_survives_any_number_of_generations(after: int) -> None:
    node = Node(SMALL, 1)
    assert node.take(message(Message.TRY, 1, PAID)) == 1
    node.collect()
    for number in range(100, 100 + after):
        node.ask(replace(local(number), payer=(1, 5)[number % 2], payee=(5, 1)[number % 2]))
    assert node.take(message(Message.CONFIRM, 2, PAID)) == 1
    assert node.collect()[0]["leg"].tolist() == [Leg.CONFIRMED]
    assert node.ask(Asked(300, Kind.REFUND, 1, 5, 10, related=7))[0].reason == Reason.ACCOUNT  # it is refundable


def test_tries_past_the_limit_are_refused_at_home_and_leave_no_trace() -> None:
    node = Node(SMALL, 0)
    most = SMALL.remember // 2
    for number in range(1, most + 1):
        assert node.take(message_of(replace(PAID, id=number, amount=1))) == 1
    node.collect()
    one_more = replace(PAID, id=50, amount=1)
    answer, records = node.ask(one_more)
    assert (answer, len(records)) == (refused(Reason.LIMIT, lsn=0), 0)
    assert node.ask(Asked(51, Kind.AUTHORIZE, 0, 4, 1))[0].reason == Reason.LIMIT  # holds share the bound
    assert node.take(message(Message.VOTE, 1, replace(PAID, id=1, amount=1))) == 1
    node.collect()
    assert node.take(message_of(one_more)) == 1
    assert node.collect()[0]["leg"].tolist() == [Leg.BEGIN]


def test_a_shard_with_too_many_promises_votes_no() -> None:
    node = Node(SMALL, 1)
    for number in range(1, SMALL.remember // 2 + 2):
        assert node.take(message(Message.TRY, number, replace(PAID, id=number))) == 1
    legs = node.collect()[0]["leg"].tolist()
    assert legs == [Leg.TRIED] * (SMALL.remember // 2) + [Leg.REFUSED]
    assert node.outbox["slot"][0, : len(legs)].tolist() == [0] * (len(legs) - 1) + [Reason.LIMIT]


def test_while_a_post_is_under_way_its_hold_waits_and_does_not_expire() -> None:
    node = Node(TCC, 0)
    node.ask(Asked(1, Kind.AUTHORIZE, 0, 1, 60))
    node.ask(Asked(2, Kind.AUTHORIZE, 0, 1, 5))
    post = Asked(3, Kind.POST, 0, 1, 40, related=1)
    assert node.take(message_of(post)) == 1
    records, replies = node.collect()
    assert (records["leg"].tolist(), len(replies)) == ([Leg.BEGIN], 0)
    assert node.state_of(1) == State.POSTING
    assert node.books.accounts[0].tolist() == [35, 65]
    for number, kind in enumerate((Kind.POST, Kind.VOID), 4):
        answer, records = node.ask(Asked(number, kind, 0, 1, 1, related=1))
        assert (answer, len(records)) == (refused(Reason.LIMIT, lsn=0), 0)
    node.books.now_ns[0] = 10**12
    assert expire(node.books, 1, node.journal, node.marks) == 0  # nor does the one behind it, yet
    assert node.take(message(Message.VOTE, 1, post, Reason.LIMIT)) == 1
    node.collect()
    assert node.state_of(1) == State.HELD
    assert node.books.accounts[0].tolist() == [35, 65]
    assert expire(node.books, 1, node.journal, node.marks) == 2
    assert node.books.accounts[0].tolist() == [100, 0]


def test_a_post_that_takes_the_rest_closes_its_hold_only_when_it_is_committed() -> None:
    node = Node(TCC, 0)
    node.ask(Asked(1, Kind.AUTHORIZE, 0, 1, 60))
    post = Asked(2, Kind.POST, 0, 1, 60, related=1)
    node.take(message_of(post))
    assert (node.state_of(1), node.books.holds[0]) == (State.POSTING, 1)
    node.take(message(Message.VOTE, 1, post))
    assert (node.state_of(1), node.books.holds[0]) == (State.CLOSED, 0)
    assert node.books.accounts[0].tolist() == [40, 0]


def test_who_asks_again_while_it_is_undecided_is_answered_once_and_a_lookup_says_so() -> None:
    node = Node(TCC, 0)
    assert node.take(message_of(PAID)) == 1
    again = message_of(PAID)
    again["slot"] = 99
    assert node.take(again) == 1
    records, replies = node.collect()
    assert (len(records), len(replies)) == (1, 0)
    assert node.ask(Asked(8, Kind.LOOKUP, 0, 1, 0, related=7))[0] == refused(Reason.STATE, lsn=0)
    assert node.take(message(Message.VOTE, 1, PAID)) == 1
    assert node.collect()[1]["slot"].tolist() == [99]
    assert node.ask(Asked(9, Kind.LOOKUP, 0, 1, 0, related=7))[0] == Answer(Status.OK, Reason.NONE, 0, 2)


# Room


def test_transfers_leave_three_quarters_of_the_outbox_to_answers_and_each_keeps_room_for_its_decision() -> None:
    node = Node(TCC, 0, outbox=16)
    for number in range(1, 5):
        assert node.take(message_of(replace(PAID, id=number, amount=1))) == 1
        node.outbox_forgotten[1] = node.outbox_head[1]  # every TRY is acknowledged at once: only decisions are to come
    node.collect()
    assert node.books.undecided[0] == 4
    assert node.ask(replace(PAID, id=9, amount=1))[0].reason == Reason.OVERFLOW


def test_a_message_whose_answer_has_no_room_stays_where_it_is() -> None:
    node = Node(TCC, 1, outbox=4)
    node.outbox_head[0] = 4
    first = message(Message.TRY, 1, PAID)
    assert node.take(first) == 0
    assert not any(len(part) for part in node.collect())
    node.outbox_forgotten[0] = 1
    assert node.take(first) == 1
    assert node.collect()[0]["leg"].tolist() == [Leg.TRIED]


def test_a_restart_aborts_as_far_as_the_frame_has_room_and_goes_on_from_there() -> None:
    node = Node(TCC, 0)
    for number in range(1, 11):
        assert node.take(message_of(replace(PAID, id=number, amount=1))) == 1
    node.collect()
    node.journal = node.journal[:4]
    entries = node.books.entries[node.books.entries["state"] == State.TRYING]
    done, rounds = 0, 0
    while done < len(entries):
        done = abort_undecided(node.books, entries, done, node.journal, node.marks, node.outbox, node.outbox_head)
        assert node.marks[JOURNAL] <= 4
        node.collect()
        rounds += 1
    assert rounds == 3
    assert node.books.accounts[0].tolist() == [OPENING, 0]
    assert node.outbox["message"][1, 10:20].tolist() == [Message.CANCEL] * 10


# Limits


@pytest.mark.parametrize("protocol", Protocol)
def test_a_credit_within_one_node_is_refused_at_once_whatever_the_protocol(protocol: Protocol) -> None:
    node = Node(replace(OUTBOX, protocol=protocol, balance_limit_minor=OPENING), 0)
    for number, payee in enumerate((2, 4), 1):  # another shard of this node; the same shard
        answer, records = node.ask(Asked(number, Kind.PAYMENT, 0, payee, 1))
        assert (answer.reason, answer.lsn, records["leg"].tolist()) == (Reason.LIMIT, number, [Leg.NONE])
    assert node.ask(Asked(3, Kind.PAYMENT, 0, 6, OPENING))[0].status == Status.OK  # a merchant, who has nothing yet
    assert node.ask(Asked(4, Kind.PAYMENT, 2, 6, 1))[0].reason == Reason.LIMIT


def test_a_hold_counts_towards_what_an_account_may_hold() -> None:
    node = Node(replace(OUTBOX, balance_limit_minor=OPENING), 0)
    node.ask(Asked(1, Kind.AUTHORIZE, 2, 6, 50))
    assert node.ask(Asked(2, Kind.PAYMENT, 0, 2, 1))[0].reason == Reason.LIMIT


def test_a_refund_that_came_back_may_be_made_again() -> None:
    near, far = (Node(replace(OUTBOX, balance_limit_minor=OPENING), n) for n in range(2))
    assert near.ask(Asked(1, Kind.PAYMENT, 0, 9, 40))[0].status == Status.OK
    far.take(near.outbox[1, :1])
    far.collect()
    near.books.accounts[0, AVAILABLE] += 40  # meanwhile customer 0 was paid by others, and is full
    assert far.ask(Asked(2, Kind.REFUND, 9, 0, 40, related=1))[0].status == Status.OK
    assert far.ask(Asked(3, Kind.REFUND, 9, 0, 1, related=1))[0].reason == Reason.EXCEEDS
    refund = far.outbox[0, :1].copy()
    assert near.take(refund) == 1
    assert near.collect()[0]["leg"].tolist() == [Leg.SEND_BACK]
    assert far.take(near.outbox[1, 1:2]) == 1
    assert far.collect()[0]["leg"].tolist() == [Leg.TAKE_BACK]
    assert (far.marks[RETURNED], far.marks[RETURNED_MINOR]) == (1, 40)
    assert far.ask(Asked(4, Kind.REFUND, 9, 0, 40, related=1))[0].status == Status.OK
    assert far.ask(Asked(2, Kind.REFUND, 9, 0, 40, related=1))[0].status == Status.OK  # the first answer stands


def test_an_unsafe_credit_is_booked_as_often_as_it_comes() -> None:
    near, far = (Node(replace(OUTBOX, protocol=Protocol.UNSAFE_DUAL_WRITE), n) for n in range(2))
    assert near.ask(PAID)[0].status == Status.OK
    sent = near.outbox[1, :1]
    assert sent["message"][0] == Message.UNSAFE_CREDIT
    assert far.take(np.concatenate([sent, sent])) == 2
    assert far.collect()[0]["leg"].tolist() == [Leg.CREDIT] * 2


# What cannot be booked


def test_a_try_that_cannot_be_booked_ends_as_a_no_and_its_client_is_told_that_it_failed() -> None:
    near, far = Node(TCC, 0), Node(TCC, 1)
    assert near.take(message_of(PAID)) == 1
    far.books.accounts[0, AVAILABLE] = 2**63 - 1
    sent = near.outbox[1, :1]
    assert far.take(sent) == 0
    assert (far.marks[FLAW], len(far.collect()[0])) == (Flaw.BALANCE, 0)
    assert bury_message(far.books, sent, 0, far.journal, far.marks, far.outbox, far.outbox_head) == 1
    records, _ = far.collect()
    assert (records["leg"].tolist(), records["reason"].tolist()) == ([Leg.REFUSED], [Reason.POISON])
    assert bury_message(far.books, sent, 0, far.journal, far.marks, far.outbox, far.outbox_head) == -1
    assert near.take(far.outbox[0, :1]) == 1
    _, (reply,) = near.collect()
    assert (reply["status"], reply["reason"], reply["slot"]) == (Status.FAILED, Reason.POISON, slot_of(7))
    assert near.books.accounts[0].tolist() == [OPENING, 0]
    assert near.ask(PAID)[0] == answer_of(reply)


def test_a_confirmation_that_cannot_be_booked_leaves_its_money_on_transit_and_breaks_the_promise() -> None:
    node = Node(TCC, 1)
    node.take(message(Message.TRY, 1, PAID))
    node.books.accounts[0, AVAILABLE] = 2**63 - 1
    confirmed = message(Message.CONFIRM, 2, PAID)
    assert node.take(confirmed) == 0
    assert node.marks[FLAW] == Flaw.BALANCE
    node.collect()
    assert bury_message(node.books, confirmed, 0, node.journal, node.marks, node.outbox, node.outbox_head) == 2
    records, _ = node.collect()
    assert records["leg"].tolist() == [Leg.DEAD]
    assert (node.books.tries[1], node.books.transit_in[1, 0], node.books.sequence_in[1, 0]) == (0, 0, 2)
    again = Node(TCC, 1)
    again.take(message(Message.TRY, 1, PAID))
    assert restore(again.books, records) == 0
    assert (again.books.tries[1], again.books.sequence_in[1, 0]) == (0, 2)


def test_a_vote_that_the_books_contradict_is_an_alarm_and_books_nothing() -> None:
    node = Node(TCC, 0)
    node.take(message_of(PAID))
    node.books.accounts[0, RESERVED] = 0
    vote = message(Message.VOTE, 1, PAID)
    assert node.take(vote) == 0
    assert node.marks[FLAW] == Flaw.RESERVED
    node.collect()
    bury_message(node.books, vote, 0, node.journal, node.marks, node.outbox, node.outbox_head)
    records, replies = node.collect()
    assert (records["leg"].tolist(), len(replies), node.marks[ALARMS]) == ([Leg.ALARM], 0, 1)
    assert node.state_of(7) == State.TRYING


def test_a_try_of_an_id_that_another_home_has_is_refused_as_a_duplicate_and_its_home_is_told() -> None:
    node = Node(TCC, 1)
    other = replace(PAID, payer=2)  # from shard 2, of node 0 too; its window does not know that the id is taken
    assert node.take(message(Message.TRY, 1, PAID)) == 1
    assert node.take(message(Message.TRY, 1, other)) == 1
    records, _ = node.collect()
    assert [(int(r["leg"]), int(r["reason"])) for r in records] == [
        (Leg.TRIED, Reason.NONE), (Leg.REFUSED, Reason.DUPLICATE)
    ]  # fmt: skip
    votes = node.outbox[0, : int(node.outbox_head[0])]
    assert [(int(v["payer"]), int(v["slot"])) for v in votes] == [(0, Reason.NONE), (2, Reason.DUPLICATE)]
    assert node.take(message(Message.CANCEL, 2, other)) == 1  # it was restarted before it knew
    assert node.take(message(Message.CONFIRM, 3, other)) == 1  # which must never come
    assert node.books.transit_in.sum() == 0
    assert node.take(message(Message.CONFIRM, 2, PAID)) == 1
    records, _ = node.collect()
    assert records["leg"].tolist() == [Leg.PASSED, Leg.ALARM, Leg.CONFIRMED]
    assert (node.books.transit_in[1, 0], node.books.transit_in[1, 2]) == (PAID.amount, 0)


def test_a_hold_whose_decision_was_buried_does_not_keep_those_behind_it_from_their_expiry() -> None:
    node = Node(TCC, 0)
    for key in (1, 2, 3):
        node.ask(Asked(key, Kind.AUTHORIZE, 0, 1, 10 * key))
    post = Asked(4, Kind.POST, 0, 1, 10, related=1)
    assert node.take(message_of(post)) == 1
    node.books.now_ns[0] = 10**12
    assert expire(node.books, 1, node.journal, node.marks) == 0
    vote = message(Message.VOTE, 1, post)
    bury_message(node.books, vote, 0, node.journal, node.marks, node.outbox, node.outbox_head)
    assert expire(node.books, 1, node.journal, node.marks) == 2
    assert expire(node.books, 1, node.journal, node.marks) == 0  # it goes round, and ends
    assert node.books.accounts[0].tolist() == [90, 10]
    entries = node.books.entries[node.books.entries["state"] == State.TRYING]
    abort_undecided(
        node.books, entries, 0, node.journal, node.marks, node.outbox, node.outbox_head
    )  # as a restart does
    assert expire(node.books, 1, node.journal, node.marks) == 1
    assert node.books.accounts[0].tolist() == [100, 0]


def test_what_waits_for_another_try_holds_back_its_pair_in_its_direction_only() -> None:
    between = [
        (Message.TRY, 0, 1),
        (Message.CONFIRM, 0, 5),
        (Message.VOTE, 1, 0),
        (Message.TRY, 1, 0),
        (Message.VOTE, 0, 1),
    ]
    made = np.concatenate([message(what, 1, Asked(1, Kind.PAYMENT, a, b, 1)) for what, a, b in between])
    keys = keys_of(made, np.ones(SHARDS, np.bool_)).tolist()
    assert keys[0] == keys[1] == keys[2]  # all from shard 0 to shard 1
    assert keys[3] == keys[4] != keys[0]
