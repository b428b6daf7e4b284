"""Stopping a run: Ctrl-C, SIGTERM, both, and `kill -9`. Whatever ends it, no process and no shared memory is left."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import sim_process
from sim_process import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Far longer than a test takes: a run that goes on to its own end, or waits for its drain, is seen to do so.
LONG = sim_process.settings("duration=10m", "dispatcher.drain=10m", "load.rate=5000/s")


@pytest.fixture(autouse=True)
def _nothing_is_left_in_shared_memory() -> Iterator[None]:
    before = sim_process.shared_memory()
    yield
    # What other programs put there for a moment goes again.
    sim_process.until(lambda: sim_process.shared_memory() <= before, "an empty /dev/shm")


def to_the_process(running: Running, number: int) -> None:
    running.process.send_signal(number)


def to_its_group(running: Running, number: int) -> None:
    """As a terminal does it: every process of the run gets the signal."""
    os.killpg(running.process.pid, number)


def assert_that_nobody_is_left(running: Running, started: set[int]) -> None:
    """`started` are the processes that the run was seen to start."""
    assert started
    sim_process.until(lambda: not any(map(sim_process.alive, started)), f"the end of {sorted(started)}")
    sim_process.until(lambda: not sim_process.members(running.process.pid), "an empty session")


@pytest.mark.parametrize(
    ("send", "number"),
    [(to_its_group, signal.SIGINT), (to_the_process, signal.SIGINT), (to_the_process, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_one_interrupt_drains_audits_writes_everything_and_ends_with_105(
    tmp_path: Path, send: Callable[[Running, int], None], number: int
) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        send(running, number)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert (ended.code, ended.err) == (105, "")
    assert not [name for name in sim_process.FILES if not (ended.folder / name).is_file()]
    summary = ended.summary
    assert summary["interrupted"] is True
    assert summary["failure"] is None
    assert (summary["audit"]["verdict"], summary["audit"]["conservation_minor"]) == ("clean", 0)
    counts = summary["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"] + counts["failed"] + counts["unknown"]
    assert counts["ok"] > 0
    assert counts["unknown"] == 0
    assert sum(ended.series["offered"]) == counts["offered"]
    assert "interrupted" in ended.out
    events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["event"] for event in events] == ["started", "interrupted", "drained"]


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)], ids=["INT INT", "TERM INT"]
)
def test_a_second_interrupt_stops_a_run_that_cannot_drain_at_once(tmp_path: Path, first: int, second: int) -> None:
    with Running(tmp_path / "run", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        frozen = min(started)  # a node: they are started first
        os.kill(frozen, signal.SIGSTOP)
        # With a node frozen answers stay out, so the drain lasts: the second interrupt finds the run still there.
        running.process.send_signal(first)
        sim_process.until(lambda: ", draining," in running.out.read_text("utf-8"), "the drain")
        assert running.process.poll() is None
        running.process.send_signal(second)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert ended.code == 105
    assert ended.err == "sim: stopped at once; the run's folder is incomplete\n"
    assert not (ended.folder / "summary.json").exists()


def test_two_interrupts_in_one_moment_count_as_two(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        running.process.send_signal(signal.SIGSTOP)  # both signals wait, and are delivered together
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGCONT)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert ended.code == 105
    assert ended.err == "sim: stopped at once; the run's folder is incomplete\n"


def test_a_killed_run_takes_its_processes_with_it(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        assert len(started) == 3  # two nodes and the engine
        running.process.kill()
        assert running.end().code == -signal.SIGKILL
        assert_that_nobody_is_left(running, started)


def test_a_killed_run_takes_a_frozen_process_with_it(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        for pid in started:
            os.kill(pid, signal.SIGSTOP)
        running.process.kill()
        assert_that_nobody_is_left(running, started)


def test_a_run_that_ends_by_itself_leaves_nobody(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *sim_process.settings("duration=1s")) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert ended.code == 0


def test_an_interrupt_before_the_start_leaves_no_folder_or_a_whole_one(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        sim_process.until(lambda: running.folder.exists() or running.process.poll() is not None, "the run's folder")
        running.process.send_signal(signal.SIGINT)
        ended = running.end()
        sim_process.until(lambda: not sim_process.members(running.process.pid), "an empty session")
    assert ended.code == 105
    assert "Traceback" not in ended.err
    assert not ended.folder.exists() or all((ended.folder / name).is_file() for name in sim_process.FILES)


def test_a_killed_node_that_may_not_come_back_ends_the_run_with_a_clear_reason(tmp_path: Path) -> None:
    never = sim_process.settings("backend.embedded.restarts=0")
    with Running(tmp_path / "run", "--quiet", *LONG, *never) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        os.kill(min(started), signal.SIGKILL)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    summary = ended.summary
    assert (summary["verdict"], summary["failure"]) == ("fail", "node 0 stopped: killed by signal 9")
    assert summary["audit"]["anomalies"] == {}
    assert not [name for name in sim_process.FILES if not (ended.folder / name).is_file()]
    assert summary["failure"] in ended.out + ended.err


def test_a_run_whose_node_was_killed_and_came_back_leaves_nobody_and_no_anomaly(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *sim_process.settings("duration=3s")) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        os.kill(min(started), signal.SIGKILL)
        sim_process.until(
            lambda: sim_process.children(running.process.pid) - started or running.process.poll() is not None,
            "the node's return",
        )
        started |= sim_process.children(running.process.pid)
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert len(started) == 4  # two nodes, the engine, and the node that came back
    assert (ended.summary["audit"]["verdict"], ended.summary["audit"]["anomalies"]) == ("clean", {})
    assert ended.summary["failure"] is None


def test_a_killed_generator_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        os.kill(max(started), signal.SIGKILL)  # started last
        ended = running.end()
        assert_that_nobody_is_left(running, started)
    assert ended.code == 1
    assert ended.err.startswith("sim: the process that generates the load ended early")
    assert ended.err.count("\n") == 1
    assert not ended.folder.exists()
