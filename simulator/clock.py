"""The wall clock of a run: nanoseconds since its start, the same number in every process of the machine."""

from __future__ import annotations

import time
from typing import Any, Protocol


class Clock(Protocol):
    """What tells the time of a run."""

    def now_ns(self) -> int:
        """Nanoseconds since the start of the run; negative before it."""
        ...


class WallClock:
    """CLOCK_MONOTONIC less the start of the run, which stands in a shared word and so is one for all processes."""

    def __init__(self, epoch_ns: Any) -> None:  # noqa: ANN401  an int64 array of one shared word
        self._epoch_ns = epoch_ns

    def start(self, after_ns: int) -> None:
        """Sets the start of the run, this long from now."""
        self._epoch_ns[0] = time.monotonic_ns() + after_ns

    def now_ns(self) -> int:
        """Nanoseconds since the start; negative before it."""
        return time.monotonic_ns() - int(self._epoch_ns[0])
