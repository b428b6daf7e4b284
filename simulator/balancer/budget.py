"""Retry budgets: how many retries there may be, so that they cannot feed the overload that caused them.

* share of active: Envoy's `retry_budget`: retries in flight are at most 20 % of the requests in flight (`budget_percent`),
  and 3 in any case (`min_retry_concurrency`).
* tokens: Finagle's `RetryBudget`: each request earns 0.2 (`percentCanRetry`), 10 a second come in any case
  (`minRetriesPerSec`), each retry costs 1, and what is not used within 10 s (`ttl`) is lost. As in Finagle's
  `WindowedAdder` time is cut into ten slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACTIVE_SHARE, ACTIVE_LEAST = 0.2, 3
TOKEN_RATIO, TOKENS_PER_S, TOKEN_TTL_NS = 0.2, 10.0, 10_000_000_000
SLICES = 10
_NS_PER_S = 1e9


@kernel
def may_retry(active: int, retrying: int, share: float, least: int) -> bool:
    """Envoy's: whether one more retry may start with `active` requests in flight, `retrying` of them retries."""
    return retrying < max(least, int64(share * active))


TOKENS = np.dtype(
    [("slices", "<f8", (SLICES,)), ("slice", "<i8")]
)  # what is left of each slice; the newest one's number


def open_tokens(rows: int) -> NDArray[np.void]:
    """Budgets of which nothing is earned yet; the tokens of time are there at once, as in Finagle."""
    return np.zeros(rows, TOKENS)


@kernel
def _turn(tokens: NDArray[np.void], row: int, now_ns: int, ttl_ns: int) -> None:
    """Empties the slices that are older than the ttl."""
    state = tokens[row]
    newest = now_ns // (ttl_ns // SLICES)
    gone = min(newest - state["slice"], SLICES)
    for i in range(gone):
        state["slices"][(newest - i) % SLICES] = 0.0
    state["slice"] = max(newest, state["slice"])


@kernel
def earn(tokens: NDArray[np.void], row: int, now_ns: int, ratio: float, ttl_ns: int) -> None:
    """A request (not a retry) was made."""
    _turn(tokens, row, now_ns, ttl_ns)
    tokens[row]["slices"][tokens[row]["slice"] % SLICES] += ratio


@kernel
def spend(tokens: NDArray[np.void], row: int, now_ns: int, per_s: float, ttl_ns: int) -> bool:
    """Whether a retry may be made; if so it is paid for.

    What was spent beyond the earnings is a debt on the reserve `per_s` × ttl, and ages like them.
    """
    _turn(tokens, row, now_ns, ttl_ns)
    state = tokens[row]
    balance = per_s * ttl_ns / _NS_PER_S
    for i in range(SLICES):
        balance += state["slices"][i]
    if balance < 1.0:
        return False
    state["slices"][state["slice"] % SLICES] -= 1.0
    return True
