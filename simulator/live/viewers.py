"""Those who watch: each gets the newest of every sort of message, as fast as it takes them; nothing waits in line for anybody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VIEWERS_MAX = 8
STALLED_S = 15.0  # a viewer that takes nothing for so long is let go
_PING_S = 5.0  # between two signs of life: a viewer that has gone is noticed by them
LAST = "end"  # after a message of this sort a stream is over


class FullError(Exception):
    """There are as many viewers as there may be."""


class Viewers:
    """The streams of one page, and the newest message of each sort."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, bytes]] = {}
        self._number = 0
        self._bells: set[asyncio.Event] = set()

    @property
    def count(self) -> int:
        """How many watch."""
        return len(self._bells)

    def publish(self, sort: str, data: bytes) -> None:
        """Puts a message in the place of the one before of its sort. `data` has no line break."""
        self._number += 1
        self._newest[sort] = self._number, b"event: %b\ndata: %b\n\n" % (sort.encode(), data)
        for bell in self._bells:
            bell.set()

    async def stream(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends what is newest until the last message is sent; a newcomer gets the newest of every sort at once.

        Raises FullError, or TimeoutError when the viewer takes nothing any more; and what `send` raises.
        """
        if len(self._bells) >= VIEWERS_MAX:
            raise FullError
        bell = asyncio.Event()
        self._bells.add(bell)
        seen: dict[str, int] = {}
        try:
            await self._send(send, b"retry: 1000\n\n")
            while LAST not in seen:
                bell.clear()
                due = [sort for sort, (number, _) in self._newest.items() if number != seen.get(sort)]
                for sort in due:
                    number, message = self._newest[sort]  # it may have become newer since
                    await self._send(send, message)
                    seen[sort] = number
                if not due:
                    await self._wait(bell, send)
        finally:
            self._bells.discard(bell)

    async def _wait(self, bell: asyncio.Event, send: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(_PING_S):
                await bell.wait()
        except TimeoutError:
            await self._send(send, b": still here\n\n")

    @staticmethod
    async def _send(send: Callable[[bytes], Awaitable[None]], message: bytes) -> None:
        async with asyncio.timeout(STALLED_S):
            await send(message)
