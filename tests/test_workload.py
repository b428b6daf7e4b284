from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.arrivals.curves import CURVES
from simulator.arrivals.process import Poisson, Regular
from simulator.arrivals.rate import Rate
from simulator.arrivals.trace import TraceArrivals
from simulator.elementary import exp
from simulator.scenario.model import Scenario
from simulator.seeds import Stream, stream_key, uniform
from simulator.transaction import TRANSACTION, Kind
from simulator.workload.build import build_source
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.popularity import alias_table, zipf_table
from simulator.workload.source import Source
from simulator.workload.ticket import Ticket, normal_quantile

if TYPE_CHECKING:
    from pathlib import Path

Batch = NDArray[Any]

law = settings(deadline=None, max_examples=40)  # the first call compiles the kernels

PARTIES = Parties(1_000, 100, 1.05)
TICKET = Ticket(10_000, 1.0)
BUSY = Mix(payment=50, refund=20, authorize=30, after_ns=50_000_000, void_share=0.25)


def source(
    mix: Mix = BUSY,
    *,
    parties: Parties = PARTIES,
    ticket: Ticket = TICKET,
    rate: Rate | None = None,
    seed: int = 1,
    ring: int = 4_096,
) -> Source:
    arrivals = Poisson(Rate.constant(10_000.0, 3.0) if rate is None else rate, seed)
    return Source(arrivals, Workload(parties, ticket, mix, seed, ring))


def drain(made: Source, chunk: int = 4_096) -> Batch:
    batches: list[Batch] = []
    while True:
        batch = np.empty(chunk, TRANSACTION)
        n = made.fill(batch)
        if n == 0:
            return np.concatenate([*batches, batch[:0]])
        batches.append(batch[:n])


def of_kind(run: Batch, *kinds: Kind) -> Batch:
    return run[np.isin(run["kind"], kinds)]


def originals_of(run: Batch, follow_ups: Batch) -> Batch:
    """Ids count from 1, in order: transaction i is record i - 1."""
    return run[follow_ups["related"].astype(np.int64) - 1]


# ---- the whole ----


@law
@given(st.integers(0, 2**64), st.lists(st.integers(1, 5_000), min_size=1, max_size=5))
def test_the_transactions_do_not_depend_on_how_they_are_batched(seed: int, sizes: list[int]) -> None:
    rate = Rate.constant(10_000.0, 0.5)
    whole = drain(source(rate=rate, seed=seed), 20_000)
    made, batches = source(rate=rate, seed=seed), []
    for k in range(100_000):
        batch = np.empty(sizes[k % len(sizes)] if k < 200 else 20_000, TRANSACTION)
        n = made.fill(batch)
        if n == 0:
            break
        batches.append(batch[:n])
    assert np.concatenate(batches).tobytes() == whole.tobytes()


def test_the_same_seed_gives_the_same_transactions_and_another_one_others() -> None:
    assert drain(source(seed=5)).tobytes() == drain(source(seed=5)).tobytes()
    first, second = drain(source(seed=5)), drain(source(seed=6))
    n = min(first.size, second.size)
    for field in ("intended_ns", "amount_minor", "payer", "payee", "kind"):
        assert not np.array_equal(first[field][:n], second[field][:n]), field


def test_ids_count_from_one_in_order_of_time() -> None:
    run = drain(source())
    assert np.array_equal(run["id"], np.arange(1, run.size + 1))
    assert (np.diff(run["intended_ns"]) >= 0).all()


def test_what_others_set_is_zero_and_what_is_beyond_the_end_is_left_alone() -> None:
    batch = np.full(100_000, 0xAA, np.uint8).repeat(TRANSACTION.itemsize).view(TRANSACTION)
    n = source().fill(batch)
    assert 0 < n < batch.size
    for field in ("fired_ns", "slot", "message", "node", "sequence"):
        assert not batch[field][:n].any(), field
    assert (batch[n:].view(np.uint8) == 0xAA).all()


def test_a_source_that_is_over_stays_over() -> None:
    made = source()
    run = drain(made)
    assert made.fill(np.empty(10, TRANSACTION)) == 0
    assert made.made == run.size


def test_the_opening_minute_of_the_paper_brings_its_value() -> None:
    curve = CURVES["double-eleven/paper"]
    rate = Rate.from_knots(curve.knots_s, np.array(curve.knots_value) / 10_000, (0.0, 60.0), 0.1)
    run = drain(source(Mix(), rate=rate), 65_536)
    value = np.cumsum(run["amount_minor"])
    for at_s in range(10, 61, 10):
        due = np.searchsorted(run["intended_ns"], at_s * 10**9)
        expected = float(rate.cumulative(np.array([at_s]))[0])
        assert abs(due - expected) < 4 * np.sqrt(expected)
        # A compound Poisson sum: its variance is the count times the ticket's second moment, mean² · exp(sigma²).
        assert abs(int(value[due - 1]) - expected * 10_000) < 4 * 10_000 * np.sqrt(expected * np.e)
    assert rate.total * 10_000 == pytest.approx(0.1 * curve.knots_value[1])


# ---- amounts ----


def test_the_quantile_is_the_normal_one_to_its_last_digits() -> None:
    normal = NormalDist()
    for p in [*np.linspace(1e-6, 1 - 1e-6, 2_001), 1e-10, 1e-12, 1e-15, 2.0**-53, 1 - 2.0**-53, 0.075, 0.925]:
        assert normal_quantile(float(p)) == pytest.approx(normal.inv_cdf(float(p)), rel=1e-14, abs=1e-15)


def test_amounts_drawn_in_blocks_are_those_of_the_quantiles_one_by_one() -> None:
    ticket = Ticket(10_000, 1.3)
    drawn = drain(source(Mix(), ticket=ticket, rate=Rate.constant(1e5, 0.3)), chunk=1_000)
    key = stream_key(1, Stream.TICKET)
    quantiles = [normal_quantile(uniform(key, number)) for number in range(len(drawn))]
    expected = [max(int(exp(ticket.mu + ticket.sigma * z) + 0.5), 1) for z in quantiles]
    assert drawn["amount_minor"].tolist() == expected
    assert max(map(abs, quantiles)) > 3.0


@pytest.mark.parametrize(("mean", "sigma"), [(10_000, 1.0), (10_000, 0.3), (250, 0.5), (1_000_000, 1.5)])
def test_amounts_are_whole_and_have_the_mean_that_was_asked_for(mean: int, sigma: float) -> None:
    amounts = drain(source(Mix(), ticket=Ticket(mean, sigma), rate=Rate.constant(1e5, 4.0)))["amount_minor"]
    deviation = mean * np.sqrt(np.exp(sigma**2) - 1)
    assert amounts.min() >= 1
    assert abs(amounts.mean() - mean) < 4 * deviation / np.sqrt(amounts.size)
    logs = np.log(amounts)
    assert abs(logs.std() - sigma) < 4 * sigma / np.sqrt(2 * amounts.size) + 1 / np.median(amounts) ** 2


def test_a_constant_ticket_is_always_its_mean() -> None:
    assert set(drain(source(Mix(), ticket=Ticket(777, 0.0)))["amount_minor"].tolist()) == {777}


@pytest.mark.parametrize(("mean", "sigma"), [(0, 1.0), (100, -1.0), (100, float("nan")), (10**12, 3.0)])
def test_impossible_tickets_are_refused(mean: int, sigma: float) -> None:
    with pytest.raises(ValueError, match=r"mean|sigma"):
        Ticket(mean, sigma)


# ---- parties ----


def test_every_customer_pays_as_often_as_the_next_and_only_merchants_are_paid() -> None:
    run = drain(source(Mix(), rate=Rate.constant(1e5, 4.0)))
    counts = np.bincount(run["payer"], minlength=1_000)
    assert counts.size == 1_000
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi_squared - 999) < 4 * np.sqrt(1_998)
    assert 1_000 <= run["payee"].min() <= run["payee"].max() <= 1_099


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.05, 2.0])
def test_merchants_are_paid_by_zipfs_law(exponent: float) -> None:
    run = drain(source(Mix(), parties=Parties(1_000, 100, exponent), rate=Rate.constant(1e5, 4.0)))
    counts = np.bincount(run["payee"] - np.uint32(1_000), minlength=100)
    weights = np.arange(1, 101) ** -exponent
    expected = weights / weights.sum() * run.size
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 99) < 4 * np.sqrt(198)


@law
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=200).filter(any))
def test_an_alias_table_holds_the_weights_it_was_built_from(weights: list[float]) -> None:
    table = alias_table(np.array(weights))
    n = len(weights)
    own = np.where(table[:, 1] == np.arange(n), 1.0, table[:, 0] / 2**32)
    held = own.copy()
    np.add.at(held, table[:, 1], 1.0 - own)
    assert held / n == pytest.approx(np.array(weights) / sum(weights), abs=1e-9)


def test_one_merchant_is_paid_by_all_and_many_are_no_problem() -> None:
    assert set(drain(source(Mix(), parties=Parties(1_000, 1, 1.0)))["payee"].tolist()) == {1_000}
    assert zipf_table(1_000_000, 1.05).shape == (1_000_000, 2)


def test_impossible_parties_are_refused() -> None:
    for customers, merchants, exponent in [(0, 1, 1.0), (1, 0, 1.0), (2**32, 1, 1.0), (1, 1, -1.0)]:
        with pytest.raises(ValueError, match=r"customers|exponent"):
            Parties(customers, merchants, exponent)
    with pytest.raises(ValueError, match="exponent"):
        zipf_table(10, float("inf"))
    with pytest.raises(ValueError, match="merchants"):
        zipf_table(0, 1.0)
    with pytest.raises(ValueError, match="weights"):
        alias_table(np.array([0.0, 0.0]))


# ---- kinds ----


@pytest.fixture(scope="module")
def busy() -> Batch:
    return drain(source())


def test_kinds_come_as_often_as_the_mix_says() -> None:
    mix = Mix(payment=97, refund=1, authorize=2, after_ns=1_000_000, void_share=0.1)
    run = drain(source(mix, rate=Rate.constant(1e5, 5.0)))
    shares = np.bincount(run["kind"], minlength=6) / run.size
    assert shares[Kind.REFUND] == pytest.approx(0.01, rel=0.05)
    assert shares[Kind.AUTHORIZE] == pytest.approx(0.01, rel=0.08)
    assert shares[Kind.POST] + shares[Kind.VOID] == pytest.approx(0.01, rel=0.08)
    assert shares[Kind.VOID] == pytest.approx(0.001, rel=0.25)
    assert shares[Kind.PAYMENT] == pytest.approx(0.97, rel=0.005)


def test_only_follow_ups_are_related_to_something(busy: Batch) -> None:
    assert set(busy["kind"].tolist()) == set(Kind) - {Kind.LOOKUP}
    assert not of_kind(busy, Kind.PAYMENT, Kind.AUTHORIZE)["related"].any()
    assert of_kind(busy, Kind.REFUND, Kind.POST, Kind.VOID)["related"].all()


def test_every_refund_gives_back_an_earlier_payment_once_and_in_full(busy: Batch) -> None:
    refunds = of_kind(busy, Kind.REFUND)
    payments = originals_of(busy, refunds)
    assert (payments["kind"] == Kind.PAYMENT).all()
    assert np.unique(refunds["related"]).size == refunds.size
    assert (refunds["intended_ns"] - payments["intended_ns"] >= BUSY.after_ns).all()
    assert np.array_equal(refunds["amount_minor"], payments["amount_minor"])
    assert np.array_equal(refunds["payer"], payments["payee"])
    assert np.array_equal(refunds["payee"], payments["payer"])


def test_every_post_or_void_completes_an_earlier_hold_once(busy: Batch) -> None:
    completions = of_kind(busy, Kind.POST, Kind.VOID)
    holds = originals_of(busy, completions)
    assert (holds["kind"] == Kind.AUTHORIZE).all()
    assert np.unique(completions["related"]).size == completions.size
    assert (completions["intended_ns"] - holds["intended_ns"] >= BUSY.after_ns).all()
    for field in ("amount_minor", "payer", "payee"):
        assert np.array_equal(completions[field], holds[field]), field
    voids = of_kind(busy, Kind.VOID).size / completions.size
    assert abs(voids - 0.25) < 4 * np.sqrt(0.25 * 0.75 / completions.size)


def test_refunds_stay_near_their_payments() -> None:
    mix = Mix(payment=98, refund=2, after_ns=1_000_000_000)
    run = drain(source(mix, rate=Rate.constant(10_000.0, 20.0)))
    refunds = of_kind(run, Kind.REFUND)
    age_ns = refunds["intended_ns"] - originals_of(run, refunds)["intended_ns"]
    assert age_ns.max() < 2_500_000_000
    steady = run["intended_ns"] > 2_000_000_000
    assert (run[steady]["kind"] == Kind.REFUND).mean() == pytest.approx(0.02, rel=0.1)


def test_what_has_no_original_to_follow_is_a_payment() -> None:
    early = drain(source(Mix(payment=1, refund=1, authorize=0, after_ns=10**12)))
    assert set(early["kind"].tolist()) == {Kind.PAYMENT}


def test_a_full_ring_takes_no_more_and_forgets_none() -> None:
    run = drain(source(Mix(payment=0, authorize=1, after_ns=1_000_000_000), ring=64))
    open_holds = np.cumsum(run["kind"] == Kind.AUTHORIZE) - np.cumsum(np.isin(run["kind"], (Kind.POST, Kind.VOID)))
    assert open_holds.max() == 64
    assert (run["kind"] == Kind.PAYMENT).any()
    completions = of_kind(run, Kind.POST, Kind.VOID)
    holds = of_kind(run, Kind.AUTHORIZE)
    assert np.array_equal(completions["related"], holds["id"][: completions.size])


def test_refunds_from_a_small_ring_are_still_of_earlier_payments_once() -> None:
    run = drain(source(Mix(payment=1, refund=1, after_ns=20_000_000), ring=64))
    refunds = of_kind(run, Kind.REFUND)
    assert refunds.size > 0
    assert np.unique(refunds["related"]).size == refunds.size
    assert (originals_of(run, refunds)["kind"] == Kind.PAYMENT).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"payment": -1.0},
        {"payment": 0.0},
        {"payment": float("nan")},
        {"after_ns": -1},
        {"void_share": 1.5},
    ],
)
def test_impossible_mixes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"weights|follow-up|share"):
        Mix(**wrong)


def test_a_ring_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        source(ring=1_000)


# ---- a trace ----


def test_what_a_trace_records_goes_before_what_would_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,amount,payer,payee\n0,1.23,7,5\n1,,8,\n2,4,,6\n", encoding="utf-8")
    traced = TraceArrivals(path, customers=1_000, merchants=100)
    batch = np.zeros(10, TRANSACTION)
    assert Source(traced, Workload(PARTIES, TICKET, Mix(), 1)).fill(batch) == 3
    drawn = np.zeros(3, TRANSACTION)
    Source(Regular(Rate.constant(1.0, 3.0)), Workload(PARTIES, TICKET, Mix(), 1)).fill(drawn)
    assert batch["intended_ns"][:3].tolist() == [0, 10**9, 2 * 10**9]
    assert batch["amount_minor"][:3].tolist() == [123, drawn["amount_minor"][1], 400]
    assert batch["payer"][:3].tolist() == [7, 8, drawn["payer"][2]]
    assert batch["payee"][:3].tolist() == [1_005, drawn["payee"][1], 1_006]


def test_follow_ups_of_a_trace_take_what_their_original_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = "\n".join(f"{k},{k + 1},{k},0" for k in range(500))
    path.write_text(f"timestamp,amount,payer,payee\n{rows}\n", encoding="utf-8")
    traced = TraceArrivals(path, customers=1_000, merchants=100)
    run = drain(Source(traced, Workload(PARTIES, TICKET, BUSY, 1)), 7)
    refunds = of_kind(run, Kind.REFUND)
    assert refunds.size > 0
    assert np.array_equal(refunds["amount_minor"], 100 * refunds["related"].astype(np.int64))
    assert np.array_equal(refunds["payee"], refunds["related"].astype(np.int64) - 1)
    assert set(refunds["payer"].tolist()) == {1_000}


# ---- from a scenario ----


def test_a_scenario_makes_its_transactions() -> None:
    load = {
        "rate": "5000/s",
        "arrivals": "regular",
        "accounts": 50,
        "merchants": {"count": 3, "zipf": 0.0},
        "ticket": {"mean": "8 CNY", "distribution": "constant"},
        "mix": {"authorize": 1.0},
        "follow_up": {"after": "100ms", "void_share": 1.0},
    }
    run = drain(build_source(Scenario.from_data({"name": "a", "seed": 3, "duration": "1s", "load": load})))
    assert run.size == 5_000
    assert set(run["amount_minor"].tolist()) == {800}
    assert set(run["payee"].tolist()) == {50, 51, 52}
    assert set(run["kind"].tolist()) == {Kind.AUTHORIZE, Kind.VOID}
