"""Finagle's aperture: a balancer uses only so many nodes that each has about one request in flight.

`ApertureLoadBandBalancer`: the requests in flight, smoothed over 15 s (`smoothWin`), per node of the aperture are kept
between 0.875 and 1.125 (`lowLoad`, `highLoad`): above, the aperture is widened by one node, below it is narrowed, down to
1. Within it the pick is Finagle's P2C. The nodes of each balancer's aperture are random (Finagle's random aperture; its
deterministic one, where balancers know their place among their peers, is not modelled).
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from simulator.kernel import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Settings


@kernel
def adjust(
    settings: Settings, total: NDArray[np.int64], width: NDArray[np.int64], smooth: NDArray[np.float64], b: int, now_ns: int,
    nodes: int,
) -> None:  # fmt: skip
    """After each change of balancer b's requests in flight."""
    fade = exp(-max(now_ns - smooth[b, 1], 0.0) / settings.aperture_ns)
    smooth[b, 0] = smooth[b, 0] * fade + total[b] * (1.0 - fade)
    smooth[b, 1] = now_ns
    load = smooth[b, 0] / width[b]
    if load >= settings.load_high and width[b] < nodes:
        width[b] += 1
    elif load <= settings.load_low and width[b] > 1:
        width[b] -= 1
