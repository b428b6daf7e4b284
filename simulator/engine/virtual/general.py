"""The general engine: every feature of the model, one event after the other, in one kernel.

Events come in the order of time. At one instant: faults, then the balancers' sweeps and mail, then what was scheduled
(in the order in which it was scheduled), then hedges, deadlines, time-outs (each in the order in which they were set), then
arrivals. So an answer at the very instant of its time-out is in time, and nothing depends on how arrivals are cut into blocks.

Where the next event comes from:

* arrivals: in order from the source;
* constant delays (client to node, node to shard, and back) keep their order: four first-in-first-out *lines*;
* constant time-outs, deadlines and hedge delays expire in the order in which they were set: three lists, from whose middle an
  attempt is unlinked when its answer comes, so no stale timer is ever looked at;
* what takes a random time (service, shard, dependency, backoff) goes through the calendar queue.

One turn of the loop takes one event. It leaves notes for what follows from it (`send`, `begin`, `over`, `settled`), and each
of these is done at one place below, in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.admission import newest_first
from simulator.balancer.backoff import backoff_ns
from simulator.balancer.budget import HEDGE, RETRY, deposit, withdraw
from simulator.balancer.choose import AGAIN, REDRAWN, choose, note_answered, note_message, note_report, note_sent, sweep
from simulator.balancer.fleet import Rule
from simulator.balancer.health import BAD_REFUSALS
from simulator.balancer.probes import probe_target, probes_due
from simulator.engine.virtual import calendar as cal
from simulator.engine.virtual.client import DOUBTFUL
from simulator.engine.virtual.guards import LET_IN, OVER_LIMIT, drops, forget, lets_in, served
from simulator.engine.virtual.model import (
    ADAPTIVE_LIFO,
    CALL_TIMES,
    CLASSES,
    LIFO,
    NODE_TIMES,
    PRIORITY,
    SHARD_TIMES,
)
from simulator.engine.virtual.records import (
    APPLIED,
    DOUBT,
    FIRST,
    HEDGED,
    IN_DOUBT,
    NEVER_NS,
    NONE,
    RETRIED,
    SETTLED,
    Answer,
    Faults,
    Stage,
)
from simulator.engine.virtual.reports import (
    BUSY,
    ERRORS,
    HEAD,
    HELD,
    NEXT_NS,
    SERVED,
    SERVICE,
    TURN,
    report,
    take_report,
)
from simulator.engine.virtual.service import draw_ns
from simulator.engine.virtual.tally import (
    LEVELS,
    Count,
    Station,
    add_hash,
    arrive,
    coarse_index,
    enter_level,
    leave,
    leave_level,
)
from simulator.kernel import fused, inlined, int64, kernel
from simulator.measure.histogram import index_of
from simulator.seeds import bits, mix, uniform
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Fleet, Settings
    from simulator.engine.virtual.calendar import Calendar
    from simulator.engine.virtual.guards import Guards
    from simulator.engine.virtual.model import Model
    from simulator.engine.virtual.records import Pool
    from simulator.engine.virtual.reports import Reports
    from simulator.engine.virtual.tally import Virtual

# Scalars of the engine's state.
NOW, SEQ, WINDOW, FAULT_AT, CALLS, OUT, STRUCK, TOLD, NEED, ENDED = range(10)
LATE_HEAD, LATE_TAIL, DUE_HEAD, DUE_TAIL, HEDGE_HEAD, HEDGE_TAIL = range(10, 16)
LINES = 16  # four times head and tail
SWEEP_NS, MAIL_AT, MAIL_COUNT = 24, 28, 30  # the last two: of each direction
ACTIVE = 32  # attempts awaited; ACTIVE + RETRIED, ACTIVE + HEDGED: of these, or in their backoff
SCALARS = 36

TO_ASK, TO_TELL = 0, 1  # directions of mail

TO_NODE, TO_SHARD, NEAR, FAR = 0, 1, 2, 3  # lines; NEAR: back from a node, FAR: back from a shard
INDEX = 16  # random indices a transaction has: one for each attempt

_OK, _REJECTED, _UNKNOWN, _DROPPED = int(Status.OK), int(Status.REJECTED), int(Status.UNKNOWN), int(Status.DROPPED)
_PAYMENT, _REFUND, _POST = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.POST)
_IN_FLIGHT, _TIMEOUT = int(Reason.IN_FLIGHT), int(Reason.TIMEOUT)
_BACKOFF, _TO_NODE, _QUEUED, _SERVED = int(Stage.BACKOFF), int(Stage.TO_NODE), int(Stage.QUEUED), int(Stage.SERVED)
_TO_SHARD, _COMMITTED, _BOOKED = int(Stage.TO_SHARD), int(Stage.COMMITTED), int(Stage.BOOKED)
_CALLED, _HUNG, _REPLY = int(Stage.CALLED), int(Stage.HUNG), int(Stage.REPLY)
_DONE, _FULL, _LIMIT, _DOWN = int(Answer.OK), int(Answer.FULL), int(Answer.LIMIT), int(Answer.DOWN)
_RESET, _BROKEN, _NO_NODE, _LATE = int(Answer.RESET), int(Answer.BROKEN), int(Answer.NO_NODE), int(Answer.LATE)
_DOUBTFUL = sum(1 << int(answer) for answer in DOUBTFUL)
# The reason of each answer, by Answer.
_REASONS = (
    int(Reason.NONE), int(Reason.OVERFLOW), int(Reason.LIMIT), int(Reason.NODE_DOWN), int(Reason.NODE_DOWN),
    int(Reason.DEPENDENCY), int(Reason.CIRCUIT), int(Reason.TIMEOUT),
)  # fmt: skip
BAD = _DOUBTFUL | sum(1 << answer for answer, reason in enumerate(_REASONS) if reason in BAD_REFUSALS)
_DIES, _RETURNS, _SLOWS, _RECOVERS = int(Faults.DIES), int(Faults.RETURNS), int(Faults.SLOWS), int(Faults.RECOVERS)
_PAUSES, _RESUMES, _DEPENDENCY_OUT = int(Faults.PAUSES), int(Faults.RESUMES), int(Faults.DEPENDENCY_OUT)
_NODES, _SHARDS, _DEPENDENCY, _CLIENT = (int(station) for station in Station)
(
    _EVENTS, _ATTEMPTS, _RETRIES, _HEDGES, _RETRY_EMPTY, _HEDGE_EMPTY, _TIMEOUTS, _DEADLINES, _LATE_ANSWERS, _WASTED, _WASTED_NS,
    _CANCELLED, _REPEATED, _APPLIED_COUNT, _ACKNOWLEDGED, _ACK_NOT_APPLIED, _UNKNOWN_APPLIED, _REFUSED_APPLIED, _CALLS,
    _CALL_LIMIT, _CALL_ERRORS, _CALLS_HUNG, _QUEUE_FULL, _NO_NODES, _NODE_DOWN, _RESETS, _NO_ROOM, _INSIDE_MAX, _LEFT, _OFFERED,
    _SETTLED_COUNT, _REGRET, _PICKS, _ADMISSION, _ATTEMPTS_ENDED, _MAIL, _MAIL_LOST, _REPORTS,
    _CONCURRENCY, _DEAD_PICKS,
) = (int(count) for count in Count)  # fmt: skip

_IDLE, _PROBES = int(Rule.IDLE), int(Rule.PROBES)
_LEARN = 0.1  # weight of the newest service in a node's mean

# What an event is, once it is known where it comes from.
_NOWHERE = -2  # nothing is scheduled
_NOTHING, _ARRIVAL, _TIMER, _DEADLINE, _HEDGE, _SCHEDULED, _SWEEP, _FAULT, _TOLD, _ASKED, _HEARD, _TICK, _SHOT = range(
    13
)


@inlined
def _line(attempts: NDArray[np.void], ctl: NDArray[np.int64], line: int, a: int, time_ns: int) -> None:
    """Puts an attempt at the end of a line; its time is not before that of the last one there."""
    attempts[a]["time_ns"] = time_ns
    attempts[a]["seq"] = ctl[SEQ]
    ctl[SEQ] += 1
    attempts[a]["next"] = NONE
    if ctl[LINES + 2 * line] == NONE:
        ctl[LINES + 2 * line] = a
    else:
        attempts[ctl[LINES + 2 * line + 1]]["next"] = a
    ctl[LINES + 2 * line + 1] = a


@inlined
def _schedule(calendar: Calendar, attempts: NDArray[np.void], ctl: NDArray[np.int64], a: int, time_ns: int) -> None:
    """Puts an attempt into the calendar."""
    attempts[a]["time_ns"] = time_ns
    attempts[a]["seq"] = ctl[SEQ]
    ctl[SEQ] += 1
    cal.add(calendar, attempts, a)


@inlined
def _area(nodes: NDArray[np.void], n: int, now: int) -> None:
    """Counts a node's areas up to now; call it before `waiting` or `working` changes."""
    span = now - nodes[n]["touched_ns"]
    nodes[n]["queue_area"] += nodes[n]["waiting"] * span
    nodes[n]["busy_area"] += nodes[n]["working"] * span
    nodes[n]["touched_ns"] = now


@kernel
def flush_window(
    nodes: NDArray[np.void], known: NDArray[np.float64], ctl: NDArray[np.int64], virtual: Virtual, until_ns: int
) -> None:  # fmt: skip
    """Gives the window that ends its share of the nodes' areas."""
    window = ctl[WINDOW]
    for n in range(nodes.shape[0]):
        _area(nodes, n, until_ns)
        virtual.node_queue_ns[window, n] += nodes[n]["queue_area"]
        virtual.node_busy_ns[window, n] += nodes[n]["busy_area"]
        known[n, BUSY] += nodes[n]["busy_area"]
        nodes[n]["queue_area"] = 0
        nodes[n]["busy_area"] = 0


@inlined
def _free_attempt(pool: Pool, a: int, counts: NDArray[np.int64]) -> None:
    """Gives back an attempt's row, and its transaction's if that was all there was to it."""
    attempts = pool.attempts
    live = pool.live
    row = int64(attempts[a]["live"])
    pool.free_attempts[pool.free[0]] = a
    pool.free[0] += 1
    attempts[a]["live"] = NONE
    counts[_ATTEMPTS_ENDED] += 1
    live[row]["attempts"] -= 1
    if live[row]["attempts"] == 0 and live[row]["flags"] & SETTLED:
        _free_live(pool, row, counts)


@inlined
def _free_live(pool: Pool, row: int, counts: NDArray[np.int64]) -> None:
    """Gives back a settled transaction's row. Only now is it known whether it was applied."""
    flags = pool.live[row]["flags"]
    if flags & APPLIED:
        if flags & IN_DOUBT:
            counts[_UNKNOWN_APPLIED] += 1
        elif not flags & DOUBT and not flags & OK_FLAG:
            counts[_REFUSED_APPLIED] += 1
    elif flags & OK_FLAG:
        counts[_ACK_NOT_APPLIED] += 1
    pool.live[row]["id"] = 0
    pool.free_live[pool.free[1]] = row
    pool.free[1] += 1


OK_FLAG = 16


@fused
def _unlink_late(attempts: NDArray[np.void], ctl: NDArray[np.int64], a: int) -> None:
    """Takes an attempt out of the list of time-outs."""
    older, newer = int64(attempts[a]["older"]), int64(attempts[a]["newer"])
    if older == NONE:
        ctl[LATE_HEAD] = newer
    else:
        attempts[older]["newer"] = newer
    if newer == NONE:
        ctl[LATE_TAIL] = older
    else:
        attempts[newer]["older"] = older


@fused
def _unlink_due(live: NDArray[np.void], ctl: NDArray[np.int64], row: int) -> None:
    """Takes a transaction out of the list of deadlines."""
    older, newer = int64(live[row]["older"]), int64(live[row]["newer"])
    if older == NONE:
        ctl[DUE_HEAD] = newer
    else:
        live[older]["newer"] = newer
    if newer == NONE:
        ctl[DUE_TAIL] = older
    else:
        live[newer]["older"] = older


@fused
def _unlink_hedge(live: NDArray[np.void], ctl: NDArray[np.int64], row: int) -> None:
    """Takes a transaction out of the list of hedges, if it is there."""
    if live[row]["hedge_ns"] == NEVER_NS:
        return
    before, after = int64(live[row]["before"]), int64(live[row]["after"])
    if before == NONE:
        ctl[HEDGE_HEAD] = after
    else:
        live[before]["after"] = after
    if after == NONE:
        ctl[HEDGE_TAIL] = before
    else:
        live[after]["before"] = before
    live[row]["hedge_ns"] = NEVER_NS


@fused
def _stop_awaiting(
    model: Model, pool: Pool, nodes: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings, fleet: Fleet, a: int, good: int
) -> None:  # fmt: skip
    """The client waits for an attempt no longer, and its balancer is told so."""
    attempts = pool.attempts
    if model.timeout_ns:
        _unlink_late(attempts, ctl, a)
    attempts[a]["awaited"] = 0
    row = attempts[a]["live"]
    pool.live[row]["waiting"] -= 1
    pool.live[row]["out"] -= 1
    ctl[ACTIVE] -= 1
    if attempts[a]["origin"] != FIRST:
        ctl[ACTIVE + attempts[a]["origin"]] -= 1
    node = int64(attempts[a]["node"])
    b = int64(attempts[a]["balancer"])
    nodes[node]["flight"] -= 1
    note_answered(settings, fleet, b, node, ctl[NOW], ctl[NOW] - attempts[a]["sent_ns"], good)
    ctl[SWEEP_NS] = min(ctl[SWEEP_NS], fleet.next_sweep_ns[b])


@fused
def _enqueue(
    model: Model, attempts: NDArray[np.void], live: NDArray[np.void], nodes: NDArray[np.void],
    classes: NDArray[np.int32], n: int, a: int,
) -> None:  # fmt: skip
    """Puts an attempt at the end of a node's queue. While it is queued, `seq` holds the one before it."""
    attempts[a]["next"] = NONE
    if model.discipline == PRIORITY:
        level = model.classes[live[attempts[a]["live"]]["kind"]]
        if classes[n, level, 0] == NONE:
            classes[n, level, 0] = a
        else:
            attempts[classes[n, level, 1]]["next"] = a
        classes[n, level, 1] = a
        return
    attempts[a]["seq"] = nodes[n]["tail"]
    if nodes[n]["head"] == NONE:
        nodes[n]["head"] = a
    else:
        attempts[nodes[n]["tail"]]["next"] = a
    nodes[n]["tail"] = a


@fused
def _dequeue(
    model: Model, attempts: NDArray[np.void], nodes: NDArray[np.void], classes: NDArray[np.int32], n: int, now: int,
    empty_ns: NDArray[np.int64],
) -> int:  # fmt: skip
    """Takes the attempt that is served next out of a node's queue, which is not empty."""
    if model.discipline == PRIORITY:
        level = 0
        while classes[n, level, 0] == NONE:
            level += 1
        a = int64(classes[n, level, 0])
        classes[n, level, 0] = attempts[a]["next"]
        return a
    oldest = int64(nodes[n]["head"])
    if model.discipline == LIFO or (
        model.discipline == ADAPTIVE_LIFO and newest_first(now, empty_ns[n], model.adaptive_ns)
    ):
        a = int64(nodes[n]["tail"])
        before = int64(attempts[a]["seq"])
        nodes[n]["tail"] = before
        if before == NONE:
            nodes[n]["head"] = NONE
        else:
            attempts[before]["next"] = NONE
        return a
    following = int64(attempts[oldest]["next"])
    nodes[n]["head"] = following
    if following == NONE:
        nodes[n]["tail"] = NONE
    else:
        attempts[following]["seq"] = NONE
    return oldest


@kernel
def _collect(pool: Pool, struck: NDArray[np.void], n: int, served_only: int) -> int:
    """The attempts of a node into `struck`, a heap by transaction and number; returns how many."""
    found = 0
    attempts = pool.attempts
    for a in range(attempts.shape[0]):
        row = int64(attempts[a]["live"])
        if row == NONE or int64(attempts[a]["node"]) != n or attempts[a]["stage"] == _BACKOFF:
            continue
        if served_only and attempts[a]["stage"] != _SERVED:
            continue
        cal.heap_push(struck, found, int64(pool.live[row]["id"]), int64(attempts[a]["number"]), a)
        found += 1
    return found


@kernel
def _kill(
    pool: Pool, calendar: Calendar, nodes: NDArray[np.void], classes: NDArray[np.int32], struck: NDArray[np.void],
    ctl: NDArray[np.int64], virtual: Virtual, n: int,
) -> None:  # fmt: skip
    """A node dies. What it held is gone, what is on its way to it will find nobody; clients that wait are told at once.

    Those are left in the second half of `struck`, in the order of transaction and number; each is told in a turn of its own.
    """
    attempts = pool.attempts
    now = ctl[NOW]
    _area(nodes, n, now)
    load = int64(nodes[n]["working"] + nodes[n]["waiting"])
    levels = virtual.levels
    levels[min(load, LEVELS - 1)] -= 1
    while levels[LEVELS] < LEVELS - 1 and levels[levels[LEVELS]] == 0:
        levels[LEVELS] += 1
    nodes[n]["working"] = 0
    nodes[n]["waiting"] = 0
    nodes[n]["head"] = NONE
    nodes[n]["tail"] = NONE
    nodes[n]["paused_ns"] = now
    for level in range(CLASSES):
        classes[n, level, 0] = NONE
    found = _collect(pool, struck, n, 0)
    told = 0
    place = struck.shape[0] // 2
    for size in range(found, 0, -1):
        a = int64(struck[0]["row"])
        cal.heap_pop(struck, size)
        stage = attempts[a]["stage"]
        if stage == _TO_NODE:
            attempts[a]["doomed"] = 1
        elif stage == _QUEUED or stage == _SERVED:
            if stage == _SERVED:
                cal.remove(calendar, attempts, a)
            leave(virtual.little, _NODES, now, attempts[a]["entered_ns"])
            attempts[a]["inside"] = 0
        if attempts[a]["awaited"]:
            struck[place + told]["row"] = a
            told += 1
        elif not attempts[a]["inside"]:
            _free_attempt(pool, a, virtual.counts)
    ctl[STRUCK] = told
    ctl[TOLD] = 0


@kernel
def _pause(
    pool: Pool, calendar: Calendar, nodes: NDArray[np.void], struck: NDArray[np.void], ctl: NDArray[np.int64], n: int,
    until_ns: int,
) -> None:  # fmt: skip
    """A node stands still: what it serves takes that much longer, and it begins nothing before."""
    attempts = pool.attempts
    longer = until_ns - max(ctl[NOW], nodes[n]["paused_ns"])
    if longer <= 0:
        return
    nodes[n]["paused_ns"] = until_ns
    for size in range(_collect(pool, struck, n, 1), 0, -1):
        a = int64(struck[0]["row"])
        cal.heap_pop(struck, size)
        cal.remove(calendar, attempts, a)
        _schedule(calendar, attempts, ctl, a, attempts[a]["time_ns"] + longer)


@inlined
def _new_attempt(pool: Pool, row: int) -> int:
    """A row for one more attempt of a transaction; there is one free."""
    pool.free[0] -= 1
    a = int64(pool.free_attempts[pool.free[0]])
    pool.attempts[a]["live"] = row
    pool.attempts[a]["number"] = pool.live[row]["made"]
    pool.attempts[a]["awaited"] = 0
    pool.attempts[a]["inside"] = 0
    pool.attempts[a]["doomed"] = 0
    pool.attempts[a]["origin"] = FIRST
    pool.live[row]["made"] += 1
    pool.live[row]["attempts"] += 1
    return a


@inlined
def _answer(attempts: NDArray[np.void], ctl: NDArray[np.int64], a: int, answer: int, time_ns: int) -> None:
    """A node sends an answer back to the client."""
    attempts[a]["stage"] = _REPLY
    attempts[a]["status"] = answer
    _line(attempts, ctl, NEAR, a, time_ns)


@inlined
def _refused(known: NDArray[np.float64], n: int) -> None:
    """A node has said no: an answer, and an error, of which its next report tells."""
    known[n, SERVED] += 1.0
    known[n, ERRORS] += 1.0


@kernel
def _cancel(
    model: Model, pool: Pool, nodes: NDArray[np.void], ctl: NDArray[np.int64], settings: Settings, fleet: Fleet,
    counts: NDArray[np.int64], a: int,
) -> None:  # fmt: skip
    """Drops an attempt that has not begun and that nobody needs; no answer is sent."""
    pool.attempts[a]["inside"] = 0
    if pool.attempts[a]["awaited"]:
        _stop_awaiting(model, pool, nodes, ctl, settings, fleet, a, 1)
    _free_attempt(pool, a, counts)


@inlined
def _apply(live: NDArray[np.void], virtual: Virtual, row: int) -> None:
    """The shard applies a transaction, once however often it comes."""
    if live[row]["flags"] & APPLIED:
        virtual.counts[_REPEATED] += 1
    else:
        live[row]["flags"] |= APPLIED
        virtual.counts[_APPLIED_COUNT] += 1
        add_hash(virtual.digests, 1, live[row]["id"])


@inlined
def _needs_call(model: Model, live: NDArray[np.void], row: int) -> bool:
    """Whether a transaction needs the dependency."""
    if not (model.depends_kinds >> int64(live[row]["kind"])) & 1:
        return False
    return model.depends_share >= 1.0 or uniform(model.depends_key, int64(live[row]["id"])) < model.depends_share


@fused
def _after_shard(
    model: Model, calendar: Calendar, pool: Pool, ctl: NDArray[np.int64], virtual: Virtual, a: int
) -> None:
    """The shard is done with an attempt: on to the dependency, or back to the client."""
    now = ctl[NOW]
    counts = virtual.counts
    attempts, live = pool.attempts, pool.live
    row = int64(attempts[a]["live"])
    answer = _DONE
    if model.depends and _needs_call(model, live, row):
        counts[_CALLS] += 1
        if ctl[OUT] == 2:  # noqa: PLR2004  it hangs
            # The client's side of the row stays until it gives up, or the run ends.
            counts[_CALLS_HUNG] += 1
            attempts[a]["stage"] = _HUNG
            attempts[a]["inside"] = 0
            if not attempts[a]["awaited"]:
                _free_attempt(pool, a, counts)
            return
        if ctl[OUT] == 1:
            counts[_CALL_ERRORS] += 1
            answer = _BROKEN
        elif model.call_limit > 0 and ctl[CALLS] >= model.call_limit:
            counts[_CALL_LIMIT] += 1
            answer = _BROKEN
        else:
            ctl[CALLS] += 1
            arrive(virtual.little, _DEPENDENCY, now)
            attempts[a]["entered_ns"] = now
            attempts[a]["stage"] = _CALLED
            index = int64(live[row]["id"]) * INDEX + attempts[a]["number"]
            took = draw_ns(model.times, CALL_TIMES, model.tables, model.call_key, index)
            _schedule(calendar, attempts, ctl, a, now + took)
            return
    attempts[a]["stage"] = _REPLY
    attempts[a]["status"] = answer
    _line(attempts, ctl, FAR, a, now + model.shard_ns + model.client_ns)


@fused
def _settle(
    model: Model, live: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64],
    virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64], trace: NDArray[np.void],
    row: int, status: int, reason: int, node: int, now: int,
) -> None:  # fmt: skip
    """A transaction ends, for its client: it is counted, once."""
    counts = virtual.counts
    window = ctl[WINDOW]
    kind = int64(live[row]["kind"])
    live[row]["flags"] |= SETTLED
    if model.deadline_ns:
        _unlink_due(live, ctl, row)
    if model.hedge_ns:
        _unlink_hedge(live, ctl, row)
    shard = int64(live[row]["shard"])
    shards[shard]["flight"] -= 1
    leave(virtual.little, _CLIENT, now, live[row]["intended_ns"])
    counts[_SETTLED_COUNT] += 1
    virtual.ended[window, kind - 1, status] += 1
    virtual.settled_ns[0] = now
    if status == _OK:
        live[row]["flags"] |= OK_FLAG
        took = now - live[row]["intended_ns"]
        place = node if response.shape[2] > 1 else 0
        response[slots[live[row]["window"]], kind - 1, place, index_of(took)] += 1
        virtual.node_times[node, coarse_index(took)] += 1
        virtual.shard_ok[window, shard] += 1
        counts[_ACKNOWLEDGED] += 1
        add_hash(virtual.digests, 0, live[row]["id"])
        if kind == _PAYMENT or kind == _REFUND or kind == _POST:
            virtual.settled_minor[window] += live[row]["amount_minor"]
    else:
        virtual.reasons[status, reason] += 1
        if status == _UNKNOWN:
            live[row]["flags"] |= IN_DOUBT
    if trace.shape[0] > 0:
        line = trace[int64(live[row]["id"]) - 1]
        line["intended_ns"] = live[row]["intended_ns"]
        line["done_ns"] = now
        line["status"] = status
        line["reason"] = reason
        line["node"] = node
        line["attempts"] = live[row]["made"]


@kernel
def _post(
    ctl: NDArray[np.int64], mail: NDArray[np.void], counts: NDArray[np.int64], way: int, due_ns: int, b: int, n: int,
    queue: float, latency_ns: float, number: int,
) -> None:  # fmt: skip
    """Sends mail; each way takes a constant time, so it arrives in the order in which it was sent."""
    if ctl[MAIL_COUNT + way] == mail.shape[1]:
        counts[_MAIL_LOST] += 1
        return
    row = mail[way, (ctl[MAIL_AT + way] + ctl[MAIL_COUNT + way]) % mail.shape[1]]
    ctl[MAIL_COUNT + way] += 1
    row["time_ns"] = due_ns
    row["balancer"] = b
    row["node"] = n
    row["queue"] = queue
    row["latency_ns"] = latency_ns
    row["number"] = number


@kernel
def _next_mail(
    model: Model, ctl: NDArray[np.int64], mail: NDArray[np.void], reports: Reports
) -> tuple[int, int]:  # fmt: skip
    """When the next mail or report arrives or is due, and which event that is."""
    time_ns = int64(NEVER_NS)
    event = _ASKED
    for way in range(2):
        if ctl[MAIL_COUNT + way] > 0 and mail[way, ctl[MAIL_AT + way]]["time_ns"] < time_ns:
            time_ns = int64(mail[way, ctl[MAIL_AT + way]]["time_ns"])
            event = _ASKED + way
    if model.report_ns > 0:
        if reports.at[HELD] > 0:
            arrives = int64(reports.ring[reports.at[HEAD]]["arrives_ns"])
            if arrives <= time_ns:
                time_ns = arrives
                event = _SHOT
        if reports.at[NEXT_NS] < time_ns:
            time_ns = int64(reports.at[NEXT_NS])
            event = _TICK
    return time_ns, event


@kernel
def _deliver(
    model: Model, nodes: NDArray[np.void], down: NDArray[np.int64], known: NDArray[np.float64], ctl: NDArray[np.int64],
    settings: Settings, fleet: Fleet, virtual: Virtual, mail: NDArray[np.void], reports: Reports, event: int,
) -> None:  # fmt: skip
    """A probe reaches its node, an answer its balancer; or a node reports, or what it reported reaches all balancers."""
    now = ctl[NOW]
    counts = virtual.counts
    if event == _ASKED or event == _HEARD:
        way = event - _ASKED
        row = mail[way, ctl[MAIL_AT + way]]
        n = int64(row["node"])
        b = int64(row["balancer"])
        number = row["number"]
        queue, latency_ns = row["queue"], row["latency_ns"]
        ctl[MAIL_AT + way] = (ctl[MAIL_AT + way] + 1) % mail.shape[1]
        ctl[MAIL_COUNT + way] -= 1
        counts[_MAIL] += 1
        if event == _ASKED:
            if nodes[n]["paused_ns"] > now or down[n]:
                return  # nobody is there who could answer
            queue = float(nodes[n]["working"] + nodes[n]["waiting"])
            # What one more would meet, by the mean service so far: Prequal's nodes take it from like queue lengths in the past.
            latency_ns = known[n, SERVICE] * max(queue + 1.0, float(model.workers)) / model.workers
            _post(ctl, mail, counts, TO_TELL, now + model.client_ns, b, n, queue, latency_ns, number)
        else:
            word = mix(bits(model.mail_key, number) + np.uint64(n))
            note_message(settings, fleet, b, n, now, word, queue, latency_ns)
            ctl[SWEEP_NS] = min(ctl[SWEEP_NS], fleet.next_sweep_ns[b])
        return
    if event == _TICK:
        n = int64(reports.order[reports.at[TURN]])
        _area(nodes, n, now)
        report(
            reports, known, now, model.report_ns, model.delay_ns, model.workers,
            int64(down[n] > 0 or nodes[n]["paused_ns"] > now), float(nodes[n]["working"] + nodes[n]["waiting"]),
            known[n, BUSY] + nodes[n]["busy_area"],
        )  # fmt: skip
        return
    counts[_REPORTS] += 1
    said = reports.ring[take_report(reports)]
    n = int64(said["node"])
    for b in range(model.balancers):
        note_report(
            settings, fleet, b, n, now, said["queue"], said["service_ns"], said["utilization"], said["served_per_s"],
            said["errors_per_s"],
        )  # fmt: skip
        ctl[SWEEP_NS] = min(ctl[SWEEP_NS], fleet.next_sweep_ns[b])


@fused
def _scheduled(calendar: Calendar, attempts: NDArray[np.void], ctl: NDArray[np.int64]) -> int:
    """The next of what is scheduled, from the calendar (−1) or the head of a line (its number); −2: nothing is."""
    where = _NOWHERE
    time_ns = NEVER_NS
    seq = 0
    if calendar.at[cal.IN_NEAR] > 0 or cal.open_next(calendar, attempts):
        time_ns = calendar.near[0]["time_ns"]
        seq = calendar.near[0]["seq"]
        where = -1
    for line in range(4):
        a = ctl[LINES + 2 * line]
        if a != NONE:
            t = attempts[a]["time_ns"]
            if t < time_ns or (t == time_ns and attempts[a]["seq"] < seq):
                time_ns = t
                seq = attempts[a]["seq"]
                where = line
    return where


@kernel
def run(  # noqa: C901, PLR0912, PLR0915  one loop over all events: a call for each would pass the whole state each time
    batch: NDArray[np.void], start: int, stop: int, last: int, end_ns: int, model: Model, pool: Pool, calendar: Calendar,
    nodes: NDArray[np.void], down: NDArray[np.int64], classes: NDArray[np.int32], shards: NDArray[np.void],
    struck: NDArray[np.void], ctl: NDArray[np.int64], budgets: NDArray[np.float64], speed: NDArray[np.float64],
    settings: Settings, fleet: Fleet, edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32],
    slots: NDArray[np.int64], trace: NDArray[np.void], known: NDArray[np.float64], mail: NDArray[np.void],
    reports: Reports, guards: Guards,
) -> int:  # fmt: skip
    """Runs until it needs more arrivals than batch[start:stop]; returns the position after the last one it took.

    With `last` there are no more, and it runs until nothing is left or `end_ns` has come. It also returns, before the event,
    when a response time falls into a window whose histogram is not resident: NEED is that window, else −1. ENDED is 1 once all
    is done.
    """
    attempts, live, counts, little = pool.attempts, pool.live, virtual.counts, virtual.little
    position = start
    ctl[NEED] = NONE
    while True:
        # ---- which event is next ----
        event = _NOTHING
        now = NEVER_NS
        where = _NOWHERE
        a = NONE
        if ctl[TOLD] < ctl[STRUCK]:
            event = _TOLD
            now = ctl[NOW]
        else:
            if position < stop:
                now = batch[position]["intended_ns"]
                event = _ARRIVAL
            elif not last:
                return position
            if ctl[LATE_HEAD] != NONE:
                t = attempts[ctl[LATE_HEAD]]["sent_ns"] + model.timeout_ns
                if t <= now:
                    now = t
                    event = _TIMER
            if ctl[DUE_HEAD] != NONE:
                t = live[ctl[DUE_HEAD]]["intended_ns"] + model.deadline_ns
                if t <= now:
                    now = t
                    event = _DEADLINE
            if ctl[HEDGE_HEAD] != NONE:
                t = live[ctl[HEDGE_HEAD]]["hedge_ns"]
                if t <= now:
                    now = t
                    event = _HEDGE
            where = _scheduled(calendar, attempts, ctl)
            if where != _NOWHERE:
                a = int64(calendar.near[0]["row"]) if where == -1 else ctl[LINES + 2 * where]
                t = attempts[a]["time_ns"]
                if t <= now:
                    now = t
                    event = _SCHEDULED
            if event == _NOTHING:
                ctl[ENDED] = 1
                return position
            # Faults, sweeps and mail alone keep no run going: they are done on the way to something else.
            if model.talks:
                t, what = _next_mail(model, ctl, mail, reports)
                if t <= now:
                    now = t
                    event = what
            if ctl[SWEEP_NS] <= now:
                now = ctl[SWEEP_NS]
                event = _SWEEP
            if ctl[FAULT_AT] < model.faults.shape[0] and model.faults[ctl[FAULT_AT]]["time_ns"] <= now:
                now = model.faults[ctl[FAULT_AT]]["time_ns"]
                event = _FAULT
            if now > end_ns:
                ctl[ENDED] = 1
                return position
        stage = -1
        if event == _SCHEDULED:
            stage = int64(attempts[a]["stage"])
            if stage == _REPLY and attempts[a]["status"] == _DONE and attempts[a]["awaited"]:
                row = int64(attempts[a]["live"])
                if not live[row]["flags"] & SETTLED and slots[live[row]["window"]] < 0:
                    ctl[NEED] = int64(live[row]["window"])
                    return position
            if where == -1:
                cal.take(calendar)
            else:
                ctl[LINES + 2 * where] = attempts[a]["next"]
        ctl[NOW] = now
        counts[_EVENTS] += 1
        while ctl[WINDOW] < edges.shape[0] - 2 and now >= edges[ctl[WINDOW] + 1]:
            flush_window(nodes, known, ctl, virtual, edges[ctl[WINDOW] + 1])
            ctl[WINDOW] += 1
        window = ctl[WINDOW]

        # Notes for what follows from the event.
        send = NONE  # an attempt goes out
        begin = NONE  # a node may begin a service
        direct = NONE  # … with this attempt, which did not queue
        emptied = NONE  # a node may have become idle
        over = NONE  # an attempt has its answer, as the client sees it
        answer = _DONE
        settled = NONE  # a transaction ends
        status = _OK
        reason = 0
        served_by = NONE

        if event == _ARRIVAL:
            m = batch[position]
            position += 1
            kind = int64(m["kind"])
            counts[_OFFERED] += 1
            virtual.offered_minor[window] += m["amount_minor"]
            if pool.free[0] == 0 or pool.free[1] == 0:
                virtual.dropped[window, kind - 1] += 1
                virtual.ended[window, kind - 1, _DROPPED] += 1
                virtual.reasons[_DROPPED, _IN_FLIGHT] += 1
                if trace.shape[0] > 0:
                    trace[int64(m["id"]) - 1]["intended_ns"] = now
                    trace[int64(m["id"]) - 1]["status"] = _DROPPED
                    trace[int64(m["id"]) - 1]["reason"] = _IN_FLIGHT
                continue
            virtual.kinds[window, kind - 1] += 1
            pool.free[1] -= 1
            row = int64(pool.free_live[pool.free[1]])
            live[row]["id"] = m["id"]
            live[row]["intended_ns"] = now
            live[row]["amount_minor"] = m["amount_minor"]
            live[row]["hashed"] = m["payee"] if model.hashes_payee else m["payer"]
            shard = int64(m["payer"]) // model.units % model.shards
            live[row]["shard"] = shard
            live[row]["window"] = window
            live[row]["kind"] = kind
            live[row]["attempts"] = 0
            live[row]["waiting"] = 0
            live[row]["out"] = 0
            live[row]["made"] = 0
            live[row]["retries"] = 0
            live[row]["hedges"] = 0
            live[row]["flags"] = 0
            live[row]["hedge_ns"] = NEVER_NS
            shards[shard]["flight"] += 1
            shards[shard]["flight_max"] = max(shards[shard]["flight_max"], shards[shard]["flight"])
            arrive(little, _CLIENT, now)
            inside = live.shape[0] - pool.free[1]
            virtual.inside_top[window] = max(virtual.inside_top[window], inside)
            if model.deadline_ns:
                live[row]["newer"] = NONE
                live[row]["older"] = ctl[DUE_TAIL]
                if ctl[DUE_TAIL] == NONE:
                    ctl[DUE_HEAD] = row
                else:
                    live[ctl[DUE_TAIL]]["newer"] = row
                ctl[DUE_TAIL] = row
            deposit(budgets, RETRY, now)
            deposit(budgets, HEDGE, now)
            pool.last[row] = NONE
            send = _new_attempt(pool, row)

        elif event == _SCHEDULED:
            row = int64(attempts[a]["live"])
            if stage == _TO_NODE:
                n = int64(attempts[a]["node"])
                gone = not attempts[a]["awaited"] or live[row]["flags"] & SETTLED != 0
                verdict = LET_IN
                if guards.settings.on and not attempts[a]["doomed"] and not down[n] and not (model.cancel and gone):
                    inside = int64(nodes[n]["working"] + nodes[n]["waiting"])
                    business = model.classes[live[row]["kind"]]
                    verdict = lets_in(guards, n, now, inside, business, int64(live[row]["hashed"]))
                    attempts[a]["found"] = min(inside + 1, 65_535)
                if attempts[a]["doomed"]:
                    attempts[a]["inside"] = 0
                    if not attempts[a]["awaited"]:
                        _free_attempt(pool, a, counts)
                elif down[n]:
                    counts[_NODE_DOWN] += 1
                    _answer(attempts, ctl, a, _DOWN, now + model.client_ns)
                elif model.cancel and gone:
                    counts[_CANCELLED] += 1
                    _cancel(model, pool, nodes, ctl, settings, fleet, counts, a)
                    emptied = n
                elif verdict != LET_IN:
                    counts[_CONCURRENCY if verdict == OVER_LIMIT else _ADMISSION] += 1
                    _refused(known, n)
                    emptied = n
                    _answer(attempts, ctl, a, _LIMIT, now + model.client_ns)
                elif nodes[n]["waiting"] == 0 and nodes[n]["working"] < model.workers and now >= nodes[n]["paused_ns"]:
                    arrive(little, _NODES, now)
                    attempts[a]["entered_ns"] = now
                    enter_level(virtual.levels, int64(nodes[n]["working"] + nodes[n]["waiting"]))
                    begin = n
                    direct = a
                elif nodes[n]["waiting"] >= model.queue:
                    counts[_QUEUE_FULL] += 1
                    _refused(known, n)
                    _answer(attempts, ctl, a, _FULL, now + model.client_ns)
                else:
                    arrive(little, _NODES, now)
                    attempts[a]["entered_ns"] = now
                    attempts[a]["stage"] = _QUEUED
                    enter_level(virtual.levels, int64(nodes[n]["working"] + nodes[n]["waiting"]))
                    _area(nodes, n, now)
                    if nodes[n]["waiting"] == 0:
                        guards.empty_ns[n] = now
                    nodes[n]["waiting"] += 1
                    _enqueue(model, attempts, live, nodes, classes, n, a)
            elif stage == _SERVED:
                n = int64(attempts[a]["node"])
                _area(nodes, n, now)
                leave_level(virtual.levels, int64(nodes[n]["working"] + nodes[n]["waiting"]))
                nodes[n]["working"] -= 1
                leave(little, _NODES, now, attempts[a]["entered_ns"])
                if guards.settings.on:
                    served(guards, n, now - attempts[a]["entered_ns"], int64(attempts[a]["found"]))
                begin = n
                emptied = n
                if model.talks:
                    known[n, SERVED] += 1.0
                if model.staged:
                    attempts[a]["stage"] = _TO_SHARD
                    _line(attempts, ctl, TO_SHARD, a, now + model.shard_ns)
                else:
                    _apply(live, virtual, row)
                    _answer(attempts, ctl, a, _DONE, now + model.client_ns)
            elif stage == _TO_SHARD:
                shard = int64(live[row]["shard"])
                arrive(little, _SHARDS, now)
                attempts[a]["entered_ns"] = now
                if model.batched:
                    attempts[a]["stage"] = _COMMITTED
                    if shards[shard]["committing"] == NONE:
                        shards[shard]["committing"] = a
                        shards[shard]["others"] = NONE
                        _schedule(calendar, attempts, ctl, a, now + model.commit_ns + model.record_ns)
                    else:
                        attempts[a]["next"] = NONE
                        if shards[shard]["waiting"] == 0:
                            shards[shard]["head"] = a
                        else:
                            attempts[shards[shard]["tail"]]["next"] = a
                        shards[shard]["tail"] = a
                        shards[shard]["waiting"] += 1
                else:
                    index = int64(live[row]["id"]) * INDEX + attempts[a]["number"]
                    took = draw_ns(model.times, SHARD_TIMES, model.tables, model.shard_key, index)
                    done = max(shards[shard]["free_ns"], now) + took
                    shards[shard]["free_ns"] = done
                    attempts[a]["stage"] = _BOOKED
                    _schedule(calendar, attempts, ctl, a, done)
            elif stage == _BOOKED:
                leave(little, _SHARDS, now, attempts[a]["entered_ns"])
                _apply(live, virtual, row)
                _after_shard(model, calendar, pool, ctl, virtual, a)
            elif stage == _COMMITTED:
                shard = int64(live[row]["shard"])
                rest = int64(shards[shard]["others"])
                member = a
                while member != NONE:
                    leave(little, _SHARDS, now, attempts[member]["entered_ns"])
                    _apply(live, virtual, int64(attempts[member]["live"]))
                    _after_shard(model, calendar, pool, ctl, virtual, member)
                    member = rest
                    if rest != NONE:
                        rest = int64(attempts[rest]["next"])
                size = int64(shards[shard]["waiting"])
                if size == 0:
                    shards[shard]["committing"] = NONE
                else:
                    first = int64(shards[shard]["head"])
                    shards[shard]["committing"] = first
                    shards[shard]["others"] = attempts[first]["next"]
                    shards[shard]["waiting"] = 0
                    _schedule(calendar, attempts, ctl, first, now + model.commit_ns + size * model.record_ns)
            elif stage == _CALLED:
                ctl[CALLS] -= 1
                leave(little, _DEPENDENCY, now, attempts[a]["entered_ns"])
                attempts[a]["stage"] = _REPLY
                attempts[a]["status"] = _DONE
                _line(attempts, ctl, FAR, a, now + model.shard_ns + model.client_ns)
            elif stage == _BACKOFF:
                if live[row]["flags"] & SETTLED:
                    live[row]["waiting"] -= 1
                    ctl[ACTIVE + RETRIED] -= 1
                    _free_attempt(pool, a, counts)
                else:
                    live[row]["retries"] += 1
                    counts[_RETRIES] += 1
                    virtual.retries[window] += 1
                    live[row]["waiting"] -= 1  # sending counts it again
                    send = a
            else:  # a reply
                attempts[a]["inside"] = 0
                if attempts[a]["awaited"]:
                    over = a
                    answer = int64(attempts[a]["status"])
                    if live[row]["flags"] & SETTLED:
                        counts[_LATE_ANSWERS] += 1
                else:
                    counts[_LATE_ANSWERS] += 1
                    _free_attempt(pool, a, counts)

        elif event == _TIMER:
            over = ctl[LATE_HEAD]
            answer = _LATE
            counts[_TIMEOUTS] += 1

        elif event == _DEADLINE:
            settled = ctl[DUE_HEAD]
            counts[_DEADLINES] += 1
            status = _UNKNOWN if live[settled]["out"] or live[settled]["flags"] & DOUBT else _REJECTED
            reason = _TIMEOUT

        elif event == _HEDGE:
            row = ctl[HEDGE_HEAD]
            _unlink_hedge(live, ctl, row)
            if live[row]["out"] and not live[row]["flags"] & SETTLED and live[row]["hedges"] < model.hedges:
                if pool.free[0] == 0:
                    counts[_NO_ROOM] += 1
                elif not withdraw(budgets, HEDGE, now, ctl[ACTIVE], ctl[ACTIVE + HEDGED]):
                    counts[_HEDGE_EMPTY] += 1
                else:
                    live[row]["hedges"] += 1
                    counts[_HEDGES] += 1
                    send = _new_attempt(pool, row)
                    attempts[send]["origin"] = HEDGED
                    ctl[ACTIVE + HEDGED] += 1

        elif event >= _ASKED:
            _deliver(model, nodes, down, known, ctl, settings, fleet, virtual, mail, reports, event)

        elif event == _SWEEP:
            following = NEVER_NS
            for b in range(model.balancers):
                if fleet.next_sweep_ns[b] <= now:
                    sweep(settings, fleet, b, now)
                following = min(following, fleet.next_sweep_ns[b])
            ctl[SWEEP_NS] = following

        elif event == _FAULT:
            fault = model.faults[ctl[FAULT_AT]]
            ctl[FAULT_AT] += 1
            what = fault["what"]
            n = fault["node"]
            if what == _DIES:
                down[n] += 1
                if down[n] == 1:
                    _kill(pool, calendar, nodes, classes, struck, ctl, virtual, n)
                    if guards.settings.on:
                        forget(guards, n)
            elif what == _RETURNS:
                down[n] -= 1
                if down[n] == 0:
                    virtual.levels[0] += 1
                    virtual.levels[LEVELS] = 0
                    emptied = n
            elif what == _SLOWS:
                nodes[n]["slowness"] = fault["value"] / speed[n]
            elif what == _RECOVERS:
                nodes[n]["slowness"] = 1.0 / speed[n]
            elif what == _PAUSES:
                if not down[n]:
                    _pause(pool, calendar, nodes, struck, ctl, n, int64(fault["value"]))
            elif what == _RESUMES:
                begin = n
                emptied = n
            elif what == _DEPENDENCY_OUT:
                ctl[OUT] = 2 if fault["value"] > 0.0 else 1
            else:
                ctl[OUT] = 0

        else:  # a client is told that the node died with its attempt
            over = int64(struck[struck.shape[0] // 2 + ctl[TOLD]]["row"])
            ctl[TOLD] += 1
            answer = _RESET
            counts[_RESETS] += 1

        # ---- an attempt goes out ----
        if send != NONE:
            row = int64(attempts[send]["live"])
            index = int64(live[row]["id"]) * INDEX + attempts[send]["number"]
            b = 0
            if model.balancers > 1:
                b = int64(
                    ((bits(model.which_key, index) >> np.uint64(32)) * np.uint64(model.balancers)) >> np.uint64(32)
                )
            home = int64(live[row]["shard"]) % model.nodes
            if settings.rule == _PROBES:
                word = bits(model.mail_key, index)
                probes = probes_due(settings, fleet.probing, b)
                for j in range(probes):
                    asked = probe_target(fleet.ready, b, word, j, probes, fleet.span[b])
                    _post(ctl, mail, counts, TO_ASK, now + model.client_ns, b, asked, 0.0, 0.0, index)
            n = choose(settings, fleet, b, now, model.balancer_key, index, np.uint64(live[row]["hashed"]), home)
            if n >= 0 and n == pool.last[row] and settings.rule in REDRAWN:
                # A retry or a hedge is for another node, where the policy is not bound to this one: one more try, as Envoy's
                # previous_hosts with host_selection_retry_max_attempts 1.
                n = choose(
                    settings, fleet, b, now, model.balancer_key, index + AGAIN, np.uint64(live[row]["hashed"]), home
                )
            live[row]["waiting"] += 1
            attempts[send]["sent_ns"] = now
            if n < 0:
                counts[_NO_NODES] += 1
                if attempts[send]["origin"] != FIRST:
                    ctl[ACTIVE + attempts[send]["origin"]] -= 1
                over = send
                answer = _NO_NODE
            else:
                note_sent(settings, fleet, b, n, now)
                ctl[SWEEP_NS] = min(ctl[SWEEP_NS], fleet.next_sweep_ns[b])
                counts[_ATTEMPTS] += 1
                virtual.attempts[window] += 1
                virtual.node_sent[window, n] += 1
                if down[n]:
                    counts[_DEAD_PICKS] += 1  # it has no load to compare
                else:
                    counts[_PICKS] += 1
                    counts[_REGRET] += max(
                        min(int64(nodes[n]["working"] + nodes[n]["waiting"]), LEVELS - 1) - virtual.levels[LEVELS], 0
                    )
                attempts[send]["node"] = n
                attempts[send]["balancer"] = b
                attempts[send]["awaited"] = 1
                attempts[send]["inside"] = 1
                attempts[send]["stage"] = _TO_NODE
                live[row]["out"] += 1
                ctl[ACTIVE] += 1
                pool.last[row] = n
                nodes[n]["flight"] += 1
                nodes[n]["flight_max"] = max(nodes[n]["flight_max"], nodes[n]["flight"])
                _line(attempts, ctl, TO_NODE, send, now + model.client_ns)
                if model.timeout_ns:
                    attempts[send]["newer"] = NONE
                    attempts[send]["older"] = ctl[LATE_TAIL]
                    if ctl[LATE_TAIL] == NONE:
                        ctl[LATE_HEAD] = send
                    else:
                        attempts[ctl[LATE_TAIL]]["newer"] = send
                    ctl[LATE_TAIL] = send
                if model.hedge_ns and live[row]["hedges"] < model.hedges:
                    _unlink_hedge(live, ctl, row)
                    live[row]["hedge_ns"] = now + model.hedge_ns
                    live[row]["after"] = NONE
                    live[row]["before"] = ctl[HEDGE_TAIL]
                    if ctl[HEDGE_TAIL] == NONE:
                        ctl[HEDGE_HEAD] = row
                    else:
                        live[ctl[HEDGE_TAIL]]["after"] = row
                    ctl[HEDGE_TAIL] = row

        # ---- a node begins what it has room for ----
        while begin != NONE:
            n = begin
            a = direct
            direct = NONE
            if a == NONE:
                idle = nodes[n]["working"] < model.workers and nodes[n]["waiting"] > 0
                if not idle or down[n] or now < nodes[n]["paused_ns"]:
                    break
                _area(nodes, n, now)
                nodes[n]["waiting"] -= 1
                a = _dequeue(model, attempts, nodes, classes, n, now, guards.empty_ns)
            else:
                _area(nodes, n, now)
            row = int64(attempts[a]["live"])
            gone = not attempts[a]["awaited"] or live[row]["flags"] & SETTLED != 0
            if gone and model.cancel:
                counts[_CANCELLED] += 1
                leave_level(virtual.levels, int64(nodes[n]["working"] + nodes[n]["waiting"] + 1))
                leave(little, _NODES, now, attempts[a]["entered_ns"])
                _cancel(model, pool, nodes, ctl, settings, fleet, counts, a)
                continue
            if guards.settings.on and drops(
                guards, n, now, attempts[a]["entered_ns"], int64(nodes[n]["waiting"]), int64(attempts[a]["found"])
            ):
                counts[_ADMISSION] += 1
                leave_level(virtual.levels, int64(nodes[n]["working"] + nodes[n]["waiting"] + 1))
                leave(little, _NODES, now, attempts[a]["entered_ns"])
                _refused(known, n)
                _answer(attempts, ctl, a, _LIMIT, now + model.client_ns)
                continue
            index = int64(live[row]["id"]) * INDEX + attempts[a]["number"]
            took = draw_ns(model.times, NODE_TIMES, model.tables, model.node_key, index)
            if nodes[n]["slowness"] != 1.0:
                took = int64(took * nodes[n]["slowness"])
            if model.talks:
                known[n, SERVICE] += (took - known[n, SERVICE]) * (_LEARN if known[n, SERVICE] > 0.0 else 1.0)
            if gone:
                counts[_WASTED] += 1
                counts[_WASTED_NS] += took
            nodes[n]["working"] += 1
            attempts[a]["stage"] = _SERVED
            _schedule(calendar, attempts, ctl, a, now + took)
            if trace.shape[0] > 0 and attempts[a]["number"] == 0:
                trace[int64(live[row]["id"]) - 1]["wait_ns"] = now - attempts[a]["entered_ns"]

        # ---- a node that has run empty says so ----
        if emptied != NONE and model.talks and settings.rule == _IDLE and settings.infer_idle == 0:
            n = emptied
            if nodes[n]["working"] + nodes[n]["waiting"] == 0 and not down[n]:
                # Join-Idle-Queue: an idle server tells one balancer at random.
                word = bits(model.mail_key, counts[_EVENTS])
                told = int64(((word >> np.uint64(32)) * np.uint64(model.balancers)) >> np.uint64(32))
                _post(ctl, mail, counts, TO_TELL, now + model.delay_ns, told, n, 0.0, 0.0, counts[_EVENTS])

        # ---- an attempt has its answer ----
        if over != NONE:
            row = int64(attempts[over]["live"])
            if answer == _NO_NODE:
                live[row]["waiting"] -= 1
            else:
                virtual.node_failed[window, int64(attempts[over]["node"])] += int64(answer != _DONE)
                _stop_awaiting(model, pool, nodes, ctl, settings, fleet, over, int64((BAD >> answer) & 1 == 0))
            flags = live[row]["flags"]
            if (_DOUBTFUL >> answer) & 1:
                flags |= DOUBT
                live[row]["flags"] = flags
            if not flags & SETTLED:
                if answer == _DONE:
                    settled = row
                    served_by = int64(attempts[over]["node"])
                elif live[row]["waiting"] == 0:
                    again = False
                    wait = 0
                    if (model.retry_on >> answer) & 1 and live[row]["retries"] < model.retries:
                        index = int64(live[row]["id"]) * INDEX + live[row]["made"]
                        wait = backoff_ns(
                            live[row]["retries"], model.backoff_ns, model.factor, model.longest_ns, model.jitter,
                            model.backoff_key, index,
                        )  # fmt: skip
                        in_time = model.deadline_ns == 0 or now + wait < live[row]["intended_ns"] + model.deadline_ns
                        if in_time and pool.free[0] == 0:
                            counts[_NO_ROOM] += 1
                        elif in_time:
                            again = withdraw(budgets, RETRY, now, ctl[ACTIVE], ctl[ACTIVE + RETRIED])
                            counts[_RETRY_EMPTY] += int64(not again)
                    if again:
                        retry = _new_attempt(pool, row)
                        live[row]["waiting"] += 1
                        attempts[retry]["origin"] = RETRIED
                        ctl[ACTIVE + RETRIED] += 1
                        attempts[retry]["stage"] = _BACKOFF
                        attempts[retry]["node"] = NONE
                        _schedule(calendar, attempts, ctl, retry, now + wait)
                    else:
                        settled = row
                        status = _UNKNOWN if flags & DOUBT else _REJECTED
                        reason = _REASONS[answer]

        # ---- a transaction ends ----
        if settled != NONE:
            _settle(
                model,
                live,
                shards,
                ctl,
                virtual,
                response,
                slots,
                trace,
                settled,
                status,
                reason,
                served_by,
                now,
            )
            if live[settled]["attempts"] == 0:
                _free_live(pool, settled, counts)
        if over != NONE and not attempts[over]["inside"]:
            _free_attempt(pool, over, counts)


@kernel
def give_up(  # noqa: C901  one case for each stage
    model: Model, pool: Pool, nodes: NDArray[np.void], shards: NDArray[np.void], ctl: NDArray[np.int64],
    edges: NDArray[np.int64], virtual: Virtual, response: NDArray[np.uint32], slots: NDArray[np.int64],
    trace: NDArray[np.void], known: NDArray[np.float64], now: int,
) -> None:  # fmt: skip
    """The run is over: what is not settled is in doubt, and every station is cleared so that its sums are whole."""
    live, attempts = pool.live, pool.attempts
    while ctl[WINDOW] < edges.shape[0] - 2 and now >= edges[ctl[WINDOW] + 1]:
        flush_window(nodes, known, ctl, virtual, edges[ctl[WINDOW] + 1])
        ctl[WINDOW] += 1
    flush_window(nodes, known, ctl, virtual, now)
    ctl[NOW] = now
    for a in range(attempts.shape[0]):
        if attempts[a]["live"] != NONE and attempts[a]["inside"]:
            stage = attempts[a]["stage"]
            if stage == _QUEUED or stage == _SERVED:
                leave(virtual.little, _NODES, now, attempts[a]["entered_ns"])
            elif stage == _BOOKED or stage == _COMMITTED:
                leave(virtual.little, _SHARDS, now, attempts[a]["entered_ns"])
            elif stage == _CALLED:
                leave(virtual.little, _DEPENDENCY, now, attempts[a]["entered_ns"])
    for row in range(live.shape[0]):
        if live[row]["id"] != 0:
            if not live[row]["flags"] & SETTLED:
                virtual.counts[_LEFT] += 1
                _settle(model, live, shards, ctl, virtual, response, slots, trace, row, _UNKNOWN, _TIMEOUT, NONE, now)
            if live[row]["flags"] & APPLIED and live[row]["flags"] & IN_DOUBT:
                virtual.counts[_UNKNOWN_APPLIED] += 1
