"""A server on loopback that says yes to everything: what a generator reaches against it is the generator's own ceiling."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Self

import uvloop
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from simulator import process

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

BODY = b'{"status":"settled","id":"0123456789abc"}'
"""41 bytes, as a payment gateway's shortest answers are."""

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
    % (len(BODY), BODY)
)
_BACKLOG = 1_024


class _Peer(asyncio.Protocol):
    """One connection: a whole request in, the answer out; what is no HTTP ends it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = HttpRequestParser(self)
        self.data_received = self._feed  # type: ignore[method-assign]  # one look-up less for each request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is one that writes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._transport = None

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if self._transport is not None:
                self._transport.abort()

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.write(ANSWER)
            if not self._parser.should_keep_alive():
                self._transport.close()


def _serve(listener: socket.socket) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_server(_Peer, sock=listener, backlog=_BACKLOG)
        await asyncio.Event().wait()

    uvloop.run(forever())


class Sink:
    """The server, in a process of its own that dies with this one; leaving the block ends it."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._process: ForkProcess = process.start("sink", _serve, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        process.kill(self._process)
        self._listener.close()

    @property
    def url(self) -> str:
        """Where it listens; it does so before the process is up, as the listening socket was there first."""
        return f"http://127.0.0.1:{self.port}"
