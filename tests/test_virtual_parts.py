"""The parts of the virtual clock by themselves: calendar, distributions, budgets; and what whole simulations must show."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.balancer.budget import RETRY, open_budgets, withdraw
from simulator.balancer.fleet import Health
from simulator.engine.virtual import calendar as cal
from simulator.engine.virtual.records import ATTEMPT
from simulator.engine.virtual.service import compile_times, draw_all, read_histogram
from simulator.engine.virtual.simulation import simulate
from simulator.engine.virtual.stations import Queue, deterministic, exponential, gamma, lognormal, observe, pareto
from simulator.engine.virtual.tally import (
    LEVELS,
    NODE_COUNTS,
    Count,
    coarse_index,
    coarse_middles_ns,
    enter_level,
    leave_level,
)
from simulator.errors import ScenarioError
from simulator.measure.histogram import Histogram
from simulator.report.export import encode
from simulator.scenario.client import Client
from simulator.scenario.model import Scenario
from simulator.scenario.service import ServiceTime
from simulator.transaction import TRANSACTION, Status
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.engine.virtual.simulation import Results

# ---- calendar ----

GAP = st.sampled_from([0, 1, 3, 1_000, 70_000, 10**7, 10**12])


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "add", "take", "take", "remove"]), GAP, st.integers(0, 99)), max_size=300
    ),
    rate=st.sampled_from([1.0, 1e6, 1e10]),
)
def test_the_calendar_hands_out_what_a_heap_does(steps: list[tuple[str, int, int]], rate: float) -> None:
    attempts = np.zeros(512, ATTEMPT)
    calendar = cal.open_calendar(512, rate)
    heap: list[tuple[int, int, int]] = []
    free = list(range(512))
    now = seq = 0
    for what, gap, which in steps:
        if what == "add":
            a = free.pop()
            attempts[a]["time_ns"], attempts[a]["seq"] = now + gap, seq
            heapq.heappush(heap, (now + gap, seq, a))
            cal.add(calendar, attempts, a)
            seq += 1
        elif heap and what == "remove":
            entry = heap.pop(which % len(heap))
            heapq.heapify(heap)
            cal.remove(calendar, attempts, entry[2])
            free.append(entry[2])
        elif heap:
            assert calendar.at[cal.IN_NEAR] > 0 or cal.open_next(calendar, attempts)
            now, _, a = heapq.heappop(heap)
            assert calendar.near[0]["row"] == a
            cal.heap_pop(calendar.near, calendar.at[cal.IN_NEAR])
            calendar.at[cal.IN_NEAR] -= 1
            free.append(a)
    assert calendar.at[cal.IN_NEAR] + calendar.at[cal.IN_WHEEL] + calendar.at[cal.IN_FAR] == len(heap)


@pytest.mark.parametrize("start_rate", [1e3, 1e11])
def test_the_calendar_finds_its_width_and_stays_in_order(start_rate: float) -> None:
    rng = np.random.default_rng(1)
    attempts = np.zeros(1_000, ATTEMPT)
    calendar = cal.open_calendar(1_000, start_rate)
    first = int(calendar.at[cal.SHIFT])
    heap = [(int(t), i, i) for i, t in enumerate(rng.exponential(1e6, 1_000))]
    for t, seq, a in heap:
        attempts[a]["time_ns"], attempts[a]["seq"] = t, seq
        cal.add(calendar, attempts, a)
    heapq.heapify(heap)
    for seq in range(1_000, 20_000):
        assert calendar.at[cal.IN_NEAR] > 0 or cal.open_next(calendar, attempts)
        now, _, a = heapq.heappop(heap)
        assert int(calendar.near[0]["row"]) == a
        cal.heap_pop(calendar.near, calendar.at[cal.IN_NEAR])
        calendar.at[cal.IN_NEAR] -= 1
        due = now + int(rng.exponential(1e6))
        attempts[a]["time_ns"], attempts[a]["seq"] = due, seq
        cal.add(calendar, attempts, a)
        heapq.heappush(heap, (due, seq, a))
    assert int(calendar.at[cal.SHIFT]) != first


# ---- distributions ----


def _draw(service: ServiceTime, count: int = 200_000) -> Any:  # noqa: ANN401  an array
    times, tables = compile_times([service])
    out = np.zeros(count, np.int64)
    draw_all(times, 0, tables, np.uint64(99), np.arange(len(out)), out)
    return out


@pytest.mark.parametrize(
    ("service", "mean", "cv"),
    [
        (exponential(1e-3), 1e6, 1.0),
        (deterministic(1e-3), 1e6, 0.0),
        (gamma(1e-3, 0.25), 1e6, 0.5),
        (gamma(1e-3, 4.0), 1e6, 2.0),
        (lognormal(1e-3, 0.5), 1e6, 0.5**0.5),
        (pareto(1e-3, 4.5), 1e6, 1.0 / (4.5 * 2.5) ** 0.5),
    ],
    ids=["exponential", "deterministic", "erlang", "gamma", "lognormal", "pareto"],
)
def test_a_distribution_has_the_mean_and_scatter_it_says(service: ServiceTime, mean: float, cv: float) -> None:
    drawn = _draw(service)
    error = 5.0 * max(cv, 0.01) / len(drawn) ** 0.5
    assert drawn.mean() == pytest.approx(mean, rel=error)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, abs=0.03)
    assert service.cv == pytest.approx(cv)


def test_exponential_draws_follow_their_law_at_every_quantile() -> None:
    drawn = np.sort(_draw(exponential(1e-3)))
    uniform = -np.expm1(-drawn / 1e6)
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    # Kolmogorov and Smirnov: beyond 1.95 / √n with probability 0.001.
    assert np.abs(uniform - steps).max() < 1.95 / len(drawn) ** 0.5


def test_an_empirical_distribution_is_that_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("value,count\n1000,3\n5000,1\n")
    drawn = _draw(ServiceTime.model_validate({"distribution": "empirical", "file": str(path)}))
    assert set(np.unique(drawn)) == {1000, 5000}
    assert (drawn == 1000).mean() == pytest.approx(0.75, abs=0.01)
    stretched = _draw(ServiceTime.model_validate({"distribution": "empirical", "file": str(path), "mean": "4us"}))
    assert stretched.mean() == pytest.approx(4_000, rel=0.01)


def test_the_latencies_of_a_run_can_be_simulated_again(tmp_path: Path) -> None:
    found = np.random.default_rng(1).lognormal(13, 0.5, 20_000).astype(np.int64)
    path = tmp_path / "latency.hlog"
    lines = [
        "#[Histogram log format version 1.3]",
        '"StartTimestamp","…"',
    ]
    lines += [f"Tag={tag},0.000,1.000,1.0,{encode(Histogram.of(values))}" for tag, values in
              (("response_time", found), ("schedule_lag", found * 0))]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    drawn = _draw(ServiceTime.model_validate({"distribution": "empirical", "file": str(path)}))
    for percent in (1, 50, 99):
        assert np.percentile(drawn, percent) == pytest.approx(np.percentile(found, percent), rel=0.03)


@pytest.mark.parametrize(
    ("text", "message"),
    [("value,count\n", "has nothing in it"), ("a,b\n1,2\n", "its first line"), ("value,count\nx,2\n", "no histogram"),
     ("value,count\n-1,2\n", "0 ns to an hour")],
)  # fmt: skip
def test_a_file_that_is_no_histogram_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        read_histogram(path)


def test_a_nodes_histogram_is_within_three_percent() -> None:
    middles = coarse_middles_ns()
    values = np.unique(np.geomspace(1, 4e12, 5_000).astype(np.int64))
    for value in values.tolist():
        index = int(coarse_index(value))
        assert 0 <= index < NODE_COUNTS
        assert middles[index] == pytest.approx(value, rel=1 / 32)


# ---- budgets ----


def test_a_budget_keeps_a_reserve_and_what_was_earned_lately() -> None:
    client = Client.model_validate({"retries": {"budget": {"ratio": 0.0, "min_per_s": 2.0, "ttl": "1s"}}})
    budgets = open_budgets(client)
    assert [withdraw(budgets, RETRY, 0, 0, 0) for _ in range(3)] == [True, True, False]
    assert not withdraw(budgets, RETRY, 900_000_000, 0, 0)
    assert withdraw(budgets, RETRY, 1_000_000_000, 0, 0)  # what was taken at the start is forgotten after the ttl


# ---- whole simulations ----


def _scenario(**parts: Any) -> Scenario:  # noqa: ANN401  plain data
    data = {"name": "x", "clock": "virtual", "duration": "2s", "load": {"rate": "5000/s"}, **parts}
    return Scenario.from_data(data)


FULL = {
    "platform": {
        "nodes": 10, "service": {"mean": "1500us"}, "network": {"client": "100us", "shard": "50us"},
        "shards": {"count": 16, "commit": {"base": "500us", "per_record": "10us"}},
        "dependency": {"share": 0.2, "latency": {"mean": "5ms"}, "limit": 50},
    },
    "client": {"timeout": "20ms", "deadline": "80ms", "retries": {"max": 2, "budget": {}}, "hedge": {"after": "15ms"}},
    "faults": [
        {"at": "500ms", "fault": "slow", "target": "node[1]", "for": "500ms"},
        {"at": "1s", "fault": "kill", "target": "node[2]", "for": "300ms"},
    ],
}  # fmt: skip


def test_customers_are_conserved_and_littles_law_holds_in_a_run_with_everything() -> None:
    results = simulate(_scenario(**FULL))
    assert results.unbalanced() == []
    for row in results.little():
        assert row.left > 0
        assert row.mean_number == pytest.approx(row.rate_per_s * row.mean_s, rel=1e-9)
    tallies = results.tallies()
    assert int(tallies.offered.sum()) == int(tallies.answered.sum()) == results.count(Count.OFFERED)
    assert results.count(Count.RETRIES) > 0
    assert results.count(Count.HEDGES) > 0
    assert results.count(Count.RESET) > 0
    assert results.count(Count.ACKNOWLEDGED_NOT_APPLIED) == 0
    assert results.count(Count.APPLIED) == results.count(Count.ACKNOWLEDGED) + results.count(Count.UNKNOWN_APPLIED)


def test_a_seed_gives_one_result_and_another_seed_another() -> None:
    one, same, other = (simulate(_scenario(**FULL, seed=seed)) for seed in (1, 1, 2))
    assert (one.virtual.counts == same.virtual.counts).all()
    assert (one.virtual.digests == same.virtual.digests).all()
    assert (one.virtual.digests != other.virtual.digests).any()


def test_units_share_the_payers_and_nothing_else() -> None:
    parts = {"platform": {"units": 2, "nodes": 4, "service": {"mean": "300us"}, "shards": {"count": 8}}}
    units = [simulate(_scenario(**parts), unit=unit) for unit in (0, 1)]
    alone = simulate(_scenario())
    assert sum(unit.count(Count.OFFERED) for unit in units) == alone.count(Count.OFFERED)
    assert min(unit.count(Count.OFFERED) for unit in units) > 4_000


def test_a_source_without_payees_is_otherwise_the_same() -> None:
    scenario = _scenario(load={"rate": "50000/s", "mix": {"payment": 90, "refund": 5, "authorize": 5}})
    whole, lean = np.zeros(40_000, TRANSACTION), np.zeros(40_000, TRANSACTION)
    assert build_source(scenario).fill(whole) == build_source(scenario, payees=False).fill(lean)
    for name in TRANSACTION.names or ():
        if name != "payee":
            assert (whole[name] == lean[name]).all(), name
    assert (lean["payee"] != whole["payee"]).any()


def _goodput_after_the_trigger(budget: dict[str, Any] | None) -> tuple[float, float]:
    """The share of payments that are ok before and long after a fault that lasts two seconds."""
    retries: dict[str, Any] = {"max": 3, "backoff": "20ms", "on": ["timeout"], "jitter": "none"}
    scenario = _scenario(
        duration="14s",
        load={"rate": "600/s"},
        platform={"nodes": 10, "service": {"mean": "10ms"}, "shards": {"count": 1}, "queue": 100_000},
        client={"timeout": "200ms", "retries": retries if budget is None else {**retries, "budget": budget}},
        faults=[{"at": "3s", "for": "2s", "fault": "slow", "target": f"node[{n}]", "factor": 10.0} for n in range(10)],
    )
    results = simulate(scenario, grid_ns=np.arange(0, 31, dtype=np.int64) * 10**9)
    tallies = results.tallies()
    good = tallies.answered[:, Status.OK] / np.maximum(tallies.offered, 1)
    return float(good[1:3].mean()), float(good[10:13].mean())


def test_a_collapse_outlives_its_trigger_and_a_retry_budget_cures_it() -> None:
    before, after = _goodput_after_the_trigger(None)
    assert before > 0.99
    assert after < 0.3, "retries of what nobody waits for any more keep the platform busy"
    before, after = _goodput_after_the_trigger({"ratio": 0.1, "min_per_s": 5.0})
    assert before > 0.99
    assert after > 0.95


BUSY = {"nodes": 40, "service": {"mean": "1ms"}, "network": {"client": "50us"}, "shards": {"count": 1}}


def _mean_ms(**balancer: Any) -> tuple[float, Results]:  # noqa: ANN401  plain data
    results = simulate(
        _scenario(
            duration="3s", load={"rate": "30000/s", "mix": {"payment": 1}}, platform=BUSY, balancer=balancer,
            client={"timeout": "5s"},
        )
    )  # fmt: skip
    assert results.unbalanced() == []
    return (results.measured.response.total().mean_ns or 0.0) / 1e6, results


def test_reports_arrive_and_stale_ones_make_a_herd() -> None:
    fresh, results = _mean_ms(policy="jsq", load="reported", report={"every": "1ms", "delay": "0s"})
    assert results.count(Count.REPORTS) == pytest.approx(40 * 3_000, rel=0.05)
    stale, results = _mean_ms(policy="jsq", load="reported", report={"every": "100ms"}, balancers=4)
    assert 40 * 28 <= results.count(Count.REPORTS) < 40 * 100  # some more while the herd is served
    blind, _ = _mean_ms(policy="random")
    assert fresh < blind < stale


def test_probes_and_idle_messages_take_their_way_and_are_worth_it() -> None:
    blind, _ = _mean_ms(policy="random")
    probed, results = _mean_ms(policy="prequal", balancers=4)
    assert results.count(Count.MAIL) == pytest.approx(6 * results.count(Count.OFFERED), rel=0.01)  # 3 there, 3 back
    told, results = _mean_ms(policy="jiq", balancers=4)
    assert 0 < results.count(Count.MAIL) < results.count(Count.OFFERED)
    assert max(probed, told) < 0.8 * blind


def test_a_node_that_fails_is_ejected_and_comes_back() -> None:
    results = simulate(
        _scenario(
            duration="4s", platform={**BUSY, "nodes": 8, "restart": "1s"},
            balancer={"policy": "round_robin", "outlier_ejection": {"interval": "100ms", "base": "500ms", "share": 0.2}},
            faults=[{"at": "1s", "fault": "kill", "target": "node[3]"}],
        )
    )  # fmt: skip
    events = results.fleet.events[: int(results.fleet.event_count[0])]
    assert set(events["node"].tolist()) == {3}
    assert set(events["what"].tolist()) >= {Health.EJECTED_IN_A_ROW, Health.READMITTED, Health.FIRST_SENT}
    first = int(events["time_ns"][0])
    assert 10**9 < first < 1_050_000_000
    sent = results.virtual.node_sent[:, 3]
    assert sent[12:14].sum() == 0  # while it was out
    assert sent[25:35].sum() > 0


@pytest.mark.parametrize(
    ("queue", "wait_s"),
    [
        (Queue(800.0, exponential(1e-3)), 4e-3),
        (Queue(8_000.0, exponential(1e-3), servers=10), 2.0459e-3 / 10),
        (Queue(800.0, deterministic(1e-3)), 2e-3),
        (Queue(400.0, exponential(1e-3), then=exponential(1e-3)), 2e-3 / 3),
    ],
    ids=["M/M/1", "M/M/10", "M/D/1", "tandem"],
)
def test_queues_alone_are_near_their_theory(queue: Queue, wait_s: float) -> None:
    # A look, with 15 %: the verdict with confidence intervals is for `sim verify`.
    observed = observe(queue, customers=100_000, warm_up=10_000, seed=5)
    assert observed.wait_s.mean() == pytest.approx(wait_s, rel=0.15)
    assert observed.blocked == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.sampled_from([0, LEVELS - 3]))
def test_the_least_load_is_known_after_each_step_of_a_node(steps: list[tuple[int, bool]], start: int) -> None:
    loads, levels = [start] * 4, np.zeros(LEVELS + 1, np.int64)
    levels[start], levels[LEVELS] = 4, start
    for node, up in steps:
        if up:
            enter_level(levels, loads[node])
            loads[node] += 1
        elif loads[node]:
            leave_level(levels, loads[node])
            loads[node] -= 1
        capped = [min(load, LEVELS - 1) for load in loads]
        assert levels[LEVELS] == min(capped)
        assert levels[:LEVELS].tolist() == np.bincount(capped, minlength=LEVELS).tolist()
