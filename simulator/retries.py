"""Tries again what did not end well, on the wall clock: which answers, how soon, how often, and where.

A transaction that is tried again keeps its row in the in-flight table, and with it its id (so its idempotency key), its place in
the audit and its times, which all count from the instant it was intended for. It has one end, whatever its attempts said:

* What is decided is never asked again: `ok`, a refusal of business, and whatever stands in a log.
* `refused` (no room), `error` (nobody there, a connection that ended, what is no answer) and `timeout` may be, as the scenario
  says: after a backoff with jitter, within the deadline, if the budget has one left.
* Once an attempt ended in doubt, a later "no room" speaks for that attempt only, and the transaction stays in doubt; only a
  decision ends that. The platform answers a repeated key alike, so an attempt that was booked unseen ends `ok`, once.

Each attempt is picked by the balancer, another node than the last where its rule is free to (as Envoy's `previous_hosts`, one
more try). Bounds: `max` attempts; as many waiting as half of the in-flight table, beyond which a transaction ends with the answer
that it has; `patience` for a free connection, likewise; the most requests that a run may send.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.backoff import JITTERS, backoff_ns
from simulator.balancer.budget import RETRY, earn, open_budgets, withdraw
from simulator.balancer.choose import REDRAWN, choose, note_answered, note_sent
from simulator.balancer.fleet import NEVER_NS
from simulator.balancer.health import is_bad
from simulator.in_flight import BETWEEN
from simulator.kernel import inlined, int64, kernel
from simulator.measure.recorder import (
    REASONS,
    STATUSES,
    ClientCount,
    account_in_flight,
    note_failed,
    note_fine,
    second_of,
)
from simulator.scenario.client import MOST_ATTEMPTS
from simulator.scenario.client import Retries as Asked
from simulator.seeds import Stream, stream_key
from simulator.shard.split import home_of
from simulator.transaction import OUTCOME, TRANSACTION, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.backend.backend import Backend
    from simulator.balancer.fleet import Fleet, Settings
    from simulator.in_flight import InFlight
    from simulator.measure.recorder import Tallies
    from simulator.scenario.client import Client
    from simulator.shard.split import Split

_STAGE = 4_096  # attempts sent at a time
_REJECTED, _FAILED, _UNKNOWN = int(Status.REJECTED), int(Status.FAILED), int(Status.UNKNOWN)
_TIMEOUT = int(Reason.TIMEOUT)
_DEADLINES, _OVER_BUDGET, _NO_ROOM = int(ClientCount.DEADLINES), int(ClientCount.OVER_BUDGET), int(ClientCount.NO_ROOM)
_NO_NODE, _NO_CONNECTION = int(ClientCount.NO_NODE), int(ClientCount.NO_CONNECTION)
_OVER_CAP, _ENDED = int(ClientCount.OVER_CAP), int(ClientCount.ENDED)
_RETRYING, _REQUESTS = (
    0,
    1,
)  # of Waiting.numbers: retries that wait or are in flight; requests sent, first attempts included

_NO_ROOM_THERE = (Reason.OVERFLOW, Reason.LIMIT)
_UNDECIDED = (*_NO_ROOM_THERE, Reason.NODE_DOWN, Reason.CIRCUIT)


class RetryPolicy(NamedTuple):
    """What is tried again, and how."""

    most: int  # attempts of a transaction
    retried: NDArray[np.uint8]  # (STATUSES, REASONS) 1: may be tried again
    undecided: NDArray[np.uint8]  # (STATUSES, REASONS) 1: speaks for its attempt only
    backoff_ns: float
    factor: float
    longest_ns: float
    jitter: int
    deadline_ns: int  # of a transaction, from its intended instant; 0: none
    receipts: int  # 1: answers say where they stand in a ledger, and one that stands nowhere decides nothing
    requests_max: int
    key: np.uint64
    budgets: NDArray[np.float64]  # as `simulator.balancer.budget` has them


def retry_policy(client: Client, seed: int, *, receipts: bool, requests_max: int, parts: int = 1) -> RetryPolicy | None:
    """What a scenario asks for; None: nothing is tried again, and no deadline is kept.

    Args:
        client: the scenario's.
        seed: of the jitter.
        receipts: whether answers say where they stand in a ledger.
        requests_max: that the run may send, all attempts together.
        parts: processes that send, each with an equal part of the budget and of `requests_max`.
    """
    if client.retries is None and client.deadline is None:
        return None
    asked = client.retries if client.retries is not None else Asked()
    most = 1 if client.retries is None else asked.max + 1
    retried = np.zeros((STATUSES, REASONS), np.uint8)
    if "refused" in asked.on:
        retried[_REJECTED, [int(reason) for reason in _NO_ROOM_THERE]] = 1
    if "error" in asked.on:
        retried[_UNKNOWN, :] = 1
        retried[_FAILED, :] = 1
        retried[_REJECTED, Reason.NODE_DOWN] = 1
    retried[_UNKNOWN, _TIMEOUT] = "timeout" in asked.on
    undecided = np.zeros((STATUSES, REASONS), np.uint8)
    undecided[_REJECTED, [int(reason) for reason in _UNDECIDED]] = 1
    undecided[_FAILED, :] = 1
    return RetryPolicy(
        most=most, retried=retried, undecided=undecided, backoff_ns=float(asked.backoff), factor=asked.factor,
        longest_ns=float(asked.longest), jitter=JITTERS[asked.jitter], deadline_ns=client.deadline or 0,
        receipts=int(receipts), requests_max=requests_max // parts, key=stream_key(seed, Stream.BACKOFF),
        budgets=open_budgets(client, parts),
    )  # fmt: skip


class Waiting(NamedTuple):
    """What waits to be tried again: a binary heap of at most `P` slots by their time, and what is known of `C` transactions."""

    due_ns: NDArray[np.int64]  # (P,)
    slot: NDArray[np.uint32]  # (P,)
    held: NDArray[np.int64]  # (1,) how many
    status: NDArray[np.uint8]  # (C,) what the last attempt said
    reason: NDArray[np.uint8]  # (C,)
    doubt: NDArray[np.uint8]  # (C,) the reason of the first attempt that ended in doubt; 0: none did
    numbers: NDArray[np.int64]  # (2,)


def open_waiting(in_flight: int) -> Waiting:
    """Nothing waits; room for half of the table."""
    room = max(in_flight // 2, 1)
    return Waiting(
        np.zeros(room, np.int64), np.zeros(room, np.uint32), np.zeros(1, np.int64), np.zeros(in_flight, np.uint8),
        np.zeros(in_flight, np.uint8), np.zeros(in_flight, np.uint8), np.zeros(2, np.int64),
    )  # fmt: skip


@kernel
def push(waiting: Waiting, due_ns: int, slot: int) -> None:
    """Adds one; there must be room."""
    at = waiting.held[0]
    waiting.held[0] += 1
    while at > 0:
        above = (at - 1) >> 1
        if waiting.due_ns[above] <= due_ns:
            break
        waiting.due_ns[at] = waiting.due_ns[above]
        waiting.slot[at] = waiting.slot[above]
        at = above
    waiting.due_ns[at] = due_ns
    waiting.slot[at] = slot


@kernel
def pop(waiting: Waiting) -> int:
    """Takes the slot that is due first; there must be one."""
    first: int = int64(waiting.slot[0])
    waiting.held[0] -= 1
    last = waiting.held[0]
    due_ns = waiting.due_ns[last]
    slot = waiting.slot[last]
    at = 0
    while 2 * at + 1 < last:
        below = 2 * at + 1
        if below + 1 < last and waiting.due_ns[below + 1] < waiting.due_ns[below]:
            below += 1
        if due_ns <= waiting.due_ns[below]:
            break
        waiting.due_ns[at] = waiting.due_ns[below]
        waiting.slot[at] = waiting.slot[below]
        at = below
    waiting.due_ns[at] = due_ns
    waiting.slot[at] = slot
    return first


@inlined
def _decide(
    policy: RetryPolicy, waiting: Waiting, flight: InFlight, tallies: Tallies, slot: int, attempts: int, ended_ns: int
) -> int:
    """When a transaction whose attempt ended may be tried again, by everything but the answer; −1: never, and why is counted."""
    m = flight.table[slot]
    index = int64(m["id"]) * MOST_ATTEMPTS + attempts
    wait = backoff_ns(
        attempts - 1, policy.backoff_ns, policy.factor, policy.longest_ns, policy.jitter, policy.key, index
    )
    due: int = int64(ended_ns + wait)
    count = -1
    if policy.deadline_ns != 0 and due >= m["intended_ns"] + policy.deadline_ns:
        count = _DEADLINES
    elif waiting.held[0] == waiting.due_ns.shape[0]:
        count = _NO_ROOM
    elif waiting.numbers[_REQUESTS] >= policy.requests_max:
        count = _OVER_CAP
    else:
        active = flight.table.shape[0] - flight.free_count[0] - waiting.held[0] - 1  # this one has just ended
        if not withdraw(policy.budgets, RETRY, ended_ns, active, waiting.numbers[_RETRYING]):
            count = _OVER_BUDGET
    if count >= 0:
        tallies.client[count] += 1
        due = int64(-1)
    return due


@kernel
def absorb(  # noqa: C901  a kernel is long but straight
    outcomes: NDArray[np.void], now_ns: int, policy: RetryPolicy, waiting: Waiting, settings: Settings, fleet: Fleet,
    flight: InFlight, tallies: Tallies,
) -> int:  # fmt: skip
    """Takes out of `outcomes` what is to be tried again; returns how many are left, in order at its front.

    What is left ends its transaction, as `unknown` where an attempt ended in doubt and this one decides nothing.
    """
    kept = 0
    account_in_flight(tallies, now_ns)
    for i in range(outcomes.shape[0]):
        outcome = outcomes[i]
        slot = int64(outcome["slot"])
        known = slot < flight.table.shape[0] and outcome["id"] != 0
        if known and flight.table[slot]["id"] == outcome["id"] and flight.attempts[slot] < BETWEEN:
            status = int64(outcome["status"])
            reason = int64(outcome["reason"])
            ended_ns = int64(outcome["answered_ns"]) if outcome["answered_ns"] > 0 else now_ns
            attempts = int64(flight.attempts[slot])
            tallies.attempt_ended[status, reason] += 1
            if attempts > 1:
                waiting.numbers[_RETRYING] -= 1
            if status == _UNKNOWN and waiting.doubt[slot] == 0:
                waiting.doubt[slot] = max(reason, 1)
            logged = outcome["lsn"] != 0
            if policy.retried[status, reason] != 0 and not logged and attempts < policy.most:
                due = _decide(policy, waiting, flight, tallies, slot, attempts, ended_ns)
                if due >= 0:
                    node = int64(flight.table[slot]["node"])
                    good = int64(not is_bad(status, reason))
                    note_answered(settings, fleet, 0, node, ended_ns, ended_ns - flight.attempted_ns[slot], good)
                    if good == 0:
                        note_failed(tallies, node, ended_ns)
                    waiting.status[slot] = status
                    waiting.reason[slot] = reason
                    flight.attempts[slot] = attempts | BETWEEN
                    push(waiting, due, slot)
                    waiting.numbers[_RETRYING] += 1
                    continue
            elif policy.deadline_ns != 0 and status == _UNKNOWN and reason == _TIMEOUT:
                late = ended_ns >= flight.table[slot]["intended_ns"] + policy.deadline_ns
                tallies.client[_DEADLINES] += int64(late)
            refused = status == _REJECTED and policy.receipts != 0 and not logged
            if waiting.doubt[slot] != 0 and ((policy.undecided[status, reason] != 0 and not logged) or refused):
                outcome["status"] = _UNKNOWN
                outcome["reason"] = waiting.doubt[slot]
            waiting.doubt[slot] = 0
        if kept != i:
            outcomes[kept] = outcomes[i]
        kept += 1
    return kept


@inlined
def _end(waiting: Waiting, flight: InFlight, slot: int, outcomes: NDArray[np.void], at: int) -> None:
    """The outcome of a transaction that is tried no more: what its last attempt said, or the doubt of an earlier one."""
    outcome = outcomes[at]
    outcome["id"] = flight.table[slot]["id"]
    outcome["slot"] = slot
    outcome["shard"] = 0
    outcome["lsn"] = 0
    outcome["epoch"] = 0
    outcome["answered_ns"] = 0
    outcome["status"] = _UNKNOWN if waiting.doubt[slot] != 0 else waiting.status[slot]
    outcome["reason"] = waiting.doubt[slot] if waiting.doubt[slot] != 0 else waiting.reason[slot]
    waiting.doubt[slot] = 0
    waiting.numbers[_RETRYING] -= 1


@kernel
def pick_due(
    now_ns: int, waiting: Waiting, settings: Settings, fleet: Fleet, key: np.uint64, by_payee: int,
    owners: NDArray[np.int64], split: Split, flight: InFlight, staged: NDArray[np.void], outcomes: NDArray[np.void],
    tallies: Tallies,
) -> tuple[int, int]:  # fmt: skip
    """Picks a node for what is due by `now_ns`, into `staged`; what finds none ends, into `outcomes`. Returns how many of each.

    Stops early when either is full.
    """
    picked = ended = 0
    account_in_flight(tallies, now_ns)
    while (
        waiting.held[0] > 0 and waiting.due_ns[0] <= now_ns and picked < staged.shape[0] and ended < outcomes.shape[0]
    ):
        slot = pop(waiting)
        m = flight.table[slot]
        shard = home_of(split, m["payer"], m["payee"])
        account = np.uint64(m["payee"] if by_payee != 0 else m["payer"])
        node = choose(settings, fleet, 0, now_ns, key, flight.picks[0], account, owners[shard])
        flight.picks[0] += 1
        if node >= 0 and node == m["node"] and settings.rule in REDRAWN:
            node = choose(settings, fleet, 0, now_ns, key, flight.picks[0], account, owners[shard])
            flight.picks[0] += 1
        if node < 0:
            tallies.client[_NO_NODE] += 1
            _end(waiting, flight, slot, outcomes, ended)
            ended += 1
            continue
        flight.attempts[slot] = flight.attempts[slot] & (BETWEEN - 1)
        flight.attempted_ns[slot] = now_ns
        m["node"] = node
        staged[picked] = m
        picked += 1
        note_sent(settings, fleet, 0, node, now_ns)
        tallies.in_flight_max[node] = max(tallies.in_flight_max[node], tallies.in_flight[node])
    second = second_of(now_ns, tallies.in_flight_top.shape[0])
    tallies.in_flight_top[second] = max(tallies.in_flight_top[second], tallies.in_flight.sum())
    return picked, ended


@kernel
def note_again(batch: NDArray[np.void], now_ns: int, waiting: Waiting, flight: InFlight, tallies: Tallies) -> None:
    """Counts a batch (TRANSACTION) as sent again at `now_ns`."""
    second = second_of(now_ns, tallies.retried.shape[0])
    for i in range(batch.shape[0]):
        slot = int64(batch[i]["slot"])
        node = int64(batch[i]["node"])
        flight.attempts[slot] += 1
        flight.attempted_ns[slot] = now_ns
        tallies.retried[second] += 1
        tallies.node_sent[second, node] += 1
        tallies.node_retried[node] += 1
        note_fine(tallies, node, now_ns)
    waiting.numbers[_REQUESTS] += batch.shape[0]


@kernel
def end_batch(batch: NDArray[np.void], waiting: Waiting, flight: InFlight, outcomes: NDArray[np.void]) -> None:
    """The outcomes of a batch (TRANSACTION) that found no connection in time."""
    for i in range(batch.shape[0]):
        _end(waiting, flight, int64(batch[i]["slot"]), outcomes, i)


@kernel
def end_waiting(waiting: Waiting, flight: InFlight, outcomes: NDArray[np.void], tallies: Tallies) -> int:
    """Ends what waits, into `outcomes`, as many as fit; returns how many."""
    ended = 0
    while waiting.held[0] > 0 and ended < outcomes.shape[0]:
        _end(waiting, flight, pop(waiting), outcomes, ended)
        ended += 1
    tallies.client[_ENDED] += ended
    return ended


class Around(NamedTuple):
    """What retries share with the dispatcher."""

    backend: Backend
    settings: Settings
    fleet: Fleet
    flight: InFlight
    tallies: Tallies
    owners: NDArray[np.int64]
    split: Split
    key: np.uint64  # of the balancer's random numbers
    by_payee: int


class Retries:
    """Holds what waits to be tried again, and sends it when it is due."""

    def __init__(self, policy: RetryPolicy, around: Around, *, patience_ns: int) -> None:
        """`patience_ns`: how long an attempt that is due waits for a free connection."""
        self._policy = policy
        self._around = around
        self._patience_ns = patience_ns
        self._waiting = open_waiting(len(around.flight.table))
        self._staged = np.zeros(_STAGE, TRANSACTION)
        self._outcomes = np.zeros(_STAGE, OUTCOME)
        self._held: list[deque[NDArray[np.void]]] = [deque() for _ in range(around.backend.nodes)]

    @property
    def next_ns(self) -> int:
        """When the first is due; `NEVER_NS`: nothing waits."""
        return int(self._waiting.due_ns[0]) if self._waiting.held[0] else NEVER_NS

    def note_first(self, transactions: int, now_ns: int) -> None:
        """So many were sent for the first time."""
        self._waiting.numbers[_REQUESTS] += transactions
        earn(self._policy.budgets, RETRY, now_ns, transactions)

    def absorb(self, outcomes: NDArray[np.void], now_ns: int) -> int:
        """Takes out of `outcomes` what is to be tried again; returns how many are left at its front, which end."""
        around = self._around
        return absorb(
            outcomes, now_ns, self._policy, self._waiting, around.settings, around.fleet, around.flight, around.tallies
        )

    def send(self, now_ns: int) -> NDArray[np.void]:
        """Sends what is due; returns outcomes (OUTCOME) of what is tried no more. Call it until there are none.

        What has waited for a connection goes first: it is the oldest there is.
        """
        ended = self._push_held(now_ns)
        if len(ended) or self.next_ns > now_ns:
            return ended
        a = self._around
        picked, count = pick_due(
            now_ns, self._waiting, a.settings, a.fleet, a.key, a.by_payee, a.owners, a.split, a.flight, self._staged,
            self._outcomes, a.tallies,
        )  # fmt: skip
        batch = self._staged[:picked]
        for node in np.unique(batch["node"]).tolist():
            mine = batch[batch["node"] == node]
            held = self._held[node]
            accepted = 0 if held else self._offer(node, mine, now_ns)
            if accepted < len(mine):
                held.append(mine[accepted:])
        return self._outcomes[:count]

    def stop(self) -> NDArray[np.void]:
        """Nothing is tried again from now on; returns outcomes of what waited for it. Call it until there are none."""
        if self._policy.most:
            self._policy = self._policy._replace(most=0)
        around = self._around
        for held in self._held:
            if held:
                return self._give_up(held.popleft(), _ENDED)
        return self._outcomes[: end_waiting(self._waiting, around.flight, self._outcomes, around.tallies)]

    def _push_held(self, now_ns: int) -> NDArray[np.void]:
        """Offers again what found no connection; returns outcomes of what is past its patience, or its deadline."""
        since = self._around.flight.attempted_ns
        for node, held in enumerate(self._held):
            while held:
                batch = held[0]
                late = since[batch["slot"]] < now_ns - self._patience_ns
                if self._policy.deadline_ns:
                    late |= batch["intended_ns"] + self._policy.deadline_ns <= now_ns
                if late.any():
                    held[0] = batch[~late]
                    if not len(held[0]):
                        held.popleft()
                    return self._give_up(batch[late], _NO_CONNECTION)
                accepted = self._offer(node, batch, now_ns)
                if accepted < len(batch):
                    held[0] = batch[accepted:]
                    break
                held.popleft()
        return self._outcomes[:0]

    def _give_up(self, batch: NDArray[np.void], why: int) -> NDArray[np.void]:
        around = self._around
        around.tallies.client[why] += len(batch)
        end_batch(batch, self._waiting, around.flight, self._outcomes)
        return self._outcomes[: len(batch)]

    def _offer(self, node: int, batch: NDArray[np.void], now_ns: int) -> int:
        around = self._around
        accepted = around.backend.offer(node, batch)
        if accepted:
            note_again(batch[:accepted], now_ns, self._waiting, around.flight, around.tallies)
        return accepted
