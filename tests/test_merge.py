"""The merged record of n parts is the record of the whole."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.dispatcher import Dispatcher
from simulator.engine.generators import PartDispatcher, Share, open_shared
from simulator.measure.answerers import NAMES_MAX, Answerers
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import COUNTS
from simulator.measure.merge import UPPER_BOUNDS, LastSecond, add_measured, add_tallies, nothing_measured
from simulator.measure.recorder import HISTORY, KINDS, RESPONSE, Measured, Recorder, Tallies, open_tallies
from simulator.scenario.balancing import Balancer
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status
from simulator.workload.hot_keys import HotKeys

S = 1_000_000_000
NODES, SHARDS, SECONDS = 2, 4, 14  # more seconds than histograms are resident
LATEST = SECONDS * S

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels


class Told(NamedTuple):
    """A transaction, when it is released, and what becomes of it."""

    intended_ns: int
    late_ns: int
    served_ns: int | None  # None: no answer ever comes
    status: Status
    kind: Kind
    related: int  # how many before it is what it refers to; 0: none


class Takes:
    """Takes everything; the test answers."""

    nodes = NODES

    def owners(self) -> Any:  # noqa: ANN401  an array
        return np.arange(SHARDS, dtype=np.int64) % NODES

    def offer(self, node: int, batch: Any) -> int:  # noqa: ANN401  TRANSACTION rows
        assert (batch["node"] == node).all()
        return len(batch)

    def poll(self, outcomes: Any) -> int:  # noqa: ANN401  OUTCOME rows
        raise AssertionError(f"the dispatcher polled for {len(outcomes)} answers")

    def returned(self) -> list[int]:
        return []

    def wait(self, timeout_s: float) -> None:
        raise AssertionError(f"the dispatcher waited for {timeout_s} s")


class Record(NamedTuple):
    tallies: Tallies
    measured: Measured
    history: Any  # HISTORY rows, by id


def transactions_of(told: list[Told]) -> Any:  # noqa: ANN401  TRANSACTION rows
    batch = np.zeros(len(told), TRANSACTION)
    batch["id"] = np.arange(1, len(told) + 1)
    for row, one in zip(batch, told, strict=True):
        row["intended_ns"] = one.intended_ns
        row["kind"] = one.kind
        row["related"] = max(int(row["id"]) - one.related, 0) if one.related else 0
        row["payer"] = int(row["id"]) * 7 % 40
        row["payee"] = 40 + int(row["id"]) % 3
        row["amount_minor"] = 100 + int(row["id"])
    return batch


def record(told: list[Told], share: Share | None = None) -> Record:
    """What one generator writes down when it is released and answered as told; None: the only one there is."""
    tallies, recorder, rows = (
        open_tallies(seconds_grid(SECONDS), NODES, SHARDS, fine=True),
        Recorder(SECONDS, NODES),
        bytearray(),
    )
    dispatcher = (Dispatcher if share is None else partial(PartDispatcher, open_shared(tallies)))(
        Takes(), Balancer.model_validate({"policy": "affinity"}), 1, tallies, recorder, in_flight=1_024, patience_ns=2 * S,
        write=rows.extend, hot=HotKeys(40, 1),
    )  # fmt: skip
    batch = transactions_of(told)
    mine = np.ones(len(batch), np.bool_) if share is None else share.takes(batch)
    events = sorted(
        (at, number, what)
        for number, one in enumerate(told)
        if mine[number]
        for what, at in enumerate((one.intended_ns + one.late_ns, one.intended_ns + one.late_ns + (one.served_ns or 0)))
    )
    slots: dict[int, int] = {}
    for at, number, what in events:
        if what == 0:
            dispatcher.release(batch[number : number + 1], at)
            slots[number] = int(batch[number]["slot"])
        elif told[number].served_ns is not None and told[number].late_ns <= 2 * S:
            outcome = np.zeros(1, OUTCOME)
            outcome["id"], outcome["slot"], outcome["status"] = number + 1, slots.pop(number), told[number].status
            dispatcher.settle(outcome, at)
    dispatcher.give_up(LATEST, Status.UNKNOWN, Reason.TIMEOUT)
    dispatcher.flush()
    return Record(tallies, recorder.finish(), np.sort(np.frombuffer(bytes(rows), HISTORY), order="id"))


scripts = st.lists(
    st.builds(
        Told,
        st.integers(0, 9 * S),
        st.one_of(st.just(0), st.integers(0, 5_000_000), st.integers(0, 3 * S)),
        st.one_of(st.none(), st.integers(1, 2 * S), st.integers(1, 20_000_000)),
        st.sampled_from([Status.OK, Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN]),
        st.sampled_from([Kind.PAYMENT, Kind.REFUND, Kind.AUTHORIZE, Kind.POST, Kind.VOID]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@law
@given(scripts, st.integers(1, 5))
def test_the_merged_record_of_n_parts_is_the_record_of_the_whole(told: list[Told], n: int) -> None:
    told.sort(key=lambda one: one.intended_ns)
    whole, alone = record(told), record(told, Share(0, 1))
    parts = [record(told, Share(number, n)) for number in range(n)]
    merged = open_tallies(seconds_grid(SECONDS), NODES, SHARDS, fine=True)
    add_tallies([part.tallies for part in parts], merged)
    for name in Tallies._fields:
        one, many = getattr(whole.tallies, name), getattr(merged, name)
        if name in UPPER_BOUNDS:
            assert (many >= one).all(), name
            most = getattr(alone.tallies, name)
            assert (many >= most).all(), name
            assert all((most >= getattr(part.tallies, name)).all() for part in parts), name
        elif name not in ("last_second_ns", "fine_ns"):
            assert (one == many).all(), name
    once, together = add_measured([whole.measured]), add_measured([part.measured for part in parts])
    for one, many in zip(once, together, strict=True):
        assert (one.windows, one.kinds, one.nodes) == (many.windows, many.kinds, many.nodes)
        for name in ("cells", "starts", "pairs"):
            assert (getattr(one, name) == getattr(many, name)).all(), name
        assert (np.diff(many.cells.astype(np.int64)) > 0).all()
    rows = np.sort(np.concatenate([part.history for part in parts]), order="id")
    assert (rows == whole.history).all()


@law
@given(scripts, st.integers(1, 5))
def test_whatever_was_offered_was_sent_or_dropped_and_what_was_sent_has_one_end(told: list[Told], n: int) -> None:
    told.sort(key=lambda one: one.intended_ns)
    merged = open_tallies(seconds_grid(SECONDS), NODES, SHARDS, fine=True)
    add_tallies([record(told, Share(number, n)).tallies for number in range(n)], merged)
    by_status = merged.by_kind.sum(axis=0)
    assert by_status[Status.PENDING] == merged.offered.sum() == len(told)
    assert merged.sent.sum() == len(told) - by_status[Status.DROPPED]
    assert merged.sent.sum() == by_status[[Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN]].sum()


def test_a_generator_without_cpu_time_to_spare_is_not_hidden_by_the_others() -> None:
    parts = [open_tallies(seconds_grid(3), 1, 1) for _ in range(3)]
    for part, busy in zip(parts, (100_000_000, 990_000_000, 200_000_000), strict=True):
        part.cpu_ns[1] = busy
    merged = open_tallies(seconds_grid(3), 1, 1)
    add_tallies(parts, merged)
    assert merged.cpu_ns.tolist() == [0, 990_000_000, 0]


def test_a_part_of_which_nothing_is_left_adds_nothing() -> None:
    told = [Told(number * 1_000, 0, 5_000_000, Status.OK, Kind.PAYMENT, 0) for number in range(10)]
    some = record(told).measured
    once, both = add_measured([some]), add_measured([some, nothing_measured(SECONDS, KINDS, NODES)])
    assert all((one.pairs == two.pairs).all() for one, two in zip(once, both, strict=True))


def test_the_second_before_is_read_off_what_came_in_it_over_all_parts() -> None:
    whole, last = open_tallies(seconds_grid(10), 1, 1), LastSecond()
    whole.totals[RESPONSE, 1_000] += 5  # below 2,048 ns a bucket is a value
    last.look(whole, S // 2)
    assert whole.last_second_ns.tolist() == [0, 0, 0, 0]
    last.look(whole, S)
    assert whole.last_second_ns.tolist() == [1_000, 1_000, 1_000, 1]
    whole.totals[RESPONSE, 2_000] += 99
    whole.totals[RESPONSE, 2_001] += 1
    last.look(whole, S + S // 2)
    assert whole.last_second_ns[3] == 1
    last.look(whole, 2 * S + 1)
    assert whole.last_second_ns.tolist() == [2_000, 2_000, 2_001, 2]


# ---- who answered ----

answers = st.lists(
    st.tuples(st.sampled_from([b"", b"a", b"b", b"gateway-1", b"\xff"]), st.integers(0, 2 * S - 1), st.integers(0, S)),
    max_size=40,
)


@given(answers, st.integers(1, 4))
def test_who_answered_is_the_same_counted_apart_or_together(noted: list[tuple[bytes, int, int]], n: int) -> None:
    noted.sort(key=lambda one: one[1])
    whole, parts = Answerers(2), [Answerers(2) for _ in range(n)]
    for number, one in enumerate(noted):
        whole.note(*one)
        parts[number % n].note(*one)
    merged = Answerers.merged(parts)
    assert sorted(merged.names) == sorted(whole.names)
    for at, name in enumerate(merged.names):
        there = whole.names.index(name)
        assert (merged.by_window[:, at] == whole.by_window[:, there]).all()
        assert (merged.service_of(at) == whole.service_of(there)).all()
    assert (merged.nobody == whole.nobody).all()


@pytest.mark.parametrize("own", [10, NAMES_MAX, NAMES_MAX + 5])
def test_names_beyond_the_bound_join_the_others_and_none_is_lost(own: int) -> None:
    parts = [Answerers(1) for _ in range(3)]
    for part_number, part in enumerate(parts):
        for number in range(own):
            part.note(b"%d-%d" % (part_number, number), number, 1_000)
    merged = Answerers.merged(parts)
    assert merged.by_window.sum() == 3 * own
    assert len(merged.names) == (3 * own if 3 * own <= NAMES_MAX else NAMES_MAX + 1)
    assert sum(int(merged.service_of(at).sum()) for at in range(len(merged.names))) == 3 * own
    assert merged.service.shape[1] == COUNTS
