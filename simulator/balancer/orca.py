"""Weighted round robin by what nodes report: gRPC's client-side weighted round robin, proposal A58, over ORCA load reports.

w = qps / (utilization + eps/qps × penalty). A weight counts only after a node has reported for 10 s (`blackout_period`) and
until 3 min after its last report (`weight_expiration_period`); weights are taken over once a second
(`weight_update_period`). Nodes without one get the mean of the others; with fewer than two weights it is plain round robin.
`error_utilization_penalty` is 1. Turns are dealt by earliest deadline first (gRPC's static stride scheduler gives the same
shares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.kernel import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Deadlines, Settings

_LEAST = 2


@kernel
def note_utilization(
    settings: Settings, views: NDArray[np.void], b: int, node: int, now_ns: int,
    utilization: float, served_per_s: float, errors_per_s: float,
) -> None:  # fmt: skip
    """A report that gives no positive weight changes nothing."""
    if served_per_s <= 0.0 or utilization <= 0.0:
        return
    view = views[b, node]
    since = now_ns - view["reported_ns"]
    if view["reporting_since_ns"] < 0 or (view["reported_ns"] >= 0 and since >= settings.expiry_ns):
        view["reporting_since_ns"] = now_ns
    view["reported_ns"] = now_ns
    view["offered_weight"] = served_per_s / (utilization + errors_per_s / served_per_s * settings.error_penalty)


@kernel
def _usable(settings: Settings, view: np.void, now_ns: int) -> bool:
    return (
        view["reporting_since_ns"] >= 0
        and now_ns - view["reported_ns"] < settings.expiry_ns
        and now_ns - view["reporting_since_ns"] >= settings.blackout_ns
    )


@kernel
def update_weights(
    settings: Settings, views: NDArray[np.void], stale: NDArray[np.int64], edf: Deadlines, b: int, now_ns: int
) -> None:  # fmt: skip
    """Takes over the weights as reported so far. Who has waited for half a turn has waited for half a turn of the new weight."""
    total = 0.0
    usable = 0
    for node in range(views.shape[1]):
        if _usable(settings, views[b, node], now_ns):
            total += views[b, node]["offered_weight"]
            usable += 1
    for node in range(views.shape[1]):
        before = views[b, node]["weight"]
        weight = 1.0
        if usable >= _LEAST and _usable(settings, views[b, node], now_ns):
            weight = views[b, node]["offered_weight"] * usable / total
        views[b, node]["weight"] = weight
        if edf.size[b] > 0 and edf.deadline[b, node] > edf.clock[b]:
            edf.deadline[b, node] = edf.clock[b] + (edf.deadline[b, node] - edf.clock[b]) * before / weight
    stale[b] = 1
