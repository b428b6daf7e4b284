"""A disk that fills during a run: it ends with one clear reason, writes its files, and has told nobody a lie.

What was acknowledged is looked up in the journals here, by this file's own count, not by the auditor's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
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
    return {int(record["id"]): record for record in records[(records["leg"] != Leg.CREDIT)]}


def assert_that_nothing_acknowledged_is_missing(run: Path) -> None:
    told, booked = acknowledged(run), home_legs(run)
    assert len(told) > 1_000
    assert sorted(told.keys() - booked.keys()) == []
    lawful = {Kind.AUTHORIZE: {Leg.RESERVE}, Kind.VOID: {Leg.RELEASE}}
    for key, row in told.items():
        record = booked[key]
        assert (int(record["shard"]), int(record["lsn"])) == (int(row["shard"]), int(row["lsn"]))
        assert record["leg"] in lawful.get(Kind(int(record["kind"])), {Leg.TRANSFER, Leg.DEBIT})


def assert_that_it_failed_in_good_order(ended: Ended, *reasons: str) -> None:
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "unexpected" not in ended.out + ended.err
    assert [name for name in sim_process.FILES if not (ended.folder / name).is_file()] == []
    assert [path.name for path in ended.folder.iterdir() if path.name.endswith((".part", ".reserve"))] == []
    summary = ended.summary
    assert summary["verdict"] == "fail"
    for reason in reasons:
        assert reason in summary["failure"]
    assert summary["audit"]["anomalies"] == {}
    counts = summary["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"] + counts["failed"] + counts["unknown"]
    assert len(np.fromfile(ended.folder / "history.bin", HISTORY)) == counts["offered"]
    assert summary["failure"] in ended.out + ended.err


@pytest.mark.parametrize("durability", ["group", "os"])
def test_a_journal_that_may_not_grow_ends_the_run_and_nothing_acknowledged_is_missing(
    tmp_path: Path, durability: str
) -> None:
    # One node, so that its journal is what reaches the limit first; the report alone takes 5 MB of it.
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=60s", "load.rate=30000/s", "load.mix={payment: 9, authorize: 1}", "load.accounts=20000",
            f"backend={{embedded: {{nodes: 1, shards: 2, durability: {durability}, remember: 131072}}}}",
        ),
        prefix=limited(6 * MIB),
    )  # fmt: skip
    assert_that_it_failed_in_good_order(ended, "node 0", "journal", "File too large")
    assert_that_nothing_acknowledged_is_missing(ended.folder)


def test_a_history_that_may_not_grow_ends_the_run_and_can_still_be_audited_later(tmp_path: Path) -> None:
    # Where nothing is journalled, the history is what reaches the limit.
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=60s", "load.rate=150000/s", "load.mix={payment: 1}", "load.accounts=20000",
            "backend={embedded: {nodes: 1, shards: 2, durability: memory, remember: 131072}}",
        ),
        prefix=limited(6 * MIB),
    )  # fmt: skip
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert "history" in ended.summary["failure"]
    assert ended.summary["audit"]["anomalies"] == {}
    assert main(["audit", str(ended.folder)]) != 122


def test_a_small_disk_that_fills_still_holds_every_file_and_everything_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        ended = sim_process.run(
            disk / "run", "--quiet",
            *sim_process.settings("duration=10s", "load.rate=20000/s", "load.accounts=20000"),
        )  # fmt: skip
        assert_that_it_failed_in_good_order(ended, "journal", "No space left on device")
        assert_that_nothing_acknowledged_is_missing(ended.folder)
        events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
        assert "node_stopped" in {event["event"] for event in events}


def test_a_disk_that_is_full_before_the_start_is_told_in_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        scenario = sim_process.scenario(tmp_path / "scenario" / "run")
        (disk / "filler").write_bytes(b"\0" * (52 << 10))
        ended = sim_process.call("run", str(scenario), "--out", str(disk / "run"), "--quiet")
        assert ended.code in (1, 2)
        assert ended.out == ""
        assert ended.err.startswith("sim: ")
        assert ended.err.count("\n") == 1
        assert "No space left on device" in ended.err
        assert "unexpected" not in ended.err
        assert [path.name for path in disk.iterdir()] == ["filler"]
