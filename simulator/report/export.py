"""Writes the files of a run's folder that other programs read: series, histograms, summary, events, environment."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hdrh.histogram import HdrHistogram

from simulator.measure.grid import lengths_s, starts_s
from simulator.measure.histogram import COUNTS, DIGITS, HIGHEST_NS, LOWEST_NS, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from simulator.measure.recorder import Measured

_PACKAGES = ("numpy", "numba", "llvmlite", "pydantic", "xxhash", "hdrhistogram")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all. Raises OSError, and then nothing of it is left."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8", newline="\n")
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON, whole or not at all. NaN and infinity are refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_series(path: Path, columns: dict[str, list[Any]]) -> None:
    """timeseries.csv: a header row, then one row a window."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


def write_events(path: Path, events: Iterable[dict[str, Any]]) -> None:
    """events.jsonl: one JSON object a line, in order of time."""
    ordered = sorted(events, key=lambda event: float(event["t_s"]))
    write_text(path, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in ordered))


def encode(histogram: Histogram) -> str:
    """A histogram in HdrHistogram's compressed V2 encoding, base64."""
    other = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    if other.counts_len != COUNTS:
        raise ValueError(f"this HdrHistogram has {other.counts_len} counts where ours have {COUNTS}")
    for index in np.flatnonzero(histogram.counts).tolist():
        other.counts[index] = int(histogram.counts[index])
    other.total_count = histogram.total
    other.max_value = histogram.max_ns or 0
    other.min_value = 0
    return str(other.encode().decode("ascii"))


def write_hlog(path: Path, measured: Measured, grid_ns: NDArray[np.int64], start_s: float) -> None:
    """latency.hlog: an interval histogram for each window of the grid and each measure, in nanoseconds.

    `start_s` is the start of the run in seconds since 1970. Interval maxima are in milliseconds, as HdrHistogram's own
    writer has them (output unit scaling ratio 1,000,000).
    """
    starts, lengths = starts_s(grid_ns), lengths_s(grid_ns)
    lines = [
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {start_s:.3f} (seconds since epoch)]",
        f"#[BaseTime: {start_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for tag, sparse in (
        ("response_time", measured.response), ("service_time", measured.service), ("schedule_lag", measured.lag),
    ):  # fmt: skip
        for window, histogram in sparse.by_window():
            longest = (histogram.max_ns or 0) / 1e6
            times = f"{starts[window]:.3f},{lengths[window]:.3f}"
            lines.append(f"Tag={tag},{times},{longest:.6f},{encode(histogram)}")
    write_text(path, "\n".join(lines) + "\n")


def environment(folder: Path) -> dict[str, Any]:
    """What machine and software a run was made on, as far as it bears on the figures."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "cpu_model": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": _system(),
        "file_system": _file_system(folder),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def _first(path: str, key: str, separator: str) -> str:
    try:
        for line in Path(path).read_text("utf-8").splitlines():
            name, _, value = line.partition(separator)
            if name.strip() == key:
                return value.strip().strip('"')
    except OSError:
        pass
    return "unknown"


def _cpu_model() -> str:
    return _first("/proc/cpuinfo", "model name", ":")


def _system() -> str:
    return _first("/etc/os-release", "PRETTY_NAME", "=")


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on: durability means what that one makes of it."""
    best, kind = "", "unknown"
    try:
        for line in Path("/proc/mounts").read_text("utf-8").splitlines():
            _, mount, name, *_ = line.split()
            inside = str(folder.resolve()).startswith(mount.rstrip("/") + "/") or mount == "/"
            if inside and len(mount) >= len(best):
                best, kind = mount, name
    except OSError:
        pass
    return kind
