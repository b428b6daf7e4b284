"""Which known word a mistyped one was meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word` (Ratcliff and Obershelp's measure, as in `difflib`); None: none is alike."""
    matches = difflib.get_close_matches(word, sorted(known), n=1)
    return matches[0] if matches else None


def known_words(word: str, known: Iterable[str]) -> str:
    """What to tell who wrote `word`: the nearest known word, or all of them where none is alike."""
    words = list(known)
    guess = nearest(word, words)
    if guess is not None:
        return f"did you mean {guess}?"
    return f"known: {', '.join(words)}" if words else "none is known here"
