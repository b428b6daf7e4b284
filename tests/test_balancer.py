from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.balancer.behaviour import spread
from simulator.balancer.choose import choose
from simulator.balancer.policy import open_fleet, settings_of
from simulator.kernel import kernel
from simulator.seeds import Stream, stream_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernel

PICKS = 40_000
fleets = st.lists(st.integers(0, 20), min_size=1, max_size=8)


@kernel
def _pick_many(settings: Settings, fleet: Fleet, key: np.uint64, home: int, first: int, out: NDArray[Any]) -> None:
    for i in range(out.shape[0]):
        out[i] = choose(settings, fleet, 0, 0, key, first + i, np.uint64(0), home)


def picks(
    policy: str, in_flight: list[int], *, seed: int = 1, home: int = 0, count: int = PICKS, first: int = 0
) -> NDArray[Any]:
    """The nodes that a policy picks one after the other while the load stays as it is."""
    out = np.zeros(count, np.int64)
    settings_ = settings_of(policy)
    fleet = open_fleet(settings_, len(in_flight), in_flight=np.array([in_flight], np.int64))
    _pick_many(settings_, fleet, stream_key(seed, Stream.BALANCER), home, first, out)
    return out


def share(picked: NDArray[Any], node: int) -> float:
    return float(np.mean(picked == node))


def five_sigma(probability: float) -> float:
    """How far a share of `PICKS` picks may lie from its probability: by chance beyond once in 1.7 million."""
    return 5 * float(np.sqrt(probability * (1 - probability) / PICKS))


@pytest.mark.parametrize("nodes", [1, 2, 3, 16])
def test_round_robin_deals_in_turn(nodes: int) -> None:
    picked = picks("round_robin", [9, *[0] * (nodes - 1)], count=40).tolist()
    assert picked == [(picked[0] + i) % nodes for i in range(40)]  # from a random node on


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_an_idle_fleet_is_loaded_evenly_within_five_sigma(policy: str, nodes: int) -> None:
    picked = picks(policy, [0] * nodes)
    for node in range(nodes):
        assert abs(share(picked, node) - 1 / nodes) <= five_sigma(1 / nodes)


@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_one_pick_says_nothing_about_the_next(policy: str) -> None:
    picked = picks(policy, [0] * 4)
    pairs = picked[:-1] * 4 + picked[1:]
    for pair in range(16):
        assert abs(share(pairs, pair) - 1 / 16) <= five_sigma(1 / 16)


@pytest.mark.parametrize("nodes", [2, 3, 5, 16])
def test_p2c_sends_to_the_busiest_only_when_it_drew_it_twice(nodes: int) -> None:
    # With replacement: both draws are the busiest with probability 1/N². Without, it would never be picked at all.
    picked = picks("p2c", [10**6, *[0] * (nodes - 1)])
    assert abs(share(picked, 0) - 1 / nodes**2) <= five_sigma(1 / nodes**2)
    assert share(picked, 0) > 0


def test_p2c_sends_each_node_what_the_law_of_two_draws_says() -> None:
    in_flight = [5, 3, 3, 0]
    picked = picks("p2c", in_flight)
    for node, load in enumerate(in_flight):
        # Picked if both draws are it, or it beats the other; on a tie the first draw is taken.
        beaten = sum(other > load for other in in_flight)
        tied = in_flight.count(load) - 1
        expected = (1 + 2 * beaten + tied) / len(in_flight) ** 2
        assert abs(share(picked, node) - expected) <= five_sigma(expected)


def test_p2c_sends_less_to_the_busier_of_two() -> None:
    picked = picks("p2c", [1, 0])
    assert abs(share(picked, 0) - 1 / 4) <= five_sigma(1 / 4)


@law
@given(in_flight=fleets, seed=st.integers(0, 2**32), busier=st.integers(0, 7))
def test_p2c_never_takes_the_busier_of_two_different_draws(in_flight: list[int], seed: int, busier: int) -> None:
    # The draws do not depend on the load. On an idle fleet the first is taken; with one node idle and all others busy, that
    # node whenever it is drawn: so every pick is one of two draws, and the other is never the less busy one.
    nodes = len(in_flight)
    first = picks("p2c", [0] * nodes, seed=seed, count=200)
    drawn = np.array(
        [picks("p2c", [int(n != only) for n in range(nodes)], seed=seed, count=200) == only for only in range(nodes)]
    )
    assert (drawn.sum(axis=0) <= 2).all()
    load = np.array(in_flight)
    picked = picks("p2c", in_flight, seed=seed, count=200)
    for i, node in enumerate(picked):
        draws = np.flatnonzero(drawn[:, i])
        assert first[i] in draws
        assert node in draws
        assert load[node] == load[draws].min()
        if load[first[i]] == load[node]:
            assert node == first[i]


@law
@given(in_flight=fleets, home=st.integers(0, 7))
def test_affinity_goes_home_however_busy_home_is(in_flight: list[int], home: int) -> None:
    home %= len(in_flight)
    in_flight[home] += 1_000
    assert set(picks("affinity", in_flight, home=home, count=20).tolist()) == {home}


@law
@given(
    policy=st.sampled_from(["round_robin", "random", "p2c", "affinity"]), in_flight=fleets, seed=st.integers(0, 2**63)
)
def test_the_same_seed_makes_the_same_picks_and_each_is_a_node(policy: str, in_flight: list[int], seed: int) -> None:
    once = picks(policy, in_flight, seed=seed, count=100)
    assert np.array_equal(once, picks(policy, in_flight, seed=seed, count=100))
    assert once.min() >= 0
    assert once.max() < len(in_flight)


@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_another_seed_makes_other_picks(policy: str) -> None:
    once, again = (picks(policy, [0] * 8, seed=seed) for seed in (1, 2))
    assert abs(float(np.mean(once == again)) - 1 / 8) <= five_sigma(1 / 8)


def test_a_pick_depends_on_its_index_alone_and_not_on_those_before() -> None:
    later = picks("p2c", [0] * 5, count=50, first=50)
    assert np.array_equal(picks("p2c", [0] * 5, count=100)[50:], later)


# How evenly it turned out


@pytest.mark.parametrize(
    ("load", "imbalance", "cv", "jain"),
    [
        ([5], 1.0, 0.0, 1.0),
        ([7, 7, 7], 1.0, 0.0, 1.0),
        ([12, 0, 0, 0], 4.0, 3**0.5, 1 / 4),
        ([3, 1], 1.5, 0.5, 0.8),
        ([6, 3, 0], 2.0, (2 / 3) ** 0.5, 0.6),
    ],
)
def test_spread_has_its_known_values(load: list[int], imbalance: float, cv: float, jain: float) -> None:
    found = spread(np.array(load, np.int64))
    assert found is not None
    assert found.imbalance_max_over_mean == pytest.approx(imbalance)
    assert found.cv == pytest.approx(cv)
    assert found.jain == pytest.approx(jain)
    assert found.share.tolist() == pytest.approx([x / sum(load) for x in load])


def test_the_noise_floor_is_what_chance_alone_shows() -> None:
    found = spread(np.array([40, 60], np.int64))
    assert found is not None
    assert found.noise_floor == pytest.approx(0.1)


def test_no_load_has_no_spread() -> None:
    assert spread(np.zeros(3, np.int64)) is None


@law
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=16).filter(any))
def test_evenness_lies_between_all_on_one_and_even(load: list[int]) -> None:
    found = spread(np.array(load, np.int64))
    assert found is not None
    nodes = len(load)
    assert 1 / nodes <= found.jain * (1 + 1e-12)
    assert found.jain <= 1 + 1e-12
    assert found.imbalance_max_over_mean * (1 + 1e-12) >= 1
    assert found.imbalance_max_over_mean <= nodes * (1 + 1e-12)
    # The same statement in two ways: 1/J = 1 + cv².
    assert 1 / found.jain == pytest.approx(1 + found.cv**2)
    assert found.share.sum() == pytest.approx(1)
