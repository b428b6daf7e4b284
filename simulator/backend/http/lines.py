"""Connections as rows of a table, and what kernels do with them: requests are written and the commonest answers read here.

A row is taken when its connection opens and freed when it is gone. A row with a file descriptor is written to and read from by
kernels; one without is the event loop's alone, as a TLS connection is. Whatever is not as usual (a request that went out in
part, an answer that is not whole at a glance, an end) the kernels leave to the connection's Python: they return it, and are
called again.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.backend.http.render import Program, write
from simulator.backend.http.system import (
    CLOCK_MONOTONIC,
    DO_NOT_WAIT,
    EVENT,
    NO_SIGNAL,
    TRY_AGAIN,
    Readiness,
    clock_gettime,
    epoll_wait,
    last_error,
    receive,
    send,
)
from simulator.backend.http.whole import whole_response
from simulator.kernel import kernel
from simulator.transaction import OUTCOME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class State(IntEnum):
    """What a row is at."""

    FREE = 0  # no connection
    IDLE = 1  # ready for a request, and in its target's stack of these
    BUSY = 2  # one is in flight
    SPENT = 3  # it takes none any more


class Parser(IntEnum):
    """What llhttp has of the answer to the request in flight."""

    UNUSED = 0  # nothing: it may be settled at a glance
    NEXT = 1  # nothing, but it shall look at it from the first byte
    BEGUN = 2  # the beginning: it gets the rest too


LINE = np.dtype(
    [
        ("fd", "<i4"),  # -1: the event loop's alone
        ("node", "<i4"),
        ("state", "u1"),
        ("parser", "u1"),  # Parser
        ("slot", "<u4"),
        ("id", "<u8"),
        ("sent_ns", "<i8"),
        ("deadline_ns", "<i8"),
    ],
    align=True,
)
NONE = -1
_EVENTS = 512  # sockets read before the schedule is looked at again
_READ_BYTES = 1 << 16  # what is longer is no answer for a glance
_IDLE, _BUSY, _SPENT = int(State.IDLE), int(State.BUSY), int(State.SPENT)
_UNUSED, _NEXT = int(Parser.UNUSED), int(Parser.NEXT)


class Lines(NamedTuple):
    """The table; `C` connections, `N` targets."""

    rows: NDArray[np.void]  # (C,) LINE
    idle: NDArray[np.int32]  # (N, C / N) stacks of idle rows: the one last used is the warmest
    idle_count: NDArray[np.int64]  # (N,)


class Area(NamedTuple):
    """Memory that kernels hand to the system, with its address."""

    bytes: NDArray[np.uint8]
    address: int


def area(size: int) -> Area:
    """So many bytes."""
    made = np.zeros(size, np.uint8)
    return Area(made, made.ctypes.data)


def open_lines(connections: int, nodes: int) -> Lines:
    """An empty table for so many connections to each of so many targets."""
    rows = np.zeros(connections * nodes, LINE)
    rows["fd"] = NONE
    return Lines(rows, np.zeros((nodes, connections), np.int32), np.zeros(nodes, np.int64))


class Times(NamedTuple):
    """What a batch of requests is sent with, in nanoseconds of the run's clock."""

    now_ns: int
    timeout_ns: int  # from now on
    deadline_ns: int  # from its intended instant on; 0: none


@kernel
def send_batch(
    lines: Lines, program: Program, node: int, batch: NDArray[np.void], start: int, times: Times, out: Area
) -> tuple[int, int, int, int]:
    """Sends batch[start:], one on each idle connection of a target.

    Returns (the position after the last that was taken, the row that Python has to go on with or NONE, how much of its request
    went out, the request's length); `out` has that request.
    """
    rows, idle, count = lines.rows, lines.idle, lines.idle_count
    for i in range(start, batch.shape[0]):
        if count[node] == 0:
            return i, NONE, 0, 0
        m = batch[i]
        length = write(program, m["kind"], m, out.bytes)
        count[node] -= 1
        row = idle[node, count[node]]
        deadline_ns = times.now_ns + times.timeout_ns
        if times.deadline_ns > 0:
            deadline_ns = min(deadline_ns, m["intended_ns"] + times.deadline_ns)
        rows[row]["state"] = _BUSY
        rows[row]["parser"] = _UNUSED
        rows[row]["slot"] = m["slot"]
        rows[row]["id"] = m["id"]
        rows[row]["sent_ns"] = times.now_ns
        rows[row]["deadline_ns"] = deadline_ns
        fd = rows[row]["fd"]
        went = send(fd, out.address, length, NO_SIGNAL | DO_NOT_WAIT) if fd != NONE else 0
        if went != length:
            rows[row]["parser"] = _NEXT  # an answer may come before the rest has gone, and then nothing can follow
            return i + 1, row, went, length
    return batch.shape[0], NONE, 0, 0


class Inbox(NamedTuple):
    """What reading needs beside the table."""

    readiness: int  # epoll's file descriptor
    at: NDArray[np.int64]  # (2,) which of the events read last is next, and how many there are
    events: NDArray[np.void]  # EVENT
    events_address: int
    clock: NDArray[np.int64]  # (2,)
    clock_address: int
    received: Area
    verdicts: NDArray[np.uint8]  # (statuses, 2) the Status and Reason of each HTTP status
    glance: bool  # whether a status is all that is wanted of an answer
    answers: NDArray[np.void]  # OUTCOME
    answered: NDArray[np.int64]  # (1,) answers that nobody has taken yet


@kernel
def read_ready(lines: Lines, inbox: Inbox, from_monotonic_ns: int) -> tuple[int, int]:
    """Reads the sockets that can be read, once each and at most so many, and settles answers that are whole at a glance.

    Returns (row, bytes) of one that Python has to look at, with what was read in `received` (0: the end; below 0: an
    error); call it again then. (NONE, 0) when all are done, or `answers` is full: the rest waits in its socket.
    `from_monotonic_ns` is what the run's clock shows more than the monotonic one.
    """
    rows, at = lines.rows, inbox.at
    if at[0] == at[1]:
        at[0] = 0
        at[1] = max(epoll_wait(inbox.readiness, inbox.events_address, inbox.events.shape[0], 0), 0)
    while at[0] < at[1]:
        if inbox.answered[0] == inbox.answers.shape[0]:
            break
        row = inbox.events[at[0]]["row"]
        at[0] += 1
        if rows[row]["fd"] == NONE:  # it went while the events before were looked at
            continue
        size = receive(rows[row]["fd"], inbox.received.address, _READ_BYTES, DO_NOT_WAIT)
        if size < 0 and last_error() == TRY_AGAIN:
            continue
        status = 0
        if inbox.glance and size > 0 and rows[row]["state"] == _BUSY and rows[row]["parser"] == _UNUSED:
            status = whole_response(inbox.received.bytes, size)
        if status == 0:
            return row, size
        clock_gettime(CLOCK_MONOTONIC, inbox.clock_address)
        answer = inbox.answers[inbox.answered[0]]
        inbox.answered[0] += 1
        answer["id"] = rows[row]["id"]
        answer["lsn"] = 0
        answer["epoch"] = 0
        answer["answered_ns"] = inbox.clock[0] * 1_000_000_000 + inbox.clock[1] + from_monotonic_ns
        answer["slot"] = rows[row]["slot"]
        answer["shard"] = 0
        answer["status"] = inbox.verdicts[status, 0]
        answer["reason"] = inbox.verdicts[status, 1]
        rows[row]["state"] = _IDLE
        node = rows[row]["node"]
        lines.idle[node, lines.idle_count[node]] = row
        lines.idle_count[node] += 1
    at[0] = at[1]
    return NONE, 0


class Exchange:
    """The table and what its kernels need, in the process that uses it."""

    def __init__(
        self, connections: int, programs: Sequence[Program], verdicts: Sequence[tuple[int, int]], *, glance: bool
    ) -> None:
        """`connections` to each target, `programs` by target, `verdicts` by HTTP status.

        `glance`: nothing but the status of an answer is wanted. Raises OSError where the process may open no more files.
        """
        self.lines = open_lines(connections, len(programs))
        self.rows = self.lines.rows
        self.state = self.rows["state"].data  # memory views: an element at a time these are faster than arrays
        self.parser = self.rows["parser"].data
        self._ids, self._slots = self.rows["id"].data, self.rows["slot"].data
        self._sent_ns = self.rows["sent_ns"].data
        self._free = list(range(len(self.rows) - 1, -1, -1))
        self._programs = programs
        self._out = area(max(program.bytes_max for program in programs))
        self._readiness = Readiness()
        events, clock = np.zeros(_EVENTS, EVENT), np.zeros(2, np.int64)
        self._inbox = Inbox(
            readiness=self._readiness.fd, at=np.zeros(2, np.int64), events=events, events_address=events.ctypes.data,
            clock=clock, clock_address=clock.ctypes.data, received=area(_READ_BYTES),
            verdicts=np.array(verdicts, np.uint8), glance=glance, answers=np.zeros(len(self.rows), OUTCOME),
            answered=np.zeros(1, np.int64),
        )  # fmt: skip

    @property
    def fd(self) -> int:
        """Readable when a connection is."""
        return self._readiness.fd

    @property
    def waiting(self) -> int:
        """Answers that nobody has taken yet."""
        return int(self._inbox.answered[0])

    def idle(self, node: int) -> int:
        """Idle connections to a target."""
        return int(self.lines.idle_count[node])

    # ---- a connection's life ----

    def take(self, node: int) -> int:
        """A row for a new connection, not idle yet."""
        row = self._free.pop()
        self.rows[row] = (NONE, node, State.SPENT, 0, 0, 0, 0, 0)
        return row

    def attach(self, row: int, fd: int) -> None:
        """From now on kernels write to and read from this socket; nothing else may read it."""
        self._readiness.add(fd, row)
        self.rows["fd"][row] = fd

    def detach(self, row: int) -> None:
        """The event loop's alone again."""
        fd = int(self.rows["fd"][row])
        if fd != NONE:
            self.rows["fd"][row] = NONE
            self._readiness.remove(fd)

    def rest(self, row: int) -> None:
        """It is idle."""
        self.state[row], self.parser[row] = _IDLE, _UNUSED
        node = int(self.rows["node"][row])
        count = self.lines.idle_count
        self.lines.idle[node, count[node]] = row
        count[node] += 1

    def spend(self, row: int) -> None:
        """It takes no request any more."""
        if self.state[row] == _IDLE:
            node = int(self.rows["node"][row])
            count = self.idle(node)
            stack = self.lines.idle[node]
            at = int(np.flatnonzero(stack[:count] == row)[0])
            stack[at : count - 1] = stack[at + 1 : count].copy()
            self.lines.idle_count[node] = count - 1
        self.state[row] = _SPENT

    def free(self, row: int) -> None:
        """It is gone."""
        self.spend(row)
        self.rows["fd"][row] = NONE
        self.state[row] = State.FREE
        self._free.append(row)

    def late(self, now_ns: int) -> list[int]:
        """Rows whose request is over its time."""
        late: list[int] = np.flatnonzero((self.rows["state"] == _BUSY) & (self.rows["deadline_ns"] <= now_ns)).tolist()
        return late

    def in_flight(self, row: int) -> tuple[int, int, int]:
        """The id and slot of the request in flight, and when it was sent."""
        return self._ids[row], self._slots[row], self._sent_ns[row]

    # ---- requests and answers ----

    def send(self, node: int, batch: NDArray[np.void], start: int, times: Times) -> tuple[int, int, int, int]:
        """See `send_batch`."""
        return send_batch(self.lines, self._programs[node], node, batch, start, times, self._out)

    def request(self, begin: int, end: int) -> bytes:
        """A part of the request that `send` came back with."""
        return self._out.bytes[begin:end].tobytes()

    def read(self, now_ns: int) -> tuple[int, int]:
        """See `read_ready`; `now_ns` is the run's clock."""
        return read_ready(self.lines, self._inbox, now_ns - time.monotonic_ns())

    def received(self, size: int) -> bytes:
        """What `read` came back with."""
        return self._inbox.received.bytes[:size].tobytes()

    def take_answers(self, outcomes: NDArray[np.void]) -> int:
        """Moves answers (OUTCOME) out; returns how many."""
        count = self.waiting
        moved = min(len(outcomes), count)
        answers = self._inbox.answers
        outcomes[:moved] = answers[:moved]
        if moved < count:
            answers[: count - moved] = answers[moved:count].copy()
        self._inbox.answered[0] = count - moved
        return moved

    def close(self) -> None:
        """Reads nothing more."""
        self._readiness.close()
