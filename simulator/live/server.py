"""The body of the live page's process: looks, publishes, serves, and goes when the run has ended or died.

It costs the run nothing that could be measured: it only reads memory that is shared anyway, has the lowest priority, makes
figures only while somebody watches, and charts for no more than a fifth of the time. On a machine without a core to spare it is
the page that falls behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from simulator.live import metrics, picture
from simulator.live.app import LiveApp
from simulator.live.channel import EVENTS_MAX, READY, Channel, receive, send
from simulator.live.history import History
from simulator.live.page import page_files
from simulator.live.viewers import LAST, VIEWERS_MAX, Viewers

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from simulator.live.watched import Watched
    from simulator.report.snapshot import Phase, Snapshot

LINGER_S = 10.0  # after the end at most: until each who watched has the report
WITHOUT_REPORT_S = 2.0  # the same where there is no report to wait for
_LOOK_S = 0.25
_NOW_S = 0.5
_CHARTS_S = 1.0  # between two sets of charts at least …
_REST = 4.0  # … and so many times what the last one took
_COUNTED = ("running", "draining")  # phases that have rows
_NICEST = 19
_KEEP_ALIVE_S = 15.0
_BACKLOG = 4 * VIEWERS_MAX


class Page:
    """What is shown of one run, and when."""

    def __init__(self, watched: Watched, channel: Channel) -> None:
        self.viewers = Viewers()
        self.over = False
        self._watched = watched
        self._channel = channel
        self._history = History(watched.tallies, watched.target, watched.duration_s, watched.platform)
        self._events: list[dict[str, Any]] = []
        self._phase: Phase = "starting"
        self._fresh = False  # rows have come since the last charts
        self._now_due = self._charts_due = self._deadline = 0.0
        self._report: Path | None = None
        self._wanted = 0  # copies of the report

    # ---- what the routes ask ----

    def metrics(self) -> str:
        """The run so far in Prometheus' text format."""
        return metrics.text(self._watched, self._snapshot())

    def stop(self) -> None:
        """Asks the run to end; it looks at this word a few times a second."""
        self._channel.stop[0] = 1
        self._publish_now()

    def refresh(self) -> None:
        """A newcomer sees the moment that it came in."""
        self._publish_now()
        self._publish_charts()

    def report(self) -> Path | None:
        """Where the report is, once there is one."""
        return self._report

    def report_taken(self) -> None:
        """One of those who watched has it."""
        self._wanted -= 1

    # ---- looks ----

    def look(self) -> None:
        """Takes in what the run says and counts; publishes what is due, if anybody watches."""
        self._hear()
        if self.over:
            return
        if self._phase in _COUNTED:
            self._fresh |= self._history.look(self._watched.clock.now_ns())
        now = time.monotonic()
        if not self.viewers.count:
            return
        if now >= self._now_due:
            self._publish_now()
        if self._fresh and now >= self._charts_due:
            self._publish_charts()

    @property
    def served(self) -> bool:
        """After the end: whether nobody is left to be told, or each who watched has the report, or the time is up."""
        if time.monotonic() >= self._deadline:
            return True
        return not self.viewers.count if self._report is None else self._wanted <= 0

    def _snapshot(self) -> Snapshot:
        found = self._watched.snapshot(self._phase)
        return found if self._phase != "starting" else replace(found, elapsed_s=0.0)  # its clock is not set yet

    def _publish_now(self) -> None:
        if self.over:
            return
        stopping = bool(self._channel.stop[0])
        self.viewers.publish("now", picture.moment(self._snapshot(), self._watched, stopping=stopping))
        self._now_due = time.monotonic() + _NOW_S

    def _publish_charts(self) -> None:
        if not self._fresh:
            return
        began = time.monotonic()
        self._fresh = False
        self.viewers.publish("charts", picture.charts_json(self._watched, self._history, self._events))
        ended = time.monotonic()
        self._charts_due = ended + max(_CHARTS_S, _REST * (ended - began))

    def _hear(self) -> None:
        try:
            while (message := receive(self._channel.page)) is not None:
                self._take(message)
        except EOFError:
            self.over = True  # without a word: there is nothing to tell

    def _take(self, message: dict[str, Any]) -> None:
        if "phase" in message:
            self._phase = message["phase"]
            self._now_due = 0.0
        elif "event" in message:
            if len(self._events) < EVENTS_MAX:
                self._events.append(message["event"])
                self._fresh = self._history.rows > 0
        elif "sentence" in message:
            self._publish_charts()
            report = self._watched.folder / "report.html"
            self._report = report if message["report"] else None
            self._wanted = self.viewers.count
            self._deadline = time.monotonic() + (WITHOUT_REPORT_S if self._report is None else LINGER_S)
            self.over = True
            self.viewers.publish(
                LAST,
                picture.end(
                    message["sentence"], message["verdict"], report=message["report"], folder=str(self._watched.folder)
                ),
            )


def serve_page(watched: Watched, channel: Channel, listener: socket.socket, token: str) -> None:
    """Serves until the run has ended and been told, in a process of its own."""
    channel.run.close()
    gc.enable()  # unlike an array-bound child, an HTTP server makes cycles
    gc.freeze()
    for name in ("aiohttp.server", "aiohttp.access", "asyncio"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    page = Page(watched, channel)
    nothing = History(watched.tallies, watched.target, watched.duration_s, None)
    shown = [chart for chart in picture.charts(watched, nothing, []) if chart.key not in picture.LATER]
    files = page_files(watched.name, watched.description, token, shown)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(page, LiveApp(token, files, page.viewers, page).app(), listener, channel))


def yield_to_others() -> None:
    """Takes the lowest priority there is for work that still gets done."""
    with contextlib.suppress(OSError):
        os.nice(_NICEST)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # its waking never interrupts another process


async def _serve(page: Page, app: web.Application, listener: socket.socket, channel: Channel) -> None:
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=1.0, handle_signals=False
    )
    await runner.setup()
    await web.SockSite(runner, listener, backlog=_BACKLOG).start()
    send(channel.page, {READY: True})
    yield_to_others()
    try:
        while not page.over:
            page.look()
            await asyncio.sleep(_LOOK_S)
        while not page.served:  # noqa: ASYNC110  time decides too, and a fortieth of a second is soon enough
            await asyncio.sleep(_LOOK_S / 10)
    finally:
        await runner.cleanup()
