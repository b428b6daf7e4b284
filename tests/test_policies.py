"""One contract that every policy keeps, and the law of each."""

from __future__ import annotations

from math import ceil, exp
from typing import get_args

import numpy as np
import pytest
from fleet_driver import MS, Driver, S, five_sigma, shares
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.balancer.fleet import Health, Load
from simulator.balancer.hashing import build_ring
from simulator.balancer.health import is_bad, take_back, take_out
from simulator.balancer.policy import DEFAULTS, POLICIES, settings_of
from simulator.balancer.probes import hot_above, probe_target, probes_due
from simulator.engine.virtual import general
from simulator.engine.virtual.records import Answer
from simulator.scenario.balancing import PolicyName
from simulator.seeds import bits
from simulator.transaction import Reason, Status

law = settings(deadline=None, max_examples=30)  # the first call compiles the kernels
PICKS = 20_000
OUT = int(Health.WITHDRAWN)

BY_KEY = ("ring_hash", "maglev", "bounded_load")
every_policy = pytest.mark.parametrize("policy", POLICIES)


# ---- the contract ----


def test_every_policy_of_a_scenario_is_there_and_no_other() -> None:
    assert set(get_args(PolicyName)) == set(POLICIES)


@every_policy
@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_every_pick_is_a_node_and_the_same_seed_makes_the_same_picks(policy: str, nodes: int) -> None:
    once = Driver(policy, nodes, seed=5).picks(300, send=True)
    assert once.min() >= 0
    assert once.max() < nodes
    assert np.array_equal(once, Driver(policy, nodes, seed=5).picks(300, send=True))


@every_policy
def test_equal_nodes_share_alike(policy: str) -> None:
    nodes, count = 8, 40_000
    driver = Driver(policy, nodes)
    if policy == "affinity":
        picked = np.concatenate([driver.picks(count // nodes, home=home) for home in range(nodes)])
    else:
        picked = driver.picks(count)
    found = shares(picked, nodes)
    if policy in ("ring_hash", "bounded_load"):
        # The shares are those of the arcs: 128 points a node scatter by 1/√128; keys by chance on top.
        assert abs(found - 1 / nodes).max() < 5 / nodes / 128**0.5
    else:
        assert abs(found - 1 / nodes).max() <= five_sigma(1 / nodes, count) + 1e-4


@every_policy
def test_who_is_not_available_is_not_picked_until_it_is_back(policy: str) -> None:
    nodes = 9
    driver = Driver(policy, nodes)
    for node in (0, 3, 8):
        take_out(driver.settings, driver.fleet, 0, node, 0, OUT)
    picked = driver.picks(2_000, home=3)
    assert not {0, 3, 8} & set(picked.tolist())
    assert picked.min() >= 0
    take_back(driver.settings, driver.fleet, 0, 3, 0)
    assert driver.available() == {1, 2, 3, 4, 5, 6, 7}
    seen = set(driver.picks(2_000, send=True, home=3).tolist())
    assert not {0, 8} & seen
    assert 3 in seen


@every_policy
def test_in_a_panic_all_are_picked_again(policy: str) -> None:
    driver = Driver(policy, 4)
    for node in (0, 1, 2):
        take_out(driver.settings, driver.fleet, 0, node, 0, OUT)
    picked = np.concatenate([driver.picks(500, home=home, send=True) for home in range(4)])
    assert set(picked.tolist()) == {0, 1, 2, 3}


@every_policy
def test_with_nobody_available_and_no_panic_there_is_no_node(policy: str) -> None:
    driver = Driver(policy, 2, panic=0.0)
    for node in (0, 1):
        take_out(driver.settings, driver.fleet, 0, node, 0, OUT)
    assert set(driver.picks(20).tolist()) == {-1}


@every_policy
def test_balancers_know_nothing_of_each_other(policy: str) -> None:
    alone, beside = Driver(policy, 5), Driver(policy, 5, balancers=2, infer_idle=1)
    take_out(beside.settings, beside.fleet, 1, 2, 0, OUT)
    if policy == "aperture":
        beside.fleet.ready[0], beside.fleet.place[0] = alone.fleet.ready[0], alone.fleet.place[0]
    expected = alone.picks(200, send=True)
    found = []
    for _ in range(200):
        found.append(int(beside.picks(1, b=0, send=True)[0]))
        beside.picked -= 1
        beside.picks(1, b=1, send=True)
    assert found == expected.tolist()


@law
@given(
    policy=st.sampled_from([*POLICIES]),
    moves=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30),
    seed=st.integers(0, 2**31),
)
def test_available_and_withdrawn_nodes_partition_the_fleet_whatever_happens(
    policy: str, moves: list[tuple[int, bool]], seed: int
) -> None:
    driver = Driver(policy, 6, seed=seed, panic=0.0)
    expected = set(range(6))
    for node, back in moves:
        if back:
            take_back(driver.settings, driver.fleet, 0, node, 0)
            expected.add(node)
        else:
            take_out(driver.settings, driver.fleet, 0, node, 0, OUT)
            expected.discard(node)
        assert driver.available() == expected
        assert sorted(driver.fleet.ready[0].tolist()) == list(range(6))
        assert [int(driver.fleet.ready[0, place]) for place in driver.fleet.place[0]] == list(range(6))
        picked = set(driver.picks(5, home=node).tolist())
        assert picked <= (expected or {-1})


# ---- draws ----


def test_with_replacement_a_node_meets_itself_once_in_n() -> None:
    # The busiest is taken only if both draws are it: 1/N². Without replacement never.
    for nodes in (2, 5):
        for policy, expected in (("p2c", 1 / nodes**2), ("p2c_distinct", 0.0)):
            driver = Driver(policy, nodes)
            driver.fleet.in_flight[0, 0] = 1_000
            found = shares(driver.picks(PICKS), nodes)[0]
            assert abs(found - expected) <= five_sigma(expected, PICKS)


def test_more_choices_leave_less_to_the_busiest() -> None:
    driver = Driver("p2c", 4, choices=3)
    driver.fleet.in_flight[0] = [9, 1, 1, 1]
    assert abs(shares(driver.picks(PICKS), 4)[0] - 1 / 64) <= five_sigma(1 / 64, PICKS)


def test_health_comes_before_load_and_the_tries_are_bounded() -> None:
    driver = Driver("p2c_distinct", 10)
    driver.fleet.in_flight[0] = [1_000] + [0] * 9
    for node in range(5, 10):
        take_out(driver.settings, driver.fleet, 0, node, 0, OUT)
    # Node 0 is available and busy: it wins against each of the five that are out, however idle those are.
    found = shares(driver.picks(PICKS), 10)
    assert found[0] > 0.05
    assert found[5:].max() == 0


def test_jsq_takes_the_least_busy_and_equals_share_alike() -> None:
    driver = Driver("jsq", 6)
    driver.fleet.in_flight[0] = [3, 1, 2, 1, 1, 9]
    found = shares(driver.picks(PICKS), 6)
    assert found[[0, 2, 5]].sum() == 0
    assert abs(found[[1, 3, 4]] - 1 / 3).max() <= five_sigma(1 / 3, PICKS)


@law
@given(load=st.lists(st.integers(0, 9), min_size=2, max_size=9), out=st.integers(0, 8))
def test_a_full_scan_finds_the_least_of_those_available(load: list[int], out: int) -> None:
    driver = Driver("jsq", len(load), panic=0.0)
    driver.fleet.in_flight[0] = load
    take_out(driver.settings, driver.fleet, 0, out % len(load), 0, OUT)
    rest = [x for node, x in enumerate(load) if node != out % len(load)]
    assert {load[node] for node in driver.picks(50)} == {min(rest)}


def test_weights_divide_loads() -> None:
    driver = Driver("jsq", 2, weights=[3.0, 1.0])
    sent = driver.picks(4_000, send=True)
    assert shares(sent, 2)[0] == pytest.approx(3 / 4, abs=1e-3)


# ---- peak EWMA ----


def test_a_peak_shows_at_once_and_decays_by_e_each_tau() -> None:
    driver = Driver("peak_ewma", 2)
    driver.answer(0, now=0, took=5 * MS)
    driver.answer(0, now=0, took=100 * MS)
    assert driver.fleet.views["cost_ns"][0, 0] == 100 * MS
    driver.answer(0, now=10 * S, took=10 * MS)
    expected = 100 * MS * exp(-1) + 10 * MS * (1 - exp(-1))
    assert driver.fleet.views["cost_ns"][0, 0] == pytest.approx(expected)
    driver.picks(50, now=20 * S)  # a look decays, and keeps what has decayed
    assert driver.fleet.views["cost_ns"][0, 0] == pytest.approx(expected * exp(-1))


def test_peak_ewma_multiplies_by_what_is_pending() -> None:
    driver = Driver("peak_ewma", 2)
    driver.answer(0, took=30 * MS)
    driver.answer(1, took=10 * MS)
    driver.fleet.in_flight[0] = [0, 1]  # 30 × 1 against 10 × 2
    assert set(driver.picks(50).tolist()) == {1}
    driver.fleet.in_flight[0] = [0, 3]  # 30 × 1 against 10 × 4
    assert set(driver.picks(50).tolist()) == {0}


def test_a_node_without_history_gets_one_request_and_then_a_penalty() -> None:
    driver = Driver("peak_ewma", 2)
    driver.answer(0, took=10 * MS)
    assert driver.picks(1, send=True).tolist() == [1]
    assert set(driver.picks(20, send=True).tolist()) == {0}
    with_start = Driver("peak_ewma", 2, start_ns=30 * MS)  # Linkerd's
    with_start.answer(0, took=50 * MS)
    assert with_start.picks(2, send=True).tolist() == [1, 0]


# ---- idle list ----


def test_jiq_sends_to_idle_nodes_in_the_order_in_which_they_became_idle_else_anywhere() -> None:
    driver = Driver("jiq", 4)
    assert driver.picks(4, send=True).tolist() == [0, 1, 2, 3]
    driver.end(2)
    driver.end(0)
    assert driver.picks(2, send=True).tolist() == [2, 0]
    assert abs(shares(driver.picks(PICKS), 4) - 1 / 4).max() <= five_sigma(1 / 4, PICKS)


def test_with_several_balancers_an_idle_node_stands_in_one_list_only() -> None:
    driver = Driver("jiq", 4, balancers=2, infer_idle=0)
    assert driver.picks(2, b=0, send=True).tolist() == [0, 2]
    assert driver.picks(2, b=1, send=True).tolist() == [1, 3]
    driver.end(0)  # it does not say that it is idle
    driver.tell(2, b=1, queue=3.0)
    driver.tell(2, b=1, queue=0.0)
    driver.tell(2, b=1, queue=0.0)
    assert driver.fleet.idle.held.tolist() == [0, 1]
    assert driver.picks(1, b=1).tolist() == [2]


# ---- schedules ----


def test_smooth_weighted_round_robin_deals_as_nginx_does() -> None:
    driver = Driver("weighted_round_robin", 3, weights=[5.0, 1.0, 1.0])
    assert driver.picks(14).tolist() == [0, 0, 1, 0, 2, 0, 0] * 2


@law
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_each_cycle_of_turns_is_dealt_exactly_by_weight(weights: list[int]) -> None:
    for policy, bias in (("weighted_round_robin", 0.0), ("round_robin", 0.0)):
        driver = Driver(policy, len(weights), weights=[float(w) for w in weights], bias=bias)
        cycles = 10
        found = np.bincount(driver.picks(cycles * sum(weights)), minlength=len(weights))
        # Smooth: exact after each cycle. By deadline: the random phase and rounding may shift one turn.
        assert abs(found - cycles * np.array(weights)).max() <= (0 if policy == "weighted_round_robin" else 1)


def test_envoy_least_request_weighs_by_the_power_of_what_is_active() -> None:
    # In equilibrium with constant activity a node's share is w / (active + 1)^bias.
    for bias in (0.0, 1.0, 2.0):
        driver = Driver("p2c", 3, weights=[4.0, 2.0, 1.0], bias=bias)
        driver.fleet.in_flight[0] = [3, 1, 0]
        worth = np.array([4, 2, 1]) / np.array([4, 2, 1]) ** bias
        assert shares(driver.picks(7_000), 3) == pytest.approx(worth / worth.sum(), abs=2e-3)


def test_balancers_that_start_together_do_not_take_the_same_node_first() -> None:
    driver = Driver("round_robin", 50, balancers=30, weights=[2.0] + [1.0] * 49)
    first = {int(driver.picks(1, b=b)[0]) for b in range(30)}
    assert len(first) > 10


def test_slow_start_gives_a_node_that_comes_back_its_weight_little_by_little() -> None:
    def share_at(age: int) -> float:
        driver = Driver("round_robin", 2, slow_ns=10 * S, panic=0.0)
        take_out(driver.settings, driver.fleet, 0, 1, 0, OUT)
        take_back(driver.settings, driver.fleet, 0, 1, 0)
        return float(shares(driver.picks(11_000, now=age), 2)[1])

    for age, weight in ((0, 0.1), (S // 2, 0.1), (5 * S, 0.5), (9 * S, 0.9), (10 * S, 1.0)):
        assert share_at(age) == pytest.approx(weight / (1 + weight), abs=1e-3)


# ---- hashing ----


@pytest.mark.parametrize("policy", BY_KEY)
def test_a_key_keeps_its_node(policy: str) -> None:
    driver = Driver(policy, 20)
    keys = np.arange(5_000)
    assert np.array_equal(driver.picks(5_000, keys=keys), driver.picks(5_000, keys=keys))


@pytest.mark.parametrize(("policy", "slack"), [("ring_hash", 1.0), ("maglev", 1.10)])
def test_when_a_node_goes_its_keys_move_and_few_others(policy: str, slack: float) -> None:
    nodes, keys = 50, np.arange(40_000)
    driver = Driver(policy, nodes)
    before = driver.picks(len(keys), keys=keys)
    take_out(driver.settings, driver.fleet, 0, 7, 0, OUT)
    after = driver.picks(len(keys), keys=keys)
    its_own = int((before == 7).sum())
    moved = int((before != after).sum())
    assert its_own <= moved <= its_own + (slack - 1) * len(keys)  # Maglev, §5.3: at most some per cent of the rest
    take_back(driver.settings, driver.fleet, 0, 7, 0)
    assert np.array_equal(driver.picks(len(keys), keys=keys), before)


def test_the_maglev_table_is_even_to_one_per_cent() -> None:
    driver = Driver("maglev", 100)
    driver.picks(1)
    entries = np.bincount(driver.fleet.hashing.table[0], minlength=100)
    assert entries.sum() == 65_537
    assert entries.max() <= 1.01 * entries.min()


def test_maglev_heeds_weights() -> None:
    driver = Driver("maglev", 3, weights=[3.0, 2.0, 1.0])
    driver.picks(1)
    entries = np.bincount(driver.fleet.hashing.table[0], minlength=3) / 65_537
    assert entries == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=1e-4)


@pytest.mark.parametrize(("nodes", "points"), [(1, 1_024), (3, 1_026), (1_000, 2_000), (2_000, 2_000)])
def test_a_ring_has_at_least_its_points_and_each_node_a_whole_number(nodes: int, points: int) -> None:
    point, owner = build_ring(np.ones(nodes), 1_024, 8 << 20)
    assert len(point) == points
    assert (np.diff(point.astype(object)) > 0).all()
    assert set(np.bincount(owner).tolist()) == {points // nodes}


def test_a_ring_is_by_weight_and_bounded() -> None:
    _, owner = build_ring(np.array([1.0, 3.0]), 1_024, 8 << 20)
    assert np.bincount(owner).tolist() == [256, 768]
    point, _ = build_ring(np.array([1.0, 999.0]), 1_024, 500)
    assert len(point) <= 501


@law
@given(
    factor=st.floats(1.01, 3.0),
    nodes=st.integers(1, 12),
    keys=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    policy=st.sampled_from(["ring_hash", "maglev"]),
)
def test_a_bounded_load_never_passes_its_cap(factor: float, nodes: int, keys: list[int], policy: str) -> None:
    # Six hot keys at most: without the bound they would pile up.
    driver = Driver(policy, nodes, load_factor=factor, table_size=251)
    for sent, key in enumerate(keys, 1):
        node = int(driver.picks(1, keys=[key], send=True)[0])
        assert driver.fleet.in_flight[0, node] <= ceil(factor * sent / nodes)


def test_what_overflows_goes_by_jumps_of_its_own_and_not_to_the_neighbour() -> None:
    driver = Driver("bounded_load", 10)
    hot = int(driver.picks(1, keys=[1])[0])
    driver.fleet.in_flight[0, hot] = 1_000
    driver.fleet.total[0] = 1_000
    keys = np.arange(3_000)
    mine = keys[Driver("ring_hash", 10).picks(3_000, keys=keys) == hot]
    found = shares(driver.picks(len(mine), keys=mine), 10)
    assert found[hot] == 0
    rest = np.delete(found, hot)
    assert abs(rest - 1 / 9).max() <= five_sigma(1 / 9, len(mine))
    assert np.array_equal(driver.picks(len(mine), keys=mine), driver.picks(len(mine), keys=mine))


# ---- probes ----


def test_hot_cold_takes_the_cold_reply_of_lowest_latency_else_the_hot_one_with_the_least_in_flight() -> None:
    driver = Driver("prequal", 100, removals=0.0, hot_quantile=0.5)
    for queue in range(10):  # the distribution: 0 … 9, so above 5 is hot
        driver.tell(50 + queue, now=0, queue=float(queue), latency=9 * MS)
    assert hot_above(driver.settings, driver.fleet.probing, 0) == 5.0
    now = 2 * S  # those are too old now
    driver.tell(1, now=now, queue=8.0, latency=1.0 * MS)
    driver.tell(2, now=now, queue=2.0, latency=6.0 * MS)
    driver.tell(3, now=now, queue=1.0, latency=7.0 * MS)
    assert driver.picks(1, now=now).tolist() == [2]
    hot = Driver("prequal", 100, removals=0.0, hot_quantile=0.0)
    hot.tell(9, now=0, queue=1.0, latency=1.0 * MS)
    for node, busy in ((4, 5.0), (1, 8.0), (2, 7.0)):
        hot.tell(node, now=now, queue=busy, latency=busy * MS)
    assert hot.picks(1, now=now).tolist() == [4]


def test_replies_are_few_young_and_one_a_node() -> None:
    driver = Driver("prequal", 1_000, removals=0.0)
    for node in range(40):
        driver.tell(node, now=node * MS, queue=1.0, latency=float(MS))
    pool = driver.fleet.probing
    assert pool.held.tolist() == [16]
    assert pool.pool["node"][0].tolist() == list(range(24, 40))
    driver.tell(30, now=41 * MS, queue=2.0, latency=float(MS))
    assert pool.held.tolist() == [16]
    assert pool.pool["node"][0][-1] == 30
    driver.picks(1, now=41 * MS + S)  # older than a second: gone, all but those that came in the last one
    assert pool.held[0] <= 1


def test_without_two_replies_a_query_goes_anywhere() -> None:
    driver = Driver("prequal", 5)
    driver.tell(3, now=0, queue=0.0, latency=1.0)
    assert abs(shares(driver.picks(PICKS), 5) - 1 / 5).max() <= five_sigma(1 / 5, PICKS)


def test_a_reply_is_used_up_and_counts_what_was_sent_since() -> None:
    # b = max(1, 2 / ((1 − 16/1000)·3 − 0)) = 1: used once.
    driver = Driver("prequal", 1_000, removals=0.0, spare_probes=0.0)
    for node, latency in ((1, 1.0), (2, 2.0), (3, 3.0)):
        driver.tell(node, now=0, queue=0.0, latency=latency)
    assert driver.picks(2, now=0).tolist() == [1, 2]
    small = Driver("prequal", 16, removals=0.0)  # m = n: replies are never used up
    for node in (1, 2):
        small.tell(node, now=0, queue=0.0, latency=float(node))
    small.picks(1, now=0)
    assert small.fleet.probing.pool["queue"][0][:2].tolist() == [1.0, 0.0]


def test_each_query_removes_in_turn_the_oldest_and_the_worst() -> None:
    driver = Driver("prequal", 16)
    for node, latency in ((1, 5.0), (2, 1.0), (3, 9.0), (4, 2.0)):
        driver.tell(node, now=0, queue=0.0, latency=latency)
    driver.picks(1, now=0)
    assert driver.fleet.probing.pool["node"][0][:3].tolist() == [2, 3, 4]
    driver.picks(1, now=0)
    # Both that were used have one more in flight than the others had, so they are hot, and the first of them is the worst.
    assert driver.fleet.probing.pool["node"][0][:2].tolist() == [3, 4]


def test_probes_go_to_different_nodes_each_at_random() -> None:
    driver = Driver("prequal", 10, probes=2.5)
    assert [probes_due(driver.settings, driver.fleet.probing, 0) for _ in range(4)] == [2, 3, 2, 3]
    asked = np.array(
        [
            [probe_target(driver.fleet.ready, 0, np.uint64(bits(driver.key, i)), j, 3, 10) for j in range(3)]
            for i in range(3_000)
        ]
    )
    assert (np.diff(np.sort(asked), axis=1) > 0).all()
    assert abs(shares(asked.ravel(), 10) - 1 / 10).max() <= five_sigma(1 / 10, 3_000)


# ---- aperture, ORCA, C3, reports ----


def test_an_aperture_is_as_wide_as_requests_are_in_flight() -> None:
    driver = Driver("aperture", 100, aperture_ns=1.0)  # hardly smoothed
    assert driver.fleet.width[0] == 1
    for i in range(60):
        driver.picks(1, now=i * 1_000, send=True)
    assert 50 <= driver.fleet.width[0] <= 60
    used = np.flatnonzero(driver.fleet.in_flight[0])
    assert set(used.tolist()) <= set(driver.fleet.ready[0, :60].tolist())
    busy = np.repeat(used, driver.fleet.in_flight[0, used])
    for i, node in enumerate(busy):
        driver.end(int(node), now=(100 + i) * 1_000)
    assert driver.fleet.width[0] <= 10


def test_apertures_of_balancers_differ() -> None:
    driver = Driver("aperture", 200, balancers=2, aperture_ns=15.0 * S)
    assert len(set(driver.fleet.ready[0, :20].tolist()) & set(driver.fleet.ready[1, :20].tolist())) < 12


def test_orca_weighs_by_qps_over_utilization_after_the_blackout_and_until_expiry() -> None:
    driver = Driver("orca", 3)
    weight = driver.fleet.views["weight"][0]
    for now in range(12):
        driver.report(0, now=now * S, utilization=0.5, served=100.0, errors=0.0)
        driver.report(1, now=now * S, utilization=0.5, served=100.0, errors=50.0)
        if now == 9:
            driver.sweep(now * S)
            assert weight.tolist() == [1.0, 1.0, 1.0]
    driver.sweep(11 * S)
    assert weight[0] / weight[1] == pytest.approx(2.0)  # 100/0.5 against 100/(0.5 + 0.5)
    assert weight[2] == pytest.approx(weight[:2].mean())  # it never reported
    assert shares(driver.picks(9_000, now=11 * S), 3) == pytest.approx(weight / weight.sum(), abs=1e-3)
    driver.sweep(11 * S + 181 * S)
    assert weight.tolist() == [1.0, 1.0, 1.0]


def test_c3_punishes_a_queue_by_its_cube() -> None:
    driver = Driver("c3", 2, choices=8)
    for node, queue in ((0, 2.0), (1, 0.0)):
        driver.answer(node, took=4 * MS)
        driver.report(node, queue=queue, service=float(2 * MS))
    assert set(driver.picks(50).tolist()) <= {0, 1}
    assert shares(driver.picks(2_000), 2)[1] > 0.99
    # Ψ₀ = 4 − 2 + 3³·2 = 56 ms, Ψ₁ = 4 − 2 + 2 = 4 ms; three in flight at node 1 make it 4³·2 + 2 = 130.
    driver.fleet.in_flight[0, 1] = 3
    assert shares(driver.picks(2_000), 2)[0] > 0.99


def test_a_reported_load_is_believed_however_old() -> None:
    driver = Driver("jsq", 3, load=2)
    for node, queue in ((0, 3.0), (1, 1.0), (2, 2.0)):
        driver.report(node, now=0, queue=queue)
    assert set(driver.picks(100, now=100 * S, send=True).tolist()) == {1}  # the herd


# ---- circuit limits ----


def test_beyond_a_circuit_limit_nobody_is_picked() -> None:
    driver = Driver("p2c", 3, circuit_requests=5)
    assert (driver.picks(9, send=True) >= 0).tolist() == [True] * 5 + [False] * 4
    driver.end(int(np.argmax(driver.fleet.in_flight[0])))
    assert driver.picks(1)[0] >= 0
    one = Driver("affinity", 3, circuit_node=2)
    assert one.picks(4, send=True, home=1).tolist() == [1, 1, -1, -1]


# ---- cost ----


def test_the_settings_of_every_policy_have_the_same_types() -> None:
    # Else a kernel would be compiled once for each policy.
    kinds = [type(value) for value in DEFAULTS]
    for policy in POLICIES:
        assert [type(value) for value in settings_of(policy, tau_ns=5, choices=3.0)] == kinds


def test_weights_that_change_often_starve_no_node() -> None:
    nodes, updates, between = 100, 300, 7
    driver = Driver("orca", nodes, blackout_ns=0)
    used = np.zeros(nodes)
    for second in range(1, updates):
        for node in range(nodes):
            driver.report(node, now=second * S, utilization=0.5, served=100.0)
        driver.sweep((second + 1) * S)
        used += np.bincount(driver.picks(between, now=(second + 1) * S), minlength=nodes)
    assert used.min() >= updates * between // nodes - 2
    assert used.max() <= updates * between // nodes + 2


def test_nodes_that_come_and_go_starve_nobody() -> None:
    driver = Driver("round_robin", 50, weights=[2.0] + [1.0] * 49, panic=0.0)
    used = np.zeros(50)
    for _ in range(400):
        take_out(driver.settings, driver.fleet, 0, 0, 0, OUT)
        used += np.bincount(driver.picks(3), minlength=50)
        take_back(driver.settings, driver.fleet, 0, 0, 0)
    assert used[1:].min() >= 20


@pytest.mark.parametrize(("policy", "load"), [("c3", Load.C3), ("p2c", Load.PEAK_EWMA), ("p2c", Load.REPORTED)])
def test_unequal_weights_divide_whatever_load_means(policy: str, load: Load) -> None:
    driver = Driver(policy, 2, weights=[1.0, 1.1], load=int(load), choices=10)
    for _ in range(20):
        driver.answer(1, took=100 * MS)
        driver.answer(0, took=1 * MS)
    driver.report(0, queue=0.0, service=float(MS))
    driver.report(1, queue=50.0, service=float(MS))
    assert shares(driver.picks(2_000), 2)[1] < 0.01  # only who was drawn ten times is


def test_round_robin_of_several_balancers_begins_at_different_nodes() -> None:
    driver = Driver("round_robin", 50, balancers=30)
    first = [int(driver.picks(1, b=b)[0]) for b in range(30)]
    assert len(set(first)) > 15
    assert first == [int(Driver("round_robin", 50, balancers=30).picks(1, b=b)[0]) for b in range(30)]


@pytest.mark.parametrize("policy", ["prequal", "jiq"])
def test_a_report_to_everybody_is_no_message_to_one(policy: str) -> None:
    driver = Driver(policy, 4, balancers=2, infer_idle=0)
    before = (driver.fleet.probing.held.tolist(), driver.fleet.idle.held.tolist())
    driver.picks(2, b=0, send=True)
    held = (driver.fleet.probing.held.tolist(), driver.fleet.idle.held.tolist())
    for node in range(4):
        driver.report(node, b=0, queue=0.0, service=1.0)
    assert (driver.fleet.probing.held.tolist(), driver.fleet.idle.held.tolist()) == held
    assert before[0] == held[0]


def test_what_speaks_against_a_node_is_the_same_on_both_clocks() -> None:
    bad = {
        (Status.REJECTED, Reason.OVERFLOW), (Status.REJECTED, Reason.LIMIT), (Status.REJECTED, Reason.NODE_DOWN),
        (Status.UNKNOWN, Reason.TIMEOUT), (Status.FAILED, Reason.POISON),
    }  # fmt: skip
    good = {(Status.OK, Reason.NONE), (Status.REJECTED, Reason.FUNDS), (Status.REJECTED, Reason.STATE)}
    for status, reason in bad | good:
        assert bool(is_bad(int(status), int(reason))) is ((status, reason) in bad)
    for answer in (Answer.FULL, Answer.LIMIT, Answer.DOWN, Answer.RESET, Answer.BROKEN, Answer.LATE):
        assert general.BAD >> int(answer) & 1
    assert not general.BAD & 1
