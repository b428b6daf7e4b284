"""Stretches: every span of so many seconds, and what was counted within each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.measure.grid import NS_PER_S, seconds_grid
from simulator.measure.histogram import COUNTS
from simulator.measure.stretch import cells_of, counted_by_window, histogram_of, sliding, stretches
from simulator.measure.windows import SparseHistograms, WindowHistograms


def spans(edges_s: list[float], until_s: float, length_s: float) -> list[tuple[int, int]]:
    edges = np.array(edges_s) * NS_PER_S
    over = stretches(edges.astype(np.int64), int(until_s * NS_PER_S), int(length_s * NS_PER_S))
    return list(zip(over.first.tolist(), over.stop.tolist(), strict=True))


@pytest.mark.parametrize(
    ("until_s", "length_s", "expected"),
    [
        (5, 2, [(0, 2), (1, 3), (2, 4), (3, 5)]),
        (4.9, 2, [(0, 2), (1, 3), (2, 4)]),  # the fifth second is not whole
        (5, 1, [(k, k + 1) for k in range(5)]),
        (5, 1.5, [(0, 2), (1, 3), (2, 4), (3, 5)]),
        (5, 5, [(0, 5)]),
        (3, 10, [(0, 3)]),  # cut short: all of it
        (0.5, 10, []),
    ],
)
def test_stretches_slide_by_a_window(until_s: float, length_s: float, expected: list[tuple[int, int]]) -> None:
    assert spans([0, 1, 2, 3, 4, 5, 6], until_s, length_s) == expected


def test_a_window_longer_than_the_stretch_is_one_by_itself() -> None:
    assert spans([0, 60, 60.5, 61, 120], 120, 1) == [(0, 1), (0, 2), (1, 3), (3, 4)]


@st.composite
def recorded(draw: st.DrawFn) -> SparseHistograms:
    size = draw(st.integers(0, 60))
    windows, kinds, nodes = 8, 2, 3

    def column(most: int) -> list[int]:
        return draw(st.lists(st.integers(0, most - 1), min_size=size, max_size=size))

    kept = WindowHistograms(windows, kinds, nodes, resident=windows)
    for window in range(windows):
        kept.admit(window)
    for cell, bucket, count in zip(column(windows * kinds * nodes), column(50), column(9), strict=True):
        kept.dense[kept.slots[cell // (kinds * nodes)], cell // nodes % kinds, cell % nodes, bucket] += count + 1
    return kept.finish()


@given(recorded(), st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, 2]), st.integers(1, 9))
def test_sliding_histograms_are_the_sums_of_their_windows(
    sparse: SparseHistograms, kind: int | None, node: int | None, length_s: int
) -> None:
    chosen = cells_of(sparse, kind, node)
    over = stretches(seconds_grid(8), 8 * NS_PER_S, length_s * NS_PER_S)
    windows = np.zeros((8, COUNTS), np.int64)
    for number, cell in enumerate(sparse.cells.tolist()):
        at, of_kind, of_node = cell // 6, cell // 3 % 2, cell % 3
        if kind in (None, of_kind) and node in (None, of_node):
            for bucket, count in sparse.pairs[sparse.starts[number] : sparse.starts[number + 1]].tolist():
                windows[at, bucket] += count
    for first, stop, found in zip(over.first, over.stop, sliding(sparse, chosen, over), strict=True):
        assert (found.counts == windows[first:stop].sum(axis=0)).all()
    assert counted_by_window(sparse, chosen).tolist() == windows.sum(axis=1).tolist()
    assert (histogram_of(sparse, chosen).counts == windows.sum(axis=0)).all()
    assert over.sums(windows.sum(axis=1)).tolist() == [
        int(windows[a:b].sum()) for a, b in zip(over.first, over.stop, strict=True)
    ]
