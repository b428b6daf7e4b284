"""What two runs were not alike in, before their figures: the scenario, the machine, the versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TOLD_MOST = 8
_NOT_TOLD = frozenset(
    {"seed", "description", "thresholds"}
)  # another draw of the same load, words, and what is asked of it
_MACHINE = ("cpu_model", "cores", "memory_bytes", "kernel", "system", "file_system")
_SOFTWARE = ("python", "numpy", "numba")
_LEFT_OUT = "left out"
_LONGEST = 60


def read_scenario(run: Path) -> dict[str, Any]:
    """The resolved scenario of a run; empty where it cannot be read."""
    try:
        found = yaml.safe_load((run / "scenario.yaml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def read_environment(run: Path) -> dict[str, Any]:
    """What a run says of its machine; empty where it cannot be read."""
    try:
        found = json.loads((run / "environment.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def of_scenarios(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """One line for each field that differs, `path: baseline → run`, of at most TOLD_MOST, then how many more."""
    here, there = dict(_leaves(run)), dict(_leaves(baseline))
    lines = [
        f"{path}: {_short(there.get(path, _LEFT_OUT))} → {_short(here.get(path, _LEFT_OUT))}"
        for path in dict.fromkeys([*there, *here])
        if here.get(path, _LEFT_OUT) != there.get(path, _LEFT_OUT)
    ]
    more = len(lines) - TOLD_MOST
    return lines[:TOLD_MOST] + ([f"and {more} more fields"] if more > 0 else [])


def of_machines(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """One line for each fact of the machine and the libraries that differs; nothing where one of them says nothing."""
    return [
        f"{name}: {_short(baseline[name])} → {_short(run[name])}"
        for name in (*_MACHINE, *_SOFTWARE)
        if name in run and name in baseline and run[name] != baseline[name]
    ]


def same_load(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> bool:
    """Whether both were asked for the same rate over time, by the same clock, whatever became of it."""

    def asked(scenario: Mapping[str, Any]) -> Any:  # noqa: ANN401  whatever the file has
        load = scenario.get("load")
        return (load.get("rate"), load.get("arrivals")) if isinstance(load, dict) else None

    return bool(run) and asked(run) == asked(baseline) and run.get("clock") == baseline.get("clock")


def _leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if place or key not in _NOT_TOLD:
                yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
