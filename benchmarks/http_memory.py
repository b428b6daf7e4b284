"""What a run over HTTP holds in memory: with 10,000 connections open, and over ten minutes, against a real nginx.

    python benchmarks/http_memory.py connections [connections] [rate/s] [seconds]
    python benchmarks/http_memory.py minutes [minutes] [rate/s]

The memory of every process of the run is read once a second from the run's first transaction on: what is resident, shared pages
included, so for a process it is an upper bound. `connections` prints the most that the generator held, and counts its
sockets, so that connections that were asked for and not opened do not pass. `minutes` prints the median of the generator, and
of all processes, in the second and third minute and in the last one, and their ratio: what grows with the number of transactions
shows there. Memory, not time, so it need not be alone on the machine; it ends with 1 where a goal is missed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from http_tools import Nginx, find_debian

from simulator.run.memory import rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 500_000_000  # of a generator with its 10,000 connections
FLAT = 0.05  # how far the last minute may be from the second and third
SPARE = 256  # descriptors beside the connections, ours and nginx's
_MIB = 2**20
_SCENARIO = """\
name: memory
duration: {seconds}s
books: elsewhere
load: {{rate: {rate}/s, accounts: 100_000, merchants: {{count: 1_000}}, mix: {{payment: 1}}}}
backend: {{http: {{targets: ["{url}"], connections: {connections}}}}}
"""


class Seen(dict[int, list[tuple[float, int]]]):
    """Of each process: (seconds since the first look, bytes), in the order of looks."""

    def between(self, pid: int, start_s: float, stop_s: float) -> float:
        """The median of a stretch; 0.0 where nobody looked."""
        found = [size for at, size in self.get(pid, []) if start_s <= at < stop_s]
        return float(median(found)) if found else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are there still."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []


def sockets(pid: int) -> int:
    """How many sockets a process has open; 0: it is gone."""
    try:
        return sum(link.readlink().name.startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def watched(url: str, *, rate: int, seconds: int, connections: int) -> tuple[Seen, int, int, dict[str, Any]]:
    """One run; returns (what was seen, the generator, the most sockets that it had, the summary)."""
    with tempfile.TemporaryDirectory(prefix="http-memory-") as name:
        path, out = Path(name) / "s.yaml", Path(name) / "run"
        path.write_text(_SCENARIO.format(seconds=seconds, rate=rate, url=url, connections=connections), "utf-8")
        command = [sys.executable, "-m", "simulator.cli", "run", str(path), "--out", str(out), "--quiet"]
        samples: dict[int, list[tuple[float, int]]] = defaultdict(list)
        held: dict[int, int] = defaultdict(int)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
            began = 0.0
            while running.poll() is None:
                time.sleep(1.0)
                if not (out / "history.bin").exists():
                    continue  # it is getting ready
                began = began or time.monotonic()
                for pid in (running.pid, *children(running.pid)):
                    samples[pid].append((time.monotonic() - began, rss_bytes(pid)))
                    held[pid] = max(held[pid], sockets(pid))
        summary = json.loads((out / "summary.json").read_text("utf-8"))
        events = map(json.loads, (out / "events.jsonl").read_text("utf-8").splitlines())
        generator = next(int(event["engine_pid"]) for event in events if event["event"] == "started")
    return Seen(samples), generator, held[generator], summary


def _goal(*, met: bool, text: str) -> int:
    print(f"{'✓' if met else '✗'} {text}")
    return int(not met)


def open_connections(connections: int = 10_000, rate: int = 10_000, seconds: int = 10) -> int:
    """The generator's memory with so many connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(
            f"{connections:,} connections need {wanted:,} open files, but at most {hard:,} may be: ulimit -n {wanted}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with Nginx() as nginx:
        seen, generator, most, summary = watched(nginx.url, rate=rate, seconds=seconds, connections=connections)
    rss = max(size for _, size in seen[generator])
    counts = summary["counts"]
    print(f"{connections:,} connections at {rate:,}/s for {seconds} s: {counts['ok']:,} of {counts['offered']:,} ok")
    print(
        f"lag p99 {summary['schedule_lag_ms']['p99']:.2f} ms, response p99 {summary['response_time_ms']['p99']:.2f} ms"
    )
    missed = _goal(met=most >= connections, text=f"{most:,} sockets were open at once (wanted ≥ {connections:,})")
    return missed | _goal(
        met=rss <= MOST_BYTES, text=f"the generator held {rss / 1e6:.0f} MB at most (wanted ≤ {MOST_BYTES / 1e6:.0f})"
    )


def over_minutes(minutes: int = 10, rate: int = 5_000) -> int:
    """The memory of a long run, early and late."""
    if minutes < 4:
        sys.exit("a run of fewer than 4 minutes has no stretches to compare")
    with Nginx() as nginx:
        seen, generator, _, summary = watched(nginx.url, rate=rate, seconds=60 * minutes, connections=128)
    counts = summary["counts"]
    print(f"{rate:,}/s for {minutes} minutes: {counts['ok']:,} of {counts['offered']:,} ok")
    last = 60.0 * (minutes - 1)
    missed = 0
    for name, pids in (("the generator", [generator]), ("all processes of the run", list(seen))):
        early, late = (
            sum(seen.between(pid, *stretch) for pid in pids) for stretch in ((60.0, 180.0), (last, last + 60.0))
        )
        ratio = late / early
        text = f"{name}: {early / _MIB:.1f} MiB in minutes 2 and 3, {late / _MIB:.1f} MiB in minute {minutes}: {ratio - 1:+.1%}"
        missed |= _goal(met=abs(ratio - 1) <= FLAT, text=f"{text} (wanted ± {FLAT:.0%})")
    return missed


def main(argv: list[str]) -> int:
    """Runs what is asked for; 1 if a goal is missed."""
    measures: dict[str, Callable[..., int]] = {"connections": open_connections, "minutes": over_minutes}
    if not argv or argv[0] not in measures:
        sys.exit(f"name what to measure: {' or '.join(measures)}")
    missing = find_debian({"nginx": "nginx-light"})
    if missing:
        sys.exit("\n".join(missing))
    return measures[argv[0]](*(int(text.replace("_", "")) for text in argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
