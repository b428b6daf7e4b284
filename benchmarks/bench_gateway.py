"""The reference gateway, one process: payments a second in a closed loop, beside a bare aiohttp handler in the same run.

    python benchmarks/bench_gateway.py [seconds] [connections]

Client, gateway and ledger share the machine's cores: the figure is the gateway's own only where there are three to spare. CPU a
request is what the gateway process used, and less sensitive to neighbours. Run it on a quiet machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from aiohttp import web

from simulator import process
from simulator.gateway.fleet import Fleet
from simulator.gateway.server import Listen
from simulator.shard.layout import Durability, Shape
from simulator.shard.pool import Pool
from simulator.warm import warm

ACCOUNTS, MERCHANTS = 100_000, 1_000


class Loop(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, number: int, done: list[int], bare: bool) -> None:  # noqa: FBT001  two forms of one request
        self.number = number
        self.done = done
        self.bare = bare
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the first time."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's
        self.ask()

    def ask(self) -> None:
        """One payment, unlike all others."""
        self.sent += 1
        payer = (self.number * 7_919 + self.sent * 104_729) % ACCOUNTS
        body = b'{"payer":%d,"payee":%d,"amount_minor":100,"currency":"CNY"}' % (
            payer,
            ACCOUNTS + self.sent % MERCHANTS,
        )
        path = b"/bare" if self.bare else b"/v1/payments"
        self.transport.write(
            b"POST %b HTTP/1.1\r\nHost: b\r\nIdempotency-Key: b-%d-%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path, self.number, self.sent, len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        """An answer, which is far smaller than a segment."""
        if not data.startswith(b"HTTP/1.1 20"):
            sys.exit(f"not the answer that was expected: {data[:200]!r}")
        self.done[0] += 1
        self.ask()


async def measure(port: int, seconds: float, connections: int, *, bare: bool) -> float:
    """Answers a second."""
    loop = asyncio.get_running_loop()
    done = [0]
    made = [
        await loop.create_connection(lambda n=n: Loop(n, done, bare), "127.0.0.1", port)  # type: ignore[misc]  # a default
        for n in range(connections)
    ]
    await asyncio.sleep(0.5)
    before, began = done[0], time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (done[0] - before) / (time.perf_counter() - began)
    for transport, _ in made:
        transport.abort()
    return rate


async def _bare(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


def serve_bare(port: int) -> None:
    """The baseline: reads the body and says {}."""
    app = web.Application()
    app.router.add_post("/bare", _bare)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


def cpu_s(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures both, one after the other, and prints the ratio."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    warm(None)
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-gateway-") as folder:
        pool = Pool(
            Shape(1, 16, ACCOUNTS, MERCHANTS, 10**12, 131_072), Path(folder), durability=Durability.GROUP, interval_ns=0,
            queue=8_192, run=1, doors=1,
        )  # fmt: skip
        fleet = Fleet(pool, ["bench"], [Listen("127.0.0.1", 0)], currency="CNY", in_flight=8_192)
        pool.start()
        fleet.start()
        port = int(fleet.urls[0].rpartition(":")[2])
        before = cpu_s(fleet.pids[0])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ours = runner.run(measure(port, seconds, connections, bare=False))
        used = cpu_s(fleet.pids[0]) - before
        fleet.stop()
        pool.stop(10.0)
    child = process.start("bare", serve_bare, port)
    time.sleep(1.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bare = runner.run(measure(port, seconds, connections, bare=True))
    process.kill(child)
    print(f"gateway           {ours:10,.0f} payments/s, about {used / (ours * (seconds + 0.5)) * 1e6:.0f} us CPU each")
    print(f"bare aiohttp      {bare:10,.0f} requests/s")
    print(f"ratio             {ours / bare:10.2f}")


if __name__ == "__main__":
    main()
