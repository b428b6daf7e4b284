"""One cell of the table: rings kept full, answers counted, and nothing lost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.bench.rig import BooksError, Gauge, Rig
from simulator.errors import BackendError
from simulator.kernel import kernel
from simulator.shard.ring import free, pop, push
from simulator.transaction import OUTCOME, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.bench.interruption import Interruption

_CHUNK = 4_096  # transactions sent before looking at the answers: 256 KiB, which stays in a core's cache
_LEAST = 1_024  # a ring with less room than this is full: small sends would only wake the node in vain
_IDLE_S = 0.001
_LOOK_S = 0.05
_DRAIN_S = 30.0
# A tally: the counts by status, the sum of the answered ids, then the counts of what was not applied by reason.
_ID_SUM = len(Status)
_REASONS = _ID_SUM + 1
_TALLY = _REASONS + max(Reason) + 1
_OK = int(Status.OK)


@dataclass(frozen=True)
class Load:
    """What a saturated platform did in the measured seconds, and over its whole life."""

    measured_s: float
    ok: int  # in the measured seconds
    gauge: Gauge  # in the measured seconds
    feeder_cores: float  # what this process took meanwhile; the nodes had the rest
    stopped_early: bool  # the journals reached the stated cap
    sent_in_all: int
    ok_in_all: int
    rejected_in_all: int
    rejected_by_reason: dict[str, int]


@kernel
def send(
    cursors: NDArray[np.int64], slots: NDArray[np.void], premade: NDArray[np.void], start: int, stop: int, next_id: int
) -> int:
    """Pushes what fits of premade[start:stop] under the ids next_id, next_id + 1 …; returns how many that was."""
    count = min(stop - start, free(cursors, slots.shape[0]))
    for i in range(count):
        premade[start + i]["id"] = next_id + i
    return push(cursors, slots, premade, start, start + count)


@kernel
def take(
    cursors: NDArray[np.int64], slots: NDArray[np.void], outcomes: NDArray[np.void], tally: NDArray[np.int64]
) -> int:
    """Takes up to len(outcomes) answers and adds them to `tally` (ids modulo 2^64); returns how many."""
    count = pop(cursors, slots, outcomes)
    for i in range(count):
        tally[outcomes[i]["status"]] += 1
        tally[_ID_SUM] += np.int64(outcomes[i]["id"])
        if outcomes[i]["status"] != _OK:
            tally[_REASONS + outcomes[i]["reason"]] += 1
    return count


class Feeder:
    """Keeps the rings of a platform full with pre-made transactions, each under a new id."""

    def __init__(self, rig: Rig, batches: list[NDArray[Any]]) -> None:
        self._wiring = rig.wiring
        self._batches = batches
        self._positions = [0] * len(batches)
        self._outcomes = np.zeros(_CHUNK, OUTCOME)
        self.tally = np.zeros(_TALLY, np.int64)
        self.sent = 0

    @property
    def answered(self) -> int:
        """How many answers have come."""
        return int(self.tally[:_ID_SUM].sum())

    def feed(self) -> bool:
        """Sends a chunk to each node whose ring has room; says whether anything was sent."""
        before = self.sent
        for node, batch in enumerate(self._batches):
            ring = self._wiring.requests[node]
            if not len(batch) or free(ring.cursors, ring.capacity) < _LEAST:
                continue
            start = self._positions[node]
            stop = min(start + _CHUNK, len(batch))
            sent = send(ring.cursors, ring.slots, batch, start, stop, self.sent + 1)
            self._positions[node] = 0 if start + sent == len(batch) else start + sent
            self.sent += sent
            self._wiring.node_bells[node].ring()
        return self.sent > before

    def take(self) -> bool:
        """Takes what answers there are; says whether there were any."""
        taken = 0
        for ring in self._wiring.replies:
            while count := take(ring.cursors, ring.slots, self._outcomes, self.tally):
                taken += count
        return taken > 0

    def wait(self) -> None:
        """Sleeps until a node has answered, at most a millisecond."""
        self._wiring.dispatcher_bell.wait(_IDLE_S)

    def reasons(self) -> dict[str, int]:
        """Why transactions were not applied, and how many each."""
        found = {reason.name.lower(): int(self.tally[_REASONS + reason]) for reason in Reason}
        return {name: number for name, number in found.items() if number}

    def complete(self) -> bool:
        """Whether what was answered is what was sent: ids are 1 … sent, so a lost one and a doubled one do not cancel."""
        asked = self.sent * (self.sent + 1) // 2
        return self.answered == self.sent and (int(self.tally[_ID_SUM]) - asked) % 2**64 == 0


def saturate(
    rig: Rig,
    batches: list[NDArray[Any]],
    interruption: Interruption,
    *,
    warm_up_s: float,
    seconds: float,
    disk_bytes: int,
) -> Load:
    """Loads a platform to its limit, then drains and closes it.

    Args:
        rig: the platform, fresh.
        batches: a TRANSACTION array for each node, of payers whom it owns; sent over and over under new ids.
        interruption: is asked now and then.
        warm_up_s: first this long, not measured.
        seconds: then this long.
        disk_bytes: what the journals may take; the cell ends early there.

    Raises:
        BackendError: a node stopped, or did not answer.
        BooksError: something was lost.
        KeyboardInterrupt: by `interruption`.
    """
    feeder = Feeder(rig, batches)
    _run(feeder, rig, interruption, seconds=warm_up_s, disk_bytes=disk_bytes // 2)
    began, cpu, ok, gauge = time.perf_counter(), time.process_time(), int(feeder.tally[Status.OK]), rig.gauge()
    full = _run(feeder, rig, interruption, seconds=seconds, disk_bytes=disk_bytes)
    ended, cpu_ended, ok_ended, gauge_ended = (
        time.perf_counter(), time.process_time(), int(feeder.tally[Status.OK]), rig.gauge(),
    )  # fmt: skip
    _drain(feeder, rig, interruption)
    rig.close()
    unlike = feeder.sent - int(feeder.tally[Status.OK]) - int(feeder.tally[Status.REJECTED])
    if unlike or not feeder.complete():
        raise BooksError(
            f"of {feeder.sent:,} transactions sent {feeder.answered:,} were answered, {unlike:,} unlike the rest"
        )
    return Load(
        measured_s=ended - began,
        ok=ok_ended - ok,
        gauge=gauge_ended.since(gauge),
        feeder_cores=(cpu_ended - cpu) / (ended - began),
        stopped_early=full,
        sent_in_all=feeder.sent,
        ok_in_all=int(feeder.tally[Status.OK]),
        rejected_in_all=int(feeder.tally[Status.REJECTED]),
        rejected_by_reason=feeder.reasons(),
    )


def _run(feeder: Feeder, rig: Rig, interruption: Interruption, *, seconds: float, disk_bytes: int) -> bool:
    """Feeds for so long; True if the journals reached `disk_bytes` before."""
    now = time.perf_counter()
    end, look = now + seconds, now
    while now < end:
        moved = feeder.feed()
        if not (feeder.take() or moved):
            feeder.wait()
        now = time.perf_counter()
        if now >= look:
            interruption.check()
            rig.look()
            if rig.journal_bytes() >= disk_bytes:
                return True
            look = now + _LOOK_S
    return False


def _drain(feeder: Feeder, rig: Rig, interruption: Interruption) -> None:
    """Takes the answers that are still to come."""
    deadline = time.perf_counter() + _DRAIN_S
    while feeder.answered < feeder.sent:
        if not feeder.take():
            interruption.check()
            rig.look()
            if time.perf_counter() > deadline:
                missing = feeder.sent - feeder.answered
                raise BackendError(f"{missing:,} of {feeder.sent:,} transactions had no answer after {_DRAIN_S:.0f} s")
            feeder.wait()
