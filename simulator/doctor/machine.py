"""What the system tells of itself at no cost: cores, memory, limits, ports, and what else it is doing."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.doctor.figures import Machine, Noise

_PROC = Path("/proc")
_PORTS = _PROC / "sys/net/ipv4/ip_local_port_range"
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_NO_LIMIT = -1


def look() -> Machine:
    """The machine as it is now."""
    soft, hard = (_NO_LIMIT if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    first, last = _port_range(_read(_PORTS))
    governor = _read(_GOVERNOR)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cores_of_the_machine=os.cpu_count() or 1,
        governor=governor.strip() if governor else None,
        memory_bytes=total,
        memory_available_bytes=_available_bytes(_read(_PROC / "meminfo"), total),
        descriptors_soft=soft,
        descriptors_hard=hard,
        port_first=first,
        port_last=last,
        load_1m=round(os.getloadavg()[0], 2),
    )


def cheap_facts() -> dict[str, Any]:
    """What every run's environment.json has, examined or not: one level, units in the names."""
    machine = look()
    return {
        "cores_of_the_machine": machine.cores_of_the_machine,
        "cpu_governor": machine.governor or "unknown",
        "memory_available_bytes": machine.memory_available_bytes,
        "clock_resolution_ns": clock_resolution_ns(),
        "descriptors_max": "unlimited" if machine.descriptors_soft == _NO_LIMIT else machine.descriptors_soft,
        "local_ports": machine.ports if machine.ports is not None else "unknown",
    }


def clock_resolution_ns() -> int:
    """Of the clock that runs are timed by, as the kernel states it."""
    return round(time.clock_getres(time.CLOCK_MONOTONIC) * 1e9)


@dataclass(frozen=True)
class CpuTimes:
    """A look at the CPU time of all cores, in clock ticks since boot, and of this process and its finished children."""

    at_s: float
    busy: int  # user, nice, system, irq and softirq; guests are part of user
    steal: int
    total: int
    ours: float


def cpu_times() -> CpuTimes | None:
    """Now; None where the system does not tell."""
    text = _read(_PROC / "stat")
    parsed = None if text is None else parse_stat(text)
    if parsed is None:
        return None
    spent = os.times()
    ours = (spent.user + spent.system + spent.children_user + spent.children_system) * os.sysconf("SC_CLK_TCK")
    return CpuTimes(time.monotonic(), *parsed, ours)


def parse_stat(text: str) -> tuple[int, int, int] | None:
    """(busy, steal, total) of the first line of /proc/stat, see proc_stat(5); None: it is not one."""
    words = text.partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":  # noqa: PLR2004  up to `steal`
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    busy = user + nice + system + irq + softirq
    return busy, steal, busy + idle + iowait + steal


def noise(before: CpuTimes | None, after: CpuTimes | None) -> Noise:
    """What happened between two looks, apart from what this process and its finished children did themselves."""
    if before is None or after is None or after.total <= before.total:
        return Noise(0.0 if before is None or after is None else after.at_s - before.at_s, None, None)
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.ours - before.ours)
    return Noise(
        seconds=round(after.at_s - before.at_s, 3),
        steal=round((after.steal - before.steal) / total, 4),
        others=round(min(max(others / total, 0.0), 1.0), 4),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeError):
        return None


def _port_range(text: str | None) -> tuple[int | None, int | None]:
    words = (text or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else (None, None)  # noqa: PLR2004  first and last


def _available_bytes(meminfo: str | None, otherwise: int) -> int:
    for line in (meminfo or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1_024
    return otherwise
