from __future__ import annotations

import itertools

import pytest

from simulator.arrivals.curves import CURVES, FEN_PER_YUAN, PEAKS, Curve

BILLION = 1_000_000_000


@pytest.fixture(params=sorted(CURVES))
def curve(request: pytest.FixtureRequest) -> Curve:
    return CURVES[request.param]


def test_a_curve_starts_at_nothing_and_never_falls(curve: Curve) -> None:
    assert len(curve.knots_s) == len(curve.knots_value) >= 2
    assert (curve.knots_s[0], curve.knots_value[0]) == (0.0, 0)
    assert all(before < after for before, after in itertools.pairwise(curve.knots_s))
    assert all(before <= after for before, after in itertools.pairwise(curve.knots_value))


def test_a_curve_counts_money_in_integers_of_its_currency(curve: Curve) -> None:
    assert curve.currency == "CNY"
    assert all(type(value) is int for value in curve.knots_value)


def test_a_curve_covers_the_day_under_its_own_name(curve: Curve) -> None:
    assert CURVES[curve.name] is curve
    assert curve.duration_s == 86_400


def test_a_curve_says_where_it_is_from(curve: Curve) -> None:
    assert curve.source
    assert curve.note


def test_the_papers_curve_is_as_the_paper_cites_it() -> None:
    curve = CURVES["double-eleven/paper"]
    yuan = [value // FEN_PER_YUAN for value in curve.knots_value]
    assert list(zip(curve.knots_s, yuan, strict=True)) == [
        (0, 0),
        (60, 525_000_000),
        (1_800, 10 * BILLION),
        (86_400, 50 * BILLION),
    ]


def test_the_curve_of_2019_is_the_public_record() -> None:
    curve = CURVES["double-eleven/2019"]
    yuan = [value // FEN_PER_YUAN for value in curve.knots_value]
    assert list(zip(curve.knots_s, yuan, strict=True)) == [
        (0, 0),
        (96, 10 * BILLION),
        (12 * 60 + 49, 50 * BILLION),
        (86_400, 268_400_000_000),
    ]


def test_neither_curve_is_passed_off_as_the_other() -> None:
    assert "double-eleven/2019" in CURVES["double-eleven/paper"].note
    assert "double-eleven/paper" in CURVES["double-eleven/2019"].note


def test_no_caller_can_change_the_tables() -> None:
    with pytest.raises(TypeError):
        CURVES["mine"] = CURVES["double-eleven/paper"]  # type: ignore[index]
    with pytest.raises(TypeError):
        PEAKS[2021] = PEAKS[2020]  # type: ignore[index]


def test_orders_grow_from_year_to_year() -> None:
    orders = [peak.orders_per_s for _, peak in sorted(PEAKS.items()) if peak.orders_per_s is not None]
    assert orders == sorted(orders)
    assert (orders[0], orders[-1]) == (400, 583_000)


def test_disputed_payments_are_given_as_a_range() -> None:
    assert (PEAKS[2014].payments_per_s, PEAKS[2014].payments_per_s_high) == (38_500, 47_500)
    assert "disagree" in PEAKS[2014].note
    undisputed = [peak for year, peak in PEAKS.items() if year != 2014]
    assert all(peak.payments_per_s == peak.payments_per_s_high for peak in undisputed)
