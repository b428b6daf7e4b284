"""docs/ci.md: the workflow shown is valid, and its commands do what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from simulator.cli import main
from simulator.errors import Exit
from simulator.report.job_files import STEP_SUMMARY

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")
# What makes the workflow's scenario one that a busy machine runs in seconds: simulated, and short.
QUICK = ["--quiet", "--clock", "virtual", "--set", "duration=2s", "--set", "load.rate=4000/s"]


def workflow() -> dict[str, Any]:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found: dict[str, Any] = yaml.safe_load(shown)
    return found


def commands() -> list[list[str]]:
    """What the workflow's steps run, in order, with the job's page where the shell would put it."""
    steps = workflow()["jobs"]["gate"]["steps"]
    lines = [step["run"] for step in steps if step.get("run", "").startswith(".venv/bin/sim ")]
    return [shlex.split(line.replace("$" + STEP_SUMMARY, "page.md"))[1:] for line in lines]


def test_the_workflow_runs_compares_and_saves() -> None:
    assert [command[0] for command in commands()] == ["run", "compare", "baseline"]
    assert all("${{" not in word for command in commands() for word in command)


def test_its_commands_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STEP_SUMMARY, "page.md")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    (tmp_path / "results").mkdir()
    run, compare, save = commands()
    assert main([*run, *QUICK]) == 0
    assert main(save) == 0
    (tmp_path / "results" / "gate").rename(tmp_path / "results" / "before")
    assert main([*run, *QUICK, "--seed", "100"]) == 0
    assert main(compare) == 0
    assert "::error" not in capsys.readouterr().out
    assert (tmp_path / "junit.xml").read_text("utf-8").count("<testsuite ") == 5
    page = (tmp_path / "page.md").read_text("utf-8")
    assert page.count("| run | verdict |") == 2
    assert "NO EVIDENCE" in page


def test_the_exit_codes_on_the_page_are_those_there_are() -> None:
    codes = [int(code) for row in re.findall(r"^\| ([0-9, ]+) \|", PAGE, re.MULTILINE) for code in row.split(",")]
    assert sorted(codes) == sorted(Exit)
