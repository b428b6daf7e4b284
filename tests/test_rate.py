from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arrivals.curves import CURVES
from simulator.arrivals.rate import Rate

law = settings(deadline=None)  # the first call compiles the kernels

rates_per_s = st.one_of(st.just(0.0), st.floats(0.1, 1e6))
durations_s = st.floats(0.01, 1e4)


@st.composite
def staged(draw: st.DrawFn) -> Rate:
    stages = draw(st.lists(st.tuples(st.one_of(st.just(0.0), durations_s), rates_per_s), max_size=6))
    return Rate.stages(draw(rates_per_s), stages, draw(durations_s))


@st.composite
def knots(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    n = draw(st.integers(1, 7))
    gaps = draw(st.lists(durations_s, min_size=n, max_size=n))
    rises = draw(st.lists(st.one_of(st.just(0.0), st.floats(1.0, 1e8)), min_size=n, max_size=n))
    return [0.0, *np.cumsum(gaps).tolist()], [0.0, *np.cumsum(rises).tolist()]


curved = knots().map(lambda pair: Rate.from_knots(*pair))
rates = st.one_of(staged(), curved)


def grid(rate: Rate, n: int = 400) -> np.ndarray:
    return np.linspace(0.0, rate.duration_s, n)


@law
@given(rates)
def test_the_cumulative_count_never_decreases(rate: Rate) -> None:
    counts = rate.cumulative(grid(rate))
    assert counts[0] == 0.0
    assert counts[-1] == pytest.approx(rate.total, rel=1e-12)
    assert (np.diff(counts) >= -1e-12 * rate.total).all()


@law
@given(rates)
def test_the_rate_is_never_negative_and_never_above_its_peak(rate: Rate) -> None:
    peak, at = rate.peak()
    sampled = rate.per_s(grid(rate))
    assert (sampled >= 0.0).all()
    assert sampled.max() <= peak * (1 + 1e-9)
    around = rate.per_s(np.clip([np.nextafter(at, 0.0), at], 0.0, rate.duration_s))
    assert around.max() == pytest.approx(peak, rel=1e-6)


@law
@given(rates, st.lists(st.floats(0.0, 1.0), max_size=50))
def test_the_inverse_undoes_the_cumulative_count(rate: Rate, shares: list[float]) -> None:
    counts = np.array(shares) * rate.total
    times = rate.inverse(counts)
    assert ((times >= 0.0) & (times <= rate.duration_s)).all()
    assert rate.cumulative(times) == pytest.approx(counts, rel=1e-9, abs=1e-9 * max(rate.total, 1.0))


@law
@given(rates, st.lists(st.floats(0.0, 1.0), max_size=50))
def test_the_cumulative_count_undoes_the_inverse_where_the_rate_is_not_small(rate: Rate, shares: list[float]) -> None:
    times = np.array(shares) * rate.duration_s
    mean = rate.total / rate.duration_s
    lively = times[(rate.per_s(times) > 1e-3 * mean) & (times < rate.duration_s)] if mean else times[:0]
    assert rate.inverse(rate.cumulative(lively)) == pytest.approx(lively, rel=1e-8, abs=1e-8 * rate.duration_s)


@law
@given(rates, st.lists(st.floats(0.0, 1.0), max_size=50))
def test_sorted_and_unsorted_counts_have_the_same_inverse(rate: Rate, shares: list[float]) -> None:
    counts = np.array(shares) * rate.total
    order = np.argsort(counts)
    one, other = rate.inverse(counts)[order], rate.inverse(counts[order])
    # Compared as counts: where the rate vanishes, many times have the same count to the last bit.
    assert rate.cumulative(one) == pytest.approx(rate.cumulative(other), rel=1e-12, abs=1e-12 * max(rate.total, 1.0))


@law
@given(knots())
def test_a_curve_passes_every_knot(pair: tuple[list[float], list[float]]) -> None:
    rate = Rate.from_knots(*pair)
    assert rate.cumulative(np.array(pair[0])) == pytest.approx(pair[1], rel=1e-9, abs=1e-9)


@law
@given(knots())
def test_a_curves_rate_is_continuous_at_its_knots(pair: tuple[list[float], list[float]]) -> None:
    times, counts = pair
    rate = Rate.from_knots(times, counts)
    start, _, c1, c2, c3 = rate.pieces
    lengths = np.diff(start)
    left = (3.0 * c3[:-1] * lengths + 2.0 * c2[:-1]) * lengths + c1[:-1]
    steepest = np.max(np.diff(counts) / np.diff(times))
    assert left == pytest.approx(c1[1:], abs=1e-9 * steepest)


@law
@given(rates, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_window_is_the_same_function_moved(rate: Rate, one: float, other: float) -> None:
    start_s, end_s = sorted((one * rate.duration_s, other * rate.duration_s))
    if end_s - start_s < 1e-6 * rate.duration_s:
        return
    cut = rate.window(start_s, end_s)
    times = grid(cut)
    before = rate.cumulative(np.array([start_s]))
    tolerance = 1e-9 * max(rate.total, 1.0)
    assert cut.cumulative(times) == pytest.approx(rate.cumulative(times + start_s) - before, abs=tolerance)
    assert cut.duration_s == end_s - start_s


@law
@given(rates, st.floats(0.0, 1e3))
def test_a_scale_multiplies_the_count(rate: Rate, factor: float) -> None:
    assert rate.scaled(factor).cumulative(grid(rate)) == pytest.approx(factor * rate.cumulative(grid(rate)), rel=1e-12)


def test_a_constant_rate_counts_rate_times_time() -> None:
    rate = Rate.constant(50_000.0, 60.0)
    assert rate.total == 3_000_000
    assert rate.peak() == (50_000.0, 0.0)
    assert rate.inverse(np.array([25_000.0])).tolist() == [0.5]


def test_a_stage_ramps_linearly_and_the_same_target_holds() -> None:
    rate = Rate.stages(1_000.0, [(10.0, 5_000.0), (10.0, 5_000.0), (10.0, 0.0)], 30.0)
    assert rate.per_s(np.array([0.0, 5.0, 10.0, 15.0, 25.0, 30.0])).tolist() == [1_000, 3_000, 5_000, 5_000, 2_500, 0]
    assert rate.cumulative(np.array([10.0, 20.0, 30.0])).tolist() == [30_000, 80_000, 105_000]
    assert rate.peak() == (5_000.0, 10.0)


def test_a_stage_without_duration_jumps() -> None:
    rate = Rate.stages(10.0, [(1.0, 10.0), (0.0, 100.0), (1.0, 100.0)], 2.0)
    assert rate.per_s(np.array([0.999, 1.0, 1.5])).tolist() == [10, 100, 100]
    assert rate.total == 110


def test_the_last_target_holds_and_what_is_beyond_the_duration_is_cut() -> None:
    assert Rate.stages(0.0, [(1.0, 10.0)], 3.0).total == 25
    assert Rate.stages(0.0, [(10.0, 100.0), (5.0, 7.0)], 5.0).total == 125


def test_nothing_is_due_where_the_rate_is_zero() -> None:
    rate = Rate.stages(0.0, [(1.0, 0.0), (0.0, 10.0), (1.0, 10.0), (0.0, 0.0), (1.0, 0.0), (0.0, 10.0)], 4.0)
    assert rate.inverse(np.array([0.0, 5.0, 10.0, 15.0, 20.0])).tolist() == [1.0, 1.5, 3.0, 3.5, 4.0]


def test_the_curve_of_the_paper_asks_for_no_spike_that_its_knots_do_not() -> None:
    curve = CURVES["double-eleven/paper"]
    rate = Rate.from_knots(curve.knots_s, np.array(curve.knots_value) / 10_000)
    steepest = 525e6 / 60 / 100
    peak, at = rate.peak()
    assert steepest < peak < 1.1 * steepest
    assert at < 60.0


def test_a_window_of_a_curve_is_cut_in_the_knots_own_time() -> None:
    whole = Rate.from_knots([10.0, 20.0, 40.0], [5.0, 105.0, 305.0], scale=2.0)
    cut = Rate.from_knots([10.0, 20.0, 40.0], [5.0, 105.0, 305.0], (20.0, 40.0), 2.0)
    assert whole.total == 600
    assert cut.total == pytest.approx(400)


def test_a_recorded_rate_is_the_mean_between_its_knots() -> None:
    rate = Rate.from_recorded([0.0, 1.0, 3.0], [0.0, 10.0, 10.0])
    assert rate.per_s(np.array([0.5, 2.0])).tolist() == [10.0, 0.0]


def test_a_rate_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Rate.constant(1.0, 1.0).pieces[2, 0] = 7.0


@pytest.mark.parametrize("count", [-1.0, 101.0, float("nan")])
def test_a_count_outside_the_run_has_no_time(count: float) -> None:
    with pytest.raises(ValueError, match="counts must be in"):
        Rate.constant(100.0, 1.0).inverse(np.array([count]))


@pytest.mark.parametrize(
    ("times", "counts", "complaint"),
    [
        ([0.0], [0.0], "two knots or more"),
        ([0.0, 1.0], [0.0], "two knots or more"),
        ([0.0, 0.0], [0.0, 1.0], "times must increase"),
        ([0.0, 1.0], [1.0, 0.0], "must not decrease"),
        ([0.0, float("inf")], [0.0, 1.0], "finite"),
    ],
)
def test_knots_that_are_no_curve_are_refused(times: list[float], counts: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rate.from_knots(times, counts)


def test_impossible_rates_durations_windows_and_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="duration"):
        Rate.constant(1.0, 0.0)
    with pytest.raises(ValueError, match="≥ 0"):
        Rate.constant(-1.0, 1.0)
    with pytest.raises(ValueError, match="≥ 0"):
        Rate.stages(1.0, [(1.0, float("nan"))], 1.0)
    with pytest.raises(ValueError, match="window"):
        Rate.constant(1.0, 1.0).window(0.5, 1.5)
    with pytest.raises(ValueError, match="scale"):
        Rate.constant(1.0, 1.0).scaled(-1.0)
