"""The naive baseline: a `multiprocessing.Queue` a node, one Python object a transaction, and a ledger of dictionaries.

It is as kind to itself as it can be and still be that: the objects are plain tuples (the cheapest to pickle), balances exist only
once touched, nothing is written to disk, no sequence numbers, no bound on what is remembered, no garbage collection.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import process
from simulator.bench.rig import BooksError
from simulator.errors import BackendError
from simulator.shard.layout import shared_array
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess
    from multiprocessing.queues import Queue

    from numpy.typing import NDArray

    from simulator.bench.interruption import Interruption
    from simulator.bench.premade import Premade
    from simulator.shard.layout import Shape

IN_FLIGHT = 10_000  # transactions that wait for their answer: enough that neither side ever waits for the other
_WARM_UP_S = 0.3
_PATIENCE_S = 60.0
_LOOK_S = 0.05

# Where each result stands in the array that the client fills, and the nodes' drifts behind them.
ANSWERED = 0
TOOK_NS = 1
LOST = 2
_DRIFT = 3

Body = tuple[str, Callable[..., None], tuple[Any, ...]]  # a process: its name, what it runs, and with what
Request = tuple[int, int, int, int, bool]  # id, payer, payee, minor units; True: only the far leg, for the payee's node


@dataclass(frozen=True)
class Baseline:
    """What something else reached with the same transactions; `transactions_per_s` is None if it could not be measured."""

    name: str
    transfers: str
    transactions_per_s: float | None
    note: str


class DictLedger:
    """A ledger as one would first write it: applies what it may once, and remembers every id."""

    def __init__(self, customers: int, opening_minor: int) -> None:
        self._customers = customers
        self._opening_minor = opening_minor
        self._balances: dict[int, int] = {}
        self._known: dict[int, tuple[int, int, int, int, int]] = {}

    def _balance(self, account: int) -> int:
        return self._balances.get(account, self._opening_minor if account < self._customers else 0)

    def debit(self, number: int, payer: int, payee: int, amount: int) -> tuple[int, int, bool]:
        """Books the payer's side; returns status, reason, and whether the payee is still to be credited."""
        known = self._known.get(number)
        if known is not None:
            if known[:3] == (payer, payee, amount):
                return known[3], known[4], False
            return Status.REJECTED, Reason.DUPLICATE, False
        balance = self._balance(payer)
        if amount <= 0 or balance < amount:
            reason = Reason.FUNDS if amount > 0 else Reason.AMOUNT
            self._known[number] = (payer, payee, amount, Status.REJECTED, reason)
            return Status.REJECTED, reason, False
        self._balances[payer] = balance - amount
        self._known[number] = (payer, payee, amount, Status.OK, Reason.NONE)
        return Status.OK, Reason.NONE, True

    def credit(self, payee: int, amount: int) -> None:
        """Books the payee's side."""
        self._balances[payee] = self._balance(payee) + amount

    def drift_minor(self) -> int:
        """By how much all balances together have changed."""
        opened = sum(self._opening_minor for account in self._balances if account < self._customers)
        return sum(self._balances.values()) - opened


def requests_of(premade: Premade, shape: Shape) -> list[tuple[int, int, int, int]]:
    """(node, payer, payee, minor units) of each transaction, made before the clock runs."""
    made = premade.transactions
    node = shape.owners()[made["payer"] % shape.shards]
    columns = (node, made["payer"], made["payee"], made["amount_minor"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def new_results(shape: Shape) -> NDArray[np.int64]:
    """What client and nodes of a baseline write into."""
    return shared_array(_DRIFT + shape.nodes, np.int64)


def measure_naive(premade: Premade, shape: Shape, interruption: Interruption, *, seconds: float) -> Baseline:
    """Transactions a second through queues and dictionaries.

    The client is a process of its own, because a queue starts a thread in whoever puts into it, and this process will fork again.

    Raises:
        BackendError: one of its processes stopped.
        BooksError: something was lost.
        KeyboardInterrupt: by `interruption`.
    """
    context = multiprocessing.get_context("fork")
    inboxes: list[Queue[Request | None]] = [context.Queue() for _ in range(shape.nodes)]
    answers: Queue[tuple[int, int, int]] = context.Queue()
    results = new_results(shape)
    bodies: list[Body] = [
        (f"naive node {node}", _node, (node, shape, inboxes, answers, results)) for node in range(shape.nodes)
    ]
    bodies.append(("naive client", _client, (requests_of(premade, shape), inboxes, answers, results, seconds)))
    try:
        return run_baseline("naive", premade.transfers, bodies, results, interruption)
    finally:
        for inbox in inboxes:
            inbox.close()
        answers.close()


def run_baseline(
    name: str, transfers: str, bodies: list[Body], results: NDArray[np.int64], interruption: Interruption
) -> Baseline:
    """Starts some processes, waits until all have ended well, and reads their results. None is left, whatever happens."""
    children: list[ForkProcess] = []
    try:
        for title, body, arguments in bodies:
            children.append(process.start(title, body, *arguments))
        deadline = time.monotonic() + _PATIENCE_S
        while running := [child for child in children if child.exitcode is None]:
            interruption.check()
            if failed := [child.name for child in children if child.exitcode]:
                raise BackendError(f"the {name} baseline failed: {', '.join(failed)} stopped")
            if time.monotonic() > deadline:
                raise BackendError(f"the {name} baseline did not end within {_PATIENCE_S:.0f} s")
            wait([child.sentinel for child in running], _LOOK_S)
        if failed := [child.name for child in children if child.exitcode]:
            raise BackendError(f"the {name} baseline failed: {', '.join(failed)} stopped")
    finally:
        for child in children:
            process.kill(child)
    drift = int(results[_DRIFT:].sum())
    if drift or results[LOST]:
        raise BooksError(f"the {name} baseline lost {int(results[LOST])} transactions, its books drifted by {drift:,}")
    rate = int(results[ANSWERED]) / max(int(results[TOOK_NS]), 1) * 1e9
    return Baseline(name, transfers, rate, f"{len(results) - _DRIFT} nodes, nothing durable")


def note_drift(results: NDArray[np.int64], node: int, ledger: DictLedger) -> None:
    """Writes down what a node's books have changed by."""
    results[_DRIFT + node] = ledger.drift_minor()


class Window:
    """Counts a client's answers: those that came in the measured seconds, and whether each came once."""

    def __init__(self, results: NDArray[np.int64], seconds: float) -> None:
        self._results = results
        self._from = time.perf_counter_ns() + int(_WARM_UP_S * 1e9)
        self._until = self._from + int(seconds * 1e9)
        self._began: tuple[int, int] | None = None
        self._open: set[int] = set()
        self.answered = 0

    @property
    def in_flight(self) -> int:
        """How many answers are to come."""
        return len(self._open)

    def sent(self, number: int) -> None:
        """Notes that a transaction has left."""
        self._open.add(number)

    def came(self, number: int) -> None:
        """Notes an answer; one that was not asked for is lost to the count."""
        if number in self._open:
            self._open.remove(number)
            self.answered += 1
        else:
            self._results[LOST] += 1

    def over(self) -> bool:
        """Whether the measured seconds are over; notes their beginning and their end."""
        now = time.perf_counter_ns()
        if self._began is None:
            if now >= self._from:
                self._began = (now, self.answered)
            return False
        if now < self._until:
            return False
        self._results[ANSWERED] = self.answered - self._began[1]
        self._results[TOOK_NS] = now - self._began[0]
        return True


def _client(
    requests: list[tuple[int, int, int, int]], inboxes: list[Queue[Request | None]], answers: Queue[tuple[int, int, int]],
    results: NDArray[np.int64], seconds: float,
) -> None:  # fmt: skip
    """The body of the client: keeps IN_FLIGHT transactions on their way, then tells the nodes that it was the last."""
    window = Window(results, seconds)
    number = 0
    while not window.over():
        for _ in range(100):  # the clock is not looked at for each
            node, payer, payee, amount = requests[number % len(requests)]
            number += 1
            window.sent(number)
            inboxes[node].put((number, payer, payee, amount, False))
            if number > IN_FLIGHT:
                window.came(answers.get()[0])
    while window.in_flight:
        window.came(answers.get()[0])
    for inbox in inboxes:
        inbox.put(None)


def _node(
    node: int,
    shape: Shape,
    inboxes: list[Queue[Request | None]],
    answers: Queue[tuple[int, int, int]],
    results: NDArray[np.int64],
) -> None:
    """The body of a node. It ends when the client and every peer have said that nothing more will come."""
    ledger = DictLedger(shape.customers, shape.opening_minor)
    inbox = inboxes[node]
    peers = [inboxes[other] for other in range(shape.nodes) if other != node]
    owners = shape.owners().tolist()
    to_end = 1 + len(peers)
    told = False
    while to_end:
        message = inbox.get()
        if message is None:
            to_end -= 1
            if not told:  # nothing of a client's comes after the first word of the end, so nothing for a peer either
                told = True
                for peer in peers:
                    peer.put(None)
            continue
        number, payer, payee, amount, far = message
        if far:
            ledger.credit(payee, amount)
            continue
        status, reason, move = ledger.debit(number, payer, payee, amount)
        if move:
            home = owners[payee % shape.shards]
            if home == node:
                ledger.credit(payee, amount)
            else:
                inboxes[home].put((number, payer, payee, amount, True))
        answers.put((number, status, reason))
    note_drift(results, node, ledger)
