"""What a scenario may say of its balancer, and what is told to who says something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simulator.balancer.fleet import Load, Rule
from simulator.balancer.policy import DEFAULTS, POLICIES, fleet_from, settings_from, settings_of
from simulator.scenario.balancing import Balancer, Report
from simulator.scenario.model import Scenario

VIRTUAL_ONLY = {"prequal", "orca", "c3"}


def scenario(balancer: dict[str, Any], **more: Any) -> Scenario:  # noqa: ANN401  whatever a scenario holds
    data = {"name": "x", "duration": "1s", "load": {"rate": "100/s"}, "balancer": balancer, **more}
    return Scenario.from_data(data)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_can_be_asked_for_on_a_clock_that_has_what_it_needs(policy: str) -> None:
    report = {"report": {"every": "50ms"}} if policy in VIRTUAL_ONLY else {}
    asked = scenario({"policy": policy, **report}, clock="virtual")
    settings = settings_from(asked.balancer, virtual=True)
    assert (settings.load, settings.rule) == (int(POLICIES[policy].load), int(POLICIES[policy].rule))
    if policy not in VIRTUAL_ONLY:
        assert scenario({"policy": policy}).balancer.policy == policy


def test_the_defaults_of_the_scenario_are_those_of_the_policies() -> None:
    # One place for each: a scenario that says nothing gets what the references say.
    for policy in POLICIES:
        assert settings_from(Balancer.model_validate({"policy": policy})) == settings_of(policy)
    ejecting = settings_from(scenario({"outlier_ejection": {}}).balancer)
    assert ejecting == settings_of("p2c")._replace(outlier=1)
    assert ejecting.interval_ns == DEFAULTS.interval_ns == 10_000_000_000


@pytest.mark.parametrize(
    ("balancer", "more", "place", "told"),
    [
        ({"policy": "prequal"}, {}, "policy", "prequal needs probes"),
        ({"policy": "orca"}, {"clock": "virtual"}, "policy", "write balancer.report"),
        ({"policy": "p2c", "load": "reported"}, {}, "load", "only the virtual clock has"),
        ({"policy": "p2c", "load": "c3"}, {"clock": "virtual"}, "load", "c3 needs reports"),
        ({"policy": "round_robin", "load": "in_flight"}, {}, "load", "round_robin compares no loads"),
        ({"policy": "random", "weights": [1, 2]}, {}, "weights", "random passes over weights"),
        ({"weights": [1.0, 2.0, 3.0]}, {}, "weights", "3 weights for 2 nodes"),
        ({"balancers": 2}, {}, "balancers", "the wall clock has one balancer"),
        ({"report": {}}, {}, "report", "nodes report nothing on the wall clock"),
        ({"slow_start": {"window": "5s"}}, {}, "slow_start", "write outlier_ejection: {}"),
        ({"policy": "maglev", "slow_start": {"window": "5s"}, "outlier_ejection": {}}, {}, "slow_start", "part of its share"),
        ({"report": {"every": "999us"}}, {"clock": "virtual"}, "every", "at least 1ms"),
        ({"report": {"every": "1ms", "delay": "1h"}}, {"clock": "virtual"}, "report", "under way at once"),
        ({"policy": "maglev", "balancers": 900}, {"clock": "virtual"}, "table", "are more than 50,000,000"),
        ({"hash": {"table": 65_536}}, {}, "table", "is not a prime"),
        ({"aperture": {"low": 2.0}}, {}, "low", "2.0 is not below high"),
        ({"policy": "maglev", "hash": {"table": 3}}, {"clock": "virtual", "platform": {"nodes": 7}}, "table", "too few for 7"),
        ({"balancers": 1_024}, {"clock": "virtual", "platform": {"nodes": 10_000}}, "balancers", "at most 200"),
        ({"choices": 11}, {}, "choices", "less than or equal to 10"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_would_be_right(
    balancer: dict[str, Any], more: dict[str, Any], place: str, told: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        scenario(balancer, **more)
    assert told in str(refused.value)
    assert place in str(refused.value.errors())


def test_what_a_scenario_writes_reaches_the_kernels() -> None:
    asked = scenario(
        {
            "policy": "p2c", "choices": 4, "load": "peak_ewma", "bias": 2.0, "weights": [3.0, 1.0],
            "ewma": {"decay": "5s", "start": "30ms"}, "panic": 0.2, "circuit": {"requests": 9, "per_node": 4},
            "outlier_ejection": {"in_a_row": 7, "base": "3s"}, "slow_start": {"window": "8s", "aggression": 2.0},
        }
    ).balancer  # fmt: skip
    settings = settings_from(asked)
    assert (settings.rule, settings.load, settings.choices) == (int(Rule.DRAWS), int(Load.PEAK_EWMA), 4)
    assert (settings.bias, settings.weighted, settings.tau_ns, settings.start_ns) == (2.0, 1, 5e9, 3e7)
    assert (settings.panic, settings.circuit_requests, settings.circuit_node) == (0.2, 9, 4)
    assert (settings.errors_in_a_row, settings.ejection_ns, settings.slow_power) == (7, 3_000_000_000, 0.5)
    fleet = fleet_from(asked, settings, 2)
    assert fleet.weight.tolist() == [1.5, 0.5]
    assert fleet.deadlines.heap.shape == (1, 2)
    platform = settings_from(Balancer(), weights=(1.0, 2.0))
    assert platform.weighted == 1
    assert np.allclose(fleet_from(Balancer(), platform, 2, weights=(1.0, 2.0)).weight, [2 / 3, 4 / 3])


def test_idle_nodes_speak_up_only_where_several_balancers_could_hear_them() -> None:
    assert settings_from(Balancer(policy="jiq"), virtual=True).infer_idle == 1
    assert settings_from(Balancer(policy="jiq", balancers=4), virtual=True).infer_idle == 0
    assert settings_from(Balancer(policy="jiq", report=Report()), virtual=True).infer_idle == 1
