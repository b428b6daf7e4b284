"""Closed forms of queueing theory. Rates are per unit of time; times are in the same unit.

λ is the arrival rate, μ the service rate of one server, c the number of servers, a = λ/μ the offered load, ρ = a/c.
T is the time in the system, W that in the queue, L and Lq the mean numbers.

Sources: L. Kleinrock, "Queueing Systems", volumes 1 and 2, 1975 and 1976 (K1, K2); D. Gross, J. Shortle, J. Thompson, C. Harris,
"Fundamentals of Queueing Theory", 4th edition, 2008 (G); others where they are used. None is trusted alone: the tests hold
each against the reference values of its literature, against a limit in which it becomes another one, or against a Markov chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, log
from typing import TYPE_CHECKING

from scipy.optimize import brentq

if TYPE_CHECKING:
    from collections.abc import Callable


_SETTLED = 1e-15  # a fixed point that moves less has been reached
_NEGLIGIBLE = 1e-18  # a term of a sum of order 1
_EQUAL = 1e-12  # rates that differ by less, relatively, are one


def _stable(arrival: float, capacity: float) -> None:
    if not 0.0 < arrival < capacity:
        raise ValueError(f"an arrival rate of {arrival} is not below the capacity {capacity}: there is no steady state")


def erlang_b(load: float, servers: int) -> float:
    """The share of customers lost by M/G/c/c, whatever the service distribution (G 2.5): B₀ = 1, B_k = aB/(k + aB)."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked


def erlang_c(load: float, servers: int) -> float:
    """The share of customers of M/M/c that have to wait (G 2.4)."""
    _stable(load, servers)
    blocked = erlang_b(load, servers)
    rho = load / servers
    return blocked / (1.0 - rho + rho * blocked)


@dataclass(frozen=True)
class MMc:
    """M/M/c: Poisson arrivals, exponential service, c servers, one queue in order of arrival."""

    arrival: float
    service: float
    servers: int

    def __post_init__(self) -> None:
        """Refuses an unstable queue."""
        _stable(self.arrival, self.servers * self.service)

    @property
    def waits(self) -> float:
        """P(W > 0): Erlang's C."""
        return erlang_c(self.arrival / self.service, self.servers)

    @property
    def spare(self) -> float:
        """cμ − λ: how fast a queue is worked off."""
        return self.servers * self.service - self.arrival

    @property
    def mean_wait(self) -> float:
        """E[W] = C/(cμ − λ)."""
        return self.waits / self.spare

    @property
    def mean_time(self) -> float:
        """E[T] = E[W] + 1/μ."""
        return self.mean_wait + 1.0 / self.service

    def wait_above(self, t: float) -> float:
        """P(W > t) = C·e^{−(cμ−λ)t}."""
        return self.waits * exp(-self.spare * t)

    def wait_percentile(self, percent: float) -> float:
        """The time that a share of the waits does not exceed; 0 where that many do not wait at all."""
        tail = 1.0 - percent / 100.0
        return max(0.0, log(self.waits / tail) / self.spare)

    def time_above(self, t: float) -> float:
        """P(T > t), the wait and an independent service convolved (G 2.4)."""
        mu, spare, waits = self.service, self.spare, self.waits
        if abs(spare - mu) < _EQUAL * mu:
            return exp(-mu * t) * (1.0 + waits * mu * t)
        return (1.0 - waits) * exp(-mu * t) + waits * (spare * exp(-mu * t) - mu * exp(-spare * t)) / (spare - mu)

    def time_percentile(self, percent: float) -> float:
        """The time that a share of the times in the system does not exceed."""
        tail = 1.0 - percent / 100.0
        high = 1.0 / self.service
        while self.time_above(high) > tail:
            high *= 2.0
        return float(brentq(lambda t: self.time_above(t) - tail, 0.0, high, xtol=1e-14))


@dataclass(frozen=True)
class MMcK:
    """M/M/c/K: as M/M/c with room for K customers in all; who finds it full is lost (G 2.5)."""

    arrival: float
    service: float
    servers: int
    room: int

    def _shares(self) -> list[float]:
        shares = [1.0]
        for k in range(1, self.room + 1):
            shares.append(shares[-1] * self.arrival / (min(k, self.servers) * self.service))
        total = sum(shares)
        return [share / total for share in shares]

    @property
    def blocked(self) -> float:
        """The share of customers that is lost."""
        return self._shares()[-1]

    @property
    def mean_wait(self) -> float:
        """E[W] of those that enter."""
        shares = self._shares()
        queue = sum((k - self.servers) * share for k, share in enumerate(shares) if k > self.servers)
        return queue / (self.arrival * (1.0 - shares[-1]))


def pollaczek_khinchine(arrival: float, mean: float, squared_cv: float) -> float:
    """E[W] of M/G/1, λE[S²]/2(1−ρ), for a service time of this mean and squared coefficient of variation (K1 5.6)."""
    _stable(arrival, 1.0 / mean)
    second_moment = mean * mean * (1.0 + squared_cv)
    return arrival * second_moment / (2.0 * (1.0 - arrival * mean))


def renewal_arrivals_wait(transform: float, service: float) -> float:
    """E[W] of GI/M/1 from σ, the root of σ = A*(μ − μσ) (K1 6.4): σ/μ(1−σ)."""
    return transform / (service * (1.0 - transform))


def erlang_arrivals_sigma(phases: int, phase_rate: float, service: float) -> float:
    """The σ in (0, 1) of E_k/M/1: σ = (kλ/(kλ + μ − μσ))^k, with `phase_rate` = kλ.

    Round robin over N servers gives each every N-th arrival of a Poisson process of rate Λ: E_N/M/1 with phase rate Λ.
    """
    _stable(phase_rate / phases, service)
    return _root(lambda s: (phase_rate / (phase_rate + service * (1.0 - s))) ** phases)


def constant_arrivals_sigma(interval: float, service: float) -> float:
    """The σ in (0, 1) of D/M/1: σ = e^{−μ(1−σ)·interval}."""
    _stable(1.0 / interval, service)
    return _root(lambda s: exp(-service * (1.0 - s) * interval))


def _root(transform: Callable[[float], float]) -> float:
    """The fixed point below 1 of an increasing convex function with f(1) = 1: iterating from 0 approaches it from below."""
    sigma = 0.0
    for _ in range(100_000):
        following = float(transform(sigma))
        if abs(following - sigma) < _SETTLED:
            break
        sigma = following
    return sigma


def priority_waits(arrivals: list[float], mean: float, squared_cv: float = 1.0) -> list[float]:
    """E[W] of each class of a non-preemptive priority M/G/1, the first class first (A. Cobham, Operations Research 2, 1954).

    W_k = W₀/[(1−σ_{k−1})(1−σ_k)], W₀ = λE[S²]/2, σ_k the load of the classes up to k; all classes have one service law.
    """
    _stable(sum(arrivals), 1.0 / mean)
    residual = sum(arrivals) * mean * mean * (1.0 + squared_cv) / 2.0
    waits = []
    before = 0.0
    for arrival in arrivals:
        after = before + arrival * mean
        waits.append(residual / ((1.0 - before) * (1.0 - after)))
        before = after
    return waits


def least_of_d_time(rho: float, choices: int) -> float:
    """E[T] of the least loaded of d servers drawn at random, as their number grows, μ = 1.

    Σ_{i≥1} ρ^{(d^i−d)/(d−1)} (N. Vvedenskaya, R. Dobrushin, F. Karpelevich, 1996; M. Mitzenmacher, 1996).
    """
    _stable(rho, 1.0)
    total = 0.0
    for i in range(1, 64):
        term = rho ** ((choices**i - choices) / (choices - 1)) if choices > 1 else rho ** (i - 1)
        total += term
        if term < _NEGLIGIBLE:
            break
    return total if choices > 1 else 1.0 / (1.0 - rho)


@dataclass(frozen=True)
class Impatient:
    """M/M/1+D: a customer whose wait would exceed τ leaves at τ and is never served (D. Barrer, Operations Research 5, 1957).

    The work that an arrival finds has a mass at 0, density π₀λe^{−(μ−λ)x} up to τ (everybody joins) and falls as e^{−μx} beyond
    (nobody does), by level crossing.
    """

    arrival: float
    service: float
    patience: float

    @property
    def _idle(self) -> float:
        rate = self.service - self.arrival
        below = self.patience if abs(rate) < _EQUAL * self.service else -expm1(-rate * self.patience) / rate
        return 1.0 / (1.0 + self.arrival * below + self.arrival * exp(-rate * self.patience) / self.service)

    @property
    def leaves(self) -> float:
        """The share of customers that leave unserved."""
        rate = self.service - self.arrival
        return self._idle * self.arrival * exp(-rate * self.patience) / self.service

    @property
    def busy(self) -> float:
        """The share of time that the server works."""
        return 1.0 - self._idle


@dataclass(frozen=True)
class GroupCommit:
    """M/D[∞]/1: the server takes all that waits as one batch, in a constant time D: a group commit.

    After a commit the server is idle with probability e^{−λD}, for 1/λ on average, so it is busy D/(D + e^{−λD}/λ) of the time.
    Who finds it busy (as many, by PASTA) comes at a moment uniform over the commit, and waits for the rest of it: D/2 on average.
    """

    arrival: float
    commit: float

    @property
    def mean_wait(self) -> float:
        """E[W] until the own commit begins."""
        gap = exp(-self.arrival * self.commit) / self.arrival
        return self.commit / (self.commit + gap) * self.commit / 2.0

    @property
    def mean_time(self) -> float:
        """E[T] until the own commit is done."""
        return self.mean_wait + self.commit


@dataclass(frozen=True)
class Fluid:
    """A spike over a server: rate `high` for `length`, then `low`, against a capacity; the law of large numbers of a queue."""

    high: float
    low: float
    capacity: float
    length: float

    @property
    def backlog(self) -> float:
        """What waits at the end of the spike."""
        return (self.high - self.capacity) * self.length

    @property
    def delay(self) -> float:
        """How long the one waits who comes last in the spike."""
        return self.backlog / self.capacity

    @property
    def drain(self) -> float:
        """From the end of the spike until the backlog is gone."""
        return self.backlog / (self.capacity - self.low)
