"""One connection: one request in flight at a time, and exactly one ending for each.

The parser is llhttp; nothing here looks at HTTP's syntax itself. A connection tells its pool how a request ended and whether it
can carry another one; it never decides what that means for a transaction. What is in flight stands in its row of the table
(`lines`), whose kernels write the requests and settle the commonest answers; the rest comes here.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from simulator.backend.http.lines import NONE, Parser, State

if TYPE_CHECKING:
    from simulator.backend.http.lines import Exchange

_BUSY, _BEGUN = int(State.BUSY), int(Parser.BEGUN)
RESPONSE_BYTES_MAX = 1 << 20  # head and body of one response; more is no payment's answer, and ends the connection

_IDLE_TOO_LONG = 408  # a server may say so unasked before it closes an idle connection (RFC 9110, 15.5.9)


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

    def unasked(self, connection: Connection, status: int) -> None:
        """A whole answer came though none was awaited any more; the connection ends."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is gone; if a request was in flight, that ended just before."""
        ...


class Connection(asyncio.Protocol):
    """A connection that needs nothing of a response but its status."""

    __slots__ = ("_exchange", "_head", "_keep", "_parser", "_pool", "_received", "_transport", "last", "node", "row")

    def __init__(self, pool: Pool, exchange: Exchange, node: int, *, keep: bool = True) -> None:
        """`exchange` has the table; without `keep` the connection ends with its first answer."""
        self._pool = pool
        self._exchange = exchange
        self._keep = keep
        self.node = node
        self.row = NONE
        self.last = False  # whether it closes after the request in flight
        self._received = 0
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._exchange.state[self.row] == _BUSY

    # ---- from the pool ----

    def write(self, rest: bytes) -> bool:
        """Writes what a kernel did not of the request in flight.

        False if the connection is about to end: then there is none in flight.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            self._exchange.spend(self.row)
            return False
        transport.write(rest)
        return True

    def abort(self, cause: Cause) -> None:
        """Ends the request in flight, if there is one, and the connection."""
        busy = self.busy
        self._exchange.spend(self.row)
        if busy:
            self._pool.ended(self, cause, 0)
        if self._transport is not None:
            self._transport.abort()

    def adopt(self) -> bool:
        """Has kernels read it from now on; False if it is about to end, or is busy with what nobody asked for."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.pause_reading()
        self._exchange.attach(self.row, transport.get_extra_info("socket").fileno())
        return True

    def leave(self) -> None:
        """Its end was read: the event loop reads that again, and says what there is to say."""
        if not self.busy:
            self._exchange.spend(self.row)
        self._exchange.detach(self.row)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # ---- from the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is one that writes
        self.row = self._exchange.take(self.node)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio. Bytes that nobody asked for end the connection: the next answer could not be told from them."""
        if not self.busy:
            with contextlib.suppress(HttpParserError, HttpParserUpgrade):
                self._parser.feed_data(data)  # tells of it if it is a whole answer
            self.abort(Cause.GARBAGE)
            return
        if self._exchange.parser[self.row] != _BEGUN:
            self._exchange.parser[self.row] = _BEGUN
            self._head = data
            self._received = 0
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
        if self.row == NONE:
            return
        if self.busy:
            self._exchange.spend(self.row)
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
            if status != _IDLE_TOO_LONG:
                self._pool.unasked(self, status)
            self.abort(Cause.GARBAGE)
            return
        # An early answer leaves a rest of the request unwritten: nothing can follow on this connection.
        staying = self._keep and self._parser.should_keep_alive()
        reusable = staying and transport is not None and not transport.get_write_buffer_size()
        self._exchange.spend(self.row)
        if not reusable:
            self.last = True
        self._pool.ended(self, Cause.ANSWERED, status)
        if not reusable and transport is not None:
            transport.abort() if transport.get_write_buffer_size() else transport.close()


class ReadingConnection(Connection):
    """As `Connection`, and keeps the body, and one header: for who must look into the answer, or know who gave it."""

    __slots__ = ("_parts", "_wanted", "seen")

    def __init__(self, pool: Pool, exchange: Exchange, node: int, header: bytes, *, keep: bool = True) -> None:
        super().__init__(pool, exchange, node, keep=keep)
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
