"""What protects a node and its clients' platform: adaptive limits, admission control, Envoy's retry budget, in simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simulator.engine.virtual.model import compile_scenario
from simulator.engine.virtual.simulation import Engine, engine_for, simulate
from simulator.engine.virtual.tally import Count
from simulator.scenario.model import Scenario
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from simulator.engine.virtual.simulation import Results

MS = 1_000_000
NODE = {"nodes": 1, "service": {"mean": "1ms"}, "shards": {"count": 1}, "queue": 100_000}


def _scenario(platform: dict[str, Any], *, rate: int = 1_100, seconds: int = 10, **more: Any) -> Scenario:  # noqa: ANN401  plain data
    return Scenario.from_data(
        {
            "name": "guarded", "clock": "virtual", "duration": f"{seconds}s", "seed": 3,
            "load": {"rate": f"{rate}/s", "mix": {"payment": 1}}, "platform": {**NODE, **platform}, **more,
        }
    )  # fmt: skip


def _run(platform: dict[str, Any], **more: Any) -> Results:  # noqa: ANN401  plain data
    results = simulate(_scenario(platform, **more))
    assert results.unbalanced() == []
    return results


def _p99_ms(results: Results) -> float:
    return (results.measured.response.total().percentile_ns(99.0) or 0.0) / MS


def test_codel_keeps_the_tail_of_an_overloaded_node_short() -> None:
    without, guarded = _run({}), _run({"admission": {"rule": "codel"}})
    assert _p99_ms(without) > 600
    assert _p99_ms(guarded) < 250
    assert guarded.count(Count.ADMISSION) > 300
    refused = int(guarded.virtual.reasons[Status.REJECTED, Reason.LIMIT])
    assert refused == guarded.count(Count.ADMISSION)
    assert without.count(Count.ADMISSION) == 0
    # What is turned away is no capacity lost.
    assert guarded.count(Count.ACKNOWLEDGED) >= 0.97 * 10_000


def test_controlled_delay_bounds_every_wait_by_its_interval() -> None:
    guarded = _run({"admission": {"rule": "controlled_delay"}}, rate=2_000, seconds=5)
    assert _p99_ms(guarded) < 110
    # In a standing queue it is the target: most waited less than 5 ms, and service is 1 ms.
    assert (guarded.measured.response.total().percentile_ns(50.0) or 0.0) / MS < 10
    assert guarded.count(Count.ADMISSION) == pytest.approx(5_000, rel=0.1)


def test_dagor_lets_the_important_kinds_in_and_turns_the_others_away() -> None:
    load = {"rate": "1500/s", "mix": {"payment": 50, "authorize": 50}, "follow_up": {"void_share": 0.0, "after": "1h"}}
    guarded = _run({"admission": {"rule": "dagor"}}, seconds=40, load=load)
    ended = guarded.virtual.ended.sum(axis=0)
    kept = {kind: ended[kind - 1, Status.OK] / ended[kind - 1].sum() for kind in (Kind.AUTHORIZE, Kind.PAYMENT)}
    assert kept[Kind.AUTHORIZE] > 0.9
    assert kept[Kind.PAYMENT] < 0.4
    assert guarded.count(Count.ADMISSION) > 20_000  # what is too much, and some more: it comes back by 1 % a second


# As many at once as there are workers is the knee: fewer waste capacity, more only wait.
WORKERS = 20
SERVERS = {"workers": WORKERS, "service": {"mean": "10ms", "distribution": "deterministic"}}


def test_vegas_settles_near_the_knee_under_lasting_overload() -> None:
    concurrency = {"limit": "vegas", "start": 200}
    without, guarded = _run(SERVERS, rate=3_000), _run({**SERVERS, "concurrency": concurrency}, rate=3_000)
    assert without.little()[0].mean_number > 100 * WORKERS
    assert WORKERS * 0.9 < guarded.little()[0].mean_number < 2 * WORKERS
    assert guarded.count(Count.ACKNOWLEDGED) > 0.85 * 2_000 * 10
    refused = int(guarded.virtual.reasons[Status.REJECTED, Reason.LIMIT])
    assert refused == guarded.count(Count.CONCURRENCY) > 5_000


def test_gradient2_finds_a_limit_near_the_knee_and_in_lasting_overload_keeps_to_its_bound() -> None:
    busy = _run({**SERVERS, "concurrency": {"least": 1, "most": 1_000, "start": 10}}, rate=1_600)
    assert WORKERS <= float(busy.limits[0]) < 6 * WORKERS
    assert busy.count(Count.CONCURRENCY) < 0.05 * busy.count(Count.OFFERED)
    over = _run({**SERVERS, "concurrency": {}}, rate=3_000)
    # Its long average follows the short one, so it goes up to 200 and no further: 100 ms at 2,000/s.
    assert _p99_ms(over) < 115
    assert over.count(Count.ACKNOWLEDGED) > 0.97 * 2_000 * 10


def test_aimd_backs_off_from_times_that_are_too_slow() -> None:
    concurrency = {"limit": "aimd", "least": 1, "most": 1_000, "slow": "50ms"}
    guarded = _run({"concurrency": concurrency}, rate=2_000)
    assert _p99_ms(guarded) < 150  # without: seconds
    assert guarded.count(Count.ACKNOWLEDGED) > 9_000


def _retrying(budget: dict[str, Any] | None) -> Results:
    retries = {"max": 5, "backoff": "50ms", "factor": 1.0, "jitter": "none", "budget": budget}
    return _run(
        {"queue": 5}, rate=4_000, seconds=3, client={"retries": {k: v for k, v in retries.items() if v is not None}}
    )


def test_envoys_budget_caps_the_retries_that_wait_or_are_in_flight() -> None:
    free = _retrying(None)
    capped = _retrying({"kind": "active", "least": 3})
    # At most 6 at the node and none on the way: a fifth of that is less than 3, so 3 at once, each for 50 ms of backoff.
    assert free.count(Count.RETRIES) > 10_000
    assert 0 < capped.count(Count.RETRIES) <= 3 * (3_000 // 50 + 20)
    assert capped.count(Count.RETRY_BUDGET_EMPTY) > 5_000
    more = _retrying({"kind": "active", "least": 30})
    assert more.count(Count.RETRIES) == pytest.approx(10 * capped.count(Count.RETRIES), rel=0.1)


def test_the_fast_path_leaves_guarded_nodes_to_the_general_engine() -> None:
    assert engine_for(compile_scenario(_scenario({}))) is not Engine.GENERAL
    for guard in ("admission", "concurrency"):
        assert engine_for(compile_scenario(_scenario({guard: {}}))) is Engine.GENERAL


def test_a_killed_node_forgets_what_its_limit_had_learnt() -> None:
    concurrency = {"limit": "aimd", "least": 1, "most": 1_000, "start": 7, "slow": "1s"}
    kill = [{"at": "9900ms", "fault": "kill", "target": "node[0]", "for": "1s"}]
    learnt = _run({"concurrency": concurrency})
    forgotten = _run({"concurrency": concurrency}, faults=kill)
    assert float(learnt.limits[0]) > 50
    assert float(forgotten.limits[0]) == 7


# ---- what balancers are told ----

FLEET = {"nodes": 40, "service": {"mean": "1ms"}, "network": {"client": "50us"}, "shards": {"count": 1}}


def _balanced(balancer: dict[str, Any], **more: Any) -> Results:  # noqa: ANN401  plain data
    return _run(FLEET, rate=30_000, seconds=2, balancer=balancer, client={"timeout": "5s", **more})


def _regret(results: Results) -> float:
    return results.count(Count.REGRET) / results.count(Count.PICKS)


@pytest.mark.parametrize("policy", ["prequal", "jiq"])
def test_reports_to_all_are_no_answers_to_probes_and_no_idle_messages(policy: str) -> None:
    alone = _balanced({"policy": policy, "balancers": 4, "report": {"every": "1h", "delay": "50us"}})
    reported = _balanced({"policy": policy, "balancers": 4, "report": {"every": "10ms", "delay": "50us"}})
    assert reported.count(Count.REPORTS) > 7_000
    assert _regret(reported) == pytest.approx(_regret(alone), rel=0.02)


def test_nodes_report_each_at_its_own_moment() -> None:
    results = _balanced({"policy": "jsq", "load": "reported", "report": {"every": "10ms"}})
    assert results.count(Count.REPORTS) == pytest.approx(40 * 199, rel=0.02)


def test_a_node_whose_queue_was_cancelled_still_says_that_it_is_idle() -> None:
    results = _run(
        {**FLEET, "service": {"mean": "1us"}, "nodes": 1}, rate=100, seconds=2, client={"timeout": "8ms", "cancel": True},
        balancer={"policy": "jiq", "balancers": 2},
        faults=[{"at": "500ms", "for": "500ms", "fault": "pause", "target": "node[0]"}],
    )  # fmt: skip
    assert results.count(Count.CANCELLED) > 20
    # One message after each service, the last of which nobody waits for, and one when nothing was left after the pause.
    assert results.count(Count.MAIL) == results.count(Count.APPLIED)


def test_weights_are_those_of_all_nodes_and_each_unit_takes_its_own() -> None:
    scenario = _scenario(
        {"nodes": 4, "units": 2, "shards": {"count": 2}},
        balancer={"policy": "weighted_round_robin", "weights": [1.0, 3.0, 2.0, 2.0]},
    )
    shares = []
    for unit in (0, 1):
        results = simulate(scenario, unit=unit, grid_ns=np.array([0, 2**61], np.int64))
        sent = results.virtual.node_sent.sum(axis=0)
        shares += (sent / sent.sum()).tolist()
    assert shares == pytest.approx([0.25, 0.75, 0.5, 0.5], abs=1e-3)


def test_a_hedge_goes_to_another_node() -> None:
    # Two nodes, one of which stands still: what waits there is answered by the other, or not at all.
    results = _run(
        {"nodes": 2, "service": {"mean": "100us"}}, rate=500, seconds=2, balancer={"policy": "round_robin"},
        client={"hedge": {"after": "5ms"}}, faults=[{"at": "1s", "for": "900ms", "fault": "pause", "target": "node[0]"}],
    )  # fmt: skip
    assert _p99_ms(results) < 10
    assert results.count(Count.HEDGES) > 100
