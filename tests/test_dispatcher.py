from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.backend.backend import NoopBackend
from simulator.dispatcher import STAGE, Dispatcher
from simulator.ledger.digest import fingerprint
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram, index_of
from simulator.measure.recorder import ASKED, HISTORY, LAG, REORDERED, RESPONSE, SECOND, SERVICE, Recorder, open_tallies
from simulator.scenario.balancing import Balancer
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.backend.backend import Backend

S = 1_000_000_000
NODES, SHARDS, SECONDS = 2, 4, 30
FOREVER = 10**15

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels


class Silent:
    """Takes up to `room` transactions an offer and never answers; nobody may wait for it."""

    def __init__(self, room: int = 10**9) -> None:
        self.nodes = NODES
        self.room = room
        self.anywhere = False  # what is asked again goes to its owner, wherever it entered
        self.taken: list[NDArray[Any]] = []
        self.back: list[int] = []  # nodes that came back

    def owners(self) -> NDArray[np.int64]:
        return np.arange(SHARDS, dtype=np.int64) % NODES

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        count = min(len(batch), self.room)
        assert self.anywhere or (batch["node"] == node).all()
        self.taken.append(batch[:count].copy())
        return count

    def poll(self, outcomes: NDArray[np.void]) -> int:
        raise AssertionError(f"the dispatcher polled for {len(outcomes)} answers")

    def returned(self) -> list[int]:
        back, self.back = self.back, []
        return back

    def wait(self, timeout_s: float) -> None:
        raise AssertionError(f"the dispatcher waited for {timeout_s} s")

    @property
    def ids(self) -> list[int]:
        return [int(number) for batch in self.taken for number in batch["id"]]


class Desk:
    """A dispatcher with all that it writes to."""

    def __init__(
        self,
        backend: Backend,
        *,
        in_flight: int = 4_096,
        patience_ns: int = FOREVER,
        policy: str = "round_robin",
    ) -> None:
        self.tallies = open_tallies(seconds_grid(SECONDS), NODES, SHARDS)
        self.recorder = Recorder(SECONDS, NODES)
        self._rows = bytearray()
        self.dispatcher = Dispatcher(
            backend, Balancer.model_validate({"policy": policy}), 1, self.tallies, self.recorder,
            in_flight=in_flight, patience_ns=patience_ns, write=self._rows.extend,
        )  # fmt: skip

    def rows(self) -> NDArray[Any]:
        """The whole history."""
        self.dispatcher.flush()
        return np.frombuffer(bytes(self._rows), HISTORY)

    def history(self) -> NDArray[Any]:
        """The rows that tell how a transaction ended."""
        rows = self.rows()
        ends: NDArray[Any] = rows[(rows["flags"] & (SECOND | ASKED)) == 0]
        return ends

    def count(self, status: Status) -> int:
        return int(self.tallies.answered[:, status].sum())

    def reason(self, status: Status, reason: Reason) -> int:
        return int(self.tallies.by_reason[status, reason])

    @property
    def offered(self) -> int:
        return int(self.tallies.offered.sum())

    @property
    def sent(self) -> int:
        return int(self.tallies.sent.sum())


def batch_of(count: int, *, first: int = 1, intended_ns: int = 0) -> NDArray[Any]:
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(first, first + count)
    batch["intended_ns"] = intended_ns
    batch["kind"] = (batch["id"] % len(Kind)) + 1
    batch["payer"] = batch["id"] * 3 % 50
    batch["payee"] = 60
    batch["amount_minor"] = 100 + batch["id"]
    return batch


def answers_to(asked: NDArray[Any], status: Status = Status.OK, reason: Reason = Reason.NONE) -> NDArray[Any]:
    outcomes = np.zeros(len(asked), OUTCOME)
    outcomes["id"] = asked["id"]
    outcomes["slot"] = asked["slot"]
    outcomes["shard"] = asked["payer"] % SHARDS
    outcomes["lsn"] = asked["id"]
    outcomes["status"] = status
    outcomes["reason"] = reason
    return outcomes


def test_transactions_are_released_however_many_answers_are_missing() -> None:
    backend = Silent()
    desk = Desk(backend)
    for turn in range(3):
        desk.dispatcher.release(batch_of(1_000, first=1 + 1_000 * turn), 10)
    assert sorted(backend.ids) == list(range(1, 3_001))
    assert (desk.offered, desk.sent, desk.dispatcher.in_flight) == (3_000, 3_000, 3_000)
    assert desk.tallies.in_flight.tolist() == [1_500, 1_500]
    assert desk.tallies.answered.sum() == 0
    assert len(desk.history()) == 0


def test_a_transaction_goes_out_stamped_with_its_node_slot_and_time() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(6, intended_ns=5), 9)
    by_node = {int(batch["node"][0]): batch for batch in backend.taken}
    assert {node: batch["id"].tolist() for node, batch in by_node.items()} == {0: [1, 3, 5], 1: [2, 4, 6]}
    out = np.concatenate(backend.taken)
    assert (out["fired_ns"] == 9).all()
    assert len(set(out["slot"].tolist())) == 6
    expected = batch_of(6, intended_ns=5)
    out.sort(order="id")
    for name in ("id", "intended_ns", "kind", "payer", "payee", "amount_minor", "related"):
        assert np.array_equal(out[name], expected[name])


def test_affinity_sends_each_transaction_to_the_owner_of_its_payers_shard() -> None:
    backend = Silent()
    Desk(backend, policy="affinity").dispatcher.release(batch_of(200), 0)
    out = np.concatenate(backend.taken)
    assert np.array_equal(out["node"], out["payer"] % SHARDS % NODES)
    assert len(out) == 200


def test_what_finds_the_in_flight_table_full_is_dropped() -> None:
    backend = Silent()
    desk = Desk(backend, in_flight=8)
    desk.dispatcher.release(batch_of(20), 0)
    assert sorted(backend.ids) == list(range(1, 9))
    assert desk.reason(Status.DROPPED, Reason.IN_FLIGHT) == desk.count(Status.DROPPED) == 12
    assert (desk.offered, desk.sent) == (20, 8)
    first = np.concatenate(backend.taken)
    desk.dispatcher.settle(answers_to(first[:3]), 1)
    desk.dispatcher.release(batch_of(5, first=21), 2)
    assert desk.sent == 11
    assert desk.count(Status.DROPPED) == 14
    assert desk.dispatcher.in_flight == 8


def test_what_is_later_than_the_patience_is_dropped_and_what_is_just_in_time_is_sent() -> None:
    backend = Silent()
    desk = Desk(backend, patience_ns=1_000)
    desk.dispatcher.release(batch_of(4, intended_ns=500), 1_500)
    desk.dispatcher.release(batch_of(3, first=5, intended_ns=500), 1_501)
    assert sorted(backend.ids) == [1, 2, 3, 4]
    assert desk.reason(Status.DROPPED, Reason.LATE) == desk.count(Status.DROPPED) == 3
    assert (desk.offered, desk.sent) == (7, 4)


def test_what_the_backend_does_not_take_is_rejected_as_overflow() -> None:
    backend = Silent(room=5)
    desk = Desk(backend, in_flight=64)
    desk.dispatcher.release(batch_of(30), 7)
    assert len(backend.ids) == 10
    assert desk.reason(Status.REJECTED, Reason.OVERFLOW) == desk.count(Status.REJECTED) == 20
    assert (desk.sent, desk.dispatcher.in_flight) == (30, 10)
    assert sorted([*backend.ids, *desk.history()["id"].tolist()]) == list(range(1, 31))
    desk.dispatcher.release(batch_of(54, first=31), 8)  # their slots are free again
    assert desk.count(Status.DROPPED) == 0


def test_more_than_a_stage_at_once_goes_out_in_order() -> None:
    backend = Silent()
    total = 2 * NODES * STAGE + 5
    Desk(backend, in_flight=total).dispatcher.release(batch_of(total), 0)
    for node in range(NODES):
        ids = [int(number) for batch in backend.taken if batch["node"][0] == node for number in batch["id"]]
        assert ids == list(range(1 + node, total + 1, NODES))


@pytest.mark.parametrize(("status", "reason"), [(Status.UNKNOWN, Reason.TIMEOUT), (Status.FAILED, Reason.NODE_DOWN)])
def test_giving_up_settles_everything_still_in_flight(status: Status, reason: Reason) -> None:
    backend = Silent()
    total = STAGE + 100
    desk = Desk(backend, in_flight=total + 50)
    desk.dispatcher.release(batch_of(total), 0)
    desk.dispatcher.settle(answers_to(np.concatenate(backend.taken)[:60]), 1)
    desk.dispatcher.give_up(5, status, reason)
    assert desk.dispatcher.in_flight == 0
    assert desk.count(status) == desk.reason(status, reason) == total - 60
    assert desk.tallies.in_flight.tolist() == [0] * NODES
    assert desk.tallies.shard_in_flight.tolist() == [0] * SHARDS
    assert sorted(desk.history()["id"].tolist()) == list(range(1, total + 1))


def test_an_answer_to_nothing_in_flight_is_stray_and_changes_nothing_else() -> None:
    backend = Silent()
    desk = Desk(backend, in_flight=64)
    desk.dispatcher.release(batch_of(10), 0)
    out = np.concatenate(backend.taken)
    right = answers_to(out[:1])
    desk.dispatcher.settle(right, 1)
    before = desk.history()
    another_id, no_id, free_slot = answers_to(out[1:4])
    another_id["id"] = out["id"][2]
    no_id["id"] = 0
    free_slot["slot"] = 60
    free_slot["id"] = 0
    desk.dispatcher.settle(np.concatenate([right, np.array([another_id, no_id, free_slot], OUTCOME)]), 2)
    assert desk.tallies.stray[0] == 4
    assert np.array_equal(desk.history(), before)
    assert [key for key, _, _, _ in seconds(desk)] == [1, int(out["id"][2])]
    assert (desk.dispatcher.in_flight, desk.count(Status.OK)) == (9, 1)
    desk.dispatcher.give_up(3, Status.UNKNOWN, Reason.TIMEOUT)
    desk.dispatcher.settle(answers_to(out[1:]), 4)  # too late: given up already
    assert desk.tallies.stray[0] == 13
    assert desk.count(Status.UNKNOWN) == 9


def seconds(desk: Desk) -> list[tuple[int, int, int, int]]:
    """(id, position, status, reason) of each answer to nothing in flight."""
    rows = desk.rows()
    rows = rows[rows["flags"] == SECOND]
    return [(int(r["id"]), int(r["lsn"]), int(r["status"]), int(r["kind_reason"]) >> 3) for r in rows]


def test_a_second_answer_is_written_down_whatever_became_of_the_slot() -> None:
    backend = Silent()
    desk = Desk(backend, in_flight=4)
    desk.dispatcher.release(batch_of(2), 0)
    out = np.sort(np.concatenate(backend.taken), order="id")
    desk.dispatcher.settle(answers_to(out), 1)
    desk.dispatcher.settle(answers_to(out[:1], Status.REJECTED, Reason.FUNDS), 2)
    desk.dispatcher.release(batch_of(4, first=3), 3)  # their slots are taken again
    elsewhere = answers_to(out[1:])
    elsewhere["slot"] = 4_000_000_000  # and no such slot at all
    desk.dispatcher.settle(np.concatenate([answers_to(out[1:]), elsewhere]), 4)
    assert seconds(desk) == [(1, 1, Status.REJECTED, Reason.FUNDS), *[(2, 2, Status.OK, Reason.NONE)] * 2]
    assert desk.tallies.stray[0] == 3
    assert (desk.count(Status.OK), desk.dispatcher.in_flight) == (2, 4)


def test_second_answers_that_fill_the_history_buffer_are_all_kept() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(1), 0)
    answer = answers_to(np.concatenate(backend.taken))
    desk.dispatcher.settle(answer, 1)
    desk.dispatcher.settle(np.repeat(answer, 150_000), 2)
    assert seconds(desk) == [(1, 1, Status.OK, Reason.NONE)] * 150_000


def test_a_lookup_is_noted_when_it_goes_out_with_what_was_known_by_then() -> None:
    backend = Silent()
    desk = Desk(backend)
    batch = batch_of(3)
    batch["kind"] = [Kind.PAYMENT, Kind.LOOKUP, Kind.PAYMENT]
    batch["related"] = [0, 1, 0]
    batch["payer"] = 5
    desk.dispatcher.release(batch[:1], 0)
    desk.dispatcher.settle(answers_to(np.concatenate(backend.taken)), 1)
    desk.dispatcher.release(batch[1:], 2)
    rows = desk.rows()
    assert [(int(r["id"]), int(r["flags"])) for r in rows] == [(1, 0), (2, ASKED)]
    assert (int(rows[1]["fingerprint"]), int(rows[1]["lsn"]), int(rows[1]["shard"])) == (1, 5, 5 % SHARDS)


def test_what_a_node_that_came_back_may_have_lost_is_asked_again_unchanged_and_nothing_else() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(100, intended_ns=3), 7)
    out = np.sort(np.concatenate(backend.taken), order="id")
    desk.dispatcher.settle(answers_to(out[:40]), 8)
    desk.dispatcher.ask_again()
    assert len(backend.ids) == 100
    backend.taken, backend.back = [], [1]
    backend.anywhere = True
    desk.dispatcher.ask_again()
    again = np.sort(np.concatenate([np.zeros(0, TRANSACTION), *backend.taken]), order="id")
    owner = out["payer"] % SHARDS % NODES
    assert np.array_equal(again, out[40:][(out["node"] == 1)[40:] | (owner == 1)[40:]])
    assert desk.dispatcher.asked_again == len(again)
    assert (desk.sent, desk.dispatcher.in_flight) == (100, 60)
    backend.taken = []
    desk.dispatcher.ask_again()
    assert backend.taken == []


def test_what_finds_no_room_when_it_is_asked_again_is_asked_again_later() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(60), 0)
    backend.taken, backend.back, backend.room = [], [0, 1], 7
    backend.anywhere = True
    for _ in range(60):
        desk.dispatcher.ask_again()
    assert set(backend.ids) == set(range(1, 61))


def test_a_refusal_for_want_of_room_does_not_settle_what_was_asked_again() -> None:
    # The refused copy may be the one that waited elsewhere, while the other one is booked: only a decision settles it.
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(1), 0)
    asked = np.concatenate(backend.taken)
    backend.taken, backend.back, backend.anywhere = [], [0, 1], True
    desk.dispatcher.ask_again()
    refused = answers_to(asked, Status.REJECTED, Reason.OVERFLOW)
    refused["lsn"] = 0
    for _ in range(3):
        before = len(backend.ids)
        desk.dispatcher.settle(refused, 1)
        desk.dispatcher.settle(refused, 1)  # two copies refused: still one more try
        assert desk.dispatcher.in_flight == 1
        desk.dispatcher.ask_again()
        assert backend.ids[before:] == [1]
    desk.dispatcher.settle(answers_to(asked), 2)
    assert (desk.dispatcher.in_flight, desk.count(Status.OK), desk.count(Status.REJECTED)) == (0, 1, 0)


def test_a_limit_that_was_logged_is_a_decision_and_one_that_was_not_is_want_of_room() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(2), 0)
    asked = np.sort(np.concatenate(backend.taken), order="id")
    answers = answers_to(asked, Status.REJECTED, Reason.LIMIT)
    answers["lsn"] = [0, 5]
    desk.dispatcher.settle(answers, 1)
    assert desk.reason(Status.REJECTED, Reason.LIMIT) == 2
    assert int(desk.dispatcher.tallies.refused.sum()) == 1


def test_history_tells_how_each_transaction_ended() -> None:
    backend = Silent()
    desk = Desk(backend, in_flight=3)
    asked = batch_of(5)
    asked["related"] = [0, 9, 8, 7, 6]
    desk.dispatcher.release(asked.copy(), 0)
    out = np.sort(np.concatenate(backend.taken), order="id")
    desk.dispatcher.settle(answers_to(out[1:2]), 1)
    desk.dispatcher.settle(answers_to(out[2:], Status.REJECTED, Reason.FUNDS), 1)
    desk.dispatcher.give_up(2, Status.UNKNOWN, Reason.TIMEOUT)
    rows = desk.history()
    told = [(int(r["id"]), int(r["status"]), int(r["kind_reason"]) >> 3, int(r["lsn"])) for r in rows]
    assert told == [
        (4, Status.DROPPED, Reason.IN_FLIGHT, 0),
        (5, Status.DROPPED, Reason.IN_FLIGHT, 0),
        (2, Status.OK, Reason.NONE, 2),
        (3, Status.REJECTED, Reason.FUNDS, 3),
        (1, Status.UNKNOWN, Reason.TIMEOUT, 0),
    ]
    for row in rows:
        m = asked[int(row["id"]) - 1]
        assert (row["kind_reason"] & 7, row["shard"]) == (m["kind"], m["payer"] % SHARDS)
        said = (m["id"], m["amount_minor"], m["related"], m["payer"], m["payee"], m["kind"])
        assert row["fingerprint"] == np.uint64(fingerprint(*said))


def test_a_history_longer_than_its_buffer_is_written_whole_and_in_order() -> None:
    desk = Desk(Silent(), in_flight=1)
    total = 150_000
    desk.dispatcher.release(batch_of(total), 0)
    assert desk.history()["id"].tolist() == list(range(2, total + 1))


def found(histogram: Histogram) -> list[tuple[int, int]]:
    used = np.flatnonzero(histogram.counts)
    return [(int(i), int(histogram.counts[i])) for i in used]


def test_times_are_counted_from_the_stamps_given() -> None:
    backend = Silent()
    desk = Desk(backend)
    intended, fired, answered = 2 * S + 1_000, 2 * S + 251_000, 5 * S + 7_000_000
    desk.dispatcher.release(batch_of(1, intended_ns=intended), fired)
    desk.dispatcher.settle(answers_to(backend.taken[0]), answered)
    measured = desk.recorder.finish()
    node, kind = int(backend.taken[0]["node"][0]), int(backend.taken[0]["kind"][0])
    expected = {RESPONSE: answered - intended, SERVICE: answered - fired, LAG: fired - intended}
    for measure, value in expected.items():
        bucket = [(int(index_of(value)), 1)]
        assert found(Histogram(desk.tallies.totals[measure])) == bucket
        assert found(measured[measure].total()) == bucket
        assert found(measured[measure].by_node(node)) == bucket
        assert found(measured[measure].by_kind(kind - 1)) == bucket
        assert [second for second, _ in measured[measure].by_window()] == [2]  # of the intended time
    assert desk.tallies.offered[2] == desk.tallies.sent[2] == 1
    assert desk.tallies.answered[5, Status.OK] == 1
    assert desk.tallies.settled_ns[0] == answered


@pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED, Status.UNKNOWN])
def test_only_ok_answers_count_as_response_times(status: Status) -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(4), 10)
    desk.dispatcher.settle(answers_to(np.concatenate(backend.taken), status, Reason.FUNDS), 50)
    assert desk.tallies.totals[[RESPONSE, SERVICE]].sum() == 0
    assert desk.tallies.totals[LAG].sum() == 4
    assert desk.tallies.settled_minor.sum() == 0


def test_settled_value_is_what_moved_between_accounts() -> None:
    backend = Silent()
    desk = Desk(backend)
    batch = batch_of(50)
    desk.dispatcher.release(batch.copy(), 0)
    desk.dispatcher.settle(answers_to(np.concatenate(backend.taken)), 3 * S)
    moved = np.isin(batch["kind"], [Kind.PAYMENT, Kind.REFUND, Kind.POST])
    assert desk.tallies.settled_minor[3] == desk.tallies.settled_minor.sum() == batch["amount_minor"][moved].sum()
    assert desk.tallies.offered_minor[0] == batch["amount_minor"].sum()


def test_an_ok_at_or_before_a_position_acknowledged_when_it_was_fired_is_reordered() -> None:
    backend = Silent()
    desk = Desk(backend)
    batch = batch_of(4)
    batch["payer"] = [0, 0, 0, 1]  # the first three in one shard
    desk.dispatcher.release(batch[:1], 0)
    answer = answers_to(backend.taken[-1])
    answer["lsn"] = 50
    desk.dispatcher.settle(answer, 1)
    desk.dispatcher.release(batch[1:], 2)
    later = answers_to(np.sort(np.concatenate(backend.taken[1:]), order="id"))
    later["lsn"] = [51, 50, 1]
    desk.dispatcher.settle(later, 3)
    assert {int(row["id"]): int(row["flags"]) for row in desk.history()} == {1: 0, 2: 0, 3: REORDERED, 4: 0}


def test_a_position_given_out_again_after_a_power_loss_is_not_reordered_but_within_one_epoch_it_is() -> None:
    backend = Silent()
    desk = Desk(backend)
    batch = batch_of(5)
    batch["payer"], batch["kind"] = 0, Kind.PAYMENT

    def answered(key: int, lsn: int, epoch: int) -> None:
        out = np.concatenate(backend.taken)
        answer = answers_to(out[out["id"] == key])
        answer["lsn"], answer["epoch"] = lsn, epoch
        desk.dispatcher.settle(answer, 1)

    desk.dispatcher.release(batch[:1], 0)
    answered(1, 50, 0)
    desk.dispatcher.release(batch[1:3], 2)
    answered(2, 40, 1)  # the log has lost its end in the meantime
    answered(3, 51, 0)  # an answer of the life before that was still under way
    desk.dispatcher.release(batch[3:], 3)
    answered(4, 41, 1)
    answered(5, 40, 1)
    assert {int(row["id"]): int(row["flags"]) for row in desk.history()} == {1: 0, 2: 0, 3: 0, 4: 0, 5: REORDERED}


def test_answers_may_come_in_any_order_over_more_seconds_than_are_resident() -> None:
    backend = Silent()
    desk = Desk(backend)
    for second in range(25):
        desk.dispatcher.release(batch_of(10, first=1 + 10 * second, intended_ns=second * S), second * S)
    out = np.concatenate(backend.taken)
    shuffled = np.random.default_rng(3).permutation(len(out))
    desk.dispatcher.settle(answers_to(out[shuffled]), 27 * S)
    measured = desk.recorder.finish()
    for sparse in measured:
        assert {second: h.total for second, h in sparse.by_window()} == dict.fromkeys(range(25), 10)
    for second, histogram in measured.response.by_window():
        assert found(histogram) == [(int(index_of((27 - second) * S)), 10)]


def test_what_comes_after_the_last_second_counts_as_the_last() -> None:
    backend = Silent()
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(2, intended_ns=(SECONDS + 5) * S), (SECONDS + 6) * S)
    desk.dispatcher.settle(answers_to(np.concatenate(backend.taken)), (SECONDS + 7) * S)
    last = SECONDS - 1
    assert (desk.tallies.offered[last], desk.tallies.sent[last], desk.tallies.answered[last, Status.OK]) == (2, 2, 2)


def test_with_the_noop_backend_everything_is_ok() -> None:
    backend = NoopBackend(NODES, SHARDS)
    desk = Desk(backend)
    desk.dispatcher.release(batch_of(2_000), 5)
    outcomes = np.zeros(700, OUTCOME)
    while count := backend.poll(outcomes):
        desk.dispatcher.settle(outcomes[:count], 9)
    assert desk.count(Status.OK) == desk.sent == desk.offered == 2_000
    assert desk.tallies.stray[0] == desk.dispatcher.in_flight == 0
    assert not desk.history()["flags"].any()
    assert sorted(desk.history()["id"].tolist()) == list(range(1, 2_001))
    assert desk.tallies.in_flight_max.sum() == desk.tallies.in_flight_top.max() == 2_000


turns = st.lists(
    st.tuples(
        st.integers(0, 40),  # released
        st.integers(0, 30),  # how many the backend takes of an offer
        st.integers(0, 60),  # answered
        st.sampled_from([Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN]),
        st.integers(0, 4 * S),  # time that passes
        st.integers(0, 3 * S),  # how late the batch is
    ),
    max_size=20,
)


@law
@given(turns, st.integers(1, 64))
def test_whatever_happens_each_transaction_is_counted_and_written_once(
    steps: list[tuple[int, int, int, Status, int, int]], in_flight: int
) -> None:
    backend = Silent()
    desk = Desk(backend, in_flight=in_flight, patience_ns=2 * S)
    now, first = 3 * S, 1
    asked: list[NDArray[Any]] = []
    owed = np.zeros(0, TRANSACTION)
    for released, room, answered, status, passes, late in steps:
        now += passes
        backend.room, backend.taken = room, []
        batch = batch_of(released, first=first, intended_ns=now - late)
        first += released
        asked.append(batch.copy())
        desk.dispatcher.release(batch, now)
        owed = np.concatenate([owed, *backend.taken])
        assert desk.dispatcher.in_flight == len(owed) == desk.tallies.in_flight.sum() <= in_flight
        desk.dispatcher.settle(answers_to(owed[:answered], status), now + 1)
        owed = owed[answered:]
    desk.dispatcher.give_up(now, Status.UNKNOWN, Reason.TIMEOUT)
    everything = np.concatenate([np.zeros(0, TRANSACTION), *asked])
    ended = [desk.count(status) for status in (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN)]
    assert desk.offered == len(everything) == desk.sent + desk.count(Status.DROPPED)
    assert desk.sent == sum(ended)
    assert desk.tallies.node_sent.sum() == desk.sent
    assert desk.tallies.stray[0] == 0
    rows = desk.history()
    assert sorted(rows["id"].tolist()) == everything["id"].tolist()
    for status in Status:
        mine = rows[rows["status"] == status]
        assert len(mine) == desk.count(status) == desk.tallies.by_reason[status].sum()
        for kind in Kind:
            of_kind = np.count_nonzero(mine["kind_reason"] & 7 == kind)
            if status != Status.PENDING:
                assert desk.tallies.by_kind[kind - 1, status] == of_kind
    for kind in Kind:
        assert desk.tallies.by_kind[kind - 1, Status.PENDING] == np.count_nonzero(everything["kind"] == kind)
    measured = desk.recorder.finish()
    assert measured.lag.total().total == desk.sent
    assert measured.response.total().total == measured.service.total().total == desk.count(Status.OK)
