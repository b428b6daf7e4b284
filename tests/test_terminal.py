"""The live views and the summary: what they show, and that it fits."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fake_run
import pytest
from rich.console import Console

from simulator.report import wording
from simulator.report.terminal import (
    LineView,
    LiveView,
    QuietView,
    Snapshot,
    live_text,
    open_view,
    print_summary,
    sparkline,
)
from simulator.report.wording import sentence

if TYPE_CHECKING:
    from pathlib import Path

SNAPSHOT = Snapshot(
    phase="running",
    elapsed_s=42.0,
    duration_s=60.0,
    counts={
        "offered": 112_234_567,
        "sent": 112_234_560,
        "ok": 112_230_000,
        "rejected": 4_200,
        "failed": 12,
        "unknown": 0,
        "dropped": 7,
    },
    in_flight=1_234,
    offered_per_s=[20_000 + 1_000 * (at % 30) for at in range(60)],
    completed_per_s=[10_000 + 500 * (at % 30) for at in range(60)],
    target_total=160_300_000.5,
    response_ms=(0.9, 7.7, 12_345.6),
    node_share=[0.26, 0.24, 0.25, 0.15, 0.05, 0.05],
    thresholds=[
        ("response_time p(99) < 50ms", "7.7 ms", True),
        ("dropped count == 0", "7", False),
        *[(f"a_metric p({n}) < 50ms", "1 ms", True) for n in range(4)],
    ],
)


def a_console(*, terminal: bool, width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, force_terminal=terminal, width=width, height=24, _environ={"TERM": "xterm-256color"})


def said(console: Console) -> str:
    file = console.file
    file.flush()
    assert isinstance(file, io.TextIOWrapper)
    buffer = file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(file.encoding)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.write(tmp_path_factory.mktemp("results") / "peak-20191110T160000Z", seconds=12)


@pytest.fixture
def summary(run: Path) -> dict[str, Any]:
    return fake_run.summary(run)


def test_the_live_view_fits_a_terminal_of_80_by_24() -> None:
    lines = str(live_text(SNAPSHOT, 80)).splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= 80


def test_the_live_view_says_all_that_it_is_for() -> None:
    text = str(live_text(SNAPSHOT))
    for expected in (
        "70%",
        "18s left",
        "p99 7.7 ms",
        "1,234",
        "generator cannot keep up",
        "26.0%",
        "✗ dropped count == 0",
    ):
        assert expected in text


def test_a_crossed_threshold_is_never_among_those_left_out() -> None:
    crossed_last = replace(SNAPSHOT, thresholds=sorted(SNAPSHOT.thresholds, key=lambda t: not t[2]))
    assert "✗ dropped count == 0   now 7" in str(live_text(crossed_last))
    assert "and 2 more, all met" in str(live_text(crossed_last))


def test_both_lines_of_load_share_one_scale() -> None:
    lines = str(live_text(SNAPSHOT)).splitlines()
    completed = next(line for line in lines if line.startswith("completed"))
    assert "█" not in completed  # half of what was offered, so half as high
    assert "█" in next(line for line in lines if line.startswith("offered"))


def test_the_live_view_of_a_run_that_has_not_begun_says_no_data() -> None:
    nothing = Snapshot("starting", 0.0, 60.0, {}, 0, [], [], 0.0, None, [], [])
    assert "no data" in str(live_text(nothing))


def test_a_sparkline_shows_nought_and_the_top() -> None:
    assert sparkline([0, 1, 50, 100], 100) == "·▁▄█"
    assert sparkline([0, 0], 0) == "··"


def test_the_live_view_draws_on_update_only_and_starts_no_thread() -> None:
    console = a_console(terminal=True)
    before = threading.active_count()
    with LiveView(console) as view:
        view.update(SNAPSHOT)
        assert threading.active_count() == before
        drawn = said(console)
    assert "completed" in drawn


def test_no_color_leaves_text_without_colour() -> None:
    file = io.StringIO()
    environ = {"NO_COLOR": "1", "TERM": "xterm-256color"}
    console = Console(file=file, force_terminal=True, width=80, height=24, _environ=environ)
    with LiveView(console) as view:
        view.update(SNAPSHOT)
    assert "✗ " in file.getvalue()
    assert "\x1b[36m" not in file.getvalue()


def test_without_a_terminal_a_line_comes_every_five_seconds_and_on_a_new_phase() -> None:
    console = a_console(terminal=False)
    with LineView(console) as view:
        for tenth in range(121):
            view.update(replace(SNAPSHOT, elapsed_s=tenth / 10))
        view.update(replace(SNAPSHOT, elapsed_s=12.1, phase="draining"))
    lines = said(console).splitlines()
    assert [line.partition(" of ")[0] for line in lines] == ["0s", "5s", "10s", "12s"]
    assert "draining" in lines[-1]
    assert "p99 7.7 ms" in lines[0]


@pytest.mark.parametrize(
    ("terminal", "encoding", "quiet", "expected"),
    [
        (True, "utf-8", False, LiveView),
        (False, "utf-8", False, LineView),
        (True, "ascii", False, LineView),
        (True, "utf-8", True, QuietView),
    ],
)
def test_the_view_suits_the_console(terminal: bool, encoding: str, quiet: bool, expected: type) -> None:  # noqa: FBT001  a parameter of the test
    assert type(open_view(a_console(terminal=terminal, encoding=encoding), quiet)) is expected


def test_the_quiet_view_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with QuietView() as view:
        view.update(SNAPSHOT)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_summary_fits_in_80_columns(run: Path, summary: dict[str, Any], encoding: str) -> None:
    summary["nodes"] *= 4
    summary["counts"]["dropped"] = 3
    summary["reasons"]["dropped"] = {"in_flight": 1, "late": 2}
    summary["reasons"]["rejected"] = {f"reason_{n}": 12_345 for n in range(9)}
    console = a_console(terminal=False, width=200, encoding=encoding)
    print_summary(console, summary, run)
    # Where there is no terminal the sentence is for searching, and stays on one line.
    lines = [line.rstrip() for line in said(console).splitlines() if line != sentence(summary)]
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80


def test_the_summary_tells_everything_a_reader_asks_for(run: Path, summary: dict[str, Any]) -> None:
    console = a_console(terminal=False)
    print_summary(console, summary, run)
    text = said(console)
    for expected in ("PASS: held", "✓", "p(99) < 50ms", "funds", "lag", "p99.9", "clean", "valid"):
        assert expected in text
    assert "report.html" in text.replace("\n", "")  # a long path is wrapped


def test_a_hundred_nodes_are_told_in_a_line(run: Path, summary: dict[str, Any]) -> None:
    summary["nodes"] = [{**summary["nodes"][0], "node": node, "share": 0.01} for node in range(100)]
    console = a_console(terminal=False)
    print_summary(console, summary, run)
    assert "100 nodes: share 1.0% to 1.0% each" in said(console)


def test_a_quiet_summary_is_the_verdict_alone_on_one_line(run: Path, summary: dict[str, Any]) -> None:
    console = a_console(terminal=False, width=20)
    print_summary(console, summary, run, quiet=True)
    assert said(console) == wording.sentence(summary) + "\n"


def test_a_name_cannot_steer_the_terminal_nor_be_read_as_markup(run: Path, summary: dict[str, Any]) -> None:
    summary["verdict"] = "invalid"
    summary["validity"] = {"verdict": "inconclusive", "reasons": ["\x1b[2J[red]boom[/red]"]}
    console = a_console(terminal=False)
    print_summary(console, summary, run)
    assert "\x1b" not in said(console)
    assert "[red]boom[/red]" in said(console)
