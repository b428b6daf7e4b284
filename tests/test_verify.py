from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from simulator.balancer import policy
from simulator.engine.virtual import direct, stations
from simulator.engine.virtual.simulation import Results
from simulator.engine.virtual.stations import Observed, Queue, observe
from simulator.measure.windows import SparseHistograms, WindowHistograms
from simulator.transaction import Status
from simulator.verify import cases
from simulator.verify.cases import CASES
from simulator.verify.interval import Interval
from simulator.verify.judge import Case, Sample, Verdict, judge, verify
from simulator.verify.table import closing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.engine.virtual.tally import Virtual
    from simulator.measure.recorder import Tallies

SCALE = 0.04  # enough to tell these bugs from the truth


def case(name: str) -> Case:
    (found,) = [case for case in CASES if case.name == name]
    return found


def judged(name: str, scale: float = SCALE) -> list[Verdict]:
    return verify([case(name)], seed=7, scale=scale, replications=8)


def failed(verdicts: list[Verdict]) -> set[str]:
    return {verdict.quantity for verdict in verdicts if not verdict.passed}


@pytest.mark.parametrize("name", ["M/M/1 ρ 0.5", "two choices, distinct of 2 ρ 0.9", "tandem, λ .5, μ 1 and .8"])
def test_the_engine_agrees_with_theory(name: str) -> None:
    assert failed(judged(name)) == set()


def planted(monkeypatch: pytest.MonkeyPatch, bug: Callable[[Observed], Observed]) -> None:
    def buggy(queue: Queue, **options: Any) -> Observed:  # noqa: ANN401  passed on
        return bug(observe(queue, **options))

    monkeypatch.setattr(cases, "observe", buggy)


def test_drawing_with_replacement_where_it_should_be_without_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(policy.POLICIES, "p2c_distinct", policy.POLICIES["p2c"])
    assert failed(judged("two choices, distinct of 3 ρ 0.8", scale=0.2)) == {"mean T ÷ exact"}


def test_time_taken_from_the_start_of_service_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda seen: replace(seen, time_s=seen.time_s - seen.wait_s))
    assert {"mean T", "p50 T", "p99 T"} <= failed(judged("M/M/1 ρ 0.5"))


def test_a_policy_that_looks_at_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(policy.POLICIES, "jsq", policy.POLICIES["random"])
    assert failed(judged("joining the shortest of 2 ρ 0.9")) == {"mean T ÷ exact"}


def test_one_customer_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(seen: Observed) -> Observed:
        first = dataclasses.replace(seen.little[0], left=seen.little[0].left - 1)
        return replace(seen, little=[first, *seen.little[1:]])

    planted(monkeypatch, lose)
    assert "customers in = out" in failed(judged("M/M/1 ρ 0.5"))


def test_the_number_in_the_system_off_by_a_part_in_a_million_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def drift(seen: Observed) -> Observed:
        first = dataclasses.replace(seen.little[0], mean_number=seen.little[0].mean_number * (1 + 1e-6))
        return replace(seen, little=[first, *seen.little[1:]])

    planted(monkeypatch, drift)
    assert failed(judged("M/M/1 ρ 0.5")) == {"L = λT, nodes"}


# ---- judging ----


def samples(*values: float) -> list[Sample]:
    return [Sample({"x": value}) for value in values]


def made(expected: float, precision: float = 0.5) -> Case:
    return Case("made", {"x": expected}, lambda seed, number: Sample({}), 1, precision)  # noqa: ARG005  never called


def test_a_truth_outside_the_interval_fails_and_says_by_how_much() -> None:
    (verdict,) = judge(made(20.0), samples(9.0, 10.0, 11.0), 0.95, 0.5)
    assert not verdict.passed
    assert "-50.00%" in verdict.why


def test_an_interval_too_wide_to_say_anything_fails() -> None:
    (verdict,) = judge(made(10.0), samples(1.0, 10.0, 19.0), 0.95, 0.03)
    assert not verdict.passed
    assert "proves nothing" in verdict.why


def test_a_verification_can_be_repeated() -> None:
    first, again = (judged("M/M/1 ρ 0.5", scale=0.01) for _ in range(2))
    assert first == again


def test_the_verdict_is_a_sentence() -> None:
    good = Verdict("a", "x", 1.0, Interval(1.0, 0.1), passed=True)
    bad = Verdict("b", "x", 1.0, Interval(2.0, 0.1), passed=False, why="off")
    assert closing([good, good]) == "The engine agrees with theory in all 2 checks."
    assert closing([good, bad]) == "The engine disagrees with theory in 1 of 2 checks: b."


# ---- bugs in the engine itself ----


def test_a_source_whose_instants_are_shifted_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stations.Customers.fill

    def late(self: stations.Customers, batch: NDArray[Any]) -> int:
        count = made(self, batch)
        batch["intended_ns"][:count] += batch["intended_ns"][:count] // 20  # a clock that is 5 % slow
        return count

    monkeypatch.setattr(stations.Customers, "fill", late)
    assert "mean wait" in failed(judged("M/M/1 ρ 0.8", scale=0.2))


@pytest.mark.parametrize("name", ["M/M/2 ρ 0.8", "M/M/2 ρ 0.8, general engine"])
def test_a_histogram_that_is_off_by_one_bucket_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = WindowHistograms.finish

    def shifted(self: WindowHistograms) -> SparseHistograms:
        found = whole(self)
        found.pairs["bucket"] += 1
        return found

    monkeypatch.setattr(WindowHistograms, "finish", shifted)
    assert failed(judged(name, scale=0.01)) >= {"recorded mean", "recorded p99"}


@pytest.mark.parametrize("name", ["M/M/1 ρ 0.8", "M/M/1 ρ 0.8, general engine"])
def test_the_kernel_given_another_rule_than_the_policy_has_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not failed(judged(name, scale=0.01)) & {"recorded mean", "recorded p99", "ok counted"}
    monkeypatch.setattr(stations, "settings_of", lambda _: policy.settings_of("random"))
    assert failed(judged("two choices, distinct of 2 ρ 0.9", scale=0.1)) == {"mean T ÷ exact"}


def test_an_answer_that_the_tallies_miss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Results.tallies

    def short(self: Results) -> Tallies:
        found = whole(self)
        found.answered[0, Status.OK] -= 1
        return found

    monkeypatch.setattr(Results, "tallies", short)
    assert failed(judged("M/M/1 ρ 0.5", scale=0.01)) >= {"ok counted"}


@pytest.mark.parametrize(
    ("array", "found"),
    [
        ("node_sent", "nodes: "), ("node_times", "nodes: "), ("node_busy_ns", "∫ number dt"), ("node_queue_ns", "∫ number dt"),
    ],
)  # fmt: skip
def test_on_the_direct_path_an_array_that_is_off_by_one_unbalances_the_books(
    monkeypatch: pytest.MonkeyPatch, array: str, found: str
) -> None:
    whole = direct.complete
    seen: list[Results] = []
    tallies = Results.tallies

    def spoiled(virtual: Virtual) -> None:
        getattr(virtual, array)[0, 0] += 1
        whole(virtual)

    def kept(self: Results) -> Tallies:
        seen.append(self)
        return tallies(self)

    monkeypatch.setattr(direct, "complete", spoiled)
    monkeypatch.setattr(Results, "tallies", kept)
    observe(case_queue(), customers=2_000)
    assert any(found in text for text in seen[0].unbalanced())


def case_queue() -> Queue:
    return Queue(rate_per_s=500.0, service=stations.exponential(1e-3))
