"""The windows that a run is counted in: seconds on the wall clock; fine round the peak, coarse elsewhere on the virtual one.

A grid is its edges: int64 nanoseconds of shape (T + 1,), strictly increasing, from 0. Window i holds the times from edge i to
just before edge i + 1. What comes before the first edge counts in the first window, what comes after the last edge in the
last one, so that nothing is lost and counts over all windows are the whole. A rate is a count over its window's length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Edges = NDArray[np.int64]

NS_PER_S = 1_000_000_000
FINE_NS = 100_000_000  # what the opening spike of a sale needs to be seen in
FINE_WINDOWS = 1_000
COARSE_WINDOWS = (
    1_450  # a day in minutes, and a little to drain; with the fine ones fewer than a screen has pixels twice
)
_BEFORE_PEAK = 0.2  # of the fine windows lie before the peak: what follows it (queues, retries) lasts longer
_STEPS_NS = tuple(int(s * NS_PER_S) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600))


@inlined
def window_of(edges: NDArray[np.int64], time_ns: int, hint: int) -> int:
    """The window of a time. `hint` (0 ≤ hint < T) is tried first: who moves with time finds the next one without a search."""
    window = hint
    last = edges.shape[0] - 2
    while window < last and time_ns >= edges[window + 1]:
        window += 1
    while window > 0 and time_ns < edges[window]:
        window -= 1
    return window


def seconds_grid(seconds: int) -> Edges:
    """So many full seconds, from 0."""
    return np.arange(seconds + 1, dtype=np.int64) * NS_PER_S


def peak_grid(duration_ns: int, tail_ns: int, peak_ns: int) -> Edges:
    """A grid of at most FINE_WINDOWS + COARSE_WINDOWS (+ 2) windows over a run and what follows it.

    A run that fits is counted in windows of 100 ms throughout. Of a longer one the 1,000 windows round `peak_ns` are that
    fine, the rest as fine as 1,450 windows can make it, at a round width.

    Args:
        duration_ns: how long transactions arrive, more than 0.
        tail_ns: how long answers may come after that, 0 or more.
        peak_ns: where the rate is highest.
    """
    end = duration_ns + tail_ns
    if end <= (FINE_WINDOWS + COARSE_WINDOWS) * FINE_NS:
        return np.arange(-(-end // FINE_NS) + 1, dtype=np.int64) * FINE_NS
    fine = FINE_WINDOWS * FINE_NS
    wanted = (end - fine) / COARSE_WINDOWS
    width = next((step for step in _STEPS_NS if step >= wanted), int(-(-wanted // NS_PER_S)) * NS_PER_S)
    # Coarse edges are multiples of their width; beside the fine stretch one window on each side may be shorter.
    start = max(0, min(peak_ns - int(_BEFORE_PEAK * fine), -(-(end - fine) // FINE_NS) * FINE_NS)) // FINE_NS * FINE_NS
    stop = start + fine
    before = np.arange(0, start, width, dtype=np.int64)
    dense = np.arange(start, stop + 1, FINE_NS, dtype=np.int64)
    after = np.arange(-(-stop // width) * width, end + width, width, dtype=np.int64)
    edges = np.concatenate([before, dense, after])
    return np.unique(edges)


def lengths_s(edges: Edges) -> NDArray[np.float64]:
    """The length of each window in seconds, (T,)."""
    return np.diff(edges) / NS_PER_S


def starts_s(edges: Edges) -> NDArray[np.float64]:
    """Where each window starts, in seconds, (T,)."""
    return edges[:-1] / NS_PER_S


def is_seconds(edges: Edges) -> bool:
    """Whether every window is one full second."""
    return bool((np.diff(edges) == NS_PER_S).all())


def uniform(edges: Edges) -> tuple[NDArray[np.int64], int]:
    """The first window of each group that makes windows of one length, the longest of the grid's, and that length (ns).

    What is left over at the end makes no whole window and is part of the last group. Every multiple of the longest window is an
    edge of a grid made here.
    """
    width = int(np.diff(edges).max())
    firsts = np.flatnonzero(edges[:-1] % width == 0)
    return firsts, width


def windows_until(edges: Edges, time_ns: int) -> int:
    """How many windows end by then: those that are whole."""
    return max(int(np.searchsorted(edges, time_ns, side="right")) - 1, 0)


def seconds_or_longer(edges: Edges, windows: int) -> list[int]:
    """The first of each group of windows that makes a second or more, of the first `windows`; the last may be shorter."""
    firsts = []
    at = 0
    while at < windows:
        firsts.append(at)
        at = int(np.searchsorted(edges, edges[at] + NS_PER_S, side="left"))
    return firsts


def per_second(edges: Edges, counts: NDArray[np.int64], windows: int) -> NDArray[np.float64]:
    """The rates of `rates_and_lengths`."""
    return rates_and_lengths(edges, counts, windows)[0]


def rates_and_lengths(
    edges: Edges, counts: NDArray[np.int64], windows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates per second of the first `windows` windows, those shorter than a second joined until they make one; and lengths (s).

    What is called the busiest or the worst second is then the same on every grid. Windows left over at the end that do not
    make a second are no second and are left out; of a run that has none, all together make the one rate.
    """
    windows = min(windows, len(edges) - 1)
    if windows <= 0:
        return np.zeros(0), np.zeros(0)
    firsts = seconds_or_longer(edges, windows)
    stops = [*firsts[1:], windows]
    if edges[stops[-1]] - edges[firsts[-1]] < NS_PER_S and len(firsts) > 1:
        firsts, stops = firsts[:-1], stops[:-1]
    sums = np.array([int(counts[a:b].sum()) for a, b in zip(firsts, stops, strict=True)])
    lengths = np.array([edges[b] - edges[a] for a, b in zip(firsts, stops, strict=True)]) / NS_PER_S
    return sums / lengths, lengths
