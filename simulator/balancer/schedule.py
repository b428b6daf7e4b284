"""Pick rules that deal in turn by weight.

* smooth weighted round robin: nginx's `ngx_http_upstream_round_robin`. Each pick adds every node's weight to its current
  one, takes the highest and lowers it by the sum of the weights. So 5:1:1 is dealt a a b a c a a, not a a a a a b c. It
  looks at all nodes. nginx also lowers the weight of a node that failed; here outlier ejection is there for that.
* earliest deadline first: Envoy's weighted `ROUND_ROBIN` and `LEAST_REQUEST` (`edf_scheduler.h`). The node with the
  earliest deadline is picked, and gets a new one 1/w later. Least request takes w/(in flight + 1)^bias,
  `active_request_bias` 1, at the moment of the pick; round robin has bias 0. A heap: O(log N). As in Envoy and gRPC nodes
  begin at a random phase, or balancers started together would all take the same node first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.load import weight_of
from simulator.kernel import int64, kernel
from simulator.seeds import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Deadlines, Settings


@kernel
def smooth(
    settings: Settings, views: NDArray[np.void], slow_until_ns: NDArray[np.int64], ready: NDArray[np.int32],
    b: int, now_ns: int, places: int,
) -> int:  # fmt: skip
    """One turn of smooth weighted round robin among the first `places` of `ready`; the lowest node of equals."""
    total = 0.0
    best = -1
    highest = 0.0
    for at in range(places):
        node = int64(ready[b, at])
        weight = weight_of(settings, views, slow_until_ns, b, node, now_ns)
        total += weight
        current = views[b, node]["current"] + weight
        views[b, node]["current"] = current
        if best < 0 or current > highest or (current == highest and node < best):
            best = node
            highest = current
    views[b, best]["current"] = highest - total
    return best


@kernel
def _before(edf: Deadlines, b: int, one: int, other: int) -> bool:
    if edf.deadline[b, one] != edf.deadline[b, other]:
        return edf.deadline[b, one] < edf.deadline[b, other]
    return edf.turn[b, one] < edf.turn[b, other]


@kernel
def _rise(edf: Deadlines, b: int, at: int) -> None:
    node = edf.heap[b, at]
    while at > 0:
        above = (at - 1) // 2
        if not _before(edf, b, node, edf.heap[b, above]):
            break
        edf.heap[b, at] = edf.heap[b, above]
        at = above
    edf.heap[b, at] = node


@kernel
def _sink(edf: Deadlines, b: int) -> None:
    """The top of the heap has got a later deadline."""
    size = edf.size[b]
    node = edf.heap[b, 0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(edf, b, edf.heap[b, child + 1], edf.heap[b, child]):
            child += 1
        if not _before(edf, b, edf.heap[b, child], node):
            break
        edf.heap[b, at] = edf.heap[b, child]
        at = child
    edf.heap[b, at] = node


@kernel
def _worth(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    b: int, node: int, now_ns: int,
) -> float:  # fmt: skip
    weight = weight_of(settings, views, slow_until_ns, b, node, now_ns)
    if settings.bias == 1.0:
        return weight / (in_flight[b, node] + 1)
    if settings.bias == 0.0:
        return weight
    return weight / float(in_flight[b, node] + 1) ** settings.bias


@kernel
def earliest(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    ready: NDArray[np.int32], stale: NDArray[np.int64], edf: Deadlines, b: int, now_ns: int, key: np.uint64, places: int,
) -> int:  # fmt: skip
    """The node whose turn it is; the heap is built again when who is available or a weight has changed.

    Then everybody keeps the deadline it has: with new ones at each change, those that come late would never have a turn.
    """
    if stale[b] != 0:
        first = edf.size[b] == 0
        stale[b] = 0
        edf.size[b] = 0
        for at in range(places):
            node = int64(ready[b, at])
            if first or edf.deadline[b, node] < edf.clock[b]:  # it was out, and begins anew
                phase = uniform(key + np.uint64(b), node)
                worth = _worth(settings, in_flight, views, slow_until_ns, b, node, now_ns)
                edf.deadline[b, node] = edf.clock[b] + phase / worth
                edf.turn[b, node] = edf.turns[b]
                edf.turns[b] += 1
            edf.heap[b, at] = node
            edf.size[b] += 1
            _rise(edf, b, at)
    node = int64(edf.heap[b, 0])
    edf.clock[b] = edf.deadline[b, node]
    edf.deadline[b, node] += 1.0 / _worth(settings, in_flight, views, slow_until_ns, b, node, now_ns)
    edf.turn[b, node] = edf.turns[b]
    edf.turns[b] += 1
    _sink(edf, b)
    return node
