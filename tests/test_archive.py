"""The runs so far: told over, drawn, and pruned without touching anything else."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import fake_run
import pytest

from simulator.archive import catalog, prune
from simulator.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.write(tmp_path_factory.mktemp("kept") / "run", seconds=2)


@pytest.fixture
def results(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five runs of `peak` and two of `soak`, each begun a day after the one before."""
    monkeypatch.chdir(tmp_path)
    for day, scenario in enumerate(["peak", "soak", "peak", "peak", "soak", "peak", "peak"], start=1):
        add(kept, tmp_path / "results", scenario, day)
    return tmp_path / "results"


def add(kept: Path, results: Path, scenario: str, day: int) -> Path:
    folder = shutil.copytree(kept, results / f"{scenario}-202611{day:02d}T000000Z")
    summary = fake_run.summary(folder) | {"scenario": scenario, "started_at": f"2026-11-{day:02d}T00:00:00+00:00"}
    fake_run.write_json(folder / "summary.json", summary)
    os.utime(folder, (1.7e9 + day, 1.7e9 + day))
    return folder


def names(results: Path) -> list[str]:
    return sorted(path.name for path in results.iterdir())


# ---- history ----


def test_the_newest_runs_come_first(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in lines[1:]] == [f"2026-11-{day:02d}" for day in range(7, 0, -1)]
    assert "pass" in lines[1]
    assert "clean" in lines[1]


def test_one_scenario_can_be_asked_for_by_name_or_file(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text("name: soak\nduration: 1s\nload: {rate: 5/s}\n")
    for asked in ("soak", "s.yaml"):
        assert main(["history", asked, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [row["scenario"] for row in told] == ["soak", "soak"]
        assert told[0]["p99_ms"] > 0
    assert main(["history", "soka"]) == 2
    assert "no run of this scenario in results/; did you mean soak?" in capsys.readouterr().err


def test_no_results_yet_is_told_and_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["history"]) == 0
    assert capsys.readouterr().out == "there are no runs in results/ yet; sim run SCENARIO makes one\n"


def test_half_written_folders_are_counted_and_harm_nobody(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "begun").mkdir()
    (results / "odd").mkdir()
    (results / "odd" / "summary.json").write_text("[1, 2]")
    assert main(["history"]) == 0
    assert "and 2 folders without a summary" in capsys.readouterr().out


def test_a_sweep_is_one_line_and_its_runs_are_in_the_trend(
    results: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = results / "soak-repeat-20261109T000000Z"
    add(kept, sweep, "soak", 9)
    add(kept, sweep, "soak", 10)
    rows = [{"folder": path.name, "verdict": "pass"} for path in sweep.iterdir()]
    fake_run.write_json(
        sweep / "sweep.json",
        {
            "schema": 1, "scenario": "soak", "started_at": "2026-11-09T00:00:00+00:00", "axes": [{"path": "seed"}],
            "variants": rows,
        },
    )  # fmt: skip
    assert main(["history", "soak"]) == 0
    assert "2/2 pass" in capsys.readouterr().out.splitlines()[1]
    assert main(["history", "soak", "--html"]) == 0
    html = (results / "history-soak.html").read_text("utf-8")
    assert "4 of 4 runs passed" in html


def test_the_trend_page_needs_no_script_and_escapes_names(results: Path, kept: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    folder = add(kept, results, "peak", 20)
    fake_run.write_json(folder / "summary.json", fake_run.summary(folder) | {"scenario": hostile})
    assert main(["history", hostile, "--html"]) == 0
    (page,) = results.glob("history-*.html")
    html = page.read_text("utf-8")
    assert "<img" not in html
    assert "<script" not in html
    assert html.count('<svg class="drawn wide"') == html.count('<svg class="drawn slim"') == 2
    assert "default-src 'none'" in html


def test_a_trend_page_is_of_one_scenario(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--html"]) == 2
    assert "sim history SCENARIO --html" in capsys.readouterr().err


# ---- prune ----


def test_the_newest_of_each_scenario_stay(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(results)
    assert main(["prune", "--keep", "2", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.count("would remove: ") == 3
    assert names(results) == before
    assert main(["prune", "--keep", "2"]) == 0
    assert names(results) == [
        "peak-20261106T000000Z", "peak-20261107T000000Z", "soak-20261102T000000Z", "soak-20261105T000000Z",
    ]  # fmt: skip
    assert "4 stay" in capsys.readouterr().out


def test_what_is_no_runs_folder_is_left_alone(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "under-way").mkdir()
    (results / "under-way" / "scenario.yaml").write_text("name: x\n")
    (results / "peak-20261101T000000Z" / "notes.txt").write_text("mine")
    (results / "notes.txt").write_text("mine")
    outside = tmp_path / "outside"
    shutil.move(results / "soak-20261102T000000Z", outside)
    (results / "link").symlink_to(outside)
    (results / "peak-20261103T000000Z" / "more").symlink_to(outside)
    assert main(["prune", "--keep", "0"]) == 0
    assert names(results) == ["link", "notes.txt", "peak-20261101T000000Z", "peak-20261103T000000Z", "under-way"]
    assert (outside / "summary.json").is_file()
    out = capsys.readouterr().out
    assert "left alone: results/peak-20261101T000000Z holds something that no run writes: notes.txt" in out
    assert "left alone: results/under-way is no whole run" in out
    assert "left alone: results/peak-20261103T000000Z holds a link" in out


def test_every_file_that_a_run_writes_is_known(small_run: object) -> None:
    folder = small_run.folder  # type: ignore[attr-defined] # an Ended
    assert [path.name for path in folder.iterdir() if not catalog.is_of_a_run(path.name)] == []
    assert catalog.is_of_a_run("history-3.bin")
    assert not catalog.is_of_a_run("notes.txt.part")


def test_baselines_are_never_looked_at(results: Path, kept: Path, tmp_path: Path) -> None:
    assert main(["baseline", "save", str(kept), "--name", "kept"]) == 0
    assert main(["prune", "--keep", "0"]) == 0
    assert (tmp_path / "baselines" / "kept" / "run-1" / "summary.json").is_file()
    assert names(results) == []


def test_nothing_to_prune_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prune"]) == 0  # no results yet is no mistake, but a folder that was named and is not there is one
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["prune", "--results", "elsewhere"]) == 2
    assert "elsewhere: no such folder" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    assert main(["prune"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_sweep_goes_whole_or_stays_whole(results: Path, kept: Path) -> None:
    for number in (1, 2):
        sweep = results / f"peak-sweep-{number}"
        add(kept, sweep, "peak", number)
        fake_run.write_json(
            sweep / "sweep.json",
            {"schema": 1, "scenario": "peak", "started_at": f"2026-11-0{number}", "axes": [], "variants": [{}]},
        )
    planned = prune.plan(results, 1)
    assert "peak-sweep-1" in {entry.folder.name for entry, _ in planned.going}
    assert "peak-sweep-2" not in {entry.folder.name for entry, _ in planned.going}
    (results / "peak-sweep-1" / "peak-20261101T000000Z" / "mine.txt").write_text("mine")
    planned = prune.plan(results, 1)
    assert "peak-sweep-1" in {folder.name for folder, _ in planned.untouched}


def test_results_that_have_grown_large_are_mentioned(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog.growth(results) == ""
    monkeypatch.setattr(catalog, "RUNS_MANY", 6)
    assert "holds 7 runs in " in catalog.growth(results)
    monkeypatch.setattr(catalog, "RUNS_MANY", 60)
    monkeypatch.setattr(catalog, "BYTES_MANY", 1_000)
    assert "sim prune" in catalog.growth(results)
