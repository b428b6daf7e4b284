"""A `sim serve` in a process of its own, and a client that says what it got."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import sim_process

if TYPE_CHECKING:
    from pathlib import Path


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever JSON says
        """The body, read."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The last word of a problem's type; "" where there is none."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json["type"]).removeprefix("/problems/")


class Gateway:
    """A running gateway; stopped at the latest when the block is left."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.err = folder / "err.txt"
        self.out = folder / "out.txt"
        small = ("--port", "0", "--accounts", "1000", "--merchants", "10", "--balance", "1000 CNY", "--shards", "4")
        command = [*sim_process.SIM, "serve", *small, "--remember", "4096", *flags]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                env=sim_process.environment(),
            )  # fmt: skip
        try:
            sim_process.until(lambda: self.ports or self.process.poll() is not None, "a gateway that listens")
            assert self.process.poll() is None, self.err.read_text("utf-8")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def ports(self) -> list[int]:
        """Where it listens, as it says."""
        return [
            int(port) for port in re.findall(r"listens on http://127\.0\.0\.1:(\d+)\n", self.out.read_text("utf-8"))
        ]

    def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, port: int = 0, **headers: str
    ) -> Got:
        """One request; `body` is JSON unless it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=30)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {} if raw is None else {"Content-Type": "application/json"}
        if key is not None:
            sent["Idempotency-Key"] = key
        connection.request(method, path, raw, {**sent, **{name.replace("_", "-"): v for name, v in headers.items()}})
        got = connection.getresponse()
        answer = Got(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        connection.close()
        return answer

    def pay(self, key: str, payer: int = 1, payee: int = 1_003, amount_minor: int = 100, **more: Any) -> Got:  # noqa: ANN401  of `call`
        """POST /v1/payments."""
        return self.call(
            "POST", "/v1/payments", {"payer": payer, "payee": payee, "amount_minor": amount_minor}, key=key, **more
        )

    def balance(self, account: int) -> tuple[int, int]:
        """(available, reserved)."""
        told = self.call("GET", f"/v1/accounts/{account}").json
        return told["available_minor"], told["reserved_minor"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(sim_process.PATIENCE_S)
