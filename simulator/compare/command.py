"""`sim compare` and `sim baseline`: read, judge, print."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from simulator.compare import baselines, text
from simulator.compare.comparison import compare
from simulator.compare.page import page
from simulator.compare.sides import open_side, refuse_invalid, runs_in, side_of
from simulator.errors import Exit, UsageError
from simulator.report import workflow
from simulator.report.job_files import write_markdown
from simulator.report.page import write_page
from simulator.report.wording import goodput_per_s, ms, plain, rate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def compare_runs(
    runs: Sequence[str], baseline: str, *, html: Path | None, markdown: Path | None, as_json: bool, force: bool
) -> Exit:
    """Compares runs with a baseline and prints what is concluded.

    Returns:
        REGRESSION if any run is worse, else OK.

    Raises:
        UsageError, SimError, InvalidRunError: see `sides.open_side` and `comparison.compare`.
    """
    reference = open_side(baseline)
    found = compare([open_side(run) for run in runs], reference, force=force)
    if as_json:
        _say(json.dumps([comparison.as_json() for comparison in found], indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _say(text.text(found))
    if html is not None:
        write_page(html, page(found))
    if markdown is not None:
        write_markdown(markdown, text.markdown(found), os.environ)
    if workflow.wanted(os.environ) and not as_json:
        _say("\n".join(text.workflow_lines(found)[: workflow.MOST]))
    return Exit.REGRESSION if any(comparison.word == "worse" for comparison in found) else Exit.OK


def save_baseline(run: Path, name: str | None, *, replace: bool, force: bool) -> Exit:
    """Keeps a run, or repeated runs, as a baseline.

    Raises:
        UsageError, SimError: it is no run, or cannot be saved.
        InvalidRunError: its figures are not to be believed, unless `force`.
    """
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; a run's folder is one that `sim run` wrote")
    folders = runs_in(run)
    side = side_of(str(run), folders)
    if not force:
        refuse_invalid(side, "the run")
    side.samples()  # what cannot be compared later is told now
    scenario = plain(side.summaries[0]["scenario"])
    saved = baselines.save(run, folders, scenario, name or baselines.name_for(scenario), replace=replace)
    _say(f"{saved.folder}: {_runs(len(saved.runs))} of {saved.scenario}")
    return Exit.OK


def list_baselines() -> Exit:
    """Prints every baseline in a line."""
    known = [baselines.read(name) for name in baselines.names()]
    if not known:
        _say(f"there are no baselines in {baselines.FOLDER}/; sim baseline save results/RUN makes one")
        return Exit.OK
    width = max(len(known_one.name) for known_one in known)
    for one in known:
        _say(f"{one.name:<{width}}  {one.saved_at}  {_runs(len(one.runs)):>7}  {one.scenario}, from {one.source}")
    return Exit.OK


def show_baseline(name: str) -> Exit:
    """Prints what a baseline is: its runs with their headline figures."""
    one = baselines.read(name)
    side = side_of(name, one.runs)
    _say(f"{one.name}: {one.scenario}, saved {one.saved_at} from {one.source} by version {one.version}")
    for folder, summary in zip(side.folders, side.summaries, strict=True):
        times = summary["response_time_ms"]
        figures = f"{rate(goodput_per_s(summary))}, p50 {ms(times.get('p50'))}, p99 {ms(times.get('p99'))}"
        _say(
            f"  {folder.name}: {summary['verdict']}, seed {summary.get('seed')}, {figures}, {summary.get('started_at', '')}"
        )
    return Exit.OK


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _say(told: str) -> None:
    if told:
        sys.stdout.write(told + "\n")
