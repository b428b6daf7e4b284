"""Prequal: Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance: Introducing Prequal", NSDI 2024.

Each query sends probes to random nodes, off its own path; a reply says how many requests are in flight there (RIF) and what
latency the node expects. Replies stand in a pool of 16 for at most 1 s. A query looks at the pool only:

* a reply is *hot* if its RIF is above the 0.84 quantile of the RIFs that came lately, else *cold*;
* hot-cold lexicographic (HCL): if all are hot the one with the lowest RIF, else the cold one with the lowest latency;
* what is used has its RIF raised by one, and may be used b = max(1, (1+δ) / ((1 − m/n)·probes − removals)) times;
* one reply a query is removed: in turn the oldest, and the worst by HCL reversed;
* with fewer than two replies the query goes to a random node.

Defaults: 3 probes a query, pool 16, age 1 s, 1 removal a query, quantile 0.84, δ = 1. The distribution of RIF is that of
the last 64 replies (the paper does not say how many). A newer reply of a node takes the place of its older one.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.draw import below, further
from simulator.balancer.fleet import RECENT
from simulator.kernel import int64, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Probing, Settings

_LEAST = 2
_ENDLESS = 1e9
_ULP = 2.0**-32


@kernel
def probes_due(settings: Settings, probing: Probing, b: int) -> int:
    """How many probes the query at hand sends; fractions are carried over to the next."""
    probing.owed[b, 0] += settings.probes
    due = int64(probing.owed[b, 0])
    probing.owed[b, 0] -= due
    return due


@kernel
def probe_target(ready: NDArray[np.int32], b: int, word: np.uint64, j: int, due: int, places: int) -> int:
    """Whom probe j of `due` goes to: different nodes, each at random, by the word of the query's pick."""
    step = 1 + below(further(word, 1_001), max((places - 1) // due, 1))
    return int64(ready[b, (below(further(word, 1_000), places) + j * step) % places])


@kernel
def _drop(probing: Probing, b: int, at: int) -> None:
    for i in range(at, probing.held[b] - 1):
        probing.pool[b, i] = probing.pool[b, i + 1]
    probing.held[b] -= 1


@kernel
def _expire(settings: Settings, probing: Probing, b: int, now_ns: int) -> None:
    while probing.held[b] > 0 and now_ns - probing.pool[b, 0]["came_ns"] > settings.probe_age_ns:
        _drop(probing, b, 0)


@kernel
def _remember(probing: Probing, b: int, queue: float) -> None:
    """The last queue lengths, also in order: one goes, one comes, by insertion."""
    held = min(probing.replies[b], RECENT)
    slot = probing.replies[b] % RECENT
    probing.replies[b] += 1
    ordered = probing.ordered
    if held == RECENT:
        at = 0
        while ordered[b, at] != probing.recent[b, slot]:
            at += 1
        for i in range(at, RECENT - 1):
            ordered[b, i] = ordered[b, i + 1]
        held -= 1
    probing.recent[b, slot] = queue
    at = held
    while at > 0 and ordered[b, at - 1] > queue:
        ordered[b, at] = ordered[b, at - 1]
        at -= 1
    ordered[b, at] = queue


@kernel
def hot_above(settings: Settings, probing: Probing, b: int) -> float:
    """The queue length above which a node is hot."""
    held = min(probing.replies[b], RECENT)
    if held == 0:
        return 0.0
    return probing.ordered[b, min(int64(settings.hot_quantile * held), held - 1)]


@kernel
def take_reply(
    settings: Settings, probing: Probing, b: int, node: int, now_ns: int, queue: float, latency_ns: float, nodes: int,
    word: np.uint64,
) -> None:  # fmt: skip
    """A probe's reply enters the pool; when that is full the oldest leaves."""
    _remember(probing, b, queue)
    _expire(settings, probing, b, now_ns)
    for i in range(probing.held[b]):
        if probing.pool[b, i]["node"] == node:
            _drop(probing, b, i)
            break
    if probing.held[b] == probing.pool.shape[1]:
        _drop(probing, b, 0)
    gained = (1.0 - probing.pool.shape[1] / nodes) * settings.probes - settings.removals
    uses = max(1.0, (1.0 + settings.spare_probes) / gained) if gained > 0.0 else _ENDLESS
    row = probing.pool[b, probing.held[b]]
    probing.held[b] += 1
    row["node"] = node
    row["queue"] = queue
    row["latency_ns"] = latency_ns
    row["came_ns"] = now_ns
    row["uses"] = floor(uses + float(word >> np.uint64(32)) * _ULP)  # rounded at random, so right on average


@kernel
def _worst(probing: Probing, b: int, hot: float) -> int:
    """The hot one with the highest RIF; with none hot, the one with the highest latency."""
    worst = 0
    for i in range(1, probing.held[b]):
        one = probing.pool[b, worst]
        other = probing.pool[b, i]
        if other["queue"] > hot:
            if one["queue"] <= hot or other["queue"] > one["queue"]:
                worst = i
        elif one["queue"] <= hot and other["latency_ns"] > one["latency_ns"]:
            worst = i
    return worst


@kernel
def _best(probing: Probing, place: NDArray[np.int32], b: int, hot: float, places: int) -> int:
    """HCL's reply among those of available nodes; −1: there is none."""
    best = -1
    for i in range(probing.held[b]):
        other = probing.pool[b, i]
        if place[b, other["node"]] >= places:
            continue
        if best < 0:
            best = i
            continue
        one = probing.pool[b, best]
        if other["queue"] <= hot:
            if one["queue"] > hot or other["latency_ns"] < one["latency_ns"]:
                best = i
        elif one["queue"] > hot and other["queue"] < one["queue"]:
            best = i
    return best


@kernel
def hot_cold(
    settings: Settings, probing: Probing, ready: NDArray[np.int32], place: NDArray[np.int32], b: int, now_ns: int,
    word: np.uint64, places: int,
) -> int:  # fmt: skip
    """The node of a query, by the pool."""
    _expire(settings, probing, b, now_ns)
    hot = hot_above(settings, probing, b)
    best = _best(probing, place, b, hot, places) if probing.held[b] >= _LEAST else -1
    if best < 0:
        node = int64(ready[b, below(word, places)])
    else:
        row = probing.pool[b, best]
        node = int64(row["node"])
        row["queue"] += 1.0
        row["uses"] -= 1.0
        if row["uses"] <= 0.0:
            _drop(probing, b, best)
    probing.owed[b, 1] += settings.removals
    while probing.owed[b, 1] >= 1.0:
        probing.owed[b, 1] -= 1.0
        if probing.held[b] > 0:
            _drop(probing, b, 0 if probing.removals[b] % 2 == 0 else _worst(probing, b, hot))
            probing.removals[b] += 1
    return node
