"""The processes that send: started together, stopped together, watched, and their records put together.

With one generator this is a pipe and a process, and the run reads its tallies as they are. With several each counts for itself,
and the run reads their sum, renewed at most ten times a second. One that ends before its time ends the load: what is left of
it would be another load than the scenario's. What it had to send is accounted for (`engine.lost_part`), and the run is
not valid.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from simulator import process
from simulator.audit.history import history_path
from simulator.balancer.fleet import EVENT
from simulator.engine.generators import PartSource, Phase, Share, Shared, Word, open_shared
from simulator.engine.lost_part import account_for, recover_history
from simulator.engine.wall import Ended, Stop, drive
from simulator.errors import BackendError, SimError
from simulator.measure.histogram import Histogram
from simulator.measure.merge import LastSecond, add_measured, add_tallies, nothing_measured
from simulator.measure.recorder import HISTORY, KINDS, LAG
from simulator.shard.layout import shared_array
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.clock import Clock
    from simulator.engine.wall import MakeEngine, Source, WallEngine
    from simulator.measure.recorder import Recorder, Tallies
    from simulator.shard.split import Split
    from simulator.workload.hot_keys import HotKeys

_REFRESH_S = 0.1  # how often the sum of the tallies is renewed at most
_EIO = 5
_HALTING_LOOK_S = 0.005  # how often the run looks while generators wait to be told where it ends


class Place(NamedTuple):
    """What a generator of several is told before its process begins."""

    share: Share
    shared: Shared
    before: NDArray[np.int64]  # see `GeneratorEngine`
    may_open: Callable[[], object]


class MakePart(Protocol):
    """Builds the engine of one of several generators inside its process."""

    def __call__(self, place: Place, write: object) -> tuple[Recorder, WallEngine]:
        """The recorder and the engine over it."""
        ...


class Due(NamedTuple):
    """What tells of a generator that is gone what it had to send."""

    source: Callable[[], Source]  # all transactions of the run, from the beginning
    split: Split
    hot: HotKeys


@dataclass
class _Generator:
    share: Share
    shared: Shared
    history: Path
    process: ForkProcess
    connection: Connection
    ended: Ended | None = None
    lost: str | None = None  # how it ended before its time
    died_ns: int = 0

    @property
    def over(self) -> bool:
        return self.ended is not None or self.lost is not None


class Generators:
    """The generators of one run. Everything but the processes is made before the first fork."""

    def __init__(
        self, count: int, open_tallies: Callable[[], Tallies], folder: Path, clock: Clock, stop: NDArray[np.int64],
        expected: float,
    ) -> None:  # fmt: skip
        """`open_tallies` makes tallies in shared memory; `expected` transactions are to come, about."""
        self.tallies = open_tallies()
        """What all of them counted; as of the last `refresh` where they are several."""
        self.count = count
        self._folder = folder
        self._clock = clock
        self._stop = stop
        self._expected = expected / count
        self._all: list[_Generator] = []
        self._shared = [open_shared(self.tallies if count == 1 else open_tallies()) for _ in range(count)]
        self._before = shared_array(1, np.int64)
        self._last_second = LastSecond()
        self._refreshed_s = 0.0
        self.lost: list[str] = []
        """A line for each that ended before its time, once `gather` has accounted for it."""

    # ---- before ----

    def start(self, make_engine: MakeEngine, make_part: MakePart) -> None:
        """Starts every process. `make_engine` is for one generator, `make_part` for several."""
        rows = int(self._expected + 6 * np.sqrt(self._expected) + 1)
        for number, shared in enumerate(self._shared):
            here, there = Pipe()
            share = Share(number, self.count)
            make: MakeEngine = make_engine
            if self.count > 1:
                make = partial(make_part, Place(share, shared, self._before, there.recv))
            path = history_path(self._folder, number)
            name = "engine" if self.count == 1 else f"generator {number}"
            child = process.start(name, drive, there, make, path, rows * HISTORY.itemsize)
            there.close()
            self._all.append(_Generator(share, shared, path, child, here))

    def make_ready(self) -> None:
        """Lets them open what they need, one after another. Raises BackendError, or what a generator raised."""
        for generator in self._all:
            if self.count > 1:
                generator.connection.send("open")
            self._receive(generator)

    def go(self) -> None:
        """Lets all of them begin; the clock has been started."""
        for generator in self._all:
            generator.connection.send("go")

    # ---- during ----

    @property
    def pids(self) -> list[int]:
        """Their processes, also of those that have ended."""
        return [generator.process.pid or 0 for generator in self._all]

    @property
    def over(self) -> bool:
        """Whether each has handed over its record, or is gone."""
        return all(generator.over for generator in self._all)

    @property
    def awaited(self) -> list[Any]:
        """What `multiprocessing.connection.wait` is to wait for."""
        return [one for g in self._all if not g.over for one in (g.connection, g.process.sentinel)]

    @property
    def look_s(self) -> float:
        """How long the run may wait before its next look."""
        halting = self.count > 1 and self._stop[0] != Stop.RUN and not self._before[0] and not self.over
        return _HALTING_LOOK_S if halting else np.inf

    def look(self) -> list[dict[str, Any]]:
        """Takes in what has ended, stops all if one cannot go on, tells where the run ends; returns events.

        Raises BackendError if the only generator is gone.
        """
        events = []
        for generator in self._all:
            if generator.over or not (generator.connection.poll() or generator.process.exitcode is not None):
                continue
            try:
                generator.ended = self._receive(generator)
                generator.process.join()
                generator.connection.close()
            except BackendError:
                if self.count == 1:
                    raise
                generator.connection.close()
                generator.lost = _how(generator.process)
                generator.died_ns = self._clock.now_ns()
                events.append(
                    {"event": "generator_lost", "generator": generator.share.number, "pid": generator.process.pid,
                     "reason": generator.lost}
                )  # fmt: skip
        if self.count == 1:
            return events
        stuck = any(generator.shared.words[Word.MUST_END] for generator in self._all)
        if self._stop[0] == Stop.RUN and (stuck or any(generator.lost for generator in self._all)):
            self._stop[0] = Stop.DRAIN
        self._tell_the_end()
        return events

    def refresh(self, *, at_once: bool = False) -> None:
        """Renews the sum of what they counted, if it is older than a tenth of a second."""
        now_s = time.monotonic()
        if self.count == 1 or (now_s - self._refreshed_s < _REFRESH_S and not at_once):
            return
        self._refreshed_s = now_s
        add_tallies([shared.tallies for shared in self._shared], self.tallies)
        self._last_second.look(self.tallies, self._clock.now_ns())

    def kill(self) -> None:
        """Ends all of them at once."""
        for generator in self._all:
            process.kill(generator.process)

    def _tell_the_end(self) -> None:
        """After a stop, once none of them releases any more: the first transaction that nobody has begun to release."""
        live = [g.shared.words for g in self._all if g.lost is None]
        if self._stop[0] != Stop.RUN and not self._before[0] and all(w[Word.PHASE] != Phase.SENDING for w in live):
            self._before[0] = max(int(g.shared.words[Word.REACHED]) for g in self._all) + 1

    def _receive(self, generator: _Generator) -> Any:  # noqa: ANN401  what the engine sends
        try:
            received = generator.connection.recv()
        except (EOFError, ConnectionResetError):
            generator.process.join()
            which = "" if self.count == 1 else f" (generator {generator.share.number})"
            raise BackendError(
                f"the process that generates the load{which} ended early (code {generator.process.exitcode})"
            ) from None
        if isinstance(received, SimError):
            raise received
        return received

    # ---- after ----

    def gather(self, due: Due) -> Ended:
        """Accounts for those that are gone, and puts the records of all together; `tallies` is then the whole."""
        if self.count == 1:
            (only,) = self._all
            if only.ended is None:
                raise RuntimeError("a run is gathered when it is over")
            return only.ended
        rest = all(g.shared.words[Word.PHASE] == Phase.SENT for g in self._all if g.lost is None)
        whole = rest and any(g.lost is None for g in self._all)
        records = []
        for generator in self._all:
            if generator.lost is not None:
                before = None if whole else int(self._before[0])
                records.append(self._account_for(generator, generator.lost, due, before))
            elif generator.ended is not None:
                records.append(generator.ended)
        self.refresh(at_once=True)
        return _together(records)

    def _account_for(self, generator: _Generator, how: str, due: Due, before: int | None) -> Ended:
        shared, errno = generator.shared, 0
        said = f"generator {generator.share.number} of {self.count} {how} after {generator.died_ns / 1e9:.1f} s"
        try:
            recover_history(generator.history, shared)
            left = account_for(
                generator.history, PartSource(due.source(), generator.share), shared, before=before, split=due.split,
                hot=due.hot, died_ns=generator.died_ns,
            )  # fmt: skip
        except OSError as error:
            errno = error.errno or _EIO
            self.lost.append(f"{said}: what became of its transactions could not be written down")
        else:
            self.lost.append(
                f"{said}: of its transactions {left.unknown:,} are in doubt and {left.dropped:,} were never sent; its times "
                "by second, kind and node are lost"
            )
        windows, nodes = shared.tallies.node_sent.shape
        cpu_s = float(shared.tallies.cpu_ns.sum()) / 1e9
        return Ended(nothing_measured(windows, KINDS, nodes), cpu_s, b"", errno, np.zeros(0, EVENT), 0)

    def summary(self) -> list[dict[str, Any]]:
        """What each of several did, for summary.json; empty where there is one."""
        return (
            [] if self.count == 1 else [_described(g.share, g.shared.tallies, g.process.pid, g.lost) for g in self._all]
        )


def _how(child: ForkProcess) -> str:
    """How a process ended before its time, in words."""
    code = child.exitcode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended early (code {code})"


def _together(records: Sequence[Ended]) -> Ended:
    """The records of several generators as one; a generator is a balancer, and its number is that of its health events."""
    events = [record.health.copy() for record in records]
    for number, own in enumerate(events):
        own["balancer"] = number
    health = np.concatenate(events)
    return Ended(
        add_measured([record.measured for record in records]),
        sum(record.cpu_s for record in records),
        b"".join(record.spilled for record in records),
        next((record.history_errno for record in records if record.history_errno), 0),
        health[np.argsort(health["time_ns"], kind="stable")],
        sum(record.health_count for record in records),
    )


def _described(share: Share, tallies: Tallies, pid: int | None, lost: str | None) -> dict[str, Any]:
    by_status = tallies.by_kind.sum(axis=0)
    lag_ns = Histogram(tallies.totals[LAG]).percentile_ns(99)
    offered, dropped = int(by_status[Status.PENDING]), int(by_status[Status.DROPPED])
    return {
        "generator": share.number,
        "pid": pid,
        "offered": offered,
        "sent": offered - dropped,
        "dropped": dropped,
        "schedule_lag_p99_ms": None if lag_ns is None else round(lag_ns / 1e6, 6),
        "in_flight_max": int(tallies.in_flight_top.max(initial=0)),
        "cpu_s": round(float(tallies.cpu_ns.sum()) / 1e9, 3),
        "lost": lost,
    }
