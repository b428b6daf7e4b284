"""Join the idle queue: Lu, Xie, Kliot, Geller, Larus, Greenberg, "Join-Idle-Queue", Performance Evaluation 68 (2011).

Each balancer keeps a list of nodes that said they were idle. A request goes to the first of them, and where there is none
to a random node. A node that becomes idle joins one list only (the engine picks it; at random is the paper's JIQ-Random);
one that a random request reaches meanwhile stays in its list, as in the paper. Where nodes cannot say anything (one
balancer, or the wall clock), a node with none of this balancer's requests counts as idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Idle, Settings


@kernel
def join_idle(idle: Idle, views: NDArray[np.void], b: int, node: int) -> None:
    """A node joins the end of balancer b's list, once."""
    if views[b, node]["idle"] == 0:
        views[b, node]["idle"] = 1
        size = idle.ring.shape[1]
        idle.ring[b, (idle.head[b] + idle.held[b]) % size] = np.int32(node)
        idle.held[b] += 1


@kernel
def take_idle(
    settings: Settings, in_flight: NDArray[np.int64], idle: Idle, views: NDArray[np.void], place: NDArray[np.int32],
    b: int, places: int,
) -> int:  # fmt: skip
    """Takes the first idle node that is available; −1: there is none. What is passed over leaves the list."""
    size = idle.ring.shape[1]
    while idle.held[b] > 0:
        node = int64(idle.ring[b, idle.head[b]])
        idle.head[b] = (idle.head[b] + 1) % size
        idle.held[b] -= 1
        views[b, node]["idle"] = 0
        if place[b, node] < places and (settings.infer_idle == 0 or in_flight[b, node] == 0):
            return node
    return -1
