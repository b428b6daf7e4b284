"""YAML → `Scenario`, strictly, with errors that name file, line and path and say what would be right.

The file is one plain YAML document: no unknown or duplicate keys, no anchors, aliases or tags. Plain scalars are read
as YAML 1.2's core schema reads them (`on`, `10:30` and `2019-11-11` are text), except that integers may have
underscores.

Precedence: defaults < file < `SIM_*` environment < command line. `SIM_LOAD__ACCOUNTS=1000` and
`--set load.accounts=1000` say the same. Naming another form of a choice (`backend.noop`, `load.rate.trace`) replaces
the one before; anything else is changed in place.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError

from simulator.errors import ScenarioError, UsageError
from simulator.scenario.base import LONGEST_NS, Place
from simulator.scenario.load import HIGHEST_RATE_PER_S, CurveRate, TraceRate, rate_form
from simulator.scenario.model import MODELS, TAGS, Scenario
from simulator.scenario.spelling import known_words, nearest
from simulator.scenario.units import format_duration, format_rate, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

SIZE_LIMIT = 1024 * 1024
DEEPEST = 32
PREFIX = "SIM_"
RESERVED = frozenset({"SIM_DEBUG"})
"""`SIM_*` variables that are no scenario fields: `SIM_DEBUG=1` shows the traceback of an unexpected error."""

_CORE_SCALARS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9](?:_?[0-9]){0,40}"), int),
    (re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,4})?"), float),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)


@dataclass
class _Draft:
    """Plain data on its way to a scenario, with where each part was written and what is wrong so far."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)  # place → `peak.yaml:12`, `--set a.b=c` or `SIM_A__B`
    problems: list[str] = field(default_factory=list)

    def origin(self, place: Place) -> str:
        """Where a place, or the nearest thing around it, was written."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.origins:
                return self.origins[place[:length]]
        return ""

    def complain(self, place: Place, message: str, origin: str | None = None) -> None:
        """Notes one problem as one line."""
        where = ": ".join(part for part in (origin or self.origin(place), spell(place)) if part)
        line = f"{where}: {' '.join(message.split())}"
        if line not in self.problems:
            self.problems.append(line)

    def refuse(self) -> None:
        """Raises what is wrong so far, if anything, in the order of the lines."""
        if self.problems:
            raise ScenarioError("\n".join(sorted(self.problems, key=_natural)))


def _natural(line: str) -> tuple[int | str, ...]:
    """Sorts line 9 before line 10."""
    parts = re.split(r"([0-9]+)", line)  # text and digits in turn, so that like is compared with like
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


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
    draft = _parse(_read(path), str(path))
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
            _explain(draft, detail)
        draft.refuse()
        raise  # not reached: each detail is a problem
    _check_load(draft, scenario)
    return Loaded(scenario, {spell(place): origin for place, origin in draft.origins.items() if place})


def dump_scenario(scenario: Scenario) -> str:
    """A scenario as YAML, defaults included; `load` reads an equal scenario back."""
    return yaml.dump(
        scenario.to_data(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def spell(place: Place) -> str:
    """A place as errors name it: `load.rate.stages[0].target`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


# ---- YAML → plain data ----


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise ScenarioError(f"{path}: there is no such file{_neighbour(path)}") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > SIZE_LIMIT:
        raise ScenarioError(f"{path}: is larger than 1 MiB; a scenario is a page of YAML, is this the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def _neighbour(path: Path) -> str:
    try:
        guess = nearest(path.name, [entry.name for entry in path.parent.glob("*.yaml")])
    except OSError:
        guess = None
    return f"; did you mean {path.with_name(guess)}?" if guess else ""


class _Refusal(Exception):  # noqa: N818  it never leaves this module
    """YAML that a scenario must not use."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Composer(yaml.SafeLoader):
    """Composes nodes, and refuses on the way what a plain document has no need of."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401  as the base has it
        event: Any = self.peek_event()  # type: ignore[no-untyped-call] # the stubs leave it untyped
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refusal(
                line, f"anchors and aliases (&{event.anchor}, *{event.anchor}) are not allowed; write it out"
            )
        if getattr(event, "tag", None):
            raise _Refusal(line, f"tags ({event.tag}) are not allowed; write the plain value")
        if self.depth >= DEEPEST:
            # A bound on the recursion below, in our code and in PyYAML's.
            raise _Refusal(line, f"is nested more than {DEEPEST} levels deep; no scenario needs that")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    """The document's root node; None: it is empty.

    Raises:
        _Refusal: not YAML, or YAML that a scenario must not use.
    """
    try:
        composer = _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Refusal(line, f"the character #x{ord(text[error.position]):04x} is not allowed in YAML") from None
    try:
        return composer.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces" if "'\\t'" in problem else ""
        hint = "; put text with brackets in quotes" if problem.endswith("but got '['") else hint
        raise _Refusal(mark.line + 1 if mark else 1, f"is not valid YAML: {problem}{hint}") from None
    except (ValueError, OverflowError) as error:  # an escape such as \UFFFFFFFF
        raise _Refusal(composer.get_mark().line + 1, f"is not valid YAML: {error}") from None
    finally:
        composer.dispose()


def _parse(text: str, file: str) -> _Draft:
    try:
        root = _compose(text)
    except _Refusal as refusal:
        raise ScenarioError(f"{file}:{refusal.line}: {' '.join(str(refusal).split())}") from None
    if root is None:
        raise ScenarioError(f"{file}:1: is empty; a scenario has at least a name and a load")
    draft = _Draft(origins={(): f"{file}:1"})
    data = _plain(root, (), draft, file)
    if not isinstance(data, dict):
        raise ScenarioError(f"{file}:1: is {quoted(data)}, not a scenario; write name: …, load: … and so on")
    draft.refuse()
    draft.data = data
    return draft


def _plain(node: yaml.Node, place: Place, draft: _Draft, file: str) -> Any:  # noqa: ANN401  any YAML value
    """A node's value, with the origin of each part noted in the draft."""
    if isinstance(node, yaml.SequenceNode):
        values = []
        for index, item in enumerate(node.value):
            draft.origins[*place, index] = f"{file}:{item.start_mark.line + 1}"
            values.append(_plain(item, (*place, index), draft, file))
        return values
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, draft, file)
    text = cast("str", node.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        draft.complain(place, "half a surrogate pair is no character; write the character itself", _at(node, file))
    return text if getattr(node, "style", None) else resolve(text)


def _mapping(node: yaml.MappingNode, place: Place, draft: _Draft, file: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            draft.complain(place, "a key is one word, not a list or a mapping", _at(key_node, file))
            continue
        key = key_node.value
        line = key_node.start_mark.line + 1
        if key in mapping:
            draft.complain(
                (*place, key), f"this key is there already, in line {lines[key]}; keep one", _at(key_node, file)
            )
            continue
        lines[key] = line
        draft.origins[*place, key] = f"{file}:{line}"
        mapping[key] = _plain(value_node, (*place, key), draft, file)
    return mapping


def _at(node: yaml.Node, file: str) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def resolve(text: str) -> Any:  # noqa: ANN401  any YAML scalar
    """The value of a plain (unquoted) scalar."""
    for pattern, convert in _CORE_SCALARS:
        if pattern.fullmatch(text):
            return convert(text)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes what `load` reads back unchanged: PyYAML would leave `1e3` and `0o7` unquoted, as YAML 1.1 does."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the base class's signature
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Quoted where it would be read as something else than text, or where a reader would fold an unusual line break.
    plain = isinstance(resolve(text), str) and all(c.isprintable() or c == "\n" for c in text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _write_text)


# ---- overrides ----


def _override(draft: _Draft, keys: tuple[str, ...], written: str, origin: str) -> None:
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
    scratch = _Draft()
    try:
        node = _compose(written)
    except _Refusal as refusal:
        raise ScenarioError(f"{origin}: {' '.join(str(refusal).split())}") from None
    value = _plain(node, (), scratch, origin) if node is not None else None
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


def _leave_other_form(draft: _Draft, container: dict[str, Any], place: Place, word: str) -> None:
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


def _forget(draft: _Draft, place: Place) -> None:
    """Drops the origins of everything below a place."""
    for known in [known for known in draft.origins if len(known) > len(place) and known[: len(place)] == place]:
        del draft.origins[known]


# ---- pydantic's errors → one line each ----


def _explain(draft: _Draft, detail: ErrorDetails) -> None:
    place, model = _locate(detail["loc"], draft.data)
    context = detail.get("ctx", {})
    if "problems" in context:
        for below, message in context["problems"]:
            draft.complain((*place, *below), message)
        return
    if detail["type"] == "too_short" and len(detail["input"]) >= context["min_length"]:
        return  # pydantic counts only the items that are right; the wrong ones have their own lines
    draft.complain(place, _message(detail, place, model))


def _locate(location: tuple[str | int, ...], data: object) -> tuple[Place, type[BaseModel]]:
    """A location as pydantic gives it, without the tags of union members, and the model that encloses it."""
    place: list[str | int] = []
    models: list[type[BaseModel]] = [Scenario]
    for index, part in enumerate(location):
        present = isinstance(data, dict) and part in data
        if part in TAGS and not present:
            models += [MODELS[str(part)]] if part in MODELS else []
            continue
        place.append(part)
        following = models[-1].model_fields.get(str(part))
        if following is not None and index < len(location) - 1:
            models += list(_models_in(following.annotation))[:1]
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
    return tuple(place), models[-1]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _message(detail: ErrorDetails, place: Place, model: type[BaseModel]) -> str:  # noqa: C901, PLR0911, PLR0912  a table
    """What is wrong and what would be right, for each of pydantic's error types that a scenario can run into."""
    shown = quoted(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "rate_form":
            return detail["msg"]
        case "missing":
            asked = model.model_fields.get(str(place[-1]))
            return f"is missing; {asked.description if asked else 'write it'}"
        case "extra_forbidden":
            return f"there is no such key; {known_words(str(place[-1]), _keys(model))}"
        case "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            guess = nearest(detail["input"], words) if isinstance(detail["input"], str) else None
            return f"{shown} is not one of {', '.join(words)}" + (f"; did you mean {guess}?" if guess else "")
        case "greater_than_equal":
            return f"{shown} is too little; the least is {context['ge']}"
        case "greater_than":
            return f"{shown} is too little; write more than {context['gt']}"
        case "less_than_equal":
            return f"{shown} is too much; the most is {context['le']}"
        case "less_than":
            return f"{shown} is too much; write less than {context['lt']}"
        case "int_type" | "int_from_float" | "int_parsing" | "int_parsing_size":
            return f"{shown} is not a whole number; write for example 1000"
        case "float_type" | "finite_number":
            return f"{shown} is not a number; write for example 1.5"
        case "string_type":
            hint = f'; put it in quotes: "{detail["input"]}"' if isinstance(detail["input"], int | float) else ""
            return f"{shown} is not text{hint}"
        case "string_too_short":
            return "is empty; write some text"
        case "string_too_long":
            return f"is too long; at most {context['max_length']} characters"
        case "string_pattern_mismatch":
            return f"{shown} is not of the form {context['pattern']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{shown} is not a mapping; write {_keys_of(place, model)}"
        case "tuple_type":
            return f"{shown} is not a list; write for example [a, b]"
        case "too_short":
            return f"has {context['actual_length']} items; it takes at least {context['min_length']}"
        case "too_long":
            return f"has too many items; it takes at most {context['max_length']}"
        case _:
            return f"{shown}: {detail['msg']}"


def _keys(model: type[BaseModel]) -> list[str]:
    """A part's keys as a scenario writes them: `for`, which no field of Python's can be called."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _keys_of(place: Place, model: type[BaseModel]) -> str:
    inner: type[BaseModel] | None = None
    if place and isinstance(place[-1], int):
        inner = model  # an item of a list: the list's models are the item's
    elif place:
        field_info = model.model_fields.get(str(place[-1]))
        inner = next(_models_in(field_info.annotation), None) if field_info is not None else None
    if inner is None:
        return "keys below it"
    return f"keys below it: {', '.join(_keys(inner))}" if inner.model_fields else "{}"


# ---- what only the rate itself can tell ----


def _check_load(draft: _Draft, scenario: Scenario) -> None:
    """Refuses a trace that cannot be replayed, and a curve that sends nothing or too much."""
    rate = scenario.load.rate
    if isinstance(rate, TraceRate):
        _check_trace(draft, scenario, rate)
    elif isinstance(rate, CurveRate):
        _check_curve(draft, scenario)
    draft.refuse()


def _check_trace(draft: _Draft, scenario: Scenario, rate: TraceRate) -> None:
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


def _check_curve(draft: _Draft, scenario: Scenario) -> None:
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
