"""The windows that a run is counted in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.measure import grid

S = grid.NS_PER_S
law = settings(deadline=None)
lengths = st.integers(1, 86_400 * S)


@law
@given(duration=lengths, tail=st.integers(0, 3_600 * S), data=st.data())
def test_a_grid_covers_the_run_and_its_drain_in_a_bounded_number_of_windows(
    duration: int, tail: int, data: st.DataObject
) -> None:
    edges = grid.peak_grid(duration, tail, data.draw(st.integers(0, duration)))
    assert edges[0] == 0
    assert edges[-1] >= duration + tail
    assert (np.diff(edges) > 0).all()
    assert len(edges) - 1 <= grid.FINE_WINDOWS + grid.COARSE_WINDOWS + 3


@law
@given(duration=st.integers(300 * S, 86_400 * S), data=st.data())
def test_the_peak_is_seen_in_windows_of_100_ms(duration: int, data: st.DataObject) -> None:
    peak = data.draw(st.integers(0, duration))
    edges = grid.peak_grid(duration, 0, peak)
    at = grid.window_of(edges, min(peak, duration - 1), 0)
    assert edges[at + 1] - edges[at] == grid.FINE_NS


def test_a_day_that_opens_with_a_spike_is_fine_for_its_first_minute_and_in_minutes_later() -> None:
    edges = grid.peak_grid(86_400 * S, 30 * S, 15 * S)
    widths = np.diff(edges)
    assert (widths[:600] == grid.FINE_NS).all()
    assert (widths[-1_000:] == 60 * S).all()


@law
@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=30), st.data())
def test_a_time_is_found_in_its_window_whatever_the_hint(widths: list[int], data: st.DataObject) -> None:
    edges = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    time = data.draw(st.integers(-5, int(edges[-1]) + 5))
    expected = min(max(int(np.searchsorted(edges, time, side="right")) - 1, 0), len(widths) - 1)
    assert grid.window_of(edges, time, data.draw(st.integers(0, len(widths) - 1))) == expected


@law
@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=60))
def test_on_a_grid_of_seconds_rates_are_the_counts(counts: list[int]) -> None:
    rates = grid.per_second(grid.seconds_grid(len(counts)), np.array(counts), len(counts))
    assert rates.tolist() == counts


@law
@given(st.lists(st.integers(0, 1_000), min_size=10, max_size=95))
def test_tenths_of_a_second_are_joined_to_seconds_and_what_is_no_second_is_left_out(counts: list[int]) -> None:
    edges = np.arange(len(counts) + 1, dtype=np.int64) * grid.FINE_NS
    rates = grid.per_second(edges, np.array(counts), len(counts))
    assert rates.tolist() == [sum(counts[at : at + 10]) for at in range(0, len(counts) - 9, 10)]


def test_less_than_a_second_is_still_a_rate_and_nothing_is_none() -> None:
    edges = np.arange(4, dtype=np.int64) * grid.FINE_NS
    assert grid.per_second(edges, np.array([1, 2, 3]), 3).tolist() == pytest.approx([20.0])
    assert grid.per_second(edges, np.array([1, 2, 3]), 0).tolist() == []


def test_a_long_window_counts_by_its_length() -> None:
    edges = np.array([0, S, 61 * S], np.int64)
    assert grid.per_second(edges, np.array([5, 600]), 2).tolist() == [5.0, 10.0]
    assert grid.windows_until(edges, 60 * S) == 1
    assert grid.windows_until(edges, 61 * S) == 2


@law
@given(st.lists(st.integers(1, 3 * 10**9), min_size=1, max_size=40))
def test_groups_of_windows_make_a_second_or_more_and_hold_every_window(widths: list[int]) -> None:
    edges = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    firsts = grid.seconds_or_longer(edges, len(widths))
    assert firsts[0] == 0
    lengths = np.diff(np.append(edges[firsts], edges[-1]))
    assert (lengths[:-1] >= S).all()
