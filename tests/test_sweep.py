"""Sweeps through the command line, and their page."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import fake_run
import pytest
import sim_process

from simulator.errors import Exit, UsageError
from simulator.report.sweep import cells_of, render_sweep, row_of
from simulator.run.outcome import GRAVEST

if TYPE_CHECKING:
    from pathlib import Path

    from sim_process import Ended

# However late the machine sends it, all of it is sent: what these tests are about is not its speed.
SHORT = sim_process.settings("duration=400ms", "load.follow_up.after=100ms", "dispatcher.patience=60s")


def sweep_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def wall_sweep(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two variants on the wall clock, of which one crosses a threshold."""
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    return sim_process.run(folder, *SHORT, "--vary", "thresholds.response_time=max > 0ms,max < 1us")


def test_each_variant_is_a_run_folder_like_any_other(wall_sweep: Ended) -> None:
    sweep = sweep_of(wall_sweep.folder)
    assert [row["verdict"] for row in sweep["variants"]] == ["pass", "fail"]
    for row in sweep["variants"]:
        folder = wall_sweep.folder / row["folder"]
        assert not [name for name in sim_process.FILES if not (folder / name).is_file()]
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        assert row["response_time_ms"] == summary["response_time_ms"]
        assert row["offered"] == summary["counts"]["offered"]
        assert row["settings"] == {"thresholds.response_time": summary["thresholds"][-1]["expression"]}


def test_a_sweep_ends_with_the_gravest_code_of_its_variants(wall_sweep: Ended) -> None:
    sweep = sweep_of(wall_sweep.folder)
    assert [row["exit_code"] for row in sweep["variants"]] == [0, 99]
    assert wall_sweep.code == sweep["exit_code"] == 99
    assert sweep["interrupted"] is False


def test_a_sweep_ends_with_a_table_and_tells_where_the_page_is(wall_sweep: Ended) -> None:
    assert wall_sweep.err == ""
    assert "\x1b" not in wall_sweep.out
    assert str(wall_sweep.folder / "report.html") in wall_sweep.out
    table = wall_sweep.out[wall_sweep.out.index("goodput") :]
    assert "PASS" in table
    assert "FAIL" in table


def test_the_page_is_rendered_again_from_the_folder_alike(wall_sweep: Ended) -> None:
    page = (wall_sweep.folder / "report.html").read_bytes()
    again = sim_process.call("report", str(wall_sweep.folder))
    assert (again.code, again.out) == (0, f"{wall_sweep.folder / 'report.html'}\n")
    assert (wall_sweep.folder / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("vary", "code", "told"),
    [
        ("balancer.policy=random,p3c", 104, "p3c"),
        ("balancer.policy", 2, "path=a,b,c"),
        ("seed=1,1", 2, "twice"),
    ],
)
def test_a_wrong_grid_is_told_before_anything_runs(tmp_path: Path, vary: str, code: int, told: str) -> None:
    ended = sim_process.run(tmp_path / "sweep", "--vary", vary)
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_an_interrupted_sweep_keeps_what_it_has_and_says_what_was_not_run(tmp_path: Path) -> None:
    with sim_process.Running(tmp_path / "sweep", "--quiet", "--set", "duration=60s", "--vary", "seed=1,2") as running:
        first = tmp_path / "sweep" / "001-seed=1"
        sim_process.until(
            lambda: sum(p.stat().st_size for p in first.glob("journal/node-*.journal")) > 50_000, "transactions"
        )
        os.kill(running.process.pid, signal.SIGINT)
        ended = running.end()
        sim_process.until(lambda: not sim_process.members(running.process.pid), "an empty session")
    assert ended.code == 105
    sweep = sweep_of(ended.folder)
    assert sweep["interrupted"] is True
    assert [(row["verdict"] is None, row["interrupted"]) for row in sweep["variants"]] == [(False, True), (True, False)]
    assert (ended.folder / "report.html").is_file()
    assert "not run" in ended.out


def test_every_exit_code_of_a_run_has_its_place_among_the_gravest() -> None:
    assert set(GRAVEST) == set(Exit) - {Exit.USAGE}


def fake_sweep(folder: Path, names: list[str]) -> Path:
    """A sweep's folder of invented runs."""
    rows = []
    for number, name in enumerate(names, start=1):
        run = fake_run.write(folder / f"{number:03d}-v", seconds=5 + number)
        row = row_of(fake_run.summary(run))
        rows.append(
            {"number": number, "name": name, "folder": run.name, "settings": {"x": name}, "exit_code": 0, **row}
        )
    rows.append(
        {"number": 9, "name": "gone", "folder": "009", "settings": {"x": "gone"}, "exit_code": None, **row_of(None)}
    )
    sweep = {
        "schema": 1, "scenario": "s", "description": "", "version": "0", "started_at": "2019-11-11T00:00:00+00:00",
        "wall_s": 9.0, "interrupted": True, "exit_code": 105, "axes": [{"path": "x", "values": names}], "variants": rows,
    }  # fmt: skip
    fake_run.write_json(folder / "sweep.json", sweep)
    return folder


def page_data(page: str) -> dict[str, Any]:
    start = page.index('id="run-data">') + len('id="run-data">')
    found: dict[str, Any] = json.loads(page[start : page.index("</script>", start)])
    return found


def test_the_page_lays_the_variants_curves_over_one_another(tmp_path: Path) -> None:
    page = render_sweep(fake_sweep(tmp_path, ["a", "b"])).read_text("utf-8")
    charts = {chart["key"]: chart for chart in page_data(page)["charts"]}
    assert set(charts) == {"percentiles", "p99", "p50", "goodput"}
    for chart in charts.values():
        assert [trace["name"] for trace in chart["data"]] == ["a", "b"]
        assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in chart["data"]}) == 2
    assert page_data(page)["span"] == [0, 7]
    assert "was not run" in page


def test_a_name_in_a_sweep_is_only_ever_a_name(tmp_path: Path) -> None:
    page = render_sweep(fake_sweep(tmp_path, ["</script><b>x", "b"])).read_text("utf-8")
    assert "<b>x" not in page


def test_a_folder_without_a_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no sweep\.json"):
        render_sweep(tmp_path)


def test_a_variant_without_a_summary_has_cells_all_the_same() -> None:
    assert cells_of(row_of(None)) == ["not run", *["no data"] * 10]
    assert cells_of({**row_of(None), "failure": "gone"})[0] == "failed"
