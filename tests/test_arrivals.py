from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.arrivals import build_arrivals, build_rate
from simulator.arrivals.curves import CURVES
from simulator.arrivals.process import Arrivals, Mmpp, NoArrivals, Poisson, Regular
from simulator.arrivals.rate import Rate
from simulator.kernel import kernel
from simulator.scenario.model import Scenario
from simulator.seeds import Stream, bits, exponential, stream_key, uniform

Times = NDArray[np.int64]
Process = Callable[[Rate, int], Arrivals]

law = settings(deadline=None, max_examples=40)  # the first call compiles the kernels


def poisson(rate: Rate, seed: int) -> Arrivals:
    return Poisson(rate, seed)


def regular(rate: Rate, seed: int) -> Arrivals:
    return Regular(rate)


def mmpp(rate: Rate, seed: int) -> Arrivals:
    return Mmpp(rate, seed, burst=4.0, share=0.2, period_s=0.5)


def mmpp_with_a_silent_calm(rate: Rate, seed: int) -> Arrivals:
    return Mmpp(rate, seed, burst=4.0, share=0.25, period_s=0.5)


PROCESSES = [poisson, regular, mmpp, mmpp_with_a_silent_calm]
RANDOM_PROCESSES = [poisson, mmpp, mmpp_with_a_silent_calm]

RATES = {
    "constant": Rate.constant(2_000.0, 5.0),
    "ramp with a pause": Rate.stages(0.0, [(2.0, 4_000.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1_000.0)], 6.0),
    "curve": Rate.from_knots([0.0, 1.0, 3.0, 9.0], [0.0, 5_000.0, 7_000.0, 9_000.0]),
}


@pytest.fixture(params=PROCESSES)
def process(request: pytest.FixtureRequest) -> Process:
    chosen: Process = request.param
    return chosen


@pytest.fixture(params=sorted(RATES))
def rate(request: pytest.FixtureRequest) -> Rate:
    return RATES[request.param]


def drain(arrivals: Arrivals, chunk: int = 4_096) -> Times:
    chunks: list[Times] = []
    while True:
        out = np.empty(chunk, np.int64)
        n = arrivals.fill(out)
        if n == 0:
            return np.concatenate([*chunks, np.empty(0, np.int64)])
        chunks.append(out[:n])


# ---- every process ----


def test_times_lie_within_the_run_and_never_decrease(process: Process, rate: Rate) -> None:
    times = drain(process(rate, 1))
    assert times.size > 0
    assert times.min() >= 0
    assert times.max() < rate.duration_s * 1e9
    assert (np.diff(times) >= 0).all()


def test_a_run_that_is_over_stays_over(process: Process, rate: Rate) -> None:
    arrivals = process(rate, 1)
    drain(arrivals)
    assert arrivals.fill(np.empty(10, np.int64)) == 0


def test_all_that_fits_is_filled_until_the_run_ends(process: Process) -> None:
    arrivals = process(Rate.constant(1e5, 5.0), 1)
    assert arrivals.fill(np.empty(20_000, np.int64)) == 20_000


def test_asking_for_nothing_takes_nothing(process: Process, rate: Rate) -> None:
    asked, plain = process(rate, 1), process(rate, 1)
    assert asked.fill(np.empty(0, np.int64)) == 0
    assert np.array_equal(drain(asked), drain(plain))


@law
@given(
    st.sampled_from(PROCESSES),
    st.sampled_from(list(RATES.values())),
    st.integers(0, 2**64),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=6),
)
def test_the_schedule_does_not_depend_on_how_many_are_asked_for(
    process: Process, rate: Rate, seed: int, sizes: list[int]
) -> None:
    whole = drain(process(rate, seed), 100_000)
    arrivals, chunks, k = process(rate, seed), [], 0
    while True:
        out = np.empty(sizes[k % len(sizes)] if k < 500 else 100_000, np.int64)
        n = arrivals.fill(out)
        if n == 0:
            break
        chunks.append(out[:n])
        k += 1
    assert np.array_equal(np.concatenate([*chunks, whole[:0]]), whole)


def test_the_same_seed_gives_the_same_schedule(process: Process, rate: Rate) -> None:
    assert drain(process(rate, 7)).tobytes() == drain(process(rate, 7)).tobytes()


@pytest.mark.parametrize("process", RANDOM_PROCESSES)
def test_another_seed_gives_another_schedule(process: Process, rate: Rate) -> None:
    assert drain(process(rate, 7)).tobytes() != drain(process(rate, 8)).tobytes()


def test_nothing_arrives_while_the_rate_is_zero(process: Process) -> None:
    times = drain(process(RATES["ramp with a pause"], 3))
    assert not ((times > 2e9) & (times < 3e9)).any()
    assert (times >= 3e9).any()


def test_a_rate_of_zero_brings_nothing(process: Process) -> None:
    assert drain(process(Rate.constant(0.0, 5.0), 1)).size == 0


# ---- each of them ----


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(CURVES))
def test_poisson_counts_at_the_knots_are_those_of_the_curve(name: str, seed: int) -> None:
    curve = CURVES[name]
    rate = Rate.from_knots(curve.knots_s, np.array(curve.knots_value) / 10_000, scale=1e-3)
    times = drain(Poisson(rate, seed), 65_536)
    for at_s, value in zip(curve.knots_s[1:], curve.knots_value[1:], strict=True):
        expected = value / 10_000 * 1e-3
        assert abs(np.searchsorted(times, at_s * 1e9) - expected) < 4 * np.sqrt(expected)


def test_poisson_gaps_in_expected_count_are_unit_exponentials(rate: Rate) -> None:
    gaps = np.concatenate([np.diff(rate.cumulative(drain(Poisson(rate, seed)) * 1e-9)) for seed in range(10)])
    share_below = np.searchsorted(np.sort(gaps), grid := np.linspace(0.05, 5.0, 100)) / gaps.size
    # Kolmogorov's statistic: 1.95 / √n is passed by chance once in a thousand.
    assert np.abs(share_below - (1.0 - np.exp(-grid))).max() < 1.95 / np.sqrt(gaps.size)


def test_poisson_counts_of_disjoint_intervals_scatter_as_their_mean() -> None:
    counts = np.bincount(drain(Poisson(Rate.constant(20_000.0, 50.0), 5)) // 10_000_000, minlength=5_000)
    dispersion = counts.var() / counts.mean()
    assert abs(dispersion - 1.0) < 4 * np.sqrt(2 / counts.size)


def test_regular_arrivals_are_evenly_spaced_and_exactly_as_many_as_asked_for() -> None:
    times = drain(Regular(Rate.constant(1_000.0, 2.0)))
    assert times.tolist() == list(range(0, 2_000_000_000, 1_000_000))


def test_regular_arrivals_follow_the_rate_to_the_nearest_one(rate: Rate) -> None:
    times = drain(Regular(rate))
    assert times.size == np.ceil(rate.total)
    # The time is rounded to the nanosecond, in which the rate adds next to nothing.
    assert rate.cumulative(times * 1e-9) == pytest.approx(np.arange(times.size), abs=1e-3)


def test_bursts_keep_the_mean_rate_and_scatter_more_than_poisson() -> None:
    rate = Rate.constant(500.0, 20.0)
    counts = np.array([drain(Mmpp(rate, seed, burst=4.0, share=0.2, period_s=0.5)).size for seed in range(300)])
    assert abs(counts.mean() - rate.total) < 4 * counts.std() / np.sqrt(counts.size)
    assert counts.var() > 5 * rate.total


def test_bursts_take_their_share_of_the_time_from_the_start() -> None:
    # With a silent calm each arrival marks a burst: the share of runs that start within one is the share of time.
    rate = Rate.constant(100_000.0, 0.01)
    begins = [drain(Mmpp(rate, seed, burst=4.0, share=0.25, period_s=10.0)).size > 500 for seed in range(600)]
    assert abs(np.mean(begins) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(begins))


@pytest.mark.parametrize(
    ("burst", "share", "period_s"),
    [(0.5, 0.1, 1.0), (4.0, 0.3, 1.0), (2.0, 0.0, 1.0), (2.0, 1.0, 1.0), (2.0, 0.1, 0.0)],
)
def test_bursts_that_cannot_be_are_refused(burst: float, share: float, period_s: float) -> None:
    with pytest.raises(ValueError, match=r"a burst is|a period is"):
        Mmpp(Rate.constant(1.0, 1.0), 1, burst=burst, share=share, period_s=period_s)


def test_the_noop_brings_nothing() -> None:
    assert NoArrivals().fill(np.empty(10, np.int64)) == 0


# ---- from a scenario ----


def scenario(**load: object) -> Scenario:
    return Scenario.from_data({"name": "a", "duration": "2s", "load": {"accounts": 100, **load}})


def test_a_scenarios_curve_counts_its_value_over_the_mean_ticket() -> None:
    rate = build_rate(
        Scenario.from_data(
            {
                "name": "a",
                "load": {
                    "rate": {"curve": "double-eleven/paper", "window": ["0s", "60s"], "scale": 0.5},
                    "ticket": {"mean": "50 CNY"},
                },
            }
        )
    )
    assert rate.duration_s == 60
    assert rate.total == pytest.approx(525e6 / 50 * 0.5)


def test_a_scenarios_duration_cuts_its_stages() -> None:
    rate = build_rate(scenario(rate={"start": "100/s", "stages": [{"duration": "4s", "target": "500/s"}]}))
    assert (rate.duration_s, rate.total) == (2.0, 400.0)


def test_a_scenarios_arrivals_are_of_the_kind_it_names() -> None:
    assert isinstance(build_arrivals(scenario(rate="100/s")), Poisson)
    assert isinstance(build_arrivals(scenario(rate="100/s", arrivals="regular")), Regular)
    assert isinstance(build_arrivals(scenario(rate="100/s", arrivals="mmpp")), Mmpp)
    arrivals = build_arrivals(scenario(rate="100/s", arrivals={"mmpp": {"burst": 2.0, "share": 0.5, "period": "1s"}}))
    assert isinstance(arrivals, Mmpp)
    assert drain(build_arrivals(scenario(rate="100/s", arrivals="regular"))).size == 200


# ---- the seed tree ----


@kernel
def fill_uniform(key: np.uint64, out: NDArray[np.float64]) -> None:
    for k in range(out.size):
        out[k] = uniform(key, k)


def draws(stream: Stream, seed: int = 1, n: int = 200_000) -> NDArray[np.float64]:
    out = np.empty(n)
    fill_uniform(stream_key(seed, stream), out)
    return out


def test_values_are_those_of_splitmix64() -> None:
    # The first outputs of the reference implementation from the state 0.
    assert [int(bits(np.uint64(0), k)) for k in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@pytest.mark.parametrize("stream", Stream)
def test_a_stream_is_uniform(stream: Stream) -> None:
    values = draws(stream)
    assert 0.0 < values.min() < values.max() < 1.0
    cells = 1_000
    expected = values.size / cells
    observed = np.bincount((values * cells).astype(np.int64), minlength=cells)
    chi_squared = ((observed - expected) ** 2 / expected).sum()
    # With 999 degrees of freedom: mean 999, standard deviation √1998.
    assert abs(chi_squared - 999) < 4 * np.sqrt(1_998)


def test_streams_and_neighbours_and_seeds_are_uncorrelated() -> None:
    rows = [draws(stream) for stream in Stream]
    rows += [np.roll(rows[0], 1), draws(Stream.ARRIVALS, seed=2)]
    correlations = np.triu(np.corrcoef(rows), 1)
    assert np.abs(correlations).max() < 4.5 / np.sqrt(rows[0].size)


def test_each_stream_of_each_seed_has_a_key_of_its_own() -> None:
    keys = {int(stream_key(seed, stream)) for seed in (0, 1, 2, 2**63, 2**64 + 1) for stream in Stream}
    assert len(keys) == 5 * len(Stream)


def test_keys_stay_what_they_are_from_version_to_version() -> None:
    sequence = np.random.SeedSequence(20191111, spawn_key=(1,))
    assert stream_key(20191111, Stream.ARRIVALS) == sequence.generate_state(1, np.uint64)[0]
    first = ["ARRIVALS", "MMPP", "PAYER", "PAYEE", "TICKET", "KIND", "FOLLOW_UP", "BALANCER", "FAULTS"]
    assert {name: Stream[name].value for name in first} == {name: number for number, name in enumerate(first, 1)}
    assert len({stream.value for stream in Stream}) == len(Stream)


@law
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_a_uniform_is_never_0_or_1_and_an_exponential_is_finite(key: int, index: int) -> None:
    assert 0.0 < uniform(np.uint64(key), index) < 1.0
    assert 0.0 < exponential(np.uint64(key), index) < 37.0


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        stream_key(-1, Stream.PAYER)
