"""What the live page makes of a run's counts: bounded rows whose sums are exact, and the newest for whoever watches."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.live.history import ROWS_MAX, History, whole_run
from simulator.live.token import matches, new_token
from simulator.live.viewers import VIEWERS_MAX, FullError, Viewers
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram, index_of
from simulator.measure.recorder import RESPONSE, Tallies, open_tallies
from simulator.transaction import Status

NS = 1_000_000_000


def count(tallies: Tallies, second: int, times_ns: list[int]) -> None:
    """Counts answers of a second, as an engine would."""
    tallies.offered[second] += len(times_ns)
    tallies.sent[second] += len(times_ns)
    tallies.answered[second, Status.OK] += len(times_ns)
    for ns in times_ns:
        tallies.totals[RESPONSE, index_of(ns)] += 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 10**10), max_size=20), min_size=1, max_size=8))
def test_rows_have_the_counts_and_the_times_of_their_second(seconds: list[list[int]]) -> None:
    tallies = open_tallies(seconds_grid(len(seconds) + 2), 2, 4)
    history = History(tallies, np.ones(len(seconds)), len(seconds), None)
    for second, times in enumerate(seconds):
        count(tallies, second, times)
        assert history.look((second + 1) * NS)
        assert not history.look((second + 1) * NS + NS // 2)  # that one is not whole
    columns, intervals = history.columns(), history.intervals()
    assert columns["offered"] == columns["completed"] == list(map(len, seconds))
    assert columns["target"] == [1.0] * len(seconds)
    for at, times in enumerate(seconds):
        found = Histogram.of(np.array(times, np.int64)).percentile_ns(99)
        assert columns["response_p99_ms"][at] == ("" if found is None else round(found / 1e6, 6))
        assert intervals.counts[intervals.windows == at].sum() == len(times)


def test_a_long_run_has_as_many_rows_as_any_and_loses_no_count() -> None:
    seconds = 86_400
    tallies = open_tallies(seconds_grid(seconds), 2, 4)
    tallies.offered[:] = np.arange(seconds)
    tallies.in_flight_top[12_345] = 77
    history = History(tallies, np.ones(seconds), seconds, None)
    for second in range(0, seconds + 1, 16):
        history.look(second * NS)
    columns = history.columns()
    assert history.rows == len(columns["offered"]) <= ROWS_MAX
    assert columns["window_s"] == [history.width] * history.rows
    assert sum(columns["offered"]) == sum(range(history.rows * history.width))
    assert max(columns["in_flight"]) == 77
    assert columns["target"] == [history.width] * history.rows


def test_looks_too_far_apart_leave_a_gap_and_lose_nothing() -> None:
    tallies = open_tallies(seconds_grid(10), 1, 1)
    history = History(tallies, np.ones(10), 10.0, None)
    count(tallies, 0, [5_000_000] * 3)
    history.look(4 * NS)
    assert history.columns()["response_p50_ms"][:3] == [""] * 3
    assert history.columns()["response_p50_ms"][3] != ""
    assert history.intervals().counts.sum() == 3
    assert history.columns()["offered"] == [3, 0, 0, 0]


def test_before_the_first_second_there_is_nothing() -> None:
    tallies = open_tallies(seconds_grid(10), 1, 1)
    history = History(tallies, np.ones(10), 10.0, None)
    assert not history.look(NS - 1)
    assert history.columns() == {}
    assert len(history.intervals().counts) == 0
    assert whole_run(tallies.totals[RESPONSE]) is None


def test_a_token_is_new_each_time_and_only_itself() -> None:
    token = new_token()
    assert token != new_token()
    assert matches(token, token)
    assert not any(matches(wrong, token) for wrong in ("", token[:-1], token + "A", token.swapcase(), "ü\ud800"))


# ---- viewers ----


def test_a_slow_viewer_gets_the_newest_and_nothing_waits_for_it() -> None:
    async def watch() -> list[bytes]:
        viewers, taken, free = Viewers(), [], asyncio.Event()
        viewers.publish("now", b"0")

        async def send(message: bytes) -> None:
            taken.append(message)
            if b"data" in message:
                await free.wait()

        stream = asyncio.create_task(viewers.stream(send))
        while len(taken) < 2:  # noqa: ASYNC110  it is the other task that this waits for
            await asyncio.sleep(0)
        for number in range(1, 1_000):  # while it is stuck with the first
            viewers.publish("now", b"%d" % number)
        viewers.publish("end", b"over")
        free.set()
        await stream
        assert viewers.count == 0
        return taken[1:]

    assert asyncio.run(watch()) == [
        b"event: now\ndata: 0\n\n", b"event: now\ndata: 999\n\n", b"event: end\ndata: over\n\n",
    ]  # fmt: skip


def test_a_viewer_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.live.viewers.STALLED_S", 0.01)

    async def watch() -> None:
        async def send(_: bytes) -> None:
            await asyncio.Event().wait()

        viewers = Viewers()
        with pytest.raises(TimeoutError):
            await viewers.stream(send)
        assert viewers.count == 0

    asyncio.run(watch())


def test_there_are_no_more_viewers_than_may_be() -> None:
    async def watch() -> None:
        async def send(_: bytes) -> None:
            await asyncio.sleep(0)

        viewers = Viewers()
        streams: list[asyncio.Task[Any]] = [asyncio.create_task(viewers.stream(send)) for _ in range(VIEWERS_MAX)]
        while viewers.count < VIEWERS_MAX:  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
        with pytest.raises(FullError):
            await viewers.stream(send)
        viewers.publish("end", b"{}")
        await asyncio.gather(*streams)
        await viewers.stream(send)  # there is room again, and the end is told to who comes late

    asyncio.run(watch())
