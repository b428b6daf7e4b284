"""The history of a run: how each transaction ended, as its client was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import kernel
from simulator.ledger.digest import add_acknowledged, position
from simulator.measure.recorder import HISTORY
from simulator.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK_ROWS = 1 << 20


def history_path(run: Path) -> Path:
    """Where a run keeps how each transaction ended."""
    return run / "history.bin"


def history_rest_path(run: Path) -> Path:
    """Where the rows are that found no room there; most runs have no such file."""
    return run / "history-rest.bin"


def read_history(run: Path) -> Iterator[NDArray[np.void]]:
    """The history in chunks."""
    for path in (history_path(run), history_rest_path(run)):
        if path.exists():
            with path.open("rb") as file:
                while raw := file.read(_CHUNK_ROWS * HISTORY.itemsize):
                    yield np.frombuffer(raw[: len(raw) - len(raw) % HISTORY.itemsize], HISTORY)


@kernel
def add_history(
    rows: NDArray[np.void], ok: int, sums: NDArray[np.uint64], statuses: NDArray[np.int64], ids: NDArray[np.uint64]
) -> None:
    """Adds the sides that the acknowledged rows must have to `sums`; counts rows by status, sums their hashed ids."""
    for i in range(rows.shape[0]):
        row = rows[i]
        statuses[row["status"]] += 1
        ids[0] += mix(row["id"])
        if row["status"] == ok:
            add_acknowledged(
                sums, row["id"], row["fingerprint"], row["kind_reason"] & 7, position(row["shard"], row["lsn"])
            )


@kernel
def sum_of_ids(count: int) -> np.uint64:
    """The sum of the hashed ids 1 … count, mod 2⁶⁴."""
    total = np.uint64(0)
    for i in range(1, count + 1):
        total += mix(np.uint64(i))
    return total
