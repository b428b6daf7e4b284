from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.arrivals import build_arrivals, build_rate
from simulator.arrivals.trace import MOST_KNOTS, TraceArrivals, TraceInfo, scan
from simulator.errors import ScenarioError
from simulator.scenario.model import Scenario

if TYPE_CHECKING:
    from pathlib import Path

# The folder is shared between the examples of one test; each writes its file anew.
law = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def replay(path: Path, chunk: int = 1_000, speed: float = 1.0, duration_ns: int | None = None) -> list[int]:
    arrivals = TraceArrivals(path, speed=speed, duration_ns=duration_ns)
    out = np.empty(chunk, np.int64)
    times: list[int] = []
    while n := arrivals.fill(out):
        times += out[:n].tolist()
    return times


# ---- times ----


def test_times_count_from_the_first_row(path: Path) -> None:
    write(path, "timestamp", "1573401600.000000001", "1573401600.5", "1573401601")
    assert replay(path) == [0, 499_999_999, 999_999_999]


@pytest.mark.parametrize(
    ("first", "second", "gap_ns"),
    [
        ("0", "0.000000001", 1),
        ("-1.5", "1.5", 3_000_000_000),
        ("2019-11-11T00:00:00+08:00", "2019-11-11T00:00:00.25+08:00", 250_000_000),
        ("2019-11-10T23:59:59.999999999Z", "2019-11-11 00:00:00Z", 1),
        ("2019-11-11T00:00:00+08:00", "2019-11-10T16:00:01Z", 1_000_000_000),
        ("2019-11-11T00:00", "2019-11-11T00:01", 60_000_000_000),
        ("1969-12-31T23:59:59.75", "1970-01-01T00:00:00", 250_000_000),
    ],
)
def test_timestamps_are_read_to_the_nanosecond(path: Path, first: str, second: str, gap_ns: int) -> None:
    assert replay(write(path, "timestamp", first, second)) == [0, gap_ns]


@law
@given(
    gaps=st.lists(st.integers(0, 10**12), max_size=40),
    start=st.integers(0, 2 * 10**18),
    speed=st.sampled_from([1.0, 0.1, 3.0, 10.0, 0.7]),
)
def test_replayed_times_are_exact_at_any_speed(path: Path, gaps: list[int], start: int, speed: float) -> None:
    times = [start + sum(gaps[:k]) for k in range(len(gaps) + 1)]
    write(path, "timestamp", *(f"{at // 10**9}.{at % 10**9:09d}" for at in times))
    assert replay(path, speed=speed) == [int((at - start) / Fraction(str(speed))) for at in times]


@law
@given(gaps=st.lists(st.integers(0, 10**9), max_size=60), chunk=st.integers(1, 70))
def test_the_replay_does_not_depend_on_how_many_are_asked_for(path: Path, gaps: list[int], chunk: int) -> None:
    times = np.cumsum([0, *gaps])
    write(path, "timestamp", *(f"{at // 10**9}.{at % 10**9:09d}" for at in times.tolist()))
    assert replay(path, chunk) == replay(path) == times.tolist()


def test_rows_at_or_after_the_duration_are_left_out(path: Path) -> None:
    write(path, "timestamp", "0", "1", "2", "3")
    assert replay(path, duration_ns=2_000_000_000) == [0, 1_000_000_000]
    assert replay(path, speed=2.0, duration_ns=1_000_000_001) == [0, 500_000_000, 1_000_000_000]


# ---- what else a row says ----


def recorded(path: Path, customers: int = 10, merchants: int = 5) -> list[tuple[int, int, int]]:
    arrivals = TraceArrivals(path, customers=customers, merchants=merchants)
    n = arrivals.fill(np.empty(100, np.int64))
    said = arrivals.recorded
    assert said.amount_minor.size == said.payer.size == said.payee.size == n
    return list(zip(said.amount_minor.tolist(), said.payer.tolist(), said.payee.tolist(), strict=True))


def test_amounts_and_numbers_of_parties_are_kept(path: Path) -> None:
    write(path, "payee,amount,timestamp,payer", "4,12.5,0,9", "0,0.01 CNY,0,0", "1,100,1,3")
    assert recorded(path) == [(1_250, 9, 14), (1, 0, 10), (10_000, 3, 11)]


def test_what_a_row_leaves_empty_is_not_recorded(path: Path) -> None:
    assert recorded(write(path, "timestamp,amount,payer,payee", "0,,,", "1, ,2,")) == [(-1, -1, -1), (-1, 2, -1)]
    assert recorded(write(path, "timestamp", "0")) == [(-1, -1, -1)]


def test_names_are_hashed_onto_the_parties_always_the_same_way(path: Path) -> None:
    write(path, "timestamp,payer,payee", "0,alice,shop-1", "1,bob,shop-2", "2,alice,shop-1")
    first, second, third = recorded(path, 1_000_000, 1_000)
    assert first == third
    assert first != second
    assert 0 <= first[1] < 1_000_000 <= first[2] < 1_001_000
    # blake2b's first 8 bytes, big-endian: the same on every machine and in every version.
    assert first[1] == 0x4DEAEC0CCE54DA89 % 1_000_000


# ---- a scan ----


def test_a_scan_says_what_is_there(path: Path) -> None:
    info = scan(write(path, "timestamp,payer", "10,a", "", "10.5,b", "12,a"))
    assert info == TraceInfo(
        rows=3,
        first="10",
        last="12",
        duration_ns=2_000_000_001,
        columns=("timestamp", "payer"),
        knots_ns=(0, 500_000_000, 2_000_000_001),
        knots_count=(0, 2, 3),
    )


def test_a_trace_of_one_row_has_a_rate(path: Path) -> None:
    info = scan(write(path, "timestamp", "5"))
    assert (info.rows, info.duration_ns, info.rate().total) == (1, 1, 1.0)


@law
@given(n=st.integers(1, 6_000), seed=st.integers(0, 100))
def test_a_scan_keeps_a_bounded_number_of_knots_that_lie_on_the_count(path: Path, n: int, seed: int) -> None:
    times = np.cumsum(np.random.default_rng(seed).integers(0, 3, n))
    write(path, "timestamp", *map(str, times.tolist()))
    info = scan(path)
    knots = np.array(info.knots_ns)
    assert knots.size <= MOST_KNOTS + 1
    assert (np.diff(knots) > 0).all()
    assert info.knots_count[0] == 0
    assert info.knots_count[-1] == info.rows == n
    since_first_ns = (times - times[0]) * 1_000_000_000
    assert (np.array(info.knots_count[1:]) <= np.searchsorted(since_first_ns, knots[1:], side="right")).all()
    assert (np.array(info.knots_count[1:]) > np.searchsorted(since_first_ns, knots[1:] - 1)).all() or n == 1
    assert info.rate(2.0).duration_s == pytest.approx(info.duration_ns / 2e9)


# ---- what is refused, and where ----


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: the file is empty"),
        ("timestamp\n", ":1: the trace has no rows"),
        ("amount\n1\n", ":1: column timestamp is missing"),
        ("timestamp,colour\n1,red\n", ":1: unknown column 'colour'; the columns are timestamp, amount, payer, payee"),
        ("timestamp,timestamp\n1,1\n", ":1: column timestamp is there twice"),
        ("timestamp\n1\n2\n1.9\n", ":4: timestamp '1.9' is before the row above it"),
        ("timestamp\n1\n\n2,3\n", ":4: 2 cells where the header names 1 columns"),
        ("timestamp,payer\n1\n", ":2: 1 cells where the header names 2 columns"),
        ("timestamp\n1\nyesterday\n", ":3: timestamp 'yesterday' is neither"),
        ("timestamp\n1e9\n", ":2: timestamp '1e9' is neither"),
        ("timestamp\n1.0123456789\n", ":2: timestamp '1.0123456789' is neither"),
        ("timestamp,payer\n,1\n", ":2: timestamp '' is neither"),
        ("timestamp\n2019-02-30T00:00:00\n", ":2: timestamp '2019-02-30T00:00:00' is no date and time"),
        ("timestamp\n1\n2019-11-11T00:00:00Z\n", ":3: timestamp '2019-11-11T00:00:00Z' is ISO 8601 with an"),
        ("timestamp\n2019-11-11T00:00Z\n2019-11-11T00:01\n", ":3: timestamp '2019-11-11T00:01' is ISO 8601 without"),
        ("timestamp,amount\n1,1.005\n", ":2: amount: "),
        ("timestamp,amount\n1,-5\n", ":2: amount: "),
        ("timestamp,amount\n1,5 USD\n", ":2: amount: "),
        ("timestamp,amount\n1,0\n", ":2: amount '0' moves nothing"),
        ("timestamp,payer\n1,9\n2,10\n", ":3: payer 10 is out of range; this scenario's are 0 to 9"),
        ("timestamp,payee\n1,5\n", ":2: payee 5 is out of range; this scenario's are 0 to 4"),
        ('timestamp,payer\n1,"open\n', ":2: not CSV"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(path: Path, text: str, complaint: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as scanned:
        scan(path, customers=10, merchants=5)
    assert str(scanned.value).startswith(f"{path}{complaint}")
    with pytest.raises(ScenarioError) as replayed:
        TraceArrivals(path, customers=10, merchants=5).fill(np.empty(100, np.int64))
    assert str(replayed.value) == str(scanned.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        scan(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        scan(path.parent)
    path.write_bytes(b"timestamp,payer\n1,\xff\n")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        scan(path)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_speed_is_refused(path: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        TraceArrivals(path, speed=speed)


# ---- from a scenario ----


def test_a_scenario_plans_and_replays_a_trace(path: Path) -> None:
    write(path, "timestamp,payer", "0,7", "1,8", "4,9")
    load = {"rate": {"trace": str(path), "speed": 2.0}, "accounts": 16}
    scenario = Scenario.from_data({"name": "a", "load": load})
    rate = build_rate(scenario)
    assert rate.total == 3.0
    assert rate.duration_s == pytest.approx(2.0)
    out = np.empty(10, np.int64)
    assert out[: build_arrivals(scenario).fill(out)].tolist() == [0, 500_000_000, 2_000_000_000]
    shorter = Scenario.from_data({"name": "a", "duration": "1s", "load": load})
    assert build_rate(shorter).duration_s == 1.0
    assert build_arrivals(shorter).fill(out) == 2


def test_a_scenario_checks_the_whole_trace_when_it_plans(path: Path) -> None:
    write(path, "timestamp,payer", "0,7", "1,16")
    scenario = Scenario.from_data({"name": "a", "load": {"rate": {"trace": str(path)}, "accounts": 16}})
    with pytest.raises(ScenarioError, match=":3: payer 16 is out of range"):
        build_rate(scenario)
