"""Exact Markov chains for what has no closed form: joining short queues, with few servers.

N exponential servers with μ = 1, Poisson arrivals of rate λ. Servers are alike, so a state is the sorted tuple of their numbers
of customers, each cut off at `room` (an arrival that finds its server full is lost; the cut is so far out that this share is
below the precision asked for, and `Balanced.lost` says how much it is).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import splu

if TYPE_CHECKING:
    from collections.abc import Callable

State = tuple[int, ...]


@dataclass(frozen=True)
class Balanced:
    """The steady state of N servers under a pick rule."""

    mean_number: float  # customers in all servers
    mean_time: float  # of those that entered, by Little's law
    lost: float  # share of arrivals that the cut-off turned away


def join_shortest(state: State) -> dict[int, float]:
    """Join the shortest queue, ties evenly: probability of each position of the state."""
    best = [i for i, n in enumerate(state) if n == min(state)]
    return {i: 1.0 / len(best) for i in best}


def two_choices_with_replacement(state: State) -> dict[int, float]:
    """The shorter of two drawn with replacement, as Envoy draws them."""
    return _shorter_of(state, [(i, j) for i in range(len(state)) for j in range(len(state))])


def two_choices_without_replacement(state: State) -> dict[int, float]:
    """The shorter of two different ones, as Finagle draws them."""
    n = len(state)
    return _shorter_of(state, [(i, j) for i in range(n) for j in range(n) if i != j])


def _shorter_of(state: State, pairs: list[tuple[int, int]]) -> dict[int, float]:
    chances: dict[int, float] = defaultdict(float)
    for first, second in pairs:
        chances[second if state[second] < state[first] else first] += 1.0 / len(pairs)
    return chances


def solve(servers: int, arrival: float, picks: Callable[[State], dict[int, float]], room: int) -> Balanced:
    """The steady state by solving the balance equations directly (sparse LU).

    Args:
        servers: N.
        arrival: λ of all together, below N.
        picks: the rule; which position of a sorted state gets an arrival with which probability.
        room: customers a server holds at most.
    """
    states = list(combinations_with_replacement(range(room + 1), servers))
    number = {state: k for k, state in enumerate(states)}
    rows: list[int] = []
    columns: list[int] = []
    rates: list[float] = []

    def flow(k: int, state: State, position: int, step: int, rate: float) -> None:
        changed = list(state)
        changed[position] += step
        to = number[tuple(sorted(changed))]
        rows.extend((to, k))
        columns.extend((k, k))
        rates.extend((rate, -rate))

    turned_away = np.zeros(len(states))
    for k, state in enumerate(states):
        for position, chance in picks(state).items():
            if state[position] < room:
                flow(k, state, position, 1, arrival * chance)
            else:
                turned_away[k] += chance
        for position, customers in enumerate(state):
            if customers:
                flow(k, state, position, -1, 1.0)
    balance = coo_array((rates, (rows, columns)), shape=(len(states), len(states))).tolil()
    balance[0, :] = 1.0  # one equation is implied by the others; this one says that the probabilities sum to 1
    right = np.zeros(len(states))
    right[0] = 1.0
    shares = splu(csc_array(balance)).solve(right)
    mean_number = float(shares @ np.array([sum(state) for state in states], np.float64))
    lost = float(shares @ turned_away)
    return Balanced(mean_number, mean_number / (arrival * (1.0 - lost)), lost)
