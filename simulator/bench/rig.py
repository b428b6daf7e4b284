"""One embedded platform for one cell: started, stopped in good order, its books checked, and nothing of it left behind."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from simulator.errors import BackendError, Exit, SimError, UsageError
from simulator.measure.histogram import Histogram
from simulator.shard.journal import closing_path
from simulator.shard.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.shard.layout import Durability, Shape

QUEUE = 65_536  # slots of each ring, as a scenario's default
INTERVAL_NS = 10_000_000
OPENING_MINOR = 1_000_000_000  # of each customer: nobody runs out of money however long a cell takes
DISK_MAX_BYTES = 2_000_000_000  # what the journals of one cell may take; it ends early there
_DISK_SHARE = 0.5  # of what is free, if that is less
_DISK_LEAST_BYTES = 64 << 20
_STOP_S = 60.0  # `os` and `interval` sync what they left to the system when they close: up to DISK_MAX_BYTES


class BooksError(SimError):
    """A cell whose books do not add up: a figure of such a platform is worth nothing."""

    exit_code = Exit.ANOMALIES


class Workplace:
    """A temporary folder on the file system of the current one: durability means that disk."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def __enter__(self) -> Path:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=".sim-bench-", dir=self._parent))
        except OSError as error:
            raise UsageError(
                f"{self._parent}: cannot be written to ({error.strerror}); the journals are measured on the disk of the "
                "current folder, so change to one that can"
            ) from error
        (self._folder / ".gitignore").write_text("*\n", "utf-8")  # a commit made meanwhile does not take it along
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def disk_cap_bytes(folder: Path) -> int:
    """How much the journals of one cell may take here. Raises UsageError where that is too little to measure anything."""
    cap = min(DISK_MAX_BYTES, int(shutil.disk_usage(folder).free * _DISK_SHARE))
    if cap < _DISK_LEAST_BYTES:
        raise UsageError(f"{folder.parent}: the disk is nearly full; {2 * _DISK_LEAST_BYTES >> 20} MiB must be free")
    return cap


@dataclass(frozen=True)
class Gauge:
    """What the nodes have done until now, all together."""

    commits: Histogram
    frames: int
    records: int
    bytes: int

    def since(self, before: Gauge) -> Gauge:
        """What was done after `before`."""
        return Gauge(
            Histogram(self.commits.counts - before.commits.counts),
            self.frames - before.frames,
            self.records - before.records,
            self.bytes - before.bytes,
        )


class Rig:
    """A running platform. Leaving the block ends its processes and removes its journals, whatever happened."""

    def __init__(self, shape: Shape, durability: Durability, place: Path) -> None:
        self.shape = shape
        self.durability = durability
        self._place = place

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(dir=self._place))
        try:
            self.pool = Pool(
                self.shape, self._folder,
                durability=self.durability, interval_ns=INTERVAL_NS, queue=QUEUE, run=1,
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.wiring = self.pool.wiring
        self.pool.board.epoch_ns[0] = time.monotonic_ns()
        try:
            self.pool.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self.pool.kill()
        self.wiring.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def gauge(self) -> Gauge:
        """What the nodes have done until now."""
        rows = self.pool.board.nodes
        commits = Histogram(self.pool.board.commits.sum(axis=0))
        return Gauge(commits, int(rows["frames"].sum()), int(rows["records"].sum()), self.journal_bytes())

    def journal_bytes(self) -> int:
        """What the nodes have written until now."""
        return int(self.pool.board.nodes["bytes"].sum())

    def look(self) -> None:
        """Raises BackendError if a node has stopped by itself."""
        if failures := self.pool.failures():
            raise BackendError("; ".join(f"node {failure.node}: {failure.reason}" for failure in failures))

    def close(self) -> None:
        """Stops the nodes in good order and checks the books. Raises BackendError, BooksError."""
        if not self.pool.stop(_STOP_S):
            self.look()
            raise BackendError(f"the nodes could not close their books within {_STOP_S:.0f} s")
        opening = self.shape.customers * self.shape.opening_minor
        held, out, into = 0, np.zeros(self._pairs, np.int64), np.zeros(self._pairs, np.int64)
        for sheet in self._sheets():
            held += sheet["available_minor"] + sheet["reserved_minor"]
            out[sheet["shard"]] += np.array(sheet["transit_out_minor"])
            into[sheet["shard"]] += np.array(sheet["transit_in_minor"])
        if (out != into.T).any():
            raise BooksError(f"{abs(int(out.sum() - into.sum())):,} minor units are still between shards")
        total = held + int(out.sum() - into.sum())
        if total != opening:
            raise BooksError(f"the books hold {total:,} minor units where {opening:,} were opened with")

    @property
    def _pairs(self) -> tuple[int, int]:
        return self.shape.shards, self.shape.shards

    def _sheets(self) -> Iterator[dict[str, Any]]:
        for node in range(self.shape.nodes):
            yield from json.loads(closing_path(self._folder, node).read_text("utf-8"))["shards"]
