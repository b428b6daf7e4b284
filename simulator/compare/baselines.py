"""Baselines: runs that are kept under a name, to hold later ones against.

A baseline is a folder below `baselines/`, beside `results/`: `baseline.json` and a folder for each run with what a comparison
reads. Journals and history stay behind, so it is a few megabytes, and pruning results never touches it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import __version__
from simulator.errors import SimError, UsageError
from simulator.report.export import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path("baselines")
KEPT = (
    "summary.json",
    "timeseries.csv",
    "latency.hlog",
    "scenario.yaml",
    "environment.json",
    "audit.json",
    "events.jsonl",
)
MOST = 100  # baselines; a few megabytes each
_SCHEMA = 1
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,79}")


@dataclass(frozen=True)
class Baseline:
    """One baseline as its baseline.json tells it."""

    name: str
    folder: Path
    scenario: str
    saved_at: str
    source: str  # the folder that was saved
    version: str
    runs: tuple[Path, ...]


def name_for(scenario: str) -> str:
    """The name that a scenario's baseline has unless another is given."""
    return re.sub(r"[^0-9A-Za-z_.-]+", "-", scenario).strip("-.")[:80] or "run"


def save(
    source: Path, runs: Sequence[Path], scenario: str, name: str, *, replace: bool, folder: Path = FOLDER
) -> Baseline:
    """Copies what a comparison reads of some runs; whole or not at all.

    Args:
        source: what was named: a run's folder, or that of repeated runs.
        runs: the folders of its runs, already found fit to be a baseline.
        scenario: its name.
        name: what to keep it under.
        replace: whether one of that name may be replaced.
        folder: where baselines are.

    Raises:
        UsageError: the name cannot be one, is taken, or there are too many.
        SimError: the disk says no.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name}: is not a baseline's name; write letters, digits and - _ . only, at most 80")
    target = folder / name
    if target.exists() and not replace:
        raise UsageError(f"{target} exists already; write --replace to save over it, or another --name")
    if not target.exists() and folder.is_dir() and sum(1 for _ in folder.iterdir()) >= MOST:
        raise UsageError(f"{folder} holds {MOST} baselines, and that is the most; remove one that nobody needs")
    if target.exists() and not (target / "baseline.json").is_file():
        raise UsageError(f"{target} is not a baseline: it has no baseline.json; nothing is saved over it")
    part = folder / f".{name}.part"
    made = Baseline(
        name, target, scenario, datetime.now(UTC).isoformat(timespec="seconds"), str(source), __version__, ()
    )
    try:
        shutil.rmtree(part, ignore_errors=True)
        for number, run in enumerate(runs, start=1):
            copy = part / f"run-{number}"
            copy.mkdir(parents=True)
            for file in KEPT:
                if (run / file).is_file():
                    shutil.copyfile(run / file, copy / file)
        write_json(part / "baseline.json", _as_json(made, len(runs)))
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise SimError(f"{target}: cannot be written: {error.strerror}; the baseline was not saved") from None
    return read(name, folder)


def _as_json(made: Baseline, runs: int) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "name": made.name,
        "scenario": made.scenario,
        "saved_at": made.saved_at,
        "source": made.source,
        "version": made.version,
        "runs": runs,
    }


def read(name: str, folder: Path = FOLDER) -> Baseline:
    """One baseline by its name.

    Raises:
        UsageError: there is none.
        SimError: it is half-written or of another schema.
    """
    path = folder / name / "baseline.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(names(folder))
        raise UsageError(
            f"{name}: there is no such baseline in {folder}/"
            + (f"; there are {known}" if known else "; there are none")
        ) from None
    except (OSError, ValueError) as error:
        raise SimError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise SimError(f"{path}: has schema {schema}; this version reads schema {_SCHEMA}")
    runs = tuple(sorted((run for run in path.parent.glob("run-*") if run.is_dir()), key=_number))
    if not runs or len(runs) != found.get("runs"):
        raise SimError(
            f"{path.parent}: is half-written: it holds {len(runs)} runs of {found.get('runs')}; save it again"
        )
    text = {key: str(found.get(key, "")) for key in ("scenario", "saved_at", "source", "version")}
    return Baseline(name, path.parent, text["scenario"], text["saved_at"], text["source"], text["version"], runs)


def _number(run: Path) -> int:
    digits = run.name.removeprefix("run-")
    return int(digits) if digits.isdecimal() else 0


def names(folder: Path = FOLDER) -> list[str]:
    """The names of all baselines, in alphabetical order."""
    if not folder.is_dir():
        return []
    return sorted(entry.parent.name for entry in folder.glob("*/baseline.json"))
