"""Several generators of one schedule: who sends what, where they stop, and what is told of one that is gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.backend.backend import NoopBackend
from simulator.engine.generators import (
    GeneratorEngine,
    PartDispatcher,
    PartSource,
    Phase,
    Share,
    Shared,
    Word,
    open_shared,
)
from simulator.engine.lost_part import account_for, correct, recover_history
from simulator.engine.wall import Stop
from simulator.ledger.digest import fingerprint
from simulator.measure.grid import seconds_grid
from simulator.measure.recorder import HISTORY, Recorder, open_tallies
from simulator.scenario.balancing import Balancer
from simulator.scenario.model import Scenario
from simulator.shard.split import unsplit
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status
from simulator.workload.build import build_source
from simulator.workload.hot_keys import HotKeys

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

S = 1_000_000_000
SECONDS, SHARDS = 8, 4
HOT = HotKeys(500, 1)

law = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scenario(**more: Any) -> Scenario:  # noqa: ANN401  any key
    return Scenario.from_data(
        {
            "name": "parts", "duration": "2s", "seed": 11,
            "load": {
                "rate": "1500/s", "accounts": 500, "merchants": {"count": 20},
                "mix": {"payment": 70, "refund": 15, "authorize": 15}, "follow_up": {"after": "100ms", "void_share": 0.3},
            },
            "backend": {"noop": {}}, **more,
        }
    )  # fmt: skip


def everything(source: Any, block: int = 512) -> NDArray[Any]:  # noqa: ANN401  a Source
    batch, found = np.zeros(block, TRANSACTION), [np.zeros(0, TRANSACTION)]
    while made := source.fill(batch):
        found.append(batch[:made].copy())
    return np.concatenate(found)


# ---- who sends what ----


@pytest.mark.parametrize("n", [1, 2, 3, 16])
def test_n_generators_send_exactly_the_transactions_of_one(n: int) -> None:
    whole = everything(build_source(scenario()))
    parts = [everything(PartSource(build_source(scenario()), Share(number, n), block=700)) for number in range(n)]
    assert (np.sort(np.concatenate(parts), order="id") == whole).all()
    for part in parts:
        assert (np.diff(part["id"].astype(np.int64)) > 0).all()
        assert len(part) > len(whole) / n / 2  # each sees the whole curve


def test_what_refers_to_another_transaction_goes_out_where_that_one_did() -> None:
    whole = everything(build_source(scenario()))
    assert (whole["related"] != 0).sum() > 100
    for number in range(3):
        part = whole[Share(number, 3).takes(whole)]
        named = part["related"][part["related"] != 0]
        assert np.isin(named, part["id"]).all()


@given(st.integers(1, 16), st.integers(1, 100_000))
def test_the_parts_of_a_limit_add_up_to_it(of: int, limit: int) -> None:
    parts = [Share(number, of).of_limit(limit) for number in range(of)]
    assert min(parts) >= 1
    assert max(parts) - min(parts) <= 1
    assert sum(parts) == max(limit, of)


def test_each_generator_balances_by_a_seed_of_its_own_and_one_alone_by_the_runs() -> None:
    seeds = [Share(number, 16).seed(7) for number in range(16)]
    assert len(set(seeds)) == 16
    assert Share(0, 1).seed(7) == 7
    assert seeds == [Share(number, 16).seed(7) for number in range(16)]


# ---- where they stop ----


class Watch:
    """A clock that a test moves, and a backend whose waiting moves it."""

    def __init__(self) -> None:
        self.now = 0
        self.moments: list[Any] = []  # (ns, what to do then)

    def now_ns(self) -> int:
        return self.now


class Waits(NoopBackend):
    """Time passes only while the engine waits; whatever is due happens then."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(1, SHARDS)
        self._watch = watch

    def wait(self, timeout_s: float) -> None:
        self._watch.now += max(int(timeout_s * S), 1)
        while self._watch.moments and self._watch.moments[0][0] <= self._watch.now:
            self._watch.moments.pop(0)[1]()


class Bench:
    """One generator in this process."""

    def __init__(self, folder: Path, share: Share = Share(0, 2), *, in_flight: int = 4_096) -> None:  # noqa: B008  immutable
        self.share = share
        self.watch = Watch()
        self.backend = Waits(self.watch)
        self.shared = open_shared(open_tallies(seconds_grid(SECONDS), 1, SHARDS, fine=True))
        self.stop, self.before = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.path = folder / f"history-{share.number}-{share.of}.bin"
        self._file = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
        os.posix_fallocate(self._file, 0, 400_000)  # as an engine does
        self._size = 0
        self.dispatcher = PartDispatcher(
            self.shared, self.backend, Balancer(), share.seed(11), self.shared.tallies, Recorder(SECONDS, 1),
            in_flight=in_flight, patience_ns=5 * S, write=self.write, split=unsplit(SHARDS), hot=HOT,
        )  # fmt: skip
        self.asked: list[str] = []
        self.engine = GeneratorEngine(
            self.dispatcher, self.source(), self.watch, self.stop, drain_ns=S, words=self.shared.words, before=self.before,
            may_open=lambda: self.asked.append("open"),
        )  # fmt: skip

    def source(self) -> PartSource:
        return PartSource(build_source(scenario()), self.share)

    def write(self, rows: memoryview) -> None:
        self._size += os.pwrite(self._file, rows, self._size)

    def close(self) -> None:
        """As a process ends that nobody asked to."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def rows(self) -> NDArray[Any]:
        self.close()
        return np.fromfile(self.path, HISTORY, self._size // HISTORY.itemsize)

    def word(self, word: Word) -> int:
        return int(self.shared.words[word])


def test_a_generator_opens_when_it_is_its_turn(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.prepare()
    bench.close()
    assert bench.asked == ["open"]


def test_a_generator_that_nobody_stops_sends_all_of_its_part(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.run()
    assert bench.word(Word.PHASE) == Phase.SENT
    mine = everything(bench.source())
    assert sorted(bench.rows()["id"].tolist()) == mine["id"].tolist()
    assert bench.word(Word.REACHED) == mine["id"][-1]
    assert bench.word(Word.WRITTEN) == len(mine)


@law
@given(st.integers(0, 3 * S), st.integers(0, 1_200), st.sampled_from([Stop.DRAIN, Stop.GIVE_UP]))
def test_after_a_stop_a_generator_releases_up_to_where_the_farthest_one_came_and_no_farther(
    tmp_path: Path, at_ns: int, ahead: int, how: Stop
) -> None:
    bench = Bench(tmp_path, Share(1, 3))

    def halt() -> None:
        bench.stop[0] = how
        bench.watch.moments.append((bench.watch.now + 1, tell))

    def tell() -> None:
        if bench.word(Word.PHASE) == Phase.SENDING:
            bench.watch.moments.append((bench.watch.now + 1, tell))
        elif bench.word(Word.PHASE) == Phase.HALTED:
            bench.watch.now += S  # others took their time: what they released is due by now
            bench.before[0] = bench.word(Word.REACHED) + 1 + ahead

    bench.watch.moments = [(at_ns, halt)]
    bench.engine.run()
    mine = everything(bench.source())
    assert bench.stop[0] == how or bench.word(Word.PHASE) == Phase.SENT
    if bench.word(Word.PHASE) == Phase.HALTED:
        mine = mine[mine["id"] < np.uint64(bench.before[0])]
    assert sorted(bench.rows()["id"].tolist()) == mine["id"].tolist()
    assert bench.shared.tallies.offered.sum() == len(mine)


def test_a_generator_that_cannot_go_on_says_so_and_waits_to_be_told_where_to_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.must_end = lambda: bench.watch.now > S
    seen = []

    def tell() -> None:
        seen.append((bench.word(Word.MUST_END), bench.word(Word.PHASE)))
        bench.before[0] = bench.word(Word.REACHED) + 1

    bench.watch.moments = [(S + S // 10, tell)]
    bench.engine.run()
    bench.close()
    assert seen == [(1, Phase.HALTED)]


# ---- one that is gone ----

steps = st.lists(
    st.tuples(
        st.integers(0, 120),  # released
        st.integers(0, 100),  # answered
        st.sampled_from([Status.OK, Status.REJECTED, Status.FAILED]),
        st.booleans(),  # written
        st.integers(0, 300_000_000),  # time that passes
    ),
    max_size=12,
)


@law
@given(steps, st.one_of(st.none(), st.integers(0, 500)), st.sampled_from([64, 4_096]))
def test_every_transaction_of_a_generator_that_was_killed_is_accounted_for_once(
    tmp_path: Path, taken: list[tuple[int, int, Status, bool, int]], ahead: int | None, in_flight: int
) -> None:
    bench = Bench(tmp_path, Share(0, 2), in_flight=in_flight)
    tallies = bench.shared.tallies
    mine = everything(bench.source())
    position, now = 0, 0
    answers = np.zeros(100, OUTCOME)
    told: dict[int, int] = {}
    for released, answered, status, written, passes in taken:
        batch = mine[position : position + released].copy()
        position += len(batch)
        now = max(now + passes, int(batch["intended_ns"].max(initial=0)))
        bench.dispatcher.release(batch, now)
        count = bench.backend.poll(answers[:answered])
        answers["status"][:count] = status
        told.update(dict.fromkeys(answers["id"][:count].tolist(), int(status)))
        bench.dispatcher.settle(answers[:count], now)
        if written:
            bench.dispatcher.flush()
    bench.close()

    before = None if ahead is None else bench.word(Word.REACHED) + 1 + ahead
    recover_history(bench.path, bench.shared)
    left = account_for(
        bench.path, bench.source(), bench.shared, before=before, split=unsplit(SHARDS), hot=HOT, died_ns=now
    )

    due = mine if before is None else mine[mine["id"] < np.uint64(before)]
    rows = np.fromfile(bench.path, HISTORY)
    assert sorted(rows["id"].tolist()) == due["id"].tolist()
    by_id = {int(row["id"]): row for row in rows}
    assert all(by_id[key]["status"] == status for key, status in told.items())
    for at, asked in enumerate(due):
        row = by_id[int(asked["id"])]
        args = [asked[name] for name in ("id", "amount_minor", "related", "payer", "payee", "kind")]
        assert row["fingerprint"] == fingerprint(*args)
        assert row["kind_reason"] & 7 == asked["kind"]
        if at >= position:
            assert (row["status"], row["kind_reason"] >> 3) == (Status.DROPPED, Reason.GENERATOR)
    gone = rows[rows["kind_reason"] >> 3 == Reason.GENERATOR]
    assert (left.unknown, left.dropped) == tuple(
        int((gone["status"] == s).sum()) for s in (Status.UNKNOWN, Status.DROPPED)
    )
    for status in Status:
        if status is not Status.PENDING:
            count = int((rows["status"] == status).sum())
            assert count == tallies.by_kind[:, status].sum() == tallies.answered[:, status].sum()
            assert count == tallies.by_reason[status].sum()
    assert tallies.offered.sum() == tallies.by_kind[:, Status.PENDING].sum() == len(due)
    assert tallies.offered_minor.sum() == due["amount_minor"].sum()
    assert tallies.sent.sum() == len(due) - (rows["status"] == Status.DROPPED).sum()
    assert tallies.in_flight.sum() == 0
    for kind in Kind:
        assert tallies.by_kind[kind - 1, Status.PENDING] == (due["kind"] == kind).sum()
    hot = (due["payee"] == HOT.first) | (due["payer"] == HOT.first)
    assert tallies.hot_by_status[Status.PENDING] == hot.sum() == tallies.hot_by_status[1:].sum()


def rows_of(*ids: int) -> NDArray[Any]:
    rows = np.zeros(len(ids), HISTORY)
    rows["id"], rows["status"], rows["kind_reason"] = ids, Status.OK, Kind.PAYMENT
    return rows


def left_behind(written: int, flushing: int, buffer: NDArray[Any], count: int) -> Shared:
    shared = open_shared(open_tallies(seconds_grid(1), 1, 1))
    shared.rows[: len(buffer)] = buffer
    shared.row_count[0] = count
    shared.words[Word.WRITTEN], shared.words[Word.FLUSHING] = written, flushing
    return shared


@pytest.mark.parametrize(
    ("in_file", "written", "flushing", "count", "reserved"),
    [
        (b"", 3, 0, 2, 0),  # between two writes
        (b"", 3, 0, 2, 500),  # … with room reserved
        (b"", 3, 2, 2, 500),  # before a write
        (rows_of(4, 5).tobytes()[:31], 3, 2, 2, 500),  # within one
        (rows_of(4, 5).tobytes(), 3, 2, 2, 0),  # after it
        (rows_of(4, 5).tobytes(), 3, 2, 0, 500),  # after the buffer was given free
        (rows_of(4, 5).tobytes(), 5, 2, 0, 500),  # after it was counted
        (rows_of(4, 5).tobytes(), 5, 0, 0, 500),  # after it was over
    ],
)
def test_whenever_a_generator_is_killed_each_row_that_it_noted_is_there_once(
    tmp_path: Path, in_file: bytes, written: int, flushing: int, count: int, reserved: int
) -> None:
    path = tmp_path / "history.bin"
    path.write_bytes(rows_of(1, 2, 3).tobytes() + in_file + bytes(reserved))
    recover_history(path, left_behind(written, flushing, rows_of(4, 5), count))
    assert np.fromfile(path, HISTORY)["id"].tolist() == [1, 2, 3, 4, 5]


def test_rows_that_a_full_disk_took_no_more_are_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "history.bin"
    path.write_bytes(rows_of(1, 2, 3).tobytes())
    recover_history(path, left_behind(9, 0, rows_of(10, 11), 2))
    assert np.fromfile(path, HISTORY)["id"].tolist() == [1, 2, 3, 10, 11]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 90), st.data())
def test_corrected_counts_add_up_and_none_is_below_nought(counts: list[int], total: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(counts) - 1))
    corrected = np.array(counts)
    correct(corrected, total, at)
    assert corrected.sum() == total
    assert corrected.min() >= 0
    if total >= sum(counts):
        assert (np.delete(corrected, at) == np.delete(np.array(counts), at)).all()


# ---- in a scenario ----


def complaint(**more: Any) -> str:  # noqa: ANN401  any key
    with pytest.raises(ValidationError) as error:
        scenario(**more)
    return str(error.value)


def test_generators_are_1_to_16_and_of_an_http_backend_on_the_wall_clock() -> None:
    here = {"targets": ["http://127.0.0.1:8080"], "connections": 64}
    assert scenario(backend={"http": {**here, "generators": 16}}).backend.http is not None
    for wrong in (0, 17):
        assert "generators" in complaint(backend={"http": {**here, "generators": wrong}})
    assert "on the wall clock only" in complaint(backend={"http": {**here, "generators": 2}}, clock="virtual")
    assert "generators" in complaint(backend={"embedded": {"generators": 2}})
    assert "write at least 16" in complaint(
        backend={"http": {"targets": here["targets"], "connections": 15, "generators": 16}}
    )
