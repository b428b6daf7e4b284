"""What a run shows itself on while it lasts: a terminal's screen, a log's lines, or nothing.

No view starts a thread: the process that shows it forks the platform's workers, and a forked lock is a lock for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from simulator.report.live_text import line_text, live_text
from simulator.report.screen import Screen, redrawable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from simulator.report.snapshot import Snapshot

SECONDS_BETWEEN_LINES = 5.0  # of real time, where there is no terminal: a log is read, not watched


class View(Protocol):
    """What a run shows itself on: entered once, updated as often as wanted, left at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, snapshot: Snapshot) -> None:
        """Show `snapshot`."""

    def abandon(self) -> None:
        """Leave the terminal as it was: the process ends at once, in the middle of whatever it does."""


class QuietView:
    """Shows nothing; the seam's no-op."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def abandon(self) -> None:
        """There is nothing to leave."""


class LineView(QuietView):
    """Where there is no terminal: one line every five seconds, and one when the phase changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._due_s = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Print a line, if one is due."""
        real_s = snapshot.elapsed_s if snapshot.pace is None else snapshot.pace.real_s
        if snapshot.phase == self._phase and real_s < self._due_s:
            return
        self._phase = snapshot.phase
        self._due_s = real_s + SECONDS_BETWEEN_LINES
        # A log's line is one line however long, and a name in it is text, not markup.
        self._console.print(line_text(snapshot), soft_wrap=True, markup=False, highlight=False)


class LiveView:
    """A terminal: its other screen, drawn again at each update in the size that it then has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._screen = Screen(console)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    def update(self, snapshot: Snapshot) -> None:
        """Draw again."""
        self._screen.show(live_text(snapshot, *self._console.size))

    def abandon(self) -> None:
        """Leave the screen at once."""
        self._screen.abandon()


def open_view(console: Console, quiet: bool) -> View:  # noqa: FBT001  a command-line flag, passed on as it is
    """Pick the view that suits `console`: nothing if `quiet`, lines if it is no terminal or cannot show blocks."""
    if quiet:
        return QuietView()
    return LiveView(console) if redrawable(console) else LineView(console)
