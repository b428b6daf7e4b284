"""How soon an answer comes when there is little to do: an open loop of regular arrivals."""

from __future__ import annotations

import ctypes
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.bench.rig import BooksError, Rig
from simulator.errors import BackendError
from simulator.kernel import int64, kernel
from simulator.measure.histogram import COUNTS, Histogram, count_one
from simulator.shard.ring import pop, push
from simulator.transaction import OUTCOME, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simulator.bench.interruption import Interruption
    from simulator.bench.premade import Premade

RATE_PER_S = 10_000
_GAP_NS = 1_000_000_000 // RATE_PER_S
_START_NS = 20_000_000
_SLEEP_MAX_S = 0.01
_DRAIN_NS = 10_000_000_000
_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000
_OK = int(Status.OK)


@dataclass(frozen=True)
class LightLoad:
    """Response times (intended → answered) and schedule lags (intended → sent) at a light load, ms."""

    durability: str
    rate_per_s: int
    answered: int
    response_ms_p50: float | None
    response_ms_p99: float | None
    schedule_lag_ms_p99: float | None


@kernel
def send_due(
    cursors: NDArray[np.int64], slots: NDArray[np.void], batch: NDArray[np.void], start: int, now_ns: int,
    first_id: int, lags: NDArray[np.int64],
) -> int:  # fmt: skip
    """Pushes what is due of batch[start:] and counts its lags from `first_id` on; returns how many were pushed."""
    stop = start
    while stop < batch.shape[0] and batch[stop]["intended_ns"] <= now_ns:
        stop += 1
    sent = push(cursors, slots, batch, start, stop)
    for i in range(start, start + sent):
        if batch[i]["id"] >= first_id:
            count_one(lags, int64(now_ns - batch[i]["intended_ns"]))
    return sent


@kernel
def count_responses(
    outcomes: NDArray[np.void], count: int, now_ns: int, gap_ns: int, first_id: int, counts: NDArray[np.int64]
) -> int:
    """Counts the response times of outcomes[:count], whose id i was intended at (i - 1) · gap_ns; returns how many were ok."""
    ok = 0
    for i in range(count):
        number = int64(outcomes[i]["id"])
        if number >= first_id:
            count_one(counts, now_ns - (number - 1) * gap_ns)
        if outcomes[i]["status"] == _OK:
            ok += 1
    return ok


def light_load(
    rig: Rig, premade: Premade, interruption: Interruption, *, warm_up_s: float, seconds: float
) -> LightLoad:
    """Sends RATE_PER_S regular arrivals a second to a fresh platform, then drains and closes it.

    Raises as `saturate` does.
    """
    total = int((warm_up_s + seconds) * RATE_PER_S)
    batch = np.resize(premade.transactions, total)
    batch["id"] = np.arange(1, total + 1)
    batch["intended_ns"] = np.arange(total) * _GAP_NS
    home = rig.shape.owners()[batch["payer"] % rig.shape.shards]
    batches = [batch[home == node] for node in range(rig.shape.nodes)]
    lags, responses = np.zeros(COUNTS, np.int64), np.zeros(COUNTS, np.int64)
    first = int(warm_up_s * RATE_PER_S) + 1
    with _exact_sleeps():
        ok = _drive(rig, batches, interruption, first, lags, responses)
    rig.close()
    if ok != total:
        raise BooksError(f"of {total:,} transactions sent at a light load {ok:,} were applied")
    response, lag = Histogram(responses), Histogram(lags)
    return LightLoad(
        rig.durability.name.lower(), RATE_PER_S, response.total,
        to_ms(response.percentile_ns(50)), to_ms(response.percentile_ns(99)), to_ms(lag.percentile_ns(99)),
    )  # fmt: skip


def _drive(
    rig: Rig, batches: list[NDArray[Any]], interruption: Interruption, first: int,
    lags: NDArray[np.int64], responses: NDArray[np.int64],
) -> int:  # fmt: skip
    """Sends all and waits for every answer; returns how many were ok."""
    wiring = rig.wiring
    total = sum(len(batch) for batch in batches)
    outcomes = np.zeros(4_096, OUTCOME)
    positions = [0] * len(batches)
    answered = ok = 0
    start = time.monotonic_ns() + _START_NS
    deadline = total * _GAP_NS + _DRAIN_NS
    look = 0
    while answered < total:
        now = time.monotonic_ns() - start
        for node, batch in enumerate(batches):
            ring = wiring.requests[node]
            if sent := send_due(ring.cursors, ring.slots, batch, positions[node], now, first, lags):
                wiring.node_bells[node].ring()
                positions[node] += sent
        for ring in wiring.replies:
            if count := pop(ring.cursors, ring.slots, outcomes):
                ok += count_responses(outcomes, count, time.monotonic_ns() - start, _GAP_NS, first, responses)
                answered += count
        if now >= look:
            look = now + 50_000_000
            interruption.check()
            rig.look()
            if now > deadline:
                raise BackendError(f"{total - answered:,} of {total:,} transactions had no answer in time")
        due = [int(b["intended_ns"][p]) for b, p in zip(batches, positions, strict=True) if p < len(b)]
        pause = (min(due) - (time.monotonic_ns() - start)) / 1e9 if due else _SLEEP_MAX_S
        if pause > 0 and answered < total:
            wiring.dispatcher_bell.wait(min(pause, _SLEEP_MAX_S))
    return ok


@contextmanager
def _exact_sleeps() -> Iterator[None]:
    """Sleeps of 100 µs are not rounded up by the default 50 µs in this process."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)  # 0: back to the default


def to_ms(value_ns: int | None) -> float | None:
    """Nanoseconds in ms; None stays None."""
    return None if value_ns is None else value_ns / 1e6
