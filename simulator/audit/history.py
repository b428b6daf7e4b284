"""The history of a run: how each transaction ended, as its client was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import kernel
from simulator.ledger.digest import add_acknowledged, add_refused, position
from simulator.measure.recorder import ASKED, HISTORY, SECOND
from simulator.seeds import mix
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK_ROWS = 1 << 20
_OK, _REJECTED, _FAILED = int(Status.OK), int(Status.REJECTED), int(Status.FAILED)
_OTHER = SECOND | ASKED


def history_path(run: Path, generator: int = 0) -> Path:
    """Where a run keeps how each transaction ended that this generator had to send."""
    return run / (f"history-{generator}.bin" if generator else "history.bin")


def history_rest_path(run: Path) -> Path:
    """Where the rows are that found no room there; most runs have no such file."""
    return run / "history-rest.bin"


def read_history(run: Path) -> Iterator[NDArray[np.void]]:
    """The history in chunks, one generator's after another's; each is in the order of its client."""
    generator = 0
    paths = [history_path(run)]
    while (path := history_path(run, generator := generator + 1)).exists():
        paths.append(path)
    for path in (*paths, history_rest_path(run)):
        if path.exists():
            with path.open("rb") as file:
                while raw := file.read(_CHUNK_ROWS * HISTORY.itemsize):
                    yield np.frombuffer(raw[: len(raw) - len(raw) % HISTORY.itemsize], HISTORY)


@kernel
def add_history(
    rows: NDArray[np.void], sums: NDArray[np.uint64], statuses: NDArray[np.int64], ids: NDArray[np.uint64],
    others: NDArray[np.int64],
) -> None:  # fmt: skip
    """Adds the sides that the rows' transactions must have to `sums`; counts rows by status, sums their hashed ids.

    Rows of another sort (second answers, lookups going out) are counted in others[0], and nothing else.
    """
    for i in range(rows.shape[0]):
        row = rows[i]
        if row["flags"] & _OTHER:
            others[0] += 1
            continue
        status = row["status"]
        statuses[status] += 1
        ids[0] += mix(row["id"])
        kind = row["kind_reason"] & 7
        place = position(row["shard"], row["lsn"])
        if status == _OK:
            add_acknowledged(sums, row["id"], row["fingerprint"], kind, place)
        elif (status == _REJECTED or status == _FAILED) and row["lsn"] != 0:
            add_refused(sums, row["id"], row["fingerprint"], kind, place)


@kernel
def sum_of_ids(count: int) -> np.uint64:
    """The sum of the hashed ids 1 … count, mod 2⁶⁴."""
    total = np.uint64(0)
    for i in range(1, count + 1):
        total += mix(np.uint64(i))
    return total
