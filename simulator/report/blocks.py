"""What a page is made of besides charts: tiles with headline figures, and tables of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Tile:
    """One headline figure; `tone` is good, bad, warn or empty."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; the columns in `words` read left, the others are figures and align right."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[int] = frozenset({0})
    note: str = ""


def cut(items: Sequence[object], noun: str, most: int) -> str:
    """The note below a table that shows only the first `most` items; empty if it shows all."""
    return f"The first {most} of {len(items):,} {noun}; summary.json has all." if len(items) > most else ""
