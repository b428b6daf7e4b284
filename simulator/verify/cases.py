"""What theory says and the engine is asked. Times are in mean services: a service takes a millisecond on the virtual clock.

Every case goes through the whole engine that simulates payments: arrivals, a balancer's pick, queues, servers, measurement; each
replication also balances its books of customers and Little's law.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from simulator.arrivals.rate import Rate
from simulator.engine.virtual.stations import (
    Observed,
    Queue,
    deterministic,
    exponential,
    gamma,
    lognormal,
    observe,
    pareto,
)
from simulator.engine.virtual.tally import Count
from simulator.scenario.client import Client
from simulator.verify import chains, queueing
from simulator.verify.judge import Case, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulator.scenario.service import ServiceTime

    Measure = Callable[[Observed], float]

UNIT_S = 1e-3
_MILLION = 1_000_000
_WARM_UP = 0.1  # as a share of the customers that are counted

SERVICE = exponential(UNIT_S)


def _wait(seen: Observed) -> float:
    return float(seen.wait_s.mean()) / UNIT_S


def _time(seen: Observed) -> float:
    return float(seen.time_s.mean()) / UNIT_S


def _wait_percentile(percent: float) -> Measure:
    return lambda seen: float(np.percentile(seen.wait_s, percent)) / UNIT_S


def _time_percentile(percent: float) -> Measure:
    return lambda seen: float(np.percentile(seen.time_s, percent)) / UNIT_S


def _blocked(seen: Observed) -> float:
    return seen.blocked


def _wait_of_class(kind: int) -> Measure:
    return lambda seen: float(seen.wait_s[seen.kind == kind].mean()) / UNIT_S


def _cancelled(seen: Observed) -> float:
    return float(seen.counts[Count.CANCELLED] / seen.counts[Count.OFFERED])


def balances(seen: Observed) -> dict[str, tuple[float, float]]:
    """What must hold exactly in every run: nobody is lost or made, and L = λT at each station, summed independently."""
    stations = [row for row in seen.little if row.arrived]
    held = {
        "customers in = out": (
            float(sum(row.arrived for row in stations)),
            float(sum(row.left - row.inside for row in stations)),
        )
    }
    for row in stations:
        held[f"L = λT, {row.station}"] = (row.mean_number, row.rate_per_s * row.mean_s)
    return held | seen.records


def station(
    name: str, queue: Queue, expected: Mapping[Measure, tuple[str, float]], customers: float, precision: float = 0.03,
    warm_up: float = _WARM_UP, *, general: bool = False,
) -> Case:  # fmt: skip
    """A case that observes one queue; `general`: on the general engine, where a faster one would do."""

    def simulate(seed: int, number: int) -> Sample:
        seen = observe(queue, customers=number, warm_up=int(warm_up * number), seed=seed, general=general)
        return Sample({what: measure(seen) for measure, (what, _) in expected.items()}, balances(seen))

    return Case(name, dict(expected.values()), simulate, int(customers), precision)


def _single(rho: float, service: ServiceTime = SERVICE, **changes: object) -> Queue:
    return replace(Queue(rate_per_s=rho / UNIT_S, service=service), **changes)  # type: ignore[arg-type]  # fields of Queue


def _mmc(
    servers: int, rho: float, customers: float, precision: float = 0.05, *, tails: bool = True, general: bool = False
) -> Case:
    theory = queueing.MMc(rho * servers, 1.0, servers)
    expected: dict[Measure, tuple[str, float]] = {
        _wait: ("mean wait", theory.mean_wait),
        _time: ("mean T", theory.mean_time),
    }
    if tails:
        expected[_wait_percentile(99)] = ("p99 wait", theory.wait_percentile(99))
        expected[_time_percentile(50)] = ("p50 T", theory.time_percentile(50))
        expected[_time_percentile(99)] = ("p99 T", theory.time_percentile(99))
    name = f"M/M/{servers} ρ {rho:g}" + (", general engine" if general else "")
    return station(name, _single(rho * servers, servers=servers), expected, customers, precision, general=general)


def _pk(name: str, rho: float, service: ServiceTime, squared_cv: float, customers: float) -> Case:
    wait = queueing.pollaczek_khinchine(rho, 1.0, squared_cv)
    return station(name, _single(rho, service), {_wait: ("mean wait", wait)}, customers, 0.05)


def _loss(name: str, service: ServiceTime, *, general: bool = False) -> Case:
    queue = _single(9.0, service, servers=10, room=0)
    expected: dict[Measure, tuple[str, float]] = {_blocked: ("share lost", queueing.erlang_b(9.0, 10))}
    return station(name, queue, expected, _MILLION, general=general)


def _limited() -> Case:
    theory = queueing.MMcK(12.0, 1.0, 10, 20)
    return station(
        "M/M/10/20 λ 12", _single(12.0, servers=10, room=10),
        {_blocked: ("share lost", theory.blocked), _wait: ("mean wait", theory.mean_wait)}, _MILLION,
    )  # fmt: skip


def _priority() -> Case:
    first, second = queueing.priority_waits([0.3, 0.5], 1.0)
    return station(
        "priority, λ .3 and .5", _single(0.8, discipline="priority", classes=(0.3, 0.5)),
        {_wait_of_class(0): ("mean wait, first", first), _wait_of_class(1): ("mean wait, second", second)}, _MANY,
    )  # fmt: skip


def _tandem() -> Case:
    theory = queueing.MMc(0.5, 1.0, 1).mean_time + queueing.MMc(0.5, 0.8, 1).mean_time
    queue = _single(0.5, then=exponential(UNIT_S / 0.8))
    return station("tandem, λ .5, μ 1 and .8", queue, {_time: ("mean T", theory)}, _MILLION)


def _jackson() -> Case:
    """Two servers, then one: the departures of M/M/2 are Poisson again (P. Burke, Operations Research 4, 1956)."""
    theory = queueing.MMc(1.2, 1.0, 2).mean_time + queueing.MMc(1.2, 1.5, 1).mean_time
    queue = _single(1.2, servers=2, then=exponential(UNIT_S / 1.5))
    return station("Jackson, M/M/2 then M/M/1", queue, {_time: ("mean T", theory)}, _SOME)


def _constant_gaps() -> Case:
    sigma = queueing.constant_arrivals_sigma(1 / 0.9, 1.0)
    wait = queueing.renewal_arrivals_wait(sigma, 1.0)
    return station("D/M/1 ρ .9", _single(0.9, arrivals="regular"), {_wait: ("mean wait", wait)}, _SOME)


def _round_robin() -> Case:
    """Each of N servers gets every N-th arrival: E_N/M/1."""
    sigma = queueing.erlang_arrivals_sigma(10, 9.0, 1.0)
    wait = queueing.renewal_arrivals_wait(sigma, 1.0)
    queue = _single(9.0, nodes=10, policy="round_robin")
    return station("round robin over 10 ρ .9", queue, {_wait: ("mean wait", wait)}, _MANY)


def _random() -> Case:
    queue = _single(8.0, nodes=10, policy="random")
    return station("random over 10 ρ .8", queue, {_time: ("mean T", 5.0)}, _SOME)


def _last_first() -> Case:
    """The order of service does not change the mean wait, as long as it does not look at service times (K2 3.4)."""
    wait = queueing.MMc(0.8, 1.0, 1).mean_wait
    queue = _single(0.8, discipline="lifo")
    return station("M/M/1 last come first", queue, {_wait: ("mean wait", wait)}, _SOME)


def _impatient() -> Case:
    theory = queueing.Impatient(1.2, 1.0, 3.0)
    client = Client.model_validate({"timeout": "3ms", "cancel": True})
    queue = _single(1.2, client=client)
    return station(
        "M/M/1+D λ 1.2 τ 3", queue, {_cancelled: ("share that leaves", theory.leaves)}, _MILLION, warm_up=0.0
    )


def _group_commit() -> Case:
    theory = queueing.GroupCommit(2.0, 1.0)
    queue = _single(2.0, deterministic(1e-9), servers=64, commit_s=UNIT_S)
    return station("group commit, λD 2", queue, {_time: ("mean T", theory.mean_time)}, _MILLION)


def _short_queues(
    name: str, policy: str, picks: Callable[[chains.State], dict[int, float]], servers: int, rho: float
) -> Case:
    """Against the exact chain, which is solved when the case is run: it takes a second or two."""

    @cache
    def exact() -> float:
        room = {2: 120, 3: 40}[servers]
        return chains.solve(servers, servers * rho, picks, room).mean_time

    queue = _single(servers * rho, nodes=servers, policy=policy)

    def simulate(seed: int, number: int) -> Sample:
        seen = observe(queue, customers=number, warm_up=number // 10, seed=seed)
        return Sample({"mean T ÷ exact": _time(seen) / exact()}, balances(seen))

    return Case(f"{name} of {servers} ρ {rho:g}", {"mean T ÷ exact": 1.0}, simulate, _SOME)


def _mean_field(rho: float, customers: float, precision: float = 0.03) -> Case:
    """N servers are off by O(1/N) from N → ∞ (N. Gast, ACM POMACS 1, 2017), so N and 2N are extrapolated."""
    half, whole = 500, 1_000

    def simulate(seed: int, number: int) -> Sample:
        times = []
        for nodes, share in ((half, 0.5), (whole, 1.0)):
            count = int(number * share)
            seen = observe(_single(nodes * rho, nodes=nodes), customers=count, warm_up=count // 2, seed=seed)
            times.append(_time(seen))
        return Sample({"mean T, N → ∞": 2.0 * times[1] - times[0]}, balances(seen))

    expected = {"mean T, N → ∞": queueing.least_of_d_time(rho, 2)}
    return Case(f"two choices ρ {rho:g}", expected, simulate, int(customers), precision)


def _fluid() -> Case:
    """A spike of 1.5 times the capacity for a minute, then .8 times: what waits, for how long, until when."""
    theory = queueing.Fluid(1.5, 0.8, 1.0, 60.0)
    per_s = 5_000.0
    rate = Rate.stages(1.5 * per_s, [(60.0, 1.5 * per_s), (0.0, 0.8 * per_s), (240.0, 0.8 * per_s)], 300.0)
    queue = Queue(rate_per_s=rate, service=exponential(1.0 / per_s))

    def simulate(seed: int, number: int) -> Sample:  # noqa: ARG001  the spike says how many come
        seen = observe(queue, customers=int(rate.total * 1.1), seed=seed)
        came = seen.arrived_s
        last = int(np.searchsorted(came, 60.0)) - 1
        empty = last + int(np.argmax(seen.wait_s[last:] == 0.0))
        left = came + seen.time_s
        backlog = (last + 1 - int(np.searchsorted(left, 60.0))) / per_s
        return Sample(
            {"backlog ÷ μ": backlog, "longest delay": float(seen.wait_s[last]), "drain": float(came[empty]) - 60.0},
            balances(seen),
        )

    expected = {"backlog ÷ μ": theory.backlog, "longest delay": theory.delay, "drain": theory.drain}
    return Case("fluid: 1.5 μ for 60 s, then .8 μ", expected, simulate, _MILLION, 0.05)


def _chosen() -> list[Case]:
    three = [
        ("joining the shortest", "jsq", chains.join_shortest),
        ("two choices, replaced", "p2c", chains.two_choices_with_replacement),
        ("two choices, distinct", "p2c_distinct", chains.two_choices_without_replacement),
    ]
    return [
        _short_queues(name, policy, picks, n, rho) for n, rho in ((2, 0.9), (3, 0.8)) for name, policy, picks in three
    ]


_FEW, _SOME, _MANY = 500_000, _MILLION, 2 * _MILLION  # customers in a replication: what the precision takes

CASES: tuple[Case, ...] = (
    _mmc(1, 0.5, _FEW),
    _mmc(1, 0.8, _SOME),
    _mmc(1, 0.9, 3 * _MILLION),
    _mmc(2, 0.8, _MANY),
    _mmc(1, 0.8, _SOME, general=True),
    _mmc(2, 0.8, _MANY, general=True),
    _mmc(10, 0.9, 2 * _MANY),
    _mmc(50, 0.9, _MANY, tails=False),
    _loss("Erlang's loss, a 9, c 10", SERVICE),
    _loss("… with constant service", deterministic(UNIT_S)),
    _loss("… with lognormal service", lognormal(UNIT_S, 4.0)),
    _loss("Erlang's loss, a 9, c 10, general engine", SERVICE, general=True),
    _limited(),
    _pk("M/D/1 ρ .9", 0.9, deterministic(UNIT_S), 0.0, _MANY),
    _pk("M/G/1 ρ .8, gamma, C² 4", 0.8, gamma(UNIT_S, 4.0), 4.0, _MANY),
    _pk("M/G/1 ρ .7, lognormal, C² 2", 0.7, lognormal(UNIT_S, 2.0), 2.0, _MANY),
    _pk("M/G/1 ρ .6, Pareto, tail 3.5", 0.6, pareto(UNIT_S, 3.5), 1.0 / (3.5 * 1.5), _SOME),
    _priority(),
    _last_first(),
    _tandem(),
    _jackson(),
    _constant_gaps(),
    _impatient(),
    _group_commit(),
    _random(),
    _round_robin(),
    *_chosen(),
    _mean_field(0.7, _SOME),
    _mean_field(0.9, _SOME),
    _mean_field(0.95, _MANY),
    _mean_field(0.99, 10 * _MILLION, 0.05),  # so near to 1 a queue forgets slowly
    _fluid(),
)
