"""Comparing runs: how sure a difference is, how often nothing is called something, and what cannot be compared."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import fake_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import synthetic

from simulator.cli import main
from simulator.compare import blocks
from simulator.compare.comparison import METRICS, compare
from simulator.compare.differences import of_machines, of_scenarios
from simulator.compare.effects import Effect, by_blocks, by_runs, estimate, resampled
from simulator.compare.metric import Metric
from simulator.compare.samples import SLICES_MAX, merged, read_sample, slices_of
from simulator.compare.sides import open_side, side_of
from simulator.compare.verdict import LEVEL, beyond, holm, judge, said, smallest, two_sided
from simulator.measure.histogram import Histogram
from simulator.report.folder import read_latency, read_summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulator.compare.samples import Sample

P50, P99 = Metric("response_time", "p", 50.0), Metric("response_time", "p", 99.0)
GOODPUT, REJECTED = Metric("throughput", "mean"), Metric("rejected", "rate")
LOOKED_AT = (GOODPUT, P50, Metric("response_time", "p", 90.0), P99, REJECTED)


def effects(run: Sample, baseline: Sample, *, paired: bool = True, seed: int = 1) -> list[Effect]:
    return [by_blocks(run, baseline, metric, paired=paired, spread=None, seed=seed) for metric in LOOKED_AT]


def words(found: list[Effect]) -> dict[str, str]:
    return {finding.effect.metric.label: finding.word for finding in judge(found)}


# ---- blocks of time ----


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
def test_every_resample_has_as_many_slices_as_the_run(n: int, length: int, seed: int) -> None:
    drawn = blocks.draw(n, min(length, n), 20, np.random.default_rng(seed))
    assert drawn.shape == (20, n)
    assert (drawn.sum(axis=1) == n).all()


def test_every_slice_is_as_likely_as_any_other() -> None:
    drawn = blocks.draw(30, 7, 20_000, np.random.default_rng(1))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(30), abs=0.05)


def test_blocks_hold_neighbours_together() -> None:
    drawn = blocks.draw(100, 10, 500, np.random.default_rng(1))
    together = np.corrcoef(drawn[:, 50], drawn[:, 51])[0, 1]
    apart = np.corrcoef(drawn[:, 50], drawn[:, 80])[0, 1]
    assert together > 0.7
    assert abs(apart) < 0.2


@pytest.mark.parametrize("n", [1, 2, 5, 8, 60, 480])
def test_a_block_is_between_the_cube_root_and_a_third(n: int) -> None:
    random = np.random.default_rng(n)
    for series in (random.normal(size=n), np.zeros(n), np.cumsum(random.normal(size=n))):
        assert 1 <= blocks.block_length(series) <= max(math.ceil(n / 3), 1)
        assert blocks.block_length(series) >= min(math.ceil(n ** (1 / 3)), math.ceil(n / 3))


def test_the_longer_the_memory_the_longer_the_blocks() -> None:
    random = np.random.default_rng(3)
    lengths = []
    for persistence in (0.0, 0.6, 0.9):
        found = []
        for _ in range(20):
            series = np.zeros(300)
            for at in range(1, 300):
                series[at] = persistence * series[at - 1] + random.normal()
            found.append(blocks.block_length(series))
        lengths.append(float(np.mean(found)))
    assert lengths[0] < lengths[1] < lengths[2]
    assert lengths[0] < 10
    assert lengths[2] > 20


@given(st.integers(1, 120), st.integers(1, 40), st.integers(1, 10**6))
def test_all_blocks_count_where_every_slice_bears_alike(n: int, length: int, height: int) -> None:
    assert blocks.effective(np.full(n, float(height)), min(length, n)) == pytest.approx(n / min(length, n), rel=0.01)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 60))
def test_a_figure_comes_from_one_block_at_least_and_all_at_most(counts: list[int], length: int) -> None:
    length = min(length, len(counts))
    assert 1 <= blocks.effective(np.array(counts, dtype=np.float64), length) <= len(counts) / length


def test_one_bad_second_is_one_block_however_long_the_run() -> None:
    bad = np.zeros(480)
    bad[100] = 500
    assert blocks.effective(bad, 8) == pytest.approx(1.0, rel=0.02)
    spike = 500 * np.exp(-(((np.arange(480) - 100) / 12) ** 2))
    assert 2 < blocks.effective(spike, 8) < 4


def test_counts_that_scatter_by_themselves_are_not_taken_for_concentration() -> None:
    random = np.random.default_rng(3)
    found = [blocks.effective(random.poisson(2.0, 60).astype(np.float64), 4) for _ in range(200)]
    assert float(np.mean(found)) > 0.8 * 60 / 4


# ---- estimates ----


def test_an_estimate_is_that_of_the_whole_histogram() -> None:
    sample = synthetic(np.random.default_rng(1), slices=20)
    times = sample.times["response_time"]
    values = np.repeat(times.values_ns, times.counts.sum(axis=0).astype(np.int64))
    whole, everything = Histogram.of(values), np.ones((1, sample.slices))
    for percent in (10.0, 50.0, 99.0, 99.9):
        assert estimate(sample, Metric("response_time", "p", percent), everything)[0] == whole.percentile_ns(percent)
    assert estimate(sample, Metric("response_time", "mean"), everything)[0] == pytest.approx(whole.mean_ns, rel=1e-3)
    ok, rejected = sample.outcomes["ok"].sum(), sample.outcomes["rejected"].sum()
    assert estimate(sample, GOODPUT, everything)[0] == pytest.approx(ok / 20)
    assert estimate(sample, REJECTED, everything)[0] == pytest.approx(rejected / (ok + rejected))


@pytest.mark.parametrize("percent", [5.0, 50.0, 90.0, 99.0, 99.9])
def test_what_is_resampled_agrees_with_the_estimate(percent: float) -> None:
    sample = synthetic(np.random.default_rng(5), slices=30)
    weights = blocks.draw(30, 4, 50, np.random.default_rng(1))
    metric = Metric("response_time", "p", percent)
    assert resampled(sample, metric, weights) == pytest.approx(estimate(sample, metric, weights), rel=0.03)


def test_runs_together_are_their_slices_behind_each_other() -> None:
    random = np.random.default_rng(2)
    several = [synthetic(random, slices=n, per_slice=200) for n in (5, 7)]
    whole, of_run = merged(several, "both")
    assert of_run.tolist() == [0] * 5 + [1] * 7
    assert whole.times["response_time"].total == sum(one.times["response_time"].total for one in several)
    part = estimate(whole, P50, (of_run == 1)[None, :].astype(np.float64))
    assert part == estimate(several[1], P50, np.ones((1, 7)))


# ---- A/A: nothing is called nothing ----


@pytest.mark.parametrize(("persistence", "trend"), [(0.0, False), (0.7, False), (0.5, True), (0.8, True)])
def test_two_runs_of_one_build_differ_in_at_most_one_pair_of_twenty(persistence: float, trend: bool) -> None:  # noqa: FBT001  a parameter of the test
    # Forty pairs, where 5 % would be two; benchmarks/bench_compare_aa.py has two hundred.
    random = np.random.default_rng(20191111)
    alarms = 0
    for _ in range(40):
        run, baseline = (
            synthetic(random, slices=40, per_slice=400, persistence=persistence, trend=trend) for _ in range(2)
        )
        alarms += set(words(effects(run, baseline)).values()) != {"no evidence"}
    assert alarms <= 3


def test_repeated_runs_of_one_build_differ_as_seldom() -> None:
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(60):
        # Each run has a level of its own, which no block of time within a run can show.
        sides = [
            [synthetic(random, slices=6, per_slice=200, slower=math.exp(0.1 * random.normal())) for _ in range(4)]
            for _ in range(2)
        ]
        found = [by_runs(sides[0], sides[1], metric) for metric in LOOKED_AT]
        alarms += set(words(found).values()) != {"no evidence"}
    assert alarms <= 6


def test_the_same_run_twice_is_no_evidence_of_anything() -> None:
    run = synthetic(np.random.default_rng(1), slices=30)
    found = judge(effects(run, run))
    assert {finding.word for finding in found} == {"no evidence"}
    assert {finding.change for finding in found} == {0.0}


# ---- A/B: something is called by its name ----


def test_what_is_slower_is_worse_and_what_is_quicker_is_better() -> None:
    random = np.random.default_rng(4)
    usual = synthetic(random, unrest=0.05)
    slower, quicker = (synthetic(random, unrest=0.05, slower=factor) for factor in (1.3, 0.7))
    assert words(effects(slower, usual)) | {"rejected": ""} == {
        "goodput": "no evidence", "response time p50": "worse", "response time p90": "worse", "response time p99": "worse",
        "rejected": "",
    }  # fmt: skip
    assert words(effects(quicker, usual))["response time p99"] == "better"


def test_fewer_answers_are_worse_and_more_refusals_too() -> None:
    random = np.random.default_rng(4)
    usual = synthetic(random, per_slice=2_000)
    assert words(effects(synthetic(random, per_slice=1_500), usual))["goodput"] == "worse"
    assert words(effects(synthetic(random, refused=0.02), usual))["rejected"] == "worse"


def test_the_same_blocks_of_both_runs_cancel_the_load() -> None:
    random = np.random.default_rng(9)
    run, baseline = (synthetic(random, trend=True, persistence=0.0, unrest=0.02) for _ in range(2))
    paired = by_blocks(run, baseline, P99, paired=True, spread=None)
    apart = by_blocks(run, baseline, P99, paired=False, spread=None)
    assert paired.error < apart.error / 2


def test_the_smallest_difference_is_seen_about_four_times_in_five() -> None:
    random = np.random.default_rng(11)
    pairs, seen, aimed = 40, 0, []
    for _ in range(pairs):
        baseline = synthetic(random, persistence=0.0, unrest=0.05, per_slice=400)
        again = synthetic(random, persistence=0.0, unrest=0.05, per_slice=400)
        shown = smallest(by_blocks(again, baseline, P50, paired=True, spread=None), 1)
        aimed.append(shown)
        slower = synthetic(random, persistence=0.0, unrest=0.05, per_slice=400, slower=math.exp(shown))
        seen += two_sided(by_blocks(slower, baseline, P50, paired=True, spread=None)) <= LEVEL
    assert 0.6 <= seen / pairs <= 0.98, np.mean(aimed)


def test_few_blocks_say_nothing() -> None:
    random = np.random.default_rng(1)
    run, baseline = (synthetic(random, slices=5, slower=factor) for factor in (3.0, 1.0))
    (effect, *_) = effects(run, baseline)
    assert not effect.enough
    assert {finding.word for finding in judge(effects(run, baseline))} == {"no evidence"}
    assert smallest(effect, 1) == math.inf


def test_a_percentile_that_comes_from_one_stretch_of_the_run_is_no_evidence_of_anything() -> None:
    # The spike of each run is as high as chance would have it, all of it alike: no second within it says so.
    random = np.random.default_rng(6)
    run, baseline = (synthetic(random, trend=True, unrest=0.05, slower=factor) for factor in (1.4, 1.0))
    p99 = by_blocks(run, baseline, P99, paired=True, spread=None)
    assert not p99.enough
    assert smallest(p99, 1) == math.inf
    assert said(p99, smallest(p99, 1)) == math.inf
    assert by_blocks(run, baseline, GOODPUT, paired=True, spread=None).enough


def test_what_histograms_cannot_tell_apart_is_no_evidence() -> None:
    effect = Effect(P50, 1_001_000.0, 1_000_000.0, math.log(1.001), 1e-9, 100.0, enough=True)
    assert two_sided(effect) == 1.0
    assert two_sided(Effect(P50, 1.01, 1.0, math.log(1.01), 1e-9, 100.0, enough=True)) < 1e-6


# ---- several metrics ----


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_adjusts_upwards_and_keeps_the_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    assert [adjusted[at] for at in order] == sorted(adjusted)
    assert min(adjusted) == min(1.0, len(ps) * min(ps))


def test_holm_as_in_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=50)
@given(st.floats(-1, 1), st.floats(0.01, 0.5), st.floats(2, 200), st.floats(-1, 1))
def test_a_limit_is_passed_only_beyond_it(change: float, error: float, freedom: float, limit: float) -> None:
    effect = Effect(P50, 1.0, 1.0, change, error, freedom, enough=True)
    above, below = (beyond(effect, limit, above=side) for side in (True, False))
    assert above == 1.0 or change > limit
    assert below == 1.0 or change < limit
    assert max(above, below) == 1.0


# ---- folders ----


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as a run writes it."""
    return fake_run.write(tmp_path_factory.mktemp("kept") / "run", seconds=20)


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(kept, tmp_path / "run")


def changed(run: Path, **fields: Any) -> None:  # noqa: ANN401  any field of a summary
    fake_run.write_json(run / "summary.json", fake_run.summary(run) | fields)


def test_a_sample_is_what_the_folder_says(kept: Path) -> None:
    sample = read_sample(kept, "run", 20.0)
    counts = read_summary(kept)["counts"]
    assert (sample.slices, sample.duration_s) == (20, 20.0)
    assert sample.outcomes["ok"].sum() == counts["ok"]
    notes: list[str] = []
    curve = read_latency(kept, notes)["response_time"]
    everything = np.ones((1, 20))
    for inverse, value_ms in curve[:: len(curve) // 5]:
        percent = 100 * (1 - 1 / inverse)
        found = estimate(sample, Metric("response_time", "p", percent), everything)[0] / 1e6
        assert found == pytest.approx(value_ms, rel=3e-3)


def test_a_long_run_is_read_in_few_slices() -> None:
    starts = np.concatenate([np.arange(0, 600, 0.1), np.arange(600, 86_400, 60.0)])
    lengths = np.concatenate([np.full(6_000, 0.1), np.full(1_430, 60.0)])
    of_window, slices = slices_of(starts, lengths)
    assert 200 < slices <= SLICES_MAX
    assert (np.diff(of_window) >= 0).all()


def test_a_run_against_itself_differs_in_nothing(kept: Path, run: Path) -> None:
    (found,) = compare([open_side(str(run))], open_side(str(kept)))
    assert found.word == "no evidence"
    few, short = found.notes
    assert few == "left out, with fewer than 10 values beyond: response time p99.9"
    assert short.startswith("too short for a conclusion: response time p90, response time p99; ")
    assert {finding.change for finding in found.findings} == {0.0}
    assert {finding.effect.metric for finding in found.findings} <= set(METRICS)


def _empty(run: Path) -> None:
    for path in run.iterdir():
        path.unlink()


SPOILT: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no such folder": (shutil.rmtree, 2, "no such folder, nor a baseline of that name"),
    "half-written": (lambda run: (run / "summary.json").unlink(), 1, "the run did not finish: summary.json is missing"),
    "not a run": (_empty, 2, "not a run's folder: summary.json is missing"),
    "an older schema": (lambda run: changed(run, schema=0), 1, "has schema 0; this version reads schema 1"),
    "cut short": (lambda run: (run / "summary.json").write_text("{"), 1, "cannot be read as JSON"),
    "invalid": (
        lambda run: changed(run, verdict="invalid", validity={"verdict": "generator-limited", "reasons": ["slow"]}),
        120,
        "the baseline is generator-limited: slow",
    ),
    "without times": (lambda run: (run / "latency.hlog").unlink(), 1, "latency.hlog: is missing"),
    "with damaged times": (
        lambda run: (run / "latency.hlog").write_text("Tag=response_time,0,1,2,HISTFAAA\n"), 1, "latency.hlog: cannot be read",
    ),
    "without a series": (lambda run: (run / "timeseries.csv").unlink(), 1, "timeseries.csv: is missing"),
    "with an empty series": (lambda run: (run / "timeseries.csv").write_text("second\n"), 1, "has no windows"),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_a_baseline_is_told_in_one_line(
    how: str, kept: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, code, message = SPOILT[how]
    spoil(run)
    assert main(["compare", str(kept), str(run)]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert message in told.err


def test_an_invalid_run_is_compared_only_by_force(kept: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(run, verdict="invalid", validity={"verdict": "inconclusive", "reasons": ["interrupted"]})
    assert main(["compare", str(run), str(kept)]) == 120
    assert "the run is inconclusive: interrupted" in capsys.readouterr().err
    assert main(["compare", str(run), str(kept), "--force"]) == 0
    assert "! " in capsys.readouterr().out


def test_a_sweep_is_compared_by_its_variants(tmp_path: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run.write_json(tmp_path / "sweep.json", {"axes": [{"path": "balancer.policy"}], "variants": []})
    assert main(["compare", str(tmp_path), str(kept)]) == 2
    assert "is a sweep over balancer.policy; name one of its variants" in capsys.readouterr().err


def test_a_comparison_takes_two(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(kept)]) == 2
    assert "a comparison takes two" in capsys.readouterr().err


def test_different_scenarios_are_compared_with_a_warning(
    kept: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "scenario.yaml").read_text("utf-8")
    (run / "scenario.yaml").write_text(text.replace("poisson", "regular").replace("seed: 20191111", "seed: 5"))
    assert main(["compare", str(run), str(kept)]) == 0
    out = capsys.readouterr().out
    assert "! the scenarios differ: load.arrivals: poisson → regular\n" in out
    assert "seed" not in out


def test_what_differs_is_named_up_to_a_bound() -> None:
    many = {f"field{at}": at for at in range(20)}
    told = of_scenarios({"load": many}, {"load": {}})
    assert len(told) == 9
    assert told[-1] == "and 13 more fields"
    assert of_scenarios({"seed": 1, "thresholds": {}}, {"seed": 2, "thresholds": {"ok": []}}) == []
    assert of_machines({"cores": 2, "kernel": "6"}, {"cores": 4}) == ["cores: 4 → 2"]


def test_a_comparison_as_json_page_and_markdown(
    kept: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "<script>alert(1)</script>"
    named = shutil.copytree(run, tmp_path / f"a{hostile.replace('/', '')}")
    page, markdown = tmp_path / "c.html", tmp_path / "c.md"
    assert (
        main(["compare", str(run), str(named), str(kept), "--json", "--html", str(page), "--summary-md", str(markdown)])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in told] == ["no evidence", "no evidence"]
    assert {row["metric"] for row in told[0]["metrics"]} >= {"goodput", "response time p50", "response time p99"}
    html = page.read_text("utf-8")
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert html.count('<svg class="drawn wide"') == 4  # intervals of each run, percentiles, p99 over time
    assert html.count('<svg class="drawn slim"') == 4
    assert "http" not in html.replace("http-equiv", "")
    assert len(html) < 300_000
    assert "| metric | baseline |" in markdown.read_text("utf-8")


def test_a_simulated_pair_is_told_from_a_real_one(kept: Path, run: Path) -> None:
    changed(run, clock="virtual")
    both = side_of("both", [run])
    assert both.simulated
    (found,) = compare([both], side_of("kept", [kept]))
    assert "assumed, not measured here" in found.method


def test_a_run_in_a_workflow_is_annotated(
    kept: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (run / "scenario.yaml").write_text("name: other\n")
    assert main(["compare", str(run), str(kept)]) == 0
    assert f"::warning title={run}::the scenarios differ" in capsys.readouterr().out
