"""`--live`: the page's process beside a run. It is started before any other, told what happens, and waited for at the end."""

from __future__ import annotations

import errno
import os
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from simulator import process
from simulator.errors import BackendError, UsageError
from simulator.live.channel import EVENTS_MAX, READY, Channel, await_message, send
from simulator.live.server import LINGER_S, serve_page
from simulator.live.token import new_token
from simulator.report import wording
from simulator.run.folder import whoever_listens

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkProcess
    from types import TracebackType

    from simulator.live.watched import Watched
    from simulator.report.snapshot import Phase, Snapshot
    from simulator.report.view import View
    from simulator.run.interrupts import Asked

HOST = "127.0.0.1"
_READY_S = 30.0  # on a busy machine; a second on a quiet one
_TELL_S = 1.0  # how long the end may wait for room
_GONE_S = 3.0  # beyond LINGER_S, for the way down


class LivePage:
    """The page of one run: a port from the beginning on, a process from `start` to `end`. Leaving the block ends both."""

    def __init__(self, port: int) -> None:
        """Takes the port, 0: any that is free. Raises UsageError if it cannot be had."""
        self._listener = _listening(port)
        self._channel = Channel()
        self._token = new_token()
        self._process: ForkProcess | None = None
        self._watched: Watched | None = None
        self._url = ""
        self._phase: Phase | None = None
        self._told = 0  # events

    @property
    def url(self) -> str:
        """The page's address, token and all: whoever has it may watch, and stop the run."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}/?token={self._token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._process is not None:
            self.end(f"FAIL: {' '.join(str(error).split()) or type(error).__name__}", "fail", report=False)
        self.kill()
        self._listener.close()
        self._channel.close()

    def start(self, watched: Watched) -> None:
        """Starts its process and says where the page is. Raises BackendError if it does not come up."""
        self._watched = watched
        url = self._url = self.url  # the listener is the page's from here on
        self._process = process.start("live page", serve_page, watched, self._channel, self._listener, self._token)
        self._channel.page.close()
        self._listener.close()
        ready = await_message(self._channel.run, _READY_S)
        if ready is None or READY not in ready:
            self.kill()
            raise BackendError("the live page did not come up; run without --live")
        with whoever_listens():
            sys.stdout.write(f"live: {url}\n")

    def beside(self, view: View) -> View:
        """A view that shows what another shows, and tells the page of it."""
        return _Beside(view, self._tell, self._url)

    def or_stop(self, interrupts: Asked) -> Asked:
        """As `interrupts`, and once more when a viewer asked the run to stop."""
        return _OrStop(interrupts, self._channel)

    def end(self, sentence: str, verdict: str, *, report: bool) -> None:
        """Tells the page how the run ended and waits until it has told its viewers: not at all if there are none.

        At most LINGER_S, while they load the report; Ctrl-C ends the waiting.
        """
        if self._process is None:
            return
        try:
            if send(self._channel.run, {"sentence": sentence, "verdict": verdict, "report": report}, _TELL_S):
                self._process.join(LINGER_S + _GONE_S)
        except KeyboardInterrupt:
            pass
        finally:
            self.kill()

    def end_of(self, summary: dict[str, Any], *, report: bool) -> None:
        """As `end`, of a run that has a summary."""
        self.end(wording.sentence(summary), str(summary["verdict"]), report=report)

    def kill(self) -> None:
        """Ends its process at once."""
        if self._process is not None:
            process.kill(self._process)
            self._process = None

    def _tell(self, phase: Phase) -> None:
        if phase != self._phase and send(self._channel.run, {"phase": phase}):
            self._phase = phase
        events = self._watched.events if self._watched is not None else []
        while self._told < min(len(events), EVENTS_MAX) and send(self._channel.run, {"event": events[self._told]}):
            self._told += 1


class _Beside:
    def __init__(self, view: View, tell: Callable[[Phase], None], url: str) -> None:
        self._view = view
        self._tell = tell
        self._url = url

    def __enter__(self) -> Self:
        self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.__exit__(kind, error, trace)

    def update(self, snapshot: Snapshot) -> None:
        self._tell(snapshot.phase)
        self._view.update(replace(snapshot, page=self._url))

    def abandon(self) -> None:
        self._view.abandon()


class _OrStop:
    def __init__(self, interrupts: Asked, channel: Channel) -> None:
        self._interrupts = interrupts
        self._stop = channel.stop

    @property
    def at_once(self) -> Callable[[], None]:
        return self._interrupts.at_once

    @at_once.setter
    def at_once(self, ends: Callable[[], None]) -> None:
        self._interrupts.at_once = ends

    @property
    def count(self) -> int:
        return self._interrupts.count + int(self._stop[0])


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # A port whose last page was closed a moment ago is free; one on which somebody listens is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        why = "is in use" if taken else f"cannot be had: {os.strerror(error.errno or 0)}"
        raise UsageError(
            f"--port {port} {why} on {HOST}; name another one, or leave --port out for any that is free"
        ) from None
    listener.setblocking(False)  # noqa: FBT003  its only argument
    return listener
