"""What the live page costs: the p99 of a run with `--live`, a viewer on it, over the p99 of one without, in pairs.

    python benchmarks/bench_live.py [pairs] [scenario] [duration]

Each pair is two runs of one scenario and one seed right after one another. Half of the pairs begin with the page and half
without, which ones is drawn, so that a machine that warms up, or a neighbour that comes and goes, strikes both alike.

What is compared is the whole feature in use: the page's process (of its own, at the lowest priority) and one viewer that takes
every event off its stream, figures twice and charts once a second, for the whole run. The viewer draws nothing and has the
lowest priority, since a browser need not be on this machine. Both take their CPU from the machine that runs the load.

Reported are the medians of both, the geometric mean of the ratios with a 95 % interval (Student's t over the logarithms: pairs
are independent, and ten are too few for a bootstrap), and what so many pairs could have shown, half the width of the
interval. The page costs nothing measurable if the interval includes 1; its upper end is the most that it may cost all the same.
A run that was not valid is counted and told. Run it on a quiet machine, with ten pairs or more: ten take about six minutes.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from simulator import process
from simulator.verify.interval import of_replications

PAIRS, SCENARIO, DURATION = 10, "scenarios/smoke.yaml", "15s"
CONFIDENCE = 0.95
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


def run(scenario: str, duration: str, *, live: bool, seed: int, folder: Path) -> tuple[dict[str, float], str]:
    """One run: its figures in ms, and what its validity says. Raises RuntimeError if it cannot be compared."""
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
    figures = {
        f"{measure.removesuffix('_ms')} {percentile}": float(summary[measure][percentile])
        for measure, percentile in _MEASURES
    }
    return figures, summary["validity"]["verdict"]


def interval(ratios: list[float]) -> tuple[float, float, float, float]:
    """Geometric mean, its interval, and the smallest ratio above 1 that would have been told from it."""
    found = of_replications([math.log(ratio) for ratio in ratios], CONFIDENCE)
    low, high = found.mean - found.half_width, found.mean + found.half_width
    return math.exp(found.mean), math.exp(low), math.exp(high), math.exp(found.half_width)


def orders(pairs: int, rng: np.random.Generator) -> list[bool]:
    """For each pair whether it begins with the page: half of them do, one more or less if they are odd."""
    begins = np.arange(pairs) % 2 == 0
    return [bool(first) for first in rng.permutation(begins)]


def main() -> int:
    """Runs the pairs and prints the table; ends with 1 if an interval of the response's p99 lies above 1."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    if pairs < 2:
        print("one pair tells nothing about its own spread; two are the least, ten make a figure", file=sys.stderr)
        return 2
    scenario = sys.argv[2] if len(sys.argv) > 2 else SCENARIO
    duration = sys.argv[3] if len(sys.argv) > 3 else DURATION
    not_valid = 0
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="bench-live-", dir=Path.cwd()) as folder:
        run(scenario, "2s", live=True, seed=0, folder=Path(folder) / "warm-up")
        for pair, first in enumerate(orders(pairs, np.random.default_rng(pairs))):
            for live in (first, not first):
                at = Path(folder) / f"{pair}-{'with' if live else 'without'}"
                figures, validity = run(scenario, duration, live=live, seed=pair + 1, folder=at)
                found[live].append(figures)
                not_valid += validity != "valid"
                shutil.rmtree(at)
            without, with_ = (found[live][-1]["response_time p99"] for live in (False, True))
            print(f"pair {pair + 1} of {pairs}: p99 without {without:.3f} ms, with {with_:.3f} ms", flush=True)
    print(f"\n{scenario}, {duration}, {pairs} pairs, load average {os.getloadavg()[0]:.2f}")
    if not_valid:
        print(f"{not_valid} of {2 * pairs} runs were not valid: this machine is not quiet, or cannot generate the load")
    print(f"{'':<20}{'without':>10}{'with':>10}{'ratio':>8}   95 % interval    could show")
    worse, most = False, 1.0
    for name in found[False][0]:
        before, after = ([one[name] for one in found[live]] for live in (False, True))
        ratio, low, high, least = interval([b / a for a, b in zip(before, after, strict=True)])
        print(
            f"{name:<20}{np.median(before):>7.3f} ms{np.median(after):>7.3f} ms{ratio:>8.3f}   {low:.3f} to {high:.3f}   "
            f"{100 * (least - 1):>6.1f} %"
        )
        if name == "response_time p99":
            worse, most = low > 1, high
    told = "the page costs p99 something" if worse else "p99: no change that could be told from noise"
    print(f"{told}; at most {100 * (most - 1):+.1f} % ({100 * CONFIDENCE:.0f} % confidence)")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
