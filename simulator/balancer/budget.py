"""Envoy's retry budget: retries in flight are a share of what is in flight, so that they cannot feed the overload that made them.

`retry_budget` of a cluster's circuit breakers: at most 20 % of the active requests (`budget_percent`), and 3 in any case
(`min_retry_concurrency`). A retry counts from the moment it is decided, its backoff included, until it has its answer.
Finagle's, which saves up what requests earn, is in `simulator.engine.virtual.client`.
"""

from __future__ import annotations

from simulator.kernel import int64, kernel

ACTIVE_SHARE, ACTIVE_LEAST = 0.2, 3


@kernel
def may_retry(active: int, retrying: int, share: float, least: int) -> bool:
    """Whether one more retry may start with `active` requests in flight, while `retrying` retries wait or are in flight."""
    return retrying < max(least, int64(share * active))
