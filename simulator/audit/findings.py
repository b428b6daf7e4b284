"""What an audit can find, and what it found."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXAMPLES = 20  # ids named for each anomaly

ANOMALIES = {
    "lost": "acknowledged, and its place in the log is gone",
    "phantom": "acknowledged, but its place in the log holds something else",
    "invented": "applied, though nobody asked for it",
    "altered": "applied with other parties, amount or kind than asked for",
    "failed_but_applied": "the client was told that it did not happen",
    "duplicated": "applied more than once",
    "torn": "one side applied without the other, or a transit account that is not level at rest",
    "undecided": "begun and never decided: all is at rest, and the payer's money is still set aside",
    "dead_letter": "paid, but its payee never had it: the credit could not be booked, and the money stands on a transit account",
    "overdraft": "an account below zero",
    "over_limit": "an account was credited beyond what the platform lets it hold",
    "unlawful": "a step that this platform's protocol does not have, or money sent back though its payee had room for it",
    "log_gap": "positions missing from a shard's log",
    "log_repeat": "positions that a shard's log holds twice, or out of order",
    "two_writers": "a shard's records in the journal of a node that did not own it then, or a move with one side only",
    "not_conserved": "a shard's books at the end differ from what its journal adds up to",
    "reordered": "answered at a log position that was already acknowledged when it was asked",
    "stale_read": "a lookup answered with less than was acknowledged before it was asked, or with something else",
    "idempotency": "one id told two things, applied again with other parameters, or applied although it had been refused",
    "unasked": "an answer to a transaction that was never sent",
    "over_refunded": "refunds of one payment that are worth more than it",
    "over_posted": "posts, voids and expiry of one hold that are worth more than it",
    "orphan": "a refund, post, void or expiry whose original is not in the books before it, or has other parties",
    "alarm": "a shard was told to settle what it had not promised; it booked nothing",
    "unexplained": "what was acknowledged and what was applied differ in sum, though no single transaction shows why",
    "damaged": "a journal that cannot be read to its end",
}


class Books(StrEnum):
    """Who keeps the books that money could be audited in."""

    HERE = "here"  # the run
    ELSEWHERE = "elsewhere"  # the target, as the scenario says: the run may pass without
    NONE = "none"  # nobody: the backend books nothing
    UNDECLARED = "undeclared"  # not the run, and the scenario does not say who: the run proves nothing


BY_CLIENTS = ("idempotency", "reordered", "stale_read", "unasked")
"""What can be found from what clients were told alone, without any books."""


@dataclass
class Audit:
    """What the auditor found."""

    anomalies: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reasons: list[str] = field(default_factory=list)  # why the verdict is unknown, and what a human should know
    doubts: int = 0  # how many of the reasons stand in the way of a verdict
    books: Books = Books.HERE
    conservation_minor: int = 0
    transactions: int = 0
    records: int = 0
    shards: int = 0
    unknown_applied: int = 0
    lost_allowed: int = 0  # acknowledged, and taken by a power loss as the durability allows: no anomaly
    durability: dict[str, Any] = field(default_factory=dict)  # what power losses took against what was allowed
    in_transit: int = 0
    hot_accounts: list[dict[str, Any]] = field(default_factory=list)  # each split merchant, merged from its parts
    returned: int = 0  # lawful: answered ok, refused at the payee's shard, and given back
    returned_minor: int = 0
    undecided: int = 0  # in doubt, and their money is set aside

    @property
    def verdict(self) -> str:
        """clean, anomalies or unknown; never clean of books that are not here."""
        if self.anomalies.total():
            return "anomalies"
        return "unknown" if self.doubts or self.books is not Books.HERE else "clean"

    def find(self, name: str, *ids: int, count: int | None = None) -> None:
        """Counts an anomaly and keeps the first ids."""
        self.anomalies[name] += len(ids) if count is None else count
        kept = self.examples[name]
        kept.extend(int(i) for i in ids[: EXAMPLES - len(kept)] if int(i) not in kept)

    def doubt(self, reason: str) -> None:
        """Something that a verdict needs is missing."""
        self.reasons.append(reason)
        self.doubts += 1

    def to_dict(self) -> dict[str, Any]:
        """The contract's `audit.json`."""
        return {
            "verdict": self.verdict,
            "books": self.books.value,
            "doubts": self.doubts,
            "anomalies": {name: count for name, count in sorted(self.anomalies.items()) if count},
            "conservation_minor": self.conservation_minor if self.books is Books.HERE else None,
            "checked": {"transactions": self.transactions, "records": self.records, "shards": self.shards},
            "unknown_but_applied": self.unknown_applied,
            "in_transit": self.in_transit,
            "lost_allowed": self.lost_allowed,
            "durability": self.durability,
            **({"hot_accounts": self.hot_accounts} if self.hot_accounts else {}),
            "returned": self.returned,
            "returned_minor": self.returned_minor,
            "undecided": self.undecided,
            "examples": {name: ids for name, ids in sorted(self.examples.items()) if ids},
            "looked_for": ANOMALIES if self.books is Books.HERE else {name: ANOMALIES[name] for name in BY_CLIENTS},
            "reasons": self.reasons,
        }
