"""Balancing policies: one kernel that picks a node, over the fleet's state arrays. Every clock and backend calls this one.

The load metric is a transaction's: requests in flight at a node as the dispatcher knows them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64
from simulator.seeds import bits

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Policy(IntEnum):
    """The policies; a scenario names them in lower case."""

    ROUND_ROBIN = 0
    RANDOM = 1
    P2C = 2
    AFFINITY = 3


_ROUND_ROBIN, _RANDOM, _P2C = int(Policy.ROUND_ROBIN), int(Policy.RANDOM), int(Policy.P2C)


@inlined
def _below(word: np.uint64, n: int) -> int:
    """An index in [0, n) from the high half of a random word: word·n / 2³², biased by less than n / 2³²."""
    return int64(((word >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@inlined
def pick(policy: int, in_flight: NDArray[np.int64], key: np.uint64, index: int, home_node: int) -> int:
    """The node for one transaction.

    Args:
        policy: a `Policy`.
        in_flight: requests in flight at each node, shape (nodes,).
        key: the balancer's random stream.
        index: which pick this is, 0, 1, 2 …; the only state of round robin, and the counter of the random stream.
        home_node: the node that owns the payer's shard.

    * round_robin: node index mod nodes.
    * random: uniform.
    * p2c: Envoy's least request with its default `choice_count` 2: two nodes sampled *with* replacement, the one with fewer
      requests in flight, the first on a tie. (Finagle samples without; with two nodes that is a full scan.)
    * affinity: straight to the home node, as in a cell architecture.
    """
    nodes = in_flight.shape[0]
    if policy == _ROUND_ROBIN:
        return int64(index % nodes)
    if policy == _RANDOM:
        return _below(bits(key, index), nodes)
    if policy == _P2C:
        word = bits(key, index)
        first = _below(word, nodes)
        second = _below(word << np.uint64(32), nodes)
        return second if in_flight[second] < in_flight[first] else first
    return home_node
