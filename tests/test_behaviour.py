"""The behaviour figures on synthetic series whose answers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.balancer.behaviour import (
    FaultSpan,
    Recorded,
    absences,
    amplification,
    churn,
    describe,
    detection,
    efficiency,
    error_amplification,
    false_ejection_s,
    feeds_itself,
    herd,
    lost_before,
    merged,
    metastability,
    panic_s,
    regret,
    return_to_share,
    sick_traffic,
    spread,
    spread_in_windows,
)
from simulator.balancer.fleet import EVENT, Health
from simulator.report.balancing import behaviour_rows
from simulator.run.balance import fault_spans

W = 100_000_000  # a window
S = 1_000_000_000
OUT, BACK = Health.EJECTED_IN_A_ROW, Health.READMITTED


def events(*rows: tuple[float, int, int, Health]) -> np.ndarray:
    """Rows of (time in s, balancer, node, what)."""
    return np.array([(round(t * S), b, node, int(what)) for t, b, node, what in rows], EVENT)


def test_weights_make_an_uneven_load_even() -> None:
    found = spread(np.array([300, 100]), np.array([3.0, 1.0]))
    assert found is not None
    assert (found.imbalance_max_over_mean, found.cv, found.p99_over_p50) == (1.0, 0.0, 1.0)


def test_the_excess_is_the_cv_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    even = [spread(rng.multinomial(10_000, [1 / 50] * 50)) for _ in range(200)]
    squares = np.array([found.cv**2 - found.noise_floor**2 for found in even if found])
    assert abs(squares.mean()) < 5 * squares.std() / 200**0.5  # by chance alone there is none
    found = spread(np.array([3_000_000, 1_000_000]))
    assert found is not None
    assert found.excess == pytest.approx(0.5, rel=1e-5)
    lopsided = spread(np.array([0, 0, 9]))
    assert lopsided is not None
    assert lopsided.p99_over_p50 is None


def test_windows_without_load_do_not_count_and_coarser_windows_are_sums() -> None:
    load = np.array([[2, 2], [0, 0], [4, 0], [1, 1]])
    found = spread_in_windows(load)
    assert found is not None
    assert found["windows"] == 3
    assert found["imbalance_max_over_mean"]["p50"] == 1.0
    assert merged(load, 2).tolist() == [[2, 2], [5, 1]]
    assert merged(load, 3).tolist() == [[6, 2]]
    assert spread_in_windows(np.zeros((5, 2))) is None


@pytest.mark.parametrize("period", [5, 8, 20])
def test_a_herd_has_its_amplitude_and_period(period: int) -> None:
    t = np.arange(400)
    swing = 0.6 * np.sin(2 * np.pi * t / period)
    load = np.round(10_000 * np.column_stack([1 + swing + 0.001 * t, 1 - swing - 0.001 * t]))
    found = herd(load, W, delay_ns=2 * W)
    assert found is not None
    assert found.amplitude == pytest.approx(1.2, rel=0.06)
    assert found.period_s == pytest.approx(period * 0.1, rel=0.02)
    assert found.period_over_delay == pytest.approx(period / 2, rel=0.02)


def test_noise_has_no_period_and_an_even_load_no_amplitude() -> None:
    rng = np.random.default_rng(2)
    noise = [herd(rng.multinomial(1_000, [0.1] * 10, size=300), W) for _ in range(20)]
    assert sum(found.period_s is not None for found in noise if found) <= 2
    even = herd(np.full((50, 4), 7), W)
    assert even is not None
    assert even.amplitude == pytest.approx(0, abs=1e-12)
    assert even.period_s is None
    assert herd(np.ones((10, 2)), W) is None


def test_regret_is_what_a_stale_view_costs() -> None:
    assert regret(np.array([3, 5, 1]), np.array([1, 1, 1])) == 2.0
    assert regret(np.zeros(0), np.zeros(0)) is None


def test_detection_is_per_balancer_and_of_this_fault_only() -> None:
    log = events(
        (0.5, 0, 3, OUT), (1.2, 0, 3, OUT), (1.4, 0, 3, OUT), (1.8, 1, 3, OUT), (1.3, 2, 5, OUT), (9.0, 2, 3, OUT)
    )  # fmt: skip
    found = detection(log, FaultSpan(3, 1 * S, 5 * S), 4)
    assert (found["balancers"], found["detected"]) == (4, 2)
    assert (found["first_s"], found["p50_s"]) == (0.2, 0.5)
    assert found["p99_s"] == pytest.approx(0.794)
    assert detection(log[:0], FaultSpan(3, 0, S), 4)["first_s"] is None


def test_lost_before_counts_failures_at_the_sick_node_until_it_was_out() -> None:
    failed = np.zeros((50, 4), np.int64)
    failed[:, 3] = 2
    assert lost_before(failed, W, FaultSpan(3, 1 * S, 4 * S), round(1.45 * S)) == 10


def test_absences_pair_and_open_ones_end_with_the_run() -> None:
    log = events((1, 0, 2, OUT), (2, 0, 2, BACK), (3, 0, 2, OUT), (3, 1, 2, OUT), (4, 1, 7, BACK))
    found = absences(log, 10 * S)
    assert [(a.balancer, a.node, a.start_ns // S, a.end_ns // S) for a in found] == [
        (0, 2, 1, 2), (0, 2, 3, 10), (1, 2, 3, 10)
    ]  # fmt: skip
    assert false_ejection_s(found, [FaultSpan(2, 0, 2 * S)]) == 14.0
    assert false_ejection_s(found, []) == 15.0


def test_panic_counts_until_it_ends_or_the_run_does() -> None:
    log = events((1, 0, -1, Health.PANIC_BEGAN), (3, 0, -1, Health.PANIC_ENDED), (8, 1, -1, Health.PANIC_BEGAN))
    assert panic_s(log, 10 * S) == 4.0


def test_a_node_is_back_when_it_has_nine_tenths_of_its_share_for_a_second() -> None:
    requests = np.full((100, 4), 100)
    requests[20:60, 1] = 0
    requests[60:70, 1] = np.arange(10, 101, 10)
    found = return_to_share(requests, W, 1, 5 * S, 1 / 4)
    assert found["first_request_s"] == 1.0
    # The first second from the recovery on in which its share is 22.5 % or more, counted to that second's end.
    share = [requests[i : i + 10, 1].sum() / requests[i : i + 10].sum() for i in range(50, 91)]
    first = next(i for i, s in enumerate(share) if s >= 0.9 / 4)
    assert found["fair_share_s"] == pytest.approx((first + 10) / 10)
    assert return_to_share(requests[:55], W, 1, 5 * S, 1 / 4) == {"first_request_s": None, "fair_share_s": None}


def test_sick_traffic_is_a_share_over_the_fair_one() -> None:
    requests = np.full((60, 4), 30)
    requests[20:40, 0] = 3
    found = sick_traffic(requests, W, FaultSpan(0, 2 * S, 4 * S), 1 / 4)
    assert (found["before"], found["after"]) == (1.0, 1.0)
    assert found["during"] == pytest.approx(3 / 93 * 4, abs=1e-6)
    assert sick_traffic(requests, W, FaultSpan(0, 0, 6 * S), 1 / 4)["before"] is None


def test_amplification_and_efficiency_have_their_known_values() -> None:
    assert amplification(150, 100) == 1.5
    assert amplification(0, 0) is None
    assert error_amplification(30, 100, 0.1) == pytest.approx(3.0)
    assert error_amplification(30, 100, 0.0) is None
    assert (efficiency(2.0, 2.0, 10.0), efficiency(10.0, 2.0, 10.0)) == (0.0, 1.0)
    assert efficiency(1.0, 1.0, 1.0) is None


def test_churn_is_told_against_the_optimum() -> None:
    before = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    after = np.array([1, 2, 1, 1, 2, 3, 3, 3])
    assert churn(before, after, [0]) == {"moved": 0.375, "optimum": 0.25, "excess": 0.125}
    assert churn(before[:0], before[:0], [0]) is None


def test_a_run_that_comes_back_and_one_that_stays_down() -> None:
    good = np.full(200, 100)
    good[50:100] = 0
    good[100:130] = 40
    found = metastability(good, W, 5 * S, 10 * S)
    # Each window counts for the second that begins there: the first with a mean of 95 is one with a window still at 40 at most.
    assert found["recovered_s"] == pytest.approx(3.0)
    assert found["stays_down"] is False
    assert found["goodput_after_over_before"] == pytest.approx((30 * 40 + 70 * 100) / 100 / 100)
    good[100:] = 40
    down = metastability(good, W, 5 * S, 10 * S)
    assert (down["recovered_s"], down["stays_down"], down["goodput_after_over_before"]) == (None, True, 0.4)
    assert metastability(good, W, 5 * S, 10 * S, offered=good)["recovered_s"] == 0.0  # as little was asked
    assert metastability(good, W, 0, S)["stays_down"] is None


def test_the_rate_that_breaks_and_the_rate_that_recovers() -> None:
    assert feeds_itself(0.5, 1.0)
    assert not feeds_itself(0.49, 1.0)


def test_a_run_is_described_with_none_for_what_it_did_not_record() -> None:
    found = describe(Recorded(window_ns=W, requests=np.full((100, 4), 10), end_ns=10 * S))
    assert found["windows"]["requests"]["100ms"]["windows"] == 100
    assert found["windows"]["requests"]["1s"]["windows"] == 10
    assert found["windows"]["requests"]["run"]["jain"] == 1.0
    assert found["windows"]["busy"] is None
    assert (found["ejections"], found["panic_s"], found["staleness_regret"], found["metastability"]) == (None,) * 4
    json.dumps(found, allow_nan=False)


def test_a_run_with_everything_is_described_whole() -> None:
    requests = np.full((100, 4), 10)
    found = describe(
        Recorded(
            window_ns=W, requests=requests, in_flight=requests / 2, busy=requests * 3.0, failed=requests // 10,
            offered=requests.sum(axis=1), goodput=requests.sum(axis=1), balancers=2,
            events=events((3.5, 0, 1, OUT), (4.5, 0, 2, OUT), (8, 0, 1, BACK)), events_in_all=3,
            faults=(FaultSpan(1, 3 * S, 5 * S),), trigger_ns=(3 * S, 5 * S), end_ns=10 * S, delay_ns=W,
            regret_sum=10.0, picks=4, attempts={"client": (12, 10)}, errors=(2, 10, 0.1), times_s=(1.5, 1.0, 2.0),
        )
    )  # fmt: skip
    assert found["faults"][0]["detection"]["first_s"] == 0.5
    assert found["faults"][0]["lost_before_ejection"] == 5
    assert found["faults"][0]["traffic_over_fair"]["during"] == 1.0
    assert (found["ejections"], found["false_ejection_s"]) == (2, 2.75)
    assert (found["staleness_regret"], found["efficiency"]) == (2.5, 0.5)
    assert (found["amplification"], found["error_amplification"]) == ({"client": 1.2}, 2.0)
    assert found["metastability"]["goodput_after_over_before"] == 1.0
    json.dumps(found, allow_nan=False)


def test_health_is_unknown_when_more_happened_than_was_kept() -> None:
    log = events((1, 0, 2, OUT))
    run = Recorded(window_ns=W, requests=np.ones((20, 4)), events=log, events_in_all=2, end_ns=2 * S)
    assert describe(run)["ejections"] is None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=60))
def test_any_series_gives_figures_that_json_can_hold(rows: list[list[int]]) -> None:
    run = Recorded(window_ns=W, requests=np.array(rows), faults=(FaultSpan(0, W, 3 * W),), end_ns=len(rows) * W)
    json.dumps(describe(run), allow_nan=False)


def test_the_report_tells_what_is_known_and_nothing_else() -> None:
    bare = dict(behaviour_rows(describe(Recorded(window_ns=W, requests=np.full((100, 4), 10), end_ns=10 * S))))
    assert bare["busiest node over the average, requests, per 100ms"] == "1.000 (median), 1.000 (p99)"
    assert not [label for label in bare if "busy" in label.split(",")[1:] or "ejected" in label]
    assert behaviour_rows({"policy": "p2c"}) == []
    struck = Recorded(
        window_ns=W, requests=np.full((100, 4), 10), events=events((3.5, 0, 1, OUT)), events_in_all=1,
        faults=(FaultSpan(1, 3 * S, 5 * S),), end_ns=10 * S,
    )  # fmt: skip
    rows = dict(behaviour_rows(describe(struck)))
    assert rows["node 1, sick 3.0 to 5.0 s: ejected after"] == "0.50 s (median), by 1 of 1 balancers"
    assert rows["healthy nodes ejected (node-seconds a balancer)"] == "0"


def test_fault_spans_are_read_from_the_events_of_a_run() -> None:
    log = [
        {"t_s": 0.0, "event": "started", "engine_pid": 1}, {"t_s": 1.0, "event": "fault", "fault": "kill", "node": 1},
        {"t_s": 1.1, "event": "node_died", "node": 1}, {"t_s": 1.5, "event": "node_ready", "node": 1},
        {"t_s": 2.0, "event": "fault", "fault": "pause", "node": 0}, {"t_s": 2.5, "event": "fault_over", "node": 0},
        {"t_s": 3.0, "event": "fault", "fault": "pause", "node": 1},
    ]  # fmt: skip
    expected = (FaultSpan(1, S, 3 * S // 2), FaultSpan(0, 2 * S, 5 * S // 2), FaultSpan(1, 3 * S, 4 * S))
    assert fault_spans(log, 4 * S) == expected
