"""The wall-clock engine: one process that generates, releases and settles, and does nothing else.

It has a process of its own so that neither the terminal nor the report can delay it. One turn: settle what came back, release
what is due, and with time to spare make the next transactions. It sleeps until the next one is due but never shorter than
`TICK_S`, and wakes when a node rings; so at high rates it works in batches of a tick, and the tick bounds the lag that this
costs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from simulator.backend.backend import Loops, Opens
from simulator.errors import SimError
from simulator.transaction import OUTCOME, TRANSACTION, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.backend.backend import Turn
    from simulator.clock import Clock
    from simulator.dispatcher import Dispatcher
    from simulator.measure.recorder import Measured, Recorder, Tallies

TICK_S = 0.000_5
_BLOCK = 4_096  # transactions made at a time: below half a millisecond of work
_AHEAD = 8  # blocks kept ready
_LONGEST_SLEEP_S = 0.05  # a request to stop is seen at least this often
_PR_SET_TIMERSLACK, _PR_SET_THP_DISABLE = 29, 41


class Stop(IntEnum):
    """What the run tells the engine, in a shared word."""

    RUN = 0
    DRAIN = 1  # release nothing more; wait for what is in flight
    GIVE_UP = 2  # the backend is gone: what is in flight is in doubt


class Source(Protocol):
    """What makes transactions."""

    def fill(self, batch: NDArray[np.void]) -> int:
        """Writes the next transactions in order of intended time; returns how many, 0 at the end."""
        ...


class Ended(NamedTuple):
    """What the engine hands over at the end."""

    measured: Measured
    cpu_s: float
    spilled: bytes  # history rows that could not be written to their file
    history_errno: int  # why not; 0: all were
    health: NDArray[np.void]  # what the balancer's health checks did, in order (balancer.fleet.EVENT)
    health_count: int  # how much that was, also if not all of it was kept


class _History:
    """Appends history rows to their file; after an error keeps them in memory: those then in flight and in the buffer."""

    def __init__(self, path: Path, expected_bytes: int) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        self.errno = 0
        self.spilled = bytearray()
        self._size = 0
        try:
            # Room taken now cannot be taken by the journals later, so a disk that fills stops those first.
            os.posix_fallocate(self._fd, 0, max(expected_bytes, 1))
            os.fsync(
                self._fd
            )  # now, or the first commits of the nodes would wait for the file system to note all of it
        except OSError:
            os.ftruncate(self._fd, 0)

    def write(self, rows: memoryview) -> None:
        if not self.errno:
            try:
                done = os.pwrite(self._fd, rows, self._size)
                while done < len(rows):
                    done += os.pwrite(self._fd, rows[done:], self._size + done)
                self._size += len(rows)
            except OSError as error:
                self.errno = error.errno or 5
            else:
                return
        self.spilled += rows

    def close(self) -> None:
        os.ftruncate(self._fd, self._size)
        os.close(self._fd)


class WallEngine:
    """Drives one run to its end, drain included."""

    def __init__(
        self, dispatcher: Dispatcher, source: Source, clock: Clock, stop: NDArray[np.int64], *, drain_ns: int
    ) -> None:
        self._dispatcher = dispatcher
        self._backend = dispatcher.backend
        self._tallies: Tallies = dispatcher.tallies
        self._recorder: Recorder = dispatcher.recorder
        self._source = source
        self._clock = clock
        self._stop = stop
        self.must_end: Callable[[], bool] = lambda: (
            False
        )  # whether this process has a reason of its own to release nothing more
        self._drain_ns = drain_ns
        self._ready: deque[NDArray[np.void]] = deque()
        self._spare = [np.zeros(_BLOCK, TRANSACTION) for _ in range(_AHEAD + 1)]
        self._block = np.zeros(0, TRANSACTION)
        self._intended_ns = np.zeros(0, np.int64)  # the block's, side by side: each turn searches them
        self._position = 0
        self._exhausted = False
        self._outcomes = np.zeros(32_768, OUTCOME)
        self._second = 0
        self._drained_by_ns = 0
        self._cpu_ns = time.process_time_ns()

    def health(self) -> tuple[NDArray[np.void], int]:
        """The health events that the balancer kept, and how many there were."""
        fleet = self._dispatcher.fleet
        count = int(fleet.event_count[0])
        return fleet.events[: min(count, len(fleet.events))], count

    def prepare(self) -> None:
        """Opens what the backend has to open in this process, and makes the first transactions, so that none is late for that."""
        if isinstance(self._backend, Opens):
            self._backend.open()
        while len(self._ready) < _AHEAD and self._make():
            pass

    def run(self) -> None:
        """From before the start until everything is settled."""
        self._repeat(self._turn)
        self._begin_to_drain()
        self._repeat(self._drain_turn)
        self._conclude()

    def _repeat(self, turn: Turn) -> None:
        """Takes turns until one says that it was the last."""
        if isinstance(self._backend, Loops):
            self._backend.repeat(turn)
            return
        while (pause_s := turn()) is not None:
            if pause_s > 0.0:
                self._backend.wait(pause_s)

    def _turn(self) -> float | None:
        """Settles, releases, prepares; returns how long to wait at most, None at the end of the load."""
        if self._stop[0] != Stop.RUN or self.must_end():
            return None
        now = self._clock.now_ns()
        self._settle(now)
        self._dispatcher.ask_again()
        self._dispatcher.push_held(now)
        released = self._release(now)
        self._look_back(now)
        if released:
            return 0.0
        if not len(self._block) and self._exhausted and not self._ready:
            return None
        if len(self._ready) < _AHEAD and self._make():
            return 0.0
        due_s = (int(self._intended_ns[self._position]) - now) / 1e9 if len(self._block) else TICK_S
        due_s = min(due_s, (self._dispatcher.next_retry_ns - now) / 1e9)
        return min(max(due_s, TICK_S), _LONGEST_SLEEP_S)

    def close(self) -> None:
        """Closes what the backend has open in this process."""
        if isinstance(self._backend, Opens):
            self._backend.close()

    def _settle(self, now: int) -> None:
        while count := self._backend.poll(self._outcomes):
            self._dispatcher.settle(self._outcomes[:count], now)
            if count < len(self._outcomes):
                break

    def _release(self, now: int) -> bool:
        """Releases what is due of the current block; True if more may be due at once (the block is used up)."""
        if self._position == len(self._block):
            if len(self._block):
                self._spare.append(self._block.base if isinstance(self._block.base, np.ndarray) else self._block)
            if not self._ready and not self._make():
                self._block = np.zeros(0, TRANSACTION)
                self._position = 0
                return False
            self._block = self._ready.popleft()
            self._intended_ns = np.ascontiguousarray(self._block["intended_ns"])
            self._position = 0
        due = int(self._intended_ns.searchsorted(now, side="right"))
        if due > self._position:
            self._dispatcher.release(self._block[self._position : due], now)
            self._position = due
        return due == len(self._block)

    def _make(self) -> bool:
        if self._exhausted:
            return False
        block = self._spare.pop() if self._spare else np.zeros(_BLOCK, TRANSACTION)
        count = self._source.fill(block)
        if count == 0:
            self._exhausted = True
            return False
        self._ready.append(block[:count])
        return True

    def _look_back(self, now: int) -> None:
        """Once a second: what the live view shows of the second before."""
        second = min(now // 1_000_000_000, len(self._tallies.offered) - 1)
        if second <= self._second:
            return
        cpu = time.process_time_ns()
        self._tallies.cpu_ns[self._second] = cpu - self._cpu_ns
        self._cpu_ns = cpu
        histogram = self._recorder.response_of_window(self._second)
        if histogram.total:
            for i, percent in enumerate((50.0, 99.0, 99.9)):
                self._tallies.last_second_ns[i] = histogram.percentile_ns(percent) or 0
            self._tallies.last_second_ns[3] = self._second + 1
        self._second = second
        self._dispatcher.flush()

    def _begin_to_drain(self) -> None:
        self._drained_by_ns = self._clock.now_ns() + self._drain_ns

    def _drain_turn(self) -> float | None:
        """Waits for what is in flight, within bounds."""
        if not self._dispatcher.in_flight or self._stop[0] == Stop.GIVE_UP:
            return None
        now = self._clock.now_ns()
        if now > self._drained_by_ns:
            return None
        if self._stop[0] != Stop.RUN:
            self._dispatcher.stop_retrying(now)
        self._settle(now)
        self._dispatcher.ask_again()
        self._dispatcher.push_held(now)
        self._look_back(now)
        return TICK_S if self._dispatcher.in_flight else None

    def _conclude(self) -> None:
        """What is now left is in doubt."""
        now = self._clock.now_ns()
        self._settle(now)
        gone = self._stop[0] == Stop.GIVE_UP
        self._dispatcher.give_up(now, Status.UNKNOWN, Reason.NODE_DOWN if gone else Reason.TIMEOUT)
        self._dispatcher.flush()


def exact_sleeps() -> None:
    """Asks the kernel not to round this process's sleeps up by the default 50 µs: its ticks are of half a millisecond."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000, 0, 0, 0)


def no_more_huge_pages() -> None:
    """Asks the kernel to give this process small pages only, from here on.

    The histograms of a new second lie on pages that nothing has touched yet. NumPy asks for huge pages for large arrays, and to
    find and clear one took up to 12 ms in the middle of a turn; a small one takes a microsecond. See prctl(2).
    """
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def drive(connection: Connection, make_engine: MakeEngine, history: Path, expected: int) -> None:
    """The body of the engine's process: builds it, waits for the word to start, runs, and sends back `Ended`."""
    exact_sleeps()
    record = _History(history, expected)
    recorder, engine = make_engine(record.write)
    engine.must_end = lambda: record.errno != 0
    try:
        engine.prepare()
    except SimError as error:
        connection.send(error)
        return
    gc.freeze()
    no_more_huge_pages()
    connection.send("ready")
    connection.recv()
    began = time.process_time()
    engine.run()
    record.close()
    engine.close()
    used = time.process_time() - began
    connection.send(Ended(recorder.finish(), used, bytes(record.spilled), record.errno, *engine.health()))
    connection.close()


class MakeEngine(Protocol):
    """Builds the engine inside its process; takes what writes history."""

    def __call__(self, write: object) -> tuple[Recorder, WallEngine]:
        """The recorder and the engine over it."""
        ...
