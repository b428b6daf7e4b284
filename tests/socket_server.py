"""A real server on loopback that does to each request what a test tells it to: whole answers, half ones, none, or garbage."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read_request(peer: socket.socket) -> bytes:
    """One request with its body; b"" at the end of the connection."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = peer.recv(65_536)
        if not more:
            return b""
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += peer.recv(65_536)
    return head + b"\r\n\r\n" + body


class Server:
    """Calls `answer(peer, request)` for each request; a connection ends when that returns False."""

    def __init__(self, answer: Callable[[socket.socket, bytes], bool | None], port: int = 0) -> None:
        """`port`: one that is known already, for a server that comes back; 0: any that is free."""
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1_024)
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self._peers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._over = True
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
                peer.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._over:  # it came in while everything was being closed
                    peer.close()
                    return
                self.connections += 1
                self._peers.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := read_request(peer):
                with self._lock:
                    self.requests.append(request)
                if self._answer(peer, request) is False:
                    break
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
