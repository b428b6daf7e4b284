"""Outlier ejection, panic and re-admission, with Envoy's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from fleet_driver import Driver, S

from simulator.balancer.fleet import NEVER_NS, Health


def guarded(nodes: int, *, balancers: int = 1, **changes: float) -> Driver:
    return Driver("p2c", nodes, balancers=balancers, changes={"outlier": 1, **changes})


def events(driver: Driver) -> list[tuple[float, int, str]]:
    log = driver.fleet.events[: int(driver.fleet.event_count[0])]
    return [(int(row["time_ns"]) / S, int(row["node"]), Health(int(row["what"])).name) for row in log]


def test_the_fifth_error_in_a_row_ejects() -> None:
    driver = guarded(10)
    driver.answer(3, good=False, count=4)
    driver.answer(3, good=True)
    driver.answer(3, good=False, count=4)
    assert driver.available() == set(range(10))
    driver.answer(3, now=7 * S, good=False)
    assert driver.available() == set(range(10)) - {3}
    assert events(driver) == [(7.0, 3, "EJECTED_IN_A_ROW")]
    driver.answer(3, good=False, count=50)  # what was under way still fails; it is out already
    assert driver.fleet.event_count[0] == 1


@pytest.mark.parametrize(("nodes", "most"), [(1, 1), (5, 1), (10, 1), (19, 1), (20, 2), (40, 4)])
def test_at_most_a_tenth_is_out_but_one_always_may_be(nodes: int, most: int) -> None:
    driver = guarded(nodes)
    for node in range(nodes):
        driver.answer(node, good=False, count=5)
    assert nodes - len(driver.available()) == most


def test_a_node_comes_back_with_the_sweep_after_its_time_which_grows_and_is_forgiven() -> None:
    driver = guarded(10)

    def out_for(ejected_s: int) -> int:
        driver.answer(3, now=ejected_s * S, good=False, count=5)
        assert 3 not in driver.available()
        for now in range((ejected_s // 10 + 1) * 10, ejected_s + 1_000, 10):
            driver.sweep(now * S)
            if 3 in driver.available():
                return now
        raise AssertionError

    assert out_for(1) == 40  # 30 s are over at 31
    assert out_for(41) == 110  # 60 s, at 101
    for now in range(120, 150, 10):  # each sweep that finds it in forgives one
        driver.sweep(now * S)
    assert out_for(141) == 180  # 30 s again
    assert events(driver)[1] == (40.0, 3, "READMITTED")
    assert events(driver)[2] == (41.0, 3, "FIRST_SENT")


def test_the_longest_time_out_is_the_limit() -> None:
    driver = guarded(10, ejection_max_ns=70 * S)
    now = 0
    longest = 0
    for _ in range(6):
        driver.answer(3, now=now, good=False, count=5)
        began = now
        while 3 not in driver.available():
            now += S
            if now >= driver.fleet.next_sweep_ns[0]:
                driver.sweep(now)
        longest = max(longest, (now - began) // S)
    assert 70 <= longest <= 80


def test_the_first_request_after_the_return_is_noted_once() -> None:
    driver = guarded(2, panic=0.0)
    driver.answer(0, good=False, count=5)
    driver.sweep(40 * S)
    driver.picks(50, now=41 * S, send=True)
    assert events(driver)[1:] == [(40.0, 0, "READMITTED"), (41.0, 0, "FIRST_SENT")]


def test_a_success_rate_far_below_the_others_ejects_with_the_sweep() -> None:
    driver = guarded(20)
    for node in range(20):
        bad = 40 if node == 7 else 2
        for _ in range(bad):  # never five in a row
            driver.answer(node, good=False)
            driver.answer(node, good=True)
        driver.answer(node, good=True, count=200 - 2 * bad)
    driver.sweep(10 * S)
    assert events(driver) == [(10.0, 7, "EJECTED_BY_RATE")]


@pytest.mark.parametrize(("nodes", "answers", "ejected"), [(5, 100, 1), (4, 100, 0), (5, 99, 0)])
def test_rates_are_compared_among_enough_nodes_with_enough_answers(nodes: int, answers: int, ejected: int) -> None:
    driver = guarded(nodes, rate_deviations=1.0)
    for node in range(nodes):
        bad = 30 if node == 0 else 0
        for _ in range(bad):
            driver.answer(node, good=False)
            driver.answer(node, good=True)
        driver.answer(node, good=True, count=answers - 2 * bad)
    driver.sweep(10 * S)
    assert nodes - len(driver.available()) == ejected


def test_equal_rates_eject_nobody_and_counts_start_again_with_each_sweep() -> None:
    driver = guarded(6)
    for node in range(6):
        driver.answer(node, good=False)
        driver.answer(node, good=True, count=149)
    driver.sweep(10 * S)
    assert driver.fleet.event_count[0] == 0
    assert driver.fleet.views["answers"].sum() == 0


def test_panic_begins_below_half_and_ends_at_half() -> None:
    driver = guarded(4, ejected_max=1.0)
    for node in (0, 1):
        driver.answer(node, good=False, count=5)
    assert driver.fleet.span[0] == 2
    driver.answer(2, now=S, good=False, count=5)
    assert driver.fleet.span[0] == 4
    driver.sweep(40 * S)
    assert driver.fleet.span[0] == 4
    assert driver.available() == {0, 1, 2, 3}
    assert [what for _, _, what in events(driver) if what.startswith("PANIC")] == ["PANIC_BEGAN", "PANIC_ENDED"]


def test_sweeps_of_balancers_are_spread_over_an_interval_and_catch_up() -> None:
    driver = guarded(3, balancers=4)
    assert (driver.fleet.next_sweep_ns / S).tolist() == [10.0, 12.5, 15.0, 17.5]
    driver.sweep(35 * S, b=1)
    assert driver.fleet.next_sweep_ns[1] == 42.5 * S
    assert Driver("p2c", 3).fleet.next_sweep_ns[0] == NEVER_NS


def test_a_full_log_of_events_counts_on_and_keeps_the_first() -> None:
    driver = guarded(2, panic=0.0)
    driver.fleet.event_count[0] = len(driver.fleet.events)
    driver.answer(0, good=False, count=5)
    assert driver.fleet.event_count[0] == len(driver.fleet.events) + 1
    assert not np.any(driver.fleet.events["what"])
