"""Thresholds: their grammar, and how a run is judged by them."""

from __future__ import annotations

import math

import pytest

from simulator.report.thresholds import Judgement, judge
from simulator.scenario.threshold import METRICS, Threshold, parse_threshold


@pytest.mark.parametrize(
    ("metric", "expression", "aggregate", "argument", "operator", "limit"),
    [
        ("response_time", "p(99) < 50ms", "p", 99.0, "<", 50e6),
        ("response_time", "p(99.9)<=1.5s", "p", 99.9, "<=", 1.5e9),
        ("service_time", "mean < 200", "mean", None, "<", 200e6),
        ("schedule_lag", " max  <  1ms ", "max", None, "<", 1e6),
        ("dropped", "count == 0", "count", None, "==", 0.0),
        ("ok", "count >= 10_000", "count", None, ">=", 10_000.0),
        ("ok", "rate > 99%", "rate", None, ">", 0.99),
        ("rejected", "rate < 0.01", "rate", None, "<", 0.01),
        ("throughput", "mean >= 50000/s", "mean", None, ">=", 50_000.0),
        ("throughput", "min > 100", "min", None, ">", 100.0),
        ("imbalance", "max < 1.2", "max", None, "<", 1.2),
        ("audit", "anomalies == 0", "anomalies", None, "==", 0.0),
        ("unknown", "count != 3", "count", None, "!=", 3.0),
    ],
)
def test_an_expression_parses_to_base_units(
    *, metric: str, expression: str, aggregate: str, argument: float | None, operator: str, limit: float
) -> None:
    assert parse_threshold(metric, expression) == Threshold(metric, aggregate, argument, operator, limit, expression)


def test_every_metric_of_the_contract_is_known() -> None:
    assert set(METRICS) == set(
        "response_time service_time schedule_lag ok rejected failed unknown dropped throughput imbalance audit".split()  # noqa: SIM905  the contract's own list
    )


@pytest.mark.parametrize(
    ("metric", "expression", "message"),
    [
        ("responze_time", "p(99) < 1", "'responze_time' is not a metric; did you mean response_time?"),
        ("xyz", "p(99) < 1", "'xyz' is not a metric; known: response_time"),
        ("response_time", "fast please", "is not a threshold; write for example 'p(99) < 50ms'"),
        ("dropped", "", "is not a threshold; write for example 'count == 0'"),
        ("dropped", 0, "0 is not a threshold"),
        ("response_time", "p99 < 50ms", "is not a threshold"),
        ("response_time", "p(101) < 50ms", "p takes a percentile above 0 and up to 100"),
        ("response_time", "p(0) < 50ms", "p takes a percentile above 0"),
        ("response_time", "p < 50ms", "p takes a percentile"),
        ("response_time", "max(3) < 50ms", "max takes nothing in parentheses"),
        ("response_time", "p(99) = 50ms", "'=' is not a comparison"),
        ("response_time", "p(99) << 50ms", "'<<' is not a comparison"),
        ("response_time", "p(99) < 50 apples", "'50 apples' is not a limit here"),
        ("response_time", "count < 5", "response_time has no 'count'"),
        ("dropped", "count == 1%", "'1%' is not a limit here"),
        ("ok", "rate > 99", "'99' is not a limit here; write for example 1% or 0.01"),
        ("audit", "anomalys == 0", "audit has no 'anomalys'; did you mean anomalies?"),
    ],
)
def test_an_expression_that_does_not_parse_says_what_would_be_right(
    metric: str, expression: object, message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the text is asserted below, whole
        parse_threshold(metric, expression)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_each_operator_judges_below_at_and_above_its_limit(
    *, operator: str, below: bool, at: bool, above: bool
) -> None:
    threshold = parse_threshold("imbalance", f"max {operator} 2")
    assert [threshold.met_by(value) for value in (1.0, 2.0, 3.0)] == [below, at, above]


def _judged(metric: str, expression: str, value: float | None) -> Judgement:
    (judgement,) = judge([parse_threshold(metric, expression)], lambda *_: value)
    return judgement


@pytest.mark.parametrize(
    ("metric", "expression", "observed", "text", "value", "passed"),
    [
        ("response_time", "p(99) < 50ms", 12_300_000.0, "12.3 ms", 12.3, True),
        ("response_time", "p(99) < 50ms", 50_000_000.0, "50 ms", 50.0, False),
        ("response_time", "p(99) <= 50ms", 50_040_000.0, "50.04 ms", 50.04, False),
        ("dropped", "count == 0", 1_234.0, "1,234", 1_234.0, False),
        ("dropped", "count == 0", 0.0, "0", 0.0, True),
        ("rejected", "rate < 1%", 0.0012, "0.12 %", 0.0012, True),
        ("throughput", "mean > 50000/s", 43_750.25, "43,750.2/s", 43_750.25, False),
        ("imbalance", "max < 1.2", 1.07, "1.07", 1.07, True),
        ("audit", "anomalies == 0", 2.0, "2", 2.0, False),
    ],
)
def test_a_judgement_says_what_was_observed(
    *, metric: str, expression: str, observed: float, text: str, value: float, passed: bool
) -> None:
    assert _judged(metric, expression, observed) == Judgement(metric, expression, text, value, passed)


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_was_not_observed_has_not_passed(nothing: float | None) -> None:
    assert _judged("response_time", "p(99) < 50ms", nothing) == Judgement(
        "response_time", "p(99) < 50ms", "no data", None, passed=False
    )


def test_the_run_is_asked_for_exactly_what_the_threshold_names() -> None:
    asked: list[tuple[str, str, float | None]] = []

    def observe(metric: str, aggregate: str, argument: float | None) -> float:
        asked.append((metric, aggregate, argument))
        return 0.0

    judge([parse_threshold("service_time", "p(99.9) < 1s"), parse_threshold("ok", "count > 0")], observe)
    assert asked == [("service_time", "p", 99.9), ("ok", "count", None)]
