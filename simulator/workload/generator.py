"""The workload: what each transaction of a run asks for, from the seed and its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.kernel import int64, kernel
from simulator.seeds import Stream, stream_key, uniform
from simulator.workload.life_cycle import RING, LifeCycle, Mix
from simulator.workload.popularity import AliasTable, pick, zipf_table
from simulator.workload.ticket import Ticket, amounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.arrivals.trace import Recorded

_ACCOUNT_NUMBERS = 2**32  # payer and payee are 32 bits wide
_BLOCK = 256  # transactions drawn at a time: their scratch arrays stay in the first-level cache


@dataclass(frozen=True, slots=True)
class Parties:
    """Who pays and who is paid.

    Customers are the accounts 0 … customers - 1, each as likely as the next; the merchant of rank r is account
    customers + r, paid with probability proportional to (r + 1)^-zipf.

    Raises:
        ValueError: for no customers, no merchants, more than 2^32 of both, or a negative exponent.
    """

    customers: int
    merchants: int
    zipf: float

    def __post_init__(self) -> None:
        if self.customers < 1 or self.merchants < 1 or self.customers + self.merchants > _ACCOUNT_NUMBERS:
            raise ValueError(
                "customers and merchants are 1 or more each and 2^32 or fewer together, "
                f"not {self.customers} and {self.merchants}"
            )
        if not 0.0 <= self.zipf < np.inf:
            raise ValueError(f"a Zipf exponent is a number ≥ 0, not {self.zipf}")


class Workload:
    """Fills batches of transactions. Its memory is the alias table (8 bytes a merchant) and two bounded rings.

    Args:
        parties: who pays and who is paid.
        ticket: how much.
        mix: which kinds, and when follow-ups come.
        seed: of the run.
        ring: how many refund candidates, and how many open holds, are remembered; a power of two.
        payees: whether every transaction's payee is wanted. Without, only those are drawn that follow-ups may need, and the
            others are 0: the look-up in a large table is a third of what a transaction costs. All else is the same.
    """

    def __init__(
        self, parties: Parties, ticket: Ticket, mix: Mix, seed: int, ring: int = RING, *, payees: bool = True
    ) -> None:  # fmt: skip
        self._parties = parties
        self._ticket = ticket
        self._table = zipf_table(parties.merchants, parties.zipf)
        self._ticket_key = stream_key(seed, Stream.TICKET)
        self._payer_key = stream_key(seed, Stream.PAYER)
        self._payee_key = stream_key(seed, Stream.PAYEE)
        self._follow_ups = (stream_key(seed, Stream.KIND), stream_key(seed, Stream.FOLLOW_UP))
        # Below these a transaction may be remembered, and its payee is needed later.
        self._remembered = (
            2.0 if payees else (mix.refund + mix.authorize) / mix.total if mix.authorize else 0.0,
            mix.take_share if mix.refund else 0.0,
        )
        self._scratch = (np.empty((2, _BLOCK)), np.empty((3, _BLOCK), np.int64))
        self._life_cycle = LifeCycle(mix, stream_key(seed, Stream.KIND), stream_key(seed, Stream.FOLLOW_UP), ring)

    @property
    def parties(self) -> Parties:
        """Who pays and who is paid."""
        return self._parties

    def fill(self, batch: NDArray[Any], recorded: Recorded | None = None) -> None:
        """Write `amount_minor`, `payer`, `payee`, `kind` and `related`.

        What is written does not depend on how a run is cut into batches.

        Args:
            batch: TRANSACTION[n] whose `id` and `intended_ns` are set: ids 1, 2, 3 … and times that do not decrease,
                over all calls.
            recorded: what a trace says of these n transactions; it goes before what would be drawn. Follow-ups take
                amount and parties from their original all the same.
        """
        ticket, parties = self._ticket, self._parties
        _draw(
            batch,
            self._ticket_key,
            self._payer_key,
            self._payee_key,
            ticket.mean_minor,
            ticket.mu,
            ticket.sigma,
            parties.customers,
            self._table,
            *self._follow_ups,
            *self._remembered,
            *self._scratch,
        )
        if recorded is not None:
            for field, values in recorded.fields():
                known = values >= 0
                batch[field][known] = values[known]
        self._life_cycle.apply(batch)


# Invariant: each record is written from its own id alone. Ids are consecutive, so it need not be read.
@kernel
def _draw(
    batch: NDArray[Any],
    ticket_key: np.uint64,
    payer_key: np.uint64,
    payee_key: np.uint64,
    mean_minor: int,
    mu: float,
    sigma: float,
    customers: int,
    table: AliasTable,
    kind_key: np.uint64,
    follow_up_key: np.uint64,
    kind_below: float,
    taken_below: float,
    floats: NDArray[np.float64],
    integers: NDArray[np.int64],
) -> None:
    normals, tails = floats[0], floats[1]
    payers, minor, places = integers[0], integers[1], integers[2]
    for start in range(0, batch.size, _BLOCK):
        count = min(batch.size - start, _BLOCK)
        first = int64(batch[start]["id"]) - 1
        if sigma > 0.0:
            amounts(mu, sigma, ticket_key, first, normals[:count], tails[:count], places[:count], minor[:count])
        else:
            minor[:count] = mean_minor
        # u < 1, and u · n rounded to a float64 stays below n for every n up to 2^32 (u is an odd multiple of 2^-53).
        for k in range(count):
            payers[k] = np.int64(uniform(payer_key, first + k) * customers)
        for k in range(count):
            batch[start + k]["amount_minor"] = minor[k]
            batch[start + k]["payer"] = payers[k]
        if kind_below > 0.0 or taken_below > 0.0:
            for k in range(count):
                if (
                    kind_below > 1.0
                    or (kind_below > 0.0 and uniform(kind_key, first + k) < kind_below)
                    or (taken_below > 0.0 and uniform(follow_up_key, first + k) < taken_below)
                ):
                    batch[start + k]["payee"] = customers + pick(table, uniform(payee_key, first + k))
