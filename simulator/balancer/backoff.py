"""How long a client waits before it tries again: exponential backoff with jitter, the same on both clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.kernel import inlined, int64
from simulator.seeds import uniform

if TYPE_CHECKING:
    import numpy as np

NO_JITTER, FULL_JITTER, EQUAL_JITTER = 0, 1, 2
JITTERS = {"none": NO_JITTER, "full": FULL_JITTER, "equal": EQUAL_JITTER}


@inlined
def backoff_ns(
    retries: int, backoff: float, factor: float, longest: float, jitter: int, key: np.uint64, index: int
) -> int:
    """How long to wait before retry number 0, 1 …: backoff × factor^retries, at most `longest`, with jitter.

    Full and equal jitter as in M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    wait = min(backoff * factor**retries, longest)
    if jitter == FULL_JITTER:
        wait *= uniform(key, index)
    elif jitter == EQUAL_JITTER:
        wait *= 0.5 + 0.5 * uniform(key, index)
    return int64(wait)
