"""The backend over HTTP: a pool of connections for each target, driven in turns by the engine.

The event loop takes the engine's turns from inside (`repeat`), each at the instant the engine asks for or a moment after an
answer, so that the engine's own schedule stays the one clock; `wait` is for whoever has no turns. A node is a target: the
balancer picks it. A transaction that finds no idle connection is not accepted: the dispatcher holds it back, and its lateness
counts. Every request ends once, by an answer, its connection's end, or its time-out. Where nobody listens, that is an answer too:
what is offered to a target to which no connection is open, and the last attempt to open one failed, is refused at once.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import uvloop

from simulator.backend.http import receipt
from simulator.backend.http.alarm import Alarm
from simulator.backend.http.connection import Cause, Connection, ReadingConnection
from simulator.backend.http.judge import Judge, of_cause
from simulator.backend.http.lines import NONE, Exchange, Times
from simulator.backend.http.render import program_of
from simulator.errors import BackendError
from simulator.transaction import OUTCOME, Reason, Status

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from simulator.backend.backend import Turn
    from simulator.backend.http.judge import Verdict
    from simulator.backend.http.template import Template
    from simulator.measure.answerers import Answerers
    from simulator.transaction import Kind

OPENING_MAX = 64  # connections to one target being opened at once: a listen queue is often no longer than 128
_PREPARE_S = 10.0  # how long opening the pool may take before the run is refused
_GATHER_NS = 200_000  # answers that come this close together are one turn: a turn costs as much as ten requests
_AT_ONCE_MAX = 256  # requests sent before answers are looked at: a millisecond or two of work
_NEVER_NS = 1 << 60
_REOPEN_S = 0.05  # how long a target that refuses is left alone


class Target(NamedTuple):
    """Where requests go: an address that was resolved once, and stays."""

    name: str  # as the scenario wrote it
    host: str  # of the Host header
    address: str  # an IP address, or a socket's path
    port: int  # 0: a Unix socket
    tls: ssl.SSLContext | None
    server_name: str | None  # what its certificate must be for
    templates: Mapping[Kind, Template]


class Options(NamedTuple):
    """How requests are sent; times in nanoseconds."""

    connections: int  # for each target
    keep_alive: bool
    connect_ns: int
    timeout_ns: int
    judge: Judge
    identify: bytes  # the header that names who answered; b"": nobody asks
    deadline_ns: int = 0  # of a transaction, from its intended instant: no answer is waited for longer; 0: none
    shards: int = 1  # of the ledger behind the targets, where it is known
    receipts: bool = False  # whether answers are the reference gateway's, which say where a transaction stands
    opening: int = OPENING_MAX  # connections being opened at once, for each target


# An OUTCOME: one packed as it comes costs a tenth of a NumPy row made of a tuple.
_pack = struct.Struct("<QIIqIHBB").pack
_NO_SLOT = 0xFFFF_FFFF  # beyond any in-flight table: the answer is to nothing that is in flight
_NOBODY = (int(Status.REJECTED), int(Reason.NODE_DOWN))  # never sent, so nothing can have happened


class _Side:
    """One target and its connections."""

    def __init__(self, node: int, target: Target) -> None:
        self.node = node
        self.target = target
        self.alive = 0
        self.opening = 0
        self.not_before_s = 0.0
        self.failed = 0  # attempts to open a connection, since one was opened
        self.why = ""

    @property
    def nobody_there(self) -> bool:
        """Whether no connection is open, and the last attempt to open one failed."""
        return self.failed > 0 and self.alive == 0


class HttpBackend:
    """Speaks HTTP/1.1 to one or more targets; see `simulator.backend.backend.Backend`."""

    def __init__(
        self, targets: list[Target], options: Options, now_ns: Callable[[], int], answerers: Answerers | None = None
    ) -> None:
        """`now_ns` is the run's clock, `answerers` counts who answered."""
        self._targets = targets
        self._options = options
        self._now_ns = now_ns
        self._answerers = answerers
        self._reads = bool(options.judge.path or options.identify or options.receipts)
        self._table = options.judge.table()
        self._sides = [_Side(node, target) for node, target in enumerate(targets)]
        self._done = bytearray()  # OUTCOME rows, packed
        self._connections: dict[int, Connection] = {}  # by row
        self._exchange: Any = None  # from `open` to `close`
        self._look_ns = 0
        self._loop: Any = None
        self._alarm: Any = None  # both from `open` to `close`
        self._stir: Any = None  # what the alarm calls
        self._turn: Turn = _no_turn
        self._raised: BaseException | None = None
        self._armed = False  # whether a turn is to come
        self._waiting = False  # whether the end of a request may bring it forward
        self._gather_until_ns = 0  # of time.monotonic_ns
        self._alarm_ns = 0  # likewise
        self._short = False  # whether a transaction found no idle connection since the last turn
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- the seam ----

    @property
    def nodes(self) -> int:
        """The targets."""
        return len(self._targets)

    def part(self, of_limit: Callable[[int], int], answerers: Answerers | None) -> HttpBackend:
        """One of several that do what this one would, for the process that calls its `open`.

        `of_limit` is that one's part of a limit; `answerers` counts who answered it.
        """
        options = self._options._replace(
            connections=of_limit(self._options.connections), opening=of_limit(self._options.opening)
        )
        return HttpBackend(self._targets, options, self._now_ns, answerers)

    @property
    def targets(self) -> list[Target]:
        """Where requests go."""
        return self._targets

    def owners(self) -> NDArray[np.int64]:
        """Every target serves every shard; a policy that wants each payer to enter at one node deals the shards out."""
        return np.arange(self._options.shards, dtype=np.int64) % len(self._targets)

    def open(self) -> None:
        """Opens the pool, in the process that will use it. Raises BackendError if a target cannot be reached at all."""
        self._loop = uvloop.new_event_loop()
        self._alarm = Alarm(self._loop, self._ring)
        glance = not self._reads and self._answerers is None and self._options.keep_alive
        programs = [
            program_of({kind: (template.head, template.body) for kind, template in target.templates.items()})
            for target in self._targets
        ]
        self._exchange = Exchange(self._options.connections, programs, self._table, glance=glance)
        self._loop.add_reader(self._exchange.fd, self._readable)
        deadline = time.monotonic() + _PREPARE_S
        wanted = self._options.connections
        while any(self._exchange.idle(side.node) < wanted for side in self._sides):
            self._open_more()
            self._run(0.01)
            for side in self._sides:
                if side.failed and not side.alive and not side.opening:
                    raise BackendError(f"{side.target.name} cannot be reached: {side.why}")
            if time.monotonic() > deadline:
                slow = min(self._sides, key=lambda side: side.alive)
                raise BackendError(
                    f"{slow.target.name} let {slow.alive} of {wanted} connections in within {_PREPARE_S:.0f} s"
                    + (f": {slow.why}" if slow.why else "")
                )

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        """Sends the first k, one on each idle connection, and returns k; all of them where nobody is there to refuse them.

        k is bounded, so that no burst keeps answers waiting for long.
        """
        side = self._sides[node]
        if side.nobody_there:
            return self._refuse(batch)
        times = Times(self._now_ns(), self._options.timeout_ns, self._options.deadline_ns)
        now, taken = batch[:_AT_ONCE_MAX], 0
        while taken < len(now):
            taken, row, went, length = self._exchange.send(node, now, taken, times)
            if row == NONE:
                break
            if not self._connections[row].write(self._exchange.request(max(went, 0), length)):
                taken -= 1  # the next one, then
        if taken < len(batch):
            self._short = True
            self._open_more()
        return taken

    def poll(self, outcomes: NDArray[np.void]) -> int:
        """Moves answers out."""
        found = int(self._exchange.take_answers(outcomes))
        count = min(len(outcomes) - found, len(self._done) // OUTCOME.itemsize)
        if count:
            outcomes[found : found + count] = np.frombuffer(bytes(self._done), OUTCOME, count)
            del self._done[: count * OUTCOME.itemsize]
        return found + count

    def returned(self) -> list[int]:
        """A target that comes back has lost nothing that this side would know of."""
        return []

    def wait(self, timeout_s: float) -> None:
        """Runs the event loop until an answer is there, at most this long."""
        self._expire()
        if self._answered:
            timeout_s = 0.0
        self._open_more()
        self._run(timeout_s)

    def repeat(self, turn: Turn) -> None:
        """See `simulator.backend.backend.Loops`."""
        self._turn, self._stir, self._raised = turn, self._take_turn, None
        self._pause(0.0)
        self._loop.run_forever()
        self._turn = _no_turn
        if self._raised is not None:
            raise self._raised

    def close(self) -> None:
        """Closes every connection; what is in flight stays unanswered."""
        if self._loop is None:
            return
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections.values()):
            connection.abort(Cause.RESET)
        self._run(0.0)
        if self._exchange is not None:
            self._loop.remove_reader(self._exchange.fd)
            self._exchange.close()
        if self._alarm is not None:
            self._alarm.close()
        self._loop.close()
        self._loop = None

    # ---- from connections ----

    def opened(self, connection: Connection) -> None:
        """See `connection.Pool`."""
        side = self._sides[connection.node]
        side.opening -= 1
        side.alive += 1
        side.failed = 0
        self._connections[connection.row] = connection
        if side.target.tls is None:
            self._loop.call_soon(self._adopt, connection)  # its transport begins to read when this returns
        else:
            self._exchange.rest(connection.row)

    def ended(self, connection: Connection, cause: Cause, status: int) -> None:
        """See `connection.Pool`."""
        key, slot, at_ns = self._exchange.in_flight(connection.row)
        now_ns = self._now_ns()
        shard = lsn = 0
        name = b""
        if cause is Cause.ANSWERED:
            verdict = self._table[status] if status < len(self._table) else of_cause(Cause.GARBAGE)
            if self._reads and isinstance(connection, ReadingConnection):
                name = connection.seen
                shard, lsn, verdict = self._told_by(connection, verdict)
        else:
            verdict = of_cause(cause)
        if self._answerers is not None:
            self._answerers.note(name, now_ns, now_ns - at_ns)
        self._done += _pack(key, lsn, 0, now_ns, slot, shard, *verdict)
        if cause is Cause.ANSWERED and not connection.last:
            self._exchange.rest(connection.row)
        if self._waiting:
            self._something_ended()

    def unasked(self, connection: Connection, status: int) -> None:
        """See `connection.Pool`. It can only be another answer to what this connection carried last, for the audit to judge.

        One that decides nothing says nothing either.
        """
        verdict = self._table[status] if status < len(self._table) else of_cause(Cause.GARBAGE)
        shard = lsn = 0
        if self._reads and isinstance(connection, ReadingConnection):
            shard, lsn, verdict = self._told_by(connection, verdict)
        if verdict[0] is not Status.UNKNOWN:
            self._done += _pack(
                self._exchange.in_flight(connection.row)[0], lsn, 0, self._now_ns(), _NO_SLOT, shard, *verdict
            )

    def closed(self, connection: Connection) -> None:
        """See `connection.Pool`."""
        side = self._sides[connection.node]
        side.alive -= 1
        del self._connections[connection.row]
        self._exchange.free(connection.row)

    # ---- inside ----

    @property
    def _answered(self) -> bool:
        """Whether there is something to poll."""
        return bool(self._done) or self._exchange.waiting > 0

    def _adopt(self, connection: Connection) -> None:
        """Its first idle moment."""
        if connection.row in self._connections and connection.adopt():
            self._exchange.rest(connection.row)

    def _readable(self) -> None:
        """A connection can be read."""
        self._read()
        if self._waiting and self._answered:
            self._something_ended()

    def _read(self) -> None:
        """Reads what has come."""
        exchange = self._exchange
        while True:
            row, size = exchange.read(self._now_ns())
            if row == NONE:
                return
            connection = self._connections[row]
            if size > 0:
                connection.data_received(exchange.received(size))
            elif size == 0:
                connection.leave()
            else:
                connection.abort(Cause.RESET)

    def _told_by(self, connection: ReadingConnection, verdict: Verdict) -> tuple[int, int, Verdict]:
        """(shard, position, verdict) as the body tells them; where it says nothing, `verdict` stays."""
        shard = lsn = 0
        if self._options.receipts:
            told = receipt.read(connection.body, *verdict)
            shard, lsn, verdict = told.shard, told.lsn, (told.status, told.reason)
        if self._options.judge.path:
            verdict = self._options.judge.of_body(connection.body, verdict)
        return shard, lsn, verdict

    def _refuse(self, batch: NDArray[np.void]) -> int:
        """Answers that nobody was there to take them."""
        now_ns = self._now_ns()
        self._open_more()
        for key, slot in zip(batch["id"].tolist(), batch["slot"].tolist(), strict=True):
            self._done += _pack(key, 0, 0, now_ns, slot, 0, *_NOBODY)
            if self._answerers is not None:
                self._answerers.note(b"", now_ns, 0)
        return len(batch)

    def _expire(self) -> None:
        """Ends what is over its time; looks once in a fiftieth of the time-out, so that many connections cost little."""
        now = self._now_ns()
        if now < self._look_ns:
            return
        shortest = min(self._options.timeout_ns, self._options.deadline_ns or self._options.timeout_ns)
        self._look_ns = now + max(shortest // 50, 1_000_000)
        for row in self._exchange.late(now):
            self._connections[row].abort(Cause.TIMEOUT)

    def _open_more(self) -> None:
        now = time.monotonic()
        for side in self._sides:
            if now < side.not_before_s:
                continue
            missing = self._options.connections - side.alive - side.opening
            most = 1 if side.nobody_there else self._options.opening  # one is enough to find out
            for _ in range(min(missing, most - side.opening)):
                side.opening += 1
                task = self._loop.create_task(self._open(side))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _connection(self, side: _Side) -> Connection:
        if self._reads:
            return ReadingConnection(
                self, self._exchange, side.node, self._options.identify, keep=self._options.keep_alive
            )
        return Connection(self, self._exchange, side.node, keep=self._options.keep_alive)

    async def _open(self, side: _Side) -> None:
        target = side.target
        make = lambda: self._connection(side)  # noqa: E731  one line for both forms
        try:
            async with asyncio.timeout(self._options.connect_ns / 1e9):
                if target.port:
                    await self._loop.create_connection(
                        make, target.address, target.port, ssl=target.tls, server_hostname=target.server_name
                    )
                else:
                    await self._loop.create_unix_connection(make, target.address)
        except (
            OSError,
            ValueError,
        ) as error:  # TimeoutError and ssl.SSLError are OSErrors; ValueError: a bad certificate name
            side.opening -= 1
            side.failed += 1
            side.why = _reason(error)
            side.not_before_s = time.monotonic() + _REOPEN_S

    def _run(self, timeout_s: float) -> None:
        """Runs the loop until something ended and what comes with it is gathered, at most this long."""
        self._stir = self._loop.stop
        self._pause(timeout_s)
        self._loop.run_forever()
        self._waiting = False

    def _take_turn(self) -> None:
        """One turn of the engine's, from inside the loop."""
        if not self._armed:
            return  # the alarm and an answer came in the same poll
        self._armed = self._waiting = False
        self._read()
        try:
            pause_s = self._turn()
        except BaseException as error:  # noqa: BLE001  the loop would log it and go on; `repeat` raises it
            self._raised = error
            pause_s = None
        if pause_s is None:
            self._loop.stop()
            return
        self._expire()
        self._open_more()
        self._pause(0.0 if self._answered else pause_s)

    def _pause(self, timeout_s: float) -> None:
        """Has `_stir` called after this long, or when something ended and what comes with it is gathered."""
        self._armed = True
        if timeout_s <= 0.0:
            self._loop.call_soon(self._stir)
            return
        now_ns = time.monotonic_ns()
        timeout_ns = int(timeout_s * 1e9)
        self._gather_until_ns = now_ns if self._short else now_ns + _GATHER_NS
        self._alarm_ns = now_ns + timeout_ns
        self._short = False
        self._alarm.set(timeout_ns)
        self._waiting = True

    def _ring(self) -> None:
        if self._stir is not None:
            self._stir()

    def _something_ended(self) -> None:
        """Stirs now, or soon."""
        self._waiting = False
        left_ns = self._gather_until_ns - time.monotonic_ns()
        if left_ns <= 0:
            self._alarm.set(_NEVER_NS)
            self._loop.call_soon(self._stir)  # after those that have come with it
        elif self._gather_until_ns < self._alarm_ns:
            self._alarm.set(left_ns)


def _no_turn() -> float | None:
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer to the connection attempt in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
