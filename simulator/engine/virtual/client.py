"""What a client decides: whether an answer may be tried again, how long to wait before, and whether the budget allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.budget import may_retry
from simulator.engine.virtual.records import Answer
from simulator.kernel import inlined, int64, kernel
from simulator.seeds import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.scenario.client import Budget, Client

RETRY, HEDGE = 0, 1  # rows of the budgets

# Columns of a budget's row.
_RATIO, _RESERVE, _SLOT_NS, _NOW, _FIRST = range(5)
_SLOTS = 10  # as Finagle's windowed adder has
BUDGET_COLUMNS = _FIRST + _SLOTS
_UNLIMITED, _OF_ACTIVE = -1.0, -2.0  # instead of a ratio; the second: _RESERVE is the least, _SLOT_NS the share

NO_JITTER, FULL_JITTER, EQUAL_JITTER = 0, 1, 2
JITTERS = {"none": NO_JITTER, "full": FULL_JITTER, "equal": EQUAL_JITTER}

# Whether nothing can have happened, by the answer; else the transaction stays in doubt whatever later attempts say.
DOUBTFUL = (Answer.RESET, Answer.BROKEN, Answer.LATE)
_TRIGGERS = {
    "timeout": (Answer.LATE,),
    "refused": (Answer.FULL, Answer.LIMIT, Answer.NO_NODE),
    "error": (Answer.DOWN, Answer.RESET, Answer.BROKEN),
}


def open_budgets(client: Client) -> NDArray[np.float64]:
    """The budgets of retries and hedges, shape (2, BUDGET_COLUMNS)."""
    budgets = np.zeros((2, BUDGET_COLUMNS))
    for row, behaviour in ((RETRY, client.retries), (HEDGE, client.hedge)):
        budget: Budget | None = behaviour.budget if behaviour is not None else None
        if budget is None:
            budgets[row, _RATIO] = _UNLIMITED
            continue
        if budget.kind == "active":
            budgets[row, _RATIO], budgets[row, _RESERVE], budgets[row, _SLOT_NS] = (
                _OF_ACTIVE,
                budget.least,
                budget.share,
            )
            continue
        budgets[row, _RATIO] = budget.ratio
        budgets[row, _RESERVE] = budget.min_per_s * budget.ttl / 1e9
        budgets[row, _SLOT_NS] = max(budget.ttl // _SLOTS, 1)
    return budgets


def retried_answers(client: Client) -> int:
    """The answers that are tried again, as bits by `Answer`."""
    on = client.retries.on if client.retries is not None else ()
    return sum(1 << int(answer) for trigger in on for answer in _TRIGGERS[trigger])


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
def withdraw(budgets: NDArray[np.float64], row: int, now_ns: int, active: int, using: int) -> bool:
    """Takes one retry out of the budget; False: it is spent.

    * `kind: active`, as Envoy's `retry_budget`: while `active` attempts await their answer, `using` of them (those in their
      backoff included) are retries; see `simulator.balancer.budget`.
    * `kind: tokens`, as Finagle's `RetryBudget` (finagle-core, service/RetryBudget.scala, a leaky token bucket): what was
      deposited in the last `ttl`, less what was withdrawn in it, and min_per_s × ttl in reserve. Both expire slot by slot, a
      tenth of the ttl each.
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


@inlined
def backoff_ns(
    retries: int, backoff: float, factor: float, longest: float, jitter: int, key: np.uint64, index: int
) -> int:
    """How long to wait before retry number 0, 1 …: backoff × factor^retries, at most `longest`, with jitter.

    Full and equal jitter as in M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    wait = min(backoff * factor**retries, longest)
    if jitter == FULL_JITTER:
        wait *= uniform(key, index)
    elif jitter == EQUAL_JITTER:
        wait *= 0.5 + 0.5 * uniform(key, index)
    return int64(wait)
