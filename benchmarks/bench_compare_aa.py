"""How often a comparison of one build with itself says "no evidence": 200 pairs whose truth is known, and 20 real ones.

    python benchmarks/bench_compare_aa.py [--quick] [--real N]

Three kinds of pairs: an autocorrelated process (the level of each second follows the one before), runs on the virtual clock, and
short embedded runs one after another. Of the real ones it also prints how much runs differ beyond what their own seconds show,
which is what `simulator.compare.effects` assumes of single runs. Ends with 1 if a share is below 95 % (of few pairs: by more than
chance). The real pairs want a quiet machine; --real 0 leaves them out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from scipy.special import bdtr  # noqa: E402  the path comes first
from synthetic_runs import synthetic  # noqa: E402

from simulator.compare.comparison import METRICS, compare, read_both  # noqa: E402
from simulator.compare.effects import by_blocks  # noqa: E402
from simulator.compare.sides import side_of  # noqa: E402
from simulator.compare.verdict import judge  # noqa: E402

WANTED = 0.95
VIRTUAL = ("--set", "duration=10s", "--set", "load.rate=4000/s", "--set", "platform.nodes=6")
REAL = ("--set", "duration=30s", "--set", "load.rate=10000/s", "--set", "dispatcher.lag_limit=1s")


def told(what: str, quiet: int, pairs: int) -> bool:
    """Prints a share; True if it may be 95 %: so few quiet pairs would come up in one of a hundred times."""
    enough = float(bdtr(quiet, pairs, WANTED)) >= 0.01
    print(f"{what:<42} {quiet:>4} of {pairs} pairs say no evidence ({quiet / pairs:.1%})", flush=True)
    return enough


def of_process(pairs: int, persistence: float, *, trend: bool) -> bool:
    """Pairs of synthetic runs of a minute."""
    random = np.random.default_rng(20191111)
    metrics = [m for m in METRICS if m.name in {"throughput", "response_time", "rejected"} and m.argument != 99.9]
    quiet = 0
    for at in range(pairs):
        run, baseline = (synthetic(random, per_slice=200, persistence=persistence, trend=trend) for _ in range(2))
        effects = [by_blocks(run, baseline, metric, paired=True, spread=False, seed=at) for metric in metrics]
        quiet += all(finding.word == "no evidence" for finding in judge(effects))
    return told(f"process, correlation {persistence}{', with a spike' if trend else ''}", quiet, pairs)


def sim_run(scenario: str, folder: Path, seed: int, *more: str) -> bool:
    """One run; whether it is one that may be compared."""
    command = [
        sys.executable,
        "-m",
        "simulator.cli",
        "run",
        str(ROOT / "scenarios" / scenario),
        "--quiet",
        "--out",
        str(folder),
    ]
    return subprocess.run(
        [*command, "--seed", str(seed), *more], cwd=ROOT, check=False, capture_output=True
    ).returncode in (0, 99)


def of_runs(what: str, scenario: str, pairs: int, *more: str) -> bool:
    """Pairs of runs of one build, with seeds of their own."""
    quiet = done = 0
    between: list[list[float]] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        for at in range(pairs):
            folders = [Path(place) / f"{at}-{side}" for side in "ab"]
            if not all(sim_run(scenario, folder, 2 * at + number, *more) for number, folder in enumerate(folders)):
                print(f"{what}: pair {at} was not valid and is left out", flush=True)
                continue
            run, baseline = (side_of(folder.name, [folder]) for folder in folders)
            (found,) = compare([run], baseline)
            done += 1
            quiet += found.word == "no evidence"
            read = read_both(run, baseline)
            between.append([read.effect(metric).change for metric in METRICS[:5] if read.knows(metric)])
    if not done:
        print(f"{what}: no pair was valid")
        return False
    if what == "real":
        spread = np.sqrt(np.mean(np.square([row for row in between if len(row) == len(between[0])]), axis=0) / 2)
        names = [metric.label for metric in METRICS[:5]]
        print(
            "  runs differ by (standard deviation):",
            ", ".join(f"{n} {s:.1%}" for n, s in zip(names, spread, strict=False)),
        )
    return told(what, quiet, done)


def main() -> int:
    """Prints the shares; 1 if one is too low."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--real", type=int, default=20, help="real pairs; they take about 75 s each")
    asked = parser.parse_args()
    pairs = 20 if asked.quick else 200
    good = [
        of_process(pairs, 0.0, trend=False),
        of_process(pairs, 0.5, trend=False),
        of_process(pairs, 0.8, trend=False),
        of_process(pairs, 0.5, trend=True),
        of_runs("virtual clock", "knee.yaml", pairs, *VIRTUAL),
    ]
    if asked.real:
        good.append(of_runs("real", "smoke.yaml", min(asked.real, 2) if asked.quick else asked.real, *REAL))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
