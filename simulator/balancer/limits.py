"""Adaptive concurrency: how many requests a node (or a balancer's view of it) may have in flight, learnt from response times.

One `LIMIT` row a node; `allows` before a request is taken, `update` after each answer. After Netflix's concurrency-limits,
classes `Gradient2Limit`, `VegasLimit`, `AIMDLimit`, with their defaults:

* gradient2: limit × clamp(tolerance × long / short, ½ … 1) + 4, smoothed by 0.2. `short` is the last response time, `long`
  an average over 600 of them (a plain mean of the first 10); tolerance 1.5. A long average more than twice the short one is
  cut by 5 %, so that it recovers after an overload. No change while less than half of the limit is used. 20 … 200, from 20.
* vegas: the queue is limit × (1 − least / last). Below log₁₀(limit) the limit grows by 6 log₁₀, below 3 log₁₀ by one log₁₀,
  above 6 log₁₀ it falls by one; an error lowers it by one too. `least` is the lowest response time seen, measured anew
  after about 30 × limit answers (Netflix jitters that; here it is exact). 1 … 1,000, from 20.
* aimd: one more after an answer that found at least half of the limit in use, × 0.9 after an error or an answer slower than
  5 s. 20 … 200, from 20.
"""

from __future__ import annotations

from enum import IntEnum
from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Limiter(IntEnum):
    """Who decides the limit."""

    NONE = 0
    GRADIENT2 = 1
    VEGAS = 2
    AIMD = 3


class LimitSettings(NamedTuple):
    """Scalars of a limiter."""

    limiter: int  # Limiter
    start: float
    least: float
    most: float
    smoothing: float  # gradient2
    tolerance: float
    queue: float
    window: float
    warm_up: float
    multiplier: float  # vegas: answers between two measurements of the least time, over the limit
    ratio: float  # aimd
    timeout_ns: float


_BASE = LimitSettings(
    limiter=0, start=20.0, least=20.0, most=200.0, smoothing=0.2, tolerance=1.5, queue=4.0, window=600.0, warm_up=10.0,
    multiplier=30.0, ratio=0.9, timeout_ns=5e9,
)  # fmt: skip

LIMITERS = {
    "none": _BASE,
    "gradient2": _BASE._replace(limiter=int(Limiter.GRADIENT2)),
    "vegas": _BASE._replace(limiter=int(Limiter.VEGAS), least=1.0, most=1_000.0),
    "aimd": _BASE._replace(limiter=int(Limiter.AIMD)),
}

LIMIT = np.dtype(
    [
        ("limit", "<f8"),
        ("long_ns", "<f8"),  # gradient2
        ("sum_ns", "<f8"),  # of the warm-up
        ("answers", "<f8"),  # gradient2: of the warm-up; vegas: since the least was measured
        ("least_ns", "<f8"),  # vegas; 0: none yet
    ]
)

_NONE, _GRADIENT2, _VEGAS = int(Limiter.NONE), int(Limiter.GRADIENT2), int(Limiter.VEGAS)


def open_limits(settings: LimitSettings, rows: int) -> NDArray[np.void]:
    """One LIMIT row each, as nothing is known."""
    limits = np.zeros(rows, LIMIT)
    limits["limit"] = settings.start
    return limits


@kernel
def allows(settings: LimitSettings, limits: NDArray[np.void], row: int, in_flight: int) -> bool:
    """Whether one more request may be taken with so many in flight."""
    return settings.limiter == _NONE or in_flight < floor(limits[row]["limit"])


@kernel
def _gradient2(settings: LimitSettings, state: np.void, took_ns: float, in_flight: int) -> None:
    if state["answers"] < settings.warm_up:
        state["answers"] += 1.0
        state["sum_ns"] += took_ns
        state["long_ns"] = state["sum_ns"] / state["answers"]
    else:
        factor = 2.0 / (settings.window + 1.0)
        state["long_ns"] = state["long_ns"] * (1.0 - factor) + took_ns * factor
    long_ns = state["long_ns"]
    if long_ns / took_ns > 2.0:  # noqa: PLR2004  Netflix's
        state["long_ns"] = long_ns * 0.95
    limit = state["limit"]
    if in_flight < limit / 2:
        return
    gradient = max(0.5, min(1.0, settings.tolerance * long_ns / took_ns))
    wanted = limit * gradient + settings.queue
    wanted = limit * (1.0 - settings.smoothing) + wanted * settings.smoothing
    state["limit"] = max(settings.least, min(settings.most, wanted))


@kernel
def _vegas(settings: LimitSettings, state: np.void, took_ns: float, in_flight: int, good: int) -> None:
    limit = state["limit"]
    state["answers"] += 1.0
    if state["answers"] >= settings.multiplier * limit:
        state["answers"] = 0.0
        state["least_ns"] = took_ns
        return
    if state["least_ns"] == 0.0 or took_ns < state["least_ns"]:
        state["least_ns"] = took_ns
        return
    step = max(1.0, floor(log10(limit)))
    if good == 0:
        wanted = limit - step
    elif in_flight * 2 < limit:
        return
    else:
        queue = ceil(limit * (1.0 - state["least_ns"] / took_ns))
        if queue <= step:
            wanted = limit + 6.0 * step
        elif queue < 3.0 * step:
            wanted = limit + step
        elif queue > 6.0 * step:
            wanted = limit - step
        else:
            return
    state["limit"] = max(settings.least, min(settings.most, wanted))


@kernel
def update(
    settings: LimitSettings, limits: NDArray[np.void], row: int, took_ns: float, in_flight: int, good: int
) -> None:  # fmt: skip
    """An answer after `took_ns` > 0 that found `in_flight` requests, itself among them; `good` 0: an error or time-out."""
    state = limits[row]
    if settings.limiter == _NONE:
        return
    if settings.limiter == _GRADIENT2:
        if good != 0:  # it learns from times only
            _gradient2(settings, state, took_ns, in_flight)
    elif settings.limiter == _VEGAS:
        _vegas(settings, state, took_ns, in_flight, good)
    else:
        limit = state["limit"]
        if good == 0 or took_ns > settings.timeout_ns:
            limit *= settings.ratio
        elif in_flight * 2 >= limit:
            limit += 1.0
        state["limit"] = max(settings.least, min(settings.most, limit))
