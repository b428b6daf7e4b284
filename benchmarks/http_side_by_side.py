"""This generator, wrk, k6 and Locust against the same nginx process, in turn, several rounds: `make bench-http`.

All of them send POSTs with a unique JSON body each over 64 kept connections (k6: up to 200 virtual users) on loopback. wrk
and our closed loop show what the driver can; open loop is what a run does. A rate counts as valid if 99.9 % of what was due was
answered; of ours also if the schedule lag is at most 1 ms at p99, which the others do not measure. Locust has no open loop:
all that it reaches counts. On a busy machine take the ratios, and those with care.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from http_tools import CONNECTIONS, Nginx, Row, find_debian, find_python, k6, locust, wrk

from simulator.bench.generate import LAG_LIMIT_MS, SENT_SHARE_MIN, closed_loop, http_scenario, open_loop
from simulator.doctor.facts import at_start
from simulator.doctor.machine import cpu_times, noise
from simulator.report.export import environment
from simulator.warm import warm

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL_PER_S, GOAL_S = 50_000, 20
_K6_CEILING_PER_S = 60_000  # more than it can, so that it shows what it can
_LEAST_SHARE = 0.2  # of a ceiling: where the search for the highest valid rate begins
_HALVINGS = 5  # so the rate is found to a fortieth of the ceiling
_TRIES = 2  # at a rate: one unlucky stretch of a shared machine must not decide


@dataclass(frozen=True)
class Goal:
    """One figure that is wanted, and the median over the rounds."""

    name: str
    wanted: str
    found: float | None
    met: bool | None  # None: it could not be measured


def highest(attempt: Callable[[float], Row], ceiling_per_s: float, valid: Callable[[Row], bool]) -> Row | None:
    """The highest rate below a ceiling that is valid, by bisection; None: none was.

    A rate is valid if one of its tries is. The same rule for every tool, so that luck is nobody's.
    """
    best: Row | None = None
    low, high = _LEAST_SHARE, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        rows = (attempt(round(share * ceiling_per_s)) for _ in range(_TRIES))
        row = next((row for row in rows if valid(row)), None)
        if row is None:
            high = share
        else:
            low, best = share, row
    return best


def is_valid(row: Row) -> bool:
    """Whether a rate was reached, and by a tool that measures its lag also kept on time."""
    on_time = row.lag_p99_ms is None or row.lag_p99_ms <= LAG_LIMIT_MS
    return row.share is not None and row.share >= SENT_SHARE_MIN and on_time


def ours_closed(nginx: Nginx, seconds: int) -> Row:
    """Our driver with every connection busy."""
    found = closed_loop(http_scenario([nginx.url], 1.0, 1.0, CONNECTIONS), seconds)
    cpu_us = found.cpu_s / max(found.answered, 1) * 1e6
    return Row("ours", "closed", None, found.ok / found.elapsed_s, None, None, None, None, cpu_us)


def ours_open(nginx: Nginx, rate_per_s: float, seconds: int) -> Row:
    """Our engine at a rate."""
    found = open_loop(http_scenario([nginx.url], rate_per_s, seconds, CONNECTIONS))
    times = found.response_ms
    return Row(
        "ours", "open", rate_per_s, found.achieved_per_s, found.ok / max(found.offered, 1), times["p50"], times["p99"],
        times["p99.9"], found.cpu_us_per_request, found.lag_ms["p99"],
    )  # fmt: skip


def one_round(
    nginx: Nginx, commands: dict[str, Path], seconds: int, goal_s: int, *, with_wrk: bool
) -> dict[str, Row | None]:
    """Everything once, in turn."""
    rows: dict[str, Row | None] = {}
    if with_wrk:
        rows["wrk closed"] = _told(wrk(nginx, seconds))
    closed = rows["ours closed"] = _told(ours_closed(nginx, seconds))
    rows["ours highest"] = highest(lambda rate: _told(ours_open(nginx, rate, seconds)), closed.achieved_per_s, is_valid)
    rows["ours goal"] = _told(ours_open(nginx, GOAL_PER_S, goal_s))
    if "k6" in commands:
        most = _told(k6(commands["k6"], nginx, _K6_CEILING_PER_S, seconds))
        rows["k6 highest"] = highest(
            lambda rate: _told(k6(commands["k6"], nginx, int(rate), seconds)), most.achieved_per_s, is_valid
        )
    if "locust" in commands:
        rows["locust"] = _told(locust(commands["locust"], nginx, seconds))
    return rows


def ratio(rounds: list[dict[str, Row | None]], ours: str, theirs: str) -> float | None:
    """The median over the rounds in which both have a figure."""
    pairs = [(found.get(ours), found.get(theirs)) for found in rounds]
    ratios = [
        a.achieved_per_s / b.achieved_per_s for a, b in pairs if a is not None and b is not None and b.achieved_per_s
    ]
    return median(ratios) if ratios else None


def goals(rounds: list[dict[str, Row | None]]) -> list[Goal]:
    """What is wanted against the medians."""
    found = []
    for name, ours, theirs, least in (
        ("highest valid rate over k6's", "ours highest", "k6 highest", 3.5),
        ("highest valid rate over Locust's", "ours highest", "locust", 6.0),
        ("closed loop over wrk's", "ours closed", "wrk closed", 0.7),
    ):
        value = ratio(rounds, ours, theirs)
        found.append(Goal(name, f"≥ {least:g}", value, None if value is None else value >= least))
    at_goal = [row for row in (each.get("ours goal") for each in rounds) if row is not None]
    shares = [row.share for row in at_goal if row.share is not None]
    p99s = [row.p99_ms for row in at_goal if row.p99_ms is not None]
    lags = [row.lag_p99_ms for row in at_goal if row.lag_p99_ms is not None]
    share, p99, lag = (median(values) if values else None for values in (shares, p99s, lags))
    rate = f"at {GOAL_PER_S:,}/s open loop"
    found.append(
        Goal(
            f"share sent and answered {rate}",
            f"≥ {SENT_SHARE_MIN:g}",
            share,
            None if share is None else share >= SENT_SHARE_MIN,
        )
    )
    found.append(Goal(f"response p99 in ms {rate}", "≤ 2", p99, None if p99 is None else p99 <= 2.0))
    found.append(
        Goal(f"lag p99 in ms {rate}", f"≤ {LAG_LIMIT_MS:g}", lag, None if lag is None else lag <= LAG_LIMIT_MS)
    )
    return found


def table(rounds: list[dict[str, Row | None]]) -> list[str]:
    """Each figure of each round."""
    titles = ("p50 ms", "p99 ms", "p99.9", "lag p99")
    head = f"{'':<14}{'asked/s':>10}{'achieved/s':>12}{'share':>9}{''.join(f'{title:>9}' for title in titles)}{'µs CPU':>8}"
    lines = []
    for number, found in enumerate(rounds, 1):
        lines += [f"round {number}", head]
        for name, row in found.items():
            if row is None:
                lines.append(f"{name:<14}  no rate was valid")
                continue
            share = "" if row.share is None else f"{100 * row.share:.2f}%"
            asked = "" if row.asked_per_s is None else f"{row.asked_per_s:,.0f}"
            times = "".join(
                f"{'' if ms is None else f'{ms:,.3f}':>9}"
                for ms in (row.p50_ms, row.p99_ms, row.p999_ms, row.lag_p99_ms)
            )
            cpu = "" if row.cpu_us is None else f"{row.cpu_us:.1f}"
            lines.append(f"{name:<14}{asked:>10}{row.achieved_per_s:>12,.0f}{share:>9}{times}{cpu:>8}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Runs it; 0 unless `--check` is given and a goal is missed or could not be measured."""
    parser = argparse.ArgumentParser(description="This generator beside wrk, k6 and Locust.")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 100), metavar="R", help="rounds (3)")
    parser.add_argument("--seconds", type=int, default=5, choices=range(1, 601), metavar="N", help="each stretch (5)")
    parser.add_argument("--quick", action="store_true", help="a look: one round, a second each")
    parser.add_argument("--check", action="store_true", help="end with 1 if a goal is not met")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(argv)
    count, seconds, goal_s = (1, 1, 2) if asked.quick else (asked.rounds, asked.seconds, GOAL_S)
    missing = find_debian({"nginx": "nginx-light", "wrk": "wrk"})
    if any(line.startswith("nginx") for line in missing):
        sys.exit("\n".join(missing))
    commands, absent = find_python(("k6", "locust"))
    missing += absent
    for line in missing:
        print(line, file=sys.stderr)
    warm(None)
    before = cpu_times()
    rounds = []
    with Nginx() as nginx:
        for number in range(count):
            print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
            with_wrk = not any(line.startswith("wrk") for line in missing)
            rounds.append(one_round(nginx, commands, seconds, goal_s, with_wrk=with_wrk))
    found, found_noise = goals(rounds), noise(before, cpu_times())
    if asked.json:
        said = {
            "schema": 1,
            "machine": {**environment(Path.cwd()), **at_start(datetime.now(UTC))},
            "noise": asdict(found_noise),
            "missing": missing,
            "rounds": [{name: None if row is None else asdict(row) for name, row in each.items()} for each in rounds],
            "goals": [asdict(goal) for goal in found],
        }
        print(json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(table(rounds)))
        for goal in found:
            value = "not measured" if goal.found is None else f"{goal.found:.3f}"
            print(
                f"{'?' if goal.met is None else '✓' if goal.met else '✗'} {goal.name}: {value} (wanted {goal.wanted})"
            )
        if found_noise.others is not None and found_noise.steal is not None:
            print(f"CPU time that other processes took: {found_noise.others:.0%}; steal: {found_noise.steal:.1%}")
    return int(asked.check and not all(goal.met for goal in found))


def _told(row: Row) -> Row:
    asked = "" if row.asked_per_s is None else f" at {row.asked_per_s:,.0f}/s"
    print(f"  {row.tool} {row.mode}{asked}: {row.achieved_per_s:,.0f}/s", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
