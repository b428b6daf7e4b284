"""Reads a run's folder back: its summary must be whole; any other file may be missing, which is noted."""

from __future__ import annotations

import csv
import json
import math
import zlib
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from simulator.errors import SimError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SUMMARY_SCHEMA = 1

Cell = int | float | None
Columns = dict[str, list[Cell]]
Curve = list[tuple[float, float]]  # (1 / (1 - quantile), milliseconds)

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
_STEPS_PER_DECADE = 20  # of 1 / (1 - quantile): smooth to the eye, and 9 decades are still only 180 points
_NS_PER_MS = 1e6


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


def read(run: Path) -> RunFolder:
    """Read the folder of a finished run.

    Raises:
        SimError: `run` is no run's folder, or its summary is missing or incomplete.
    """
    summary = _summary(run)
    notes: list[str] = []
    return RunFolder(
        path=run,
        summary=summary,
        series=read_series(run / "timeseries.csv", notes),
        latency=read_latency(run, notes),
        audit=_object(run / "audit.json", notes) or summary["audit"],
        environment=_object(run / "environment.json", notes),
        events=_events(run / "events.jsonl", notes),
        scenario=_text(run / "scenario.yaml", notes),
        notes=notes,
    )


def read_events(run: Path) -> list[dict[str, Any]]:
    """Read what happened in a run, as far as that is known."""
    return _events(run / "events.jsonl", [])


def _summary(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; a run's folder is one that `sim run` wrote")
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = any((run / name).exists() for name in ("scenario.yaml", "environment.json", "events.jsonl"))
        why = "the run did not finish" if begun else "not a run's folder"
        raise SimError(f"{run}: {why}: summary.json is missing") from None
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
    path = run / "latency.hlog"
    if not path.exists():
        notes.append(f"{path.name} is missing")
        return {}
    merged: dict[str, HdrHistogram] = {}
    try:
        with closing(HistogramLogReader(str(path), HdrHistogram(1, 2, 1))) as log:
            while (interval := log.get_next_interval_histogram()) is not None:
                tag = interval.get_tag() or "response_time"
                if tag in merged:
                    merged[tag].add(interval)
                else:
                    # The first interval, not one of our making: adding is an array sum only between equal layouts.
                    merged[tag] = interval
    except (OSError, ValueError, TypeError, IndexError, zlib.error, HdrCookieException, HdrLengthException) as error:
        notes.append(f"{path.name} cannot be read: {type(error).__name__} {error}".rstrip())
        return {}
    return {tag: _curve(histogram) for tag, histogram in merged.items() if histogram.get_total_count()}


def _curve(histogram: HdrHistogram) -> Curve:
    """Sample the quantile function evenly on the scale of 1 / (1 - quantile), up to what the count can resolve."""
    total = histogram.get_total_count()
    inverses = [10 ** (step / _STEPS_PER_DECADE) for step in range(int(_STEPS_PER_DECADE * math.log10(total)) + 1)]
    percentiles = {100 * (1 - 1 / inverse): inverse for inverse in inverses}
    values = histogram.get_percentile_to_value_dict(list(percentiles))
    curve = [(percentiles[percentile], values[percentile] / _NS_PER_MS) for percentile in sorted(values)]
    return [*curve, (float(total), histogram.get_max_value() / _NS_PER_MS)]
