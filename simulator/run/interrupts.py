"""Ctrl-C and its kin: the first asks a run to end in order, the second ends everything at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Protocol, Self

from simulator.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Asked(Protocol):
    """Whether somebody asked the run to end."""

    at_once: Callable[[], None]  # what a second time ends first

    @property
    def count(self) -> int:
        """How often."""
        ...


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first asks the run to drain, the second ends everything at once."""

    def __init__(self) -> None:
        self.count = 0
        self.at_once: Callable[[], None] = lambda: None  # what a second one ends first
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature of a handler
        self.count += 1
        if self.count > 1:
            self.at_once()
            os.write(2, b"sim: stopped at once; the run's folder is incomplete\n")
            os._exit(Exit.INTERRUPTED)
