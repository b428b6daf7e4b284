"""`sim doctor`: examines the machine, and says what would limit a scenario on it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from simulator import __version__
from simulator.bench.table import progress
from simulator.doctor import cache
from simulator.doctor.ceilings import QUICK, STEPS, Effort, measure_ceilings, warm_the_simulated
from simulator.doctor.demands import demands_of
from simulator.doctor.figures import Figures
from simulator.doctor.judge import Grade, Remark, limiting, limits, remarks, verdict
from simulator.doctor.machine import cpu_times, look, noise
from simulator.doctor.timing import measure_disk, measure_timing
from simulator.errors import Exit
from simulator.warm import warm, warm_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.scenario.model import Scenario

_MARKS = {Grade.OK: " ", Grade.NEAR: "!", Grade.OVER: "✗", Grade.UNKNOWN: "?"}


def examine(effort: Effort, step: Callable[[str], None], *, quick: bool) -> Figures:
    """Measures everything, on the disk of results/, and nothing beyond this machine."""
    warm(step)
    warm_virtual(step)
    warm_the_simulated()
    folder = Path("results") if Path("results").is_dir() else Path.cwd()
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    machine, before = look(), cpu_times()
    step("clock and timers")
    timing = measure_timing(effort.timer_s)
    step("the disk")
    disk = measure_disk(folder, effort.disk_s)
    ceilings = measure_ceilings(effort, folder, step)
    return Figures(taken_at, quick, __version__, machine, timing, disk, ceilings, noise(before, cpu_times()))


def see_doctor(scenario: Scenario | None, *, quick: bool, as_json: bool) -> Exit:
    """Examines, keeps the figures for today's runs, and prints."""
    effort = QUICK if quick else Effort()
    with progress(STEPS + 2) as step:
        figures = examine(effort, step, quick=quick)
    cache.keep(figures)
    found = None if scenario is None else limits(demands_of(scenario), figures)
    text = _as_json(figures, scenario, found) if as_json else _as_text(figures, scenario, found)
    sys.stdout.write(text + "\n")
    return Exit.OK


def _as_json(figures: Figures, scenario: Scenario | None, found: list[Remark] | None) -> str:
    said = {
        **figures.as_json(), "verdict": verdict(figures),
        "remarks": [remark._asdict() for remark in remarks(figures)],
    }  # fmt: skip
    if scenario is not None and found is not None:
        said["scenario"] = {
            "name": scenario.name, "verdict": limiting(found), "limits": [remark._asdict() for remark in found],
        }  # fmt: skip
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False)


def _as_text(figures: Figures, scenario: Scenario | None, found: list[Remark] | None) -> str:
    lines = [*_table(remarks(figures)), "", verdict(figures)]
    if figures.quick:
        lines.append("a quick look: each figure is of a moment only")
    if scenario is not None and found is not None:
        lines += ["", f"{scenario.name} on this machine", *_table(found), "", limiting(found)]
    return "\n".join(lines)


def _table(found: list[Remark]) -> list[str]:
    name, figure = (
        max(len(text) for text in column) for column in ([r.name for r in found], [r.figure for r in found])
    )
    return [f"{_MARKS[r.grade]} {r.name:<{name}}  {r.figure:>{figure}}  {r.meaning}" for r in found]
