"""One plain YAML document → plain data with the line of each part, and back. Strict, with errors that name file and line.

No duplicate keys, no anchors, aliases or tags. Plain scalars are read as YAML 1.2's core schema reads them (`on`, `10:30` and
`2019-11-11` are text), except that integers may have underscores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import yaml

from simulator.errors import ScenarioError
from simulator.scenario.spelling import nearest
from simulator.scenario.units import quoted

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.scenario.base import Place

SIZE_LIMIT = 1024 * 1024
DEEPEST = 32

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
class Draft:
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


def spell(place: Place) -> str:
    """A place as errors name it: `load.rate.stages[0].target`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def read(path: Path) -> str:
    """A file's text. Raises ScenarioError: it is not there, too large, or no text."""
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


class Refusal(Exception):  # noqa: N818  what it is, not that it is wrong; who catches it names the file
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
            raise Refusal(line, f"anchors and aliases (&{event.anchor}, *{event.anchor}) are not allowed; write it out")
        if getattr(event, "tag", None):
            raise Refusal(line, f"tags ({event.tag}) are not allowed; write the plain value")
        if self.depth >= DEEPEST:
            # A bound on the recursion below, in our code and in PyYAML's.
            raise Refusal(line, f"is nested more than {DEEPEST} levels deep; no scenario needs that")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str) -> yaml.Node | None:
    """The document's root node; None: it is empty.

    Raises:
        Refusal: not YAML, or YAML that a scenario must not use.
    """
    try:
        composer = _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Refusal(line, f"the character #x{ord(text[error.position]):04x} is not allowed in YAML") from None
    try:
        return composer.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces" if "'\\t'" in problem else ""
        hint = "; put text with brackets in quotes" if problem.endswith("but got '['") else hint
        raise Refusal(mark.line + 1 if mark else 1, f"is not valid YAML: {problem}{hint}") from None
    except (ValueError, OverflowError) as error:  # an escape such as \UFFFFFFFF
        raise Refusal(composer.get_mark().line + 1, f"is not valid YAML: {error}") from None
    finally:
        composer.dispose()


def parse(text: str, file: str) -> Draft:
    """A document's data, a mapping. Raises ScenarioError, a line for each problem."""
    try:
        root = compose(text)
    except Refusal as refusal:
        raise ScenarioError(f"{file}:{refusal.line}: {' '.join(str(refusal).split())}") from None
    if root is None:
        raise ScenarioError(f"{file}:1: is empty; a scenario has at least a name and a load")
    draft = Draft(origins={(): f"{file}:1"})
    data = plain(root, (), draft, file)
    if not isinstance(data, dict):
        raise ScenarioError(f"{file}:1: is {quoted(data)}, not a scenario; write name: …, load: … and so on")
    draft.refuse()
    draft.data = data
    return draft


def plain(node: yaml.Node, place: Place, draft: Draft, file: str) -> Any:  # noqa: ANN401  any YAML value
    """A node's value, with the origin of each part noted in the draft."""
    if isinstance(node, yaml.SequenceNode):
        values = []
        for index, item in enumerate(node.value):
            draft.origins[*place, index] = f"{file}:{item.start_mark.line + 1}"
            values.append(plain(item, (*place, index), draft, file))
        return values
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, draft, file)
    text = cast("str", node.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        draft.complain(place, "half a surrogate pair is no character; write the character itself", _at(node, file))
    return text if getattr(node, "style", None) else resolve(text)


def _mapping(node: yaml.MappingNode, place: Place, draft: Draft, file: str) -> dict[str, Any]:
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
        mapping[key] = plain(value_node, (*place, key), draft, file)
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


def dump(data: dict[str, Any]) -> str:
    """Plain data as YAML that `parse` reads back unchanged."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
