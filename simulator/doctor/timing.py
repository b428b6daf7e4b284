"""How finely the clock ticks, what reading it costs, how late a short sleep wakes, how long a durable write takes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

from simulator.doctor.figures import Disk, Timing
from simulator.doctor.machine import clock_resolution_ns
from simulator.engine.wall import TICK_S, exact_sleeps
from simulator.report.export import environment

if TYPE_CHECKING:
    from pathlib import Path

_READS = 50_000
_WRITE_BYTES = 4_096  # a page: a small commit
_WRITES_MAX = 2_000


def measure_timing(seconds: float) -> Timing:
    """Sleeps the engine's tick over and over for so long, under the engine's own setting of the timers."""
    now = time.monotonic_ns
    began = now()
    for _ in range(_READS):
        now()
    read_ns = (now() - began) / _READS
    exact_sleeps()
    asked_ns = round(TICK_S * 1e9)
    late: list[int] = []
    end = now() + round(seconds * 1e9)
    while (before := now()) < end:
        time.sleep(TICK_S)
        late.append(now() - before - asked_ns)
    p50, p99 = np.percentile(late, (50.0, 99.0))
    return Timing(
        clock_resolution_ns=clock_resolution_ns(),
        clock_read_ns=round(read_ns, 1),
        sleep_asked_us=asked_ns / 1e3,
        late_us_p50=round(float(p50) / 1e3, 1),
        late_us_p99=round(float(p99) / 1e3, 1),
        late_us_max=round(max(late) / 1e3, 1),
    )


def measure_disk(folder: Path, seconds: float) -> Disk:
    """Appends a page and syncs it, over and over for so long, in a file without a name below `folder`."""
    file_system = str(environment(folder)["file_system"])
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            took = _sync_times_ms(file.fileno(), seconds)
    except OSError:
        return Disk(file_system, 0, None, None)
    p50, p99 = np.percentile(took, (50.0, 99.0))
    return Disk(file_system, free, round(float(p50), 4), round(float(p99), 4))


def _sync_times_ms(fd: int, seconds: float) -> list[float]:
    page = os.urandom(_WRITE_BYTES)
    took: list[float] = []
    end = time.monotonic() + seconds
    while not took or (time.monotonic() < end and len(took) < _WRITES_MAX):
        began = time.perf_counter_ns()
        os.write(fd, page)
        os.fdatasync(fd)
        took.append((time.perf_counter_ns() - began) / 1e6)
    return took
