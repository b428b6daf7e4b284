"""The runs in a folder of results: which folders are runs, what each says of itself, and how much room they take."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.report.wording import audit_word, goodput_per_s, number, plain, size

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path("results")
RUNS_MANY = 50  # beyond, or beyond
BYTES_MANY = 10 * 2**30  # of them, a run says that it is time to prune

# Everything that a run or a sweep writes into its folder. A folder with anything else in it is not only a run's.
FILES = frozenset(
    {
        "summary.json", "report.html", "timeseries.csv", "timeseries.parquet", "latency.hlog", "scenario.yaml",
        "environment.json", "audit.json", "events.jsonl", "junit.xml", "history.bin", "history-rest.bin", "keys.json", "journal",
        "nginx", "haproxy",
        "sweep.json", "platform.csv", "report.md", "report.json", "report.csv",
    }
)  # fmt: skip


_NUMBERED = re.compile(r"history-[0-9]+\.bin")  # of each generator


def is_of_a_run(name: str) -> bool:
    """Whether a run or a sweep writes something of this name into its folder, if only on the way."""
    return name in FILES or _NUMBERED.fullmatch(name) is not None or name.removesuffix(".part") in FILES


@dataclass(frozen=True)
class Entry:
    """One run, or one sweep of several, as its folder tells it."""

    folder: Path
    scenario: str
    started_at: str  # ISO 8601 in UTC: sorts by time
    verdict: str
    goodput_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    audit: str
    seed: int | None
    clock: str
    variants: int = 0  # of a sweep; 0: a run

    def as_json(self) -> dict[str, Any]:
        """As `sim history --json` prints it."""
        return {**vars(self), "folder": str(self.folder)}


def folders(results: Path) -> list[Path]:
    """The folders in it, not what links point to; the newest first, by when they were last written to."""
    if not results.is_dir():
        return []
    with os.scandir(results) as listed:
        found = [entry for entry in listed if entry.is_dir(follow_symlinks=False)]
    return [Path(entry.path) for entry in sorted(found, key=lambda entry: (-entry.stat().st_mtime_ns, entry.name))]


def entry_of(folder: Path) -> Entry | None:
    """What a folder says of itself; None: it is no whole run and no whole sweep."""
    found = _json(folder / "summary.json")
    if found is not None:
        return _run(folder, found)
    found = _json(folder / "sweep.json")
    return _sweep(folder, found) if found is not None else None


def entries(results: Path) -> Iterator[Entry]:
    """Every run and sweep of a folder of results, the newest first."""
    for folder in folders(results):
        entry = entry_of(folder)
        if entry is not None:
            yield entry


def runs_of(entry: Entry) -> Iterator[Entry]:
    """The runs of an entry: itself, or those of a sweep."""
    if not entry.variants:
        yield entry
        return
    for folder in sorted(path.parent for path in entry.folder.glob("*/summary.json")):
        run = entry_of(folder)
        if run is not None:
            yield run


def bytes_of(folder: Path) -> int:
    """How much room a folder takes on the disk; sparse and hard-linked files count as what they occupy here."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118  a Path for each is slow
            except OSError:
                continue  # it went while we looked
    return total


def growth(results: Path) -> str:
    """A line where results have grown large, else nothing."""
    found = folders(results)
    room = sum(bytes_of(folder) for folder in found)
    if len(found) <= RUNS_MANY and room <= BYTES_MANY:
        return ""
    return (
        f"{results}/ holds {len(found):,} runs in {size(room)}; sim prune keeps the newest of each scenario "
        "(sim prune --dry-run says which would go)"
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _run(folder: Path, summary: dict[str, Any]) -> Entry | None:
    times, audit = summary.get("response_time_ms"), summary.get("audit")
    if not isinstance(times, dict) or not isinstance(audit, dict) or "scenario" not in summary:
        return None
    seed = summary.get("seed")
    return Entry(
        folder=folder,
        scenario=plain(summary["scenario"]),
        started_at=plain(summary.get("started_at", "")),
        verdict=plain(summary.get("verdict", "")),
        goodput_per_s=goodput_per_s(summary),
        p50_ms=number(times.get("p50")),
        p99_ms=number(times.get("p99")),
        p999_ms=number(times.get("p99.9")),
        audit=audit_word(audit),
        seed=seed if isinstance(seed, int) else None,
        clock=plain(summary.get("clock", "")),
    )


def _sweep(folder: Path, sweep: dict[str, Any]) -> Entry | None:
    variants = sweep.get("variants")
    if not isinstance(variants, list) or "scenario" not in sweep or not all(isinstance(row, dict) for row in variants):
        return None
    passed = sum(row.get("verdict") == "pass" for row in variants)
    return Entry(
        folder=folder,
        scenario=plain(sweep["scenario"]),
        started_at=plain(sweep.get("started_at", "")),
        verdict=f"{passed}/{len(variants)} pass",
        goodput_per_s=None, p50_ms=None, p99_ms=None, p999_ms=None, audit="", seed=None, clock="",
        variants=len(variants),
    )  # fmt: skip
