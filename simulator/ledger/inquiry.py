"""Answers what gateways ask about accounts and transactions: reads that change and log nothing.

A transaction is looked for in every shard of the node, because who asks knows its id and not its payer: a probe of a half-full
index for each shard, which is what makes a refund by the payment's key possible without a second directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.kernel import inlined, int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED, Books
from simulator.ledger.window import find
from simulator.shard.layout import Found, Inquiry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ACCOUNT = int(Inquiry.ACCOUNT)
_NOTHING, _FAR, _ALL = int(Found.NOTHING), int(Found.FAR), int(Found.ALL)


@inlined
def _account(books: Books, number: int, answer: np.void) -> None:
    if number < 0 or number >= books.accounts_count:
        return
    shard = number % books.shards
    if books.place[shard] < 0:
        return
    row = books.base[shard] + number // books.shards
    answer["amount_minor"] = books.accounts[row, AVAILABLE]
    answer["remaining_minor"] = books.accounts[row, RESERVED]
    answer["shard"] = shard
    answer["lsn"] = books.lsn[shard]
    answer["found"] = _ALL


@inlined
def _transaction(books: Books, key: np.uint64, answer: np.void) -> None:
    for shard in range(books.shards):
        place = books.place[shard]
        if place < 0:
            continue
        generation, position = find(books, place, key)
        if generation < 0:
            continue
        entry = books.entries[place, generation, position]
        here = int64(entry["payer"]) % books.shards == shard
        if answer["found"] == _FAR and not here:
            continue
        answer["amount_minor"] = entry["amount_minor"]
        answer["remaining_minor"] = entry["remaining_minor"]
        answer["related"] = entry["related"]
        answer["payer"] = entry["payer"]
        answer["payee"] = entry["payee"]
        answer["lsn"] = entry["lsn"]
        answer["shard"] = shard
        answer["kind"] = entry["kind"]
        answer["status"] = entry["status"]
        answer["reason"] = entry["reason"]
        answer["state"] = entry["state"]
        answer["found"] = _ALL if here else _FAR
        if here:
            return


@kernel
def answer(books: Books, questions: NDArray[np.void], count: int, answers: NDArray[np.void]) -> None:
    """Answers questions[:count] (QUESTION) in answers[:count] (ANSWER), from the books as they are now."""
    for i in range(count):
        asked = questions[i]
        told = answers[i]
        told["key"] = asked["key"]
        told["slot"] = asked["slot"]
        told["found"] = _NOTHING
        if asked["what"] == _ACCOUNT:
            _account(books, int64(asked["key"]), told)
        else:
            _transaction(books, asked["key"], told)
