"""Offered against goodput, and the time to drain: the arithmetic on made-up series, and whole runs in each overflow mode."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import fake_run
import numpy as np
import pytest
import sim_process
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from simulator.engine.virtual.tally import fill, open_virtual
from simulator.measure.grid import NS_PER_S, seconds_grid
from simulator.measure.overload import Counted, Overload, episodes, is_overloaded, measure
from simulator.measure.recorder import open_tallies
from simulator.report import render
from simulator.report.terminal import summary_text
from simulator.shard.throttle import BURST_NS, TokenBucket
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from pathlib import Path


def served(
    offered: list[int], capacity: int, room: int = 10**9, *, length_ns: int = NS_PER_S, extra: int = 0
) -> tuple[Counted, int]:
    """A fluid queue: each window decides up to `capacity`, keeps up to `room`, refuses the rest; (what is counted, left over).

    `extra` windows follow in which nothing is offered.
    """
    asked = np.array([*offered, *[0] * extra], np.int64)
    ok, refused = np.zeros_like(asked), np.zeros_like(asked)
    queue = 0
    for window, more in enumerate(asked.tolist()):
        queue += more
        ok[window] = min(queue, capacity)
        queue -= int(ok[window])
        refused[window] = max(queue - room, 0)
        queue -= int(refused[window])
    grid = np.arange(len(asked) + 1, dtype=np.int64) * length_ns
    return Counted(grid, asked, asked, ok, refused, ok + refused), queue


def measured(counted: Counted) -> Overload:
    busy = np.flatnonzero(counted.offered)
    answered = np.flatnonzero(counted.answered)
    edges = counted.grid_ns / NS_PER_S
    return measure(counted, duration_s=edges[busy.max(initial=-1) + 1], settled_s=edges[answered.max(initial=-1) + 1])


def test_a_run_without_overload_has_no_spike_and_drains_in_no_time() -> None:
    found = measured(served([1_000] * 10, 5_000)[0])
    assert (found.overloaded_s, found.drain_s, found.refused, found.goodput_share) == (0.0, 0.0, 0, 1.0)
    assert (found.offered_per_s, found.goodput_per_s) == (1_000.0, 1_000.0)
    assert found.spike_began_s is found.spike_ended_s is found.sustained_per_s is None


def test_an_empty_run_is_none() -> None:
    found = measured(served([0, 0], 10)[0])
    assert (found.offered_per_s, found.goodput_share, found.drain_s) == (0.0, None, 0.0)


@pytest.mark.parametrize("length_ns", [NS_PER_S, NS_PER_S // 10])
def test_what_a_spike_piled_up_drains_at_what_is_left_of_the_capacity(length_ns: int) -> None:
    # 5 windows at 9,000 over a capacity of 2,000 pile up 35,000; at 1,000 a window there are 1,000 left to drain with.
    counted, left = served([1_000] * 5 + [9_000] * 5 + [1_000] * 50, 2_000, length_ns=length_ns)
    found = measured(counted)
    assert left == 0
    scale = length_ns / NS_PER_S
    assert found.spike_began_s == pytest.approx(5 * scale)
    assert found.spike_ended_s == pytest.approx(10 * scale)
    assert (found.backlog_before, found.backlog_peak) == (0, 35_000)
    assert found.drain_s == pytest.approx(0.99 * 35 * scale)  # all but one per cent
    assert found.sustained_per_s == pytest.approx(2_000 / scale)
    assert found.spike_offered_per_s == pytest.approx(9_000 / scale)
    assert found.overloaded_s == pytest.approx(5 * scale)


def test_a_spike_at_the_end_drains_after_the_last_release() -> None:
    found = measured(served([1_000] * 3 + [9_000] * 2, 2_000, extra=10)[0])
    assert (found.spike_ended_s, found.backlog_peak) == (5.0, 14_000)
    assert found.drain_s == pytest.approx(0.99 * 7)
    assert found.goodput_share == 1.0
    assert found.goodput_per_s == pytest.approx(21_000 / 12)


def test_what_never_drains_says_so() -> None:
    assert measured(served([1_000] * 3 + [9_000] * 3, 2_000)[0]).drain_s is None


def test_refusing_what_finds_no_room_bounds_the_drain() -> None:
    found = measured(served([1_000] * 5 + [20_000] * 10 + [1_000] * 20, 2_000, room=3_000)[0])
    assert found.refused == 10 * 18_000 - 3_000
    assert found.goodput_share == pytest.approx((225_000 - found.refused) / 225_000)
    assert found.backlog_peak == 3_000
    assert found.drain_s == pytest.approx(2.97)


def test_refusing_everything_beyond_the_capacity_leaves_nothing_to_drain() -> None:
    found = measured(served([1_000] * 5 + [20_000] * 10 + [1_000] * 5, 2_000, room=0)[0])
    assert (found.drain_s, found.overloaded_s) == (0.0, 10.0)


def test_answers_that_say_no_for_another_reason_are_no_overload() -> None:
    counted = served([10_000] * 10, 20_000)[0]
    found = measured(replace(counted, ok=counted.ok // 2))
    assert (found.overloaded_s, found.goodput_share) == (0.0, 0.5)


def test_the_noise_of_poisson_arrivals_is_no_overload() -> None:
    random = np.random.default_rng(5)
    offered = random.poisson(20_000, 2_000)
    answered = random.poisson(20_000, 2_000)  # worse than answers ever are: they know nothing of what was asked
    assert is_overloaded(offered, answered).sum() <= 2


def test_a_later_hiccup_does_not_hide_the_drain_of_the_spike() -> None:
    offered = [1_000] * 5 + [9_000] * 5 + [1_000] * 60
    counted, _ = served(offered, 2_000)
    counted.answered[65:67] += np.array([-400, 400])
    found = measured(counted)
    assert found.overloaded_s == 6.0
    assert found.spike_ended_s == 10.0
    assert found.drain_s == pytest.approx(0.99 * 35)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_episodes_are_the_unbroken_runs(flags: list[bool]) -> None:
    found = episodes(np.array(flags, bool))
    covered = [window for first, stop in found for window in range(first, stop)]
    assert covered == [at for at, flag in enumerate(flags) if flag]
    assert all(stop < first for (_, stop), (first, _) in pairwise(found))


@settings(deadline=None, max_examples=200)
@given(
    base=st.integers(100, 1_000), times=st.integers(3, 20), spike=st.integers(1, 10),
    spare=st.floats(1.3, 4.0), room=st.integers(0, 50_000),
)  # fmt: skip
def test_the_drain_of_a_fluid_queue_is_what_was_left_over_what_is_spare(
    base: int, times: int, spike: int, spare: float, room: int
) -> None:
    capacity = int(base * spare)
    counted, left = served([base] * 4 + [base * times] * spike + [base] * 4, capacity, room, extra=2_000)
    assert left == 0
    found = measured(counted)
    if base * times - capacity <= 4 * (base * times) ** 0.5 + 0.02 * base * times:
        return  # no more than noise
    queue = min(room, (base * times - capacity) * spike)
    rest, seconds = 0.99 * queue, 0.0
    if rest > 4 * (capacity - base):
        rest -= 4 * (capacity - base)
        seconds, spare_now = 4.0, capacity
    else:
        spare_now = capacity - base
    expected = seconds + rest / spare_now
    assert found.backlog_peak == queue
    assert found.drain_s == pytest.approx(expected, abs=1.0 + 0.05 * expected)


def test_on_the_virtual_clock_every_rejection_is_for_want_of_room() -> None:
    virtual, tallies = open_virtual(3, 1, 1), open_tallies(seconds_grid(3), 1, 1)
    virtual.ended[1, Kind.PAYMENT - 1, Status.REJECTED] = 40
    virtual.ended[1, Kind.PAYMENT - 1, Status.OK] = 60
    fill(tallies, virtual)
    assert tallies.refused.tolist() == [0, 40, 0]


# The throttle.


def test_a_token_bucket_gives_what_it_is_set_to_whatever_the_steps() -> None:
    for step_ns in (1_000, 333_333, 7_000_000):
        bucket = TokenBucket(30_000, 0)
        bucket.spend(bucket.available(0))
        given_out, now = 0, 0
        while now < NS_PER_S:
            now += step_ns
            tokens = bucket.available(now)
            bucket.spend(tokens)
            given_out += tokens
        assert given_out == 30_000 * now // NS_PER_S


def test_a_token_bucket_saves_up_no_more_than_its_burst() -> None:
    bucket = TokenBucket(30_000, 0)
    assert bucket.available(3_600 * NS_PER_S) == 30_000 * BURST_NS // NS_PER_S
    slow = TokenBucket(3, 0)
    assert slow.available(3_600 * NS_PER_S) == 1
    slow.spend(1)
    assert slow.available(3_600 * NS_PER_S + NS_PER_S // 4) == 0
    assert slow.available(3_600 * NS_PER_S + NS_PER_S // 2) == 1
    assert slow.available(0) == 1  # a clock that goes back gives nothing, and goes on from there
    slow.spend(1)
    assert slow.available(NS_PER_S // 4) == 0
    assert slow.available(NS_PER_S) == 1


def test_a_bucket_that_never_fills_is_refused() -> None:
    with pytest.raises(ValueError, match="never fills"):
        TokenBucket(0, 0)


# Whole runs: 1 s at ten times what the platform is provisioned for.

SPIKE = (
    "load.rate={start: 2000/s, stages: [{duration: 1s, target: 2000/s}, {duration: 0s, target: 40000/s}, "
    "{duration: 1s, target: 40000/s}, {duration: 0s, target: 2000/s}, {duration: 1500ms, target: 2000/s}]}"
)
QUEUE = 1_024
NODES = 2


def overloaded(folder: Path, mode: str) -> sim_process.Ended:
    return sim_process.run(
        folder, "--quiet",
        *sim_process.settings(
            "duration=3500ms", SPIKE, "load.mix={payment: 1}", "backend.embedded.max_rate=2000/s",
            f"backend.embedded.queue={QUEUE}", f"backend.embedded.overflow={mode}", "dispatcher.patience=500ms",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["refuse", "block", "drop_oldest"])
def test_ten_times_what_is_sustained_fills_no_more_than_the_rooms_there_are(tmp_path: Path, mode: str) -> None:
    ended = overloaded(tmp_path / "run", mode)
    summary: dict[str, Any] = ended.summary
    counts, overload = summary["counts"], summary["overload"]
    # Nothing is lost and the counts add up.
    assert sim_process.CLEAN.items() <= summary["audit"].items()
    assert counts["unknown"] == counts["failed"] == 0
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"]
    assert overload["refused"] == summary["reasons"]["rejected"]["overflow"] > 10_000
    # What may wait: the rings to the nodes and the answers under way; with a mode that holds back also the table in front.
    held_back = 0 if mode == "refuse" else 40_000 * 0.5 * 2
    rooms = NODES * (QUEUE + 2 * QUEUE) + held_back
    assert sum(node["in_flight_max"] for node in summary["nodes"]) <= rooms + 2 * 8_192  # and one stage each
    # It goes on serving what it can, and is back soon.
    assert overload["goodput_share"] < 0.5
    assert overload["overloaded_s"] >= 1
    assert overload["drain_s"] is not None
    # No bucket lets more through than its rate and what it had saved up.
    saved_up = NODES * (2_000 * BURST_NS / NS_PER_S + 1)
    assert overload["goodput_per_s"] <= NODES * 2_000 + saved_up


def test_the_report_shows_goodput_against_offered_and_marks_the_drain(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run")
    # Where all that was offered ended ok, the first chart shows it already.
    assert "Offered against goodput" not in render(run).read_text("utf-8")
    summary = fake_run.summary(run)
    summary["overload"] = {
        "offered_per_s": 30_000.0, "goodput_per_s": 21_000.0, "goodput_share": 0.7, "refused": 500_000, "overloaded_s": 20.0,
        "spike_began_s": 10.0, "spike_ended_s": 30.0, "spike_offered_per_s": 80_000.0, "sustained_per_s": 40_000.0,
        "backlog_before": 40, "backlog_peak": 32_000, "drain_s": 3.25,
    }  # fmt: skip
    fake_run.write_json(run / "summary.json", summary)
    page = render(run).read_text("utf-8")
    data = json.loads(page.split('id="run-data">')[1].split("</script>")[0])
    (chart,) = [chart for chart in data["charts"] if chart["key"] == "overload"]
    assert [(shape["x0"], shape["x1"]) for shape in chart["layout"]["shapes"]] == [(30.0, 33.25)]
    assert [label["text"] for label in chart["layout"]["annotations"]] == ["drain 3.2s"]
    assert "70.0%" in page
    console = Console(width=200, file=io.StringIO())
    console.print(summary_text(summary))
    told = str(console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO
    assert "goodput 40,000/s of 80,000/s offered in the spike, 500,000 refused, drained in 3.2 s" in told
    summary["overload"] |= {"refused": 0, "drain_s": 0.1}  # a hiccup
    console.print(summary_text(summary))
    assert str(console.file.getvalue()).count("overload  ") == 1  # type: ignore[attr-defined]  # as above
