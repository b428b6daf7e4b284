"""Repeated runs that are lying about: what they show of how much runs of a scenario differ on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.compare import baselines, spreads
from simulator.compare.differences import of_machines, of_scenarios
from simulator.compare.sides import runs_in, side_of
from simulator.errors import SimError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.compare.sides import Side
    from simulator.compare.spreads import Measured

LOOKED_AT_MOST = 50  # folders of repeated runs, the newest


def spread_for(run: Side, baseline: Side, kept: Path = baselines.FOLDER) -> Measured | None:
    """The spread that repeated runs showed: of the scenario of either side, on the same machine, when it was no less busy.

    Looked at are the baselines, and the folders of repeated runs beside the two sides. Of several the one of most runs is taken.

    Args:
        run: one single run, and
        baseline: the other.
        kept: where baselines are.

    Returns:
        None if there are none of at least `spreads.RUNS_LEAST` valid runs.
    """
    alone = spreads.was_alone([run.environment, baseline.environment])
    best: Side | None = None
    for side in _repeated([folder.parent for one in (run, baseline) for folder in one.folders], kept):
        if best is not None and len(side.folders) <= len(best.folders):
            continue
        fits = any(_same(side, other) for other in (run, baseline))
        if fits and (alone or not spreads.was_alone(side.environments)):
            best = side
    if best is None:
        return None
    return spreads.measured(best.summaries, f"{len(best.summaries)} runs in {best.name}")


def _same(side: Side, other: Side) -> bool:
    return (
        bool(side.scenario)
        and not of_scenarios(side.scenario, other.scenario)
        and not of_machines(side.environment, other.environment)
    )


def _repeated(beside: list[Path], kept: Path) -> Iterator[Side]:
    """Sides of enough valid runs; what cannot be read is passed over, since nobody asked for it by name."""
    folders = {path.parent for place in beside for path in place.glob("*/sweep.json")}
    folders |= {path.parent for path in kept.glob("*/baseline.json")}
    newest = sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)[:LOOKED_AT_MOST]
    for folder in newest:
        try:
            side = side_of(str(folder), runs_in(folder))
        except SimError:
            continue
        if len(side.folders) >= spreads.RUNS_LEAST and all(_is_valid(summary) for summary in side.summaries):
            yield side


def _is_valid(summary: dict[str, object]) -> bool:
    validity = summary.get("validity")
    return summary.get("verdict") != "invalid" and isinstance(validity, dict) and validity.get("verdict") == "valid"
