"""The virtual clock's model once more, written for reading: one heap of callbacks, objects for everything, no tricks.

What it shares with the engine is what is not in question here: the random numbers, and the balancer's verbs.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.balancer.choose import choose, note_answered, note_sent
from simulator.balancer.fleet import Rule
from simulator.balancer.policy import open_fleet
from simulator.engine.virtual.model import ADAPTIVE_LIFO, FCFS, LIFO, PRIORITY, Setup
from simulator.engine.virtual.records import Answer, Faults
from simulator.engine.virtual.service import draw_all
from simulator.engine.virtual.tally import Count
from simulator.seeds import bits, uniform
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FAULT, SCHEDULED, HEDGE, DEADLINE, TIMEOUT, ARRIVAL = range(6)

REASONS = {
    Answer.FULL: Reason.OVERFLOW, Answer.LIMIT: Reason.LIMIT, Answer.DOWN: Reason.NODE_DOWN,
    Answer.RESET: Reason.NODE_DOWN, Answer.BROKEN: Reason.DEPENDENCY, Answer.NO_NODE: Reason.CIRCUIT,
    Answer.LATE: Reason.TIMEOUT,
}  # fmt: skip
DOUBTFUL = {Answer.RESET, Answer.BROKEN, Answer.LATE}


@dataclass(eq=False)
class Logical:
    id: int
    intended: int
    payer: int
    kind: int
    made: int = 0
    retries: int = 0
    hedges: int = 0
    out: int = 0
    waiting: int = 0
    settled: bool = False
    status: Status = Status.PENDING
    reason: Reason = Reason.NONE
    done: int = 0
    node: int = -1
    last: int = -1  # sent to last
    wait: int = 0
    applied: bool = False
    doubt: bool = False
    hedge: list[bool] | None = None


@dataclass(eq=False)
class Attempt:
    of: Logical
    number: int
    node: int = -1
    balancer: int = 0
    sent: int = 0
    entered: int = 0
    where: str = "backoff"
    awaited: bool = False
    inside: bool = False
    doomed: bool = False
    event: list[Any] | None = None

    @property
    def index(self) -> int:
        return self.of.id * 16 + self.number


@dataclass(eq=False)
class Node:
    queue: list[Attempt] = field(default_factory=list)
    serving: list[Attempt] = field(default_factory=list)
    empty: int = 0  # when its queue was last empty, if it is not now
    down: int = 0
    paused: int = 0
    slowness: float = 1.0


@dataclass(eq=False)
class Shard:
    free: int = 0
    committing: list[Attempt] | None = None
    waiting: list[Attempt] = field(default_factory=list)


class Reference:
    def __init__(self, setup: Setup, batch: NDArray[np.void]) -> None:
        self.setup, self.m = setup, setup.model
        self.fleet = open_fleet(setup.settings, self.m.nodes, self.m.balancers, weights=setup.weights, seed=setup.seed)
        self.nodes = [Node(slowness=1.0 / speed) for speed in setup.speed]
        self.shards = [Shard() for _ in range(self.m.shards)]
        self.heap: list[tuple[int, int, int, list[Any]]] = []
        self.seq = 0
        self.now = 0
        self.counts: Counter[Count] = Counter()
        self.logical: dict[int, Logical] = {}
        self.active: list[Attempt] = []  # attempts that have a row
        self.calls = 0
        self.outage = 0
        self.batch = batch
        self.tokens: dict[int, defaultdict[int, float]] = {0: defaultdict(float), 1: defaultdict(float)}
        self.dropped = 0
        for row in self.m.faults:
            self.at(int(row["time_ns"]), FAULT, self.fault, int(row["what"]), int(row["node"]), float(row["value"]))
        for m in batch:
            self.at(int(m["intended_ns"]), ARRIVAL, self.arrival, m)

    # ---- time ----

    def at(self, time: int, order: int, what: Callable[..., None], *arguments: Any) -> list[Any]:  # noqa: ANN401  any event's
        self.seq += 1
        entry = [what, arguments]
        heapq.heappush(self.heap, (time, order, self.seq, entry))
        return entry

    def run(self) -> None:
        end = int(self.batch["intended_ns"][-1]) + self.setup.drain_ns
        while self.heap:
            if all(order == FAULT or entry[0] is None for _, order, _, entry in self.heap):
                break
            time, _, _, entry = heapq.heappop(self.heap)
            if entry[0] is None:
                continue
            if time > end:
                break
            self.now = time
            entry[0](*entry[1])
        for tx in self.logical.values():
            if not tx.settled:
                self.now = end
                self.counts[Count.LEFT] += 1
                self.settle(tx, Status.UNKNOWN, Reason.TIMEOUT)
        self.counts[Count.UNKNOWN_APPLIED] = sum(
            tx.applied for tx in self.logical.values() if tx.status == Status.UNKNOWN
        )

    def draw(self, which: int, key: np.uint64, index: int) -> int:
        out = np.zeros(1, np.int64)
        draw_all(self.m.times, which, self.m.tables, key, np.array([index]), out)
        return int(out[0])

    # ---- budgets ----

    def deposit(self, row: int) -> None:
        ratio = self.setup.budgets[row, 0]
        if ratio > 0:
            self.tokens[row][self.now // int(self.setup.budgets[row, 2])] += ratio

    def withdraw(self, row: int) -> bool:
        ratio, reserve, slot_ns = self.setup.budgets[row, :3]
        if ratio < 0:
            return True
        slot = self.now // int(slot_ns)
        left = reserve
        # The engine adds its ten columns in their own order; so that the last bit agrees, so does this.
        recent = {s % 10: self.tokens[row][s] for s in range(slot - 9, slot + 1) if s >= 0}
        for column in range(10):
            left += recent.get(column, 0.0)
        if left < 1.0:
            return False
        self.tokens[row][slot] -= 1.0
        return True

    # ---- rows ----

    def attempt(self, tx: Logical) -> Attempt:
        attempt = Attempt(tx, tx.made)
        tx.made += 1
        self.active.append(attempt)
        return attempt

    def full(self) -> bool:
        return len(self.active) >= self.setup.attempt_rows

    def free(self, attempt: Attempt) -> None:
        if not attempt.inside and not attempt.awaited:
            self.active.remove(attempt)

    def transactions_inside(self) -> int:
        return len({tx.id for tx in self.logical.values() if not tx.settled} | {a.of.id for a in self.active})

    # ---- the client ----

    def arrival(self, m: np.void) -> None:
        self.counts[Count.OFFERED] += 1
        if self.full() or self.transactions_inside() >= self.setup.in_flight:
            self.dropped += 1
            return
        tx = Logical(int(m["id"]), self.now, int(m["payer"]), int(m["kind"]))
        self.logical[tx.id] = tx
        if self.m.deadline_ns:
            self.at(self.now + self.m.deadline_ns, DEADLINE, self.deadline, tx)
        self.deposit(0)
        self.deposit(1)
        self.send(self.attempt(tx))

    def send(self, attempt: Attempt) -> None:
        tx, m = attempt.of, self.m
        b = int(bits(m.which_key, attempt.index) >> np.uint64(32)) * m.balancers >> 32 if m.balancers > 1 else 0
        home = tx.payer // m.units % m.shards % m.nodes
        settings = self.setup.settings
        for index in (attempt.index, attempt.index + (1 << 62)):
            node = choose(settings, self.fleet, b, self.now, m.balancer_key, index, np.uint64(tx.payer), home)
            if node < 0 or node != tx.last or Rule(settings.rule) is Rule.AFFINITY:
                break
        attempt.sent = self.now
        if node < 0:
            self.counts[Count.NO_NODE] += 1
            self.conclude(attempt, Answer.NO_NODE)
            self.free(attempt)
            return
        note_sent(self.setup.settings, self.fleet, b, node, self.now)
        self.counts[Count.ATTEMPTS] += 1
        tx.last = int(node)
        attempt.node, attempt.balancer, attempt.where = int(node), b, "to node"
        attempt.awaited = attempt.inside = True
        tx.waiting += 1
        tx.out += 1
        self.at(self.now + m.client_ns, SCHEDULED, self.at_node, attempt)
        if m.timeout_ns:
            self.at(self.now + m.timeout_ns, TIMEOUT, self.timeout, attempt)
        if m.hedge_ns and tx.hedges < m.hedges:
            self.disarm(tx)
            tx.hedge = self.at(self.now + m.hedge_ns, HEDGE, self.hedge, tx)

    def disarm(self, tx: Logical) -> None:
        if tx.hedge is not None:
            tx.hedge[0] = None  # type: ignore[call-overload]
            tx.hedge = None

    def hedge(self, tx: Logical) -> None:
        tx.hedge = None
        if tx.settled or not tx.out or tx.hedges >= self.m.hedges:
            return
        if self.full():
            self.counts[Count.NO_ROOM] += 1
        elif not self.withdraw(1):
            self.counts[Count.HEDGE_BUDGET_EMPTY] += 1
        else:
            tx.hedges += 1
            self.counts[Count.HEDGES] += 1
            self.send(self.attempt(tx))

    def deadline(self, tx: Logical) -> None:
        if not tx.settled:
            self.counts[Count.DEADLINES] += 1
            self.settle(tx, Status.UNKNOWN if tx.out or tx.doubt else Status.REJECTED, Reason.TIMEOUT)

    def timeout(self, attempt: Attempt) -> None:
        if attempt.awaited:
            self.counts[Count.TIMEOUTS] += 1
            self.conclude(attempt, Answer.LATE)
            self.free(attempt)

    def forget(self, attempt: Attempt, good: int) -> None:
        attempt.awaited = False
        attempt.of.waiting -= 1
        attempt.of.out -= 1
        note_answered(
            self.setup.settings, self.fleet, attempt.balancer, attempt.node, self.now, self.now - attempt.sent, good
        )  # fmt: skip

    def conclude(self, attempt: Attempt, answer: Answer) -> None:
        """The client learns what became of an attempt."""
        tx, m = attempt.of, self.m
        if answer != Answer.NO_NODE:
            self.forget(attempt, int(answer not in DOUBTFUL | {Answer.DOWN, Answer.FULL, Answer.LIMIT}))
        if answer in DOUBTFUL:
            tx.doubt = True
        if tx.settled:
            return
        if answer == Answer.OK:
            tx.node = attempt.node
            self.settle(tx, Status.OK, Reason.NONE)
            return
        if tx.waiting:
            return
        if m.retry_on >> answer & 1 and tx.retries < m.retries:
            wait = min(m.backoff_ns * m.factor**tx.retries, m.longest_ns)
            drawn = float(uniform(m.backoff_key, tx.id * 16 + tx.made))
            wait *= {0: 1.0, 1: drawn, 2: 0.5 + 0.5 * drawn}[m.jitter]
            in_time = not m.deadline_ns or self.now + int(wait) < tx.intended + m.deadline_ns
            if in_time and self.full():
                self.counts[Count.NO_ROOM] += 1
            elif in_time and self.withdraw(0):
                tx.waiting += 1
                self.at(self.now + int(wait), SCHEDULED, self.again, self.attempt(tx))
                return
            elif in_time:
                self.counts[Count.RETRY_BUDGET_EMPTY] += 1
        self.settle(tx, Status.UNKNOWN if tx.doubt else Status.REJECTED, REASONS[answer])

    def again(self, attempt: Attempt) -> None:
        attempt.of.waiting -= 1
        if attempt.of.settled:
            self.free(attempt)
            return
        attempt.of.retries += 1
        self.counts[Count.RETRIES] += 1
        self.send(attempt)

    def settle(self, tx: Logical, status: Status, reason: Reason) -> None:
        assert not tx.settled
        tx.settled, tx.status, tx.reason, tx.done = True, status, reason, self.now
        self.counts[Count.SETTLED] += 1
        self.disarm(tx)

    # ---- the platform ----

    def reply(self, attempt: Attempt, answer: Answer, after: int) -> None:
        attempt.where = "reply"
        self.at(self.now + after, SCHEDULED, self.answered, attempt, answer)

    def answered(self, attempt: Attempt, answer: Answer) -> None:
        attempt.inside = False
        if not attempt.awaited or attempt.of.settled:
            self.counts[Count.LATE_ANSWERS] += 1
        if attempt.awaited:
            self.conclude(attempt, answer)
        self.free(attempt)

    def unneeded(self, attempt: Attempt) -> bool:
        return not attempt.awaited or attempt.of.settled

    def cancel(self, attempt: Attempt) -> None:
        self.counts[Count.CANCELLED] += 1
        attempt.inside = False
        if attempt.awaited:
            self.forget(attempt, 1)
        self.free(attempt)

    def at_node(self, attempt: Attempt) -> None:
        node, m = self.nodes[attempt.node], self.m
        if attempt.doomed:
            attempt.inside = False
            self.free(attempt)
        elif node.down:
            self.counts[Count.NODE_DOWN] += 1
            self.reply(attempt, Answer.DOWN, m.client_ns)
        elif m.cancel and self.unneeded(attempt):
            self.cancel(attempt)
        elif not node.queue and len(node.serving) < m.workers and self.now >= node.paused:
            attempt.entered = self.now
            self.serve(node, attempt)
        elif len(node.queue) >= m.queue:
            self.counts[Count.QUEUE_FULL] += 1
            self.reply(attempt, Answer.FULL, m.client_ns)
        else:
            attempt.entered, attempt.where = self.now, "queue"
            node.empty = node.empty if node.queue else self.now
            node.queue.append(attempt)

    def serve(self, node: Node, attempt: Attempt) -> None:
        took = self.draw(0, self.m.node_key, attempt.index)
        if node.slowness != 1.0:
            took = int(took * node.slowness)
        if self.unneeded(attempt):
            self.counts[Count.WASTED] += 1
            self.counts[Count.WASTED_NS] += took
        attempt.where = "service"
        if attempt.number == 0:
            attempt.of.wait = self.now - attempt.entered
        node.serving.append(attempt)
        attempt.event = [self.now + took, self.at(self.now + took, SCHEDULED, self.served, attempt)]

    def pick(self, node: Node) -> Attempt:
        discipline = self.m.discipline
        if discipline == PRIORITY:
            return min(node.queue, key=lambda a: self.m.classes[a.of.kind])  # min takes the first of equals: the oldest
        if discipline == LIFO:
            return node.queue[-1]
        if discipline == ADAPTIVE_LIFO and node.empty < self.now - self.m.adaptive_ns:
            return node.queue[-1]
        assert discipline in (FCFS, ADAPTIVE_LIFO)
        return node.queue[0]

    def begin(self, node: Node) -> None:
        while node.queue and not node.down and len(node.serving) < self.m.workers and self.now >= node.paused:
            attempt = self.pick(node)
            node.queue.remove(attempt)
            if self.m.cancel and self.unneeded(attempt):
                self.cancel(attempt)
            else:
                self.serve(node, attempt)

    def served(self, attempt: Attempt) -> None:
        node = self.nodes[attempt.node]
        node.serving.remove(attempt)
        if self.m.staged:
            attempt.where = "to shard"
            self.at(self.now + self.m.shard_ns, SCHEDULED, self.at_shard, attempt)
        else:
            self.apply(attempt)
            self.reply(attempt, Answer.OK, self.m.client_ns)
        self.begin(node)

    def at_shard(self, attempt: Attempt) -> None:
        m = self.m
        shard = self.shards[attempt.of.payer // m.units % m.shards]
        attempt.where = "shard"
        if not m.batched:
            shard.free = max(shard.free, self.now) + self.draw(1, m.shard_key, attempt.index)
            self.at(shard.free, SCHEDULED, self.booked, attempt)
        elif shard.committing is None:
            shard.committing = [attempt]
            self.at(self.now + m.commit_ns + m.record_ns, SCHEDULED, self.committed, shard)
        else:
            shard.waiting.append(attempt)

    def committed(self, shard: Shard) -> None:
        for attempt in shard.committing or []:
            self.booked(attempt)
        shard.committing, shard.waiting = shard.waiting or None, []
        if shard.committing:
            took = self.m.commit_ns + len(shard.committing) * self.m.record_ns
            self.at(self.now + took, SCHEDULED, self.committed, shard)

    def apply(self, attempt: Attempt) -> None:
        self.counts[Count.REPEATED if attempt.of.applied else Count.APPLIED] += 1
        attempt.of.applied = True

    def booked(self, attempt: Attempt) -> None:
        self.apply(attempt)
        m, back = self.m, self.m.shard_ns + self.m.client_ns
        needs = m.depends and m.depends_kinds >> attempt.of.kind & 1
        if not needs or (m.depends_share < 1.0 and float(uniform(m.depends_key, attempt.of.id)) >= m.depends_share):
            self.reply(attempt, Answer.OK, back)
            return
        self.counts[Count.CALLS] += 1
        if self.outage == 2:
            self.counts[Count.CALLS_HUNG] += 1
            attempt.inside = False
            self.free(attempt)
        elif self.outage == 1:
            self.counts[Count.CALL_ERRORS] += 1
            self.reply(attempt, Answer.BROKEN, back)
        elif m.call_limit and self.calls >= m.call_limit:
            self.counts[Count.CALL_LIMIT] += 1
            self.reply(attempt, Answer.BROKEN, back)
        else:
            self.calls += 1
            attempt.where = "call"
            self.at(self.now + self.draw(2, m.call_key, attempt.index), SCHEDULED, self.called, attempt)

    def called(self, attempt: Attempt) -> None:
        self.calls -= 1
        self.reply(attempt, Answer.OK, self.m.shard_ns + self.m.client_ns)

    # ---- faults ----

    def fault(self, what: int, n: int, value: float) -> None:  # noqa: C901  one case for each
        match Faults(what):
            case Faults.DIES:
                self.nodes[n].down += 1
                if self.nodes[n].down == 1:
                    self.kill(n)
            case Faults.RETURNS:
                self.nodes[n].down -= 1
            case Faults.SLOWS:
                self.nodes[n].slowness = value / self.setup.speed[n]
            case Faults.RECOVERS:
                self.nodes[n].slowness = 1.0 / self.setup.speed[n]
            case Faults.PAUSES:
                if not self.nodes[n].down:
                    self.pause(self.nodes[n], int(value))
            case Faults.RESUMES:
                self.begin(self.nodes[n])
            case Faults.DEPENDENCY_OUT:
                self.outage = 2 if value else 1
            case Faults.DEPENDENCY_BACK:
                self.outage = 0

    def kill(self, n: int) -> None:
        node = self.nodes[n]
        node.paused = self.now
        held = node.queue + node.serving
        for attempt in held:
            attempt.inside = False
            if attempt.where == "service":
                assert attempt.event is not None
                attempt.event[1][0] = None
        node.queue, node.serving = [], []
        involved = sorted((a for a in self.active if a.node == n), key=lambda a: a.index)
        for attempt in involved:
            if attempt.where == "to node":
                attempt.doomed = True
        told = [attempt for attempt in involved if attempt.awaited]
        for attempt in involved:
            if not attempt.awaited:
                self.free(attempt)
        for attempt in told:
            self.counts[Count.RESET] += 1
            self.conclude(attempt, Answer.RESET)
            self.free(attempt)

    def pause(self, node: Node, until: int) -> None:
        longer = until - max(self.now, node.paused)
        if longer <= 0:
            return
        node.paused = until
        for attempt in sorted(node.serving, key=lambda a: a.index):
            assert attempt.event is not None
            attempt.event[1][0] = None
            done = attempt.event[0] + longer
            attempt.event = [done, self.at(done, SCHEDULED, self.served, attempt)]
