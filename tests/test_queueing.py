from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.verify import chains, queueing
from simulator.verify.interval import each_of, of_replications

if TYPE_CHECKING:
    from collections.abc import Callable

RHO = st.floats(0.05, 0.95)

# What the literature prints; see the sources in simulator/verify/queueing.py.
PRINTED: dict[str, tuple[Callable[[], float], float]] = {
    "M/M/1 .9 Wq": (lambda: queueing.MMc(0.9, 1, 1).mean_wait, 9.0),
    "M/M/1 .9 T": (lambda: queueing.MMc(0.9, 1, 1).mean_time, 10.0),
    "M/M/1 .9 p50 T": (lambda: queueing.MMc(0.9, 1, 1).time_percentile(50), 6.93147),
    "M/M/1 .9 p99 T": (lambda: queueing.MMc(0.9, 1, 1).time_percentile(99), 46.05170),
    "M/M/2 .8 Wq": (lambda: queueing.MMc(1.6, 1, 2).mean_wait, 1.777778),
    "M/M/10 .9 Wq": (lambda: queueing.MMc(9, 1, 10).mean_wait, 0.668731524),
    "M/M/10 .9 p99 Wq": (lambda: queueing.MMc(9, 1, 10).wait_percentile(99), 4.202798),
    "M/M/10 .9 p99 T": (lambda: queueing.MMc(9, 1, 10).time_percentile(99), 6.249877),
    "Erlang B 9, 10": (lambda: queueing.erlang_b(9, 10), 0.1679632263),
    "M/M/10/20 12 block": (lambda: queueing.MMcK(12, 1, 10, 20).blocked, 0.179665916),
    "M/M/10/20 12 Wq": (lambda: queueing.MMcK(12, 1, 10, 20).mean_wait, 0.635969),
    "M/D/1 .9 Wq": (lambda: queueing.pollaczek_khinchine(0.9, 1, 0), 4.5),
    "M/G/1 .8 C² 4 Wq": (lambda: queueing.pollaczek_khinchine(0.8, 1, 4), 10.0),
    "priority first": (lambda: queueing.priority_waits([0.3, 0.5], 1)[0], 1.142857),
    "priority second": (lambda: queueing.priority_waits([0.3, 0.5], 1)[1], 5.714286),
    "tandem": (lambda: queueing.MMc(0.5, 1, 1).mean_time + queueing.MMc(0.5, 0.8, 1).mean_time, 5.333333),
    "P2C .7": (lambda: queueing.least_of_d_time(0.7, 2), 1.614454),
    "P2C .9": (lambda: queueing.least_of_d_time(0.9, 2), 2.614057),
    "P2C .95": (lambda: queueing.least_of_d_time(0.95, 2), 3.383046),
    "P2C .99": (lambda: queueing.least_of_d_time(0.99, 2), 5.431997),
    "fluid backlog": (lambda: queueing.Fluid(1.5, 0.8, 1, 60).backlog, 30.0),
    "fluid delay": (lambda: queueing.Fluid(1.5, 0.8, 1, 60).delay, 30.0),
    "fluid drain": (lambda: queueing.Fluid(1.5, 0.8, 1, 60).drain, 150.0),
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_formula_gives_what_is_printed(name: str) -> None:
    formula, expected = PRINTED[name]
    assert formula() == pytest.approx(expected, rel=2e-6)


@given(RHO)
def test_one_server_is_the_simplest_case_of_many(rho: float) -> None:
    one = queueing.MMc(rho, 1, 1)
    assert one.mean_wait == pytest.approx(rho / (1 - rho))
    assert one.mean_wait == pytest.approx(queueing.pollaczek_khinchine(rho, 1, 1))
    assert one.mean_wait == pytest.approx(queueing.priority_waits([rho], 1)[0])
    sigma = queueing.erlang_arrivals_sigma(1, rho, 1)
    assert queueing.renewal_arrivals_wait(sigma, 1) == pytest.approx(one.mean_wait, rel=1e-6)


@given(RHO, st.integers(1, 20))
def test_much_room_is_no_bound_and_no_room_is_a_loss_system(rho: float, servers: int) -> None:
    arrival = rho * servers
    assert queueing.MMcK(arrival, 1, servers, servers).blocked == pytest.approx(queueing.erlang_b(arrival, servers))
    roomy = queueing.MMcK(arrival, 1, servers, servers + 2_000)
    assert roomy.mean_wait == pytest.approx(queueing.MMc(arrival, 1, servers).mean_wait, rel=1e-6)


@given(RHO)
def test_many_phases_are_constant_gaps(rho: float) -> None:
    constant = queueing.constant_arrivals_sigma(1 / rho, 1)
    assert queueing.erlang_arrivals_sigma(20_000, 20_000 * rho, 1) == pytest.approx(constant, abs=2e-3)


@given(RHO)
def test_endless_patience_is_none_and_no_patience_is_a_loss_system(rho: float) -> None:
    assert queueing.Impatient(rho, 1, 1e4).leaves == pytest.approx(0, abs=1e-9)
    assert queueing.Impatient(rho, 1, 1e4).busy == pytest.approx(rho)
    assert queueing.Impatient(rho, 1, 0.0).leaves == pytest.approx(queueing.erlang_b(rho, 1))


@given(st.floats(0.05, 3.0), st.floats(0.1, 10.0))
def test_what_is_served_keeps_the_server_busy_with_or_without_patience(arrival: float, patience: float) -> None:
    queue = queueing.Impatient(arrival, 1, patience)
    assert queue.busy == pytest.approx(arrival * (1 - queue.leaves))


def test_a_busy_group_commit_makes_everybody_wait_half_a_commit_and_an_idle_one_nobody() -> None:
    assert queueing.GroupCommit(1e-6, 1.0).mean_wait == pytest.approx(0, abs=1e-5)
    assert queueing.GroupCommit(100.0, 1.0).mean_time == pytest.approx(1.5)


def test_an_unstable_queue_has_no_steady_state() -> None:
    with pytest.raises(ValueError, match="no steady state"):
        queueing.MMc(2, 1, 2)


# ---- chains ----


@pytest.mark.parametrize(
    "picks", [chains.join_shortest, chains.two_choices_with_replacement], ids=lambda picks: picks.__name__
)
def test_a_chain_of_one_server_is_the_queue_of_the_textbook(
    picks: Callable[[chains.State], dict[int, float]],
) -> None:
    assert chains.solve(1, 0.8, picks, 300).mean_time == pytest.approx(5.0, rel=1e-9)


def test_two_different_of_two_servers_is_joining_the_shorter_one() -> None:
    shortest = chains.solve(2, 1.6, chains.join_shortest, 80)
    both = chains.solve(2, 1.6, chains.two_choices_without_replacement, 80)
    assert both.mean_time == pytest.approx(shortest.mean_time, rel=1e-12)


def test_looking_at_more_helps_and_replacement_costs() -> None:
    times = [
        chains.solve(3, 2.4, picks, 40).mean_time
        for picks in (
            chains.join_shortest,
            chains.two_choices_without_replacement,
            chains.two_choices_with_replacement,
        )
    ]
    assert times == sorted(times)
    assert times[2] < queueing.MMc(0.8, 1, 1).mean_time  # and even that beats a pick at random
    assert times[0] > queueing.MMc(2.4, 1, 3).mean_time  # which no policy of separate queues can


def test_what_the_cut_off_loses_is_said() -> None:
    assert chains.solve(2, 1.8, chains.join_shortest, 5).lost > 1e-3
    assert chains.solve(2, 1.8, chains.join_shortest, 120).lost < 1e-9


# ---- intervals ----


def test_an_interval_of_replications_is_students() -> None:
    found = of_replications([9.0, 10.0, 11.0, 10.0], 0.95)
    assert found.mean == 10
    assert found.half_width == pytest.approx(3.182446 * 0.816497 / 2, rel=1e-5)  # t(3) at 97.5 %
    assert found.holds(11.2)
    assert not found.holds(11.4)


def test_one_replication_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        of_replications([1.0], 0.95)


def test_many_checks_share_one_confidence() -> None:
    assert each_of(50, 0.999) == pytest.approx(1 - 0.001 / 50)
