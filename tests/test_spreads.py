"""What lies between single runs: assumed by how busy the machine was, or measured by repeated runs; the output says which."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import fake_run
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import synthetic

from simulator.cli import main
from simulator.compare.effects import by_blocks
from simulator.compare.metric import Metric
from simulator.compare.sides import side_of
from simulator.compare.spreads import assumed, measured
from simulator.compare.stored import spread_for
from simulator.compare.welch import combined

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

P50, P97, P99, P999 = (Metric("response_time", "p", percent) for percent in (50.0, 97.0, 99.0, 99.9))
GOODPUT, REJECTED = Metric("throughput", "mean"), Metric("rejected", "rate")


def taken(others: float | None, steal: float = 0.0) -> dict[str, Any]:
    return {"noise": {"others_share": others, "steal_share": steal}}


# ---- sums of variances ----


@given(st.lists(st.tuples(st.integers(1, 1_000), st.integers(1, 500)), min_size=1, max_size=4))
def test_a_sum_is_as_sure_as_its_parts(parts: list[tuple[int, int]]) -> None:
    variance, freedom = combined(parts)
    assert variance == pytest.approx(sum(part for part, _ in parts))
    assert min(f for _, f in parts) * 0.999 <= freedom <= sum(f for _, f in parts) * 1.001


# ---- assumed ----


def test_the_busier_the_machine_the_more_runs_are_taken_to_differ() -> None:
    own, some, most = (assumed([taken(0.0), taken(others)]) for others in (0.02, 0.3, 0.8))
    for metric in (P50, P99, P999):
        assert own.of(metric, 1.0) < some.of(metric, 1.0) or metric is not P50
        assert own.of(metric, 1.0) <= some.of(metric, 1.0) < most.of(metric, 1.0)
    assert "the runs' own" in own.told([P50])
    assert "others had up to 30% of the machine" in some.told([P50])
    assert assumed([taken(0.0, steal=0.4), taken(0.0)]).of(P50, 1.0) > own.of(P50, 1.0)


def test_a_machine_of_which_nothing_is_known_is_not_taken_for_ones_own() -> None:
    for unknown in ({}, {"noise": None}, taken(None), {"noise": {"others_share": "much"}}):
        found = assumed([taken(0.0), unknown])
        assert found.of(P50, 1.0) > assumed([taken(0.0)]).of(P50, 1.0)
        assert "is not known" in found.told([P50])


def test_goodput_of_an_overloaded_run_is_how_fast_the_machine_was() -> None:
    calm, overloaded = (assumed([taken(0.0)], overloaded=beyond) for beyond in (False, True))
    assert calm.of(GOODPUT, 1.0) < overloaded.of(GOODPUT, 1.0) == overloaded.of(P50, 1.0)


def test_what_is_assumed_is_added_to_what_blocks_of_time_show() -> None:
    random = np.random.default_rng(1)
    run, baseline = (synthetic(random) for _ in range(2))
    spread = assumed([taken(0.0)])
    simulated = by_blocks(run, baseline, P99, paired=True, spread=None)
    real = by_blocks(run, baseline, P99, paired=True, spread=spread)
    assert real.error**2 == pytest.approx(simulated.error**2 + 2 * spread.of(P99, 1.0) ** 2)
    assert spread.widen(P99, 1.0, None) is None  # too few blocks: they may hide anything
    assert spread.of(REJECTED, 0.02) == pytest.approx(0.005)


# ---- measured ----


def repeated(values: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "response_time_ms": {"mean": v, "p50": v, "p90": 2 * v, "p95": 3 * v, "p99": 4 * v**2, "p99.9": 9 * v},
            "rates": {"goodput_per_s": 1_000.0}, "counts": {"ok": 99, "rejected": 1, "failed": 0, "unknown": 0, "dropped": 0},
        }
        for v in values
    ]  # fmt: skip


def test_repeated_runs_show_how_much_runs_differ() -> None:
    values = [1.0, 1.1, 0.9, 1.05, 0.95]
    spread = measured(repeated(values), "five runs")
    between = float(np.std(np.log(values), ddof=1))
    assert spread.of(P50) == pytest.approx(between)
    assert spread.of(P99) == pytest.approx(2 * between)
    assert spread.of(P97) == spread.of(P99)  # the next one up that is known
    assert spread.of(GOODPUT) == spread.of(REJECTED) == 0.0
    assert spread.of(Metric("service_time", "p", 50.0)) is None
    assert "measured, five runs" in spread.told([GOODPUT, P50])
    found = spread.widen(P50, 1.0, None)
    assert found is not None
    assert found[0] == pytest.approx(2 * between**2)
    assert found[1] == 4.0


def test_a_measured_spread_is_a_floor() -> None:
    spread = measured(repeated([1.0, 1.1, 0.9, 1.05, 0.95]), "five runs")
    assert spread.widen(P50, 1.0, (1.0, 9.0)) == (1.0, 9.0)
    found = spread.widen(P50, 1.0, (1e-9, 90.0))
    assert found is not None
    assert found[1] == 4.0


def test_five_runs_see_what_one_stretch_of_time_cannot() -> None:
    random = np.random.default_rng(6)
    run, baseline = (synthetic(random, trend=True, unrest=0.05, slower=factor) for factor in (1.4, 1.0))
    spread = measured(repeated([1.0, 1.01, 0.99, 1.02, 0.98]), "five runs")
    assert by_blocks(run, baseline, P50, paired=True, spread=spread).enough
    assert by_blocks(run, baseline, P99, paired=True, spread=spread).enough


# ---- stored ----


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.write(tmp_path_factory.mktemp("kept") / "run", seconds=20)


@pytest.fixture
def results(kept: Path, tmp_path: Path) -> Path:
    """Two single runs, and five of the same scenario, each a little slower than the one before."""
    for name in ("run", "usual", *(f"repeat/{number}" for number in range(5))):
        shutil.copytree(kept, tmp_path / name)
    for number in range(5):
        folder = tmp_path / "repeat" / str(number)
        summary = fake_run.summary(folder)
        times = {name: value * 1.1**number for name, value in summary["response_time_ms"].items()}
        fake_run.write_json(folder / "summary.json", summary | {"response_time_ms": times})
    variants = [{"folder": str(number), "verdict": "pass"} for number in range(5)]
    fake_run.write_json(tmp_path / "repeat" / "sweep.json", {"axes": [{"path": "seed"}], "variants": variants})
    return tmp_path


def found_in(results: Path) -> float | None:
    run, usual = (side_of(name, [results / name]) for name in ("run", "usual"))
    spread = spread_for(run, usual, kept=results / "baselines")
    return None if spread is None else spread.of(P50)


def test_repeated_runs_beside_the_two_are_what_the_spread_is_taken_from(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = float(np.std(math.log(1.1) * np.arange(5), ddof=1))
    assert found_in(results) == pytest.approx(expected)
    assert main(["compare", str(results / "run"), str(results / "usual")]) == 0
    out = capsys.readouterr().out
    assert "single runs are taken to differ by at least" in out
    assert f"measured, 5 runs in {results / 'repeat'}" in out


def test_a_baseline_of_repeated_runs_is_one_too(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results)
    assert main(["baseline", "save", "repeat", "--name", "usual-five"]) == 0
    shutil.rmtree(results / "repeat")
    assert found_in(results) is not None
    assert main(["compare", "run", "usual"]) == 0
    assert "measured, 5 runs in baselines/usual-five" in capsys.readouterr().out


def _another_scenario(folder: Path) -> None:
    for number in range(5):
        (folder / "repeat" / str(number) / "scenario.yaml").write_text("name: other\n")


def _another_machine(folder: Path) -> None:
    path = folder / "repeat" / "0" / "environment.json"
    fake_run.write_json(path, json.loads(path.read_text()) | {"cores": 64})


def _invalid(folder: Path) -> None:
    path = folder / "repeat" / "3"
    fake_run.write_json(path / "summary.json", fake_run.summary(path) | {"verdict": "invalid"})


def _four(folder: Path) -> None:
    path = folder / "repeat" / "sweep.json"
    found = json.loads(path.read_text())
    fake_run.write_json(path, found | {"variants": found["variants"][:4]})


def _broken(folder: Path) -> None:
    (folder / "repeat" / "sweep.json").write_text("{")


def _on_a_quiet_day(folder: Path) -> None:
    for number in range(5):
        path = folder / "repeat" / str(number) / "environment.json"
        fake_run.write_json(path, json.loads(path.read_text()) | taken(0.01))


@pytest.mark.parametrize("spoil", [_another_scenario, _another_machine, _invalid, _four, _broken, _on_a_quiet_day])
def test_runs_that_tell_of_something_else_are_passed_over(
    spoil: Callable[[Path], None], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(results)
    assert found_in(results) is None
    assert main(["compare", str(results / "run"), str(results / "usual")]) == 0
    assert "assumed, not measured here" in capsys.readouterr().out
