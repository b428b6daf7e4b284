"""Runs `sim` in a process of its own, on a small scenario, and looks at the processes it starts. Linux, as the simulator is."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 120.0  # a cold cache of kernels takes a quarter of this; only a hang takes all of it
# Every warning is an error, but for files that wait for the collector: those have a test of their own in test_run.py.
SIM = (sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "simulator.cli")
FILES = (
    "summary.json", "report.html", "timeseries.csv", "latency.hlog", "scenario.yaml", "environment.json", "audit.json",
    "events.jsonl",
)  # fmt: skip
# What an audit says of books that are as they should be; it says more than that.
CLEAN: dict[str, Any] = {"verdict": "clean", "anomalies": {}, "conservation_minor": 0}
SCENARIO = """\
name: small
seed: 7
duration: 2s
load:
  rate: 5000/s
  accounts: 2000
  merchants: {count: 50}
  mix: {payment: 80, refund: 8, authorize: 12}
  follow_up: {after: 400ms, void_share: 0.3}
backend:
  embedded: {nodes: 2, shards: 4, remember: 16_384}
dispatcher: {lag_limit: 60s}  # a test's machine may be busy, and stand still for seconds
thresholds:
  dropped: ["count == 0"]
  audit: ["anomalies == 0"]
"""


@dataclass
class Ended:
    """A `sim run` that is over."""

    folder: Path
    code: int
    out: str
    err: str
    _summary: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says."""
        if not self._summary:
            self._summary = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return self._summary

    @property
    def series(self) -> dict[str, list[float]]:
        """timeseries.csv by column; nan where a second has no value."""
        rows = list(csv.DictReader((self.folder / "timeseries.csv").read_text("utf-8").splitlines()))
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}


def scenario(folder: Path) -> Path:
    """Writes the small scenario beside a run's folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / "small.yaml"
    path.write_text(SCENARIO, "utf-8")
    return path


def settings(*values: str) -> list[str]:
    """`--set` before each value."""
    return [part for value in values for part in ("--set", value)]


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would steer `sim` or the shape of its output."""
    steering = ("SIM_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", **more}


def call(*arguments: str, cwd: Path | None = None, prefix: tuple[str, ...] = (), **env: str) -> Ended:
    """`sim` with these arguments, to its end; `prefix` is a command that runs the rest of its line."""
    ended = subprocess.run(
        [*prefix, *SIM, *arguments],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=cwd, env=environment(**env),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ended(cwd or Path(), ended.returncode, ended.stdout, ended.stderr)


def run(folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> Ended:
    """The small scenario into `folder`, to its end."""
    ended = call("run", str(scenario(folder)), "--out", str(folder), *arguments, cwd=None, prefix=prefix, **env)
    ended.folder = folder
    return ended


class Running:
    """The small scenario while it runs, in a process group of its own; killed at the latest when the block is left."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.out = folder.parent / "out.txt"
        self.err = folder.parent / "err.txt"
        command = [*SIM, "run", str(scenario(folder)), "--out", str(folder), *arguments]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                env=environment(PYTHONUNBUFFERED="1"),
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # its children die with it; harmless if it has ended
        self.process.wait(PATIENCE_S)

    @property
    def journal_bytes(self) -> int:
        """How much the nodes have written."""
        return sum(path.stat().st_size for path in self.folder.glob("journal/node-*.journal"))

    def wait_until_under_way(self) -> None:
        """Until the books of both nodes have grown well past their headers."""
        until(lambda: self.journal_bytes > 50_000 or self.process.poll() is not None, "transactions in the journals")
        assert self.process.poll() is None, self.err.read_text("utf-8")

    def end(self) -> Ended:
        """Waits for it."""
        code = self.process.wait(PATIENCE_S)
        return Ended(self.folder, code, self.out.read_text("utf-8"), self.err.read_text("utf-8"))


def until(condition: Callable[[], object], what: str) -> None:
    """Polls a condition, and fails when it will not become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


def children(pid: int) -> set[int]:
    """The living processes that a process has started."""
    return {child for child, parent in _parents() if parent == pid}


def alive(pid: int) -> bool:
    """Whether a process is there, and not a zombie that only waits to be reaped."""
    state = _stat(Path(f"/proc/{pid}/stat"))
    return state is not None and state[0] not in ("Z", "X")


def members(session: int) -> set[int]:
    """The living processes of a session."""
    found = ((int(path.parent.name), _stat(path)) for path in Path("/proc").glob("[0-9]*/stat"))
    return {pid for pid, stat in found if stat is not None and int(stat[3]) == session and stat[0] not in ("Z", "X")}


def _parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        stat = _stat(path)
        if stat is not None and stat[0] not in ("Z", "X"):
            yield int(path.parent.name), int(stat[1])


def _stat(path: Path) -> list[str] | None:
    """State, parent, group, session … of a process: what stands behind its name, which may hold anything."""
    try:
        return path.read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None


def shared_memory() -> set[str]:
    """What stands in /dev/shm."""
    folder = Path("/dev/shm")  # noqa: S108  looked at, never written to
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
