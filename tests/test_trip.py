"""The error-rate trip, and the hard caps of a run over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.errors import Exit
from simulator.measure.grid import seconds_grid
from simulator.measure.recorder import open_tallies
from simulator.report.summary import exit_code
from simulator.run.trip import Watch, answers_and_errors
from simulator.scenario.http_safety import MOST_CONNECTIONS, MOST_RATE_PER_S, MOST_REQUESTS, Trip
from simulator.scenario.model import Scenario
from simulator.scenario.units import format_share, parse_share
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000_000
HERE = {"targets": ["http://127.0.0.1:1"]}


def trip(**keys: Any) -> Watch:  # noqa: ANN401  whatever a scenario may say
    return Watch(Trip.model_validate({"over": "2s", "least": 10, **keys}))


def looks(watch: Watch, *seen: tuple[float, int, int]) -> list[bool]:
    return [watch.look(int(at_s * S), answers, errors) is not None for at_s, answers, errors in seen]


# ---- the trip ----


def test_too_many_errors_over_the_whole_window_trip() -> None:
    watch = trip()
    assert looks(watch, (0.5, 50, 50), (1.0, 100, 100), (1.9, 190, 190)) == [False] * 3
    tripped = watch.look(2 * S, 200, 200)
    assert tripped is not None
    assert (tripped.answers, tripped.errors, tripped.over_s, tripped.at_s) == (200, 200, 2.0, 2.0)
    assert tripped.sentence == (
        "the error-rate trip stopped the load after 2s: of 200 answers within 2s 100.0% were errors, where 50.0% are allowed "
        "(backend.http.trip)"
    )


def test_what_was_long_before_the_window_counts_neither_for_nor_against() -> None:
    watch = trip()
    good = [(at / 4, at * 100, 0) for at in range(1, 41)]  # 10 s without an error
    assert not any(looks(watch, *good))
    bad = [(10 + at / 4, 4_000 + at * 100, at * 100) for at in range(1, 9)]
    found = looks(watch, *bad)
    assert found == [False] * 3 + [True] * 5  # half of the window is bad from 11 s on
    recovered = trip()
    assert not any(looks(recovered, (1.0, 100, 100), (4.0, 10_000, 100), (7.0, 20_000, 100)))


def test_few_answers_are_no_reason_to_stop() -> None:
    assert looks(trip(), (2.0, 9, 9), (2.1, 10, 10)) == [False, True]
    assert looks(trip(least=1_000), (2.0, 999, 999)) == [False]


def test_the_share_is_the_scenarios() -> None:
    assert looks(trip(errors="90%"), (2.0, 100, 89), (2.1, 100, 90)) == [False, True]


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.integers(0, 50), st.floats(0, 0.45)), min_size=1, max_size=200))
def test_a_run_that_never_has_more_errors_than_allowed_never_trips(steps: list[tuple[float, int, float]]) -> None:
    watch, at, answers, errors = trip(), 0.0, 0, 0
    for pause_s, more, share in steps:
        at += pause_s
        answers += more
        errors += int(more * share)
        assert watch.look(int(at * S), answers, errors) is None


def test_errors_are_what_failed_what_is_in_doubt_and_where_nobody_was() -> None:
    tallies = open_tallies(seconds_grid(2), 1, 1)
    ended = tallies.by_reason
    ended[Status.OK, Reason.NONE] = 10
    ended[Status.REJECTED, Reason.FUNDS] = 20  # business
    ended[Status.REJECTED, Reason.OVERFLOW] = 40  # overload is what a run may be about
    ended[Status.DROPPED, Reason.LATE] = 1_000  # ours
    assert answers_and_errors(tallies) == (70, 0)
    ended[Status.FAILED, Reason.POISON] = 1
    ended[Status.UNKNOWN, Reason.HTTP] = 2
    ended[Status.REJECTED, Reason.NODE_DOWN] = 4
    assert answers_and_errors(tallies) == (77, 7)
    tallies.attempt_ended[Status.UNKNOWN, Reason.TIMEOUT] = 500  # retries do not hide them
    assert answers_and_errors(tallies) == (500, 500)


def test_a_tripped_run_ends_as_a_crossed_threshold_unless_something_graver_happened() -> None:
    tripped: dict[str, Any] = {
        "audit": {"verdict": "clean"}, "failure": None, "interrupted": False, "tripped": {"at_s": 1.0},
        "validity": {"verdict": "valid"}, "thresholds": [],
    }  # fmt: skip
    assert exit_code(tripped) == Exit.THRESHOLDS
    elsewhere = {"verdict": "unknown", "books": "elsewhere", "doubts": 0}
    assert exit_code({**tripped, "audit": elsewhere}) == Exit.THRESHOLDS
    assert exit_code({**tripped, "audit": {**elsewhere, "books": "undeclared"}}) == Exit.INVALID_RUN
    assert exit_code({**tripped, "validity": {"verdict": "generator-limited"}}) == Exit.INVALID_RUN
    assert exit_code({**tripped, "interrupted": True}) == Exit.INTERRUPTED
    assert exit_code({**tripped, "failure": "node 0 stopped"}) == Exit.ERROR
    assert exit_code({**tripped, "audit": {"verdict": "anomalies"}}) == Exit.ANOMALIES


# ---- in the scenario ----


def scenario(http: dict[str, Any], **keys: Any) -> Scenario:  # noqa: ANN401  as above
    data = {"name": "x", "duration": "5s", "load": {"rate": "10/s"}, "backend": {"http": {**HERE, **http}}, **keys}
    return Scenario.from_data(data)


def complaint(http: dict[str, Any], **keys: Any) -> str:  # noqa: ANN401  as above
    with pytest.raises(ValidationError) as caught:
        scenario(http, **keys)
    return str(caught.value)


def test_the_trip_is_on_where_nothing_is_said_and_can_be_switched_off() -> None:
    default = scenario({}).backend.http
    assert default is not None
    assert default.trip == Trip() == Trip.model_validate({"errors": "50%", "over": "5s", "least": 100})
    off = scenario({"trip": "off"})
    assert off.backend.http is not None
    assert off.backend.http.trip == "off"
    for made in (scenario({}), off, scenario({"trip": {"errors": "12.5%", "over": "1m30s"}})):
        assert Scenario.from_data(made.to_data()) == made


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"errors": 0.5}, "is not a share; write for example 50%"),
        ({"errors": "101%"}, "at most 100%"),
        ({"errors": "0%"}, "would stop every run"),
        ({"over": "500ms"}, "at least 1s"),
        ({"least": 0}, "greater than or equal to 1"),
    ],
)
def test_a_trip_that_makes_no_sense_is_told(keys: dict[str, Any], says: str) -> None:
    assert says in complaint({"trip": keys})


@given(st.integers(0, 10_000))
def test_a_share_is_read_back_as_it_was_written(tenth_of_permille: int) -> None:
    share = tenth_of_permille / 10_000
    assert parse_share(format_share(share)) == share
    assert parse_share(f"{tenth_of_permille / 100}%") == pytest.approx(share)


def test_hedges_belong_to_the_virtual_clock() -> None:
    client = {"hedge": {"after": "10ms"}}
    assert "hedges are sent on the virtual clock only" in complaint({}, client=client)
    assert scenario({}, client=client, clock="virtual").client.hedge is not None


# ---- the caps ----


def test_more_connections_than_the_cap_are_refused_with_both_numbers() -> None:
    said = complaint({"connections": 70_000})
    assert "70,000 connections are asked for; a run over HTTP opens at most 65,536 (a hard cap)" in said
    assert scenario({"connections": MOST_CONNECTIONS}).backend.http is not None


def checked(tmp_path: Path, *settings: str, code: int) -> str:
    path = sim_process.scenario(tmp_path / "run")
    backend = 'backend={http: {targets: ["http://127.0.0.1:1"]}}'
    ended = sim_process.call("check", str(path), *sim_process.settings(backend, *settings))
    assert ended.code == code, ended.err
    return ended.err


def test_a_rate_beyond_the_cap_is_refused_with_both_numbers(tmp_path: Path) -> None:
    said = checked(tmp_path, "load.rate=600000/s", code=104)
    assert said == (
        "sim: load.rate: 600,000/s are asked for at the peak; a run over HTTP sends at most 500,000/s (a hard cap): write a "
        "lower rate, or a smaller scale of the curve\n"
    )
    stages = "load.rate={start: 1/s, stages: [{duration: 1s, target: 500001/s}, {duration: 1s, target: 1/s}]}"
    assert "500,001/s are asked for" in checked(tmp_path, stages, "duration=2s", code=104)


def test_more_requests_than_the_cap_are_refused_and_a_day_at_fifty_thousand_a_second_is_not(tmp_path: Path) -> None:
    said = checked(tmp_path, "load.rate=100000/s", "duration=24h", code=104)
    assert (
        "about 8,640,000,000 requests are asked for; a run over HTTP sends at most 5,000,000,000 (a hard cap)" in said
    )
    checked(tmp_path, "load.rate=50000/s", "duration=24h", code=0)


def test_a_run_is_refused_before_it_starts(tmp_path: Path) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    path = sim_process.scenario(tmp_path / "run")
    backend = 'backend={http: {targets: ["http://127.0.0.1:1"]}}'
    ended = sim_process.call("run", str(path), *sim_process.settings(backend, "load.rate=600000/s"), cwd=place)
    assert ended.code == 104
    assert "a run over HTTP sends at most 500,000/s" in ended.err
    assert list(place.rglob("summary.json")) == []


def test_the_caps_leave_room_for_what_the_generator_is_made_for() -> None:
    assert MOST_RATE_PER_S >= 200_000
    assert MOST_CONNECTIONS >= 20_000
    assert MOST_REQUESTS >= 24 * 3_600 * 50_000
    assert np.iinfo(np.int64).max > MOST_REQUESTS
