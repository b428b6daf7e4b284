"""Consistent hashing: a key's node stays, whatever the load, and few keys move when a node goes.

* ring hash: Karger et al. 1997 in the form of Envoy's `RING_HASH` (and Ketama): each node has points on a circle of 64-bit
  numbers, in proportion to its weight, at least 1,024 in all (`minimum_ring_size`; at most 8 M); a key belongs to the first
  point at or after its hash. With so few points a node the shares scatter by about 1/√(points a node). A node that is not
  available is passed over, which is the ring without its points.
* Maglev: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4. A table of prime
  size, 65,537, which nodes fill in turn, each by a permutation of its own; one look finds the node. Shares are even to
  N/65,537; when a node goes a few more keys move than its own. Weights as in Envoy: a node takes its turn as often as its
  weight says. Each balancer has a table of the nodes that it takes for available.
* bounded load: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018: no node has more than
  ⌈factor × mean⌉ requests in flight, counting the one about to go; 1.25 is usual. What finds its node full goes on by
  random jumps that are the same for a key (Chen, Coleman, Shrivastava, "Revisiting Consistent Hashing with Bounded Loads",
  AAAI 2021), so it does not pile up on the next node as with linear probing. Envoy's `hash_balance_factor` does the same
  but lets a node reach one request more than its cap.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.draw import below, further
from simulator.kernel import int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Hashing

_JUMPS = 64  # with factor 1.25 at least a fifth of the nodes has room: all of 64 are full once in a million
_POINTS = np.uint64(0x8F51_2B6D_93E7_40C5)  # apart from what draws
_OFFSET = np.uint64(0x3C79_AC49_2BA7_B653)
_SKIP = np.uint64(0x1C69_B3F7_4AC4_AE35)


@kernel
def _hash_points(points: NDArray[np.uint64], counts: NDArray[np.int64], owners: NDArray[np.int32]) -> None:
    at = 0
    for node in range(counts.shape[0]):
        for copy in range(counts[node]):
            points[at] = mix(mix(_POINTS + np.uint64(node)) + np.uint64(copy))
            owners[at] = node
            at += 1


def build_ring(
    weight: NDArray[np.float64], least: int, most: int
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:  # fmt: skip
    """The points in order and their nodes: about `least` points in all, at least one a node, at most `most`.

    Envoy's scale: the lightest node gets a whole number of points, unless that would pass `most`.
    """
    share = weight / weight.sum()
    scale = min(float(np.ceil(share.min() * least)) / share.min(), most)
    # Rounded together, as Envoy does: node i owns the whole numbers up to scale × (sum of the shares up to i).
    edges = np.maximum(np.ceil(np.cumsum(share) * scale - 1e-9), np.arange(1, len(weight) + 1)).astype(np.int64)
    counts = np.maximum(np.diff(edges, prepend=0), 1)
    points = np.zeros(int(counts.sum()), np.uint64)
    owners = np.zeros(len(points), np.int32)
    _hash_points(points, counts, owners)
    order = np.argsort(points, kind="stable")
    return points[order], owners[order]


@kernel
def on_ring(hashing: Hashing, place: NDArray[np.int32], b: int, hashed: np.uint64, places: int) -> int:
    """The available node of the first point at or after `hashed`."""
    point = hashing.point
    low = 0
    high = point.shape[0]
    while low < high:
        middle = (low + high) // 2
        if point[middle] < hashed:
            low = middle + 1
        else:
            high = middle
    for step in range(point.shape[0]):
        node = int64(hashing.owner[(low + step) % point.shape[0]])
        if place[b, node] < places:
            return node
    return -1


@kernel
def build_table(
    table: NDArray[np.int32], scratch: NDArray[np.int64], weight: NDArray[np.float64], ready: NDArray[np.int32],
    b: int, places: int,
) -> None:  # fmt: skip
    """Fills Maglev's table of balancer b with the first `places` of `ready`, in the order of their numbers.

    `scratch`, (3, N): offset, skip and position in each node's permutation.
    """
    size = table.shape[1]
    nodes = weight.shape[0]
    heaviest = 0.0
    for node in range(nodes):
        scratch[2, node] = -1
    for at in range(places):
        node = int64(ready[b, at])
        scratch[0, node] = int64(mix(_OFFSET + np.uint64(node)) % np.uint64(size))
        scratch[1, node] = int64(mix(_SKIP + np.uint64(node)) % np.uint64(size - 1)) + 1
        scratch[2, node] = 0
        heaviest = max(heaviest, weight[node])
    for at in range(size):
        table[b, at] = -1
    filled = 0
    turn = 0
    while True:
        turn += 1
        for node in range(nodes):
            # A node of weight w has taken ⌊turn × w / heaviest⌋ slots after as many turns; positions count from 0.
            if scratch[2, node] < 0 or int64(turn * weight[node] / heaviest) == int64(
                (turn - 1) * weight[node] / heaviest
            ):
                continue
            at = (scratch[0, node] + scratch[2, node] * scratch[1, node]) % size
            while table[b, at] >= 0:
                scratch[2, node] += 1
                at = (scratch[0, node] + scratch[2, node] * scratch[1, node]) % size
            table[b, at] = node
            scratch[2, node] += 1
            filled += 1
            if filled == size:
                return


@kernel
def in_table(
    hashing: Hashing, weight: NDArray[np.float64], ready: NDArray[np.int32], stale: NDArray[np.int64],
    b: int, hashed: np.uint64, places: int,
) -> int:  # fmt: skip
    """The node of a key by Maglev's table, which is built again when who is available has changed."""
    if stale[b] != 0:
        build_table(hashing.table, hashing.scratch, weight, ready, b, places)
        stale[b] = 0
    return int64(hashing.table[b, int64(hashed % np.uint64(hashing.table.shape[1]))])


@kernel
def with_room(
    factor: float, in_flight: NDArray[np.int64], total: NDArray[np.int64], weight: NDArray[np.float64],
    ready: NDArray[np.int32], b: int, node: int, hashed: np.uint64, places: int,
) -> int:  # fmt: skip
    """`node` if it has room under its cap, else the first one that has, by the random jumps of this key."""
    mean = factor * (total[b] + 1) / places
    if in_flight[b, node] + 1 <= ceil(mean * weight[node]):
        return node
    for jump in range(1, _JUMPS):
        tried = int64(ready[b, below(further(hashed, jump), places)])
        if in_flight[b, tried] + 1 <= ceil(mean * weight[tried]):
            return tried
    start = below(further(hashed, _JUMPS), places)
    for step in range(places):
        tried = int64(ready[b, (start + step) % places])
        if in_flight[b, tried] + 1 <= ceil(mean * weight[tried]):
            return tried
    return node
