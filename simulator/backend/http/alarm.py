"""An alarm for the event loop that is as exact as the kernel: libuv counts its timers in whole milliseconds.

uvloop rounds half a millisecond to none, so a loop that waits by `call_later` spins where it should sleep, or sleeps twice as
long as it should. A timerfd is a file descriptor that becomes readable at its time (timerfd_create(2)), to the resolution of the
kernel's high-resolution timers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NS_PER_S = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("every", _Timespec), ("after", _Timespec))


class Alarm:
    """Calls `ring` on a loop at a time, once for each time it is set."""

    def __init__(self, loop: Any, ring: Callable[[], None]) -> None:  # noqa: ANN401  any asyncio loop
        """Raises OSError where the process may open no more files."""
        self._libc = ctypes.CDLL(None, use_errno=True)  # `os` has timerfd from Python 3.13 on
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._setting = _Setting()
        self._reference = ctypes.byref(self._setting)
        self._loop = loop
        self._ring = ring
        loop.add_reader(self._fd, self._rang)

    def set(self, after_ns: int) -> None:
        """Rings this long from now, at once for 0 and less; an earlier setting is forgotten."""
        self._setting.after.s, self._setting.after.ns = divmod(max(after_ns, 1), _NS_PER_S)  # 0 would disarm it
        self._libc.timerfd_settime(self._fd, 0, self._reference, None)

    def close(self) -> None:
        """Rings no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was set anew between the poll and here
            os.read(self._fd, 8)
            self._ring()
