"""A fleet: gateway processes in front of one platform, started, watched, slowed, killed, started again, stopped.

All are forked by the process that holds the platform, so they share its rings without a name, and die with it. Each has a
door of its own, so that none can harm another's rings, and a port that stays its own while it is down.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from simulator import process
from simulator.errors import BackendError
from simulator.gateway.app import Settings
from simulator.gateway.server import GATEWAY_BOARD, GatewayState, Limits, Listen, reserved, serve_gateway
from simulator.shard.layout import shared_array

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from multiprocessing.context import ForkProcess

    from simulator.shard.pool import Pool

_START_S = 30.0
_LOOK_S = 0.002
_ATTEMPTS = 3  # starts in a row after which a gateway that never listens is given up
DRAIN_S = 10.0  # how long a gateway that stops may take to answer what it has


@dataclass(frozen=True)
class GatewayNotice:
    """Something that happened to a gateway."""

    event: str
    gateway: int
    details: dict[str, Any]


@dataclass
class _Member:
    """One gateway."""

    name: str
    listen: Listen
    holder: socket.socket
    child: ForkProcess | None = None
    down_until: float | None = None  # killed on purpose: when it may come back, of time.monotonic
    died: float | None = None  # when its end was noticed
    attempts: int = 0
    failure: str | None = field(default=None)


class Fleet:
    """Gateways in front of a pool that was made with as many doors.

    Args:
        pool: the platform, started before the fleet.
        names: of the gateways, for X-Node.
        listen: where; port 0 is any that is free.
        currency: of the books.
        rate_per_s: what each gateway takes; None: as much as comes.
        in_flight: requests at once in each, at most as many as the platform's rings have slots.
        timeout_s: how long the ledger may take to answer.

    Raises:
        BackendError: for an address that cannot be had.
    """

    def __init__(
        self, pool: Pool, names: Sequence[str], listen: Sequence[Listen], *, currency: str,
        rate_per_s: int | None = None, in_flight: int, timeout_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._currency = currency
        self._rate_per_s = rate_per_s
        self._limits = Limits(in_flight, timeout_s, DRAIN_S)
        self.board = shared_array(len(names), GATEWAY_BOARD)
        self.board["factor_milli"] = 1_000
        self._members: list[_Member] = []
        for name, place in zip(names, listen, strict=True):
            try:
                holder = reserved(place)
            except OSError as error:
                self.close()
                raise BackendError(f"{place.host}:{place.port} cannot be listened on: {error.strerror}") from error
            self._members.append(_Member(name, Listen(place.host, holder.getsockname()[1]), holder))

    @property
    def names(self) -> list[str]:
        """What the gateways call themselves."""
        return [member.name for member in self._members]

    @property
    def urls(self) -> list[str]:
        """Where they listen."""
        return [
            f"http://[{m.listen.host}]:{m.listen.port}"
            if ":" in m.listen.host
            else f"http://{m.listen.host}:{m.listen.port}"
            for m in self._members
        ]

    @property
    def places(self) -> list[Listen]:
        """The same, as addresses."""
        return [member.listen for member in self._members]

    @property
    def pids(self) -> list[int]:
        """The gateway processes."""
        return [member.child.pid or 0 for member in self._members if member.child is not None]

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when one of them ends."""
        return [m.child.sentinel for m in self._members if m.child is not None and m.child.is_alive()]

    @property
    def unsettled(self) -> bool:
        """Whether one that ended does not listen again yet."""
        return any(member.died is not None for member in self._members)

    def start(self) -> None:
        """Starts them and returns when all listen. Raises BackendError if one does not; none is then left."""
        for number in range(len(self._members)):
            self._fork(number)
        deadline = time.monotonic() + _START_S
        while (self.board["state"] != GatewayState.LISTENING).any():
            for number, member in enumerate(self._members):
                row = self.board[number]
                if row["state"] == GatewayState.FAILED:
                    self.kill()
                    why = os.strerror(int(row["errno"]))
                    raise BackendError(f"{member.listen.host}:{member.listen.port} cannot be listened on: {why}")
                if member.child is None or not member.child.is_alive() or time.monotonic() > deadline:
                    self.kill()
                    raise BackendError(f"the gateway {member.name} did not come to listen")
            wait(self.sentinels, _LOOK_S)

    def _fork(self, number: int) -> None:
        member = self._members[number]
        row: Any = self.board[number]
        row["state"], row["stop"] = GatewayState.STARTING, 0
        wiring = self._pool.wiring
        member.child = process.start(
            f"gateway {member.name}", serve_gateway, number, member.listen,
            Settings(member.name, self._currency, self._rate_per_s), self._limits, row, self._pool.shape,
            wiring.doors[number], self._pool.board, wiring.node_bells,
        )  # fmt: skip

    # ---- faults ----

    def slow(self, number: int, factor: float, delay_ns: int) -> None:
        """From now on its answers take `factor` times as long and `delay_ns` longer; 1 and 0 end that."""
        row: Any = self.board[number]
        row["factor_milli"], row["delay_ns"] = round(factor * 1_000), delay_ns

    def strike(self, number: int, down_s: float) -> int:
        """Kills a gateway, as kill -9 does; it is started again after `down_s`. Returns the process id it had."""
        member = self._members[number]
        member.down_until = time.monotonic() + down_s
        child = member.child
        if child is None or child.pid is None:
            return 0
        child.kill()
        child.join()
        return child.pid

    def supervise(self) -> list[GatewayNotice]:
        """Starts again what ended, and says what happened to whom since the last call."""
        notices = []
        now = time.monotonic()
        for number, member in enumerate(self._members):
            child, row = member.child, self.board[number]
            if child is None or member.failure is not None:
                continue
            if not child.is_alive():
                if member.died is None:
                    member.died = now
                    code = child.exitcode or 0
                    how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
                    notices.append(GatewayNotice("gateway_died", number, {"pid": child.pid, "how": how}))
                    if code >= 0:  # by itself: a fault that no restart mends
                        member.attempts += 1
                    if member.attempts >= _ATTEMPTS:
                        member.failure = how
                        continue
                if member.down_until is None or now >= member.down_until:
                    member.down_until = None
                    self._fork(number)
                    pid = self._members[number].child.pid  # type: ignore[union-attr]  # just forked
                    notices.append(GatewayNotice("gateway_restarted", number, {"pid": pid}))
            elif member.died is not None and row["state"] == GatewayState.LISTENING:
                took = now - member.died
                member.died, member.attempts = None, 0
                notices.append(GatewayNotice("gateway_ready", number, {"down_s": round(took, 6)}))
        return notices

    def next_s(self) -> float | None:
        """How long until a killed gateway is to come back; None: none is waiting."""
        waiting = [m.down_until for m in self._members if m.down_until is not None]
        return max(min(waiting) - time.monotonic(), 0.0) if waiting else None

    def failures(self) -> list[str]:
        """What is wrong with gateways that were given up."""
        return [f"gateway {m.name} stopped: {m.failure}" for m in self._members if m.failure is not None]

    # ---- the end ----

    def stop(self) -> bool:
        """Lets each answer what it has and go; False if one would not within `DRAIN_S`. None is left either way."""
        self.board["stop"] = 1
        deadline = time.monotonic() + DRAIN_S + 2.0
        for member in self._members:
            if member.child is not None:
                member.child.join(max(0.0, deadline - time.monotonic()))
        orderly = all(m.child is None or m.child.exitcode == 0 for m in self._members)
        self.kill()
        return orderly

    def kill(self) -> None:
        """Ends every gateway at once, and gives their ports back."""
        for member in self._members:
            if member.child is not None:
                process.kill(member.child)
        self.close()

    def close(self) -> None:
        """Gives the ports back."""
        for member in self._members:
            with contextlib.suppress(OSError):
                member.holder.close()
