"""Whose keys move when nodes go: what a policy that keeps keys together would do, asked of the policy itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.behaviour import churn
from simulator.balancer.choose import choose
from simulator.balancer.fleet import Health, Rule
from simulator.balancer.health import take_out
from simulator.kernel import int64, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings

AFFINE = (Rule.RING, Rule.MAGLEV, Rule.AFFINITY)
_WITHDRAWN = int(Health.WITHDRAWN)


@kernel
def _owners(
    settings: Settings, fleet: Fleet, keys: NDArray[np.int64], homes: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    for i in range(keys.shape[0]):
        out[i] = choose(settings, fleet, 0, int64(0), np.uint64(0), int64(0), np.uint64(keys[i]), homes[i])


def churn_without(
    settings: Settings, fleet: Fleet, keys: NDArray[np.int64], homes: NDArray[np.int64], removed: Sequence[int]
) -> dict[str, float] | None:
    """The keys that move when balancer 0 leaves these nodes out, against those that must; None: no key, or no policy by key.

    Nothing is in flight, so a bounded load bounds nothing.

    Args:
        settings: of the policy.
        fleet: a fresh one of those settings; the nodes are out of it afterwards.
        keys: shape (keys,), accounts.
        homes: shape (keys,), the node that owns each, for the affinity to it.
        removed: the nodes, not all of the fleet.
    """
    if Rule(settings.rule) not in AFFINE:
        return None
    before, after = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    _owners(settings, fleet, keys, homes, before)
    for node in removed:
        take_out(settings, fleet, 0, node, 0, _WITHDRAWN)
        fleet.stale[0] = 1
    _owners(settings, fleet, keys, homes, after)
    return churn(before, after, removed)
