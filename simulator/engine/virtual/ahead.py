"""What the paths that look ahead share, `direct` and `fast`: draws of arrivals, whose service begins when, sums by window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.draw import below
from simulator.balancer.fleet import Load, Rule
from simulator.engine.virtual.general import INDEX
from simulator.engine.virtual.model import FCFS, NODE_TIMES
from simulator.engine.virtual.service import draw_all
from simulator.engine.virtual.tally import coarse_index
from simulator.kernel import fused, inlined, int64, kernel, prefetch
from simulator.measure.grid import window_of
from simulator.measure.histogram import index_of
from simulator.seeds import bits
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Settings
    from simulator.engine.virtual.model import Model, Setup
    from simulator.engine.virtual.tally import Virtual

DRAWN = 256  # arrivals whose draws are made at once
INDICES, SERVICE_NS, SHARD = 0, 1, 2  # rows of what is drawn, (3, DRAWN) int64

_AHEAD = 6  # arrivals
MANY = 512  # nodes that no longer fit the nearest caches
_LATE = 16  # answers between asking for a histogram's cache line and using it; a power of two
_DRAWS, _RANDOM = int(Rule.DRAWS), int(Rule.RANDOM)
_OK = int(Status.OK)
_PAYMENT, _REFUND, _POST = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.POST)
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
def is_drawn(settings: Settings) -> bool:
    """Whether the nodes of a pick follow from its random word alone, so that `ask_ahead` knows them."""
    return settings.rule == _DRAWS or settings.rule == _RANDOM


@inlined
def ask_ahead(batch: NDArray[np.void], position: int, stop: int, model: Model, nodes: NDArray[np.void]) -> None:
    """Asks for the cache lines of the two nodes of which an arrival soon to come will pick one. A wrong guess does no harm."""
    if position + _AHEAD < stop:
        word = bits(model.balancer_key, int64(batch[position + _AHEAD]["id"]) * INDEX)
        prefetch(nodes, (int64(below(word, model.nodes)),))
        prefetch(nodes, (int64(below(word << np.uint64(32), model.nodes)),))


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
    first = window_of(edges, max(comes, end_ns), window)
    spread(virtual.node_busy_ns, edges, first, n, max(begin, end_ns), done, -1)
    if begin > end_ns:
        spread(virtual.node_queue_ns, edges, first, n, max(comes, end_ns), begin, -1)


@fused
def count_ok(
    late: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64], kind: int,
    amount_minor: int, shard: int, sent_window: int, took: int, n: int, window: int,
) -> None:  # fmt: skip
    """Counts an answer `ok` from node n, in `window`; `late` is from `open_late`."""
    place = n if response.shape[2] > 1 else 0
    response[slots[sent_window], kind - 1, place, index_of(took)] += 1
    bucket = coarse_index(took)
    if virtual.node_times.shape[0] > MANY:
        # With thousands of nodes this line is in no cache near by: it is asked for now, and counted `_LATE` answers later.
        place = late[_LATE, 0] & (_LATE - 1)
        if late[_LATE, 0] >= _LATE:
            virtual.node_times[late[place, 0], late[place, 1]] += 1
        prefetch(virtual.node_times, (n, bucket))
        late[place, 0] = n
        late[place, 1] = bucket
        late[_LATE, 0] += 1
    else:
        virtual.node_times[n, bucket] += 1
    virtual.shard_ok[window, shard] += 1
    if kind == _PAYMENT or kind == _REFUND or kind == _POST:
        virtual.settled_minor[window] += amount_minor
    virtual.ended[window, kind - 1, _OK] += 1


def open_late() -> NDArray[np.int64]:
    """(_LATE + 1, 2): node and bucket of the last answers, counted a little later; how many there were."""
    return np.zeros((_LATE + 1, 2), np.int64)


@kernel
def flush_late(late: NDArray[np.int64], virtual: Virtual) -> None:
    """Counts those that are still to be counted."""
    for i in range(min(late[_LATE, 0], _LATE)):
        virtual.node_times[late[i, 0], late[i, 1]] += 1


@inlined
def note(
    trace: NDArray[np.void], number: int, sent_ns: int, done_ns: int, status: int, reason: int, node: int, attempts: int
) -> None:
    """Says what became of a transaction, where that is asked for."""
    if trace.shape[0] > 0:
        line = trace[number - 1]
        line["intended_ns"] = sent_ns
        line["done_ns"] = done_ns
        line["status"] = status
        line["reason"] = reason
        line["node"] = node
        line["attempts"] = attempts
