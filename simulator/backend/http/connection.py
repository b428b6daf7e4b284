"""One connection: one request in flight at a time, and exactly one ending for each.

The parser is llhttp; nothing here looks at HTTP's syntax itself. A connection tells its pool how a request ended and whether it
can carry another one; it never decides what that means for a transaction.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

if TYPE_CHECKING:
    from typing import Any

RESPONSE_BYTES_MAX = 1 << 20  # head and body of one response; more is no payment's answer, and ends the connection


class Cause(IntEnum):
    """How a request ended."""

    ANSWERED = 0  # a whole response came
    RESET = 1  # the connection ended before one did
    GARBAGE = 2  # what came is no HTTP, or no end of it
    TIMEOUT = 3  # nothing whole came in time


class Pool(Protocol):
    """What a connection tells."""

    def opened(self, connection: Connection) -> None:
        """It is ready for a request."""
        ...

    def ended(self, connection: Connection, cause: Cause, status: int) -> None:
        """The request in flight ended. `status` is HTTP's, 0 without one."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is gone; if a request was in flight, that ended just before."""
        ...


class Connection(asyncio.Protocol):
    """A connection that needs nothing of a response but its status."""

    __slots__ = ("_head", "_parser", "_pool", "_received", "_transport", "busy", "deadline_ns", "last", "node", "token")

    def __init__(self, pool: Pool, node: int) -> None:
        self._pool = pool
        self.node = node
        self.busy = False
        self.token: Any = None  # the pool's own note on the request in flight
        self.deadline_ns = 0  # the pool's
        self.last = False  # whether it closes after the request in flight
        self._received = 0
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)

    # ---- from the pool ----

    def send(self, request: bytes, token: object) -> bool:
        """Writes a request; False, and nothing written, if the connection is about to end."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self.busy = True
        self.token = token
        self._received = 0
        transport.write(request)
        return True

    def abort(self, cause: Cause) -> None:
        """Ends the request in flight, if there is one, and the connection."""
        if self.busy:
            self.busy = False
            self._pool.ended(self, cause, 0)
        if self._transport is not None:
            self._transport.abort()

    # ---- from the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is one that writes
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio. Bytes that nobody asked for end the connection: the next answer could not be told from them."""
        if not self.busy:
            self.abort(Cause.GARBAGE)
            return
        if not self._received:
            self._head = data
        self._received += len(data)
        if self._received > RESPONSE_BYTES_MAX:
            self.abort(Cause.GARBAGE)
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.abort(Cause.GARBAGE)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. A response without a length ends with its connection; any other one is cut short."""
        if self.busy:
            self.busy = False
            if exc is None and self._ends_with_the_connection():
                self._pool.ended(self, Cause.ANSWERED, self._parser.get_status_code())
            else:
                self._pool.ended(self, Cause.RESET, 0)
        self._transport = None
        self._pool.closed(self)

    def _ends_with_the_connection(self) -> bool:
        head, blank, _ = self._head.partition(b"\r\n\r\n")
        lower = head.lower()
        return bool(blank) and b"\r\ncontent-length:" not in lower and b"\r\ntransfer-encoding:" not in lower

    # ---- from the parser ----

    def on_message_complete(self) -> None:
        """A whole response. 1xx are interim; the answer follows."""
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004  HTTP's own
            return
        transport = self._transport
        if not self.busy:  # a second response to one request: the next one's could not be told from a third
            if transport is not None:
                transport.abort()
            return
        # An early answer leaves a rest of the request unwritten: nothing can follow on this connection.
        reusable = self._parser.should_keep_alive() and transport is not None and not transport.get_write_buffer_size()
        self.busy = False
        if not reusable:
            self.last = True
        self._pool.ended(self, Cause.ANSWERED, status)
        if not reusable and transport is not None:
            transport.abort() if transport.get_write_buffer_size() else transport.close()


class ReadingConnection(Connection):
    """As `Connection`, and keeps the body, and one header: for who must look into the answer, or know who gave it."""

    __slots__ = ("_parts", "_wanted", "seen")

    def __init__(self, pool: Pool, node: int, header: bytes) -> None:
        super().__init__(pool, node)
        self._wanted = header.lower()
        self._parts: list[bytes] = []
        self.seen = b""  # the header's value

    @property
    def body(self) -> bytes:
        """Of the response that just ended."""
        return b"".join(self._parts)

    def on_message_begin(self) -> None:
        """Forgets the response before."""
        self._parts.clear()
        self.seen = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps the one that is wanted."""
        if name.lower() == self._wanted:
            self.seen = value

    def on_body(self, part: bytes) -> None:
        """Keeps it; `RESPONSE_BYTES_MAX` bounds it."""
        self._parts.append(part)
