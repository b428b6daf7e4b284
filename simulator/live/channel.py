"""Between a run and its live page: whole messages that never make the run wait, and one word that asks it to stop.

Messages go over a pair of sockets that keep their boundaries. What finds no room is sent at a later look: the page may be a
moment behind, and the run never stands still for it.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.shard.layout import shared_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVENTS_MAX = 1_000  # told to the page; the report has all
_MESSAGE_BYTES = 65_536
READY = "ready"


class Channel:
    """Both ends; made before the fork, and each side then closes the other's."""

    def __init__(self) -> None:
        self.run, self.page = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.run.setblocking(False)  # noqa: FBT003  its only argument
        self.page.setblocking(False)  # noqa: FBT003  as above
        self.stop: NDArray[np.int64] = shared_array(
            1, np.int64
        )  # 1: a viewer asked the run to end; written by the page

    def close(self) -> None:
        """Closes what is open of it."""
        self.run.close()
        self.page.close()


def send(end: socket.socket, message: dict[str, Any], wait_s: float = 0.0) -> bool:
    """Sends a message, or says False: there is no room now, or nobody any more. `wait_s`: how long room may be waited for."""
    data = json.dumps(message, separators=(",", ":"), default=str).encode()
    if len(data) > _MESSAGE_BYTES:
        return True  # no event of ours is so long; one that is is not worth a page
    with contextlib.suppress(OSError):
        if wait_s:
            _wait(end, select.POLLOUT, wait_s)
        end.send(data)
        return True
    return False


def receive(end: socket.socket) -> dict[str, Any] | None:
    """The next message; None if there is none now. Raises EOFError when the other side is closed."""
    try:
        data = end.recv(_MESSAGE_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        raise EOFError from None
    if not data:
        raise EOFError
    message: dict[str, Any] = json.loads(data)
    return message


def await_message(end: socket.socket, wait_s: float) -> dict[str, Any] | None:
    """The next message, waited for at most so long; None if there is none, or the other side is closed."""
    with contextlib.suppress(EOFError):
        return receive(end) if _wait(end, select.POLLIN, wait_s) else None
    return None


def _wait(end: socket.socket, what: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(end, what)
    return bool(poll.poll(1_000 * wait_s))
