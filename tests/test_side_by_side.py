from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  a module of scripts
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("http_tools")


@pytest.fixture
def bench(tools: Any) -> Any:  # noqa: ANN401  as above
    return import_module("http_side_by_side")


@pytest.fixture
def row(tools: Any) -> Callable[..., Any]:  # noqa: ANN401  as above
    def make(achieved: float, **fields: float) -> Any:  # noqa: ANN401  a Row
        known: dict[str, Any] = dict.fromkeys(("asked_per_s", "share", "p50_ms", "p99_ms", "p999_ms", "cpu_us"))
        return tools.Row(**{"tool": "x", "mode": "open", "achieved_per_s": achieved, **known, **fields})

    return make


def test_what_wrk_says_is_read_without_its_errors(tools: Any) -> None:  # noqa: ANN401  as above
    said = {"requests": 1_000, "bad": 100, "duration_us": 500_000, "p50": 120.0, "p99": 900.0, "p999": 2_000.0}
    found = tools.read_wrk(f"Running\nRESULT {json.dumps(said)}\n", 0.01)
    assert (found.achieved_per_s, found.p50_ms, found.p99_ms, found.p999_ms) == (1_800.0, 0.12, 0.9, 2.0)
    assert found.cpu_us == pytest.approx(10.0)


def test_what_k6_says_is_held_against_what_was_due(tools: Any) -> None:  # noqa: ANN401  as above
    metrics = {
        "http_reqs": {"count": 950}, "http_req_failed": {"passes": 50, "fails": 900},
        "http_req_duration": {"med": 0.2, "p(99)": 3.0, "p(99.9)": 9.0},
    }  # fmt: skip
    found = tools.read_k6({"metrics": metrics}, 500.0, 2.0, 0.1)
    assert (found.share, found.achieved_per_s, found.p99_ms) == (0.9, 450.0, 3.0)


def test_what_locust_says_is_read_from_the_end_of_its_output(tools: Any) -> None:  # noqa: ANN401  as above
    said = [
        {
            "num_requests": 100, "num_failures": 10, "start_time": 5.0, "last_request_timestamp": 7.0,
            "response_times": {"1.0": 98, "30.0": 2},
        }
    ]  # fmt: skip
    found = tools.read_locust(json.dumps(said), 0.5)
    assert (found.achieved_per_s, found.p50_ms, found.p99_ms) == (45.0, 1.0, 30.0)


def test_what_cannot_be_read_is_said(tools: Any) -> None:  # noqa: ANN401  as above
    with pytest.raises(SystemExit, match="wrk said nothing that can be read: connection refused"):
        tools.read_wrk("connection refused", 0.0)
    with pytest.raises(SystemExit, match="locust said nothing"):
        tools.read_locust("", 0.0)


def test_the_highest_rate_is_found_by_bisection(
    bench: Any,  # noqa: ANN401  as above
    row: Callable[..., Any],
) -> None:
    for most in (25_000, 70_000, 97_000):
        found = bench.highest(lambda rate, most=most: row(rate, share=float(rate <= most)), 100_000, bench.is_valid)
        assert most - 2_500 <= found.achieved_per_s <= most
    assert bench.highest(lambda rate: row(rate, share=0.5), 100_000, bench.is_valid) is None


def test_a_rate_has_a_second_try_and_no_third(bench: Any, row: Callable[..., Any]) -> None:  # noqa: ANN401  as above
    asked: list[float] = []

    def unlucky(rate: float) -> Any:  # noqa: ANN401  a Row
        asked.append(rate)
        return row(rate, share=1.0 if asked.count(rate) == 2 and rate < 90_000 else 0.9)

    assert 87_500 <= bench.highest(unlucky, 100_000, bench.is_valid).achieved_per_s < 90_000
    assert max(asked.count(rate) for rate in asked) == 2


def test_a_rate_that_was_kept_late_is_not_valid(bench: Any, row: Callable[..., Any]) -> None:  # noqa: ANN401  as above
    assert bench.is_valid(row(1.0, share=0.999, lag_p99_ms=1.0))
    assert not bench.is_valid(row(1.0, share=1.0, lag_p99_ms=1.1))
    assert not bench.is_valid(row(1.0, share=0.998))


def test_goals_are_judged_by_medians_and_what_is_missing_is_not_met(
    bench: Any,  # noqa: ANN401  as above
    row: Callable[..., Any],
) -> None:
    rounds = [
        {
            "wrk closed": row(100.0), "ours closed": row(closed), "ours highest": row(60.0), "k6 highest": row(15.0),
            "ours goal": row(50.0, share=1.0, p99_ms=3.0, lag_p99_ms=0.5),
        }
        for closed in (60.0, 80.0, 90.0)
    ]  # fmt: skip
    found = {goal.name: goal.met for goal in bench.goals(rounds)}
    assert list(found.values()) == [True, None, True, True, False, True]  # k6, Locust, wrk, share, response, lag
    assert bench.goals(rounds)[2].found == pytest.approx(0.8)


def test_nginx_writes_only_into_its_folder(tools: Any) -> None:  # noqa: ANN401  as above
    text = tools.configuration(Path("/somewhere"), 4_711)
    assert "listen 127.0.0.1:4711" in text
    assert text.count("/somewhere/") == 6
    assert len(tools.BODY) == 41
