"""The README: what it shows can be typed, opened and run."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from simulator.cli import main
from simulator.errors import Exit
from simulator.scenario.model import Scenario
from simulator.scenario.platform import PLUGIN_GROUP
from simulator.scenario.vary import expand, parse_axes
from simulator.transaction import OUTCOME, TRANSACTION, Status

if TYPE_CHECKING:
    from simulator.backend.backend import Backend

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = ("README.md", "CHANGELOG.md", "docs/design.md", "docs/scenario.md", "docs/terminology.md")


def _blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def _commands(program: str) -> list[list[str]]:
    """Every command line of a program that the README shows, in blocks and in the text: its words after the program."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in _blocks("sh") for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose)
    words = [shlex.split(line, comments=True) for line in lines if "'" not in line]
    return [found[1:] for found in words if found and Path(found[0]).name == program]


SIM = _commands("sim")
MAKE = _commands("make")


def _ids(commands: list[list[str]]) -> list[str]:
    return [" ".join(command) for command in commands]


def _help(capsys: pytest.CaptureFixture[str], *verb: str) -> str:
    assert main([*verb, "--help"]) == Exit.OK
    return capsys.readouterr().out


def test_the_two_commands_and_five_more_are_there() -> None:
    assert {tuple(command) for command in MAKE} >= {("run",), ("test",)}
    assert {command[0] for command in SIM} >= {"run", "check", "audit", "report", "schema"}


@pytest.mark.parametrize("command", SIM, ids=_ids(SIM))
def test_every_sim_command_shown_is_known_with_its_flags(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = command
    known = set(re.findall(r"--[a-z-]+", _help(capsys, verb)))
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize("command", SIM, ids=_ids(SIM))
def test_every_scenario_shown_is_valid_with_the_overrides_shown(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    verb, *rest = command
    if "--vary" in rest:
        at = rest.index("--vary")
        axes = parse_axes([rest[at + 1]])
        assert len(expand(Path(rest[0]), axes, [], {})) == len(axes[0].values) > 1
        rest = rest[:at] + rest[at + 2 :]
    if verb in {"run", "check"} and rest and not rest[0].startswith("--"):
        varied = [word for flag, word in pairwise(rest) if flag == "--vary"]
        for variant in expand(Path(rest[0]), parse_axes(varied), [], {}) if varied else []:
            assert len(variant.settings) == len(varied)
        plain = [word for word in rest if word not in {"--vary", "--live", *varied}]
        code = main(["check", *plain])
        assert (code, capsys.readouterr().err) == (Exit.OK, "")


@pytest.mark.parametrize("command", MAKE, ids=_ids(MAKE))
def test_every_make_target_shown_is_in_the_makefile(command: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {word for word in command if "=" not in word} <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_every_folder_of_the_path_exists() -> None:
    [drawing] = re.findall(r"^## The path of a transaction\n\n((?: {4}.*\n)+)", README, re.MULTILINE)
    names = [line.split()[0] for line in drawing.splitlines()]
    assert [name for name in names if not (ROOT / "simulator" / name).exists()] == []


def test_the_scenario_shown_is_the_one_that_make_run_runs() -> None:
    shown, _ = _blocks("yaml")
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "scenarios" / "peak.yaml").read_text("utf-8"))
    assert "SCENARIO ?= scenarios/peak.yaml\n" in (ROOT / "Makefile").read_text("utf-8")


def test_the_backend_shown_is_one() -> None:
    _, shown = _blocks("yaml")
    data = {"name": "x", "duration": "1s", "load": {"rate": "1/s"}, **yaml.safe_load(shown)}
    assert Scenario.from_data(data).backend.http is not None


def test_the_exit_codes_shown_are_all_there_are() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)] == sorted(Exit)


def test_the_entry_point_group_shown_is_the_one_looked_up() -> None:
    assert f"`{PLUGIN_GROUP}`" in README


# ---- "add a backend" ----


@pytest.fixture
def example() -> Backend:
    """The backend that the README's Python block defines."""
    [code] = _blocks("python")
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102  it is our own README, and running it is the point
    [made] = [value for value in namespace.values() if isinstance(value, type) and hasattr(value, "offer")]
    backend: Backend = made()
    return backend


def test_the_example_is_about_a_dozen_lines() -> None:
    [code] = _blocks("python")
    body = code.partition("class ")[2].splitlines()[1:]
    assert len([line for line in body if line.strip()]) <= 16


def test_the_example_answers_each_transaction_exactly_once(example: Backend) -> None:
    batch = np.zeros(1_000, TRANSACTION)
    batch["id"] = np.arange(1, 1_001)
    batch["slot"] = np.arange(1_000)[::-1]
    assert example.owners().dtype == np.int64
    assert set(example.owners().tolist()) <= set(range(example.nodes))
    taken = example.offer(0, batch[:400]) + example.offer(0, batch[400:])
    assert taken == len(batch)
    answers = np.zeros(0, OUTCOME)
    room = np.zeros(300, OUTCOME)  # fewer than there are answers, so that some must wait for the next poll
    while count := example.poll(room):
        answers = np.append(answers, room[:count])
        assert len(answers) <= taken
    assert sorted(zip(answers["id"], answers["slot"], strict=True)) == sorted(
        zip(batch["id"], batch["slot"], strict=True)
    )
    assert set(answers["status"].tolist()) == {Status.REJECTED}
    example.wait(0.0)
    assert example.poll(room) == 0
