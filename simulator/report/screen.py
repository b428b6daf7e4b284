"""The terminal's other screen, for as long as something is drawn again and again; then the terminal is as it was.

What is drawn in place among other lines cannot survive a resize: most terminals break the lines anew, and what was drawn
before is then somewhere else. The other screen has no lines to break and none that scroll away, and what stood in the
terminal comes back when it is left.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from rich.live import Live

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from rich.console import Console, RenderableType

_ENTER = b"\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
_LEAVE = b"\x1b[?25h\x1b[?1049l"
_HELD_MOST = 65_536  # bytes of what is said meanwhile; when there is more, only what comes later is kept


def redrawable(console: Console) -> bool:
    """Whether `console` is a screen that can be drawn over, and has the characters for it.

    FORCE_COLOR makes rich take any file for a terminal. A log in colour is still a log.
    """
    if not console.is_terminal or console.is_dumb_terminal or console.options.ascii_only:
        return False
    try:
        return console.file.isatty()
    except ValueError:  # closed
        return False


class Screen:
    """The other screen of a terminal, from entering this block to leaving it.

    What processes of this terminal write to standard error meanwhile would be drawn over. It is kept, at most 64 KiB of it,
    and written when the screen is left. Ctrl-Z leaves the screen for as long as the process is stopped.
    """

    def __init__(self, console: Console) -> None:
        # No thread, see `view`; and rich does not replace the streams: forked processes would inherit what draws.
        self._live = Live(
            console=console, auto_refresh=False, screen=True, redirect_stdout=False, redirect_stderr=False
        )
        self._console = console
        self._owner = os.getpid()
        self._entered = False
        self._own = -1  # standard error as it was
        self._held = -1  # a file in memory that stands for it
        self._before: Any = None  # what Ctrl-Z did

    def __enter__(self) -> Self:
        if os.isatty(2):
            self._own, self._held = os.dup(2), os.memfd_create("stderr")
            os.dup2(self._held, 2)
        with suppress(ValueError):  # not the main thread: nobody can be told of a signal here
            self._before = signal.signal(signal.SIGTSTP, self._suspend)
        self._live.start()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._live.stop()
        if self._before is not None:
            signal.signal(signal.SIGTSTP, self._before)
        self._give_back()

    def show(self, content: RenderableType) -> None:
        """Draw `content` over everything."""
        if self._held >= 0 and os.fstat(self._held).st_size > _HELD_MOST:
            os.ftruncate(self._held, 0)
            os.lseek(self._held, 0, os.SEEK_SET)
        self._live.update(content, refresh=True)

    def abandon(self) -> None:
        """Leave the screen at once, from a signal's handler: nothing is drawn after this."""
        if self._entered:
            self._entered = False
            self._write(_LEAVE)
            self._give_back()

    def _give_back(self) -> None:
        if self._held < 0:
            return
        os.dup2(self._own, 2)
        said = os.pread(self._held, _HELD_MOST, max(os.fstat(self._held).st_size - _HELD_MOST, 0))
        os.close(self._held)
        os.close(self._own)
        self._held = self._own = -1
        with suppress(OSError):  # nobody is there to read it
            os.write(2, said)

    def _suspend(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature of a handler
        ours = os.getpid() == self._owner  # forked processes have this handler too, and no screen
        if ours:
            self._write(_LEAVE)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # the process stands still here, until it is continued
        if ours:
            signal.signal(signal.SIGTSTP, self._suspend)
            self._write(_ENTER)

    def _write(self, code: bytes) -> None:
        """Past rich and its buffers: a handler may have interrupted them."""
        with suppress(OSError, ValueError):
            os.write(self._console.file.fileno(), code)
