"""The live view and the summary in characters: what they show, and that it fits terminals of any size."""

from __future__ import annotations

import io
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from simulator.report import wording
from simulator.report.live_text import chart_lines, live_text, sparkline
from simulator.report.snapshot import Pace, Snapshot
from simulator.report.terminal import print_summary
from simulator.report.view import LineView, LiveView, QuietView
from simulator.report.wording import sentence

if TYPE_CHECKING:
    from pathlib import Path

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-79]|4[0-79]|9[0-7]|10[0-7])[0-9;]*m")
PAGE = "http://127.0.0.1:40123/?token=AbCdEfGhIjKlMnOpQrStUvWxYz012345"
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


class Tty(io.BytesIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def a_console(*, terminal: bool, width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(Tty() if terminal else io.BytesIO(), encoding=encoding)
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
    lines = str(live_text(SNAPSHOT)).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


@given(
    width=st.integers(1, 250), height=st.integers(1, 80), nodes=st.integers(0, 1_000), thresholds=st.integers(0, 60),
    crossed=st.integers(0, 60), page=st.booleans(), waits=st.booleans(),
)  # fmt: skip
def test_the_live_view_fits_any_terminal(
    width: int, height: int, nodes: int, thresholds: int, crossed: int, *, page: bool, waits: bool
) -> None:
    shown = replace(
        SNAPSHOT,
        node_share=[1 / nodes] * nodes if nodes else [],
        thresholds=[(f"m{n} p(99) < 1ms", "2 ms", n >= crossed) for n in range(thresholds)],
        page=PAGE if page else "",
        response_ms=None if waits else SNAPSHOT.response_ms,
    )
    lines = str(live_text(shown, width, height)).split("\n")
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


@given(width=st.integers(40, 250), height=st.integers(14, 80), crossed=st.integers(0, 1))
def test_a_small_terminal_loses_no_count_and_no_crossed_threshold(width: int, height: int, crossed: int) -> None:
    thresholds = [("dropped count == 0", "7", not crossed), *SNAPSHOT.thresholds[2:]]
    text = str(live_text(replace(SNAPSHOT, thresholds=thresholds, page=PAGE), width, height))
    for expected in (
        "ok 112,230,000", "rejected 4,200", "failed 12", "unknown 0", "p50 0.9 ms", "p99 7.7 ms", "p99.9 12,346 ms",
        "dropped     7", "1,234", "112,234,567",
    ):  # fmt: skip
        assert expected in text
    assert ("✗ dropped count == 0   now 7" in text) == bool(crossed)


def test_a_large_terminal_has_every_node_every_threshold_and_higher_charts() -> None:
    lines = str(live_text(replace(SNAPSHOT, page=PAGE), 200, 60)).splitlines()
    assert sum(line.startswith("node ") for line in lines) == 6
    assert sum("now " in line for line in lines) == 6
    assert sum("█" in line for line in lines[:18]) > 8
    assert any(PAGE in line for line in lines)


def test_a_wide_terminal_has_a_longer_history() -> None:
    long = replace(SNAPSHOT, offered_per_s=list(range(1, 241)), completed_per_s=[1] * 240)
    for width in (80, 132, 200):
        offered = next(line for line in str(live_text(long, width)).splitlines() if line.startswith("offered"))
        assert len(offered) == width


def test_a_thousand_nodes_fill_a_screen_and_do_not_overflow_it() -> None:
    many = replace(SNAPSHOT, node_share=[0.001] * 1_000)
    lines = str(live_text(many, 80, 60)).splitlines()
    assert len(lines) == 60
    assert any("all nodes   1000: 0.1% to 0.1% each" in line for line in lines)


def test_the_address_of_the_live_page_is_whole_however_narrow_the_terminal() -> None:
    lines = str(live_text(replace(SNAPSHOT, page=PAGE), 60, 24)).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("live page"))
    assert lines[at][12:] + lines[at + 1].strip() == PAGE


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.integers(1, 8))
def test_a_chart_is_as_high_as_its_values_and_shows_all_that_is_not_nothing(values: list[int], height: int) -> None:
    top = max(values)
    lines = chart_lines(values, top, height)
    for at, value in enumerate(values):
        filled = sum(" ▁▂▃▄▅▆▇█".index(line[at].replace("·", " ")) for line in lines)
        assert filled == (max(value * 8 * height // top, 1) if value else 0)
        assert (lines[-1][at] == "·") == (value == 0)


def test_the_live_view_of_a_simulation_says_how_long_it_takes_yet() -> None:
    simulated = replace(
        SNAPSHOT, pace=Pace(2.0, 3_000_000.0, 90.0), offered_per_s=[], completed_per_s=[], node_share=[]
    )
    text = str(live_text(simulated, 60, 20))
    assert "about 1m30s left" in text
    assert "3,000,000/s of real time" in text


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


def test_no_color_leaves_text_without_colour(run: Path, summary: dict[str, Any]) -> None:
    file = io.StringIO()
    environ = {"NO_COLOR": "1", "TERM": "xterm-256color"}
    console = Console(file=file, force_terminal=True, width=80, height=24, _environ=environ)
    with LiveView(console) as view:
        view.update(SNAPSHOT)
    print_summary(console, summary, run)
    assert "✗ " in file.getvalue()
    assert not COLOUR.search(file.getvalue())


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
    # Where there is no terminal the sentence is for searching, and stays on one line; so does the path, for copying.
    whole = {sentence(summary), f"report      {run / 'report.html'}"}
    lines = [line.rstrip() for line in said(console).splitlines() if line not in whole]
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80


def test_the_summary_tells_everything_a_reader_asks_for(run: Path, summary: dict[str, Any]) -> None:
    console = a_console(terminal=False)
    print_summary(console, summary, run)
    text = said(console)
    for expected in ("PASS: held", "✓", "p(99) < 50ms", "funds", "lag", "p99.9", "clean", "valid"):
        assert expected in text
    assert f"report      {run / 'report.html'}" in text.splitlines()  # for copying: a terminal breaks it, not we


def test_the_last_line_of_a_log_is_the_sentence_of_the_report(run: Path, summary: dict[str, Any]) -> None:
    console = a_console(terminal=False)
    print_summary(console, summary, run)
    assert said(console).splitlines()[-1] == sentence(summary)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_last_words_on_a_terminal_are_the_sentence_of_the_report(
    run: Path, summary: dict[str, Any], width: int
) -> None:
    console = a_console(terminal=True, width=width)
    print_summary(console, summary, run)
    words = re.sub(r"\x1b\[[0-9;]*m", "", said(console)).split()
    assert " ".join(words).endswith(" ".join(sentence(summary).split()))


@pytest.mark.parametrize("width", [30, 40, 60])
def test_no_column_of_the_summary_is_lost_on_a_narrow_terminal(run: Path, summary: dict[str, Any], width: int) -> None:
    narrow, wide = a_console(terminal=False, width=width), a_console(terminal=False, width=200)
    print_summary(narrow, summary, run)
    print_summary(wide, summary, run)
    assert "".join(said(narrow).split()) == "".join(said(wide).split())


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
