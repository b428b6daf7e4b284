"""The fast path: what becomes of an attempt is known when it is sent, so most of the general engine's events need not happen.

Where nodes serve first come first served and nothing strikes them, an attempt's departure from its node follows from those sent
there before it (D. V. Lindley, "The Theory of Queues with a Single Server", 1952, for one worker; J. Kiefer, J. Wolfowitz, "On
the Theory of Queues with Many Servers", 1955, for c), and its departure from its shard from those that left their nodes before
it. What is left of the event list:

* *departures* from nodes, in order of time, because the shards serve in that order, and *answers* to clients. They decide
  nothing, and wait together in an `agenda`;
* what decides something, one after the other: arrivals, refusals on their way back (in order, their way takes a constant time),
  time-outs (in the order in which they were set) and retries whose backoff is over (a heap: they are few).

Before each of the last, departures and answers until then are taken in. At one instant: departures and answers (which do not
touch each other), refusals, retries, time-outs, arrivals.

`suits` says when; the result is then that of the general engine, transaction by transaction (a test holds them together), but
for what falls on the same nanosecond, where the general engine goes by the order in which things were scheduled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.backoff import backoff_ns
from simulator.balancer.budget import RETRY, deposit, withdraw
from simulator.balancer.choose import AGAIN, REDRAWN, choose, note_answered, note_sent
from simulator.engine.virtual.agenda import next_ns, open_agenda, peek, put, take
from simulator.engine.virtual.ahead import (
    DRAWN,
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
from simulator.engine.virtual.calendar import ENTRY, heap_pop, heap_push
from simulator.engine.virtual.general import (
    ACTIVE,
    ENDED,
    INDEX,
    LATE_HEAD,
    LATE_TAIL,
    NEED,
    NOW,
    OK_FLAG,
    SEQ,
    WINDOW,
)
from simulator.engine.virtual.model import NODE_TIMES, SHARD_TIMES
from simulator.engine.virtual.records import (
    APPLIED,
    DOUBT,
    IN_DOUBT,
    NEVER_NS,
    NONE,
    RETRIED,
    SETTLED,
    Answer,
)
from simulator.engine.virtual.service import draw_ns
from simulator.engine.virtual.tally import (
    AREA_NS,
    ARRIVED,
    LEFT,
    LEVELS,
    SPENT_NS,
    Count,
    Station,
    add_hash,
    enter_level,
    leave_level,
    take_hash,
)
from simulator.kernel import fused, inlined, int64, kernel
from simulator.measure.grid import window_of
from simulator.seeds import bits
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings
    from simulator.engine.virtual.agenda import Agenda
    from simulator.engine.virtual.model import Model, Setup
    from simulator.engine.virtual.tally import Virtual

# An attempt. The row of a transaction's first attempt is also the transaction's, and stays until all of its attempts have ended.
ROW = np.dtype(
    [
        ("time_ns", "<i8"),  # it leaves its node; then: its answer reaches the client
        ("id", "<u8"),
        ("sent_ns", "<i8"),  # of a first attempt: the intended time
        ("amount_minor", "<i8"),
        ("next", "<i4"),  # in a bucket, or in the line of refusals
        ("older", "<i4"),  # neighbours in the list of time-outs
        ("newer", "<i4"),
        ("root", "<i4"),  # row of the first attempt
        ("node", "<i4"),  # before it is sent: the node of the attempt before, NONE
        ("shard", "<u2"),
        ("window", "<u2"),  # of the intended time
        ("balancer", "<u2"),
        ("kind", "u1"),
        ("flags", "u1"),  # of the transaction: SETTLED, APPLIED, DOUBT, IN_DOUBT, OK_FLAG
        ("state", "u1"),  # of the attempt: see below
        ("number", "u1"),  # 0 the first, 1, 2 … retries
        ("refs", "u1"),  # of the transaction: attempts that have not ended
        ("made", "u1"),  # of the transaction: attempts numbered so far
    ]
)
assert ROW.itemsize == 64, ROW.itemsize  # noqa: PLR2004, S101  a cache line

# States. A retry in its backoff has none.
AWAITED, INSIDE, SERVED, REFUSED, FIRST_THERE, ON_THE_WAY = 1, 2, 4, 8, 16, 32

_MOST_QUEUED = 1 << 24  # begin times kept for queue limits: 128 MiB, of which only long queues touch much

_OK, _REJECTED, _UNKNOWN, _DROPPED = int(Status.OK), int(Status.REJECTED), int(Status.UNKNOWN), int(Status.DROPPED)
_IN_FLIGHT, _OVERFLOW, _TIMEOUT, _CIRCUIT = (
    int(Reason.IN_FLIGHT), int(Reason.OVERFLOW), int(Reason.TIMEOUT), int(Reason.CIRCUIT),
)  # fmt: skip
_FULL, _NO_NODE, _LATE = int(Answer.FULL), int(Answer.NO_NODE), int(Answer.LATE)
_NODES, _SHARDS, _CLIENT = int(Station.NODES), int(Station.SHARDS), int(Station.CLIENT)
_EVENTS, _OFFERED, _ATTEMPTS, _REGRET = int(Count.EVENTS), int(Count.OFFERED), int(Count.ATTEMPTS), int(Count.REGRET)
_QUEUE_FULL, _NO_NODES, _LEFT = int(Count.QUEUE_FULL), int(Count.NO_NODE), int(Count.LEFT)
_RETRIES, _RETRY_EMPTY, _NO_ROOM = int(Count.RETRIES), int(Count.RETRY_BUDGET_EMPTY), int(Count.NO_ROOM)
_TIMEOUTS, _LATE_ANSWERS, _WASTED, _WASTED_NS = (
    int(Count.TIMEOUTS), int(Count.LATE_ANSWERS), int(Count.WASTED), int(Count.WASTED_NS),
)  # fmt: skip
_REPEATED, _APPLIED_COUNT, _ACK_NOT_APPLIED = (
    int(Count.REPEATED), int(Count.APPLIED), int(Count.ACKNOWLEDGED_NOT_APPLIED),
)  # fmt: skip
_UNKNOWN_APPLIED, _REFUSED_APPLIED = int(Count.UNKNOWN_APPLIED), int(Count.REFUSED_APPLIED)
_ATTEMPTS_ENDED, _SETTLED_COUNT = int(Count.ATTEMPTS_ENDED), int(Count.SETTLED)

_ARRIVAL, _TIMER, _RETRY, _REFUSAL, _END = range(5)

# Scalars of the fast path, in `Fast.at`.
FREE_ROWS, FREE_LIVE, FREE_ATTEMPTS, CAME, GONE, REFUSED_HEAD, REFUSED_TAIL, RETRYING, MOST = range(9)


class Fast(NamedTuple):
    """The state beyond what both engines have."""

    rows: NDArray[np.void]  # (R,) ROW
    free: NDArray[np.int32]  # (R,) a stack of free rows
    at: NDArray[np.int64]  # (9,) see above
    free_ns: NDArray[np.int64]  # (nodes, workers): when each is free, a heap a node; of one worker `touched_ns` says it
    begins: NDArray[np.int64]  # (nodes, queue): when the last that had to wait begin; a ring a node (`head`, `waiting`)
    came: NDArray[np.int64]  # (C, 2) when, and to which node: attempts on their way to nodes, a ring
    drawn: NDArray[np.int64]  # (3, DRAWN) see `ahead.draw`
    late: NDArray[np.int64]  # see `ahead.open_late`
    agenda: Agenda  # departures from nodes, and answers
    retries: NDArray[np.void]  # (R,) ENTRY, a heap: in their backoff
    sent: NDArray[np.int64]  # (nodes,) attempts in this window


def open_fast(setup: Setup, arrivals_per_s: float) -> Fast:
    """Nothing is under way; the guess of arrivals a second is for the agenda."""
    model = setup.model
    size = setup.in_flight + (setup.attempt_rows if model.retries else 0)
    at = np.zeros(9, np.int64)
    at[FREE_ROWS], at[FREE_LIVE], at[FREE_ATTEMPTS] = size, setup.in_flight, setup.attempt_rows
    at[MOST] = setup.in_flight
    at[REFUSED_HEAD] = at[REFUSED_TAIL] = NONE
    two = _two_steps(setup)
    servers = model.nodes * model.workers
    return Fast(
        rows=np.zeros(size, ROW),
        free=np.arange(size - 1, -1, -1, dtype=np.int32),
        at=at,
        free_ns=np.zeros((model.nodes, model.workers), np.int64),
        begins=np.zeros((model.nodes, model.queue if _limited(setup) else 1), np.int64),
        came=np.zeros((1 << (size - 1).bit_length() if model.client_ns else 1, 2), np.int64),
        drawn=np.zeros((3, DRAWN), np.int64),
        late=open_late(),
        agenda=open_agenda(size, (2.0 if two else 1.0) * arrivals_per_s, servers),
        retries=np.zeros(size + 1 if model.retries else 1, ENTRY),
        sent=np.zeros(model.nodes, np.int64),
    )


def _two_steps(setup: Setup) -> bool:
    return bool(setup.model.staged or setup.model.client_ns)


def _limited(setup: Setup) -> bool:
    """Whether a node's queue can be full at all."""
    return setup.model.queue < setup.attempt_rows


def suits(setup: Setup) -> bool:
    """Whether a unit is simple enough."""
    model = setup.model
    return (
        foreseeable(setup)
        # Else what is on its way to a shard at the end is not told from what is there.
        and setup.drain_ns >= model.shard_ns
        and (not _limited(setup) or model.nodes * model.queue <= _MOST_QUEUED)
    )


@fused
def _end(
    rows: NDArray[np.void], virtual: Virtual, trace: NDArray[np.void], shards: NDArray[np.void], q: int, window: int,
    status: int, reason: int, node: int, now: int,
) -> None:  # fmt: skip
    """A transaction ends without an ok, for its client."""
    row = rows[q]
    row["flags"] |= SETTLED
    shards[row["shard"]]["flight"] -= 1
    virtual.counts[_SETTLED_COUNT] += 1
    virtual.little[_CLIENT, AREA_NS] += now
    virtual.little[_CLIENT, SPENT_NS] += now - row["sent_ns"]
    virtual.little[_CLIENT, LEFT] += 1
    virtual.ended[window, int64(row["kind"]) - 1, status] += 1
    virtual.reasons[status, reason] += 1
    virtual.settled_ns[0] = max(virtual.settled_ns[0], now)
    if status == _UNKNOWN:
        row["flags"] |= IN_DOUBT
    note(trace, int64(row["id"]), row["sent_ns"], now, status, reason, node, int64(row["made"]))


@fused
def _ok(
    rows: NDArray[np.void], fast: Fast, edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32],
    slots: NDArray[np.int64], trace: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64], q: int, n: int,
    done: int,
) -> None:  # fmt: skip
    """A transaction ends with an ok, from node n; its row says so when it is freed."""
    row = rows[q]
    kind = int64(row["kind"])
    took = done - row["sent_ns"]
    shard = int64(row["shard"])
    shards[shard]["flight"] -= 1
    count_ok(
        fast.late, virtual, response, slots, kind, row["amount_minor"], shard, int64(row["window"]), took, n,
        window_of(edges, done, ctl[WINDOW]),
    )  # fmt: skip
    add_hash(virtual.digests, 0, row["id"])
    # Little's law by the other sum: ∫ number dt is what leaving times add up to, less what arrival times do.
    virtual.little[_CLIENT, AREA_NS] += done
    virtual.little[_CLIENT, SPENT_NS] += took
    virtual.little[_CLIENT, LEFT] += 1
    virtual.settled_ns[0] = max(virtual.settled_ns[0], done)
    note(trace, int64(row["id"]), row["sent_ns"], done, _OK, 0, n, int64(row["made"]))


@fused
def _stop_awaiting(
    model: Model, rows: NDArray[np.void], nodes: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings, fleet: Fleet,
    r: int, now: int, good: int,
) -> None:  # fmt: skip
    """The client waits for an attempt no longer, and its balancer is told so."""
    row = rows[r]
    if model.timeout_ns:
        older, newer = int64(row["older"]), int64(row["newer"])
        if older == NONE:
            ctl[LATE_HEAD] = newer
        else:
            rows[older]["newer"] = newer
        if newer == NONE:
            ctl[LATE_TAIL] = older
        else:
            rows[newer]["older"] = older
    row["state"] &= ~AWAITED
    ctl[ACTIVE] -= 1
    if row["number"] > 0:
        ctl[ACTIVE + RETRIED] -= 1
    n = int64(row["node"])
    nodes[n]["flight"] -= 1
    note_answered(settings, fleet, int64(row["balancer"]), n, now, now - row["sent_ns"], good)


@fused
def _free(fast: Fast, virtual: Virtual, r: int) -> None:
    """An attempt has ended: the platform is done with it, and nobody waits for it. Its transaction's row may go with it."""
    rows, counts = fast.rows, virtual.counts
    q = int64(rows[r]["root"])
    fast.at[FREE_ATTEMPTS] += 1
    counts[_ATTEMPTS_ENDED] += 1
    rows[q]["refs"] -= 1
    if r != q:
        rows[r]["id"] = 0
        fast.free[fast.at[FREE_ROWS]] = r
        fast.at[FREE_ROWS] += 1
    if rows[q]["refs"] == 0 and rows[q]["flags"] & SETTLED:
        _free_root(fast, virtual, q)


@inlined
def _free_root(fast: Fast, virtual: Virtual, q: int) -> None:
    """A transaction has ended, and all of its attempts. Only now is it known whether it was applied."""
    rows, counts = fast.rows, virtual.counts
    flags = int64(rows[q]["flags"])
    if flags & APPLIED:
        if flags & IN_DOUBT:
            counts[_UNKNOWN_APPLIED] += 1
        elif not flags & DOUBT and not flags & OK_FLAG:
            counts[_REFUSED_APPLIED] += 1
    elif flags & OK_FLAG:
        counts[_ACK_NOT_APPLIED] += 1
    rows[q]["id"] = 0
    fast.free[fast.at[FREE_ROWS]] = q
    fast.at[FREE_ROWS] += 1
    fast.at[FREE_LIVE] += 1


@inlined
def _apply(rows: NDArray[np.void], virtual: Virtual, r: int, q: int) -> None:
    """The shard applies a transaction, once however often it comes."""
    if rows[q]["flags"] & APPLIED:
        virtual.counts[_REPEATED] += 1
    else:
        rows[q]["flags"] |= APPLIED
        rows[r]["state"] |= FIRST_THERE
        virtual.counts[_APPLIED_COUNT] += 1
        add_hash(virtual.digests, 1, rows[r]["id"])


@fused
def _depart(
    model: Model, fast: Fast, nodes: NDArray[np.void], shards: NDArray[np.void], virtual: Virtual, r: int, end_ns: int,
) -> None:  # fmt: skip
    """An attempt leaves its node: the next such of its shard's. When its answer reaches the client is known now."""
    rows = fast.rows
    row = rows[r]
    now = row["time_ns"]
    n = int64(row["node"])
    leave_level(virtual.levels, int64(nodes[n]["working"]))
    nodes[n]["working"] -= 1
    virtual.little[_NODES, LEFT] += 1
    row["state"] &= ~SERVED
    _apply(rows, virtual, r, int64(row["root"]))
    if model.staged:
        shard = int64(row["shard"])
        comes = now + model.shard_ns
        took = draw_ns(
            model.times, SHARD_TIMES, model.tables, model.shard_key, int64(row["id"]) * INDEX + row["number"]
        )
        done = max(shards[shard]["free_ns"], comes) + took
        shards[shard]["free_ns"] = done
        if comes <= end_ns:
            virtual.little[_SHARDS, ARRIVED] += 1
            virtual.little[_SHARDS, AREA_NS] -= comes
            virtual.little[_SHARDS, SPENT_NS] += done - comes
        else:
            row["state"] |= ON_THE_WAY
        back = done + model.shard_ns + model.client_ns
    else:
        back = now + model.client_ns
    row["time_ns"] = back
    put(fast.agenda, rows, r, back, now)


@fused
def _answered(
    model: Model, fast: Fast, nodes: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings,
    fleet: Fleet, edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64],
    trace: NDArray[np.void], r: int,
) -> None:  # fmt: skip
    """The answer to an attempt reaches its client."""
    rows = fast.rows
    row = rows[r]
    now = row["time_ns"]
    n = int64(row["node"])
    q = int64(row["root"])
    if row["state"] & SERVED:  # one step: it leaves its node at this very instant
        leave_level(virtual.levels, int64(nodes[n]["working"]))
        nodes[n]["working"] -= 1
        virtual.little[_NODES, LEFT] += 1
        _apply(rows, virtual, r, q)
    elif model.staged:
        virtual.little[_SHARDS, LEFT] += 1
        virtual.little[_SHARDS, AREA_NS] += now - model.shard_ns - model.client_ns
    ctl[NOW] = max(ctl[NOW], now)
    if row["state"] & AWAITED:
        _stop_awaiting(model, rows, nodes, ctl, settings, fleet, r, now, 1)
        _ok(rows, fast, edges, virtual, response, slots, trace, shards, ctl, q, n, now)
        rows[q]["flags"] |= SETTLED | OK_FLAG
    else:
        virtual.counts[_LATE_ANSWERS] += 1
    row["state"] = 0
    _free(fast, virtual, r)


@kernel
def run(  # noqa: C901, PLR0912, PLR0915  one loop, as in the general engine
    batch: NDArray[np.void], start: int, stop: int, last: int, end_ns: int, model: Model, fast: Fast,
    nodes: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64], budgets: NDArray[np.float64], settings: Settings,
    fleet: Fleet, edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64],
    trace: NDArray[np.void],
) -> int:  # fmt: skip
    """Runs batch[start:stop]; with `last` then what is left, until `end_ns`. Returns as `general.run` does."""
    rows = fast.rows
    counts = virtual.counts
    little = virtual.little
    at = fast.at
    two_steps = model.staged > 0 or model.client_ns > 0
    delayed = model.client_ns > 0
    impatient = model.timeout_ns > 0
    limited = fast.begins.shape[1] == model.queue or model.queue == 0
    came_mask = fast.came.shape[0] - 1
    drawn_ahead = model.nodes > MANY and is_drawn(settings)
    ctl[NEED] = NONE
    position = start
    drawn_from = start
    drawn_until = start
    while True:
        # ---- what decides something next ----
        event = _END
        now = int64(NEVER_NS)
        if position < stop:
            now = batch[position]["intended_ns"]
            event = _ARRIVAL
        elif not last:
            return position
        if impatient and ctl[LATE_HEAD] != NONE:
            t = rows[ctl[LATE_HEAD]]["sent_ns"] + model.timeout_ns
            if t <= now:
                now = t
                event = _TIMER
        if at[RETRYING] > 0 and fast.retries[0]["time_ns"] <= now:
            now = fast.retries[0]["time_ns"]
            event = _RETRY
        if delayed and at[REFUSED_HEAD] != NONE and rows[at[REFUSED_HEAD]]["time_ns"] <= now:
            now = rows[at[REFUSED_HEAD]]["time_ns"]
            event = _REFUSAL
        if now > end_ns:
            now = end_ns
            event = _END
        # ---- all that only follows, until then ----
        if drawn_ahead:
            ask_ahead(batch, position, stop, model, nodes)
        if delayed:
            while at[GONE] != at[CAME] and fast.came[at[GONE] & came_mask, 0] <= now:
                n = fast.came[at[GONE] & came_mask, 1]
                little[_NODES, ARRIVED] += 1
                enter_level(virtual.levels, int64(nodes[n]["working"]))
                nodes[n]["working"] += 1
                at[GONE] += 1
        while next_ns(fast.agenda) <= now:
            r = peek(fast.agenda)
            departs = two_steps and rows[r]["state"] & SERVED
            if not departs and slots[rows[r]["window"]] < 0 and rows[r]["state"] & AWAITED:
                ctl[NEED] = int64(rows[r]["window"])
                return position
            take(fast.agenda, rows)
            counts[_EVENTS] += 1
            if departs:
                _depart(model, fast, nodes, shards, virtual, r, end_ns)
                continue
            _answered(model, fast, nodes, shards, ctl, settings, fleet, edges, virtual, response, slots, trace, r)
        if event == _END:
            ctl[ENDED] = 1
            return position
        if (
            impatient
            and event == _TIMER
            and (ctl[LATE_HEAD] == NONE or rows[ctl[LATE_HEAD]]["sent_ns"] + model.timeout_ns != now)
        ):
            continue  # it has just been answered
        ctl[NOW] = max(ctl[NOW], now)
        counts[_EVENTS] += 1
        window = ctl[WINDOW]
        if window < edges.shape[0] - 2 and now >= edges[window + 1]:
            flush(fast.sent, nodes, virtual, window)
            while window < edges.shape[0] - 2 and now >= edges[window + 1]:
                window += 1
            ctl[WINDOW] = window

        send = NONE  # an attempt goes out
        over = NONE  # an attempt has come to nothing
        answer = _LATE
        took = int64(0)
        if event == _ARRIVAL:
            m = batch[position]
            if position == drawn_until:
                draw(batch, position, stop, model, fast.drawn)
                drawn_from = position
                drawn_until = min(position + DRAWN, stop)
            took = fast.drawn[SERVICE_NS, position - drawn_from]
            shard = fast.drawn[SHARD, position - drawn_from]
            position += 1
            kind = int64(m["kind"])
            counts[_OFFERED] += 1
            virtual.offered_minor[window] += m["amount_minor"]
            if at[FREE_LIVE] == 0 or at[FREE_ATTEMPTS] == 0:
                virtual.dropped[window, kind - 1] += 1
                virtual.ended[window, kind - 1, _DROPPED] += 1
                virtual.reasons[_DROPPED, _IN_FLIGHT] += 1
                if trace.shape[0] > 0:
                    line = trace[int64(m["id"]) - 1]
                    line["intended_ns"] = now
                    line["status"] = _DROPPED
                    line["reason"] = _IN_FLIGHT
                continue
            virtual.kinds[window, kind - 1] += 1
            little[_CLIENT, ARRIVED] += 1
            little[_CLIENT, AREA_NS] -= now
            at[FREE_LIVE] -= 1
            at[FREE_ATTEMPTS] -= 1
            at[FREE_ROWS] -= 1
            virtual.inside_top[window] = max(virtual.inside_top[window], at[MOST] - at[FREE_LIVE])
            send = int64(fast.free[at[FREE_ROWS]])
            row = rows[send]
            row["id"] = m["id"]
            row["sent_ns"] = now
            row["amount_minor"] = m["amount_minor"]
            row["shard"] = shard
            row["window"] = window
            row["kind"] = kind
            row["root"] = send
            row["flags"] = 0
            row["number"] = 0
            row["refs"] = 1
            row["made"] = 1
            shards[shard]["flight"] += 1
            shards[shard]["flight_max"] = max(shards[shard]["flight_max"], shards[shard]["flight"])
            if model.retries:
                deposit(budgets, RETRY, now)
        elif event == _TIMER:
            over = ctl[LATE_HEAD]
            counts[_TIMEOUTS] += 1
        elif event == _RETRY:
            send = int64(fast.retries[0]["row"])
            heap_pop(fast.retries, at[RETRYING])
            at[RETRYING] -= 1
            counts[_RETRIES] += 1
            virtual.retries[window] += 1
            took = draw_ns(
                model.times, NODE_TIMES, model.tables, model.node_key,
                int64(rows[send]["id"]) * INDEX + rows[send]["number"],
            )  # fmt: skip
        else:
            r = at[REFUSED_HEAD]
            at[REFUSED_HEAD] = rows[r]["next"]
            rows[r]["state"] &= ~(INSIDE | REFUSED)
            if rows[r]["state"] & AWAITED:
                over = r
                answer = _FULL
            else:
                counts[_LATE_ANSWERS] += 1
                _free(fast, virtual, r)

        # ---- an attempt goes out ----
        if send != NONE:
            row = rows[send]
            first = row["number"] == 0
            index = int64(row["id"]) * INDEX
            if not first:
                index += row["number"]
            b = 0
            if model.balancers > 1:
                b = int64(
                    ((bits(model.which_key, index) >> np.uint64(32)) * np.uint64(model.balancers)) >> np.uint64(32)
                )
            home = int64(row["shard"]) % model.nodes
            hashed = np.uint64(0)
            n = choose(settings, fleet, b, now, model.balancer_key, index, hashed, home)
            if not first and n >= 0 and n == row["node"] and settings.rule in REDRAWN:
                # As the general engine: a retry is for another node, so there is one more try.
                n = choose(settings, fleet, b, now, model.balancer_key, index + AGAIN, hashed, home)
            row["sent_ns"] = now
            if n < 0:
                counts[_NO_NODES] += 1
                if first:
                    row["node"] = NONE
                else:
                    ctl[ACTIVE + RETRIED] -= 1
                row["state"] = 0
                over = send
                answer = _NO_NODE
            else:
                note_sent(settings, fleet, b, n, now)
                counts[_ATTEMPTS] += 1
                virtual.attempts[window] += 1
                fast.sent[n] += 1
                node = nodes[n]
                there = int64(node["working"])
                counts[_REGRET] += max(min(there, LEVELS - 1) - virtual.levels[LEVELS], 0)
                row["node"] = n
                row["balancer"] = b
                ctl[ACTIVE] += 1
                flight = int64(node["flight"]) + 1
                node["flight"] = flight
                node["flight_max"] = max(int64(node["flight_max"]), flight)
                if impatient:
                    tail = ctl[LATE_TAIL]
                    row["newer"] = NONE
                    row["older"] = tail
                    if tail == NONE:
                        ctl[LATE_HEAD] = send
                    else:
                        rows[tail]["newer"] = send
                    ctl[LATE_TAIL] = send
                # What will become of it there: the queue is known as it will be when it arrives.
                comes = now + model.client_ns if delayed else now
                begin = max(comes, node["touched_ns"] if model.workers == 1 else fast.free_ns[n, 0])
                refused = False
                if limited:
                    # Service begins in the order of arrival. So the queue is full if the one that came `queue` before, of those
                    # that came since the last found a worker free, has not begun either.
                    waited = int64(node["waiting"])
                    if begin <= comes:
                        node["waiting"] = 0
                    elif model.queue == 0:
                        refused = True
                    else:
                        place = int64(node["head"])
                        if waited == 0:
                            place = 0
                        refused = waited >= model.queue and fast.begins[n, place] > comes
                        if not refused:
                            fast.begins[n, place] = begin
                            node["waiting"] = min(waited + 1, model.queue)
                            node["head"] = place + 1 if place + 1 < model.queue else 0
                if refused:
                    counts[_QUEUE_FULL] += 1
                    row["state"] = AWAITED
                    if delayed:
                        row["state"] = AWAITED | INSIDE | REFUSED
                        row["time_ns"] = comes + model.client_ns
                        row["next"] = NONE
                        if at[REFUSED_HEAD] == NONE:
                            at[REFUSED_HEAD] = send
                        else:
                            rows[at[REFUSED_TAIL]]["next"] = send
                        at[REFUSED_TAIL] = send
                    else:
                        over = send
                        answer = _FULL
                else:
                    if node["slowness"] != 1.0:
                        took = int64(took * node["slowness"])
                    done = begin + took
                    if model.workers == 1:
                        node["touched_ns"] = done
                    else:
                        take_worker(fast.free_ns, n, done)
                    serve(nodes, virtual, edges, window, n, comes, begin, done)
                    little[_NODES, SPENT_NS] += done - comes
                    if impatient and begin > now + model.timeout_ns:
                        counts[_WASTED] += 1
                        counts[_WASTED_NS] += took
                    row["state"] = AWAITED | INSIDE | SERVED
                    row["time_ns"] = done
                    if first and trace.shape[0] > 0:
                        trace[int64(row["id"]) - 1]["wait_ns"] = begin - comes
                    if delayed:
                        fast.came[at[CAME] & came_mask, 0] = comes
                        fast.came[at[CAME] & came_mask, 1] = n
                        at[CAME] += 1
                    else:
                        enter_level(virtual.levels, there)
                        little[_NODES, ARRIVED] += 1
                        node["working"] += 1
                    put(fast.agenda, rows, send, done, now)

        # ---- an attempt has come to nothing, for its client ----
        if over != NONE:
            q = int64(rows[over]["root"])
            if answer != _NO_NODE:
                virtual.node_failed[window, int64(rows[over]["node"])] += 1
                _stop_awaiting(model, rows, nodes, ctl, settings, fleet, over, now, 0)
            if answer == _LATE:
                rows[q]["flags"] |= DOUBT
            again = False
            wait = 0
            made = int64(rows[q]["made"])
            if (model.retry_on >> answer) & 1 and made <= model.retries:
                wait = backoff_ns(
                    made - 1, model.backoff_ns, model.factor, model.longest_ns, model.jitter, model.backoff_key,
                    int64(rows[q]["id"]) * INDEX + made,
                )  # fmt: skip
                if at[FREE_ATTEMPTS] == 0:
                    counts[_NO_ROOM] += 1
                else:
                    again = withdraw(budgets, RETRY, now, ctl[ACTIVE], ctl[ACTIVE + RETRIED])
                    counts[_RETRY_EMPTY] += int64(not again)
            if again:
                at[FREE_ATTEMPTS] -= 1
                at[FREE_ROWS] -= 1
                r = int64(fast.free[at[FREE_ROWS]])
                row = rows[r]
                row["id"] = rows[q]["id"]
                row["root"] = q
                row["node"] = rows[over]["node"]
                row["shard"] = rows[q]["shard"]
                row["window"] = rows[q]["window"]
                row["number"] = made
                row["state"] = 0
                rows[q]["made"] += 1
                rows[q]["refs"] += 1
                ctl[ACTIVE + RETRIED] += 1
                heap_push(fast.retries, at[RETRYING], now + wait, ctl[SEQ], r)
                at[RETRYING] += 1
                ctl[SEQ] += 1
            else:
                status, reason = _REJECTED, _TIMEOUT
                if answer == _FULL:
                    reason = _OVERFLOW
                elif answer == _NO_NODE:
                    reason = _CIRCUIT
                if rows[q]["flags"] & DOUBT:
                    status = _UNKNOWN
                _end(rows, virtual, trace, shards, q, window, status, reason, NONE, now)
            if not rows[over]["state"] & INSIDE:
                _free(fast, virtual, over)


@kernel
def give_up(  # noqa: C901, PLR0912, PLR0915  one case for each state
    model: Model, fast: Fast, nodes: NDArray[np.void], shards: NDArray[np.void], edges: NDArray[np.int64],
    virtual: Virtual, trace: NDArray[np.void], ctl: NDArray[np.int64], end_ns: int,
) -> None:  # fmt: skip
    """The run is over: what is not settled is in doubt. Sums that were made out beforehand are cut off here."""
    rows, counts, little = fast.rows, virtual.counts, virtual.little
    flush(fast.sent, nodes, virtual, ctl[WINDOW])
    flush_late(fast.late, virtual)
    while ctl[WINDOW] < edges.shape[0] - 2 and end_ns >= edges[ctl[WINDOW] + 1]:
        ctl[WINDOW] += 1
    window = ctl[WINDOW]
    for r in range(rows.shape[0]):
        row = rows[r]
        state = int64(row["state"])
        if row["id"] == np.uint64(0) or not state & INSIDE:
            continue
        n = int64(row["node"])
        q = int64(row["root"])
        comes = row["sent_ns"] + model.client_ns
        if state & REFUSED:
            counts[_QUEUE_FULL] -= int64(comes > end_ns)
        elif state & SERVED:
            done = row["time_ns"]
            took = draw_ns(
                model.times, NODE_TIMES, model.tables, model.node_key, int64(row["id"]) * INDEX + row["number"]
            )
            if nodes[n]["slowness"] != 1.0:
                took = int64(took * nodes[n]["slowness"])
            begin = done - took
            unserve(virtual, edges, window, n, comes, begin, done, end_ns)
            if begin > end_ns:
                if model.timeout_ns and begin > row["sent_ns"] + model.timeout_ns:
                    counts[_WASTED] -= 1
                    counts[_WASTED_NS] -= took
                if row["number"] == 0 and trace.shape[0] > 0:
                    trace[int64(row["id"]) - 1]["wait_ns"] = 0
            little[_NODES, SPENT_NS] -= done - max(comes, end_ns)
            little[_NODES, LEFT] += int64(comes <= end_ns)
        elif model.staged:
            done = row["time_ns"] - model.shard_ns - model.client_ns
            if done > end_ns or state & ON_THE_WAY:
                # It was taken on by its shard beforehand, but its time has not come.
                if state & FIRST_THERE:
                    counts[_APPLIED_COUNT] -= 1
                    rows[q]["flags"] &= ~APPLIED
                    take_hash(virtual.digests, 1, row["id"])
                else:
                    counts[_REPEATED] -= 1
            if not state & ON_THE_WAY:
                little[_SHARDS, LEFT] += 1
                little[_SHARDS, AREA_NS] += min(done, end_ns)
                little[_SHARDS, SPENT_NS] -= max(done - end_ns, 0)
    for q in range(rows.shape[0]):
        if rows[q]["id"] == np.uint64(0) or int64(rows[q]["root"]) != q:
            continue
        if not rows[q]["flags"] & SETTLED:
            counts[_LEFT] += 1
            _end(rows, virtual, trace, shards, q, window, _UNKNOWN, _TIMEOUT, NONE, end_ns)
        if rows[q]["flags"] & APPLIED and rows[q]["flags"] & IN_DOUBT:
            counts[_UNKNOWN_APPLIED] += 1


def complete(virtual: Virtual) -> None:
    """Fills in the counts that follow from others.

    The time integral at the nodes follows from queue and busy time shared out by window, who was told ok from the count of ends.
    """
    counts = virtual.counts
    counts[Count.ACKNOWLEDGED] = virtual.ended[:, :, Status.OK].sum()
    counts[Count.SETTLED] += counts[Count.ACKNOWLEDGED]
    counts[Count.PICKS] = counts[Count.ATTEMPTS]
    virtual.little[Station.NODES, AREA_NS] = virtual.node_busy_ns.sum() + virtual.node_queue_ns.sum()
