"""The virtual clock's engine against a plain reference, and laws that hold whatever the configuration."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_reference import Reference

from simulator.balancer.policy import settings_of
from simulator.engine.virtual import simulation as simulation_module
from simulator.engine.virtual.model import compile_unit
from simulator.engine.virtual.simulation import Engine, Results, Simulation, engine_for
from simulator.engine.virtual.tally import Count
from simulator.fault.schedule import Fault, Strike
from simulator.scenario.client import Client
from simulator.scenario.fleet import Platform
from simulator.transaction import TRANSACTION, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.engine.virtual.model import Setup
    from simulator.engine.virtual.simulation import Results

SPAN = 100_000  # ns in which the small configurations' transactions arrive

# Deterministic times make many events fall on one instant, which is where an order can be wrong.
TIMES = st.sampled_from(
    [
        {"distribution": "deterministic", "mean": "1us"},
        {"distribution": "deterministic", "mean": "0s"},
        {"distribution": "exponential", "mean": "1500ns"},
        {"distribution": "gamma", "mean": "2us", "shape": 0.5},
        {"distribution": "lognormal", "mean": "2us"},
        {"distribution": "pareto", "mean": "1us"},
    ]
)
DELAY = st.sampled_from(["0s", "500ns", "1us"])


def _sometimes(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def _platforms(draw: st.DrawFn) -> dict[str, Any]:
    nodes = draw(st.integers(1, 4))
    shards: dict[str, Any] = {"count": draw(st.integers(1, 3))}
    served = draw(st.sampled_from(["", "service", "commit"]))
    if served == "service":
        shards["service"] = draw(TIMES)
    elif served == "commit":
        shards["commit"] = {"base": "1us", "per_record": draw(st.sampled_from(["0s", "300ns"]))}
    platform: dict[str, Any] = {
        "nodes": nodes, "workers": draw(st.integers(1, 3)), "service": draw(TIMES),
        "queue": draw(st.sampled_from([0, 1, 3, 1000])),
        "discipline": draw(st.sampled_from(["fcfs", "lifo", "adaptive_lifo", "priority"])), "adaptive_after": "2us",
        "network": {"client": draw(DELAY), "shard": draw(DELAY)}, "shards": shards,
    }  # fmt: skip
    if draw(st.booleans()):
        platform["dependency"] = {
            "share": draw(st.sampled_from([0.3, 1.0])), "latency": draw(TIMES), "limit": draw(st.sampled_from([0, 2])),
        }  # fmt: skip
    if draw(st.booleans()):
        platform["weights"] = [draw(st.sampled_from([1.0, 0.5, 3.0])) for _ in range(nodes)]
    return platform


@st.composite
def _clients(draw: st.DrawFn) -> dict[str, Any]:
    budget = st.sampled_from([None, {"ratio": 0.2, "min_per_s": 0.0, "ttl": "1ms"}, {"ratio": 0.0, "min_per_s": 200.0}])
    client: dict[str, Any] = {"cancel": draw(st.booleans())}
    if draw(st.booleans()):
        client["timeout"] = draw(st.sampled_from(["3us", "10us"]))
    if draw(st.booleans()):
        client["deadline"] = draw(st.sampled_from(["10us", "25us"]))
    if draw(st.booleans()):
        client["retries"] = {
            "max": draw(st.integers(1, 4)), "backoff": draw(st.sampled_from(["0s", "1us", "3us"])), "longest": "5us",
            "jitter": draw(st.sampled_from(["none", "full", "equal"])), "budget": draw(budget),
            "on": draw(st.sampled_from([["timeout"], ["refused", "error"], ["timeout", "refused", "error"]])),
        }  # fmt: skip
    if draw(st.booleans()):
        client["hedge"] = {
            "after": draw(st.sampled_from(["1us", "2us"])), "max": draw(st.integers(1, 3)), "budget": draw(budget),
        }  # fmt: skip
    return {key: value for key, value in client.items() if value is not None}


def _strike(nodes: int) -> st.SearchStrategy[Strike]:
    def make(at: int, lasts: int, fault: Fault, node: int, factor: float, hangs: bool) -> Strike:  # noqa: FBT001  drawn
        struck = tuple(range(nodes)) if fault is Fault.POWER_LOSS else (node,)
        return Strike(at, at + lasts, fault, () if fault is Fault.DEPENDENCY else struck, None, factor, hangs)

    return st.builds(
        make, st.integers(0, SPAN), st.integers(1, 40_000),
        st.sampled_from([Fault.KILL, Fault.POWER_LOSS, Fault.PAUSE, Fault.SLOW, Fault.DEPENDENCY]),
        st.integers(0, nodes - 1), st.sampled_from([2.0, 10.0]), st.booleans(),
    )  # fmt: skip


@st.composite
def _setups(draw: st.DrawFn) -> Setup:
    platform = Platform.model_validate(draw(_platforms()))
    client = Client.model_validate(draw(_clients()))
    policy = draw(st.sampled_from(["p2c", "p2c_distinct", "random", "round_robin", "jsq", "peak_ewma", "affinity"]))
    return compile_unit(
        platform, client, settings_of(policy), seed=draw(st.integers(0, 1000)), balancers=draw(st.integers(1, 2)),
        strikes=sorted(draw(st.lists(_strike(platform.nodes), max_size=3)), key=lambda s: s.at_ns),
        in_flight=draw(st.sampled_from([6, 1000])), drain_ns=draw(st.sampled_from([20_000, 10**9])),
    )  # fmt: skip


@st.composite
def _batches(draw: st.DrawFn) -> NDArray[np.void]:
    count = draw(st.integers(1, 120))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(1, count + 1)
    step = draw(st.sampled_from([1, 500]))  # whole microseconds meet the deterministic times
    batch["intended_ns"] = np.sort(rng.integers(0, SPAN // step, count)) * step
    batch["payer"] = rng.integers(0, 50, count)
    batch["kind"] = rng.integers(1, 6, count)
    batch["amount_minor"] = rng.integers(1, 1000, count)
    return batch


def _simulate(
    setup: Setup, batch: NDArray[np.void], cuts: list[int] | None = None, shift: float = 1e6, *, engine: Engine = Engine.GENERAL,
    scale: int = 1, resident: int = 3,
) -> Results:  # fmt: skip
    # Many windows, few of them dense at once, so that histograms have to be asked for in the middle of it, and again.
    edges = np.array([*range(0, 150_000 * scale, 5_000 * scale), 2**61], np.int64)
    with mock.patch.object(simulation_module, "RESIDENT", resident):
        simulation = Simulation(setup, edges, arrivals_per_s=shift, traced=len(batch), engine=engine)
    places = [0, *sorted(cut % (len(batch) + 1) for cut in cuts or []), len(batch)]
    for start, stop in pairwise(places):
        simulation.step(batch[start:stop])
    return simulation.finish()


NOT_COMPARED = {
    Count.EVENTS, Count.REGRET, Count.PICKS, Count.INSIDE_MAX, Count.ATTEMPTS_ENDED, Count.ACKNOWLEDGED, Count.ADMISSION,
    Count.ACKNOWLEDGED_NOT_APPLIED, Count.REFUSED_APPLIED, Count.MAIL, Count.MAIL_LOST, Count.REPORTS,
    Count.DEAD_PICKS,
}  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(setup=_setups(), batch=_batches())
def test_the_engine_does_what_the_plain_reference_does(setup: Setup, batch: NDArray[np.void]) -> None:
    results = _simulate(setup, batch)
    reference = Reference(setup, batch)
    reference.run()
    found = results.trace
    for m in batch:
        row = found[int(m["id"]) - 1]
        tx = reference.logical.get(int(m["id"]))
        if tx is None:
            assert row["status"] == Status.DROPPED
            continue
        told = (
            Status(int(row["status"])),
            int(row["done_ns"]),
            int(row["reason"]),
            int(row["node"]),
            int(row["attempts"]),
        )
        assert told == (tx.status, tx.done, int(tx.reason), tx.node, tx.made), (tx.id, tx)
        assert int(row["wait_ns"]) == tx.wait
    for which in Count:
        if which not in NOT_COMPARED:
            assert results.count(which) == reference.counts[which], which.name
    assert results.unbalanced() == []
    assert results.count(Count.ACKNOWLEDGED_NOT_APPLIED) == results.count(Count.REFUSED_APPLIED) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    setup=_setups(),
    batch=_batches(),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
    rate=st.sampled_from([1.0, 1e5, 1e9]),
)
def test_neither_blocks_nor_bucket_widths_change_the_result(
    setup: Setup, batch: NDArray[np.void], cuts: list[int], rate: float
) -> None:
    whole, cut = _simulate(setup, batch), _simulate(setup, batch, cuts, rate)
    assert (whole.trace == cut.trace).all()
    assert (whole.virtual.counts == cut.virtual.counts).all()
    assert (whole.virtual.ended == cut.virtual.ended).all()
    assert (whole.virtual.node_busy_ns == cut.virtual.node_busy_ns).all()
    assert (whole.virtual.digests == cut.virtual.digests).all()


def _arrays(fields: tuple[Any, ...]) -> list[NDArray[np.int64]]:
    return cast("list[NDArray[np.int64]]", list(fields))


@st.composite
def _simple(draw: st.DrawFn) -> Setup:
    nodes = draw(st.integers(1, 5))
    platform = Platform.model_validate(
        {
            "nodes": nodes, "workers": draw(st.integers(1, 4)), "service": draw(TIMES),
            "queue": draw(st.sampled_from([0, 2, 1000])), "shards": {"count": draw(st.integers(1, 3))},
            "weights": draw(st.sampled_from([[], [0.5] * nodes])),
        }
    )  # fmt: skip
    policy = draw(st.sampled_from(["p2c", "p2c_distinct", "random", "round_robin", "jsq", "affinity"]))
    return compile_unit(
        platform, Client(), settings_of(policy, circuit_node=draw(st.sampled_from([0, 3]))), seed=draw(st.integers(0, 1000)),
        balancers=draw(st.integers(1, 3)), in_flight=draw(st.sampled_from([6, 1000])),
        drain_ns=draw(st.sampled_from([0, 5_000, 10**9])),
    )  # fmt: skip


def _alike(general: Results, fast: Results) -> None:
    assert (general.trace == fast.trace).all()
    for name, one, other in zip(general.virtual._fields, *map(_arrays, (general.virtual, fast.virtual)), strict=True):
        if name == "counts":
            for which in set(Count) - {Count.EVENTS, Count.ATTEMPTS_ENDED, Count.INSIDE_MAX}:
                assert one[which] == other[which], which.name
        elif name == "little":
            assert (one[:, :4] == other[:, :4]).all()
        else:
            assert (one == other).all(), name
    for ours, theirs in zip(_arrays(general.tallies()), _arrays(fast.tallies()), strict=True):
        assert (ours == theirs).all()
    for name in ("cells", "starts", "pairs"):
        kept, told = (getattr(found.measured.response, name).tolist() for found in (general, fast))
        assert kept == told, name
    assert general.ended_ns == fast.ended_ns
    assert fast.unbalanced() == []


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    setup=_simple(),
    batch=_batches(),
    cuts=st.lists(st.integers(0, 10_000), max_size=3),
    rate=st.sampled_from([1e5, 1e12]),
    resident=st.sampled_from([2, 3, 64]),
)
def test_the_direct_path_gives_what_the_general_engine_gives(
    setup: Setup, batch: NDArray[np.void], cuts: list[int], rate: float, resident: int
) -> None:
    assert engine_for(setup) is Engine.DIRECT
    _alike(_simulate(setup, batch), _simulate(setup, batch, cuts, rate, engine=Engine.DIRECT, resident=resident))


def _crowd(nodes: int, **changes: Any) -> tuple[Setup, NDArray[np.void]]:  # noqa: ANN401  fields of a platform
    platform = Platform.model_validate(
        {"nodes": nodes, "service": {"mean": "400us"}, "shards": {"count": 4}, "queue": 100, **changes}
    )
    setup = compile_unit(platform, Client(), settings_of("p2c"), seed=1, drain_ns=10**9)
    batch = np.zeros(1_000, TRANSACTION)
    batch["id"], batch["kind"], batch["amount_minor"] = np.arange(1, 1_001), 1, 100
    batch["intended_ns"] = np.arange(1_000) * 1_009
    batch["payer"] = np.arange(1_000) * 7
    return setup, batch


@pytest.mark.parametrize(("changes", "engine"), [({}, Engine.DIRECT), ({"network": {"client": "53us"}}, Engine.FAST)])
def test_hundreds_of_nodes_and_more_than_a_block_of_arrivals_give_what_the_general_engine_gives(
    changes: dict[str, Any], engine: Engine
) -> None:
    setup, batch = _crowd(600, **changes)
    _alike(_simulate(setup, batch, scale=1_000), _simulate(setup, batch, engine=engine, scale=1_000))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drain_ns=st.sampled_from([0, 2_000, 20_000]),
    resident=st.sampled_from([2, 5]),
    cuts=st.lists(st.integers(0, 10_000)),
)
def test_transactions_that_are_open_while_a_block_is_under_way_are_counted_in_their_windows(
    drain_ns: int, resident: int, cuts: list[int]
) -> None:
    platform = Platform.model_validate({"nodes": 8, "workers": 64, "service": {"mean": "40us"}, "shards": {"count": 1}})
    setup = compile_unit(platform, Client(), settings_of("p2c"), seed=1, drain_ns=drain_ns)
    batch = np.zeros(1_000, TRANSACTION)
    batch["id"], batch["kind"], batch["amount_minor"] = np.arange(1, 1_001), 1, 100
    batch["intended_ns"] = np.arange(1_000) * 101
    _alike(_simulate(setup, batch), _simulate(setup, batch, cuts, engine=Engine.DIRECT, resident=resident))


def test_more_windows_due_at_one_instant_than_are_dense_at_once_do_not_go_round_for_ever() -> None:
    platform = Platform.model_validate(
        {
            "nodes": 3, "service": {"distribution": "deterministic", "mean": "60us"}, "weights": [1.0, 1.5, 3.0],
            "shards": {"count": 1},
        }
    )  # fmt: skip
    setup = compile_unit(platform, Client(), settings_of("round_robin"), seed=1, drain_ns=10)
    batch = np.zeros(5, TRANSACTION)
    batch["id"], batch["kind"], batch["amount_minor"] = np.arange(1, 6), 1, 100
    batch["intended_ns"] = np.array([0, 20_000, 40_000, 60_000, 90_000])
    general = _simulate(setup, batch)
    for engine in (Engine.DIRECT, Engine.FAST):
        _alike(general, _simulate(setup, batch, engine=engine, resident=2))


SCALE = (
    1_000  # what makes two events on one nanosecond rare: their order is the general engine's only in the simplest kind
)
SPREAD = st.sampled_from(
    [
        {"distribution": "exponential", "mean": "1500us"},
        {"distribution": "gamma", "mean": "2ms", "shape": 0.5},
        {"distribution": "lognormal", "mean": "2ms"},
        {"distribution": "deterministic", "mean": "1037us"},
    ]
)


@st.composite
def _acting(draw: st.DrawFn) -> tuple[Setup, NDArray[np.void]]:
    nodes = draw(st.integers(1, 5))
    shards: dict[str, Any] = {"count": draw(st.integers(1, 3))}
    if draw(st.booleans()):
        shards["service"] = draw(SPREAD)
    platform = Platform.model_validate(
        {
            "nodes": nodes, "workers": draw(st.integers(1, 4)), "service": draw(SPREAD),
            "queue": draw(st.sampled_from([0, 1, 2, 7, 1000])), "shards": shards,
            "network": {
                "client": draw(st.sampled_from(["0s", "211us", "3ms"])), "shard": draw(st.sampled_from(["0s", "53us", "2ms"])),
            },
            "weights": draw(st.sampled_from([[], [0.5] * nodes])),
        }
    )  # fmt: skip
    client: dict[str, Any] = {}
    if draw(st.booleans()):
        client["timeout"] = draw(st.sampled_from(["2900us", "11ms"]))
    if draw(st.booleans()):
        budget = st.sampled_from([None, {}, {"ratio": 0.2, "min_per_s": 0.0, "ttl": "1s"}, {"kind": "active"}])
        client["retries"] = {
            "max": draw(st.integers(1, 4)), "backoff": draw(st.sampled_from(["0s", "1007us"])), "longest": "5ms",
            "jitter": draw(st.sampled_from(["none", "full", "equal"])), "budget": draw(budget),
            "on": draw(st.sampled_from([["timeout"], ["refused", "error"], ["timeout", "refused", "error"]])),
        }  # fmt: skip
    policy = draw(st.sampled_from(["p2c", "p2c_distinct", "random", "round_robin", "jsq", "affinity"]))
    setup = compile_unit(
        platform, Client.model_validate(client), settings_of(policy, circuit_node=draw(st.sampled_from([0, 3]))),
        seed=draw(st.integers(0, 1000)), balancers=draw(st.integers(1, 3)), in_flight=draw(st.sampled_from([6, 1000])),
        drain_ns=draw(st.sampled_from([0, 5_000_000, 10**12])),
    )  # fmt: skip
    batch = draw(_batches())
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    batch["intended_ns"] = np.sort(rng.integers(0, SPAN * SCALE, len(batch)))
    return setup, batch


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drawn=_acting(),
    cuts=st.lists(st.integers(0, 10_000), max_size=3),
    rate=st.sampled_from([1e2, 1e5, 1e9]),
    resident=st.sampled_from([2, 64]),
)
def test_the_fast_path_gives_what_the_general_engine_gives_also_where_clients_act(
    drawn: tuple[Setup, NDArray[np.void]], cuts: list[int], rate: float, resident: int
) -> None:
    setup, batch = drawn
    if setup.drain_ns < setup.model.shard_ns:
        assert engine_for(setup) is Engine.GENERAL
        return
    assert engine_for(setup) is not Engine.GENERAL
    _alike(
        _simulate(setup, batch, scale=SCALE),
        _simulate(setup, batch, cuts, rate, engine=Engine.FAST, scale=SCALE, resident=resident),
    )


def test_answers_that_wait_for_their_histogram_come_before_the_next_time_out() -> None:
    """At the first one's time-out two answers are due, of two windows; then comes a third, which is before its own time-out."""
    platform = Platform.model_validate(
        {
            "nodes": 3, "service": {"distribution": "deterministic", "mean": "800ms"}, "weights": [1.0, 8 / 3, 1.0],
            "shards": {"count": 1},
        }
    )  # fmt: skip
    client = Client.model_validate({"timeout": "1s"})
    setup = compile_unit(platform, client, settings_of("round_robin"), seed=1)
    batch = np.zeros(3, TRANSACTION)
    batch["id"], batch["kind"], batch["amount_minor"] = np.arange(1, 4), 1, 100
    batch["intended_ns"] = [0, 300_000_000, 600_000_000]
    found = []
    for engine in (Engine.GENERAL, Engine.FAST):
        simulation = Simulation(setup, np.array([0, 500_000_000, 2**61], np.int64), traced=3, engine=engine)
        simulation.step(batch)
        found.append(simulation.finish())
    assert found[0].trace["done_ns"].tolist() == [800_000_000, 1_100_000_000, 900_000_000]
    _alike(*found)
