"""Requests as templates over a transaction's fields: text and placeholders in order, for `render` to write.

Nothing a transaction carries can break out of a request: every field is a number, a word of ours, or the key made of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.backend.http.render import Field, Op, Piece, program_of, requests_of
from simulator.scenario.http import FIELDS, PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from simulator.transaction import Kind

# The fields that are numbers as they stand.
_NUMBERS = {
    "id": Op.ID,
    "payer": Op.PAYER,
    "payee": Op.PAYEE,
    "related": Op.RELATED,
    "amount_minor": Op.AMOUNT_MINOR,
    "intended_ns": Op.INTENDED_NS,
}


@dataclass(frozen=True)
class Terms:
    """What is the same for every transaction of a run."""

    prefix: str  # of idempotency keys, so that two runs against one gateway do not collide
    currency: str
    decimals: int  # of the currency


@dataclass(frozen=True)
class Template:
    """The requests of one kind of transaction."""

    kind: Kind
    head: Sequence[Piece]  # ends in the blank line, and tells the body's length where there is one
    body: Sequence[Piece] | None

    def render(self, batch: NDArray[Any]) -> list[bytes]:
        """The request of each transaction (TRANSACTION rows), as it is written."""
        return requests_of(program_of({self.kind: (self.head, self.body)}), self.kind, batch)


def compile_template(
    kind: Kind,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: object,
    terms: Terms,
    host: str,
) -> Template:
    """Compiles the request of one kind.

    Args:
        kind: of the transactions; `{kind}` is its name in lower case.
        method: such as POST.
        path: with placeholders.
        headers: name → value with placeholders; Host, Content-Length and Connection are ours.
        body: a JSON value whose texts may have placeholders; a text that is one numeric placeholder and nothing else becomes a
            number. None: no body.
        terms: what is the same for all.
        host: of the target, as its Host header.

    Raises:
        ValueError: for a field that no transaction has, or a header that would be more than one line.
    """
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
    pieces: list[Piece] = []
    for line in lines:
        if any(ord(c) < ord(" ") or ord(c) == 127 for c in line):  # noqa: PLR2004  DEL
            raise ValueError(f"a control character in {line.split(':')[0]!r} would end it")  # from a secret, say
        pieces += [*_compile(line, kind, terms), b"\r\n"]
    if body is None:
        return Template(kind, joined([*pieces, b"\r\n"]), None)
    pieces += [b"Content-Length: ", Field(Op.LENGTH), b"\r\n\r\n"]
    return Template(kind, joined(pieces), joined(_compile_json(body, kind, terms)))


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same with neighbouring texts made one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            found[-1] = last + piece
        else:
            found.append(piece)
    return found


def _compile(text: str, kind: Kind, terms: Terms, escaped: Callable[[str], str] = str) -> list[Piece]:
    """The pieces of a text with placeholders; what stands between them is `escaped`."""
    pieces: list[Piece] = []
    at = 0
    for found in PLACEHOLDER.finditer(text):
        pieces += [escaped(text[at : found.start()]).encode(), *_field(found.group(1), kind, terms)]
        at = found.end()
    return [*pieces, escaped(text[at:]).encode()]


def _field(name: str, kind: Kind, terms: Terms) -> list[Piece]:
    """What a placeholder stands for."""
    words = {"kind": kind.name.lower(), "currency": terms.currency}
    keys = {"key": Op.ID, "related_key": Op.RELATED}
    if name in words:
        return [words[name].encode()]
    if name in keys:
        return [terms.prefix.encode(), Field(keys[name])]
    if name == "amount" and terms.decimals:
        unit = 10**terms.decimals
        return [Field(Op.UNITS, unit), b".", Field(Op.REST, unit, terms.decimals)]
    number = _NUMBERS.get("amount_minor" if name == "amount" else name)
    if number is None:
        raise ValueError(f"{{{name}}} is none of {', '.join(FIELDS)}")  # the scenario has told it already
    return [Field(number)]


def _compile_json(value: object, kind: Kind, terms: Terms) -> list[Piece]:
    """A JSON value whose texts may have placeholders."""
    if isinstance(value, dict):
        items = [[_json(str(key)).encode(), b":", *_compile_json(item, kind, terms)] for key, item in value.items()]
        return [b"{", *_separated(items), b"}"]
    if isinstance(value, list | tuple):
        return [b"[", *_separated([_compile_json(item, kind, terms) for item in value]), b"]"]
    if not isinstance(value, str):
        return [json.dumps(value).encode()]
    alone = PLACEHOLDER.fullmatch(value)
    if alone and alone.group(1) in _NUMBERS:
        return _field(alone.group(1), kind, terms)
    return [b'"', *_compile(value, kind, terms, lambda text: _json(text)[1:-1]), b'"']


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _separated(items: Sequence[Sequence[Piece]]) -> list[Piece]:
    return [piece for number, item in enumerate(items) for piece in ([b",", *item] if number else item)]
