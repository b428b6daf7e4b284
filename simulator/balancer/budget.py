"""Retry budgets: how many retries (or hedges) there may be at all, so that they cannot feed the overload that made them.

* `kind: active`, Envoy's `retry_budget` of a cluster's circuit breakers: at most 20 % of the active requests
  (`budget_percent`), and 3 in any case (`min_retry_concurrency`). A retry counts from the moment it is decided, its backoff
  included, until it has its answer.
* `kind: tokens`, Finagle's `RetryBudget` (finagle-core, service/RetryBudget.scala, a leaky token bucket): what was deposited in
  the last `ttl`, less what was withdrawn in it, and min_per_s × ttl in reserve. Both expire slot by slot, a tenth of the ttl
  each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, int64, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.scenario.client import Budget, Client

ACTIVE_SHARE, ACTIVE_LEAST = 0.2, 3

RETRY, HEDGE = 0, 1  # rows of the budgets

# Columns of a budget's row.
_RATIO, _RESERVE, _SLOT_NS, _NOW, _FIRST = range(5)
_SLOTS = 10  # as Finagle's windowed adder has
BUDGET_COLUMNS = _FIRST + _SLOTS
_UNLIMITED, _OF_ACTIVE = -1.0, -2.0  # instead of a ratio; the second: _RESERVE is the least, _SLOT_NS the share


def open_budgets(client: Client, parts: int = 1) -> NDArray[np.float64]:
    """The budgets of retries and hedges, shape (2, BUDGET_COLUMNS).

    `parts`: of so many processes that send, each has an equal part of what there is in any case.
    """
    budgets = np.zeros((2, BUDGET_COLUMNS))
    for row, behaviour in ((RETRY, client.retries), (HEDGE, client.hedge)):
        budget: Budget | None = behaviour.budget if behaviour is not None else None
        if budget is None:
            budgets[row, _RATIO] = _UNLIMITED
        elif budget.kind == "active":
            least = -(-budget.least // parts)
            budgets[row, _RATIO], budgets[row, _RESERVE], budgets[row, _SLOT_NS] = _OF_ACTIVE, least, budget.share
        else:
            budgets[row, _RATIO] = budget.ratio
            budgets[row, _RESERVE] = budget.min_per_s * budget.ttl / 1e9 / parts
            budgets[row, _SLOT_NS] = max(budget.ttl // _SLOTS, 1)
    return budgets


@kernel
def may_retry(active: int, retrying: int, share: float, least: int) -> bool:
    """Whether one more retry may start with `active` requests in flight, while `retrying` retries wait or are in flight."""
    return retrying < max(least, int64(share * active))


@kernel
def _advance(budgets: NDArray[np.float64], row: int, now_ns: int) -> int:
    """Empties the slots that have expired; returns the column of the present one."""
    present = int64(now_ns // int64(budgets[row, _SLOT_NS]))
    known = int64(budgets[row, _NOW])
    for slot in range(max(known + 1, present - _SLOTS + 1), present + 1):
        budgets[row, _FIRST + slot % _SLOTS] = 0.0
    budgets[row, _NOW] = present
    return _FIRST + present % _SLOTS


@inlined
def deposit(budgets: NDArray[np.float64], row: int, now_ns: int) -> None:
    """A transaction has begun, and earns its share."""
    if budgets[row, _RATIO] > 0.0:
        budgets[row, _advance(budgets, row, now_ns)] += budgets[row, _RATIO]


@kernel
def earn(budgets: NDArray[np.float64], row: int, now_ns: int, transactions: int) -> None:
    """So many transactions have begun at once, and each earns its share."""
    if budgets[row, _RATIO] > 0.0:
        budgets[row, _advance(budgets, row, now_ns)] += budgets[row, _RATIO] * transactions


@kernel
def withdraw(budgets: NDArray[np.float64], row: int, now_ns: int, active: int, using: int) -> bool:
    """Takes one retry out of the budget; False: it is spent.

    `kind: active`: while `active` attempts await their answer, `using` of them (those in their backoff included) are retries.
    """
    if budgets[row, _RATIO] == _UNLIMITED:
        return True
    if budgets[row, _RATIO] == _OF_ACTIVE:
        return may_retry(active, using, budgets[row, _SLOT_NS], int64(budgets[row, _RESERVE]))
    column = _advance(budgets, row, now_ns)
    left = budgets[row, _RESERVE]
    for slot in range(_SLOTS):
        left += budgets[row, _FIRST + slot]
    if left < 1.0:
        return False
    budgets[row, column] -= 1.0
    return True
