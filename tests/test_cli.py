"""The command line: what it prints where, and the exit code it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulator import __version__
from simulator.cli import main
from simulator.errors import BackendError, Exit, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.scenario.model import Scenario

ROOT = Path(__file__).parent.parent
SMOKE = str(ROOT / "scenarios" / "smoke.yaml")

Run = tuple[int, str, str]


def _process(*arguments: str) -> Run:
    """Exit code, output and errors of `sim` in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "simulator.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def sim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`sim` in this process."""
    monkeypatch.delenv("SIM_DEBUG", raising=False)

    def call(*arguments: str) -> Run:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the module that runs scenarios, so that these tests are about the command line alone."""
    module = types.ModuleType("simulator.run")
    module.Wanted = lambda *wanted: wanted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simulator.run", module)
    return module


def _raises(runner: types.ModuleType, error: BaseException) -> None:
    def run_scenario(
        scenario: Scenario,
        *,
        out: Path | None,
        quiet: bool,
        allowed: frozenset[str],
        wanted: object,
        live_port: int | None,
    ) -> Exit:
        raise error

    runner.run_scenario = run_scenario  # type: ignore[attr-defined]


# ---- in processes of their own ----


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "name: a\nduration: 10 sec\nload: {rate: 5/s}\n",
            ":2: duration: '10 sec' is not a duration; write for example 10s,",
        ),
        (
            "name: a\nduration: 1s\nload: {rate: 5/s, acounts: 9}\n",
            ":3: load.acounts: there is no such key; did you mean",
        ),
        ("name: a\nname: b\n", ":2: name: this key is there already, in line 1; keep one"),
        ("name: [a\n", ":2: is not valid YAML: "),
    ],
)
def test_an_invalid_scenario_ends_with_104_and_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    code, out, err = _process("check", str(path))
    assert (code, out) == (104, "")
    assert err.startswith(f"sim: {path}{line}")
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_ends_with_104_and_one_line() -> None:
    assert _process("run", "gone.yaml") == (104, "", "sim: gone.yaml: there is no such file\n")


def test_check_shows_the_plan_and_ends_with_0() -> None:
    code, out, err = _process("check", "scenarios/smoke.yaml")
    assert (code, err) == (0, "")
    assert "transactions  about 100,000\n" in out
    assert "20,000/s" in out
    assert "response_time   p(99) < 250ms" in out
    assert "load.accounts = 100000  (default 10000000; scenarios/smoke.yaml:7)" in out


def test_help_imports_nothing_heavy() -> None:
    # What makes it fast, asserted without a stopwatch.
    script = (
        "import sys; from simulator.cli import main; main(['--help'])\n"
        "heavy = {'numpy', 'numba', 'pydantic', 'yaml', 'plotly', 'rich', 'jinja2', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(verb in ended.stdout for verb in ("run", "check", "report", "audit", "schema", "--version"))


# ---- in this process ----


def test_version_is_printed(sim: Callable[..., Run]) -> None:
    assert sim("--version") == (0, f"sim {__version__}\n", "")


def test_schema_is_json_schema_of_the_scenario(sim: Callable[..., Run]) -> None:
    code, out, _ = sim("schema")
    assert code == 0
    assert json.loads(out)["required"] == ["name", "load"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("check",),
        ("check", SMOKE, "--bogus"),
        ("check", SMOKE, "--seed", "five"),
        ("check", SMOKE, "--seed", "-1"),
        ("check", SMOKE, "--clock", "sundial"),
        ("check", SMOKE, "--set"),
        ("run", SMOKE, "--live", "--port", "65536"),
    ],
)
def test_wrong_use_ends_with_2_and_says_so(sim: Callable[..., Run], arguments: tuple[str, ...]) -> None:
    code, out, err = sim(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_flags_and_variables_override_the_file(
    sim: Callable[..., Run], runner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Scenario, Path | None, bool, frozenset[str], object, int | None]] = []

    def run_scenario(
        scenario: Scenario,
        *,
        out: Path | None,
        quiet: bool,
        allowed: frozenset[str],
        wanted: object,
        live_port: int | None,
    ) -> Exit:
        asked.append((scenario, out, quiet, allowed, wanted, live_port))
        return Exit.THRESHOLDS

    runner.run_scenario = run_scenario  # type: ignore[attr-defined]
    monkeypatch.setenv("SIM_LOAD__ACCOUNTS", "500")
    monkeypatch.setenv("SIM_SEED", "3")
    flags = (
        "--set",
        "seed=4",
        "--set",
        "duration=2s",
        "--seed",
        "5",
        "--clock",
        "virtual",
        "--out",
        "there",
        "--quiet",
        "--allow-target",
        "a:80",
        "--junit",
        "j.xml",
        "--summary-md",
        "s.md",
        "--baseline",
        "main",
        "--live",
        "--port",
        "4711",
    )
    assert sim("run", SMOKE, *flags) == (99, "", "")
    ((scenario, out, quiet, allowed, wanted, live_port),) = asked
    assert wanted == (Path("j.xml"), Path("s.md"), "main")
    assert (scenario.load.accounts, scenario.seed, scenario.clock, scenario.duration) == (500, 5, "virtual", 2 * 10**9)
    assert (out, quiet, allowed, live_port) == (Path("there"), True, frozenset({"a:80"}), 4711)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("there: the folder is there already"), 2, "sim: there: the folder is there already\n"),
        (BackendError("a worker\nstopped"), 1, "sim: a worker\nsim: stopped\n"),
        (KeyboardInterrupt(), 105, "sim: interrupted\n"),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "sim: unexpected error: ZeroDivisionError: by zero; set SIM_DEBUG=1 for the traceback\n",
        ),
    ],
)
def test_what_goes_wrong_ends_with_its_code_and_its_line(
    sim: Callable[..., Run], runner: types.ModuleType, *, error: BaseException, code: int, line: str
) -> None:
    _raises(runner, error)
    assert sim("run", SMOKE) == (code, "", line)


def test_sim_debug_shows_the_traceback(
    sim: Callable[..., Run], runner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raises(runner, ZeroDivisionError("by zero"))
    monkeypatch.setenv("SIM_DEBUG", "1")
    code, _, err = sim("run", SMOKE)
    assert code == 1
    assert "Traceback (most recent call last)" in err


def test_audit_and_report_pass_on_the_folder(
    sim: Callable[..., Run], runner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.audit_run = lambda run: Exit.ANOMALIES if run == Path("there") else Exit.ERROR  # type: ignore[attr-defined]
    report = types.ModuleType("simulator.report")
    report.render = lambda run, baseline: (baseline or run) / "report.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simulator.report", report)
    assert sim("audit", "there") == (122, "", "")
    assert sim("report", "there") == (0, "there/report.html\n", "")
    assert sim("report", "there", "--baseline", "other") == (0, "other/report.html\n", "")


def test_an_unknown_variable_ends_with_104(sim: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIM_ACCOUNTS", "500")
    code, out, err = sim("check", SMOKE)
    assert (code, out) == (104, "")
    assert err.startswith("sim: SIM_ACCOUNTS: accounts: there is no such key; known: ")
    assert err.count("\n") == 1
