"""A disk that fills during a run: it ends with one clear reason, writes its files, and has told nobody a lie.

What was acknowledged is looked up in the journals here, by this file's own count, not by the auditor's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process

from simulator.cli import main
from simulator.measure.recorder import HISTORY
from simulator.shard.journal import JournalReader, journal_path
from simulator.shard.layout import Leg
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim_process import Ended

MIB = 1 << 20
# Sets the largest size of a file, then becomes the command behind it.
_LIMITED = (
    "import os, resource, sys; size = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def limited(size_bytes: int) -> tuple[str, ...]:
    """A prefix under which no file grows past this."""
    return (sys.executable, "-c", _LIMITED, str(size_bytes))


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of a given size, gone at the end."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def acknowledged(run: Path) -> dict[int, Any]:
    """The rows of the transactions whose clients were told `ok`, by id."""
    rows = np.fromfile(run / "history.bin", HISTORY)
    return {int(row["id"]): row for row in rows[rows["status"] == Status.OK]}


def home_legs(run: Path) -> dict[int, Any]:
    """The record of each transaction in the shard that decided it, by id."""
    nodes = len(list((run / "journal").glob("node-*.journal")))
    readers = [JournalReader(journal_path(run / "journal", node)) for node in range(nodes)]
    records = np.concatenate([part for reader in readers for _, part in reader])
    return {int(record["id"]): record for record in records[~np.isin(records["leg"], (Leg.CREDIT, Leg.EXPIRE))]}


def by_a_limit(folder: Path, durability: str) -> Ended:
    """A run whose files may not grow past 6 MiB: one node, so that its journal comes to that first; the report takes 5."""
    return sim_process.run(
        folder / "run", "--quiet",
        *sim_process.settings(
            "duration=60s", "load.rate=30000/s", "load.mix={payment: 9, authorize: 1}", "load.accounts=20000",
            f"backend={{embedded: {{nodes: 1, shards: 2, durability: {durability}, remember: 131072}}}}",
        ),
        prefix=limited(6 * MIB),
    )  # fmt: skip


@dataclass
class Filled:
    """A run whose disk was full before its time, and the system's word for that."""

    ended: Ended
    word: str


@pytest.fixture(scope="module", params=["group, by a limit", "os, by a limit", "group, two nodes, by a small disk"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("filled")
    durability, *_, how = request.param.split(", ")
    if how == "by a limit":
        yield Filled(by_a_limit(folder, durability), "File too large")
        return
    with small_disk(folder / "disk", "24m") as disk:
        # Short enough for the history to fit, which takes its room at the start: the journals meet the end of the disk.
        chosen = sim_process.settings("duration=8s", "load.rate=20000/s", "load.accounts=20000")
        yield Filled(sim_process.run(disk / "run", "--quiet", *chosen), "No space left on device")


def test_a_full_disk_ends_the_run_as_a_failure_with_one_clear_reason(filled: Filled) -> None:
    assert filled.ended.code == 1
    assert filled.ended.summary["verdict"] == "fail"
    reason = rf"node \d stopped: its journal could not be written: {filled.word}"
    assert re.fullmatch(rf"{reason}(; {reason})*", filled.ended.summary["failure"])
    assert filled.ended.summary["stop_reason"] == filled.ended.summary["failure"]


def test_a_full_disk_is_told_to_whoever_looks_at_the_output(filled: Filled) -> None:
    output = filled.ended.out + filled.ended.err
    assert "Traceback" not in output
    assert "unexpected" not in output
    assert f"its journal could not be written: {filled.word}" in output


def test_every_file_is_written_though_the_disk_was_full(filled: Filled) -> None:
    folder = filled.ended.folder
    assert [name for name in sim_process.FILES if not (folder / name).is_file()] == []
    assert [path.name for path in folder.iterdir() if path.name.endswith((".part", ".reserve"))] == []
    assert (folder / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert "node_stopped" in {event["event"] for event in events}


def test_counts_add_up_though_the_disk_was_full(filled: Filled) -> None:
    counts = filled.ended.summary["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"] + counts["failed"] + counts["unknown"]
    assert len(np.fromfile(filled.ended.folder / "history.bin", HISTORY)) == counts["offered"]
    assert sum(filled.ended.series["offered"]) == counts["offered"]


def test_nothing_acknowledged_is_missing_though_the_disk_was_full(filled: Filled) -> None:
    told, booked = acknowledged(filled.ended.folder), home_legs(filled.ended.folder)
    assert len(told) == filled.ended.summary["counts"]["ok"] > 1_000
    assert sorted(told.keys() - booked.keys()) == []
    lawful = {Kind.AUTHORIZE: {Leg.RESERVE}, Kind.VOID: {Leg.RELEASE}}
    for key, row in told.items():
        record = booked[key]
        assert (int(record["shard"]), int(record["lsn"])) == (int(row["shard"]), int(row["lsn"]))
        assert Leg(int(record["leg"])) in lawful.get(Kind(int(record["kind"])), {Leg.TRANSFER, Leg.DEBIT})


def test_a_full_disk_is_no_anomaly_neither_at_once_nor_when_audited_again(filled: Filled) -> None:
    assert filled.ended.summary["audit"]["verdict"] == "unknown"
    assert filled.ended.summary["audit"]["anomalies"] == {}
    assert main(["audit", str(filled.ended.folder)]) == 1


def assert_that_it_can_be_audited_later(ended: Ended) -> None:
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert ended.summary["failure"] is not None
    assert ended.summary["audit"]["anomalies"] == {}
    assert main(["audit", str(ended.folder)]) != 122
    rows = sum(len(np.fromfile(path, HISTORY)) for path in ended.folder.glob("history*.bin"))
    assert rows == ended.summary["counts"]["offered"]


def test_a_history_that_may_not_grow_ends_the_run_and_can_still_be_audited_later(tmp_path: Path) -> None:
    # Where nothing is journalled, the history is what reaches the limit.
    chosen = sim_process.settings(
        "duration=60s", "load.rate=150000/s", "load.mix={payment: 1}", "load.accounts=20000",
        "backend={embedded: {nodes: 1, shards: 2, durability: memory, remember: 131072}}",
    )  # fmt: skip
    ended = sim_process.run(tmp_path / "run", "--quiet", *chosen, prefix=limited(6 * MIB))
    assert "history" in ended.summary["failure"]
    assert_that_it_can_be_audited_later(ended)


def test_a_run_whose_history_does_not_fit_on_the_disk_can_still_be_audited_later(tmp_path: Path) -> None:
    # A minute's history is larger than the disk, so history and journals meet its end together.
    with small_disk(tmp_path / "disk", "24m") as disk:
        chosen = sim_process.settings("duration=60s", "load.rate=20000/s", "load.accounts=20000")
        assert_that_it_can_be_audited_later(sim_process.run(disk / "run", "--quiet", *chosen))


def test_a_disk_that_is_full_before_the_start_is_told_in_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        scenario = sim_process.scenario(tmp_path / "scenario" / "run")
        (disk / "filler").write_bytes(b"\0" * (64 << 10))
        ended = sim_process.call("run", str(scenario), "--out", str(disk / "run"), "--quiet")
        assert ended.code in (1, 2)
        assert ended.out == ""
        assert ended.err.startswith("sim: ")
        assert ended.err.count("\n") == 1
        assert "No space left on device" in ended.err
        assert "unexpected" not in ended.err
        assert [path.name for path in disk.iterdir()] == ["filler"]
