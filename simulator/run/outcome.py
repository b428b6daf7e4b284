"""What is done with a run once it has ended: held against its baseline, and told to the job that it is part of."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.archive.catalog import RESULTS, growth
from simulator.compare import baselines
from simulator.compare.gate import hold, hold_run
from simulator.compare.sides import Side, open_side, refuse_invalid, side_of
from simulator.errors import Exit, SimError, UsageError
from simulator.report import workflow
from simulator.report.export import write_json
from simulator.report.job_files import check_writable, write_junit, write_markdown
from simulator.report.junit import junit
from simulator.report.markdown import markdown
from simulator.run.folder import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from simulator.report.wording import Summary
    from simulator.scenario.model import Scenario

# Of what went wrong in several runs the first of these decides, as for what goes wrong in one.
GRAVEST = (
    Exit.ANOMALIES, Exit.ERROR, Exit.INVALID_SCENARIO, Exit.INTERRUPTED, Exit.INVALID_RUN, Exit.THRESHOLDS, Exit.REGRESSION,
    Exit.OK,
)  # fmt: skip
_LARGE = (
    "nodes",
    "shards",
    "balancer",
    "by_kind",
    "platform",
    "client",
)  # of a summary; a job's files have no use for them


@dataclass(frozen=True)
class Wanted:
    """What the command line wants beside the run's folder."""

    junit: Path | None = None
    markdown: Path | None = None
    baseline: str | None = None  # a name or a folder; None: the scenario's own, if there is one

    def check(self) -> None:
        """Refuses files that cannot be written, before anything runs. Raises UsageError."""
        for path, flag in ((self.junit, "--junit"), (self.markdown, "--summary-md")):
            if path is not None:
                check_writable(path, flag)


def reference_for(scenario: Scenario, wanted: Wanted) -> Side | None:
    """What the scenario's thresholds on a baseline are held against; None: nothing, or there are none.

    Raises:
        UsageError: the baseline asked for is not there.
        SimError: it cannot be read.
        InvalidRunError: its figures are not to be believed.
    """
    name = wanted.baseline
    asked = any(threshold.factor is not None for threshold in scenario.threshold_list)
    if name is not None and not asked:
        raise UsageError(
            f"--baseline {name}: no threshold of this scenario names a baseline; write for example "
            "response_time: 'p(99) <= baseline * 1.10'"
        )
    if name is None:
        name = baselines.name_for(scenario.name)
        if not asked or name not in baselines.names():
            return None
    side = open_side(name)
    refuse_invalid(side, "the baseline")
    return side


def held(summary: Summary, folder: Path, reference: Side | None) -> Summary:
    """A run's summary with its thresholds on the baseline judged, also in its folder.

    A comparison that cannot be made leaves them as not compared, and says why.
    """
    if reference is None:
        return summary
    try:
        judged = hold_run(summary, side_of(str(folder), [folder]), reference)
        write_json(folder / "summary.json", judged)
    except (SimError, OSError) as error:
        sys.stderr.write(f"sim: not compared with the baseline: {error}\n")
        return summary
    for note in judged.get("baseline", {}).get("notes", []):
        sys.stderr.write(f"sim: baseline: {note}\n")
    return judged


def held_together(folder: Path, runs: Sequence[tuple[Path, Summary]], reference: Side | None) -> dict[str, Any] | None:
    """What repeated runs together show against the baseline; None: nothing to judge.

    Returns:
        `name` of the baseline and `thresholds`, judged; or `name` and `failure`, why they could not be.
    """
    if reference is None or not runs:
        return None
    items = [item for item in runs[0][1]["thresholds"] if "baseline" in item]
    if not items:
        return None
    try:
        judged = hold(side_of(str(folder), [path for path, _ in runs]), reference, items)
    except SimError as error:
        return {"name": reference.name, "thresholds": [], "failure": str(error)}
    return {"name": reference.name, "thresholds": judged}


def slim(summary: Summary) -> Summary:
    """A summary without what grows with the platform, to keep many of."""
    return {key: value for key, value in summary.items() if key not in _LARGE}


def tell(wanted: Wanted, runs: Sequence[tuple[str, Summary]]) -> None:
    """Writes what the job wants of some runs, by folder; and its annotations, in a workflow of GitHub's.

    A file that cannot be written is told, and no reason to fail runs that are over.
    """
    try:
        if wanted.junit is not None:
            write_junit(wanted.junit, junit(runs))
        if wanted.markdown is not None:
            write_markdown(wanted.markdown, markdown(runs), os.environ)
    except SimError as error:
        sys.stderr.write(f"sim: {error}\n")
    if workflow.wanted(os.environ):
        for line in workflow.of_runs(summary for _, summary in runs):
            say(line)


def tell_growth(folder: Path) -> None:
    """Says when the results that a run's folder is among have grown large."""
    if folder.parent == RESULTS:
        line = growth(RESULTS)
        if line:
            sys.stderr.write(f"sim: {line}\n")
