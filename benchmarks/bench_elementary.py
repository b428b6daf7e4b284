"""Our logarithm and exponential beside the C library's, in loops over an array: nanoseconds a value."""

from __future__ import annotations

import math
import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from simulator import elementary
from simulator.kernel import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Loop = Callable[[NDArray[np.float64], NDArray[np.float64]], None]

VALUES = 4_096
TURNS = 2_000
ROUNDS = 5


@kernel
def _log(values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(values.size):
        out[i] = elementary.log(values[i])


@kernel
def _library_log(values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(values.size):
        out[i] = math.log(values[i])


@kernel
def _exp(values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(values.size):
        out[i] = elementary.exp(values[i])


@kernel
def _library_exp(values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(values.size):
        out[i] = math.exp(values[i])


def ns(loop: Loop, values: NDArray[np.float64]) -> float:
    """Nanoseconds a value, once it is compiled."""
    out = np.empty_like(values)
    loop(values, out)
    began = time.process_time_ns()
    for _ in range(TURNS):
        loop(values, out)
    return (time.process_time_ns() - began) / TURNS / len(values)


def main() -> None:
    """Medians of some rounds, the two of a pair by turns."""
    values = np.random.default_rng(1).random(VALUES)
    for name, ours, library in (("log", _log, _library_log), ("exp", _exp, _library_exp)):
        rounds = [(ns(ours, values), ns(library, values)) for _ in range(ROUNDS)]
        mine, theirs = (median(column) for column in zip(*rounds, strict=True))
        print(f"{name}: {mine:.2f} ns, of the C library {theirs:.2f} ns: {theirs / mine:.1f} × as fast")


if __name__ == "__main__":
    main()
