"""Reads a run's folder back: its summary must be whole; any other file may be missing, which is noted."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.errors import SimError, UsageError
from simulator.report.asked import Asked, asked_in
from simulator.report.hlog import Curve, Hlog, HlogError, Intervals, read_hlog
from simulator.report.wording import number, plain

if TYPE_CHECKING:
    from pathlib import Path

SUMMARY_SCHEMA = 1
_PAIR = 2

Cell = int | float | None
Columns = dict[str, list[Cell]]

# What the report cannot do without, and the JSON type it must have.
_REQUIRED: dict[str, type] = {
    "scenario": str,
    "verdict": str,
    "validity": dict,
    "counts": dict,
    "rates": dict,
    "response_time_ms": dict,
    "audit": dict,
    "thresholds": list,
}


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it; what was not there is empty, and `notes` says so."""

    path: Path
    summary: dict[str, Any]
    series: Columns  # timeseries.csv by column, one entry a second; None: no data
    latency: dict[str, Curve]  # by tag: response_time, service_time, schedule_lag
    audit: dict[str, Any]
    environment: dict[str, Any]
    events: list[dict[str, Any]]
    scenario: str
    notes: list[str] = field(default_factory=list)
    platform: Columns = field(default_factory=dict)  # platform.csv by column; not every run has one
    intervals: dict[str, Intervals] = field(default_factory=dict)  # latency.hlog by tag, window by window
    asked: Asked = Asked()  # noqa: RUF009  frozen
    overlays: list[tuple[str, Curve]] = field(default_factory=list)  # what response times are to be compared with


def read(run: Path) -> RunFolder:
    """Read the folder of a finished run.

    Raises:
        SimError: `run` is no run's folder, or its summary is missing or incomplete.
    """
    summary = read_summary(run)
    notes: list[str] = []
    log = _hlog(run, notes)
    scenario = _text(run / "scenario.yaml", notes)
    return RunFolder(
        path=run,
        summary=summary,
        series=read_series(run / "timeseries.csv", notes),
        latency=log.curves,
        audit=_object(run / "audit.json", notes) or summary["audit"],
        environment=_object(run / "environment.json", notes),
        events=_events(run / "events.jsonl", notes),
        scenario=scenario,
        notes=notes,
        platform=read_series(run / "platform.csv", notes) if (run / "platform.csv").exists() else {},
        intervals=log.intervals,
        asked=asked_in(scenario),
        overlays=_theory(summary),
    )


def read_events(run: Path) -> list[dict[str, Any]]:
    """Read what happened in a run, as far as that is known."""
    return _events(run / "events.jsonl", [])


def read_summary(run: Path) -> dict[str, Any]:
    """Read a run's summary.json.

    Raises:
        UsageError: there is no such folder, or it is no run's.
        SimError: it is half-written, incomplete, or of another schema.
    """
    refuse_unfinished(run)
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SimError(f"{path}: cannot be read as JSON, the run may not have finished: {error}") from None
    if not isinstance(summary, dict):
        raise SimError(f"{path}: is not a run's summary: a JSON object is expected")
    missing = [name for name, kind in _REQUIRED.items() if not isinstance(summary.get(name), kind)]
    if missing:
        raise SimError(f"{path}: is incomplete: {', '.join(missing)} missing or of the wrong type")
    if summary.get("schema", SUMMARY_SCHEMA) != SUMMARY_SCHEMA:
        raise SimError(f"{path}: has schema {summary['schema']}; this version reads schema {SUMMARY_SCHEMA}")
    return summary


def refuse_unfinished(run: Path) -> None:
    """Refuse what is not the folder of a run that has ended.

    Raises:
        UsageError: there is no such folder, or it is no run's.
        SimError: its run did not finish.
    """
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; a run's folder is one that `sim run` wrote")
    if (run / "summary.json").is_file():
        return
    if any((run / name).exists() for name in ("scenario.yaml", "environment.json", "events.jsonl")):
        raise SimError(f"{run}: the run did not finish: summary.json is missing")
    raise UsageError(f"{run}: not a run's folder: summary.json is missing")


def _text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
    return ""


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    text = _text(path, notes)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        notes.append(f"{path.name} is not JSON: {error}")
        return {}
    if isinstance(value, dict):
        return value
    notes.append(f"{path.name} holds no JSON object")
    return {}


def _events(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    events = []
    for line_number, line in enumerate(_text(path, notes).splitlines(), start=1):
        try:
            event = json.loads(line) if line.strip() else None
        except ValueError:
            notes.append(f"{path.name} line {line_number} is not JSON")
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def read_series(path: Path, notes: list[str]) -> Columns:
    """The columns of a timeseries.csv."""
    rows = list(csv.reader(_text(path, notes).splitlines()))
    if not rows:
        return {}
    header, body = rows[0], rows[1:]
    whole = [row for row in body if len(row) == len(header)]
    if len(whole) < len(body):
        notes.append(f"{path.name} has {len(body) - len(whole)} incomplete rows, left out")
    return {name: [_cell(row[at]) for row in whole] for at, name in enumerate(header)}


def end_s(columns: Columns) -> float:
    """Where the last window of a series ends; a second long where it does not say. 1 for no series."""
    starts = columns.get("second", [])
    lengths = columns.get("window_s") or [1] * len(starts)
    return max(
        (start + (length or 0) for start, length in zip(starts, lengths, strict=False) if start is not None), default=1
    )


def _cell(text: str) -> Cell:
    """Integers stay integers, money above all."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_latency(run: Path, notes: list[str]) -> dict[str, Curve]:
    """The quantile function of each measure, by its tag, from a run's latency.hlog."""
    return _hlog(run, notes).curves


def _hlog(run: Path, notes: list[str]) -> Hlog:
    path = run / "latency.hlog"
    try:
        return read_hlog(path)
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
    except HlogError as error:
        notes.append(f"{path.name} cannot be read: {error}")
    return Hlog({}, {})


def _theory(summary: dict[str, Any]) -> list[tuple[str, Curve]]:
    """What queueing theory says of response times, where the run found that a closed form holds."""
    told = summary.get("theory")
    if not isinstance(told, dict) or not isinstance(told.get("curve"), list):
        return []
    pairs = [point for point in told["curve"] if isinstance(point, list) and len(point) == _PAIR]
    points = [(number(x), number(y)) for x, y in pairs]
    curve = sorted((x, y) for x, y in points if x is not None and y is not None and x >= 1)
    return [(f"theory: {plain(told.get('name', ''))}", curve)] if curve else []
