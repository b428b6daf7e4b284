"""Requests as templates over a transaction's fields, compiled once, rendered a batch at a time.

A template is bytes with a placeholder for each field; a batch of transactions becomes one column a placeholder, and each request
two `%` operations: its body, then its head with the body's length. Nothing a transaction carries can break out of a
request: every field is a number, a word of ours, or the key made of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.scenario.http import FIELDS, PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from simulator.transaction import Kind

    Column = Callable[[NDArray[Any]], list[list[int]]]

# What a placeholder prints as, and the columns of a TRANSACTION batch that fill it.
_COLUMNS: dict[str, tuple[str, Column]] = {
    "id": ("%d", lambda batch: [batch["id"].tolist()]),
    "payer": ("%d", lambda batch: [batch["payer"].tolist()]),
    "payee": ("%d", lambda batch: [batch["payee"].tolist()]),
    "related": ("%d", lambda batch: [batch["related"].tolist()]),
    "amount_minor": ("%d", lambda batch: [batch["amount_minor"].tolist()]),
    "intended_ns": ("%d", lambda batch: [batch["intended_ns"].tolist()]),
}


@dataclass(frozen=True)
class Terms:
    """What is the same for every transaction of a run."""

    prefix: str  # of idempotency keys, so that two runs against one gateway do not collide
    currency: str
    decimals: int  # of the currency


@dataclass(frozen=True)
class _Part:
    """A piece of a request: bytes for `%`, and what fills them."""

    pattern: bytes
    columns: tuple[Column, ...]

    def fill(self, batch: NDArray[Any]) -> list[tuple[int, ...]]:
        """One tuple of values for each transaction."""
        values = [column for make in self.columns for column in make(batch)]
        return list(zip(*values, strict=True)) if values else [()] * len(batch)


@dataclass(frozen=True)
class Template:
    """The requests of one kind of transaction."""

    head: _Part  # ends in the blank line; its last value is the body's length where there is a body
    body: _Part | None

    def render(self, batch: NDArray[Any]) -> list[bytes]:
        """The request of each transaction (TRANSACTION rows), ready to be written."""
        heads = self.head.fill(batch)
        if self.body is None:
            return [self.head.pattern % values for values in heads]
        pattern, body = self.head.pattern, self.body.pattern
        bodies = [body % values for values in self.body.fill(batch)]
        return [pattern % (*values, len(text)) + text for values, text in zip(heads, bodies, strict=True)]


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
    patterns, columns = [], []
    for line in lines:
        if any(ord(c) < ord(" ") or ord(c) == 127 for c in line):  # noqa: PLR2004  DEL
            raise ValueError(f"a control character in {line.split(':')[0]!r} would end it")  # from a secret, say
        pattern, fills = _compile(line, kind, terms)
        patterns.append(pattern)
        columns += fills
    if body is None:
        return Template(_Part(b"\r\n".join(patterns) + b"\r\n\r\n", tuple(columns)), None)
    patterns.append(b"Content-Length: %d")
    text, fills = _compile_json(body, kind, terms)
    return Template(_Part(b"\r\n".join(patterns) + b"\r\n\r\n", tuple(columns)), _Part(text, tuple(fills)))


def _compile(text: str, kind: Kind, terms: Terms) -> tuple[bytes, list[Column]]:
    """A text with placeholders as bytes for `%`, and its columns."""
    pattern, columns, at = "", [], 0
    for found in PLACEHOLDER.finditer(text):
        pattern += text[at : found.start()].replace("%", "%%")
        prints, fills = _field(found.group(1), kind, terms)
        pattern += prints
        columns += fills
        at = found.end()
    pattern += text[at:].replace("%", "%%")
    return pattern.encode(), columns


def _field(name: str, kind: Kind, terms: Terms) -> tuple[str, list[Column]]:
    """What a placeholder prints as, and the columns that fill it."""
    words = {"kind": kind.name.lower(), "currency": terms.currency}
    keys = {"key": "id", "related_key": "related"}
    if name in words:
        return words[name], []
    if name in keys:
        return terms.prefix.replace("%", "%%") + "%d", [_COLUMNS[keys[name]][1]]
    if name == "amount" and terms.decimals:
        unit = 10**terms.decimals

        def split(batch: NDArray[Any]) -> list[list[int]]:
            return [(batch["amount_minor"] // unit).tolist(), (batch["amount_minor"] % unit).tolist()]

        return f"%d.%0{terms.decimals}d", [split]
    column = _COLUMNS.get("amount_minor" if name == "amount" else name)
    if column is None:
        raise ValueError(f"{{{name}}} is none of {', '.join(FIELDS)}")  # the scenario has told it already
    return column[0], [column[1]]


def _compile_json(
    value: object,
    kind: Kind,
    terms: Terms,
) -> tuple[bytes, list[Column]]:
    columns: list[Column] = []

    def write(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f"{escaped(str(key))}:{write(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ",".join(write(item) for item in value) + "]"
        if not isinstance(value, str):
            return json.dumps(value)
        alone = PLACEHOLDER.fullmatch(value)
        if alone and alone.group(1) in _COLUMNS:
            prints, fills = _field(alone.group(1), kind, terms)
            columns.extend(fills)
            return prints
        pieces, at = "", 0
        for found in PLACEHOLDER.finditer(value):
            pieces += escaped(value[at : found.start()])[1:-1]
            prints, fills = _field(found.group(1), kind, terms)
            columns.extend(fills)
            pieces += prints
            at = found.end()
        return f'"{pieces}{escaped(value[at:])[1:-1]}"'

    def escaped(text: str) -> str:
        return json.dumps(text, ensure_ascii=False).replace("%", "%%")

    return write(value).encode(), columns
