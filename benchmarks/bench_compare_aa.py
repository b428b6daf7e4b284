"""How often a comparison of one build with itself says "no evidence", and how often it sees what is there.

    python benchmarks/bench_compare_aa.py [--quick] [--virtual N] [--real N] [--runs FOLDER]

Pairs of a known truth: nine kinds of synthetic runs (steady, autocorrelated, with a spike, drifting, heavy-tailed …), 200 pairs
each; runs on the virtual clock with seeds of their own; and short embedded runs one after another, or those of a folder of
runs made before (--runs). For each kind: the share of false alarms with its Wilson interval, and of pairs with a real change
(p99 +50 %, goodput −10 %, and each metric by just what the pair calls the smallest that would show) how many are seen. Of the
real runs it also prints how much they differ beyond what their own seconds show, which is what `simulator.compare.spreads`
assumes of single runs. Ends with 1 if more than 5 % of one kind are false alarms (by more than chance). Real runs tell of the
machine as it is then: their figures want it to be quiet.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from scipy.special import bdtrc  # noqa: E402  the path comes first
from synthetic_runs import KINDS, synthetic  # noqa: E402

from simulator.compare.comparison import METRICS, Read, read_both  # noqa: E402
from simulator.compare.effects import by_blocks  # noqa: E402
from simulator.compare.sides import side_of  # noqa: E402
from simulator.compare.spreads import assumed, was_alone  # noqa: E402
from simulator.compare.verdict import judge, smallest  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.compare.effects import Effect
    from simulator.compare.metric import Metric
    from simulator.compare.samples import Sample
    from simulator.compare.sides import Side
    from simulator.compare.verdict import Finding

ALARMS_MOST = 0.05
Z = 1.96
VIRTUAL = ("--set", "duration=30s", "--set", "load.rate=4000/s", "--set", "platform.nodes=6")
REAL = ("--set", "duration=8s", "--set", "load.rate=10000/s", "--set", "dispatcher.lag_limit=1s")
GOODPUT, P50, P90, P99, P999 = METRICS[:5]
LOOKED_AT = (GOODPUT, P50, P90, P99, next(metric for metric in METRICS if metric.name == "rejected"))
SLOWER, FEWER = 1.5, 0.9


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share: E. B. Wilson, Journal of the American Statistical Association 22, 1927."""
    share, z2 = hits / of, Z**2 / of
    middle, reach = share + z2 / 2, Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of))
    return (middle - reach) / (1 + z2), (middle + reach) / (1 + z2)


class Tally:
    """What became of the pairs of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind, self.pairs, self.alarms = kind, 0, 0
        self.seen: dict[str, list[bool]] = {}
        self.least: dict[str, list[float]] = {}

    def unchanged(self, found: Sequence[Finding]) -> None:
        """Counts a pair of equals."""
        self.pairs += 1
        self.alarms += any(finding.word != "no evidence" for finding in found)
        for finding in found:
            self.least.setdefault(finding.effect.metric.label, []).append(finding.smallest)

    def changed(self, what: str, effects: Sequence[Effect], metric: Metric, size: float) -> None:
        """Counts a pair of which one is changed, if it says that it could see so much."""
        for finding in judge(effects):
            if finding.effect.metric == metric and finding.smallest <= size:
                self.seen.setdefault(what, []).append(finding.word != "no evidence")

    def told(self) -> bool:
        """Prints a row; False if there were more false alarms than chance explains, once in a hundred times."""
        low, high = wilson(self.alarms, self.pairs)
        seen = "; ".join(f"{what}: {sum(hits)} of {len(hits)}" for what, hits in self.seen.items())
        least = ", ".join(f"{name} {_percent(float(np.median(sizes)))}" for name, sizes in self.least.items())
        print(
            f"{self.kind:<32} false alarms {self.alarms:>3} of {self.pairs} ({self.alarms / self.pairs:.1%}, "
            f"{low:.1%} … {high:.1%})\n    seen where it says so: {seen or 'it never said so'}\n    would show: {least}",
            flush=True,
        )
        return float(bdtrc(self.alarms - 1, self.pairs, ALARMS_MOST)) >= 0.01 if self.alarms else True


def _percent(size: float) -> str:
    return f"{size:.1%}" if math.isfinite(size) else "nothing"


def of_kind(kind: str, pairs: int) -> bool:
    """Pairs of synthetic runs of a minute."""
    random, tally, made = np.random.default_rng(20191111), Tally(kind), {"per_slice": 400, **KINDS[kind]}
    for at in range(pairs):
        usual, again, slower, fewer = (
            synthetic(random, **{**made, **change})
            for change in ({}, {}, {"slower": SLOWER}, {"per_slice": round(400 * FEWER)})
        )
        _of_pair(tally, at, usual, again, {"p99 +50%": (slower, P99), "goodput -10%": (fewer, GOODPUT)})
    return tally.told()


def _of_pair(tally: Tally, at: int, usual: Sample, again: Sample, changed: dict[str, tuple[Sample, Metric]]) -> None:
    def effects(run: Sample) -> list[Effect]:
        return [by_blocks(run, usual, metric, paired=True, spread=None, seed=at) for metric in LOOKED_AT]

    found = effects(again)
    tally.unchanged(judge(found))
    for what, (run, metric) in changed.items():
        size = SLOWER - 1 if metric.is_time else 1 / FEWER - 1
        tally.changed(what, effects(run), metric, size)
    for effect in found:  # the same chance, and on top of it just what would show
        least = smallest(effect, len(found))
        if math.isfinite(least) and not effect.metric.is_share:
            sign = 1 if at % 2 else -1
            moved = [replace(one, change=one.change + sign * least) if one is effect else one for one in found]
            (told,) = (finding for finding in judge(moved) if finding.effect.metric == effect.metric)
            tally.seen.setdefault("the smallest", []).append(told.word != "no evidence")


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
    ended = subprocess.run([*command, "--seed", str(seed), *more], cwd=ROOT, check=False, capture_output=True)
    return ended.returncode in (0, 99)


def of_runs(kind: str, folders: Sequence[Path]) -> bool:
    """Pairs of runs, each with the next; what is changed in one is changed in what was measured of it."""
    tally = Tally(kind)
    sides = [side_of(folder.name, [folder]) for folder in folders]
    sides = [side for side in sides if side.summaries[0]["validity"]["verdict"] == "valid"]
    for run, baseline in zip(sides[::2], sides[1::2], strict=False):
        read = _assuming(run, baseline)
        tally.unchanged(
            judge([read.effect(metric) for metric in METRICS if read.has_any(metric) and read.knows(metric)])
        )
        for what, metric, changed, size in (
            ("p99 +50%", P99, _slower(read.runs[0], SLOWER), SLOWER - 1),
            ("p99 x5", P99, _slower(read.runs[0], 5), 4.0),
            ("goodput -10%", GOODPUT, _fewer(read.runs[0]), 1 / FEWER - 1),
        ):
            with_it = replace(read, runs=[changed])
            known = [one for one in METRICS if read.has_any(one) and read.knows(one)]
            tally.changed(what, [with_it.effect(one) for one in known], metric, size)
    if not tally.pairs:
        print(f"{kind}: no pair was valid")
        return False
    return tally.told()


def _assuming(run: Side, baseline: Side) -> Read:
    """Both, with the spread that is assumed, also where repeated runs lie about."""
    read = read_both(run, baseline)
    return (
        read
        if read.spread is None
        else replace(
            read,
            spread=assumed([run.environment, baseline.environment], overloaded=run.overloaded or baseline.overloaded),
        )
    )


def _slower(sample: Sample, factor: float) -> Sample:
    times = {
        name: replace(one, values_ns=(one.values_ns * factor).astype(np.int64)) for name, one in sample.times.items()
    }
    return replace(sample, times=times)


def _fewer(sample: Sample) -> Sample:
    return replace(sample, outcomes={**sample.outcomes, "ok": sample.outcomes["ok"] * FEWER})


def tell_spreads(folders: Sequence[Path]) -> None:
    """Prints how much runs differ, how much of that their own seconds show, and what is left, by how busy the machine was."""
    sides = [side_of(folder.name, [folder]) for folder in folders]
    for alone in (True, False):
        group = [side for side in sides if was_alone([side.environment]) == alone]
        if len(group) < 3:
            continue
        print(f"spreads of {len(group)} runs on {'their own machine' if alone else 'a machine that others used too'}:")
        reads = [replace(_assuming(run, other), spread=None) for run, other in pairwise(group)]
        for metric in METRICS[:5]:
            effects = [read.effect(metric) for read in reads if read.knows(metric)]
            if len(effects) < 3:
                continue
            values = [effect.run for effect in effects] + [effects[-1].baseline]
            total = float(np.std(np.log(values), ddof=1))
            within = math.sqrt(float(np.mean([effect.error**2 for effect in effects])) / 2)
            beyond = math.sqrt(max(total**2 - within**2, 0.0))
            print(
                f"    {metric.label:<22} {total:7.2%} in all, {within:7.2%} within runs, {beyond:7.2%} beyond",
                flush=True,
            )


def main() -> int:
    """Prints the shares; 1 if one is too high."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--synthetic", type=int, default=200, help="pairs of each synthetic kind")
    parser.add_argument("--virtual", type=int, default=20, help="pairs on the virtual clock")
    parser.add_argument("--real", type=int, default=20, help="real pairs; they take about 25 s each")
    parser.add_argument("--runs", type=Path, help="a folder of real runs made before, instead of --real")
    asked = parser.parse_args()
    part = 10 if asked.quick else 1
    good = [of_kind(kind, asked.synthetic // part) for kind in KINDS if asked.synthetic]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        for kind, scenario, pairs, more in (
            ("virtual clock", "knee.yaml", asked.virtual, VIRTUAL),
            ("real", "smoke.yaml", 0 if asked.runs else asked.real, REAL),
        ):
            made = [Path(place) / f"{scenario}-{at}" for at in range(2 * max(pairs // part, min(pairs, 2)))]
            done = [folder for at, folder in enumerate(made) if sim_run(scenario, folder, at, *more)]
            if done:
                good.append(of_runs(kind, done))
                tell_spreads(done)
    if asked.runs:
        done = sorted(
            (path.parent for path in asked.runs.glob("*/summary.json")), key=lambda path: path.stat().st_mtime
        )
        good.append(of_runs(str(asked.runs), done))
        tell_spreads(done)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
