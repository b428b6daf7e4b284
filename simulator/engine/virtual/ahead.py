"""What the paths that look ahead share, `direct` and `fast`: draws of arrivals, whose service begins when, sums by window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.fleet import Load, Rule
from simulator.engine.virtual.general import INDEX
from simulator.engine.virtual.model import FCFS, NODE_TIMES
from simulator.engine.virtual.service import draw_all
from simulator.kernel import fused, inlined, int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.engine.virtual.model import Model, Setup
    from simulator.engine.virtual.tally import Virtual

DRAWN = 256  # arrivals whose draws are made at once
INDICES, SERVICE_NS, SHARD = 0, 1, 2  # rows of what is drawn, (3, DRAWN) int64

_RULES = (Rule.RANDOM, Rule.ROUND_ROBIN, Rule.DRAWS, Rule.DISTINCT, Rule.SCAN, Rule.AFFINITY)


def foreseeable(setup: Setup) -> bool:
    """Whether an attempt's departure from its node is known when it is sent.

    So it is where nodes serve first come first served, nothing strikes them, and the policy knows requests in flight alone.
    """
    model, settings = setup.model, setup.settings
    return (
        model.discipline == FCFS and not (model.batched or model.depends or len(model.faults))
        and not (model.deadline_ns or model.hedges or model.cancel)
        and settings.load == Load.IN_FLIGHT and settings.rule in _RULES
        and not (settings.weighted or settings.slow_ns or settings.update_ns or settings.aperture_ns)
        and not (settings.outlier or model.talks or setup.guards.on)
    )  # fmt: skip


@fused
def draw(batch: NDArray[np.void], first: int, stop: int, model: Model, drawn: NDArray[np.int64]) -> None:
    """What of the next arrivals depends on themselves alone: service times at speed 1, and shards.

    In loops of their own, because the branches of the main loop would keep the processor from working on several at once.
    """
    count = min(stop - first, DRAWN)
    for i in range(count):
        drawn[INDICES, i] = int64(batch[first + i]["id"]) * INDEX
    draw_all(model.times, NODE_TIMES, model.tables, model.node_key, drawn[INDICES, :count], drawn[SERVICE_NS, :count])
    # Quotients of numbers below 2³² as float64 have the right integer part: they are farther from the next than a rounding.
    units, shards = float(model.units), float(model.shards)
    for i in range(count):
        own = int64(float(batch[first + i]["payer"]) / units)
        drawn[SHARD, i] = own - int64(float(own) / shards) * model.shards


@inlined
def take_worker(free_ns: NDArray[np.int64], n: int, until_ns: int) -> None:
    """The worker that is free first is busy until then: the top of the node's heap is replaced."""
    workers = free_ns.shape[1]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= workers:
            break
        if child + 1 < workers and free_ns[n, child + 1] < free_ns[n, child]:
            child += 1
        if until_ns <= free_ns[n, child]:
            break
        free_ns[n, i] = free_ns[n, child]
        i = child
    free_ns[n, i] = until_ns


@inlined
def window_of(edges: NDArray[np.int64], window: int, time_ns: int) -> int:
    """The window of a time, looked for from one nearby."""
    last = edges.shape[0] - 2
    while window < last and time_ns >= edges[window + 1]:
        window += 1
    while window > 0 and time_ns < edges[window]:
        window -= 1
    return window


@inlined
def spread(
    area: NDArray[np.int64], edges: NDArray[np.int64], window: int, n: int, start: int, stop: int, sign: int
) -> None:
    """Shares [start, stop) out among the windows, from `window` on, in which `start` lies or that is before it."""
    last = edges.shape[0] - 2
    if stop <= edges[window + 1] or window == last:
        area[window, n] += sign * (stop - start)
    else:
        w = window
        at = start
        while at < stop:
            while w < last and at >= edges[w + 1]:
                w += 1
            until = stop if w == last else min(stop, edges[w + 1])
            area[w, n] += sign * (until - at)
            at = until


@fused
def serve(
    nodes: NDArray[np.void], virtual: Virtual, edges: NDArray[np.int64], window: int, n: int, comes: int, begin: int, done: int
) -> None:  # fmt: skip
    """Counts the time that an attempt will wait and be served at node n; `window` is that in which it is sent."""
    last = edges.shape[0] - 2
    edge = edges[window + 1]
    if done <= edge or window == last:
        nodes[n]["queue_area"] += begin - comes
        nodes[n]["busy_area"] += done - begin
    elif window + 1 == last or done <= edges[window + 2]:
        queued, busy = max(min(begin, edge) - comes, 0), max(edge - begin, 0)
        nodes[n]["queue_area"] += queued
        nodes[n]["busy_area"] += busy
        if begin - comes > queued:
            virtual.node_queue_ns[window + 1, n] += begin - comes - queued
        virtual.node_busy_ns[window + 1, n] += done - begin - busy
    else:
        spread(virtual.node_queue_ns, edges, window, n, comes, begin, 1)
        spread(virtual.node_busy_ns, edges, window, n, begin, done, 1)


@kernel
def flush(sent: NDArray[np.int64], nodes: NDArray[np.void], virtual: Virtual, window: int) -> None:
    """Gives a window what its nodes have counted: attempts sent, and areas."""
    for n in range(nodes.shape[0]):
        virtual.node_sent[window, n] += sent[n]
        virtual.node_queue_ns[window, n] += nodes[n]["queue_area"]
        virtual.node_busy_ns[window, n] += nodes[n]["busy_area"]
        sent[n] = 0
        nodes[n]["queue_area"] = 0
        nodes[n]["busy_area"] = 0


@inlined
def unserve(
    virtual: Virtual, edges: NDArray[np.int64], window: int, n: int, comes: int, begin: int, done: int, end_ns: int
) -> None:  # fmt: skip
    """Takes back what `serve` has counted beyond the end of the run, in `window`."""
    first = window_of(edges, window, max(comes, end_ns))
    spread(virtual.node_busy_ns, edges, first, n, max(begin, end_ns), done, -1)
    if begin > end_ns:
        spread(virtual.node_queue_ns, edges, first, n, max(comes, end_ns), begin, -1)


@kernel
def take_hash(digests: NDArray[np.uint64], row: int, number: np.uint64) -> None:
    """Takes back what `add_hash` has added."""
    low = mix(number + np.uint64(0x9E3779B97F4A7C15))
    before = digests[row, 0]
    digests[row, 0] = before - low
    digests[row, 1] -= mix(low ^ np.uint64(0xE7037ED1A0B428DB) ^ number) + np.uint64(before < low)
