"""What clients did on the wall clock beyond asking once: attempts, why they ended, what was not tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.measure.recorder import ClientCount
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.measure.recorder import Tallies

_COUNTS = {
    "deadlines": ClientCount.DEADLINES,
    "retries_over_budget": ClientCount.OVER_BUDGET,
    "given_up_for_room": ClientCount.NO_ROOM,
    "no_node": ClientCount.NO_NODE,
    "no_connection": ClientCount.NO_CONNECTION,
    "over_cap": ClientCount.OVER_CAP,
    "ended_by_the_stop": ClientCount.ENDED,
}


def attempts_ended(tallies: Tallies) -> NDArray[np.int64]:
    """How attempts ended, (STATUSES, REASONS): where nothing is tried again, as transactions did."""
    return tallies.attempt_ended if tallies.attempt_ended.any() else tallies.by_reason


def client(tallies: Tallies) -> dict[str, Any]:
    """`summary.json: client`, with the names that a simulated run has."""
    sent, retries = int(tallies.sent.sum()), int(tallies.retried.sum())
    ended = attempts_ended(tallies)
    return {
        "attempts": sent + retries,
        "retries": retries,
        "timeouts": int(ended[Status.UNKNOWN, Reason.TIMEOUT]),
        "queue_full": int(ended[Status.REJECTED, Reason.OVERFLOW]),
        "node_down": int(ended[Status.REJECTED, Reason.NODE_DOWN]),
        "connection_reset": int(ended[Status.UNKNOWN, Reason.RESET]),
        "garbage": int(ended[Status.UNKNOWN, Reason.GARBAGE]),
        "errors": int(ended[Status.UNKNOWN, Reason.HTTP] + ended[Status.FAILED].sum()),
        **{name: int(tallies.client[count]) for name, count in _COUNTS.items()},
        "amplification": round((sent + retries) / sent, 6) if sent else None,
    }


def by_node(tallies: Tallies) -> list[dict[str, Any]]:
    """Of each node: attempts that were not the first of their transaction, those that ended badly, attempts over firsts."""
    sent, retries = tallies.node_sent.sum(axis=0).tolist(), tallies.node_retried.tolist()
    failed = tallies.fine_failed.sum(axis=0).tolist()
    return [
        {
            "retries": again,
            "failed_attempts": bad,
            "amplification": round(every / (every - again), 6) if every > again else None,
        }
        for every, again, bad in zip(sent, retries, failed, strict=True)
    ]
