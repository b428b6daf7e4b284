"""A page without scripts: tables and charts drawn as SVG, in the style of a run's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from simulator.report.page import asset, environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.report.blocks import Table


@dataclass(frozen=True)
class Drawing:
    """A chart with its heading and the line that says how to read it."""

    title: str
    reading: str
    drawing: Markup


@dataclass(frozen=True)
class Part:
    """A section; `key` is a word that no other section of the page has."""

    key: str
    heading: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Drawing] = ()


def page(*, kind: str, heading: str, word: str, cause: str, tone: str, parts: Sequence[Part]) -> str:
    """The page as HTML; `tone` is pass, fail or empty. Everything but the drawings is escaped."""
    made = environment().get_template("drawn.html.jinja")
    text: str = made.render(
        title=f"{word}: {heading}",
        kind=kind,
        heading=heading,
        word=word,
        cause=cause,
        tone=tone,
        parts=parts,
        css=Markup(asset("page.css")),  # noqa: S704  ours
    )
    return text
