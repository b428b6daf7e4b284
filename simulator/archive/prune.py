"""Removes old runs: of each scenario the newest stay, and nothing goes that is not a run's folder and nothing else.

Baselines are copies in a folder of their own and are never looked at. A folder without a summary may be a run that is under way,
so it stays; one with a file that no run writes stays, because somebody put it there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.archive.catalog import RESULTS, bytes_of, entry_of, folders, is_of_a_run
from simulator.errors import SimError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.archive.catalog import Entry


@dataclass(frozen=True)
class Plan:
    """What would go and what stays.

    Attributes:
        going: the entries to remove, the oldest first, with their bytes.
        staying: how many runs and sweeps stay.
        untouched: folders that are not only a run's, with the reason.
    """

    going: tuple[tuple[Entry, int], ...]
    staying: int
    untouched: tuple[tuple[Path, str], ...]


def plan(results: Path, keep: int) -> Plan:
    """Works out what to remove so that `keep` of each scenario stay, sweeps counted apart from single runs.

    Raises:
        UsageError: there is no such folder; that the usual one is not there yet is no mistake.
    """
    if not results.is_dir() and results != RESULTS:
        raise UsageError(f"{results}: no such folder; there is nothing to prune")
    kept: dict[tuple[str, bool], list[Entry]] = {}
    untouched: list[tuple[Path, str]] = []
    for folder in folders(results):
        entry = entry_of(folder)
        why = "is no whole run: it has no summary that can be read" if entry is None else _foreign(folder)
        if entry is None or why:
            untouched.append((folder, why))
        else:
            kept.setdefault((entry.scenario, entry.variants > 0), []).append(entry)
    going: list[Entry] = []
    for same in kept.values():
        same.sort(key=lambda entry: (entry.started_at, entry.folder.name), reverse=True)
        going += same[keep:]
    going.sort(key=lambda entry: (entry.started_at, entry.folder.name))
    staying = sum(len(same) for same in kept.values()) - len(going)
    return Plan(tuple((entry, bytes_of(entry.folder)) for entry in going), staying, tuple(untouched))


def _foreign(folder: Path, *, inside: bool = False) -> str:
    """Why a folder is not a run's alone; empty if it is."""
    sweep = not inside and (folder / "sweep.json").is_file()
    with os.scandir(folder) as found:
        listed = sorted(found, key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_symlink():
            return f"holds a link that no run makes: {entry.name}"
        if sweep and entry.is_dir():
            why = _foreign(folder / entry.name, inside=True)
            if why:
                return f"{entry.name} {why}"
        elif not is_of_a_run(entry.name):
            return f"holds something that no run writes: {entry.name}"
    return ""


def remove(entry: Entry) -> None:
    """Removes one run's folder.

    Raises:
        SimError: it could not be removed, or not all of it.
    """
    try:
        # The summary makes it a run: without one, an interrupted removal is never taken for a whole run.
        for name in ("summary.json", "sweep.json"):
            (entry.folder / name).unlink(missing_ok=True)
        shutil.rmtree(entry.folder)
    except OSError as error:
        raise SimError(f"{entry.folder}: cannot be removed: {error.strerror}") from None
