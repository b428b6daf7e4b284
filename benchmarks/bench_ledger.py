"""The ledger's kernel alone, without rings, journals or processes, beside a ledger of dictionaries on the same payments.

10 million accounts, 1 and 16 shards on one node, so with 16 most payments book two legs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from simulator.bench.naive import DictLedger, requests_of
from simulator.bench.premade import AS_THEY_COME, Premade, premake
from simulator.bench.rig import OPENING_MINOR
from simulator.ledger.books import open_books
from simulator.ledger.output import JOURNAL, MARKS, REPLIES
from simulator.ledger.post import apply
from simulator.shard.layout import RECORD, Shape
from simulator.transaction import OUTCOME, TRANSACTION, Status

if TYPE_CHECKING:
    from simulator.ledger.books import Books

CUSTOMERS = 10_000_000
MERCHANTS = 100_000
PAYMENTS = 1 << 21
TURN = 1 << 14  # payments a call, as a node takes them from a ring
NAIVE_PAYMENTS = 1 << 19
IDS = 1 << 21  # remembered by all shards together
ROUNDS = 3


def shape_of(shards: int) -> Shape:
    """One node."""
    return Shape(1, shards, CUSTOMERS, MERCHANTS, OPENING_MINOR, IDS // shards)


def kernel_ns(books: Books, premade: Premade, first_id: int) -> float:
    """Nanoseconds a payment; every one must be applied."""
    made = premade.transactions
    made["id"] = np.arange(first_id, first_id + len(made))
    journal, replies = np.zeros(4 * TURN, RECORD), np.zeros(2 * TURN, OUTCOME)
    none, counts = np.zeros((1, 1), TRANSACTION), np.zeros((3, 1), np.int64)
    marks = np.zeros(MARKS, np.int64)
    applied, took = 0, 0
    for start in range(0, len(made), TURN):
        began = time.perf_counter_ns()
        done = apply(books, made, start, TURN, journal, replies, none, none, marks, *counts)
        took += time.perf_counter_ns() - began
        applied += int((replies["status"][:done] == Status.OK).sum())
        marks[JOURNAL] = marks[REPLIES] = 0
    if applied != len(made):
        raise SystemExit(f"only {applied:,} of {len(made):,} payments were applied")
    return took / len(made)


def naive_ns(premade: Premade, shape: Shape) -> float:
    """As `kernel_ns`, with dictionaries."""
    requests = requests_of(premade, shape)[:NAIVE_PAYMENTS]
    ledger = DictLedger(CUSTOMERS, OPENING_MINOR)
    began = time.perf_counter_ns()
    for number, (_, payer, payee, amount) in enumerate(requests):
        _, _, move = ledger.debit(number, payer, payee, amount)
        if move:
            ledger.credit(payee, amount)
    took = time.perf_counter_ns() - began
    if ledger.drift_minor():
        raise SystemExit("the dictionaries do not balance")
    return took / len(requests)


def main() -> None:
    """Prints the medians of a few rounds and their ratios."""
    made = {shards: premake(shape_of(shards), AS_THEY_COME, PAYMENTS) for shards in (1, 16)}
    naive = sorted(naive_ns(made[1], shape_of(1)) for _ in range(ROUNDS))[ROUNDS // 2]
    print(f"{CUSTOMERS:,} accounts, one core, median of {ROUNDS}")
    print(f"dictionaries       {naive:7.0f} ns a payment")
    for shards, premade in made.items():
        books = open_books(shape_of(shards), 0)
        kernel_ns(books, premade, 1)  # compiles, and fills the windows of ids
        ns = sorted(kernel_ns(books, premade, 1 + turn * PAYMENTS) for turn in range(1, ROUNDS + 1))[ROUNDS // 2]
        print(
            f"kernel, {shards:2} shard{'s' if shards > 1 else ' '} {ns:8.0f} ns a payment, {naive / ns:.1f} times as fast"
        )


if __name__ == "__main__":
    main()
