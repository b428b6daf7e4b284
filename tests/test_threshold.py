"""Thresholds: their grammar, and how a run is judged by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.report.observe import Stretched
from simulator.report.thresholds import Judgement, aborted, judge
from simulator.scenario.threshold import KINDS, METRICS, Threshold, parse_threshold
from simulator.transaction import Kind


class Seen:
    """Observes the same everywhere, and notes what it was asked for."""

    def __init__(self, value: float | None, stretches: tuple[float, ...] = ()) -> None:
        self.value = value
        self.stretches = stretches
        self.asked: list[Threshold] = []

    def whole(self, threshold: Threshold) -> float | None:
        self.asked.append(threshold)
        return self.value

    def stretched(self, threshold: Threshold) -> Stretched:
        self.asked.append(threshold)
        ends = np.arange(10, 10 + len(self.stretches), dtype=np.float64)
        return Stretched(np.array(self.stretches), ends - 10.0, ends)


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
        ("response_time", "avg < 200ms", "mean", None, "<", 200e6),
        ("response_time", "med < 20ms", "p", 50.0, "<", 20e6),
        ("service_time", "min < 1ms", "min", None, "<", 1e6),
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
    (judgement,) = judge([parse_threshold(metric, expression)], Seen(value))
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
    thresholds = [parse_threshold("service_time", "p(99.9) < 1s"), parse_threshold("ok", "count > 0 for 10s")]
    seen = Seen(0.0, (1.0,))
    judge(thresholds, seen)
    assert seen.asked == thresholds


# ---- tags ----


def test_the_kinds_are_those_of_transactions() -> None:
    assert tuple(kind.name.lower() for kind in Kind) == KINDS


@pytest.mark.parametrize(
    ("metric", "tags", "name"),
    [
        ("response_time{kind:refund}", (("kind", "refund"),), "response_time{kind:refund}"),
        ("response_time{ node: 03 , kind:void }", (("kind", "void"), ("node", "3")), "response_time{kind:void,node:3}"),
        ("throughput{shard:12}", (("shard", "12"),), "throughput{shard:12}"),
        ("dropped", (), "dropped"),
    ],
)
def test_a_metric_may_carry_tags(metric: str, tags: tuple[tuple[str, str], ...], name: str) -> None:
    aggregate = {"response_time": "p(99) < 1s", "throughput": "mean > 1", "dropped": "count == 0"}
    threshold = parse_threshold(metric, aggregate[metric.partition("{")[0]])
    assert (threshold.tags, threshold.name) == (tags, name)
    assert parse_threshold(threshold.name, threshold.expression) == threshold


@pytest.mark.parametrize(
    ("metric", "expression", "message"),
    [
        ("response_time{kind:refunds}", "p(99) < 1s", "'refunds' is not a kind; did you mean refund?"),
        (
            "response_time{shard:1}",
            "p(99) < 1s",
            "'shard:1' is not a tag; write for example response_time{kind:refund}",
        ),
        ("response_time{kind}", "p(99) < 1s", "'kind' is not a tag"),
        ("response_time{node:a}", "p(99) < 1s", "'a' is not the number of a node"),
        ("response_time{node:1,node:2}", "p(99) < 1s", "node stands there twice"),
        ("response_time{kind:refund", "p(99) < 1s", "is not a metric"),
        ("audit{kind:refund}", "anomalies == 0", "audit is not kept by any tag"),
        ("ok{shard:1,kind:void}", "count > 1", "write shard alone"),
        ("ok{node:1}", "rate > 1%", "what was offered is not known by node"),
        ("rejected{kind:refund}", "count < 5 for 10s", "counted by kind over the whole run only"),
        ("audit", "anomalies == 0 for 10s", "checked once, at the end"),
        ("throughput", "min > 5 for 10s", "min is of single seconds already"),
        ("response_time", "p(99) < 5ms for ever", "'ever' is not a duration"),
        ("response_time", "p(99) < 5ms for 0s", "a stretch of 0s holds nothing"),
        (
            "response_time",
            "p(99) <= baseline times 2",
            "write the limit as baseline, baseline * 1.10 or baseline + 50ms",
        ),
        ("response_time", "max <= baseline", "chance alone moves single extremes"),
        ("response_time", "p(100) <= baseline", "chance alone moves single extremes"),
        ("failed", "count <= baseline", "chance alone moves single extremes"),
        ("response_time", "p(99) == baseline", "no two runs are equal"),
        ("response_time", "p(99) <= baseline for 10s", "compared as a whole"),
        ("response_time{kind:void}", "p(99) <= baseline", "compared as a whole"),
    ],
)
def test_what_no_run_keeps_is_refused_with_what_would_be_right(metric: str, expression: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the text is asserted below
        parse_threshold(metric, expression)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- over stretches ----


def test_a_stretch_belongs_to_the_expression() -> None:
    threshold = parse_threshold("response_time", "p(99) < 50ms for 10s")
    assert (threshold.limit, threshold.window_ns) == (50e6, 10_000_000_000)


@pytest.mark.parametrize(
    ("expression", "stretches", "value", "note", "passed"),
    [
        ("p(99) < 50ms for 10s", (10e6, 70e6, 60e6), 70.0, "from 1 s to 11 s", False),
        ("p(99) < 50ms for 10s", (10e6, 30e6, 20e6), 30.0, "from 1 s to 11 s", True),
        ("p(99) > 5ms for 10s", (10e6, 3e6, 4e6), 3.0, "from 1 s to 11 s", False),
        ("p(99) > 5ms for 10s", (10e6, math.nan, 6e6), 6.0, "from 2 s to 12 s", True),
    ],
)
def test_over_stretches_the_worst_one_is_judged(
    *, expression: str, stretches: tuple[float, ...], value: float, note: str, passed: bool
) -> None:
    (judged,) = judge([parse_threshold("response_time", expression)], Seen(1.0, stretches))
    assert (judged.value, judged.note, judged.passed) == (value, note, passed)


@pytest.mark.parametrize("stretches", [(), (math.nan, math.nan)])
def test_stretches_without_data_have_not_passed(stretches: tuple[float, ...]) -> None:
    (judged,) = judge([parse_threshold("response_time", "p(99) < 50ms for 10s")], Seen(1.0, stretches))
    assert (judged.observed, judged.passed) == ("no data", False)


# ---- against a baseline ----


@pytest.mark.parametrize(
    ("metric", "expression", "factor", "added", "most"),
    [
        ("response_time", "p(99) <= baseline * 1.10", 1.10, 0.0, 110e6),
        ("response_time", "p(99) <= baseline", 1.0, 0.0, 100e6),
        ("response_time", "mean < baseline*2 + 5ms", 2.0, 5e6, 205e6),
        ("rejected", "rate <= baseline + 0.1%", 1.0, 0.001, 100e6 + 0.001),
        ("throughput", "mean >= baseline - 100/s", 1.0, -100.0, 100e6 - 100),
    ],
)
def test_a_limit_may_follow_from_a_baseline(
    metric: str, expression: str, factor: float, added: float, most: float
) -> None:
    threshold = parse_threshold(metric, expression)
    assert (threshold.factor, threshold.limit) == (factor, added)
    beyond = most * (0.999 if ">" in expression else 1.001)
    assert not threshold.met_by(beyond, 100e6)
    assert threshold.met_by(most * (1.001 if ">" in expression else 0.999), 100e6)


def test_without_a_comparison_a_threshold_on_a_baseline_says_so_and_fails_nobody() -> None:
    judged = _judged("response_time", "p(99) <= baseline * 1.10", 12e6)
    assert (judged.passed, judged.baseline, judged.note) == (True, True, "not compared with a baseline")
    assert judged.as_json()["baseline"] is None


# ---- stopping a run ----


@pytest.mark.parametrize(
    ("metric", "expression", "message"),
    [
        ("audit", "anomalies == 0", "known only at the end"),
        ("response_time", "p(99) <= baseline", "known only at the end"),
        ("response_time{kind:void}", "p(99) < 5ms", "while a run goes on this is not counted by tag"),
        ("ok", "count >= 1000", "a count only grows"),
        ("ok", "count != 7", "a count only grows"),
    ],
)
def test_what_cannot_be_judged_early_cannot_stop_a_run(metric: str, expression: str, message: str) -> None:
    parse_threshold(metric, expression)
    with pytest.raises(ValueError, match=message):
        parse_threshold(metric, expression, abort=True)


def test_what_stopped_a_run_has_not_passed_whatever_is_seen_at_its_end() -> None:
    threshold = parse_threshold("response_time", "p(99) < 50ms for 10s", abort=True)
    judged = aborted(threshold, 70e6, 12.25)
    assert not judged.passed
    assert judged.note == "over 10s, at 12.2 s: the run was stopped"
    assert judged.as_json()["aborted_at_s"] == 12.25
