"""The schedule of faults: who is struck when, the same for each seed, and each strike handed out once."""

from __future__ import annotations

import sys
from subprocess import run
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.fault.schedule import Fault, Schedule, Strike
from simulator.scenario.faults import MOST_STRIKES, PlannedFault
from simulator.scenario.model import Scenario

S = 10**9
PINNED = [(6569665240, 1), (14417483303, 0), (18503160015, 1), (20281956201, 1)]


def _faults(*faults: dict[str, Any]) -> tuple[PlannedFault, ...]:
    return tuple(PlannedFault.model_validate(fault) for fault in faults)


def _schedule(*faults: dict[str, Any], nodes: int = 2, duration_ns: int = 60 * S, seed: int = 1) -> Schedule:
    return Schedule(_faults(*faults), nodes, duration_ns, seed)


def _kill(at: str = "10s", target: str = "node[*]", **more: Any) -> dict[str, Any]:  # noqa: ANN401  YAML data
    return {"at": at, "fault": "kill", "target": target, **more}


def test_a_fault_of_a_named_node_strikes_once_at_its_moment() -> None:
    assert _schedule(_kill(target="node[1]")).strikes == (Strike(10 * S, None, Fault.KILL, (1,)),)


def test_a_run_without_faults_has_no_strikes() -> None:
    schedule = _schedule()
    assert (schedule.strikes, schedule.next_ns, schedule.due(60 * S)) == ((), None, [])


def test_a_power_loss_strikes_every_node_at_once() -> None:
    for target in ({}, {"target": "node[*]"}):
        strikes = _schedule({"at": "3s", "fault": "power_loss", **target}, nodes=3).strikes
        assert strikes == (Strike(3 * S, None, Fault.POWER_LOSS, (0, 1, 2)),)


def test_a_pause_ends_after_its_time_and_at_the_latest_with_the_run() -> None:
    pause = {"fault": "pause", "target": "node[0]"}
    strikes = _schedule(
        {"at": "1s", "for": "2s", **pause}, {"at": "50s", "for": "20s", **pause}, {"at": "55s", **pause}
    ).strikes
    assert [(strike.at_ns, strike.until_ns) for strike in strikes] == [
        (1 * S, 3 * S),
        (50 * S, 60 * S),
        (55 * S, 60 * S),
    ]


def test_a_repeated_fault_strikes_at_the_start_of_each_interval() -> None:
    assert [strike.at_ns for strike in _schedule(_kill(every="5s", times=3)).strikes] == [10 * S, 15 * S, 20 * S]


def test_without_times_a_fault_is_repeated_to_the_end_of_the_run_but_not_at_it() -> None:
    assert [strike.at_ns for strike in _schedule(_kill(every="25s")).strikes] == [10 * S, 35 * S]
    assert len(_schedule(_kill(every="1s")).strikes) == 50


def test_strikes_are_in_the_order_of_time_and_at_one_instant_in_that_of_the_file() -> None:
    strikes = _schedule(
        _kill("20s", "node[1]"), _kill("10s", "node[1]", every="10s", times=2), _kill("10s", "node[0]")
    ).strikes
    assert [(strike.at_ns // S, strike.nodes) for strike in strikes] == [(10, (1,)), (10, (0,)), (20, (1,)), (20, (1,))]


def test_a_spread_fault_strikes_once_inside_each_interval_and_not_always_at_the_same_place() -> None:
    strikes = _schedule(_kill("5s", every="5s", times=10, spread="random")).strikes
    assert [strike.at_ns // (5 * S) for strike in strikes] == list(range(1, 11))
    assert len({strike.at_ns % (5 * S) for strike in strikes}) == 10


def test_the_moments_of_a_spread_fault_are_uniform_and_so_are_random_nodes() -> None:
    strikes = [
        strike
        for seed in range(5)
        for strike in _schedule(_kill("0s", every="60ms", times=1_000, spread="random"), nodes=3, seed=seed).strikes
    ]
    within = np.array([strike.at_ns % 60_000_000 for strike in strikes]) / 60e6
    # 20 cells of 5,000 / 20 each: chi squared of 19 degrees of freedom, mean 19, standard deviation √38.
    observed, _ = np.histogram(within, bins=20, range=(0, 1))
    assert ((observed - 250) ** 2 / 250).sum() < 19 + 4 * np.sqrt(38)
    struck = np.bincount([strike.nodes[0] for strike in strikes], minlength=3)
    assert np.abs(struck - 5_000 / 3).max() < 4 * np.sqrt(5_000 * 2 / 9)
    # Moment and node are drawn apart: in each node's strikes the moments have the same mean, ½.
    for node in range(3):
        of_node = within[[strike.nodes[0] == node for strike in strikes]]
        assert abs(of_node.mean() - 0.5) < 4 * np.sqrt(1 / 12 / of_node.size)


def test_the_same_seed_gives_the_same_strikes_and_another_seed_others() -> None:
    fault = _kill("0s", every="1s", spread="random")
    first, again, other = (_schedule(fault, seed=seed).strikes for seed in (7, 7, 8))
    assert first == again
    assert [strike.at_ns for strike in first] != [strike.at_ns for strike in other]
    assert [strike.nodes for strike in first] != [strike.nodes for strike in other]


def test_strikes_stay_what_they_are_from_version_to_version() -> None:
    strikes = _schedule(_kill("5s", every="5s", times=4, spread="random"), nodes=4, seed=20191111).strikes
    assert [(strike.at_ns, strike.nodes[0]) for strike in strikes] == PINNED


def test_more_strikes_or_another_fault_behind_leave_the_others_as_they_were() -> None:
    few = _schedule(_kill("0s", every="5s", times=3, spread="random")).strikes
    more = _schedule(_kill("0s", every="5s", times=10, spread="random"), _kill("59s")).strikes
    assert more[:3] == few


def test_two_faults_alike_strike_at_moments_of_their_own() -> None:
    fault = _kill("0s", every="5s", times=10, spread="random")
    assert len({strike.at_ns for strike in _schedule(fault, fault).strikes}) == 20


def test_what_is_due_is_handed_out_once_and_in_order() -> None:
    schedule = _schedule(_kill(every="5s", times=3))
    assert (schedule.next_ns, schedule.due(10 * S - 1)) == (10 * S, [])
    assert schedule.due(10 * S) == [schedule.strikes[0]]
    assert (schedule.next_ns, schedule.due(10 * S)) == (15 * S, [])
    assert schedule.due(60 * S) == list(schedule.strikes[1:])
    assert (schedule.next_ns, schedule.due(60 * S)) == (None, [])


def test_a_clock_that_goes_back_hands_nothing_out_again() -> None:
    schedule = _schedule(_kill(every="5s", times=3))
    assert len(schedule.due(15 * S)) == 2
    assert schedule.due(0) == []
    assert schedule.next_ns == 20 * S


PLANNED = st.fixed_dictionaries(
    {
        "at": st.integers(0, 59 * S).map(lambda ns: f"{ns}ns"),
        "fault": st.sampled_from(["kill", "pause", "power_loss"]),
        "target": st.just("node[*]"),
    }
) | st.fixed_dictionaries(
    {
        "at": st.integers(0, 30 * S).map(lambda ns: f"{ns}ns"),
        "fault": st.sampled_from(["kill", "power_loss"]),
        "target": st.just("node[*]"),
        "every": st.integers(S // 10, 30 * S).map(lambda ns: f"{ns}ns"),
    },
    optional={"spread": st.just("random")},
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(PLANNED, max_size=4),
    st.integers(1, 16),
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(-S, 61 * S), max_size=20),
)
def test_whatever_a_scenario_plans_strikes_within_the_run_and_is_handed_out_once(
    planned: list[dict[str, Any]], nodes: int, seed: int, looks: list[int]
) -> None:
    data = {
        "name": "a", "duration": "60s", "load": {"rate": "1/s"}, "backend": {"embedded": {"nodes": nodes, "remember": 4_194_304}},
        "faults": planned,
    }  # fmt: skip
    scenario = Scenario.from_data(data)
    schedule = Schedule(scenario.faults, nodes, 60 * S, seed)
    strikes = schedule.strikes
    assert len(strikes) == sum(fault.strikes(60 * S) for fault in scenario.faults)
    for strike in strikes:
        assert 0 <= strike.at_ns < 60 * S
        assert set(strike.nodes) <= set(range(nodes))
        assert len(strike.nodes) == (nodes if strike.fault is Fault.POWER_LOSS else 1)
        assert (strike.until_ns is not None) == (strike.fault is Fault.PAUSE)
        assert strike.until_ns is None or strike.at_ns < strike.until_ns <= 60 * S
    handed_out = []
    for now_ns in [*looks, 60 * S]:
        due = schedule.due(now_ns)
        assert all(strike.at_ns <= now_ns for strike in due)
        assert schedule.next_ns is None or schedule.next_ns > now_ns
        handed_out += due
    assert tuple(handed_out) == strikes
    assert list(strikes) == sorted(strikes, key=lambda strike: strike.at_ns)


def test_the_schedules_faults_are_the_scenarios() -> None:
    words = Scenario.schema_for_editors()["$defs"]["PlannedFault"]["properties"]["fault"]["enum"]
    assert words == [fault.value for fault in Fault]


def test_the_most_strikes_there_can_be_are_all_apart() -> None:
    fault = _kill("0s", every="1ns", times=MOST_STRIKES)
    assert [strike.at_ns for strike in _schedule(fault).strikes] == list(range(MOST_STRIKES))


@pytest.mark.parametrize("module", ["simulator.fault", "simulator.scenario.model"])
def test_a_scenario_is_read_without_the_kernels_imports(module: str) -> None:
    script = f"import sys, {module}; sys.exit('numba' in sys.modules)"
    assert run([sys.executable, "-c", script], check=False).returncode == 0
