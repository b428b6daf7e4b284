"""Thresholds that stop a run: what is seen of them while it goes on, and what becomes of the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sim_process

from simulator.measure.grid import NS_PER_S, seconds_grid
from simulator.measure.histogram import record_all
from simulator.measure.recorder import RESPONSE, Tallies, open_tallies
from simulator.run.abort import EarlyJudge
from simulator.scenario.threshold import parse_threshold
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 30


@pytest.fixture
def tallies() -> Tallies:
    return open_tallies(seconds_grid(SECONDS), 2, 3)


def watch(tallies: Tallies, metric: str, expression: str, after_s: int = 0) -> EarlyJudge:
    """Watches one threshold, behind one that stops nothing."""
    other = parse_threshold("audit", "anomalies == 0")
    return EarlyJudge([other, parse_threshold(metric, expression, abort=True, after_ns=after_s * NS_PER_S)], tallies)


def answer(tallies: Tallies, second: int, count: int, took_ms: float, status: Status = Status.OK) -> None:
    """So many transactions of a second, answered within it."""
    tallies.offered[second] += count
    tallies.answered[second, status] += count
    tallies.by_kind[Kind.PAYMENT - 1, status] += count
    tallies.by_kind[Kind.PAYMENT - 1, Status.PENDING] += count
    if status is Status.OK:
        record_all(tallies.totals[RESPONSE], np.full(count, int(took_ms * 1e6), np.int64))


def crossed_at(tallies: Tallies, watch: EarlyJudge, took_ms: list[float], count: int = 1_000) -> int | None:
    """The second after which the watch stops a run whose answers take so long, second by second."""
    for second, took in enumerate(took_ms):
        answer(tallies, second, count, took)
        found = watch.crossed((second + 1) * NS_PER_S)
        if found is not None:
            assert found[0] == 1
            assert not found[1].passed
            return second + 1
    return None


def test_a_percentile_of_the_run_so_far_stops_it(tallies: Tallies) -> None:
    assert crossed_at(tallies, watch(tallies, "response_time", "p(99) < 50ms"), [5, 5, 90, 90]) == 3


def test_nothing_is_judged_before_its_time(tallies: Tallies) -> None:
    assert crossed_at(tallies, watch(tallies, "response_time", "p(99) < 50ms", after_s=4), [90] * 6) == 4


def test_nothing_is_judged_in_the_first_second_or_of_a_handful(tallies: Tallies) -> None:
    slow = watch(tallies, "response_time", "p(99) < 50ms")
    answer(tallies, 0, 99, 90)
    assert slow.crossed(NS_PER_S // 2) is None
    assert slow.crossed(2 * NS_PER_S) is None
    answer(tallies, 1, 1, 90)
    assert slow.crossed(2 * NS_PER_S) is not None


def test_a_stretch_forgets_what_was_before_it(tallies: Tallies) -> None:
    # Over the whole run p50 would stay good for long; over the last three seconds it is not.
    took = [5.0] * 12 + [90.0] * 6
    assert crossed_at(tallies, watch(tallies, "response_time", "p(50) < 50ms for 3s"), took) == 14


def test_a_stretch_that_is_not_full_yet_is_not_judged(tallies: Tallies) -> None:
    assert crossed_at(tallies, watch(tallies, "response_time", "p(50) < 50ms for 5s"), [90] * 4) is None


@pytest.mark.parametrize(
    ("expression", "second"), [("rate < 30%", 5), ("rate < 20% for 2s", 4), ("count <= 2_000", 6), ("count == 0", 4)]
)
def test_failures_stop_a_run(tallies: Tallies, expression: str, second: int) -> None:
    failing = watch(tallies, "failed", expression)
    for at in range(10):
        answer(tallies, at, 1_000, 5, Status.FAILED if at >= 3 else Status.OK)
        if failing.crossed((at + 1) * NS_PER_S):
            assert at + 1 == second
            return
    raise AssertionError("never stopped")


def test_a_count_that_may_still_be_reached_stops_nothing(tallies: Tallies) -> None:
    waiting = watch(tallies, "ok", "count == 5_000")
    assert crossed_at(tallies, waiting, [5] * 8) == 6


def test_too_little_throughput_stops_a_run(tallies: Tallies) -> None:
    starving = watch(tallies, "throughput", "mean > 500 for 2s")
    for at in range(10):
        answer(tallies, at, 1_000 if at < 4 else 0, 5)
        if starving.crossed((at + 1) * NS_PER_S):
            assert at + 1 == 5
            return
    raise AssertionError("never stopped")


def test_what_a_stretch_keeps_is_bounded(tallies: Tallies) -> None:
    slow = watch(tallies, "response_time", "p(99) < 1h for 300s")
    for second in range(4_000):
        slow.crossed(second * NS_PER_S)
    (recent,) = slow._recent.values()  # noqa: SLF001  how much it keeps is the point
    assert len(recent.moments) <= 62


def test_a_crossed_threshold_stops_a_run_that_still_drains_audits_and_reports(tmp_path: Path) -> None:
    # Nothing is served within a nanosecond, so it is crossed as soon as it is looked at.
    stop = "thresholds.response_time=[{threshold: p(50) < 1us, abort: true, after: 1s}]"
    ended = sim_process.run(tmp_path / "run", "--quiet", *sim_process.settings("duration=60s", stop))
    assert (ended.code, ended.err) == (99, "")
    summary = ended.summary
    assert summary["verdict"] == "fail"
    assert summary["validity"]["verdict"] == "valid"
    assert summary["audit"]["verdict"] == "clean"
    assert summary["stop_reason"] == "threshold: response_time p(50) < 1us"
    assert not summary["interrupted"]
    assert 1 <= summary["duration_s"] < 30
    (crossed,) = [item for item in summary["thresholds"] if not item["passed"]]
    assert crossed["aborted_at_s"] == pytest.approx(summary["duration_s"], abs=5)
    assert summary["counts"]["unknown"] == 0
    events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["event"] for event in events if event["event"] == "aborted"] == ["aborted"]
    assert {path.name for path in ended.folder.iterdir()} >= set(sim_process.FILES)
    assert "the run was stopped" in ended.out
