"""What the live page costs: the p99 of a run with `--live`, a viewer on it, over the p99 of one without, in pairs.

    python benchmarks/bench_live.py [pairs] [scenario] [duration]

Each pair is two runs of one scenario and one seed right after one another, in an order drawn anew for each pair, so that a
machine that warms up, or a neighbour that comes and goes, strikes both alike. With `--live` a viewer takes every event off the
page's stream as a browser does; it draws nothing and has the lowest priority, since a browser need not be on this machine.
Reported are the medians of both, the geometric mean of the ratios with a 95 % interval by bootstrap over pairs, and the smallest
change that so many pairs could have shown. The page costs nothing measurable if the interval includes 1. Run it on a quiet
machine, with ten pairs or more.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from simulator import process

PAIRS, SCENARIO, DURATION = 10, "scenarios/smoke.yaml", "15s"
RESAMPLES = 10_000
_MEASURES = (
    ("response_time_ms", "p50"),
    ("response_time_ms", "p99"),
    ("response_time_ms", "p99.9"),
    ("schedule_lag_ms", "p99"),
)


def view(port: int, token: str) -> None:
    """A viewer: reads the page's stream to its end, and the report."""
    os.nice(19)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", f"/events?token={token}")
    response = connection.getresponse()
    while response.readline():
        pass
    connection.close()
    connection.request("GET", f"/report?token={token}")
    connection.getresponse().read()
    connection.close()


def run(scenario: str, duration: str, *, live: bool, seed: int, folder: Path) -> dict[str, float]:
    """One run; its figures in ms. Raises RuntimeError if it cannot be compared."""
    command = [
        sys.executable, "-m", "simulator.cli", "run", scenario, "--set", f"duration={duration}", "--seed", str(seed), "--quiet",
        "--out", str(folder), *(["--live"] if live else []),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        viewer = None
        for line in running.stdout or ():
            found = re.match(r"live: http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)", line)
            if found:
                viewer = process.start("viewer", view, int(found[1]), found[2])
        running.wait()
        if viewer is not None:
            viewer.join(30)
            process.kill(viewer)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    if summary["failure"] is not None or summary["interrupted"]:
        raise RuntimeError(f"a run did not come to its end: {summary['stop_reason']}")
    return {
        f"{measure.removesuffix('_ms')} {percentile}": float(summary[measure][percentile])
        for measure, percentile in _MEASURES
    }


def interval(ratios: list[float], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Geometric mean, its 95 % interval by bootstrap, and the smallest ratio above 1 that would have been told from it."""
    logs = np.log(ratios)
    means = rng.choice(logs, (RESAMPLES, len(logs))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return math.exp(logs.mean()), math.exp(low), math.exp(high), math.exp((high - low) / 2)


def main() -> int:
    """Runs the pairs and prints the table; ends with 1 if an interval of the response's p99 lies above 1."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    scenario = sys.argv[2] if len(sys.argv) > 2 else SCENARIO
    duration = sys.argv[3] if len(sys.argv) > 3 else DURATION
    rng = np.random.default_rng(pairs)
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="bench-live-", dir=Path.cwd()) as folder:
        run(scenario, "2s", live=True, seed=0, folder=Path(folder) / "warm-up")
        for pair in range(pairs):
            for live in rng.permutation([False, True]).tolist():
                name = f"{pair}-{'with' if live else 'without'}"
                found[live].append(run(scenario, duration, live=live, seed=pair + 1, folder=Path(folder) / name))
            without, with_ = (found[live][-1]["response_time p99"] for live in (False, True))
            print(f"pair {pair + 1} of {pairs}: p99 without {without:.3f} ms, with {with_:.3f} ms", flush=True)
    print(f"\n{scenario}, {duration}, {pairs} pairs, load average {os.getloadavg()[0]:.2f}")
    print(f"{'':<20}{'without':>10}{'with':>10}{'ratio':>8}   95 % interval    could show")
    worse = False
    for name in found[False][0]:
        before, after = ([one[name] for one in found[live]] for live in (False, True))
        ratio, low, high, least = interval([b / a for a, b in zip(before, after, strict=True)], rng)
        print(
            f"{name:<20}{np.median(before):>7.3f} ms{np.median(after):>7.3f} ms{ratio:>8.3f}   {low:.3f} to {high:.3f}   "
            f"{100 * (least - 1):>6.1f} %"
        )
        worse |= name == "response_time p99" and low > 1
    print("the page costs p99 something" if worse else "p99: no change that could be told from noise")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
