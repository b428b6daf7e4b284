"""Credit lag: how long after its debit a payment's credit was committed, read off the journals when the run is over.

A client is answered once its debit is durable; a merchant has the money when the credit is. What queues at a hot shard is
therefore not in any response time. Each frame of a journal carries the time at which its commit began, on one clock for all
nodes, so the lag of every payment is in the files and costs the running platform nothing. Legs of one commit have lag 0.

A sample of ids is followed (one in 2ⁿ by a hash of the id, so that about `SAMPLES` are), in memory that does not grow with the
run. Reading needs no order between the nodes' files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import int64, kernel
from simulator.measure.histogram import Histogram
from simulator.seeds import mix
from simulator.shard.layout import Leg
from simulator.shard.split import Split, client_account
from simulator.transaction import Kind
from simulator.workload.hot_keys import HotKeys, is_hot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.journal import Frames

SAMPLES = 1 << 18  # payments at most, on average; 32 MiB of sides
_TRANSFER, _DEBIT, _CREDIT = int(Leg.TRANSFER), int(Leg.DEBIT), int(Leg.CREDIT)
_COMMIT, _CONFIRMED = int(Leg.COMMIT), int(Leg.CONFIRMED)  # what they are called under `protocol: tcc`
_REFUND = int(Kind.REFUND)
_SIDE = np.dtype(
    [("id", "<u8"), ("committed_ns", "<i8"), ("shard", "<i8"), ("leg", "u1"), ("hot", "u1"), ("_", "u1", (6,))]
)


@kernel
def pick_sides(
    records: NDArray[np.void], counts: NDArray[np.int64], committed_ns: NDArray[np.int64], mask: np.uint64, split: Split,
    hot: HotKeys, sides: NDArray[np.void], used: NDArray[np.int64],
) -> None:  # fmt: skip
    """Appends the debits and credits of payments and posts whose hashed id has no bit of `mask`; stops when `sides` is full."""
    at = 0
    for frame in range(counts.shape[0]):
        for i in range(at, at + counts[frame]):
            r = records[i]
            leg = int64(r["leg"])
            if leg == _COMMIT:
                leg = _DEBIT
            elif leg == _CONFIRMED:
                leg = _CREDIT
            moves = leg == _TRANSFER or leg == _DEBIT or leg == _CREDIT
            if not moves or r["kind"] == _REFUND or (mix(r["id"]) & mask) != np.uint64(0) or used[0] == sides.shape[0]:
                continue
            side = sides[used[0]]
            used[0] += 1
            side["id"] = r["id"]
            side["committed_ns"] = committed_ns[frame]
            side["shard"] = r["shard"]
            side["leg"] = leg
            side["hot"] = is_hot(hot, client_account(split, r["payer"]), client_account(split, r["payee"]))
        at += counts[frame]


@dataclass(frozen=True)
class CreditLag:
    """What was found: histograms of the lag, of hot and cold keys and by the shard that was credited."""

    hot: Histogram
    cold: Histogram
    shards: list[Histogram]
    one_in: int  # of how many payments one was followed
    same_commit: int  # of the payments followed, how many had both legs in one commit


@dataclass
class CreditLagSampler:
    """Takes frames while they are read, then says what the lags were.

    Args:
        transactions: about how many the journals hold.
        shards: of the platform.
        split: which accounts are split; hot keys are known by their merchants.
        hot: the hot keys.
    """

    transactions: int
    shards: int
    split: Split
    hot: HotKeys
    _used: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        self._bits = max(0, (max(self.transactions, 1) - 1) // SAMPLES).bit_length()
        self._mask = np.uint64((1 << self._bits) - 1)
        self._sides = np.zeros(4 * SAMPLES, _SIDE)  # two sides each, and chance; touched as it fills

    def look(self, frames: Frames) -> None:
        """Takes some frames of one journal."""
        pick_sides(
            frames.records,
            frames.counts,
            frames.committed_ns,
            self._mask,
            self.split,
            self.hot,
            self._sides,
            self._used,
        )

    def measured(self) -> CreditLag | None:
        """The lags; None if the journals held no payment. A debit whose credit was not seen is left out."""
        sides = self._sides[: int(self._used[0])]
        if not len(sides):
            return None
        whole = sides[sides["leg"] == _TRANSFER]
        debits, credits_ = sides[sides["leg"] == _DEBIT], sides[sides["leg"] == _CREDIT]
        debits = debits[np.argsort(debits["id"], kind="stable")]
        at = np.searchsorted(debits["id"], credits_["id"])
        matched = np.flatnonzero(at < len(debits))
        matched = matched[debits["id"][at[matched]] == credits_["id"][matched]]
        arrived = credits_[matched]
        lag = np.maximum(arrived["committed_ns"] - debits["committed_ns"][at[matched]], 0)
        lag = np.concatenate([np.zeros(len(whole), np.int64), lag])
        hot = np.concatenate([whole["hot"], arrived["hot"]]).astype(bool)
        shard = np.concatenate([whole["shard"], arrived["shard"]])
        return CreditLag(
            Histogram.of(lag[hot]),
            Histogram.of(lag[~hot]),
            [Histogram.of(lag[shard == s]) for s in range(self.shards)],
            1 << self._bits,
            int((lag == 0).sum()),
        )
