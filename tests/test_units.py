"""Durations, money and rates: exact, and read back as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.scenario.units import (
    INT64_MAX,
    format_duration,
    format_money,
    format_rate,
    parse_duration,
    parse_money,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("10s", 10_000_000_000),
        ("1m30s", 90_000_000_000),
        ("250ms", 250_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ("0.000000001s", 1),
        ("1_000ms", 1_000_000_000),
    ],
)
def test_durations_read_as_people_write_them(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["10 sec", "10", "", "s", "-1s", "30s1m", "1s1s", "1d", "1e3s", "٣s", "10s\n", 10, None, "1__0s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write for example 10s, 1m30s or 250ms"):
        parse_duration(text)


def test_a_duration_finer_than_a_nanosecond_or_past_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="finer than a nanosecond"):
        parse_duration("1.00000000000000000000000000000000000001s")
    with pytest.raises(ValueError, match="too long"):
        parse_duration("9999999999h")


@given(st.integers(0, INT64_MAX))
def test_a_duration_reads_back_as_it_was_written(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("100 CNY", "CNY", 10_000),
        ("0.50 CNY", "CNY", 50),
        ("525_000_000 CNY", "CNY", 52_500_000_000),
        ("90071992547409.93 CNY", "CNY", 9_007_199_254_740_993),  # 2**53 + 1: no float holds it
        ("7 JPY", "JPY", 7),
        ("1.005 KWD", "KWD", 1_005),
    ],
)
def test_money_is_exact(text: str, currency: str, minor: int) -> None:
    assert parse_money(text, currency) == minor


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "is not an amount of money; write for example 100 CNY"),
        (100, "is not an amount of money"),
        ("-5 CNY", "is not an amount of money"),
        ("1e3 CNY", "is not an amount of money"),
        ("100 USD", "'100 USD' is in USD, but this scenario's currency is CNY"),
        ("0.005 CNY", "is finer than CNY goes"),
        ("1.00000000000000000000000000000000000001 CNY", "is finer than CNY goes"),
        ("92233720368547758.08 CNY", "is too much"),
    ],
)
def test_what_is_no_amount_in_the_currency_is_refused(text: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_money(text, "CNY")


@given(st.integers(0, INT64_MAX), st.sampled_from(["CNY", "JPY", "KWD"]))
def test_money_reads_back_as_it_was_written(minor: int, currency: str) -> None:
    assert parse_money(format_money(minor, currency), currency) == minor


def test_a_negative_amount_is_shown_with_its_sign_once() -> None:
    assert format_money(-150, "CNY") == "-1.50 CNY"


@pytest.mark.parametrize(
    ("text", "per_s"), [("50000/s", 50_000.0), ("50_000/s", 50_000.0), ("90/min", 1.5), ("7200/h", 2.0), ("0/s", 0.0)]
)
def test_rates_read_per_second(text: str, per_s: float) -> None:
    assert parse_rate(text) == per_s


@pytest.mark.parametrize("text", ["50000", 50_000, "5/ms", "-5/s", "1e3/s", "/s", "5 / s"])
def test_what_is_no_rate_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="is not a rate; write for example 50000/s"):
        parse_rate(text)


@given(st.floats(1e-12, 5e7))
def test_a_rate_reads_back_as_the_identical_float(per_s: float) -> None:
    assert parse_rate(format_rate(per_s)) == per_s
