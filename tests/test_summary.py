"""The summary: which exit code and verdict a run gets, and what its thresholds observe."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from simulator.errors import Exit
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import index_of, record_all
from simulator.measure.recorder import LAG, RESPONSE, SERVICE, Measured, Recorder, Tallies, open_tallies
from simulator.measure.validity import Validity
from simulator.report.observe import Observations
from simulator.report.summary import Results, exit_code, series_columns, summarise, verdict_of
from simulator.report.thresholds import aborted
from simulator.scenario.threshold import METRICS, Threshold, parse_threshold
from simulator.transaction import Kind, Reason, Status

SECONDS, NODES, SHARDS = 6, 2, 3

# What can be wrong with a run, with the exit code of each alone; the gravest first.
WRONGS: tuple[tuple[str, Exit], ...] = (
    ("anomalies", Exit.ANOMALIES),
    ("failure", Exit.ERROR),
    ("interrupted", Exit.INTERRUPTED),
    ("invalid", Exit.INVALID_RUN),
    ("undeclared", Exit.INVALID_RUN),
    ("unaudited", Exit.ERROR),
    ("tripped", Exit.THRESHOLDS),
    ("crossed", Exit.THRESHOLDS),
    ("regressed", Exit.REGRESSION),
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
    unknown = bool(wrong & {"unaudited", "undeclared"})
    audit: dict[str, Any] = {
        "verdict": "anomalies" if "anomalies" in wrong else "unknown" if unknown else "clean",
        "books": "undeclared" if "undeclared" in wrong else "here",
        "doubts": int("unaudited" in wrong),
        "anomalies": {"lost": 1} if "anomalies" in wrong else {},
        "conservation_minor": 0,
    }
    made = summarise(
        results(
            tallies,
            thresholds=(
                ("ok", "count > 1000" if "crossed" in wrong else "count > 0"),
                ("response_time", "p(99) <= baseline * 1.1"),
            ),
            audit=audit,
            tripped={"at_s": 1.0} if "tripped" in wrong else None,
            failure="the disk is full" if "failure" in wrong else None,
            interrupted="interrupted" in wrong,
            validity=Validity("generator-limited", ["slow"]) if "invalid" in wrong else Validity("valid"),
        )
    )
    if "regressed" in wrong:  # as simulator.compare.gate would have it
        made["thresholds"][1]["passed"] = False
        made["verdict"] = verdict_of(audit, made["validity"]["verdict"], made["failure"], passed=False)
    return made


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
        ({"tripped"}, "fail"),
        ({"tripped", "invalid"}, "invalid"),
        ({"undeclared"}, "invalid"),
        ({"undeclared", "crossed"}, "invalid"),
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


def asking(metric: str, aggregate: str, argument: float | None = None, **more: Any) -> Threshold:  # noqa: ANN401  any field
    return Threshold(metric, aggregate, argument, "<", 0.0, "", **more)


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
    assert Observations(tallies, 3.0, 0).whole(asking(metric, aggregate)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "unit_ns"), [("response_time", 1_000_000), ("service_time", 100_000), ("schedule_lag", 1_000)]
)
def test_times_are_observed_within_the_histograms_error(tallies: Tallies, metric: str, unit_ns: int) -> None:
    observe = Observations(tallies, 3.0, 0)
    for aggregate, argument, expected in (
        ("p", 50.0, 50),
        ("p", 99.0, 99),
        ("mean", None, 50.5),
        ("min", None, 1),
        ("max", None, 100),
    ):
        assert observe.whole(asking(metric, aggregate, argument)) == pytest.approx(expected * unit_ns, rel=1 / 1_024)


def test_the_worst_second_leaves_out_one_that_was_cut_short(tallies: Tallies) -> None:
    assert Observations(tallies, 2.5, 0).whole(asking("throughput", "min")) == 80
    assert Observations(tallies, 2.5, 0).whole(asking("throughput", "mean")) == pytest.approx(240 / 2.5)
    assert Observations(tallies, 0.5, 0).whole(asking("throughput", "min")) is None


def test_every_metric_that_a_threshold_can_name_is_observed(tallies: Tallies) -> None:
    observe = Observations(tallies, 3.0, 0)
    for metric, aggregates in METRICS.items():
        for aggregate in aggregates:
            assert observe.whole(asking(metric, aggregate, 99.0 if aggregate == "p" else None)) is not None, (
                metric,
                aggregate,
            )


def test_a_run_without_traffic_meets_no_threshold_but_a_count() -> None:
    observe = Observations(open_tallies(seconds_grid(SECONDS), NODES, SHARDS), 3.0, None)
    for metric, aggregates in METRICS.items():
        for aggregate in set(aggregates) - {"count"}:
            if metric != "throughput":
                assert observe.whole(asking(metric, aggregate, 99.0 if aggregate == "p" else None)) is None, (
                    metric,
                    aggregate,
                )
    assert observe.whole(asking("throughput", "mean")) == 0
    assert observe.whole(asking("dropped", "count")) == 0


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


# By tag, and over stretches.


@pytest.fixture
def measured() -> Measured:
    """In each of three seconds 100 answers: of payments 1 ms at node 0, of refunds 5 ms at node 1; in the second one 50 ms."""
    recorder = Recorder(SECONDS, NODES)
    for second in range(3):
        recorder.admit(second)
        slot = int(recorder.dense.slots[second])
        slow_ns = 50_000_000 if second == 1 else 5_000_000
        recorder.dense.response[slot, Kind.PAYMENT - 1, 0, index_of(1_000_000)] = 80
        recorder.dense.response[slot, Kind.REFUND - 1, 1, index_of(slow_ns)] = 20
    return recorder.finish()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("response_time{kind:payment} p(99) < 1s", 1e6),
        ("response_time{kind:refund} max < 1s", 50e6),
        ("response_time{kind:refund} p(60) < 1s", 5e6),
        ("response_time{node:1} min < 1s", 5e6),
        ("response_time{kind:refund,node:0} p(50) < 1s", None),
        ("ok{kind:payment} count > 0", 240),
        ("ok{kind:payment} rate > 0", 240 / 280),
        ("ok{kind:refund} rate > 0", None),
        ("ok{node:1} count > 0", 60),
        ("ok{shard:2} count > 0", 50),
        ("rejected{kind:payment} count < 5", 10),
        ("throughput{shard:0} mean > 0", 40),
        ("throughput{node:0} min > 0", 80),
        ("throughput{kind:refund} mean > 0", 20),
    ],
)
def test_metrics_are_observed_by_kind_node_and_shard(
    tallies: Tallies, measured: Measured, written: str, expected: float | None
) -> None:
    observe = Observations(tallies, 3.0, 0, measured)
    found = observe.whole(parse_threshold(*written.split(" ", 1)))
    assert found == (None if expected is None else pytest.approx(expected, rel=1 / 1_024))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("response_time max < 1s for 1s", [5e6, 50e6, 5e6]),
        ("response_time max < 1s for 2s", [50e6, 50e6]),
        ("response_time p(75) < 1s for 1s", [1e6, 1e6, 1e6]),
        ("response_time{kind:refund} p(50) < 1s for 3s", [5e6]),
        ("response_time mean < 1s for 1s", [1.8e6, 10.8e6, 1.8e6]),
        ("rejected count < 9 for 1s", [0, 10, 0]),
        ("rejected rate < 1% for 1s", [0, 10 / 120, 0]),
        ("rejected rate < 1% for 2s", [10 / 220, 10 / 180]),
        ("throughput mean > 5 for 2s", [90, 70]),
        ("ok{shard:0} count > 5 for 3s", [120]),
        ("imbalance max < 2 for 1s", [1.4, 160 / 110, 1.0]),
    ],
)
def test_a_metric_is_observed_in_every_stretch(
    tallies: Tallies, measured: Measured, written: str, expected: list[float]
) -> None:
    seen = Observations(tallies, 3.0, 0, measured).stretched(parse_threshold(*written.split(" ", 1)))
    assert seen.values.tolist() == pytest.approx(expected, rel=1 / 1_024)
    assert seen.to_s.tolist() == [float(4 - len(expected) + k) for k in range(len(expected))]


def test_an_outage_of_ten_seconds_shows_in_its_stretch_and_hardly_in_the_whole() -> None:
    made = open_tallies(seconds_grid(160), NODES, SHARDS)
    made.offered[:] = made.answered[:, Status.OK] = 100
    made.answered[100:110, Status.OK], made.answered[100:110, Status.FAILED] = 0, 100
    payments = made.by_kind[Kind.PAYMENT - 1]
    payments[Status.PENDING], payments[Status.OK], payments[Status.FAILED] = 16_000, 15_000, 1_000
    asked = (("failed", "rate < 10%"), ("failed", "rate < 10% for 10s"))
    whole, stretch = summarise(results(made, thresholds=asked, duration_s=160.0))["thresholds"]
    assert (whole["observed"], whole["passed"]) == (0.0625, True)
    assert (stretch["observed"], stretch["passed"], stretch["note"]) == (1.0, False, "from 100 s to 110 s")


def test_what_is_not_kept_by_node_is_no_data(tallies: Tallies) -> None:
    together = Recorder(SECONDS, 1).finish()
    observe = Observations(tallies, 3.0, 0, together)
    assert observe.whole(asking("response_time", "p", 99.0, tags=(("node", "1"),))) is None
    assert (
        len(observe.stretched(asking("response_time", "p", 99.0, tags=(("node", "1"),), window_ns=10**9)).values) == 0
    )


def test_a_threshold_that_stopped_the_run_stays_crossed(tallies: Tallies) -> None:
    asked = (("dropped", "count <= 10"), ("response_time", "max < 500ms"))
    found = aborted(parse_threshold(*asked[1], abort=True), 700e6, 2.0)
    judged = summarise(results(tallies, thresholds=asked, aborted=(1, found)))["thresholds"]
    assert [(t["passed"], t["observed"]) for t in judged] == [(True, 10), (False, 700)]
