"""What became of a sick node's part of the answers, for a balancer of which nothing else can be seen.

Where the balancer is ours its own log tells more (`simulator.balancer.behaviour`); behind any other, who answered is all there
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STAYS = 3  # windows: one alone may be low by chance


@dataclass(frozen=True)
class Sickness:
    """What a balancer did about one node that was sick; times in seconds, None: it never happened."""

    # Of the answers while it was sick; None: there were none.
    share: float | None
    # From its start until the node's share first fell below half of fair, and stayed there for a while.
    detection_s: float | None
    # From its end until the share first rose to half of fair again; None also where it never fell.
    readmission_s: float | None


def sickness(answers: NDArray[np.int64], window_ns: int, node: int, from_ns: int, until_ns: int) -> Sickness:
    """How the share of a node moved around a time in which it was sick.

    Fair is 1/N of what all N nodes answer. Windows with fewer than two answers a node are passed over: in those a share says
    nothing.

    Args:
        answers: by window and node, int64 (windows, nodes).
        window_ns: length of a window.
        node: which one was sick.
        from_ns: since when.
        until_ns: until when, exclusive.
    """
    windows, nodes = answers.shape
    first, last = from_ns // window_ns, min(-(-until_ns // window_ns), windows)
    total = answers.sum(axis=1)
    telling = total >= 2 * nodes
    low = np.where(telling, answers[:, node] * 2 * nodes < total, False)  # noqa: FBT003  what numpy takes
    during = int(total[first:last].sum())
    share = float(answers[first:last, node].sum() / during) if during else None
    detection = None
    for window in np.flatnonzero(low[first:last]) + first:
        ahead = slice(window, min(window + _STAYS, last))
        if (low[ahead] | ~telling[ahead]).all():
            detection = max(int(window) * window_ns - from_ns, 0) / 1e9
            break
    risen = np.flatnonzero(telling[last:] & ~low[last:])
    readmission = max((last + int(risen[0])) * window_ns - until_ns, 0) / 1e9 if len(risen) else None
    if detection is None:
        readmission = None  # who was never left out does not come back
    return Sickness(share, detection, readmission)
