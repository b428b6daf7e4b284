"""Split accounts under audit: is each leg booked on the part that its parties say, and is each merchant the sum of its parts?

What it needs stands in the journals' headers (`simulator.shard.split` has the law). The merged balance of a merchant is added up
from the legs in the clients' words, its parts from the legs as they were booked, and once more by the nodes, from their own
memory; all three are integers and must agree.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.findings import EXAMPLES
from simulator.audit.replay import note_example
from simulator.kernel import int64, kernel
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.shard.layout import Leg
from simulator.shard.split import Split, booked_account, client_account, parts_of, split_of
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.audit.findings import Audit

_LEG_NONE, _DEAD = int(Leg.NONE), int(Leg.DEAD)
_TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE, _EXPIRE = (
    int(leg) for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_BEGIN, _COMMIT, _ABORT, _CONFIRMED, _TAKE_BACK = (
    int(leg) for leg in (Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.CONFIRMED, Leg.TAKE_BACK)
)
_LAST = int(max(Leg))
_POST = int(Kind.POST)
_MISPLACED, _UNREAD = 0, 1
_AVAILABLE, _RESERVED = AVAILABLE, RESERVED


def split_in(header: Any) -> Split:  # noqa: ANN401  one FILE_HEADER record; numpy's scalar records are untyped
    """The split that a journal's header tells. Raises ValueError for one that cannot be."""
    customers, hot, ways = int(header["customers"]), int(header["hot_accounts"]), int(header["hot_split"])
    merchants = int(header["accounts"]) - customers - hot * ways
    return split_of(customers, merchants if hot else 1, int(header["shards"]), int(header["nodes"]), hot, ways)


@kernel
def add_in_clients_words(  # noqa: C901  a table of legs
    records: NDArray[np.void], split: Split, merged: NDArray[np.int64], counts: NDArray[np.int64],
    examples: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Adds what the legs of `records` mean to split merchants, as their clients see it, to `merged` (int64[hot, 2]).

    Counts the legs that are not booked where the law says (counts[0]), and those of split merchants that are of no sort
    it can add up (counts[1]): then the merchants' sums of legs are not known.
    """
    for i in range(records.shape[0]):
        r = records[i]
        leg = r["leg"]
        if leg == _LEG_NONE or leg == _DEAD:  # books nothing, whatever it names
            continue
        payer = client_account(split, r["payer"])
        payee = client_account(split, r["payee"])
        if booked_account(split, payer, payee) != int64(r["payer"]) or booked_account(split, payee, payer) != int64(
            r["payee"]
        ):
            counts[_MISPLACED] += 1
            note_example(examples, 0, r["id"])
        amount = r["amount_minor"]
        of_payer = payer - split.customers
        of_payee = payee - split.customers
        if leg > _LAST:
            counts[_UNREAD] += 0 <= of_payer < split.hot or 0 <= of_payee < split.hot
            continue
        if 0 <= of_payer < split.hot:
            if leg == _TAKE_BACK:
                merged[of_payer, _AVAILABLE] += amount
            elif leg == _COMMIT:
                merged[of_payer, _RESERVED] -= amount
            elif (leg == _BEGIN or leg == _ABORT) and r["kind"] != _POST:
                merged[of_payer, _AVAILABLE] -= amount if leg == _BEGIN else -amount
                merged[of_payer, _RESERVED] += amount if leg == _BEGIN else -amount
            if leg == _TRANSFER or leg == _DEBIT:
                merged[of_payer, _RESERVED if r["kind"] == _POST else _AVAILABLE] -= amount
            elif leg == _RESERVE:
                merged[of_payer, _AVAILABLE] -= amount
                merged[of_payer, _RESERVED] += amount
            elif leg == _RELEASE or leg == _EXPIRE:
                merged[of_payer, _AVAILABLE] += amount
                merged[of_payer, _RESERVED] -= amount
        if 0 <= of_payee < split.hot and (leg == _TRANSFER or leg == _CREDIT or leg == _CONFIRMED):
            merged[of_payee, _AVAILABLE] += amount


@dataclass
class SplitLedger:
    """What the journals say of split merchants."""

    split: Split
    merged: NDArray[np.int64] = field(init=False)  # (hot, 2) available, reserved
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))  # misplaced, unread legs
    examples: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((1, EXAMPLES), np.uint64))

    def __post_init__(self) -> None:
        self.merged = np.zeros((self.split.hot, 2), np.int64)

    def add(self, records: NDArray[np.void]) -> None:
        """Takes more records (RECORD)."""
        if self.split.hot:
            add_in_clients_words(records, self.split, self.merged, self.counts, self.examples)

    def judge(self, audit: Audit, accounts: NDArray[np.int64] | None, sheets: list[dict[str, Any] | None]) -> None:
        """Names what does not agree, and states the balances.

        Args:
            audit: takes findings and statement.
            accounts: the replayed balances, int64[accounts, 2]; None where there was nothing to replay.
            sheets: the closing sheets of the nodes.
        """
        if self.split.hot == 0:
            return
        if self.counts[_MISPLACED]:
            audit.find("altered", *self.examples[self.examples > 0].tolist(), count=int(self.counts[_MISPLACED]))
            audit.reasons.append(
                f"{int(self.counts[_MISPLACED])} legs of split accounts are booked on another sub-account than their parties say"
            )
        told: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)  # merchant → part → balance, by the nodes
        for sheet in sheets:
            for part in (sheet or {}).get("hot_accounts", []):
                told[part["merchant"]][part["account"]] = (part["available_minor"], part["reserved_minor"])
        closed = all(sheet is not None for sheet in sheets)
        for rank in range(self.split.hot):
            self._judge_merchant(audit, rank, accounts, told[self.split.customers + rank], closed=closed)

    def _judge_merchant(
        self,
        audit: Audit,
        rank: int,
        accounts: NDArray[np.int64] | None,
        told: dict[int, tuple[int, int]],
        *,
        closed: bool,
    ) -> None:
        merchant, parts = self.split.customers + rank, parts_of(self.split, rank)
        if accounts is None:
            found = {account: told.get(account, (0, 0)) for account in parts}
            merged = (sum(a for a, _ in found.values()), sum(r for _, r in found.values()))
        else:
            found = {account: (int(accounts[account, 0]), int(accounts[account, 1])) for account in parts}
            merged = (int(self.merged[rank, AVAILABLE]), int(self.merged[rank, RESERVED]))
            if accounts[merchant].any():
                audit.find("not_conserved", count=1)
                audit.reasons.append(
                    f"merchant {merchant} is split, but {int(accounts[merchant].sum())} is booked on its own number"
                )
        total = (sum(a for a, _ in found.values()), sum(r for _, r in found.values()))
        if self.counts[_UNREAD]:
            merged = total  # the law and the closing sheets still say whether each part is right
        if total != merged:
            audit.find("not_conserved", count=1)
            audit.reasons.append(
                f"merchant {merchant}: its sub-accounts add up to {total[0]} available and {total[1]} reserved, "
                f"what was booked for it to {merged[0]} and {merged[1]}"
            )
        for account, (available, reserved) in found.items():
            if closed and told.get(account) != (available, reserved):
                kept = told.get(account)
                audit.find("not_conserved", count=1)
                audit.reasons.append(
                    f"sub-account {account} of merchant {merchant}: its node "
                    + (f"held {kept[0]} available and {kept[1]} reserved" if kept else "has no such account")
                    + f", its journal adds up to {available} and {reserved}"
                )
        audit.hot_accounts.append(
            {
                "merchant": merchant,
                "balance_minor": sum(merged),
                "available_minor": merged[0],
                "reserved_minor": merged[1],
                "parts": [
                    {"account": account, "shard": account % self.split.shards, "balance_minor": sum(balance)}
                    for account, balance in found.items()
                ],
            }
        )
