"""Several generators: each sends its part of one schedule, from one instant on, and all stop at one transaction.

Every generator makes the whole stream of transactions, a pure function of the seed, and takes its own out of it; making one
costs a small part of sending it, and nothing has to be passed between processes. So n generators send what one would: the
same ids, amounts, parties and intended times.

Three things a single engine need not think of:

* *Where the run ends.* The auditor expects the transactions 1, 2, 3 … up to some last one. Generators that are told to stop
  are not all equally far. Each halts and says how far it came; the run answers with the farthest of these; each releases its
  own up to there, all of which are due by then, and drains.
* *One that is killed.* What it counts, and the history rows that it has not written yet, stand in shared memory, so that what
  became of its transactions can be told without it (`engine.lost_part`).
* *Opening connections.* They open theirs one after another: a listen queue is often short.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.dispatcher import Dispatcher
from simulator.engine.wall import TICK_S, Stop, WallEngine
from simulator.measure.recorder import HISTORY
from simulator.seeds import Stream
from simulator.shard.layout import shared_array
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.clock import Clock
    from simulator.engine.wall import Source
    from simulator.measure.recorder import Tallies
    from simulator.transaction import Reason, Status

_BUFFER_ROWS = 65_536  # history rows between two writes; a dispatcher flushes once a second, or when they are full


class Share(NamedTuple):
    """One generator of several: which transactions are its, and its part of what is limited."""

    number: int
    of: int

    def takes(self, batch: NDArray[np.void]) -> NDArray[np.bool_]:
        """Which of these transactions (TRANSACTION) are its: by their number, those that name another by the other's.

        So each generator sees the whole curve, and an original goes out before what refers to it, as with one generator.
        """
        first = np.where(batch["related"] == 0, batch["id"], batch["related"])
        mine: NDArray[np.bool_] = (first - np.uint64(1)) % np.uint64(self.of) == self.number
        return mine

    def of_limit(self, limit: int) -> int:
        """Its part of a limit; the parts of a limit of at least `of` add up to it, and each is at least 1."""
        return max(limit // self.of + (self.number < limit % self.of), 1)

    def seed(self, seed: int) -> int:
        """The seed of its balancer: generators that drew alike would send to the same node at the same time."""
        spawned = np.random.SeedSequence(seed, spawn_key=(int(Stream.BALANCER), self.number))
        return seed if self.number == 0 else int(spawned.generate_state(1, np.uint64)[0])


class PartSource:
    """The transactions of one generator, in order, out of those of the run."""

    def __init__(self, source: Source, share: Share, block: int = 4_096) -> None:
        """`block` transactions of the run are made at a time, which bounds how long `fill` takes."""
        self._source = source
        self._share = share
        self._whole = np.zeros(block, TRANSACTION)

    def fill(self, batch: NDArray[np.void]) -> int:
        """See `engine.wall.Source`; returns fewer than fit as a rule."""
        whole = self._whole[: len(batch)]
        while made := self._source.fill(whole):
            mine = whole[:made][self._share.takes(whole[:made])]
            if len(mine):
                batch[: len(mine)] = mine
                return len(mine)
        return 0


class Word(IntEnum):
    """What a generator says of itself, in shared words."""

    REACHED = 0  # the last transaction that it may have begun to release; written before it does
    PHASE = 1  # Phase
    MUST_END = 2  # 1: it cannot go on for a reason of its own, and the run must end
    WRITTEN = 3  # history rows in its file
    FLUSHING = 4  # rows of the buffer that it is about to write; 0: none


class Phase(IntEnum):
    """How far a generator is."""

    SENDING = 0
    HALTED = 1  # it was told to stop, and waits to be told where
    SENT = 2  # all of its part has been released


class Shared(NamedTuple):
    """What a generator writes and the run reads, also when the generator is no more; in shared memory."""

    tallies: Tallies
    rows: NDArray[np.void]  # (R,) HISTORY: the buffer
    row_count: NDArray[np.int64]  # (1,)
    words: NDArray[np.int64]  # (len(Word),)


def open_shared(tallies: Tallies) -> Shared:
    """Zeroed, around tallies that are in shared memory too."""
    return Shared(
        tallies, shared_array(_BUFFER_ROWS, HISTORY), shared_array(1, np.int64), shared_array(len(Word), np.int64)
    )


class PartDispatcher(Dispatcher):
    """A dispatcher whose state can be read after its process was killed, between any two instructions.

    It also knows the most in flight in seconds in which it releases nothing. One generator alone need not: what is in flight
    then was noted when it was released. The sum over several is an upper bound only if each notes what it carries over.
    """

    def __init__(self, shared: Shared, *args: Any, **options: Any) -> None:  # noqa: ANN401  the dispatcher's own
        super().__init__(*args, **options)
        self._history = shared.rows
        self._history_count = shared.row_count
        self._words = shared.words
        self._noted = 0  # the second up to which the most in flight is known

    def _carry_over(self, now_ns: int) -> None:
        """Nothing has changed since the last call, so what is in flight was so at the start of each second since."""
        top = self.tallies.in_flight_top
        second = min(max(now_ns, 0) // 1_000_000_000, len(top) - 1)
        if second > self._noted:
            level = int(self.tallies.in_flight.sum())
            since = top[self._noted + 1 : second + 1]
            np.maximum(since, level, out=since)
            self._noted = second

    def settle(self, outcomes: NDArray[np.void], now_ns: int) -> None:
        """See `Dispatcher.settle`."""
        self._carry_over(now_ns)
        super().settle(outcomes, now_ns)

    def push_held(self, now_ns: int) -> None:
        """See `Dispatcher.push_held`."""
        self._carry_over(now_ns)
        super().push_held(now_ns)

    def stop_retrying(self, now_ns: int) -> None:
        """See `Dispatcher.stop_retrying`."""
        self._carry_over(now_ns)
        super().stop_retrying(now_ns)

    def give_up(self, now_ns: int, status: Status, reason: Reason) -> None:
        """See `Dispatcher.give_up`."""
        self._carry_over(now_ns)
        super().give_up(now_ns, status, reason)

    def release(self, batch: NDArray[np.void], now_ns: int) -> None:
        """See `Dispatcher.release`."""
        self._carry_over(now_ns)
        if len(batch):
            self._words[Word.REACHED] = int(batch["id"][-1])
        super().release(batch, now_ns)

    def flush(self) -> None:
        """See `Dispatcher.flush`.

        Rows stay in the buffer when they have been written. While FLUSHING is set they are in the buffer whole, and in
        the file in part, in whole and counted, or not at all.
        """
        count = int(self._history_count[0])
        if count:
            self._words[Word.FLUSHING] = count
            super().flush()
            self._words[Word.WRITTEN] += count
            self._words[Word.FLUSHING] = 0


class GeneratorEngine(WallEngine):
    """The engine of one generator of several."""

    def __init__(
        self, dispatcher: PartDispatcher, source: Source, clock: Clock, stop: NDArray[np.int64], *,
        drain_ns: int, words: NDArray[np.int64], before: NDArray[np.int64], may_open: Callable[[], object],
    ) -> None:  # fmt: skip
        """`before` is a shared word: 0, or after a stop the first transaction that nobody releases any more.

        `may_open` returns when it is this generator's turn to open its connections.
        """
        super().__init__(dispatcher, source, clock, stop, drain_ns=drain_ns)
        self._words = words
        self._before = before
        self._may_open = may_open

    def prepare(self) -> None:
        """See `WallEngine.prepare`."""
        self._may_open()
        super().prepare()

    def _turn(self) -> float | None:
        if self._stop[0] != Stop.RUN or self.must_end():
            return self._halt()
        pause_s = super()._turn()
        if pause_s is not None:
            return pause_s
        if len(self._block) or self._ready or not self._exhausted:
            return self._halt()  # it was told to stop since the line above
        self._words[Word.PHASE] = Phase.SENT
        return None

    def _halt(self) -> float | None:
        """Settles what comes in until it is known where the run ends, and releases up to there."""
        self._words[Word.MUST_END] = int(self.must_end())
        self._words[Word.PHASE] = Phase.HALTED
        now = self._clock.now_ns()
        self._settle(now)
        self._dispatcher.ask_again()
        self._dispatcher.push_held(now)
        self._look_back(now)
        before = int(self._before[0])
        if not before:
            return TICK_S
        self._release_until(before, now)
        return None

    def _release_until(self, before: int, now: int) -> None:
        """Releases its transactions below this id. Another generator has released up to there, so all are due."""
        while True:
            if self._position == len(self._block):
                if not self._ready and not self._make():
                    return
                self._block = self._ready.popleft()
                self._position = 0
            stop = int(np.searchsorted(self._block["id"], np.uint64(before)))
            if stop > self._position:
                self._dispatcher.release(self._block[self._position : stop], now)
                self._position = stop
            if stop < len(self._block):
                return
