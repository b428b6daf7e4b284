"""Thresholds on a baseline: they fail only with evidence, and say what they have seen; and the baselines themselves."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import fake_run
import pytest

from simulator.cli import main
from simulator.compare import baselines
from simulator.compare.gate import hold, hold_run
from simulator.compare.sides import side_of
from simulator.errors import Exit, InvalidRunError
from simulator.report.folder import read_summary
from simulator.report.summary import exit_code

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.compare.sides import Side

SCENARIO = """\
name: gated
clock: virtual
seed: 7
duration: 4s
load: {rate: 4000/s, accounts: 1_000, merchants: {count: 50}, mix: {payment: 1}}
platform: {nodes: 4, shards: {count: 4}, service: {mean: 500us, distribution: exponential}}
thresholds:
  response_time: ["p(99) <= baseline * 1.10", "p(50) <= baseline * 1.05"]
  throughput: "mean >= baseline * 0.95"
"""
SLOWER = ("--set", "platform.service.mean=700us")


def item(metric: str, expression: str) -> dict[str, Any]:
    return {"metric": metric, "expression": expression, "passed": True, "baseline": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scenario, a run of it that is also its baseline, a run with another seed, and a slower one."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "gated.yaml").write_text(SCENARIO)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "gated.yaml", "--quiet", "--out", "first"]) == 0
        assert main(["baseline", "save", "first"]) == 0
        assert main(["run", "gated.yaml", "--quiet", "--out", "again", "--seed", "8"]) == 0
        assert main(["run", "gated.yaml", "--quiet", "--out", "slow", "--seed", "9", *SLOWER]) == Exit.REGRESSION
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def sides(place: Path, run: str) -> tuple[Side, Side]:
    return side_of(run, [place / run]), side_of("baseline", [place / "first"])


def test_a_run_of_the_same_build_passes(place: Path) -> None:
    summary = read_summary(place / "again")
    assert [t["passed"] for t in summary["thresholds"]] == [True, True, True]
    assert summary["verdict"] == "pass"
    assert summary["baseline"]["name"] == "baseline gated"
    first = summary["thresholds"][0]
    assert first["baseline"] == pytest.approx(read_summary(place / "first")["response_time_ms"]["p99"], rel=2e-3)
    assert first["limit"] == pytest.approx(1.1 * first["baseline"])
    assert first["note"].startswith("baseline ")


def test_a_slower_run_fails_with_121_and_says_by_how_much(place: Path) -> None:
    summary = read_summary(place / "slow")
    p99, p50, throughput = summary["thresholds"]
    assert (p99["passed"], p50["passed"], throughput["passed"]) == (False, False, True)
    assert (summary["verdict"], exit_code(summary)) == ("fail", Exit.REGRESSION)
    assert p50["change"] > 0.2
    assert p50["note"].endswith("worse than allowed")
    assert summary["baseline"]["notes"] == ["the scenarios differ: platform.service.mean: 500us → 700us"]


def test_a_limit_of_its_own_that_is_crossed_as_well_ends_with_99(place: Path) -> None:
    summary = read_summary(place / "slow")
    crossed = {"metric": "dropped", "expression": "count == 0", "observed": 1, "passed": False}
    assert exit_code({**summary, "thresholds": [*summary["thresholds"], crossed]}) == Exit.THRESHOLDS


def test_past_the_limit_without_evidence_passes_and_says_so(place: Path) -> None:
    run, baseline = sides(place, "again")
    there = read_summary(place / "first")["response_time_ms"]["p99"]
    seen = read_summary(place / "again")["response_time_ms"]["p99"]
    limit = f"p(99) <= baseline * {seen / there * 0.999:.6f}"
    (judged,) = hold(run, baseline, [item("response_time", limit)])
    assert judged["passed"]
    assert "past the limit, but chance alone may do that" in judged["note"]


def test_a_gate_says_what_it_could_not_have_seen(place: Path) -> None:
    run, baseline = sides(place, "again")
    fine, coarse = hold(
        run,
        baseline,
        [item("response_time", "p(99.9) <= baseline * 1.001"), item("response_time", "p(50) <= baseline * 3")],
    )
    assert "would not have shown" in fine["note"]
    assert "would not have shown" not in coarse["note"]
    assert fine["smallest_that_would_show"] > 0.001


def test_several_are_judged_together(place: Path) -> None:
    run, baseline = sides(place, "slow")
    (alone,) = hold(run, baseline, [item("response_time", "p(99) <= baseline * 1.15")])
    many = hold(run, baseline, [item("response_time", f"p({99 - at / 10:g}) <= baseline * 1.15") for at in range(10)])
    assert many[0]["p_adjusted"] >= alone["p_adjusted"]


@pytest.mark.parametrize(
    ("metric", "expression", "passed"),
    [
        ("service_time", "mean <= baseline * 1.05", False),
        ("schedule_lag", "p(99) <= baseline", True),
        ("rejected", "rate <= baseline + 0.1%", True),
        ("ok", "rate >= baseline - 0.1%", True),
        ("throughput", "mean <= baseline * 0.5", False),
        ("response_time", "p(99.99999) <= baseline", True),  # too little was measured
    ],
)
def test_every_metric_that_may_name_a_baseline_is_judged(
    place: Path, metric: str, expression: str, *, passed: bool
) -> None:
    run, baseline = sides(place, "slow")
    (judged,) = hold(run, baseline, [item(metric, expression)])
    assert judged["passed"] is passed


def test_a_run_without_thresholds_on_a_baseline_is_left_as_it_is(place: Path) -> None:
    run, baseline = sides(place, "again")
    summary = {**read_summary(place / "again"), "thresholds": []}
    assert hold_run(summary, run, baseline) is summary


def test_an_invalid_baseline_is_refused(place: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(place / "first", tmp_path / "bad")
    summary = fake_run.summary(bad)
    fake_run.write_json(
        bad / "summary.json",
        summary | {"verdict": "invalid", "validity": {"verdict": "inconclusive", "reasons": ["cut"]}},
    )
    run, _ = sides(place, "again")
    with pytest.raises(InvalidRunError, match="the baseline is inconclusive: cut"):
        hold(run, side_of("bad", [bad]), [item("response_time", "p(99) <= baseline")])


# ---- through the command line ----


def test_repeated_runs_are_held_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = here / "together.xml"
    arguments = ["run", "gated.yaml", "--quiet", "--repeat", "3", "--out", "repeated", "--junit", str(junit), *SLOWER]
    assert main(arguments) == Exit.REGRESSION
    out = capsys.readouterr().out
    assert "NOT MET: response time p(50) <= baseline * 1.05" in out
    sweep = json.loads((here / "repeated" / "sweep.json").read_text("utf-8"))
    assert [axis["path"] for axis in sweep["axes"]] == ["seed"]
    assert [row["settings"]["seed"] for row in sweep["variants"]] == ["7", "8", "9"]
    assert [row["verdict"] for row in sweep["variants"]] == ["pass"] * 3
    assert [t["passed"] for t in sweep["baseline"]["thresholds"]] == [True, False, True] or not any(
        t["passed"] for t in sweep["baseline"]["thresholds"][:2]
    )
    assert junit.read_text("utf-8").count("<testsuite ") == 4
    assert main(["baseline", "save", "repeated", "--name", "three"]) == 0
    assert main(["compare", "repeated", "three"]) == 0
    assert "3 runs against 3 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--baseline", "nowhere"], 2, "nowhere: no such folder, nor a baseline of that name (there are: gated"),
        (["--baseline", "first", "--vary", "seed=1,2"], 2, "--vary does not go with --repeat or --baseline"),
        (["--repeat", "1"], 2, "--repeat 1: write a number from 2 to 256"),
        (["--junit", "not/there.xml"], 2, "--junit not/there.xml: there is no folder not"),
        (["--summary-md", "first"], 2, "--summary-md first: is a folder"),
        (["--baseline", "first", "--set", "thresholds={}"], 2, "no threshold of this scenario names a baseline"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_runs(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["run", "gated.yaml", "--quiet", "--out", "never", *arguments]) == code
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not (here / "never").exists()


def test_without_a_baseline_nothing_is_compared_and_that_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["run", str(place / "gated.yaml"), "--quiet", "--out", "alone"]) == 0
    assert "::warning title=gated%3A no baseline::response time p(99) <= baseline * 1.10" in capsys.readouterr().out
    assert {t["note"] for t in read_summary(tmp_path / "alone")["thresholds"]} == {"not compared with a baseline"}


# ---- baselines ----


def test_a_baseline_holds_what_a_comparison_reads_and_no_more(place: Path) -> None:
    copy = place / "baselines" / "gated" / "run-1"
    assert {path.name for path in copy.iterdir()} == set(baselines.KEPT)
    one = baselines.read("gated", place / "baselines")
    assert (one.scenario, one.source, len(one.runs)) == ("gated", "first", 1)


def test_baselines_are_listed_and_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "list"]) == 0
    assert "gated, from first" in capsys.readouterr().out
    assert main(["baseline", "show", "gated"]) == 0
    assert "run-1: pass, seed 7, " in capsys.readouterr().out
    assert main(["baseline", "show", "nothing"]) == 2
    assert "nothing: there is no such baseline" in capsys.readouterr().err


def test_a_name_is_saved_over_only_when_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "save", "again", "--name", "mine"]) == 0
    assert main(["baseline", "save", "first", "--name", "mine"]) == 2
    assert "write --replace to save over it" in capsys.readouterr().err
    assert baselines.read("mine", here / "baselines").source == "again"
    assert main(["baseline", "save", "first", "--name", "mine", "--replace"]) == 0
    assert baselines.read("mine", here / "baselines").source == "first"


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "x" * 81])
def test_a_name_that_is_no_name_is_refused(here: Path, name: str) -> None:
    assert main(["baseline", "save", "first", "--name", name]) == 2 or name == ""
    assert not (here / "baselines" / ".." / "run-1").exists()


def test_baselines_are_bounded(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST", 2)
    for number in range(2):
        baselines.save(place / "first", [place / "first"], "s", f"n{number}", replace=False, folder=tmp_path)
    with pytest.raises(Exception, match="holds 2 baselines, and that is the most"):
        baselines.save(place / "first", [place / "first"], "s", "n2", replace=False, folder=tmp_path)
    baselines.save(place / "first", [place / "first"], "s", "n1", replace=True, folder=tmp_path)
    assert baselines.names(tmp_path) == ["n0", "n1"]


def test_nothing_is_saved_over_what_is_no_baseline(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(Exception, match="is not a baseline"):
        baselines.save(place / "first", [place / "first"], "s", "mine", replace=True, folder=tmp_path)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_half_written_baseline_is_told(place: Path, tmp_path: Path) -> None:
    saved = baselines.save(place / "first", [place / "first"], "s", "n", replace=False, folder=tmp_path)
    shutil.rmtree(saved.folder / "run-1")
    with pytest.raises(Exception, match="is half-written: it holds 0 runs of 1"):
        baselines.read("n", tmp_path)
