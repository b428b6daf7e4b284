"""The summary: which exit code and verdict a run gets, and what its thresholds observe."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from simulator.errors import Exit
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import record_all
from simulator.measure.recorder import LAG, RESPONSE, SERVICE, Recorder, Tallies, open_tallies
from simulator.measure.validity import Validity
from simulator.report.summary import Observations, Results, exit_code, series_columns, summarise
from simulator.scenario.threshold import METRICS, parse_threshold
from simulator.transaction import Kind, Reason, Status

SECONDS, NODES, SHARDS = 6, 2, 3

# What can be wrong with a run, with the exit code of each alone; the gravest first.
WRONGS: tuple[tuple[str, Exit], ...] = (
    ("anomalies", Exit.ANOMALIES),
    ("failure", Exit.ERROR),
    ("interrupted", Exit.INTERRUPTED),
    ("invalid", Exit.INVALID_RUN),
    ("unaudited", Exit.ERROR),
    ("crossed", Exit.THRESHOLDS),
)


@pytest.fixture
def tallies() -> Tallies:
    """Three seconds, two nodes: 100, 80 and 60 ok, besides ten of every other end in the second one."""
    made = open_tallies(seconds_grid(SECONDS), NODES, SHARDS)
    made.answered[:3, Status.OK] = (100, 80, 60)
    payments = made.by_kind[Kind.PAYMENT - 1]
    payments[Status.OK] = 240
    for status in (Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED):
        made.answered[1, status] = payments[status] = 10
        made.by_reason[status, Reason.OVERFLOW] = 10
    payments[Status.PENDING] = 280
    made.offered[:3] = (100, 120, 60)
    made.sent[:3] = (100, 110, 60)
    made.node_sent[:3] = ((70, 30), (80, 30), (30, 30))
    made.shard_ok[:3] = ((50, 30, 20), (40, 20, 20), (30, 20, 10))
    made.offered_minor[:3] = (1_000, 2_000, 3_000)
    made.settled_minor[:3] = (900, 1_900, 2_900)
    made.settled_ns[0] = 2_900_000_000
    for measure, scale in ((RESPONSE, 1_000_000), (SERVICE, 100_000), (LAG, 1_000)):
        record_all(made.totals[measure], np.arange(1, 101, dtype=np.int64) * scale)
    return made


def results(tallies: Tallies, *, thresholds: tuple[tuple[str, str], ...] = (), **changed: Any) -> Results:  # noqa: ANN401  any field
    audit: dict[str, Any] = {"verdict": "clean", "anomalies": {}, "conservation_minor": 0}
    fields: dict[str, Any] = {
        "scenario": "s", "description": "", "clock": "wall", "seed": 1, "currency": "CNY", "policy": "p2c",
        "version": "0", "started_at": "2019-11-11T00:00:00+00:00", "wall_s": 3.5, "duration_s": 3.0, "tallies": tallies,
        "measured": Recorder(SECONDS, NODES).finish(), "validity": Validity("valid"), "audit": audit,
        "owners": [0, 1, 0], "applied": [120, 70, 50],
    }  # fmt: skip
    return Results(**{**fields, "thresholds": tuple(parse_threshold(*one) for one in thresholds), **changed})


def summary_with(tallies: Tallies, wrong: set[str]) -> dict[str, Any]:
    """The summary of a run with these things wrong; an audit that found anomalies is no unknown one."""
    verdict = "anomalies" if "anomalies" in wrong else "unknown" if "unaudited" in wrong else "clean"
    found = {"lost": 1} if "anomalies" in wrong else {}
    return summarise(
        results(
            tallies,
            thresholds=(("ok", "count > 1000" if "crossed" in wrong else "count > 0"),),
            audit={"verdict": verdict, "anomalies": found, "conservation_minor": 0},
            failure="the disk is full" if "failure" in wrong else None,
            interrupted="interrupted" in wrong,
            validity=Validity("generator-limited", ["slow"]) if "invalid" in wrong else Validity("valid"),
        )
    )


SUBSETS = [
    {name for (name, _), there in zip(WRONGS, chosen, strict=True) if there}
    for chosen in product((False, True), repeat=len(WRONGS))
]


@pytest.mark.parametrize("wrong", SUBSETS, ids=lambda wrong: "+".join(sorted(wrong)) or "nothing")
def test_the_exit_code_is_that_of_the_gravest_wrong(tallies: Tallies, wrong: set[str]) -> None:
    expected = next((code for name, code in WRONGS if name in wrong), Exit.OK)
    assert exit_code(summary_with(tallies, wrong)) == expected


@pytest.mark.parametrize("validity", ["generator-limited", "inconclusive"])
def test_any_run_that_is_not_valid_is_an_invalid_one(tallies: Tallies, validity: str) -> None:
    summary = summarise(results(tallies, validity=Validity(validity, ["why"])))
    assert (summary["verdict"], exit_code(summary)) == ("invalid", 120)
    assert summary["validity"] == {"verdict": validity, "reasons": ["why"]}


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (set(), "pass"),
        ({"crossed"}, "fail"),
        ({"unaudited"}, "fail"),
        ({"invalid"}, "invalid"),
        ({"invalid", "crossed"}, "invalid"),
        ({"invalid", "unaudited"}, "invalid"),
        ({"anomalies"}, "fail"),
        ({"anomalies", "invalid"}, "fail"),
        ({"failure"}, "fail"),
        ({"failure", "invalid"}, "fail"),
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing" if isinstance(value, set) else value,
)
def test_the_verdict_says_pass_only_when_nothing_is_wrong(tallies: Tallies, wrong: set[str], verdict: str) -> None:
    assert summary_with(tallies, wrong)["verdict"] == verdict


@pytest.mark.parametrize("wrong", SUBSETS, ids=lambda wrong: "+".join(sorted(wrong)) or "nothing")
def test_a_pass_and_exit_code_0_come_together(tallies: Tallies, wrong: set[str]) -> None:
    # An interruption makes a run inconclusive; only `simulator.measure.validity` knows that.
    summary = summary_with(tallies, wrong | ({"invalid"} if "interrupted" in wrong else set()))
    assert (summary["verdict"] == "pass") == (exit_code(summary) == Exit.OK)


def test_a_summary_is_json_and_its_sums_agree(tallies: Tallies) -> None:
    summary = json.loads(json.dumps(summarise(results(tallies)), allow_nan=False))
    counts = summary["counts"]
    assert counts == {
        "offered": 280, "sent": 270, "ok": 240, "rejected": 10, "failed": 10, "unknown": 10, "dropped": 10,
    }  # fmt: skip
    assert summary["by_kind"]["payment"]["counts"] == counts
    assert summary["reasons"] == {name: {"overflow": 10} for name in ("rejected", "failed", "unknown", "dropped")}
    assert [node["sent"] for node in summary["nodes"]] == [180, 90]
    assert [(shard["applied"], shard["node"]) for shard in summary["shards"]] == [(120, 0), (70, 1), (50, 0)]
    assert summary["value"] == {"offered_minor": 6_000, "settled_minor": 5_700, "currency": "CNY"}
    assert summary["rates"] == {
        "offered_per_s": round(280 / 3, 3), "completed_per_s": round(260 / 3, 3), "goodput_per_s": round(240 / 3, 3),
        "peak_offered_per_s": 120,
    }  # fmt: skip


def test_a_run_of_nothing_has_a_summary_without_numbers_that_nobody_measured() -> None:
    summary = json.loads(
        json.dumps(summarise(results(open_tallies(seconds_grid(SECONDS), NODES, SHARDS))), allow_nan=False)
    )
    assert summary["counts"]["offered"] == 0
    assert set(summary["response_time_ms"].values()) == {None}
    assert summary["balancer"]["imbalance_max_over_mean"] is None
    assert summary["by_kind"] == {}


def test_the_series_has_a_row_for_each_second_up_to_the_last_answer(tallies: Tallies) -> None:
    tallies.settled_ns[0] = 4_100_000_000  # the last answer came in the fifth second
    columns = series_columns(results(tallies), np.array([90.0, 90.0, 90.0]))
    assert columns["second"] == [0, 1, 2, 3, 4]
    assert columns["target"] == [90.0, 90.0, 90.0, 0.0, 0.0]
    assert columns["completed"] == [100, 100, 60, 0, 0]
    assert {len(column) for column in columns.values()} == {5}


# What thresholds observe.


@pytest.mark.parametrize(
    ("metric", "aggregate", "expected"),
    [
        ("throughput", "mean", 80),
        ("throughput", "min", 60),
        ("imbalance", "max", 180 / 135),
        ("ok", "count", 240),
        ("ok", "rate", 240 / 280),
        ("rejected", "count", 10),
        ("rejected", "rate", 10 / 280),
        ("failed", "rate", 10 / 280),
        ("unknown", "rate", 10 / 280),
        ("dropped", "count", 10),
        ("dropped", "rate", 10 / 280),
        ("audit", "anomalies", 0),
    ],
)
def test_counts_rates_and_ratios_are_observed_as_the_contract_says(
    tallies: Tallies, metric: str, aggregate: str, expected: float
) -> None:
    assert Observations(tallies, 3.0, 0)(metric, aggregate, None) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "unit_ns"), [("response_time", 1_000_000), ("service_time", 100_000), ("schedule_lag", 1_000)]
)
def test_times_are_observed_within_the_histograms_error(tallies: Tallies, metric: str, unit_ns: int) -> None:
    observe = Observations(tallies, 3.0, 0)
    for aggregate, argument, expected in (("p", 50.0, 50), ("p", 99.0, 99), ("mean", None, 50.5), ("max", None, 100)):
        assert observe(metric, aggregate, argument) == pytest.approx(expected * unit_ns, rel=1 / 1_024)


def test_the_worst_second_leaves_out_one_that_was_cut_short(tallies: Tallies) -> None:
    assert Observations(tallies, 2.5, 0)("throughput", "min", None) == 80
    assert Observations(tallies, 2.5, 0)("throughput", "mean", None) == pytest.approx(240 / 2.5)
    assert Observations(tallies, 0.5, 0)("throughput", "min", None) is None


def test_every_metric_that_a_threshold_can_name_is_observed(tallies: Tallies) -> None:
    observe = Observations(tallies, 3.0, 0)
    for metric, aggregates in METRICS.items():
        for aggregate in aggregates:
            assert observe(metric, aggregate, 99.0 if aggregate == "p" else None) is not None, (metric, aggregate)


def test_a_run_without_traffic_meets_no_threshold_but_a_count() -> None:
    observe = Observations(open_tallies(seconds_grid(SECONDS), NODES, SHARDS), 3.0, None)
    for metric, aggregates in METRICS.items():
        for aggregate in set(aggregates) - {"count"}:
            if metric != "throughput":
                assert observe(metric, aggregate, 99.0 if aggregate == "p" else None) is None, (metric, aggregate)
    assert observe("throughput", "mean", None) == 0
    assert observe("dropped", "count", None) == 0


def test_an_audit_that_could_not_tell_does_not_meet_a_threshold_of_no_anomalies(tallies: Tallies) -> None:
    unknown = {"verdict": "unknown", "anomalies": {}, "conservation_minor": 0}
    summary = summarise(results(tallies, thresholds=(("audit", "anomalies == 0"),), audit=unknown))
    assert [(t["observed"], t["passed"]) for t in summary["thresholds"]] == [(None, False)]


def test_thresholds_are_judged_in_order_with_what_was_observed(tallies: Tallies) -> None:
    asked = (("response_time", "max < 50ms"), ("dropped", "count <= 10"), ("throughput", "mean >= 80/s"))
    judged = summarise(results(tallies, thresholds=asked))["thresholds"]
    assert [(t["metric"], t["expression"]) for t in judged] == list(asked)
    assert [t["passed"] for t in judged] == [False, True, True]
    assert [t["observed"] for t in judged] == [pytest.approx(100, rel=1 / 1_024), 10, 80]
