"""`sim history` and `sim prune`: look, print, remove."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from simulator.archive import history, prune
from simulator.archive.catalog import entry_of, folders
from simulator.errors import Exit, UsageError
from simulator.report.page import write_page
from simulator.report.wording import size


def show_history(results: Path, scenario: str | None, *, most: int, html: bool, as_json: bool) -> Exit:
    """Prints the newest runs, or writes the trend page of a scenario and prints where it is.

    Raises:
        UsageError: a page without a scenario, or there is no run of it.
    """
    if html and scenario is None:
        raise UsageError("a trend page is of one scenario: sim history SCENARIO --html")
    name = _named(scenario)
    found = history.newest(results, name, history.DRAWN_MOST if html else most)
    if as_json:
        _say(json.dumps([entry.as_json() for entry in found], indent=2, ensure_ascii=False, allow_nan=False))
        return Exit.OK
    if not found:
        _say(f"there are no runs in {results}/ yet; sim run SCENARIO makes one")
        return Exit.OK
    if html and name is not None:
        word = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "run"
        _say(str(write_page(results / f"history-{word}.html", history.trend_page(name, found))))
        return Exit.OK
    _say(history.table(found))
    half = sum(entry_of(folder) is None for folder in folders(results)[: 2 * most])
    if half:
        _say(f"and {half} folder{'s' if half > 1 else ''} without a summary: half-written, under way, or no run")
    return Exit.OK


def _named(scenario: str | None) -> str | None:
    """A scenario's name; of a file, the name that it gives."""
    if scenario is None or not scenario.endswith((".yaml", ".yml")):
        return scenario
    from simulator.scenario.loader import load  # noqa: PLC0415  heavy, and wanted only for a file

    return load(Path(scenario)).name


def prune_results(results: Path, keep: int, *, dry_run: bool) -> Exit:
    """Removes all but the newest runs of each scenario, or says which would go.

    Raises:
        UsageError: there is no such folder.
        SimError: one could not be removed.
    """
    planned = prune.plan(results, keep)
    for folder, why in planned.untouched:
        _say(f"left alone: {folder} {why}")
    for entry, room in planned.going:
        if not dry_run:
            prune.remove(entry)
        _say(f"{'would remove' if dry_run else 'removed'}: {entry.folder}  {size(room)}")
    freed = sum(room for _, room in planned.going)
    count = len(planned.going)
    told = f"{count} {'run' if count == 1 else 'runs'}, {size(freed)}" if count else "nothing to remove"
    _say(f"{told}; {planned.staying} stay, at most {keep} of each scenario")
    return Exit.OK


def _say(told: str) -> None:
    sys.stdout.write(told + "\n")
