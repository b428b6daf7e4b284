"""The direct path, for the simplest platforms: one station, and clients that only wait.

A transaction's whole fate is known when it is sent, so it is counted then, and its departure only makes room. As on the fast path
(`fast`) the departure follows from those sent to its node before it. Here it is also the answer, and nobody times out or tries
again: 2 events a transaction, an arrival and a departure. At one instant departures come before arrivals.

The run ends `drain_ns` after its last arrival, which nobody knows yet. Whoever is served within `drain_ns` is so before the end,
whenever that is; only those that take longer are *open*: they are counted when they depart, or are in doubt at the end.

What depends on an arrival alone is drawn and counted in blocks, as if all of them will be answered ok (`_offer`), and taken back
for the few that are not (`_not_ok`).

`suits` says when; the result is then that of the general engine, transaction by transaction (a test holds them together).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.choose import choose, note_answered, note_sent
from simulator.balancer.fleet import Rule
from simulator.engine.virtual.agenda import next_ns, open_agenda, peek, put, take
from simulator.engine.virtual.ahead import (
    DRAWN,
    INDICES,
    MANY,
    SERVICE_NS,
    SHARD,
    ask_ahead,
    count_ok,
    draw,
    flush,
    flush_late,
    foreseeable,
    is_drawn,
    note,
    open_late,
    serve,
    take_worker,
    unserve,
)
from simulator.engine.virtual.general import (
    ENDED,
    NEED,
    NOW,
    WINDOW,
)
from simulator.engine.virtual.records import NONE
from simulator.engine.virtual.tally import (
    AREA_NS,
    ARRIVED,
    LEFT,
    LEVELS,
    SPENT_NS,
    Count,
    Station,
    add_hashes,
    enter_level,
    leave_level,
    take_hash,
)
from simulator.kernel import fused, int64, kernel
from simulator.measure.grid import window_of
from simulator.seeds import bits
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings
    from simulator.engine.virtual.agenda import Agenda
    from simulator.engine.virtual.model import Model, Setup
    from simulator.engine.virtual.tally import Virtual

# A transaction under way.
ROW = np.dtype(
    [
        ("time_ns", "<i8"),  # it departs
        ("sent_ns", "<i8"),
        ("next", "<i4"),  # in a bucket
        ("node", "<i4"),
        ("balancer", "<u2"),
        ("shard", "<u2"),
        ("window", "<u2"),  # of the intended time
        ("open", "u1"),  # 1: it is not counted yet
        ("kind", "u1"),
    ]
)
assert ROW.itemsize == 32, ROW.itemsize  # noqa: PLR2004, S101  two to a cache line
# What else is known of it while it is open. Apart, because few are.
DETAIL = np.dtype([("id", "<u8"), ("amount_minor", "<i8"), ("begin_ns", "<i8")])

_OK, _REJECTED, _UNKNOWN, _DROPPED = int(Status.OK), int(Status.REJECTED), int(Status.UNKNOWN), int(Status.DROPPED)
_IN_FLIGHT, _OVERFLOW, _TIMEOUT, _CIRCUIT = (
    int(Reason.IN_FLIGHT), int(Reason.OVERFLOW), int(Reason.TIMEOUT), int(Reason.CIRCUIT),
)  # fmt: skip
_CLIENT = int(Station.CLIENT)
_EVENTS, _OFFERED, _REGRET = int(Count.EVENTS), int(Count.OFFERED), int(Count.REGRET)
_QUEUE_FULL, _NO_NODES, _LEFT = int(Count.QUEUE_FULL), int(Count.NO_NODE), int(Count.LEFT)
_SETTLED = int(Count.SETTLED)
_AFFINITY = int(Rule.AFFINITY)

_KINDS, _IDS = 3, 4  # rows of `Direct.drawn`, behind those of `ahead`

# Scalars of the direct path, in `Direct.at`. Arrivals of the batch in [BLOCK_FROM, BLOCK_UNTIL) are drawn and counted as offered.
FREE, DRAIN_NS, BLOCK_FROM, BLOCK_UNTIL = range(4)


class Direct(NamedTuple):
    """The state beyond what all engines have."""

    rows: NDArray[np.void]  # (R,) ROW
    details: NDArray[np.void]  # (R,) DETAIL
    free: NDArray[np.int32]  # (R,) a stack of free rows
    at: NDArray[np.int64]  # (4,) see above
    free_ns: NDArray[np.int64]  # (nodes, workers): when each is free, a heap a node; of one worker `touched_ns` says it
    drawn: NDArray[np.int64]  # (5, DRAWN) see `ahead.draw`; then kinds and ids
    late: NDArray[np.int64]  # see `ahead.open_late`
    departures: Agenda
    sent: NDArray[np.int64]  # (nodes,) attempts in this window


def open_direct(setup: Setup, arrivals_per_s: float) -> Direct:
    """Nothing is under way; the guess of arrivals a second is for the agenda."""
    model, size = setup.model, setup.in_flight
    at = np.zeros(4, np.int64)
    at[FREE] = size
    at[DRAIN_NS] = setup.drain_ns
    return Direct(
        rows=np.zeros(size, ROW),
        details=np.zeros(size, DETAIL),
        free=np.arange(size - 1, -1, -1, dtype=np.int32),
        at=at,
        free_ns=np.zeros((model.nodes, model.workers), np.int64),
        drawn=np.zeros((5, DRAWN), np.int64),
        late=open_late(),
        departures=open_agenda(size, arrivals_per_s, model.nodes * model.workers),
        sent=np.zeros(model.nodes, np.int64),
    )


def suits(setup: Setup) -> bool:
    """Whether a unit is of the simplest kind."""
    model = setup.model
    return foreseeable(setup) and not (model.staged or model.client_ns or model.timeout_ns or model.retries)


@fused
def _offer(
    batch: NDArray[np.void], start: int, count: int, model: Model, drawn: NDArray[np.int64], virtual: Virtual, window: int
) -> None:  # fmt: skip
    """Draws and counts arrivals of one window, as if all of them will be answered ok."""
    draw(batch, start, start + count, model, drawn)
    minor = int64(0)
    times_ns = int64(0)
    for i in range(count):
        m = batch[start + i]
        minor += m["amount_minor"]
        times_ns += m["intended_ns"]
        drawn[_KINDS, i] = int64(m["kind"])
        drawn[_IDS, i] = int64(m["id"])
    virtual.offered_minor[window] += minor
    virtual.little[_CLIENT, ARRIVED] += count
    virtual.little[_CLIENT, AREA_NS] -= times_ns
    virtual.counts[_OFFERED] += count
    virtual.counts[_EVENTS] += count
    for kind in range(virtual.kinds.shape[1]):
        found = 0
        for i in range(count):
            found += int64(drawn[_KINDS, i] == kind + 1)
        virtual.kinds[window, kind] += found
    add_hashes(virtual.digests, 0, drawn[_IDS, :count])


@fused
def _not_ok(
    virtual: Virtual, trace: NDArray[np.void], number: np.uint64, kind: int, window: int, sent_ns: int, now: int, status: int,
    reason: int,
) -> None:  # fmt: skip
    """A transaction ends, and not with an ok, in `window`: `_offer` has taken it for one."""
    take_hash(virtual.digests, 0, number)
    virtual.ended[window, kind - 1, status] += 1
    virtual.reasons[status, reason] += 1
    virtual.counts[_SETTLED] += 1
    virtual.little[_CLIENT, AREA_NS] += now
    virtual.little[_CLIENT, SPENT_NS] += now - sent_ns
    virtual.settled_ns[0] = max(virtual.settled_ns[0], now)
    note(trace, int64(number), sent_ns, now, status, reason, NONE, 1)


@fused
def _depart(
    direct: Direct, nodes: NDArray[np.void], shards: NDArray[np.void], settings: Settings, fleet: Fleet, virtual: Virtual, r: int
) -> None:  # fmt: skip
    """A transaction leaves its node, its shard and its balancer."""
    row = direct.rows[r]
    n = int64(row["node"])
    there = int64(nodes[n]["flight"])
    leave_level(virtual.levels, there)
    nodes[n]["flight"] = there - 1
    shards[row["shard"]]["flight"] -= 1
    note_answered(settings, fleet, int64(row["balancer"]), n, row["time_ns"], row["time_ns"] - row["sent_ns"], 1)


@kernel
def run(  # noqa: C901, PLR0912, PLR0915  one loop, as in the general engine
    batch: NDArray[np.void], start: int, stop: int, last: int, end_ns: int, model: Model, direct: Direct,
    nodes: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings, fleet: Fleet,
    edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64], trace: NDArray[np.void],
) -> int:  # fmt: skip
    """Runs batch[start:stop]; with `last` then what is left, until `end_ns`. Returns as `general.run` does."""
    rows, at, counts, drawn = direct.rows, direct.at, virtual.counts, direct.drawn
    drawn_ahead = model.nodes > MANY and is_drawn(settings)
    traced = trace.shape[0] > 0
    room = model.workers + model.queue
    ctl[NEED] = NONE
    position = start
    if start == 0:
        at[BLOCK_FROM] = at[BLOCK_UNTIL] = 0
    begins, until = at[BLOCK_FROM], at[BLOCK_UNTIL]
    window = ctl[WINDOW]
    if position < until and slots[window] < 0:  # it had to make room for the window of one that was open
        ctl[NEED] = window
        return position
    # What is added to with each transaction stays in registers until the end.
    free, now = at[FREE], ctl[NOW]
    left_ns = spent_ns = departed = regret = int64(0)
    last_ns, most = virtual.settled_ns[0], virtual.inside_top[window]
    while True:
        if position < stop:
            until_ns = batch[position]["intended_ns"]
        elif last:
            until_ns = end_ns
        else:
            break
        while next_ns(direct.departures) <= until_ns:
            now = next_ns(direct.departures)
            r = peek(direct.departures)
            if rows[r]["open"]:
                row = rows[r]
                if slots[row["window"]] < 0:
                    ctl[NEED] = int64(row["window"])
                    break
                row["open"] = 0
                count_ok(
                    direct.late, virtual, response, slots, int64(row["kind"]), direct.details[r]["amount_minor"],
                    int64(row["shard"]), int64(row["window"]), now - row["sent_ns"], int64(row["node"]),
                    window_of(edges, now, window),
                )  # fmt: skip
                left_ns += now
                spent_ns += now - row["sent_ns"]
                last_ns = max(last_ns, now)
                note(trace, int64(direct.details[r]["id"]), row["sent_ns"], now, _OK, 0, int64(row["node"]), 1)
            take(direct.departures, rows)
            departed += 1
            _depart(direct, nodes, shards, settings, fleet, virtual, r)
            direct.free[free] = r
            free += 1
        if ctl[NEED] != NONE:
            break
        if position >= stop:
            ctl[ENDED] = 1
            break
        now = until_ns
        if position == until:
            # ---- the next block of arrivals, all of one window ----
            if now >= edges[window + 1]:
                virtual.inside_top[window] = most
                flush(direct.sent, nodes, virtual, window)
                window = window_of(edges, now, window)
                most = virtual.inside_top[window]
            if slots[window] < 0:
                ctl[NEED] = window
                break
            begins = position
            until = min(position + DRAWN, stop)
            while batch[until - 1]["intended_ns"] >= edges[window + 1] and window < edges.shape[0] - 2:
                until -= 1
            _offer(batch, begins, until - begins, model, drawn, virtual, window)
        if drawn_ahead:
            ask_ahead(batch, position, stop, model, nodes)

        # ---- an arrival ----
        i = position - begins
        m = batch[position]
        position += 1
        kind, index = drawn[_KINDS, i], drawn[INDICES, i]
        took, shard = drawn[SERVICE_NS, i], drawn[SHARD, i]
        if free == 0:
            virtual.kinds[window, kind - 1] -= 1
            virtual.dropped[window, kind - 1] += 1
            virtual.ended[window, kind - 1, _DROPPED] += 1
            virtual.reasons[_DROPPED, _IN_FLIGHT] += 1
            virtual.little[_CLIENT, ARRIVED] -= 1
            virtual.little[_CLIENT, AREA_NS] += now
            take_hash(virtual.digests, 0, m["id"])
            note(trace, int64(m["id"]), now, 0, _DROPPED, _IN_FLIGHT, 0, 0)
            continue
        most = max(most, rows.shape[0] - free + 1)
        inside = int64(shards[shard]["flight"]) + 1
        shards[shard]["flight_max"] = max(int64(shards[shard]["flight_max"]), inside)

        # ---- is sent to a node ----
        b = 0
        if model.balancers > 1:
            b = int64(((bits(model.which_key, index) >> np.uint64(32)) * np.uint64(model.balancers)) >> np.uint64(32))
        home = shard % model.nodes if settings.rule == _AFFINITY else 0
        n = choose(settings, fleet, b, now, model.balancer_key, index, np.uint64(0), home)
        if n < 0:
            counts[_NO_NODES] += 1
            _not_ok(virtual, trace, m["id"], kind, window, now, now, _REJECTED, _CIRCUIT)
            continue
        direct.sent[n] += 1
        node = nodes[n]
        there = int64(node["flight"])
        node["flight_max"] = max(int64(node["flight_max"]), there + 1)
        regret += max(min(there, LEVELS - 1) - virtual.levels[LEVELS], 0)
        if there >= room:
            counts[_QUEUE_FULL] += 1
            virtual.node_failed[window, n] += 1
            _not_ok(virtual, trace, m["id"], kind, window, now, now, _REJECTED, _OVERFLOW)
            continue

        # ---- and it is known what becomes of it ----
        note_sent(settings, fleet, b, n, now)
        node["flight"] = there + 1
        shards[shard]["flight"] = inside
        enter_level(virtual.levels, there)
        if node["slowness"] != 1.0:
            took = int64(took * node["slowness"])
        begin = max(now, node["touched_ns"] if model.workers == 1 else direct.free_ns[n, 0])
        done = begin + took
        if model.workers == 1:
            node["touched_ns"] = done
        else:
            take_worker(direct.free_ns, n, done)
        serve(nodes, virtual, edges, window, n, now, begin, done)
        free -= 1
        r = int64(direct.free[free])
        row = rows[r]
        row["time_ns"] = done
        row["sent_ns"] = now
        row["node"] = n
        row["balancer"] = b
        row["shard"] = shard
        put(direct.departures, rows, r, done, now)
        if traced:
            trace[int64(m["id"]) - 1]["wait_ns"] = begin - now
        if done - now <= at[DRAIN_NS]:
            ends = window if done < edges[window + 1] else window_of(edges, done, window)
            count_ok(direct.late, virtual, response, slots, kind, m["amount_minor"], shard, window, done - now, n, ends)
            left_ns += done
            spent_ns += done - now
            last_ns = max(last_ns, done)
            if traced:
                note(trace, int64(m["id"]), now, done, _OK, 0, n, 1)
        else:
            row["open"] = 1
            row["window"] = window
            row["kind"] = kind
            direct.details[r]["id"] = m["id"]
            direct.details[r]["amount_minor"] = m["amount_minor"]
            direct.details[r]["begin_ns"] = begin
    at[BLOCK_FROM], at[BLOCK_UNTIL], at[FREE] = begins, until, free
    ctl[WINDOW], ctl[NOW] = window, now
    counts[_EVENTS] += departed
    counts[_REGRET] += regret
    virtual.little[_CLIENT, AREA_NS] += left_ns
    virtual.little[_CLIENT, SPENT_NS] += spent_ns
    virtual.settled_ns[0] = max(virtual.settled_ns[0], last_ns)
    virtual.inside_top[window] = most
    return position


@kernel
def give_up(
    direct: Direct, nodes: NDArray[np.void], shards: NDArray[np.void], edges: NDArray[np.int64], virtual: Virtual,
    trace: NDArray[np.void], ctl: NDArray[np.int64], end_ns: int,
) -> None:  # fmt: skip
    """The run is over: what is still open is in doubt. What was counted beyond the end is cut off here."""
    flush(direct.sent, nodes, virtual, ctl[WINDOW])
    flush_late(direct.late, virtual)
    ctl[WINDOW] = window_of(edges, end_ns, ctl[WINDOW])
    window = ctl[WINDOW]
    for r in range(direct.rows.shape[0]):
        row = direct.rows[r]
        if not row["open"]:
            continue
        detail = direct.details[r]
        unserve(virtual, edges, window, int64(row["node"]), row["sent_ns"], detail["begin_ns"], row["time_ns"], end_ns)
        shards[row["shard"]]["flight"] -= 1
        virtual.counts[_LEFT] += 1
        _not_ok(virtual, trace, detail["id"], int64(row["kind"]), window, row["sent_ns"], end_ns, _UNKNOWN, _TIMEOUT)
        if detail["begin_ns"] > end_ns and trace.shape[0] > 0:
            trace[int64(detail["id"]) - 1]["wait_ns"] = 0


def complete(virtual: Virtual) -> None:
    """Fills in the counts that follow from others, for Little's law from other arrays than those that it is held against.

    What is answered ok is what was applied, by construction. Of clients, who left follows from the ends. Of nodes, who came
    follows from attempts less those refused, who left from their histograms, the time integral from queue and busy time shared
    out by window, and time spent from the clients', who are nowhere else.
    """
    counts, little = virtual.counts, virtual.little
    virtual.attempts[:] = virtual.node_sent.sum(axis=1)
    counts[Count.ATTEMPTS] = counts[Count.PICKS] = virtual.attempts.sum()
    counts[Count.ACKNOWLEDGED] = virtual.ended[:, :, Status.OK].sum()
    counts[Count.SETTLED] += counts[Count.ACKNOWLEDGED]
    counts[Count.APPLIED] = virtual.shard_ok.sum()
    virtual.digests[1] = virtual.digests[0]
    little[Station.CLIENT, LEFT] = counts[Count.SETTLED]
    nodes = little[Station.NODES]
    nodes[ARRIVED] = virtual.node_sent.sum() - virtual.node_failed.sum()
    nodes[LEFT] = virtual.node_times.sum(dtype=np.int64) + counts[Count.LEFT]
    nodes[SPENT_NS] = little[Station.CLIENT, SPENT_NS]
    nodes[AREA_NS] = virtual.node_busy_ns.sum() + virtual.node_queue_ns.sum()
