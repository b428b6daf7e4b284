"""Hot keys: the merchants that the workload's own law makes popular enough to be watched apart, known before the run.

A hot key is a merchant who gets at least 1 % of the payments, or whose account the platform is told to split. The bound does
not look at the platform, so runs with other shards or nodes compare the same keys.

What a hot key does to shards: one that gets the share p of all payments makes its shard the busiest, with S·p + (1 − p) times
the mean over S shards: its own p, and 1/S of the rest, which spreads evenly. Other popular merchants in the same shard come
on top. Split into k parts in k shards, each part is an account with p/k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from simulator.kernel import inlined, int64
from simulator.scenario.load import TraceRate
from simulator.workload.popularity import zipf_shares

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

LEAST_SHARE = 0.01


class HotKeys(NamedTuple):
    """The accounts of hot keys: so many `accounts` from `first` on. Plain numbers, so that a kernel takes them."""

    first: int
    accounts: int


NO_HOT_KEYS = HotKeys(0, 0)


@inlined
def is_hot(hot: HotKeys, payer: int, payee: int) -> bool:
    """Whether a hot key takes part in a transaction, as payer or as payee."""
    return bool(0 <= int64(payee) - hot.first < hot.accounts or 0 <= int64(payer) - hot.first < hot.accounts)


@dataclass(frozen=True, slots=True)
class Popular:
    """The hot keys of a scenario, and what its law says of them.

    Attributes:
        hot: their accounts; ranks from 0, so one stretch.
        shares: of all payments, of each hot key in order of rank; empty where a trace names the payees: then only what is to
            be split is hot, and no law is known.
        next_share: of the most popular merchant who is not hot.
        ways: sub-accounts of each of the first `split` merchants.
        split: how many merchants are split.
    """

    hot: HotKeys
    shares: tuple[float, ...] = ()
    next_share: float = 0.0
    ways: int = 1
    split: int = 0

    @property
    def share(self) -> float | None:
        """The part of all payments that hot keys get by law."""
        return sum(self.shares) if self.shares else None

    @property
    def largest_account_share(self) -> float | None:
        """The largest part of all payments that one account gets, sub-accounts counted apart."""
        if not self.shares:
            return None
        apart = [share / self.ways if rank < self.split else share for rank, share in enumerate(self.shares)]
        return max(*apart, self.next_share)

    def expected_imbalance(self, shards: int) -> float | None:
        """Payments to the busiest shard over the mean of all, S·p + (1 − p) with the largest account's p; None: no law."""
        p = self.largest_account_share
        return None if p is None else shards * p + (1.0 - p)


def hot_keys_of(scenario: Scenario) -> Popular:
    """The hot keys of a scenario."""
    load, embedded = scenario.load, scenario.backend.embedded
    told = embedded.hot_account if embedded is not None else None
    split = told.accounts if told is not None else 0
    ways = told.split if told is not None else 1
    if isinstance(load.rate, TraceRate):
        return Popular(HotKeys(load.accounts, split), ways=ways, split=split)
    top = zipf_shares(load.merchants.count, load.merchants.zipf, max(split, int(1 / LEAST_SHARE)) + 1)
    count = max(split, int((top >= LEAST_SHARE).sum()))
    following = float(top[count]) if count < len(top) else 0.0
    return Popular(HotKeys(load.accounts, count), tuple(top[:count].tolist()), following, ways, split)


def hot_keys_in_words(scenario: Scenario) -> str:
    """The hot keys of a scenario and what they will do to its shards, in a line; empty if it has none."""
    popular, embedded = hot_keys_of(scenario), scenario.backend.embedded
    if not popular.hot.accounts:
        return ""
    told = "1 merchant" if popular.hot.accounts == 1 else f"{popular.hot.accounts} merchants"
    if popular.share is not None:
        told += f" with {popular.share:.1%} of the payments"
    if popular.split and popular.ways > 1:
        told += f"; {popular.split} split in {popular.ways}"
    expected = popular.expected_imbalance(embedded.shards) if embedded is not None else None
    return told if expected is None else f"{told}; busiest shard about {expected:.1f} times the mean"
