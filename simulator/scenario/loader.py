"""YAML → `Scenario`, strictly, with errors that name file, line and path and say what would be right.

The file is one plain YAML document (see `document`) without unknown keys.

Precedence: defaults < file < `SIM_*` environment < command line. `SIM_LOAD__ACCOUNTS=1000` and
`--set load.accounts=1000` say the same. Naming another form of a choice (`backend.noop`, `load.rate.trace`) replaces
the one before; anything else is changed in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from simulator.errors import ScenarioError, UsageError
from simulator.scenario.base import LONGEST_NS, Place
from simulator.scenario.document import Draft, Refusal, compose, dump, parse, plain, read, spell
from simulator.scenario.explain import explain
from simulator.scenario.load import HIGHEST_RATE_PER_S, CurveRate, TraceRate, rate_form
from simulator.scenario.model import Scenario
from simulator.scenario.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "SIM_"
RESERVED = frozenset({"SIM_DEBUG"})
"""`SIM_*` variables that are no scenario fields: `SIM_DEBUG=1` shows the traceback of an unexpected error."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario and where its fields were written.

    Attributes:
        scenario: the validated scenario.
        origins: path such as `load.accounts` → `peak.yaml:12`, `--set load.accounts=5` or `SIM_LOAD__ACCOUNTS`.
    """

    scenario: Scenario
    origins: Mapping[str, str]


def load(path: Path | str, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Scenario:
    """Reads and validates a scenario file; see `load_with_origins`."""
    return load_with_origins(path, overrides, environ).scenario


def load_with_origins(
    path: Path | str, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Loaded:
    """Reads a scenario file and what overrides it.

    Args:
        path: the YAML file, at most 1 MiB.
        overrides: `a.b=value` each, as `--set` takes them; later ones win.
        environ: environment variables, of which `SIM_*` count; None: none.

    Raises:
        ScenarioError: the file cannot be read, or the scenario is wrong: one line for each problem.
    """
    path = Path(path)
    draft = parse(read(path), str(path))
    for name, value in sorted((environ or {}).items()):
        if name.startswith(PREFIX) and name not in RESERVED:
            _override(draft, tuple(name.removeprefix(PREFIX).lower().split("__")), value, name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise UsageError(f"--set {override}: write it as path=value, for example --set load.accounts=1000")
        _override(draft, tuple(key.strip().split(".")), value, f"--set {override}")
    draft.refuse()
    try:
        scenario = Scenario.from_data(draft.data, folder=path.parent)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            explain(draft, detail)
        draft.refuse()
        raise  # not reached: each detail is a problem
    _check_load(draft, scenario)
    return Loaded(scenario, {spell(place): origin for place, origin in draft.origins.items() if place})


def dump_scenario(scenario: Scenario) -> str:
    """A scenario as YAML, defaults included; `load` reads an equal scenario back."""
    return dump(scenario.to_data())


# ---- overrides ----


def _override(draft: Draft, keys: tuple[str, ...], written: str, origin: str) -> None:
    """Sets one field, replacing another form of the same choice and whatever scalar stands in its way."""
    value = _override_value(written, origin)
    container: Any = draft.data
    place: Place = ()
    for depth, word in enumerate(keys):
        key = _index(container, word, origin)
        if isinstance(container, dict):
            _leave_other_form(draft, container, place, word)
        place = (*place, key)
        if depth == len(keys) - 1:
            _forget(draft, place)
            container[key] = value
            draft.origins[place] = origin
            return
        inner = container.get(key) if isinstance(container, dict) else container[key]
        if not isinstance(inner, dict | list):
            inner = _written_default(place)
            container[key] = inner
            draft.origins[place] = origin
        container = inner


def _override_value(written: str, origin: str) -> Any:  # noqa: ANN401  any YAML value
    if not written.strip():
        return ""
    scratch = Draft()
    try:
        node = compose(written)
    except Refusal as refusal:
        raise ScenarioError(f"{origin}: {' '.join(str(refusal).split())}") from None
    value = plain(node, (), scratch, origin) if node is not None else None
    if scratch.problems:
        raise ScenarioError(f"{origin}: has a key twice, or a key that is no word")
    return value


def _index(container: object, word: str, origin: str) -> str | int:
    if not isinstance(container, list):
        return word
    if not word.isdecimal() or int(word) >= len(container):
        raise ScenarioError(
            f"{origin}: {word!r} is not an index of this list; it has {len(container)} items, from 0 on"
        )
    return int(word)


def _leave_other_form(draft: Draft, container: dict[str, Any], place: Place, word: str) -> None:
    """Empties a choice whose present form is not the one that `word` belongs to."""
    if place == ("backend",):
        leave = word not in container
    elif place == ("load", "rate"):
        leave = bool(container) and rate_form({word: None}) not in (None, rate_form(container))
    else:
        leave = False
    if leave:
        _forget(draft, place)
        container.clear()


def _written_default(place: Place) -> dict[str, Any]:
    """What an override starts from where nothing is written.

    Kinds left out of a written mix are never sent. So a mix that nobody wrote starts from its default, of which
    `--set load.mix.refund=5` is meant to change one weight.
    """
    if place == ("load", "mix"):
        return {"payment": 97, "refund": 1, "authorize": 2}
    return {}


def _forget(draft: Draft, place: Place) -> None:
    """Drops the origins of everything below a place."""
    for known in [known for known in draft.origins if len(known) > len(place) and known[: len(place)] == place]:
        del draft.origins[known]


# ---- what only the rate itself can tell ----


def _check_load(draft: Draft, scenario: Scenario) -> None:
    """Refuses a trace that cannot be replayed, and a curve that sends nothing or too much."""
    rate = scenario.load.rate
    if isinstance(rate, TraceRate):
        _check_trace(draft, scenario, rate)
    elif isinstance(rate, CurveRate):
        _check_curve(draft, scenario)
    draft.refuse()


def _check_trace(draft: Draft, scenario: Scenario, rate: TraceRate) -> None:
    from simulator.arrivals.trace import scan  # noqa: PLC0415  its imports are heavy

    load = scenario.load
    info = scan(rate.trace, scenario.currency, load.accounts, load.merchants.count)
    length_ns = math.ceil(info.duration_ns / rate.speed)
    length = format_duration(length_ns)
    if scenario.duration is None and length_ns > LONGEST_NS:
        message = f"the trace lasts {length} at speed {rate.speed:g}, and a run at most 24h"
        draft.complain(("load", "rate"), f"{message}; write a duration or a higher speed")
    if scenario.duration is not None and scenario.duration > length_ns:
        message = (
            f"{format_duration(scenario.duration)} is longer than the trace lasts at speed {rate.speed:g}, {length}"
        )
        draft.complain(("duration",), f"{message}; write less, or leave it out to replay the whole trace")
    if scenario.duration is None:
        for place, message in scenario.problems_in_time(length_ns):
            draft.complain(place, message)


def _check_curve(draft: Draft, scenario: Scenario) -> None:
    from simulator.arrivals import build_rate  # noqa: PLC0415  its imports are heavy

    shape = build_rate(scenario)
    peak_per_s, at_s = shape.peak()
    if shape.total <= 0:
        message = "the curve does not rise within its window, which sends nothing; move the window"
        draft.complain(("load", "rate"), message)
    elif peak_per_s > HIGHEST_RATE_PER_S:
        message = f"the curve peaks at {peak_per_s:,.0f}/s after {at_s:g} s; the highest rate is "
        message += f"{format_rate(HIGHEST_RATE_PER_S)}: write a lower scale or a higher mean ticket"
        draft.complain(("load", "rate"), message)
