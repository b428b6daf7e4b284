"""Adaptive concurrency, admission control and retry budgets: the law of each, and the numbers of its reference."""

from __future__ import annotations

from math import log10

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.balancer.admission import (
    CODEL,
    DAGOR_QUEUEING_NS,
    DAGOR_WINDOW_NS,
    INTERVAL_NS,
    LEVELS,
    TARGET_NS,
    codel_drops,
    dagor_admits,
    dagor_served,
    dagor_window,
    may_wait_ns,
    newest_first,
    open_dagor,
)
from simulator.balancer.budget import (
    ACTIVE_LEAST,
    ACTIVE_SHARE,
    RETRY,
    deposit,
    may_retry,
    open_budgets,
    withdraw,
)
from simulator.balancer.limits import LIMITERS, allows, open_limits, update
from simulator.scenario.client import Budget, Client, Retries

law = settings(deadline=None, max_examples=40)
MS, S = 1_000_000, 1_000_000_000


def after(name: str, answers: list[tuple[float, int, int]]) -> float:
    """The limit of one row after answers of (ms, in flight, good)."""
    limits = open_limits(LIMITERS[name], 3)
    for took_ms, in_flight, good in answers:
        update(LIMITERS[name], limits, 1, took_ms * MS, in_flight, good)
    assert limits["limit"][[0, 2]].tolist() == [LIMITERS[name].start] * 2  # rows know nothing of each other
    return float(limits["limit"][1])


# ---- adaptive concurrency ----


def test_aimd_adds_one_and_takes_a_tenth() -> None:
    assert after("aimd", [(1.0, 20, 1)] * 5) == 25
    assert after("aimd", [(1.0, 9, 1)] * 5) == 20  # less than half in use: nothing is learnt
    assert after("aimd", [(1.0, 200, 1)] * 80 + [(1.0, 50, 0)]) == pytest.approx(90)
    assert after("aimd", [(1.0, 200, 1)] * 80 + [(5_001.0, 50, 1)]) == pytest.approx(90)
    assert after("aimd", [(1.0, 20, 0)] * 50) == 20
    assert after("aimd", [(1.0, 500, 1)] * 500) == 200


def test_vegas_grows_without_a_queue_and_shrinks_with_one() -> None:
    # The first answer is the least; 10 ms each then mean no queue: + 6 log₁₀ each.
    assert after("vegas", [(10.0, 20, 1), (10.0, 20, 1)]) == 20 + 6
    # A queue of 20·(1 − 10/20) = 10 is more than 6 log₁₀ 20.
    assert after("vegas", [(10.0, 20, 1), (20.0, 20, 1)]) == 19
    assert after("vegas", [(10.0, 20, 1), (11.0, 20, 1)]) == 21  # a queue of 2: one more
    assert after("vegas", [(10.0, 20, 1), (13.0, 20, 1)]) == 20  # of 5: as it is
    assert after("vegas", [(10.0, 20, 1), (10.5, 20, 0)]) == 19
    assert after("vegas", [(10.0, 9, 1)] * 5) == 20


def test_gradient2_grows_by_its_queue_and_falls_with_the_gradient() -> None:
    assert after("gradient2", [(10.0, 20, 1)]) == pytest.approx(20 + 0.2 * 4)
    assert after("gradient2", [(10.0, 9, 1)]) == 20
    slow = [(10.0, 200, 1)] * 700 + [(60.0, 200, 1)]
    assert after("gradient2", slow) == pytest.approx(200 * 0.8 + 0.2 * (200 * 0.5 + 4))
    assert after("gradient2", [(10.0, 200, 1)] * 700) == 200
    assert after("gradient2", [(10.0, 20, 0)] * 9) == 20  # errors teach it nothing


@law
@given(
    name=st.sampled_from(["gradient2", "vegas", "aimd"]),
    answers=st.lists(st.tuples(st.floats(0.01, 1e4), st.integers(1, 2_000), st.integers(0, 1)), max_size=60),
)
def test_a_limit_stays_within_its_bounds(name: str, answers: list[tuple[float, int, int]]) -> None:
    limit = after(name, answers)
    assert LIMITERS[name].least <= limit <= LIMITERS[name].most


def test_a_limit_lets_in_what_it_says_and_none_lets_in_all() -> None:
    limits = open_limits(LIMITERS["aimd"], 1)
    assert allows(LIMITERS["aimd"], limits, 0, 19)
    assert not allows(LIMITERS["aimd"], limits, 0, 20)
    assert allows(LIMITERS["none"], limits, 0, 10**9)
    assert log10(LIMITERS["vegas"].most) == 3


# ---- admission ----


def test_codel_waits_an_interval_and_then_drops_ever_faster() -> None:
    state = np.zeros(1, CODEL)
    dropped = [now for now in range(1_000) if codel_drops(state, 0, now * MS, 6 * MS, 9, TARGET_NS, INTERVAL_NS)]
    assert dropped[0] == 100
    gaps = np.diff(dropped)[:6]
    assert gaps.tolist() == pytest.approx([100 / (k + 1) ** 0.5 for k in range(6)], abs=1.01)


def test_codel_lets_be_who_waits_less_than_the_target_and_the_last_of_the_queue() -> None:
    state = np.zeros(1, CODEL)
    assert not any(codel_drops(state, 0, now * MS, 5 * MS - 1, 9, TARGET_NS, INTERVAL_NS) for now in range(500))
    assert not any(codel_drops(state, 0, now * MS, 60 * MS, 0, TARGET_NS, INTERVAL_NS) for now in range(500))
    for now in range(300):
        codel_drops(state, 0, now * MS, 6 * MS, 9, TARGET_NS, INTERVAL_NS)
    assert state["dropping"][0] == 1
    codel_drops(state, 0, 300 * MS, 1 * MS, 9, TARGET_NS, INTERVAL_NS)  # one below the target ends it
    assert state["dropping"][0] == 0


def test_in_a_standing_queue_requests_may_wait_little_and_the_newest_goes_first() -> None:
    now = 10 * S
    for empty_ago, wait, newest in ((50 * MS, 100 * MS, False), (100 * MS, 100 * MS, False), (101 * MS, 5 * MS, True)):
        assert may_wait_ns(now, now - empty_ago, TARGET_NS, INTERVAL_NS) == wait
        assert newest_first(now, now - empty_ago, INTERVAL_NS) is newest


def dagor_after(waited_ms: int, windows: int, level: int = LEVELS - 1) -> int:
    """The level after windows with one request of each priority, those taken having waited so long."""
    states = open_dagor(1)
    states["level"] = level
    for window in range(1, windows + 1):
        for priority in range(LEVELS):
            if dagor_admits(states, 0, priority):
                dagor_served(states, 0, waited_ms * MS)
        dagor_window(states, 0, window * S, DAGOR_QUEUEING_NS, DAGOR_WINDOW_NS)
    return int(states["level"][0])


def test_dagor_lets_in_a_twentieth_less_in_overload_and_a_hundredth_more_after() -> None:
    assert dagor_after(20, 1) == LEVELS - 1  # 20 ms is not above 20 ms
    for windows in (1, 2, 3):
        assert dagor_after(21, windows) == pytest.approx(LEVELS * 0.95**windows - 1, abs=2 * windows)
    assert dagor_after(1, 1, level=499) == pytest.approx(504, abs=1)
    assert dagor_after(1, 2_000, level=0) == LEVELS - 1


def test_dagor_ends_a_window_after_a_second_or_two_thousand_requests() -> None:
    states = open_dagor(1)
    for _ in range(1_999):
        dagor_admits(states, 0, 0)
    dagor_window(states, 0, S - 1, DAGOR_QUEUEING_NS, DAGOR_WINDOW_NS)
    assert states["requests"][0] == 1_999
    dagor_admits(states, 0, 0)
    dagor_window(states, 0, S - 1, DAGOR_QUEUEING_NS, DAGOR_WINDOW_NS)
    assert states["requests"][0] == 0


# ---- retry budgets ----


@pytest.mark.parametrize(
    ("active", "retrying", "may"),
    [(0, 2, 1), (0, 3, 0), (15, 3, 0), (20, 3, 1), (20, 4, 0), (100, 19, 1)],
)
def test_a_fifth_of_what_is_active_may_be_retries_and_three_in_any_case(active: int, retrying: int, may: int) -> None:
    assert may_retry(active, retrying, ACTIVE_SHARE, ACTIVE_LEAST) == may


def test_tokens_are_a_fifth_of_the_requests_and_ten_a_second() -> None:
    budgets = open_budgets(Client(retries=Retries(budget=Budget())))

    def spent(now: int) -> int:
        count = 0
        while withdraw(budgets, RETRY, now, 0, 0):
            count += 1
        return count

    assert spent(0) == 100  # the reserve: 10 a second for 10 s
    assert spent(0) == 0
    for _ in range(50):
        deposit(budgets, RETRY, 0)
    assert spent(0) == 10
    assert spent(9 * S) == 0
    assert spent(10 * S) == 100  # the slot of the debt is gone, and what was earned with it
    for _ in range(50):
        deposit(budgets, RETRY, 30 * S)
    assert spent(45 * S) == 100  # earned more than the ttl ago: lost


def test_a_budget_of_what_is_active_is_envoys_and_takes_no_keys_of_the_other_kind() -> None:
    budgets = open_budgets(Client(retries=Retries(budget=Budget(kind="active"))))
    assert [withdraw(budgets, RETRY, 0, active, using) for active, using in ((0, 2), (0, 3), (20, 3), (20, 4))] == [
        True, False, True, False,
    ]  # fmt: skip
    for wrong in ({"kind": "active", "ratio": 0.1}, {"share": 0.1}, {"kind": "active", "ttl": "1s"}, {"least": 4}):
        with pytest.raises(ValidationError, match="other kind of budget"):
            Budget.model_validate(wrong)
