"""What may be compared: a run, repeated runs, or a baseline, by folder or by name."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.compare import baselines
from simulator.compare.differences import of_machines, of_scenarios, read_environment, read_scenario
from simulator.compare.samples import Sample, read_sample
from simulator.errors import InvalidRunError, SimError, UsageError
from simulator.report.folder import read_summary
from simulator.report.wording import duration, number, plain, run_seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from simulator.report.wording import Summary

_OVERLOADED_SHARE = 0.05  # a hiccup makes no difference to what a run answers in all
SEED = "seed"  # the one axis of repeated runs


@dataclass(frozen=True)
class Side:
    """One side of a comparison: one run, or several of one scenario."""

    name: str
    folders: tuple[Path, ...]
    summaries: tuple[Summary, ...]
    scenario: dict[str, Any]  # as the first run resolved it
    environments: tuple[dict[str, Any], ...]

    @property
    def environment(self) -> dict[str, Any]:
        """What the first run says of its machine."""
        return self.environments[0]

    @property
    def simulated(self) -> bool:
        """Whether its runs were on the virtual clock."""
        return bool(self.summaries[0].get("clock") == "virtual")

    @property
    def overloaded(self) -> bool:
        """Whether one of its runs was offered more than it could take for a notable part of its time."""
        return any(
            (number((summary.get("overload") or {}).get("overloaded_s")) or 0.0)
            > _OVERLOADED_SHARE * (run_seconds(summary) or math.inf)
            for summary in self.summaries
        )

    @property
    def started_at(self) -> str:
        """When its first run began."""
        return plain(self.summaries[0].get("started_at", ""))

    def samples(self, measures: Collection[str] = ("response_time",)) -> list[Sample]:
        """What was counted and measured in each run. Raises SimError where a file is missing or cannot be read."""
        return [
            read_sample(folder, self.name, run_seconds(summary) or 0.0, measures)
            for folder, summary in zip(self.folders, self.summaries, strict=True)
        ]


def open_side(written: str, folder: Path = baselines.FOLDER) -> Side:
    """What a command line names: a run's folder, one of repeated runs, or a baseline.

    Raises:
        UsageError: there is nothing of that name, or it is a sweep over something else than seeds.
        SimError: it is half-written, of another schema, or no run.
    """
    path = Path(written)
    if path.is_dir():
        return side_of(written.rstrip("/"), runs_in(path))
    if written in baselines.names(folder):
        return side_of(f"baseline {written}", baselines.read(written, folder).runs)
    known = ", ".join(baselines.names(folder)) or "none"
    raise UsageError(f"{written}: no such folder, nor a baseline of that name (there are: {known})")


def side_of(name: str, folders: Sequence[Path]) -> Side:
    """The side that these runs make. Raises SimError if one of them cannot be read."""
    summaries = tuple(read_summary(folder) for folder in folders)
    environments = tuple(read_environment(folder) for folder in folders)
    return Side(name, tuple(folders), summaries, read_scenario(folders[0]), environments)


def runs_in(path: Path) -> list[Path]:
    """The runs that a folder stands for: itself, or those of a repetition that have ended.

    Raises:
        UsageError: it is a sweep over something else than seeds.
        SimError: it is a sweep of which nothing can be read.
    """
    if (path / "baseline.json").is_file():
        return list(baselines.read(path.name, path.parent).runs)
    try:
        sweep = json.loads((path / "sweep.json").read_text("utf-8"))
    except FileNotFoundError:
        return [path]
    except (OSError, ValueError) as error:
        raise SimError(f"{path / 'sweep.json'}: cannot be read as JSON: {error}") from None
    try:
        axes = [str(axis["path"]) for axis in sweep["axes"]]
        ended = [path / str(row["folder"]) for row in sweep["variants"] if row.get("verdict") is not None]
    except (TypeError, KeyError, AttributeError):
        raise SimError(f"{path / 'sweep.json'}: is incomplete: axes or variants missing or of the wrong type") from None
    if axes != [SEED]:
        raise UsageError(f"{path}: is a sweep over {', '.join(axes)}; name one of its variants' folders")
    if not ended:
        raise SimError(f"{path}: none of its runs has ended")
    return ended


def refuse_invalid(side: Side, role: str) -> None:
    """Refuses a side with a run whose figures are not to be believed.

    Raises:
        InvalidRunError: which run, and why.
    """
    for folder, summary in zip(side.folders, side.summaries, strict=True):
        validity = summary["validity"]
        if validity.get("verdict") != "valid":
            why = "; ".join(plain(reason) for reason in validity.get("reasons", [])) or "no reason given"
            raise InvalidRunError(
                f"{folder}: {role} is {plain(validity.get('verdict'))}: {why}; nothing follows from such figures "
                "(--force takes them all the same)"
            )


def what_differs(run: Side, baseline: Side) -> list[str]:
    """What speaks against comparing the two, one line each; empty if nothing does."""
    notes = []
    scenario = of_scenarios(run.scenario, baseline.scenario)
    if scenario:
        notes.append(f"the scenarios differ: {'; '.join(scenario)}")
    elif not run.scenario or not baseline.scenario:
        notes.append("whether the scenarios are the same cannot be told: scenario.yaml is missing or cannot be read")
    if not (run.simulated and baseline.simulated):
        machine = of_machines(run.environment, baseline.environment)
        notes += [f"not the same machine or software: {'; '.join(machine)}"] if machine else []
    for side in (run, baseline):
        for folder, summary in zip(side.folders, side.summaries, strict=True):
            notes += [f"{folder}: {told}" for told in _against(summary)]
    return notes


def _against(summary: Summary) -> list[str]:
    told = []
    if summary["validity"].get("verdict") != "valid":
        told.append(f"its figures are not to be believed ({plain(summary['validity'].get('verdict'))})")
    if summary["audit"].get("verdict") == "anomalies":
        told.append("its audit found anomalies: what is quick may be wrong")
    if str(summary.get("stop_reason", "")).startswith("threshold"):
        told.append(f"a threshold stopped it after {duration(run_seconds(summary))}")
    return told
