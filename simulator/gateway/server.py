"""The body of a gateway process: an event loop, a listening socket, an orderly end.

A gateway is told to stop by a shared word and its bell. Then it takes no connection any more, answers what it has, and goes; what
the ledger does not answer within the patience is told to be in doubt.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import uvloop
from aiohttp import web

from simulator.gateway.app import Gateway, Settings, Strain
from simulator.gateway.ledger_client import LedgerClient

if TYPE_CHECKING:
    from simulator.shard.door import Door
    from simulator.shard.layout import Board, Shape
    from simulator.shard.ring import Doorbell

# One row a gateway, in shared memory; 128 bytes, so that two gateways never write to the same or adjacent cache lines.
GATEWAY_BOARD = np.dtype(
    {
        "names": ["state", "stop", "pid", "errno", "delay_ns", "factor_milli"],
        "formats": ["<i8"] * 6,
        "itemsize": 128,
    }
)
_BACKLOG = 1_024
_LOOK_S = 0.05  # how often it looks whether it should stop, at the latest
_KEEP_ALIVE_S = 75.0


class GatewayState(IntEnum):
    """Where a gateway is in its life; written by the gateway."""

    STARTING = 0
    LISTENING = 1
    STOPPED = 2
    FAILED = 3  # it could not listen; errno says why


class Listen(NamedTuple):
    """Where a gateway listens."""

    host: str
    port: int


class Limits(NamedTuple):
    """Bounds of a gateway."""

    in_flight: int
    timeout_s: float
    drain_s: float


def serve_gateway(
    number: int, listen: Listen, settings: Settings, limits: Limits, board: Any,  # noqa: ANN401  one GATEWAY_BOARD record
    shape: Shape, door: Door, platform: Board, node_bells: list[Doorbell],
) -> None:  # fmt: skip
    """Serves until told to stop, in a process of its own."""
    gc.enable()  # unlike an array-bound child, an HTTP server makes cycles
    gc.freeze()
    for name in ("aiohttp.server", "aiohttp.access", "asyncio"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    board["pid"] = os.getpid()
    ledger = LedgerClient(
        shape, door, number, platform, node_bells, in_flight=limits.in_flight, timeout_s=limits.timeout_s
    )

    def strain() -> Strain | None:
        if board["factor_milli"] <= 1_000 and not board["delay_ns"]:  # noqa: PLR2004  once
            return None
        return Strain(max(int(board["factor_milli"]), 1_000) / 1_000, int(board["delay_ns"]) / 1e9)

    gateway = Gateway(ledger, settings, strain)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(gateway, listen, limits, board))


def reserved(listen: Listen) -> socket.socket:
    """A socket that holds a port without listening on it: what is sent there is refused. Raises OSError.

    A gateway that is killed and started again keeps its port so, and while it is down nobody is let in by its backlog.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if listen.port:
            with socket.socket(
                family, socket.SOCK_STREAM
            ) as probe:  # SO_REUSEPORT below would share it with a stranger
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(listen)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(listen)
    except OSError:
        holder.close()
        raise
    return holder


def _listening(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(listen)
    listener.setblocking(False)  # noqa: FBT003  its only argument
    return listener


async def _serve(gateway: Gateway, listen: Listen, limits: Limits, board: Any) -> None:  # noqa: ANN401  as above
    ledger = gateway.ledger
    ledger.open()
    app_runner = web.AppRunner(
        gateway.app(), access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=limits.drain_s,
        handle_signals=False,
    )  # fmt: skip
    await app_runner.setup()
    try:
        await web.SockSite(app_runner, _listening(listen), backlog=_BACKLOG).start()
    except OSError as error:
        board["errno"] = error.errno or 5
        board["state"] = GatewayState.FAILED
        await app_runner.cleanup()
        ledger.close()
        return
    board["state"] = GatewayState.LISTENING
    while not board["stop"]:  # noqa: ASYNC110  the word is another process's, which has no event of this loop to set
        await asyncio.sleep(_LOOK_S)
    gateway.stopping = True
    for site in list(app_runner.sites):
        await site.stop()
    await ledger.quiet(limits.drain_s)
    await app_runner.cleanup()
    ledger.close()
    board["state"] = GatewayState.STOPPED
