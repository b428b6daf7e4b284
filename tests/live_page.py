"""A `sim run --live` in a process of its own, and what a viewer that is no browser does with its page."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import sim_process
from sim_process import Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"


@dataclass
class Address:
    """Where a page is."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """As the run printed it."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def ask(
        self, path: str, method: str = "GET", *, token: str | None = None, host: str | None = None
    ) -> tuple[int, str]:
        """Status and body; `token` "" leaves it out, `host` is another name for this machine."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=sim_process.PATIENCE_S)
        given = self.token if token is None else token
        try:
            connection.request(
                method, f"{path}?token={given}" if given else path, headers={"Host": host or f"{HOST}:{self.port}"}
            )
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@dataclass
class Stream:
    """One viewer's stream of events."""

    address: Address
    connection: http.client.HTTPConnection = field(init=False)
    response: http.client.HTTPResponse = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(HOST, self.address.port, timeout=sim_process.PATIENCE_S)
        self.connection.request("GET", f"/events?token={self.address.token}")
        self.response = self.connection.getresponse()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What comes, until the stream is over."""
        sort = ""
        while line := self.response.readline():
            if line.startswith(b"event: "):
                sort = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield sort, json.loads(line[6:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Goes away."""
        self.response.close()
        self.connection.close()


class LiveRun(Running):
    """The small scenario, longer, with its page."""

    def __init__(self, folder: Path, *arguments: str, duration: str = "60s") -> None:
        super().__init__(folder, "--live", *sim_process.settings(f"duration={duration}"), *arguments)

    def address(self) -> Address:
        """Where its page is, once it has said so."""
        found: list[re.Match[str]] = []

        def told() -> bool:
            match = re.search(
                r"^live: http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)\n", self.out.read_text("utf-8"), re.MULTILINE
            )
            found.extend([match] if match else [])
            return bool(found) or self.process.poll() is not None

        sim_process.until(told, "the page's address")
        assert found, self.err.read_text("utf-8")
        return Address(int(found[0][1]), found[0][2])
