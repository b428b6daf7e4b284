"""The page's routes. Each asks for the token first, also those that are not there; one of them changes something: stop."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from simulator.live import metrics
from simulator.live.token import matches
from simulator.live.viewers import VIEWERS_MAX, FullError, Viewers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BLOCK = 262_144  # of the report, sent at a time
_KEPT = "private, max-age=3600"  # the chart library, in the browser, while it has this address
_NO_STORE = "no-store"
# The page's own files and streams, and nothing else. The chart library writes style rules while it draws.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Shown(Protocol):
    """What the routes show of the run, and the one thing that they ask of it."""

    def metrics(self) -> str:
        """The run so far in Prometheus' text format."""
        ...

    def stop(self) -> None:
        """Asks the run to end as one Ctrl-C would; asking again changes nothing."""
        ...

    def refresh(self) -> None:
        """Publishes what is newest: somebody has come."""
        ...

    def report(self) -> Path | None:
        """Where the report is; None: there is none yet."""
        ...

    def report_taken(self) -> None:
        """Notes that a viewer has all of the report."""
        ...


class LiveApp:
    """The handlers, and what they share."""

    def __init__(self, token: str, files: dict[str, tuple[str, bytes]], viewers: Viewers, shown: Shown) -> None:
        """`files`: by name, their type and what is in them; "" is the page."""
        self._token = token
        self._files = files
        self._viewers = viewers
        self._shown = shown

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._guard], client_max_size=1_024)
        app.add_routes(
            [
                web.get("/", self._file),
                web.get("/{name:[a-z]+[.]js}", self._file),
                web.get("/events", self._events),
                web.get("/metrics", self._metrics),
                web.get("/report", self._report),
                web.post("/stop", self._stop),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who has the token and asks this machine by its own name: another site's name for it is refused."""
        try:
            known = request.url.host in {"127.0.0.1", "localhost"}
        except ValueError:
            known = False
        if not known or not matches(request.query.get("token", ""), self._token):
            text = "403: this page needs the address that `sim run --live` printed, token and all\n"
            return web.Response(status=403, text=text, headers={**_ALWAYS, "Cache-Control": _NO_STORE})
        try:
            return await handler(request)
        except web.HTTPException as raised:
            return web.Response(status=raised.status, text=f"{raised.status}: {raised.reason}\n", headers=_ALWAYS)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on, and its terminal shows no traceback
            sys.stderr.write(f"sim: live page: {request.path}: {type(error).__name__}: {error}\n")
            return web.Response(status=500, text="500: see the terminal of the run\n", headers=_ALWAYS)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name", "")
        if name not in self._files:
            raise web.HTTPNotFound
        kind, body = self._files[name]
        headers = {**_ALWAYS, "Content-Security-Policy": POLICY, "Cache-Control": _KEPT if name else _NO_STORE}
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._viewers.count >= VIEWERS_MAX:
            return web.Response(status=503, text=f"503: {VIEWERS_MAX} viewers are watching already\n", headers=_ALWAYS)
        response = web.StreamResponse(headers={**_ALWAYS, "Cache-Control": _NO_STORE})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        self._shown.refresh()
        try:
            await self._viewers.stream(response.write)
            await response.write_eof()
        except (TimeoutError, FullError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        headers = {**_ALWAYS, "Content-Type": metrics.CONTENT_TYPE, "Cache-Control": _NO_STORE}
        return web.Response(body=self._shown.metrics().encode(), headers=headers)

    async def _stop(self, _request: web.Request) -> web.StreamResponse:
        self._shown.stop()
        return web.Response(status=202, text="202: the run drains, audits and reports\n", headers=_ALWAYS)

    async def _report(self, request: web.Request) -> web.StreamResponse:
        """The report as it stands in the run's folder; it has a policy of its own, which is stricter than the page's."""
        path = self._shown.report()
        if path is None:
            raise web.HTTPNotFound(reason="there is no report yet")
        try:
            body = await asyncio.to_thread(path.read_bytes)
        except OSError:
            raise web.HTTPNotFound(reason="the report is not there any more") from None
        response = web.StreamResponse(headers={**_ALWAYS, "Cache-Control": _NO_STORE})
        response.content_type, response.charset = "text/html", "utf-8"
        response.content_length = len(body)
        await response.prepare(request)
        if isinstance(request.transport, asyncio.WriteTransport):
            request.transport.set_write_buffer_limits(0)  # a write then returns when the kernel has all of it
        for at in range(0, len(body), _BLOCK):
            await response.write(body[at : at + _BLOCK])
        await response.write_eof()
        self._shown.report_taken()
        return response
