"""Retries on the wall clock: which answers, when, where, how often; and that a transaction has one end, whatever was tried."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.balancer.fleet import NEVER_NS
from simulator.dispatcher import Dispatcher, WhenFull
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import (
    ATTEMPTS_SHIFT,
    HISTORY,
    RESPONSE,
    SERVICE,
    ClientCount,
    Recorder,
    open_tallies,
)
from simulator.report import attempts
from simulator.retries import open_waiting, pop, push, retry_policy
from simulator.scenario.balancing import Balancer
from simulator.scenario.client import Client
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

MS, S = 1_000_000, 1_000_000_000
NODES, SHARDS, SECONDS = 3, 4, 30
FOREVER = 10**15

law = settings(deadline=None, max_examples=80)  # the first call compiles the kernels

Said = tuple[Status, Reason, int]  # status, reason, place in the log
OK: Said = (Status.OK, Reason.NONE, 7)
FULL: Said = (Status.REJECTED, Reason.OVERFLOW, 0)
NOBODY: Said = (Status.REJECTED, Reason.NODE_DOWN, 0)
FUNDS: Said = (Status.REJECTED, Reason.FUNDS, 9)
LATE: Said = (Status.UNKNOWN, Reason.TIMEOUT, 0)
CUT: Said = (Status.UNKNOWN, Reason.RESET, 0)
ERROR: Said = (Status.UNKNOWN, Reason.HTTP, 0)
FAILED: Said = (Status.FAILED, Reason.HTTP, 0)
POISON: Said = (Status.FAILED, Reason.POISON, 4)


class Nodes:
    """Takes what it has connections for; keeps what it took until a test says what becomes of it."""

    def __init__(self, connections: int = 10**9) -> None:
        self.nodes = NODES
        self.connections = connections
        self.taken: deque[np.void] = deque()
        self.sent: list[tuple[int, int]] = []  # (id, node) of every attempt

    def owners(self) -> NDArray[np.int64]:
        return np.arange(SHARDS, dtype=np.int64) % NODES

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        count = max(min(len(batch), self.connections - len(self.taken)), 0)
        assert (batch["node"] == node).all()
        self.taken.extend(batch[:count].copy())
        self.sent += [(int(number), node) for number in batch["id"][:count]]
        return count

    def poll(self, outcomes: NDArray[np.void]) -> int:
        raise AssertionError(f"polled for {len(outcomes)}")

    def returned(self) -> list[int]:
        return []

    def wait(self, timeout_s: float) -> None:
        raise AssertionError(f"waited for {timeout_s} s")


class Desk:
    """A dispatcher that tries again, over scripted nodes."""

    def __init__(
        self, client: dict[str, Any], *, connections: int = 10**9, in_flight: int = 64, policy: str = "round_robin",
        receipts: bool = False, patience_ns: int = FOREVER, circuit: int | None = None, requests_max: int = 10**9,
    ) -> None:  # fmt: skip
        self.backend = Nodes(connections)
        self.tallies = open_tallies(seconds_grid(SECONDS), NODES, SHARDS, fine=True)
        self._rows = bytearray()
        balancer: dict[str, Any] = {"policy": policy, "circuit": {"requests": circuit} if circuit else {}}
        asked = Client.model_validate(client)
        self.dispatcher = Dispatcher(
            self.backend, Balancer.model_validate(balancer), 1, self.tallies, Recorder(SECONDS, NODES),
            in_flight=in_flight, patience_ns=patience_ns, write=self._rows.extend, when_full=WhenFull.WAIT,
            retry=retry_policy(asked, 1, receipts=receipts, requests_max=requests_max),
        )  # fmt: skip

    def release(self, count: int = 1, now_ns: int = 0, *, first: int = 1) -> None:
        batch = np.zeros(count, TRANSACTION)
        batch["id"] = np.arange(first, first + count)
        batch["intended_ns"] = now_ns
        batch["kind"] = Kind.PAYMENT
        batch["payer"] = batch["id"] * 3 % 50
        batch["payee"] = 60
        batch["amount_minor"] = 100
        self.dispatcher.release(batch, now_ns)

    def answer(self, now_ns: int, *said: Said) -> None:
        """What became of the attempts that were sent first, one each."""
        outcomes = np.zeros(len(said), OUTCOME)
        for row, (status, reason, lsn) in zip(outcomes, said, strict=True):
            asked = self.backend.taken.popleft()
            row["id"], row["slot"], row["shard"] = asked["id"], asked["slot"], int(asked["payer"]) % SHARDS
            row["status"], row["reason"], row["lsn"] = status, reason, lsn
        self.dispatcher.settle(outcomes, now_ns)

    def turn(self, now_ns: int) -> None:
        self.dispatcher.push_held(now_ns)

    def rows(self) -> NDArray[Any]:
        self.dispatcher.flush()
        return np.frombuffer(bytes(self._rows), HISTORY)

    @property
    def ends(self) -> list[tuple[Status, Reason]]:
        """Of the transactions that ended, in that order."""
        return [(Status(int(r["status"])), Reason(int(r["kind_reason"]) >> 3)) for r in self.rows()]

    @property
    def attempts(self) -> list[int]:
        """As the history has them."""
        return [(int(flags) >> ATTEMPTS_SHIFT) + 1 for flags in self.rows()["flags"]]

    def count(self, which: ClientCount) -> int:
        return int(self.tallies.client[which])


def retries(**keys: Any) -> dict[str, Any]:  # noqa: ANN401  whatever a scenario may say
    return {"retries": {"backoff": "10ms", "jitter": "none", **keys}}


def tries(desk: Desk, *said: Said) -> None:
    """One transaction, answered so, a second later each time, as often as it is sent."""
    desk.release()
    for second, answer in enumerate(said, 1):
        if not desk.backend.taken:
            return
        desk.answer(second * S, answer)
        desk.turn(second * S + S // 2)


# ---- which answers ----


@pytest.mark.parametrize(
    "said", [OK, FUNDS, POISON, (Status.REJECTED, Reason.STATE, 0), (Status.REJECTED, Reason.LIMIT, 5)]
)
def test_what_is_decided_is_never_asked_again(said: Said) -> None:
    desk = Desk(retries(max=5))
    tries(desk, said, OK)
    assert len(desk.backend.sent) == 1
    assert desk.ends == [said[:2]]


@pytest.mark.parametrize(
    ("on", "again"),
    [
        ("refused", {FULL, (Status.REJECTED, Reason.LIMIT, 0)}),
        ("timeout", {LATE}),
        ("error", {CUT, ERROR, NOBODY, FAILED, (Status.UNKNOWN, Reason.GARBAGE, 0)}),
    ],
)
def test_what_may_be_tried_again_is_what_the_scenario_says(on: str, again: set[Said]) -> None:
    every = {
        FULL,
        LATE,
        CUT,
        ERROR,
        NOBODY,
        FAILED,
        (Status.REJECTED, Reason.LIMIT, 0),
        (Status.UNKNOWN, Reason.GARBAGE, 0),
    }
    found = set()
    for said in every:
        desk = Desk(retries(on=[on]))
        tries(desk, said, OK)
        assert len(desk.backend.sent) in (1, 2)
        if len(desk.backend.sent) == 2:
            found.add(said)
            assert desk.ends == [(Status.OK, Reason.NONE)]
        else:
            assert desk.ends == [said[:2]]
    assert found == again


def test_without_a_word_nothing_is_tried_again() -> None:
    assert retry_policy(Client(), 1, receipts=False, requests_max=1) is None
    desk = Desk({})
    tries(desk, FULL, OK)
    assert desk.ends == [(Status.REJECTED, Reason.OVERFLOW)]
    assert desk.dispatcher.next_retry_ns == NEVER_NS


# ---- one end ----


@given(said=st.lists(st.sampled_from([OK, FULL, NOBODY, FUNDS, LATE, CUT, ERROR, FAILED]), min_size=4, max_size=4))
@law
def test_a_transaction_ends_as_its_last_attempt_says_unless_that_decides_nothing_and_an_earlier_one_is_in_doubt(
    said: list[Said],
) -> None:
    desk = Desk(retries(max=3, backoff="1ms"))
    tries(desk, *said)
    decided = [OK, FUNDS]
    used = next((n for n, answer in enumerate(said, 1) if answer in decided), 4)
    last, before = said[used - 1], said[:used]
    doubt = next((answer for answer in before if answer[0] == Status.UNKNOWN), None)
    expected = last if doubt is None or last in decided or last[0] == Status.UNKNOWN else doubt
    assert desk.ends == [expected[:2]]
    assert desk.attempts == [used] == [len(desk.backend.sent)]
    assert {number for number, _ in desk.backend.sent} == {1}
    # Nothing is left over anywhere.
    assert desk.dispatcher.in_flight == 0
    assert desk.tallies.in_flight.tolist() == [0] * NODES
    assert desk.tallies.shard_in_flight.tolist() == [0] * SHARDS
    assert int(desk.tallies.offered.sum()) == int(desk.tallies.sent.sum()) == 1
    assert int(desk.tallies.retried.sum()) == used - 1
    assert int(desk.tallies.node_sent.sum()) == int(desk.tallies.attempt_ended.sum()) == used
    bad = [answer for answer in before if answer not in decided]
    assert int(desk.tallies.fine_failed.sum()) == len(bad)


def test_a_refusal_that_stands_nowhere_does_not_end_a_doubt_where_answers_tell_their_place() -> None:
    # The first attempt may still be on its way, and be decided otherwise than the second: a refusal was not remembered.
    not_found: Said = (Status.REJECTED, Reason.NOT_FOUND, 0)
    for receipts, expected in ((True, (Status.UNKNOWN, Reason.TIMEOUT)), (False, (Status.REJECTED, Reason.NOT_FOUND))):
        desk = Desk(retries(), receipts=receipts)
        tries(desk, LATE, not_found)
        assert desk.ends == [expected]
    desk = Desk(retries(), receipts=True)
    tries(desk, LATE, FUNDS)
    assert desk.ends == [(Status.REJECTED, Reason.FUNDS)]


def test_doubt_does_not_pass_on_to_the_next_transaction_in_the_slot() -> None:
    desk = Desk(retries())
    tries(desk, LATE, LATE)
    desk.backend.taken.clear()
    desk.release(1, 10 * S, first=2)
    desk.answer(11 * S, FULL)
    desk.turn(12 * S)
    desk.answer(13 * S, FULL)
    assert desk.ends == [(Status.UNKNOWN, Reason.TIMEOUT), (Status.REJECTED, Reason.OVERFLOW)]


def test_times_count_from_the_first_intended_instant() -> None:
    desk = Desk(retries(backoff="1s", longest="1s"))
    desk.release(1, S)
    desk.answer(2 * S, FULL)
    desk.turn(3 * S)
    desk.answer(5 * S, OK)
    for measure in (RESPONSE, SERVICE):  # intended and first fired at 1 s
        total = desk.tallies.totals[measure]
        assert total.sum() == 1
        assert Histogram(total).max_ns == pytest.approx(4 * S, rel=1e-3)


# ---- when ----


def test_the_backoff_grows_to_its_bound_and_is_kept() -> None:
    desk = Desk(retries(max=4, factor=2.0, longest="25ms"))
    desk.release()
    now, waits = 0, []
    for _ in range(4):
        desk.answer(now, FULL)
        due = desk.dispatcher.next_retry_ns
        waits.append((due - now) // MS)
        desk.turn(due - 1)
        assert not desk.backend.taken
        desk.turn(due)
        assert len(desk.backend.taken) == 1
        now = due
    assert waits == [10, 20, 25, 25]


@pytest.mark.parametrize(("jitter", "least"), [("full", 0), ("equal", 5 * MS)])
def test_jitter_spreads_retries_within_its_bounds(jitter: str, least: int) -> None:
    desk = Desk(retries(jitter=jitter), in_flight=2_048)
    desk.release(500)
    desk.answer(S, *[FULL] * 500)
    due: list[int] = []
    while (at := desk.dispatcher.next_retry_ns) != NEVER_NS:
        desk.turn(at)
        due += [at - S] * (len(desk.backend.sent) - 500 - len(due))
    assert len(due) == 500
    assert least <= min(due) < least + MS
    assert 9 * MS < max(due) < 10 * MS
    assert len(set(due)) > 490


def test_nothing_is_tried_again_past_the_deadline() -> None:
    desk = Desk({**retries(backoff="1s", longest="1s"), "timeout": "1s", "deadline": "3s"})
    desk.release(2, 0)
    desk.answer(S, FULL)
    desk.answer(2 * S, FULL)  # due at 3 s: too late
    assert desk.ends == [(Status.REJECTED, Reason.OVERFLOW)]
    desk.turn(2 * S)
    desk.answer(3 * S, LATE)
    assert desk.ends[1] == (Status.UNKNOWN, Reason.TIMEOUT)
    assert desk.count(ClientCount.DEADLINES) == 2


# ---- where ----


@pytest.mark.parametrize("policy", ["random", "round_robin"])
def test_a_retry_goes_to_another_node_where_the_policy_is_free_to(policy: str) -> None:
    desk = Desk(retries(), policy=policy, in_flight=2_048)
    desk.release(600)
    desk.answer(S, *[FULL] * 600)
    desk.turn(2 * S)
    first, second = dict(desk.backend.sent[:600]), dict(desk.backend.sent[600:])
    same = sum(first[number] == second[number] for number in first)
    # Picked anew once if it is the same: of three nodes at random a ninth stays.
    assert same < 600 / 5
    assert sorted(second) == list(range(1, 601))


def test_with_affinity_the_first_pick_stands() -> None:
    desk = Desk(retries(), policy="affinity", in_flight=2_048)
    desk.release(90)
    desk.answer(S, *[FULL] * 90)
    desk.turn(2 * S)
    assert dict(desk.backend.sent[:90]) == dict(desk.backend.sent[90:])


def test_where_the_balancer_has_no_node_the_transaction_ends_with_the_answer_that_it_has() -> None:
    desk = Desk(retries(), circuit=2)
    desk.release(2)
    desk.answer(S, LATE)
    desk.release(1, S + 1, first=3)  # takes the place that became free
    desk.turn(2 * S)
    assert desk.ends == [(Status.UNKNOWN, Reason.TIMEOUT)]
    assert desk.count(ClientCount.NO_NODE) == 1
    assert int(desk.tallies.in_flight.sum()) == 2


# ---- how often ----


def test_a_budget_of_tokens_is_earned_by_transactions_and_spent_by_retries() -> None:
    budget = {"ratio": 0.1, "min_per_s": 0.0}
    desk = Desk(retries(budget=budget), in_flight=2_048)
    desk.release(100, S)
    desk.answer(S, *[FULL] * 100)
    desk.turn(2 * S)
    assert len(desk.backend.sent) == 110
    assert desk.count(ClientCount.OVER_BUDGET) == 90


def test_a_budget_of_the_active_counts_retries_that_wait_and_those_in_flight() -> None:
    budget = {"kind": "active", "share": 0.2, "least": 3}
    desk = Desk(retries(max=2, budget=budget), in_flight=2_048)
    desk.release(11)
    desk.answer(S, *[FULL] * 5)
    assert desk.count(ClientCount.OVER_BUDGET) == 2  # 3 wait
    desk.turn(2 * S)
    desk.answer(3 * S, FULL)
    assert desk.count(ClientCount.OVER_BUDGET) == 3  # 3 are in flight
    for _ in range(8):
        desk.answer(4 * S, OK)
    assert desk.dispatcher.in_flight == 0
    desk.release(1, 5 * S, first=12)
    desk.answer(6 * S, FULL)
    assert desk.count(ClientCount.OVER_BUDGET) == 3  # what has ended has given its place back


def test_processes_share_what_a_budget_has_in_any_case() -> None:
    client = Client.model_validate(retries(budget={"kind": "active", "share": 0.0, "least": 5}))
    policy = retry_policy(client, 1, receipts=False, requests_max=101, parts=2)
    assert policy is not None
    assert policy.requests_max == 50
    assert policy.budgets[0, 1] == 3
    tokens = Client.model_validate(retries(budget={"min_per_s": 10.0, "ttl": "10s"}))
    shared = retry_policy(tokens, 1, receipts=False, requests_max=1, parts=4)
    assert shared is not None
    assert shared.budgets[0, 1] == 25.0


def test_as_many_may_wait_as_half_of_the_table_and_what_comes_beyond_ends_with_its_answer() -> None:
    desk = Desk(retries(), in_flight=64)
    desk.release(40)
    desk.answer(S, *[FULL] * 40)
    assert desk.count(ClientCount.NO_ROOM) == 8
    assert desk.ends == [(Status.REJECTED, Reason.OVERFLOW)] * 8
    desk.turn(2 * S)
    desk.answer(3 * S, *[OK] * 32)
    assert desk.dispatcher.in_flight == 0
    assert sorted(desk.rows()["id"].tolist()) == list(range(1, 41))


def test_no_more_requests_are_sent_than_a_run_may() -> None:
    desk = Desk(retries(max=5), requests_max=11)
    desk.release(10)
    desk.answer(S, FULL)
    desk.turn(2 * S)
    desk.answer(3 * S, *[FULL] * 10)
    assert desk.count(ClientCount.OVER_CAP) == 10
    assert len(desk.backend.sent) == 11


# ---- connections ----


def test_a_retry_that_finds_no_connection_waits_for_one_and_goes_before_what_is_new() -> None:
    desk = Desk(retries(), connections=1)
    desk.release(1)
    desk.release(2, 1, first=2)  # held back
    desk.answer(S, FULL)
    desk.backend.connections = 0
    desk.turn(2 * S)
    assert [number for number, _ in desk.backend.sent] == [1]
    desk.backend.connections = 1
    desk.turn(3 * S)
    assert [number for number, _ in desk.backend.sent] == [1, 1]
    assert int(desk.tallies.in_flight.sum()) == 3
    for _ in range(3):
        desk.answer(4 * S, OK)
        desk.turn(4 * S)
    assert desk.dispatcher.in_flight == 0
    assert sorted(zip(desk.rows()["id"].tolist(), desk.attempts, strict=True)) == [(1, 2), (2, 1), (3, 1)]


def test_a_retry_that_finds_no_connection_in_time_ends_with_the_answer_that_it_has() -> None:
    desk = Desk(retries(), patience_ns=5 * S)
    desk.release(1)
    desk.answer(S, FULL)
    desk.backend.connections = 0
    desk.turn(2 * S)
    desk.turn(7 * S)
    assert desk.ends == []
    desk.turn(7 * S + 1)
    assert desk.ends == [(Status.REJECTED, Reason.OVERFLOW)]
    assert desk.attempts == [1]
    assert desk.count(ClientCount.NO_CONNECTION) == 1
    assert desk.dispatcher.in_flight == 0
    assert desk.tallies.in_flight.tolist() == [0] * NODES


# ---- the end ----


def test_when_the_run_is_stopped_what_waits_ends_with_the_answer_that_it_has() -> None:
    desk = Desk(retries(max=5), connections=4)
    desk.release(4)
    desk.answer(S, FULL, LATE, FULL)
    desk.backend.connections = 2  # one is under way
    desk.turn(2 * S)
    assert len(desk.backend.sent) == 5
    desk.dispatcher.stop_retrying(3 * S)
    assert len(desk.ends) == 2
    desk.answer(4 * S, FULL, FULL)
    assert desk.dispatcher.in_flight == 0
    assert desk.dispatcher.next_retry_ns == NEVER_NS
    assert sorted(desk.ends) == [
        (Status.REJECTED, Reason.OVERFLOW), (Status.REJECTED, Reason.OVERFLOW), (Status.REJECTED, Reason.OVERFLOW),
        (Status.UNKNOWN, Reason.TIMEOUT),
    ]  # fmt: skip
    assert desk.tallies.in_flight.tolist() == [0] * NODES


def test_giving_up_leaves_nothing_behind() -> None:
    desk = Desk(retries(max=5), connections=5)
    desk.release(6)  # the last one is held back
    desk.answer(S, FULL, FULL)
    desk.backend.connections = 3
    desk.turn(2 * S)
    desk.dispatcher.give_up(3 * S, Status.UNKNOWN, Reason.TIMEOUT)
    assert desk.dispatcher.in_flight == 0
    assert sorted(desk.rows()["id"].tolist()) == list(range(1, 7))
    assert sorted(status for status, _ in desk.ends) == [Status.REJECTED] * 2 + [Status.UNKNOWN] * 3 + [Status.DROPPED]


# ---- figures ----


def test_amplification_is_attempts_over_transactions_of_all_and_by_node() -> None:
    desk = Desk(retries(max=2), in_flight=2_048)
    desk.release(300)
    desk.answer(S, *[FULL] * 150, *[OK] * 150)
    desk.turn(2 * S)
    desk.answer(3 * S, *[OK] * 150)
    told = attempts.client(desk.tallies)
    assert (told["attempts"], told["retries"], told["queue_full"], told["amplification"]) == (450, 150, 150, 1.5)
    nodes = attempts.by_node(desk.tallies)
    sent = desk.tallies.node_sent.sum(axis=0).tolist()
    assert sum(sent) == 450
    assert sum(node["retries"] for node in nodes) == sum(node["failed_attempts"] for node in nodes) == 150
    for node, every in zip(nodes, sent, strict=True):
        assert node["amplification"] == pytest.approx(every / (every - node["retries"]), abs=1e-6)


def test_without_retries_attempts_are_transactions_and_ended_as_these() -> None:
    desk = Desk({})
    desk.release(4)
    desk.answer(S, OK, LATE, FULL, NOBODY)
    told = attempts.client(desk.tallies)
    assert (told["attempts"], told["retries"], told["amplification"]) == (4, 0, 1.0)
    assert (told["timeouts"], told["queue_full"], told["node_down"]) == (1, 1, 1)


# ---- the heap ----


@given(steps=st.lists(st.one_of(st.integers(0, 50), st.none()), max_size=120))
@law
def test_what_waits_comes_out_by_its_time(steps: list[int | None]) -> None:
    waiting = open_waiting(256)
    model: list[int] = []
    for slot, due in enumerate(steps):
        if due is not None:
            push(waiting, due, slot)
            model.append(due)
        elif model:
            first = min(model)
            assert waiting.due_ns[0] == first
            assert steps[pop(waiting)] == first
            model.remove(first)
    assert sorted(waiting.due_ns[: int(waiting.held[0])].tolist()) == sorted(model)


@given(
    said=st.lists(
        st.lists(st.sampled_from([OK, FULL, LATE, FUNDS, CUT]), min_size=20, max_size=20), min_size=1, max_size=8
    ),
    connections=st.integers(1, 40),
)
@law
def test_every_transaction_ends_once_whatever_is_answered(said: list[list[Said]], connections: int) -> None:
    desk = Desk(retries(max=3, backoff="1ms"), connections=connections, in_flight=256)
    answers: Iterable[Said] = iter([answer for row in said for answer in row])
    now = 0
    for turn in range(len(said)):
        now += S
        desk.release(10, now, first=1 + 10 * turn)
        desk.turn(now)
        _answer_some(desk, now, answers)
    rest: Callable[[], int] = lambda: desk.dispatcher.in_flight  # noqa: E731  a name for what the loop waits for
    for _ in range(2_000):
        if not rest():
            break
        now += 10 * MS
        desk.turn(now)
        while desk.backend.taken:
            desk.answer(now, OK)
    assert rest() == 0
    assert sorted(desk.rows()["id"].tolist()) == list(range(1, 10 * len(said) + 1))
    assert sum(desk.attempts) == len(desk.backend.sent)
    assert max(desk.attempts) <= 4
    assert desk.tallies.in_flight.tolist() == [0] * NODES


def _answer_some(desk: Desk, now: int, answers: Any) -> None:  # noqa: ANN401  an iterator
    for _ in range(len(desk.backend.taken) // 2):
        desk.answer(now, next(answers, OK))
