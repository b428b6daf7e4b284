"""The few calls of the system that are made from kernels, so that a request passes no Python on its way out or in.

Numba resolves an external function by its name when it links, so kernels that call these can be cached. Addresses are passed as
integers: whoever calls keeps the array. `Readiness` is epoll with notes of our own: `select.epoll` knows file descriptors only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

_WORD, _NUMBER = types.int64, types.int32

# (fd, address, bytes, flags) → bytes moved, or -1. See send(2), recv(2).
send: Any = types.ExternalFunction("send", _WORD(_NUMBER, _WORD, _WORD, _NUMBER))
receive: Any = types.ExternalFunction("recv", _WORD(_NUMBER, _WORD, _WORD, _NUMBER))
# (epoll's fd, address of EVENTs, how many there is room for, ms) → how many there are, or -1. See epoll_wait(2).
epoll_wait: Any = types.ExternalFunction("epoll_wait", _NUMBER(_NUMBER, _WORD, _NUMBER, _NUMBER))
# (clock, address of two int64: seconds, nanoseconds) → 0. See clock_gettime(2).
clock_gettime: Any = types.ExternalFunction("clock_gettime", _NUMBER(_NUMBER, _WORD))

CLOCK_MONOTONIC = 1
TRY_AGAIN = errno.EAGAIN
DO_NOT_WAIT = 0x40  # MSG_DONTWAIT
NO_SIGNAL = 0x4000  # MSG_NOSIGNAL


@intrinsic
def _last_error(typing: Any) -> Any:  # noqa: ANN401, ARG001  numba's intrinsic signature
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        number = ir.IntType(32)
        name = "__errno_location"  # of this thread's; see errno(3)
        declared = ir.FunctionType(number.as_pointer(), [])
        function = builder.module.globals.get(name) or ir.Function(builder.module, declared, name)
        return builder.load(builder.call(function, []))

    return _NUMBER(), codegen


# last_error(): the number of the error of the call before, which must have returned -1.
last_error: Callable[[], int] = cast("Any", _last_error)

_READABLE, _ADD, _DELETE = 1, 1, 2  # EPOLLIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL

# A struct epoll_event, whose note is a row of ours. It is packed on x86-64, as it was on i386, and nowhere else.
_PACKED = platform.machine() in ("x86_64", "AMD64")
EVENT = np.dtype([("events", "<u4"), ("row", "<i8")], align=not _PACKED)


class Readiness:
    """Tells which of many sockets can be read, by the row that each was added with."""

    def __init__(self) -> None:
        """Raises OSError where the process may open no more files."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.epoll_create1(os.O_CLOEXEC))
        self._event = np.zeros(1, EVENT)
        self._reference = ctypes.c_void_p(self._event.ctypes.data)

    def add(self, fd: int, row: int) -> None:
        """Level-triggered: what was not read is told again."""
        self._event[0] = (_READABLE, row)
        self._checked(self._libc.epoll_ctl(self.fd, _ADD, fd, self._reference))

    def remove(self, fd: int) -> None:
        """A socket that is closed needs none of this."""
        self._checked(self._libc.epoll_ctl(self.fd, _DELETE, fd, self._reference))

    def close(self) -> None:
        """Tells nothing more."""
        os.close(self.fd)

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
