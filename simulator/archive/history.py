"""The runs so far, told over: a table of the newest, and a page that shows how one scenario fared from run to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.archive.catalog import entries, runs_of
from simulator.errors import UsageError
from simulator.report import drawn, svg
from simulator.report.blocks import Table
from simulator.report.wording import NO_DATA, ms, rate
from simulator.scenario.spelling import known_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from simulator.archive.catalog import Entry

LISTED = 30
DRAWN_MOST = 200  # runs of a trend page; the newest
HEAD = ("when (UTC)", "scenario", "verdict", "goodput", "p50", "p99", "audit", "folder")
_MARKS = {"pass": "good", "fail": "bad", "invalid": "warn"}


def newest(results: Path, scenario: str | None, most: int) -> list[Entry]:
    """The newest runs and sweeps, of one scenario if asked for, at most so many.

    Raises:
        UsageError: there are runs, but none of that scenario.
    """
    found: list[Entry] = []
    others: dict[str, None] = {}
    for entry in entries(results):
        if scenario is not None and entry.scenario != scenario:
            others[entry.scenario] = None
            continue
        found.append(entry)
        if len(found) == most:
            break
    if scenario is not None and not found and others:
        raise UsageError(f"{scenario}: no run of this scenario in {results}/; {known_words(scenario, others)}")
    return sorted(found, key=lambda entry: (entry.started_at, entry.folder.name), reverse=True)


def row(entry: Entry) -> tuple[str, ...]:
    """The cells of HEAD."""
    when = entry.started_at[:19].replace("T", " ")
    figures = (rate(entry.goodput_per_s), ms(entry.p50_ms), ms(entry.p99_ms))
    return (
        when or NO_DATA,
        entry.scenario,
        entry.verdict,
        *(("", "", "") if entry.variants else figures),
        entry.audit,
        str(entry.folder),
    )


def table(found: Sequence[Entry]) -> str:
    """The runs for a terminal: aligned columns, no colours."""
    body = [HEAD, *(row(entry) for entry in found)]
    widths = [max(len(cells[at]) for cells in body) for at in range(len(HEAD))]
    figures = {3, 4, 5}
    lines = []
    for cells in body:
        aligned = (
            c.rjust(w) if at in figures else c.ljust(w) for at, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def trend_page(scenario: str, found: Sequence[Entry]) -> str:
    """The page of one scenario's runs, at least one; those of sweeps over seeds count singly."""
    runs = [run for entry in found for run in runs_of(entry)]
    runs.sort(key=lambda run: (run.started_at, run.folder.name))
    runs = runs[-DRAWN_MOST:]
    passed = sum(run.verdict == "pass" for run in runs)
    return drawn.page(
        kind="History of a scenario",
        heading=scenario,
        word=f"{passed} of {len(runs)} runs passed",
        cause=f"the last one: {runs[-1].verdict}, p99 {ms(runs[-1].p99_ms)}" if runs else "",
        tone={"pass": "pass", "fail": "fail"}.get(runs[-1].verdict, "") if runs else "",
        parts=[
            drawn.Part("trend", "From run to run", figures=[_times(runs), _rates(runs)] if runs else []),
            drawn.Part(
                "runs",
                "Runs",
                tables=[
                    Table(
                        "The newest first", HEAD, [row(run) for run in reversed(runs)], words=frozenset({0, 1, 2, 6, 7})
                    )
                ],
            ),
        ],
    )


def _places(runs: Sequence[Entry]) -> svg.Axis:
    """Runs side by side, with the day of some of them, or the time of day where that is one: by time, they would be a dot."""
    step = -(-len(runs) // 8)
    days = [runs[at].started_at[:10] for at in range(0, len(runs), step)]
    told = slice(0, 10) if len(set(days)) == len(days) else slice(5, 16)
    ticks = tuple((float(at), runs[at].started_at[told].replace("T", " ")) for at in range(0, len(runs), step))
    return svg.Axis(-0.5, max(len(runs) - 0.5, 0.5), log=False, ticks=ticks)


def _line(name: str, runs: Sequence[Entry], values: Sequence[float | None], *, marked: bool) -> svg.Line:
    marks = [_MARKS.get(run.verdict, "grey") for run in runs] if marked else []
    titles = [f"{run.started_at[:19]} {run.verdict} {run.folder.name}" for run in runs] if marked else []
    return svg.Line(name, [float(at) for at in range(len(runs))], values, marks, titles)


def _times(runs: Sequence[Entry]) -> drawn.Drawing:
    p50, p99, p999 = ([getattr(run, name) for run in runs] for name in ("p50_ms", "p99_ms", "p999_ms"))
    known = [value for value in (*p50, *p99, *p999) if value is not None]
    lines = [
        _line("p50", runs, p50, marked=False), _line("p99", runs, p99, marked=True), _line("p99.9", runs, p999, marked=False),
    ]  # fmt: skip
    return drawn.Drawing(
        "Response time from run to run",
        "The oldest run on the left, the newest on the right. A dot is green where the run passed, red where it failed, brown "
        "where its figures are not to be believed. A step that stays is a change, a single peak one bad run; sim compare says "
        "what there is evidence for.",
        svg.chart(
            "Response time from run to run", lines, _places(runs), svg.logarithmic(known), "run", "response time (ms)"
        ),
    )


def _rates(runs: Sequence[Entry]) -> drawn.Drawing:
    values = [run.goodput_per_s for run in runs]
    known = [value for value in values if value is not None]
    lines = [_line("goodput", runs, values, marked=True)]
    return drawn.Drawing(
        "Goodput from run to run",
        "Answers ok per second. Where the load is the same it should be as well.",
        svg.chart("Goodput from run to run", lines, _places(runs), svg.linear(known), "run", "ok per second"),
    )
