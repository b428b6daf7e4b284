"""What a simulated run knows of its balancers, on runs whose outcome is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simulator.arrivals.build import build_rate
from simulator.balancer.affinity import churn_without
from simulator.balancer.behaviour import describe
from simulator.balancer.policy import open_fleet, settings_of
from simulator.engine.units import PROGRESS, Whole, put_together, simulate_units
from simulator.fault.schedule import Schedule
from simulator.measure.grid import peak_grid, uniform
from simulator.report.balancing import behaviour_rows
from simulator.report.sweep import row_of
from simulator.run.virtual import assemble
from simulator.run.virtual_balance import recorded_of
from simulator.scenario.loader import load

if TYPE_CHECKING:
    from simulator.balancer.behaviour import Recorded
    from simulator.scenario.model import Scenario

SCENARIOS = Path(__file__).parent.parent / "scenarios"
LOADS = ("requests", "in_flight", "busy")


def simulated(scenario: Scenario) -> tuple[Whole, Recorded]:
    rate = build_rate(scenario)
    run = assemble(scenario, Path())
    units = range(scenario.fleet.units)
    parts = simulate_units(scenario, units, run.grid_ns, np.zeros(PROGRESS, np.int64), lambda: 2**62)
    whole = put_together(parts, scenario.fleet.units, len(run.grid_ns) - 1)
    strikes = Schedule(scenario.faults, scenario.fleet.nodes, int(rate.duration_s * 1e9), scenario.seed).strikes
    return whole, recorded_of(scenario, whole, run.grid_ns, run.target, strikes, rate.duration_s)


def scenario(name: str, *changes: str) -> Scenario:
    return load(SCENARIOS / f"{name}.yaml", list(changes))


def described(name: str, *changes: str) -> dict[str, Any]:
    return describe(simulated(scenario(name, *changes))[1])


@pytest.fixture(scope="module")
def balancing() -> dict[str, Any]:
    return described("balancing")


def test_a_node_slowed_tenfold_is_detected_left_out_and_let_in_again(balancing: dict[str, Any]) -> None:
    (fault,) = balancing["faults"]
    assert fault["detection"]["detected"] == fault["detection"]["balancers"] == 4
    assert 0 < fault["detection"]["p50_s"] <= fault["detection"]["p99_s"] < 5
    assert fault["lost_before_ejection"] > 0
    assert fault["readmission"]["fair_share_s"] < 8
    shares = fault["traffic_over_fair"]
    assert shares["during"] < 0.3
    assert shares["before"] > 0.9
    assert balancing["ejections"] >= 4
    assert balancing["readmissions"] > 0


def test_every_load_is_told_per_100_ms_per_second_and_of_the_run(balancing: dict[str, Any]) -> None:
    for load_ in LOADS:
        assert set(balancing["windows"][load_]) == {"100ms", "1s", "run"}
        assert balancing["windows"][load_]["100ms"]["windows"] == 300
    assert balancing["herd"]["amplitude"] > 0
    assert balancing["herd"]["period_s"] is None  # slow once is no oscillation
    assert balancing["staleness_regret"] > 0
    assert balancing["amplification"]["client"] >= 1


def test_the_sweep_tells_balancers_apart(balancing: dict[str, Any]) -> None:
    row = row_of(
        {
            "counts": {"offered": 1, "ok": 1}, "rates": {"offered_per_s": 1, "completed_per_s": 1}, "verdict": "pass",
            "response_time_ms": {}, "balancer": balancing,
        }
    )  # fmt: skip
    assert row["detection_s"] == balancing["faults"][0]["detection"]["p50_s"]
    assert (row["ejections"], row["staleness_regret"]) == (balancing["ejections"], balancing["staleness_regret"])


QUIET = ("client.timeout=null", "client.retries=null", "balancer.outlier_ejection=null", "balancer.balancers=1")


@pytest.mark.parametrize(("policy", "least", "most"), [("random", 0.93, 1.07), ("p2c", 0.2, 0.5), ("jsq", 0.0, 0.1)])
def test_random_is_as_good_as_random_and_a_full_view_nearly_one_queue(policy: str, least: float, most: float) -> None:
    # Before the node is slow: 90,000 customers at half load, for which theory has both ends of the scale.
    found = described("balancing", f"balancer.policy={policy}", *QUIET)
    assert least <= found["efficiency"] <= most


def test_theory_is_silent_where_it_does_not_apply() -> None:
    assert described("balancing", "platform.service.distribution=lognormal", *QUIET)["efficiency"] is None


KILLED = "faults=[{at: 1s, fault: kill, target: 'node[3]', for: 1s}]"


def test_picks_of_a_dead_node_are_no_regret_and_are_counted_apart() -> None:
    found = described("balancing", KILLED, "duration=3s", "load.rate=1000/s", "balancer.outlier_ejection=null")
    assert found["dead_picks"] > 0
    assert found["staleness_regret"] >= 0
    assert found["error_amplification"] is not None
    assert found["faults"][0]["traffic_over_fair"]["during"] > 0.5


@pytest.mark.parametrize(("policy", "exact"), [("ring_hash", True), ("affinity", True), ("maglev", False)])
def test_only_the_keys_of_a_lost_node_move_and_a_few_more_with_maglev(policy: str, exact: bool) -> None:  # noqa: FBT001  a table
    found = described("balancing", KILLED, "duration=2s", "load.rate=200/s", f"balancer.policy={policy}")
    moved = found["affinity_churn"]
    assert 0.02 < moved["optimum"] < 0.1
    assert (moved["excess"] == 0) is exact
    assert 0 <= moved["excess"] < 0.05


def test_a_policy_without_keys_has_no_churn() -> None:
    keys = np.arange(100)
    assert churn_without(settings_of("p2c"), open_fleet(settings_of("p2c"), 4), keys, keys % 4, [1]) is None


def test_a_collapse_that_outlasts_its_trigger_is_told_from_one_that_does_not() -> None:
    down = described("metastable", "client.retries.budget=null")["metastability"]
    assert (down["stays_down"], down["recovered_s"], down["feeds_itself"]) == (True, None, True)
    up = described("metastable")["metastability"]
    assert (up["stays_down"], up["feeds_itself"]) == (False, False)
    assert up["goodput_after_over_before"] > 3 * down["goodput_after_over_before"]
    assert down["trigger_s"] == pytest.approx([10.0, 13.2], abs=0.15)


def test_a_health_log_that_is_full_makes_its_figures_unknown_and_says_so() -> None:
    _, recorded = simulated(scenario("balancing", "duration=12s"))
    assert describe(recorded)["ejections"] is not None
    cut = describe(replace(recorded, events_in_all=recorded.events_in_all + 1))
    unknown = ("ejections", "readmissions", "false_ejection_s", "panic_s")
    assert [cut[name] for name in unknown] == [None] * 4
    assert cut["faults"][0]["detection"] is None
    assert "more than are kept" in dict(behaviour_rows(cut))["ejections by the balancers"]


def test_windows_of_unequal_length_are_joined_to_the_longest() -> None:
    edges = peak_grid(86_400 * 10**9, 10**9, 40_000 * 10**9)
    firsts, width = uniform(edges)
    assert width == np.diff(edges).max()
    assert (np.diff(edges[firsts]) == width).all()
    ones = np.add.reduceat(np.diff(edges), firsts)
    assert (ones[:-1] == width).all()
