"""`--vary path=a,b,c`: the grid of variants of a scenario, every one validated before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from simulator.errors import ScenarioError, UsageError
from simulator.scenario.loader import load
from simulator.scenario.units import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from simulator.scenario.model import Scenario

MOST_VARIANTS = 256  # a page that compares more compares nothing; each is a run with a folder of its own
_OPENING, _CLOSING = "[{(", "]})"
_NAME_MOST = 80
_LINES_MOST = 10


@dataclass(frozen=True)
class Axis:
    """One `--vary`: a field and the values it takes, as they were written."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """One point of the grid; `settings` holds (path, value) in the order of the axes."""

    number: int  # from 1
    name: str  # `policy=p2c, nodes=50`
    settings: tuple[tuple[str, str], ...]
    scenario: Scenario

    @property
    def folder(self) -> str:
        """Its folder's name within the sweep's."""
        word = re.sub(r"[^0-9A-Za-z_.=-]+", "-", self.name).strip("-")[:_NAME_MOST]
        return f"{self.number:03d}-{word}"


def parse_axes(written: Sequence[str]) -> tuple[Axis, ...]:
    """Reads what `--vary` was given.

    Raises:
        UsageError: it is not `path=a,b,c`, names a field or a value twice, or makes more than MOST_VARIANTS variants.
    """
    axes: list[Axis] = []
    for text in written:
        path, equals, values = text.partition("=")
        path = path.strip()
        if not equals or not all(part.strip() for part in path.split(".")):
            raise UsageError(f"--vary {text}: write it as path=a,b,c, for example --vary balancer.policy=random,p2c")
        split = [value.strip() for value in _split(values)]
        if not all(split):
            raise UsageError(f"--vary {text}: a value is empty; write values with commas between them, as in a,b,c")
        twice = next((value for at, value in enumerate(split) if value in split[:at]), None)
        if twice is not None:
            raise UsageError(f"--vary {text}: {quoted(twice)} stands there twice; each value makes one variant")
        if any(path == axis.path for axis in axes):
            raise UsageError(f"--vary {text}: {path} is varied already; write all its values in one --vary")
        axes.append(Axis(path, tuple(split)))
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_VARIANTS:
        sizes = " × ".join(str(len(axis.values)) for axis in axes)
        raise UsageError(f"--vary: {sizes} make {count:,} variants; a sweep has at most {MOST_VARIANTS}")
    return tuple(axes)


def repetitions(seed: int, count: int) -> tuple[Axis, ...]:
    """The axis of a scenario that is run so many times, each with a seed of its own, from the scenario's on.

    With one seed the runs would share what chance did to the load, and a comparison would take that for the platform's.

    Raises:
        UsageError: fewer than 2 or more than MOST_VARIANTS.
    """
    if not 2 <= count <= MOST_VARIANTS:  # noqa: PLR2004  one run is no repetition
        raise UsageError(f"--repeat {count}: write a number from 2 to {MOST_VARIANTS}")
    return (Axis("seed", tuple(str((seed + number) % 2**63) for number in range(count))),)


def _split(values: str) -> list[str]:
    """At the commas that stand within no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in values:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def labels(axes: Sequence[Axis]) -> list[str]:
    """What each axis is called in names and tables: the last word of its path, or the path where that is not enough."""
    words = [axis.path.rpartition(".")[2] for axis in axes]
    return [axis.path if words.count(word) > 1 else word for axis, word in zip(axes, words, strict=True)]


def expand(
    path: Path, axes: Sequence[Axis], overrides: Sequence[str], environ: Mapping[str, str]
) -> tuple[Variant, ...]:
    """Every variant of a scenario file, in the order of the grid: the last axis changes fastest.

    A varied value comes after everything else that may set its field, `overrides` included.

    Raises:
        ScenarioError: some are invalid: one line for each problem, with the value that brought it in.
    """
    names, variants, problems = labels(axes), [], []
    for number, point in enumerate(product(*(axis.values for axis in axes)), start=1):
        settings = tuple(zip((axis.path for axis in axes), point, strict=True))
        name = ", ".join(f"{label}={value}" for label, value in zip(names, point, strict=True))
        try:
            scenario = load(path, [*overrides, *(f"{field}={value}" for field, value in settings)], environ)
        except ScenarioError as error:
            problems += [line.replace("--set ", "--vary ", 1) for line in str(error).splitlines()]
            continue
        variants.append(Variant(number, name, settings, scenario))
    if problems:
        told = list(dict.fromkeys(problems))  # a value that is wrong is wrong in every variant that has it
        more = len(told) - _LINES_MOST
        raise ScenarioError("\n".join(told[:_LINES_MOST] + ([f"and {more} more such lines"] if more > 0 else [])))
    return tuple(variants)
