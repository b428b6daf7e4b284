"""Rows on disk until the run is over: all of them come back, in order, also where the disk is full from some row on."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.measure import spill
from simulator.measure.spill import Spill
from simulator.measure.windows import PAIR, WindowHistograms

if TYPE_CHECKING:
    from pathlib import Path


def rows_of(first: int, count: int) -> np.ndarray[Any, Any]:
    rows = np.zeros(count, PAIR)
    rows["count"] = np.arange(first, first + count)
    return rows


class FullAfter(io.RawIOBase):
    """A file on a disk with room for so many bytes; it takes part of what does not fit whole, as disks do."""

    def __init__(self, room: int) -> None:
        self.held = bytearray()
        self.room = room

    def write(self, data: Any, /) -> int:  # noqa: ANN401  any buffer
        taken = min(len(data), self.room - len(self.held), 100)
        if taken <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.held += bytes(data[:taken])
        return taken


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_added_comes_back_in_order(tmp_path: Path, on_disk: bool) -> None:  # noqa: FBT001  pytest's
    kept = Spill(PAIR, tmp_path if on_disk else None)
    for first in range(0, 1_000, 10):
        kept.add(rows_of(first, 10))
    assert kept.rows()["count"].tolist() == list(range(1_000))
    assert list(tmp_path.iterdir()) == []  # it has no name, so nothing can be left behind
    kept.close()


def test_nothing_added_is_nothing_kept(tmp_path: Path) -> None:
    kept = Spill(PAIR, tmp_path)
    assert len(kept.rows()) == 0
    kept.close()


@given(st.integers(0, 60 * PAIR.itemsize), st.lists(st.integers(0, 20), max_size=8))
def test_a_disk_that_is_full_from_any_byte_on_loses_no_row(room: int, sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        file = FullAfter(room)
        patch.setattr(spill, "TemporaryFile", lambda **_: file)
        patch.setattr(np, "fromfile", lambda _, dtype, count: np.frombuffer(bytes(file.held), dtype, count))
        patch.setattr(file, "seek", lambda _: 0)
        kept = Spill(PAIR, "anywhere")  # type: ignore[arg-type]  # nothing is opened
        first = 0
        for size in sizes:
            kept.add(rows_of(first, size))
            first += size
        assert kept.rows()["count"].tolist() == list(range(first))


def test_histograms_that_wait_on_disk_are_those_that_wait_in_memory(tmp_path: Path) -> None:
    def recorded(folder: Path | None) -> list[list[int]]:
        kept = WindowHistograms(20, 2, 2, resident=2, spill=folder)
        for window in range(20):
            kept.admit(window)
            kept.dense[kept.slots[window], window % 2, 1, window * 7 : window * 7 + 3] = window + 1
        sparse = kept.finish()
        return [sparse.cells.tolist(), sparse.starts.tolist(), sparse.pairs.tolist()]

    assert recorded(tmp_path) == recorded(None)
