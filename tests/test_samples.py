"""Samples of the platform: peaks between rows are kept, commit times are exact, rows are bounded."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from simulator.measure.histogram import COUNTS, Histogram
from simulator.measure.samples import ROWS_MAX, PlatformSamples

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sim_process import Ended

SECOND = 1_000_000_000


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def commits(*times_ns: list[int]) -> NDArray[np.int64]:
    return np.array([Histogram.of(ints(*node)).counts for node in times_ns])


def test_the_most_that_any_look_saw_stands_in_its_row() -> None:
    samples = PlatformSamples(10, nodes=2, shards=2)
    nothing = np.zeros((2, COUNTS), np.int64)
    for at, (queue, flight) in enumerate([(3, 1), (90, 2), (4, 50), (1, 1), (7, 7)]):
        samples.look(at * SECOND // 4, ints(queue, 0), ints(flight, 0), nothing, ints(0, 0))
    found = samples.finish(5 * SECOND // 4, nothing, ints(0, 0))
    assert found["second"] == [0.0, 1.0]
    assert found["node0_queue"] == [90, 7]
    assert found["shard0_in_flight"] == [50, 7]
    assert found["node1_queue"] == [0, 0]


def test_commit_times_are_those_of_the_row_and_of_nobody_before() -> None:
    samples = PlatformSamples(10, nodes=2, shards=0)
    empty, early = ints(0, 0), commits([1_000_000] * 99 + [5_000_000], [])
    samples.look(0, empty, ints(), commits([], []), empty)
    samples.look(SECOND, empty, ints(), early, empty)
    later = early + commits([], [2_000_000, 2_000_000])
    found = samples.finish(2 * SECOND, later, empty)
    assert found["commits"] == [100, 2]
    assert [round(ms, 2) for ms in found["commit_p50_ms"]] == [1.0, 2.0]
    assert [round(ms, 2) for ms in found["commit_max_ms"]] == [5.0, 2.0]
    assert found["node0_commit_p99_ms"][1] == ""
    assert found["node0_commit_share"][0] == round((99 + 5) * 1e6 / SECOND, 4)


def test_how_busy_a_node_was_is_a_share_of_the_time_between_looks() -> None:
    samples = PlatformSamples(10, nodes=1, shards=0)
    nothing = commits([])
    samples.look(0, ints(0), ints(), nothing, ints(0))
    samples.look(5 * SECOND // 4, ints(0), ints(), nothing, ints(SECOND))  # a look that came late makes a longer row
    found = samples.finish(2 * SECOND, nothing, ints(SECOND))
    assert found["node0_busy"] == [0.8, 0.0]
    assert found["window_s"] == [1.25, 0.75]


def test_a_day_has_no_more_rows_than_a_chart_has_points() -> None:
    samples = PlatformSamples(86_400, nodes=1, shards=1)
    nothing = commits([])
    for second in range(0, 86_400, 7):
        samples.look(second * SECOND, ints(1), ints(1), nothing, ints(0))
    assert len(samples.finish(86_400 * SECOND, nothing, ints(0))["second"]) <= ROWS_MAX


def test_nothing_is_taken_before_the_start() -> None:
    samples = PlatformSamples(10, nodes=1, shards=1)
    samples.look(-1, ints(99), ints(99), commits([]), ints(0))
    assert samples.finish(SECOND, commits([]), ints(0))["node0_queue"] == [0]


def test_a_run_writes_what_its_nodes_commits_took(small_run: Ended) -> None:
    rows = list(csv.DictReader((small_run.folder / "platform.csv").read_text("utf-8").splitlines()))
    assert sum(int(row["commits"]) for row in rows) <= small_run.summary["journal"]["commits"]
    assert sum(int(row["commits"]) for row in rows) > 0
    assert {f"node{node}_queue" for node in (0, 1)} | {f"shard{s}_in_flight" for s in range(4)} <= rows[0].keys()
