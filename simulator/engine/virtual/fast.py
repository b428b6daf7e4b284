"""The fast path: nodes that serve first come first served, nothing behind them, and clients that only wait.

Then no event has consequences that could still change. With one queue and c workers the next customer starts when the first
worker is free, so departure is known on arrival (D. V. Lindley, "The Theory of Queues with a Single Server", 1952, for one;
J. Kiefer, J. Wolfowitz, "On the Theory of Queues with Many Servers", 1955, for c). All that is left of the event list is to take
answers back before the next pick looks at the requests in flight. Those that fall between two arrivals only count down, so
their order among themselves does not matter: a wheel of unsorted buckets is enough, and no heap is needed.

`suits` says when; the result is then that of the general engine, transaction by transaction (a test holds them together).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.choose import choose, note_answered, note_sent
from simulator.balancer.draw import below
from simulator.balancer.fleet import Load, Rule
from simulator.engine.virtual import calendar as cal
from simulator.engine.virtual.general import INDEX, NEED, NOW, SEQ, WINDOW, add_hash
from simulator.engine.virtual.model import FCFS, NODE_TIMES
from simulator.engine.virtual.records import NONE
from simulator.engine.virtual.service import draw_ns
from simulator.engine.virtual.tally import (
    AREA_NS,
    ARRIVED,
    LEFT,
    LEVELS,
    SPENT_NS,
    Count,
    Station,
    coarse_index,
    shift_level,
)
from simulator.kernel import fused, inlined, int64, kernel, prefetch, trailing_zeros
from simulator.measure.histogram import index_of
from simulator.seeds import bits
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings
    from simulator.engine.virtual.calendar import Calendar
    from simulator.engine.virtual.model import Model, Setup
    from simulator.engine.virtual.tally import Virtual

# An answer under way.
DUE = np.dtype(
    [
        ("time_ns", "<i8"),
        ("id", "<u8"),
        ("intended_ns", "<i8"),
        ("amount_minor", "<i8"),
        ("wait_ns", "<i8"),
        ("next", "<i4"),
        ("node", "<i4"),
        ("balancer", "<i4"),
        ("shard", "<u2"),
        ("window", "<u2"),
        ("kind", "u1"),
        ("spare", "u1", (7,)),
    ]
)
assert DUE.itemsize == 64, DUE.itemsize  # noqa: PLR2004, S101  a cache line

_PLAIN_RULES = (Rule.RANDOM, Rule.ROUND_ROBIN, Rule.DRAWS, Rule.DISTINCT, Rule.SCAN, Rule.AFFINITY)

_OK, _REJECTED, _UNKNOWN, _DROPPED = int(Status.OK), int(Status.REJECTED), int(Status.UNKNOWN), int(Status.DROPPED)
_PAYMENT, _REFUND, _POST = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.POST)
_IN_FLIGHT, _OVERFLOW, _TIMEOUT, _CIRCUIT = (
    int(Reason.IN_FLIGHT), int(Reason.OVERFLOW), int(Reason.TIMEOUT), int(Reason.CIRCUIT),
)  # fmt: skip
_NODES, _CLIENT = int(Station.NODES), int(Station.CLIENT)
_OFFERED, _ATTEMPTS, _REGRET = int(Count.OFFERED), int(Count.ATTEMPTS), int(Count.REGRET)
_QUEUE_FULL, _NO_NODE, _LEFT = int(Count.QUEUE_FULL), int(Count.NO_NODE), int(Count.LEFT)


_MANY = 512  # nodes that no longer fit the nearest caches
_AHEAD = 6  # arrivals
_DRAWS, _RANDOM = int(Rule.DRAWS), int(Rule.RANDOM)

DRAWN = 256  # arrivals whose draws are made at once
LATE = 16  # answers between asking for a histogram's cache line and using it; a power of two


class Answers(NamedTuple):
    """What is under way, in a table with a stack of free rows."""

    rows: NDArray[np.void]  # (L,) DUE
    free: NDArray[np.int32]  # (L,)
    left: NDArray[np.int64]  # (1,) how many are free
    free_ns: NDArray[
        np.int64
    ]  # (nodes, workers): when each worker is free, a heap a node; of one worker `touched_ns` says it
    late: NDArray[np.int64]  # (LATE, 2) node and bucket of the last answers, counted a little later: see `_settle`
    late_at: NDArray[np.int64]  # (1,)
    drawn: NDArray[np.int64]  # (DRAWN, 2) service time at speed 1 and shard of the next arrivals


def open_answers(setup: Setup) -> Answers:
    """Nothing is under way."""
    size = setup.in_flight
    return Answers(
        rows=np.zeros(size, DUE),
        free=np.arange(size - 1, -1, -1, dtype=np.int32),
        left=np.array([size], np.int64),
        free_ns=np.zeros((setup.model.nodes, setup.model.workers), np.int64),
        late=np.zeros((LATE, 2), np.int64),
        late_at=np.zeros(1, np.int64),
        drawn=np.zeros((DRAWN, 2), np.int64),
    )


def suits(setup: Setup) -> bool:
    """Whether a unit is simple enough: one stage, no feedback, a policy that knows requests in flight and nothing else."""
    model, settings = setup.model, setup.settings
    return (
        model.discipline == FCFS and not model.staged and model.client_ns == 0 and not len(model.faults)
        and not (model.timeout_ns or model.deadline_ns or model.retries or model.hedges)
        and settings.load == Load.IN_FLIGHT and settings.rule in _PLAIN_RULES
        and not (settings.weighted or settings.slow_ns or settings.update_ns or settings.aperture_ns)
        and not (settings.outlier or model.talks or setup.guards.on)
    )  # fmt: skip


@inlined
def _spread(
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


@inlined
def _take_worker(free_ns: NDArray[np.int64], n: int, until_ns: int) -> None:
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


@fused
def _settle(
    nodes: NDArray[np.void], answers: Answers, settings: Settings, fleet: Fleet, edges: NDArray[np.int64], virtual: Virtual,
    response: NDArray[np.uint32], slots: NDArray[np.int64], trace: NDArray[np.void], ctl: NDArray[np.int64], e: int,
) -> None:  # fmt: skip
    """The answer in row e has come."""
    row = answers.rows[e]
    done = row["time_ns"]
    n = int64(row["node"])
    took = done - row["intended_ns"]
    kind = int64(row["kind"])
    window = ctl[WINDOW]
    last = edges.shape[0] - 2
    while window < last and done >= edges[window + 1]:
        window += 1
    while window > 0 and done < edges[window]:
        window -= 1
    note_answered(settings, fleet, int64(row["balancer"]), n, done, took, 1)
    shift_level(virtual.levels, int64(nodes[n]["flight"]), -1)
    nodes[n]["flight"] -= 1
    place = n if response.shape[2] > 1 else 0
    response[slots[row["window"]], kind - 1, place, index_of(took)] += 1
    # With thousands of nodes this line is in no cache near by: it is asked for now, and counted `LATE` answers later.
    place = answers.late_at[0] & (LATE - 1)
    if answers.late_at[0] >= LATE:
        virtual.node_times[answers.late[place, 0], answers.late[place, 1]] += 1
    bucket = coarse_index(took)
    prefetch(virtual.node_times, (n, bucket))
    answers.late[place, 0] = n
    answers.late[place, 1] = bucket
    answers.late_at[0] += 1
    virtual.ended[window, kind - 1, _OK] += 1
    virtual.shard_ok[window, row["shard"]] += 1
    if kind == _PAYMENT or kind == _REFUND or kind == _POST:
        virtual.settled_minor[window] += row["amount_minor"]
    add_hash(virtual.digests, 0, row["id"])
    # Little's law by the other sum: ∫ number dt is what leaving times add up to, less what arrival times do.
    virtual.little[_CLIENT, AREA_NS] += done
    virtual.little[_CLIENT, LEFT] += 1
    virtual.settled_ns[0] = max(virtual.settled_ns[0], done)
    if trace.shape[0] > 0:
        line = trace[int64(row["id"]) - 1]
        line["intended_ns"] = row["intended_ns"]
        line["done_ns"] = done
        line["wait_ns"] = row["wait_ns"]
        line["node"] = n
        line["status"] = _OK
        line["attempts"] = 1
    answers.free[answers.left[0]] = e
    answers.left[0] += 1


@fused
def _end(
    virtual: Virtual, trace: NDArray[np.void], m: np.void, window: int, status: int, reason: int, attempts: int
) -> None:  # fmt: skip
    """A transaction ends at once, without having entered."""
    virtual.ended[window, int64(m["kind"]) - 1, status] += 1
    virtual.reasons[status, reason] += 1
    if trace.shape[0] > 0:
        line = trace[int64(m["id"]) - 1]
        line["intended_ns"] = m["intended_ns"]
        line["status"] = status
        line["reason"] = reason
        if status != _DROPPED:
            line["done_ns"] = m["intended_ns"]
            line["node"] = NONE
            line["attempts"] = attempts


@fused
def _draw(batch: NDArray[np.void], first: int, stop: int, model: Model, drawn: NDArray[np.int64]) -> None:
    """What of the next arrivals depends on themselves alone.

    In a loop of its own, because a logarithm takes long and nothing waits for it here: the processor works on several at once,
    which the branches of the main loop would not let it.
    """
    units, shards = np.uint64(model.units), np.uint64(model.shards)
    for i in range(min(stop - first, DRAWN)):
        index = int64(batch[first + i]["id"]) * INDEX
        drawn[i, 0] = draw_ns(model.times, NODE_TIMES, model.tables, model.node_key, index)
        drawn[i, 1] = int64(np.uint64(batch[first + i]["payer"]) // units % shards)


@kernel
def flush(nodes: NDArray[np.void], virtual: Virtual, window: int) -> None:
    """Gives a window what its nodes have counted: attempts (in `head`, which has no queue to begin here) and areas."""
    for n in range(nodes.shape[0]):
        virtual.node_sent[window, n] += nodes[n]["head"]
        virtual.node_queue_ns[window, n] += nodes[n]["queue_area"]
        virtual.node_busy_ns[window, n] += nodes[n]["busy_area"]
        nodes[n]["head"] = 0
        nodes[n]["queue_area"] = 0
        nodes[n]["busy_area"] = 0


@kernel
def run(  # noqa: C901, PLR0912, PLR0915  one loop, as in the general engine
    batch: NDArray[np.void], start: int, stop: int, last: int, end_ns: int, model: Model, answers: Answers, wheel: Calendar,
    nodes: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings, fleet: Fleet,
    edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64], trace: NDArray[np.void],
) -> int:  # fmt: skip
    """Runs batch[start:stop]; with `last` then takes in the answers that come until `end_ns`. Returns as `general.run` does."""
    rows = answers.rows
    counts = virtual.counts
    at = wheel.at
    shift = at[cal.SHIFT]
    mask = wheel.heads.shape[0] - 1
    drawn = model.nodes > _MANY and (settings.rule == _DRAWS or settings.rule == _RANDOM)
    ctl[NEED] = NONE
    position = start
    drawn_from = start
    drawn_until = start
    while position < stop or last:
        now = batch[position]["intended_ns"] if position < stop else end_ns
        # ---- answers until now ----
        bucket = now >> shift
        # With thousands of nodes little is in the nearest caches: what will be needed soon is asked for now. A wrong guess
        # does no harm.
        ahead = int64(wheel.heads[(bucket + 12) & mask])
        if ahead != NONE:
            prefetch(rows, (ahead,))
        ahead = int64(wheel.heads[(bucket + 4) & mask])
        if ahead != NONE:
            prefetch(nodes, (int64(rows[ahead]["node"]),))
        if drawn and position + _AHEAD < stop:
            word = bits(model.balancer_key, int64(batch[position + _AHEAD]["id"]) * INDEX)
            prefetch(nodes, (int64(below(word, model.nodes)),))
            prefetch(nodes, (int64(below(word << np.uint64(32), model.nodes)),))
        current = at[cal.CURRENT]
        final = min(bucket, current + mask)
        while at[cal.IN_WHEEL] > 0 and current <= final:
            place = current & mask
            word = wheel.filled[place >> 6] >> np.uint64(place & 63)
            if word == np.uint64(0):
                current += 64 - (place & 63)
                continue
            current += trailing_zeros(word)
            if current > final:
                break
            place = current & mask
            before = NONE
            e = int64(wheel.heads[place])
            while e != NONE:
                following = int64(rows[e]["next"])
                if rows[e]["time_ns"] > now:
                    before = e
                else:
                    if slots[rows[e]["window"]] < 0:
                        ctl[NEED] = int64(rows[e]["window"])
                        at[cal.CURRENT] = current
                        return position
                    if before == NONE:
                        wheel.heads[place] = following
                    else:
                        rows[before]["next"] = following
                    at[cal.IN_WHEEL] -= 1
                    shard = int64(rows[e]["shard"])
                    shards[shard]["flight"] -= 1
                    _settle(nodes, answers, settings, fleet, edges, virtual, response, slots, trace, ctl, e)
                e = following
            if wheel.heads[place] == NONE:
                wheel.filled[place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
            if current == final:
                break
            current += 1
        at[cal.CURRENT] = bucket
        while at[cal.IN_FAR] > 0:
            if wheel.far[0]["time_ns"] >> shift >= bucket + wheel.heads.shape[0]:
                break
            e = int64(wheel.far[0]["row"])
            if rows[e]["time_ns"] <= now and slots[rows[e]["window"]] < 0:
                ctl[NEED] = int64(rows[e]["window"])
                return position
            cal.heap_pop(wheel.far, at[cal.IN_FAR])
            at[cal.IN_FAR] -= 1
            if rows[e]["time_ns"] <= now:
                shards[int64(rows[e]["shard"])]["flight"] -= 1
                _settle(nodes, answers, settings, fleet, edges, virtual, response, slots, trace, ctl, e)
            else:
                place = (rows[e]["time_ns"] >> shift) & mask
                rows[e]["next"] = wheel.heads[place]
                wheel.heads[place] = e
                wheel.filled[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
                at[cal.IN_WHEEL] += 1
        if position == stop:
            break
        # ---- an arrival ----
        ctl[NOW] = now
        window = ctl[WINDOW]
        if window < edges.shape[0] - 2 and now >= edges[window + 1]:
            flush(nodes, virtual, window)
            while window < edges.shape[0] - 2 and now >= edges[window + 1]:
                window += 1
            ctl[WINDOW] = window
        m = batch[position]
        if position == drawn_until:
            _draw(batch, position, stop, model, answers.drawn)
            drawn_from = position
            drawn_until = min(position + DRAWN, stop)
        took = answers.drawn[position - drawn_from, 0]
        shard = answers.drawn[position - drawn_from, 1]
        position += 1
        kind = int64(m["kind"])
        counts[_OFFERED] += 1
        virtual.offered_minor[window] += m["amount_minor"]
        if answers.left[0] == 0:
            virtual.dropped[window, kind - 1] += 1
            _end(virtual, trace, m, window, _DROPPED, _IN_FLIGHT, 0)
            continue
        virtual.kinds[window, kind - 1] += 1
        virtual.little[_CLIENT, ARRIVED] += 1
        inside = rows.shape[0] - answers.left[0] + 1
        virtual.inside_top[window] = max(virtual.inside_top[window], inside)
        index = int64(m["id"]) * INDEX
        b = 0
        if model.balancers > 1:
            b = int64(((bits(model.which_key, index) >> np.uint64(32)) * np.uint64(model.balancers)) >> np.uint64(32))
        flight = shards[shard]["flight"] + 1
        shards[shard]["flight_max"] = max(shards[shard]["flight_max"], flight)
        n = choose(
            settings, fleet, b, now, model.balancer_key, index, np.uint64(m["payer"]), shard % model.nodes
        )  # fmt: skip
        if n < 0:
            counts[_NO_NODE] += 1
            virtual.little[_CLIENT, LEFT] += 1
            virtual.settled_ns[0] = max(virtual.settled_ns[0], now)
            _end(virtual, trace, m, window, _REJECTED, _CIRCUIT, 1)
            continue
        note_sent(settings, fleet, b, n, now)
        counts[_ATTEMPTS] += 1
        virtual.attempts[window] += 1
        nodes[n]["head"] += 1
        load = int64(nodes[n]["flight"])
        counts[_REGRET] += max(min(load, LEVELS - 1) - virtual.levels[LEVELS], 0)
        nodes[n]["flight_max"] = max(nodes[n]["flight_max"], load + 1)
        if load - model.workers >= model.queue:
            counts[_QUEUE_FULL] += 1
            virtual.node_failed[window, n] += 1
            note_answered(settings, fleet, b, n, now, 0, 1)
            virtual.little[_CLIENT, LEFT] += 1
            virtual.settled_ns[0] = max(virtual.settled_ns[0], now)
            _end(virtual, trace, m, window, _REJECTED, _OVERFLOW, 1)
            continue
        shards[shard]["flight"] = flight
        shift_level(virtual.levels, load, 1)
        nodes[n]["flight"] = load + 1
        if nodes[n]["slowness"] != 1.0:
            took = int64(took * nodes[n]["slowness"])
        if model.workers == 1:
            begin = max(now, nodes[n]["touched_ns"])
            done = begin + took
            nodes[n]["touched_ns"] = done
        else:
            begin = max(now, answers.free_ns[n, 0])
            done = begin + took
            _take_worker(answers.free_ns, n, done)
        if done <= edges[window + 1] or window == edges.shape[0] - 2:
            nodes[n]["queue_area"] += begin - now
            nodes[n]["busy_area"] += took
        else:
            _spread(virtual.node_queue_ns, edges, window, n, now, begin, 1)
            _spread(virtual.node_busy_ns, edges, window, n, begin, done, 1)
        virtual.little[_CLIENT, AREA_NS] -= now
        virtual.little[_CLIENT, SPENT_NS] += done - now
        virtual.little[_NODES, SPENT_NS] += done - now
        answers.left[0] -= 1
        e = int64(answers.free[answers.left[0]])
        row = rows[e]
        row["time_ns"] = done
        row["id"] = m["id"]
        row["intended_ns"] = now
        row["amount_minor"] = m["amount_minor"]
        row["wait_ns"] = begin - now
        row["node"] = n
        row["balancer"] = b
        row["shard"] = shard
        row["window"] = window
        row["kind"] = kind
        bucket = done >> shift
        if bucket < at[cal.CURRENT] + wheel.heads.shape[0]:
            place = bucket & mask
            row["next"] = wheel.heads[place]
            wheel.heads[place] = e
            wheel.filled[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
            at[cal.IN_WHEEL] += 1
        else:
            cal.heap_push(wheel.far, at[cal.IN_FAR], done, ctl[SEQ], e)
            at[cal.IN_FAR] += 1
            ctl[SEQ] += 1
    return position


@kernel
def give_up(
    answers: Answers, nodes: NDArray[np.void], edges: NDArray[np.int64], virtual: Virtual, trace: NDArray[np.void],
    ctl: NDArray[np.int64], end_ns: int,
) -> None:  # fmt: skip
    """The run is over: what is still under way is in doubt. Sums that were made out on arrival are cut off here."""
    counts, little = virtual.counts, virtual.little
    flush(nodes, virtual, ctl[WINDOW])
    for i in range(min(answers.late_at[0], LATE)):
        virtual.node_times[answers.late[i, 0], answers.late[i, 1]] += 1
    while ctl[WINDOW] < edges.shape[0] - 2 and end_ns >= edges[ctl[WINDOW] + 1]:
        ctl[WINDOW] += 1
    window = ctl[WINDOW]
    for e in range(answers.rows.shape[0]):
        row = answers.rows[e]
        if row["time_ns"] <= end_ns:
            continue
        n = int64(row["node"])
        done = row["time_ns"]
        begin = row["intended_ns"] + row["wait_ns"]
        _spread(virtual.node_busy_ns, edges, window, n, max(begin, end_ns), done, -1)
        if begin > end_ns:
            _spread(virtual.node_queue_ns, edges, window, n, end_ns, begin, -1)
        little[_CLIENT, AREA_NS] += end_ns
        little[_CLIENT, LEFT] += 1
        little[_CLIENT, SPENT_NS] -= done - end_ns
        little[_NODES, SPENT_NS] -= done - end_ns
        counts[_LEFT] += 1
        virtual.ended[window, int64(row["kind"]) - 1, _UNKNOWN] += 1
        virtual.reasons[_UNKNOWN, _TIMEOUT] += 1
        virtual.settled_ns[0] = end_ns
        if trace.shape[0] > 0:
            line = trace[int64(row["id"]) - 1]
            line["intended_ns"] = row["intended_ns"]
            line["done_ns"] = end_ns
            line["wait_ns"] = row["wait_ns"] if begin <= end_ns else 0
            line["node"] = NONE
            line["status"] = _UNKNOWN
            line["reason"] = _TIMEOUT
            line["attempts"] = 1


def complete(virtual: Virtual) -> None:
    """Fills in the counts that follow from others when every transaction has one attempt and one stage.

    Each comes from an array that the kernel counts at another place than what it is held against: who came to the nodes from
    attempts less those refused, who left from the nodes' histograms, the time integral from queue and busy time shared out by
    window, what was applied from the shards' counts. Only the second digest is a copy: here what is answered ok is what was
    applied, by construction.
    """
    counts = virtual.counts
    ended = virtual.ended.sum(axis=(0, 1))
    counts[Count.ACKNOWLEDGED] = ended[Status.OK]
    counts[Count.APPLIED] = virtual.shard_ok.sum()
    counts[Count.SETTLED] = ended.sum() - ended[Status.DROPPED]
    counts[Count.PICKS] = counts[Count.ATTEMPTS]
    counts[Count.EVENTS] = counts[Count.OFFERED] + ended[Status.OK]
    virtual.digests[1] = virtual.digests[0]
    nodes = virtual.little[Station.NODES]
    nodes[ARRIVED] = virtual.node_sent.sum() - virtual.node_failed.sum()
    nodes[LEFT] = virtual.node_times.sum(dtype=np.int64) + counts[Count.LEFT]
    nodes[AREA_NS] = virtual.node_busy_ns.sum() + virtual.node_queue_ns.sum()
