"""Transactions made before the clock runs, so that a cell measures the platform and not the generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.shard.layout import Shape, shared_array
from simulator.transaction import TRANSACTION
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZIPF = 1.05
MEAN_MINOR = 10_000
SIGMA = 1.0
_SEED = 20191111

AS_THEY_COME = "as they come"
SAME_SHARD = "same shard"
TRANSFERS = (SAME_SHARD, AS_THEY_COME)


@dataclass(frozen=True)
class Premade:
    """Payments (TRANSACTION[n], ids 1 … n) between the accounts of a shape."""

    transfers: str
    transactions: NDArray[Any]

    def by_node(self, shape: Shape) -> list[NDArray[Any]]:
        """The transactions by the node that owns the payer's shard, in order.

        In shared memory: new ids are written into them after nodes were forked, and a private page would be copied for that.
        """
        home = shape.owners()[self.transactions["payer"] % shape.shards]
        parts = []
        for node in range(shape.nodes):
            mine = np.flatnonzero(home == node)
            part = shared_array(len(mine), TRANSACTION)
            np.take(self.transactions, mine, out=part)
            parts.append(part)
        return parts


def premake(shape: Shape, transfers: str, count: int) -> Premade:
    """`count` payments: uniform payers, merchants by Zipf's law, lognormal tickets.

    For SAME_SHARD each payee is the merchant next to the drawn one who lives in the payer's shard, so popularity stays as it is.

    Raises:
        ValueError: for fewer merchants than shards; some shard would then have none.
    """
    if shape.merchants < shape.shards:
        raise ValueError(f"each of {shape.shards} shards needs a merchant; there are {shape.merchants}")
    made = np.zeros(count, TRANSACTION)
    made["id"] = np.arange(1, count + 1)
    parties = Parties(shape.customers, shape.merchants, ZIPF)
    Workload(parties, Ticket(MEAN_MINOR, SIGMA), Mix(payment=1.0), _SEED).fill(made)
    if transfers == SAME_SHARD:
        payer, payee = made["payer"].astype(np.int64), made["payee"].astype(np.int64)
        near = payee - (payee - payer) % shape.shards
        made["payee"] = np.where(near < shape.customers, near + shape.shards, near)
    return Premade(transfers, made)
