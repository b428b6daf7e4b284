"""The auditor: holds what clients were told against what the journals say, in one pass each and in bounded memory.

Four independent looks, so that no single bug can hide itself:

1. *Replay.* Every journal is replayed from the opening balances: positions without gap or repeat, no account below zero at any
   position, transit accounts level once all is quiet.
2. *Digest.* What was acknowledged and what was applied are summed by hash in 4,096 buckets (`simulator.ledger.digest`). Only if a
   bucket differs are its transactions listed, and then each is named with what is wrong with it.
3. *Closing sheets.* What the nodes' own memory held at the end is compared with the replay, shard by shard.
4. *Doubt.* Transactions that ended `unknown` are looked up: applied in full or not at all is lawful, in part is torn.

The verdict is `clean`, `anomalies`, or `unknown` when something needed for a judgement is missing; an anomaly outranks a doubt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.custody import Custodians
from simulator.audit.findings import Audit
from simulator.audit.history import add_history, history_path, read_history, sum_of_ids
from simulator.audit.hot_accounts import SplitLedger, split_in
from simulator.audit.naming import SILENT, end_of, fingerprints, in_buckets, places, wrong
from simulator.audit.replay import ALARM, ASTRAY, DEAD_LETTER, GAP, OVERDRAFT, REPEAT, Ledger, replay
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.ledger.digest import BUCKETS, add_legs
from simulator.measure.recorder import REORDERED
from simulator.shard.journal import JournalError, JournalReader, closing_path, journal_path
from simulator.shard.layout import RECORD, Custody, Durability
from simulator.shard.split import as_asked, unsplit
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.shard.journal import Frames

_LISTED_BUCKETS = 256  # more than that, and the list is a sample: the counts say "at least"


class Auditor:
    """Audits one run's folder."""

    def __init__(self, run: Path, observe: Callable[[Frames], None] | None = None) -> None:
        """`observe` is shown every frame of the journals once, in the order of each."""
        self.run = run
        self.journals = run / "journal"
        self.audit = Audit()
        self.memory_only = False
        self.dead_letters_listed = 0
        self.split = unsplit(1)
        self._observe = observe
        self._owners: list[int] = []  # of each shard, at the end of the journals

    def check(self) -> Audit:
        """All four looks. Never raises for what it finds; what it cannot read becomes a doubt or `damaged`."""
        audit = self.audit
        nodes = self._headers()
        if nodes is None or not history_path(self.run).exists():
            if nodes is not None:
                audit.doubt("there is no history of what clients were told")
            return audit
        header = nodes[0]
        shards = int(header["shards"])
        audit.shards = shards
        accounts = np.zeros((int(header["accounts"]), 2), np.int64)
        accounts[: int(header["customers"]), AVAILABLE] = header["opening_minor"]
        ledger = Ledger(
            accounts, np.zeros(shards, np.int64), np.zeros((shards, shards), np.int64),
            np.zeros((shards, shards), np.int64), np.zeros((BUCKETS, 2), np.uint64), np.zeros((shards, shards), np.int64),
        )  # fmt: skip
        parts = SplitLedger(self.split)
        acknowledged, unknown = self._read_history()
        sheets = self._sheets(len(nodes))
        quiet = all(sheet is not None for sheet in sheets)
        doubted = self._replay(ledger, parts, unknown, len(nodes))
        if self.memory_only:
            for sheet in sheets:
                if sheet is not None:
                    low_high = np.array(sheet["sums"], np.uint64)
                    before = ledger.sums[:, 0].copy()
                    ledger.sums[:, 0] += low_high[:, 0]
                    ledger.sums[:, 1] += low_high[:, 1] + (ledger.sums[:, 0] < before)
                    ledger.finds[ALARM] += sheet["alarms"]
                    ledger.returned += sheet["returned"]
        self._judge_replay(ledger, quiet=quiet)
        self._judge_sheets(ledger, sheets, int(header["opening_minor"]) * int(header["customers"]))
        parts.judge(audit, None if self.memory_only else ledger.accounts, sheets)
        self._judge_digest(acknowledged, ledger, unknown, quiet=quiet)
        self._judge_doubted(doubted, unknown, quiet=quiet)
        if not quiet:
            missing = [n for n, sheet in enumerate(sheets) if sheet is None]
            audit.doubt(
                f"node {', '.join(map(str, missing))} did not close its books: {audit.in_transit} transfers "
                "are under way between shards and would be delivered when it returns"
            )
        return audit

    def _headers(self) -> list[Any] | None:
        paths = sorted(self.journals.glob("node-*.journal")) if self.journals.is_dir() else []
        if not paths:
            self.audit.doubt(
                "no journals are here: this backend keeps none, or they were deleted; its books cannot be checked"
            )
            return None
        headers = []
        for node in range(len(paths)):
            try:
                headers.append(JournalReader(journal_path(self.journals, node)).header)
            except JournalError as error:
                self.audit.find("damaged", count=1)
                self.audit.reasons.append(str(error))
                return None
        names = (
            "nodes",
            "shards",
            "accounts",
            "customers",
            "opening_minor",
            "durability",
            "run",
            "hot_accounts",
            "hot_split",
        )
        if any(header[name] != headers[0][name] for header in headers for name in names):
            self.audit.doubt("the journals are not of one run: their headers differ")
            return None
        if len(headers) != int(headers[0]["nodes"]):
            self.audit.doubt(f"{int(headers[0]['nodes'])} nodes took part, but only {len(headers)} journals are here")
            return None
        self.memory_only = int(headers[0]["durability"]) == Durability.MEMORY
        try:
            self.split = split_in(headers[0])
        except ValueError as error:
            self.audit.doubt(f"the journals' headers contradict themselves: {error}")
            return None
        return headers

    def _read_history(self) -> tuple[NDArray[np.uint64], dict[int, int]]:
        """(sums of what was acknowledged, the fingerprint of each transaction in doubt)."""
        sums = np.zeros((BUCKETS, 2), np.uint64)
        statuses = np.zeros(256, np.int64)
        ids = np.zeros(1, np.uint64)
        unknown: dict[int, int] = {}
        for rows in read_history(self.run):
            add_history(rows, int(Status.OK), sums, statuses, ids)
            doubted = rows[rows["status"] == Status.UNKNOWN]
            unknown.update(zip(doubted["id"].tolist(), doubted["fingerprint"].tolist(), strict=True))
            reordered = rows["id"][(rows["flags"] & REORDERED) != 0]
            if len(reordered):
                self.audit.find("reordered", *reordered.tolist())
        self.audit.transactions = int(statuses.sum())
        if ids[0] != sum_of_ids(self.audit.transactions):
            # Ids are 1, 2, 3 … in the order of intended time, and each ends once.
            self.audit.doubt("the history does not have one row for each of the transactions 1, 2, 3 …")
        return sums, unknown

    def _frames(self, node: int) -> Iterator[NDArray[np.void]]:
        """The records of a node's journal, several frames at a time."""
        return (frames.records for frames in self._runs(node))

    def _observed(self, node: int) -> Iterator[NDArray[np.void]]:
        """As `_frames`, and whoever measures something in passing sees them."""
        for frames in self._runs(node):
            if self._observe is not None:
                self._observe(frames)
            yield frames.records

    def _runs(self, node: int) -> Iterator[Frames]:
        """A node's journal, several frames at a time; damage is counted and ends it."""
        reader = JournalReader(journal_path(self.journals, node))
        try:
            yield from reader.runs()
        except JournalError as error:
            if str(error) not in self.audit.reasons:  # it is read more than once
                self.audit.find("damaged", count=1)
                self.audit.reasons.append(str(error))
            return
        note = f"node {node}'s journal ends in a torn write of {reader.torn_bytes} bytes, which was passed over"
        if reader.torn_bytes and note not in self.audit.reasons:
            self.audit.reasons.append(note)

    def _replay(
        self, ledger: Ledger, parts: SplitLedger, unknown: dict[int, int], nodes: int
    ) -> list[NDArray[np.void]]:
        """Replays every journal; returns the records of transactions in doubt, which the digest leaves out.

        Those, as the digest, are in the clients' words: merchants, not their sub-accounts.
        """
        doubted = []
        unknown_ids = np.array(sorted(unknown), np.uint64)
        custody = Custodians(nodes, ledger.lsn, self.audit)
        for node, records in custody.in_order([self._observed(node) for node in range(nodes)]):
            if len(records):
                self.audit.records += len(records)
                custody.check(node, records)
                replay(
                    records, ledger.accounts, ledger.lsn, ledger.transit_out, ledger.transit_in, ledger.dead, ledger.returned,
                    ledger.finds, ledger.example_ids,
                )  # fmt: skip
                parts.add(records)
                known = as_asked(records, self.split)
                if unknown:
                    mask = np.isin(known["id"], unknown_ids)
                    doubted.append(known[mask])
                    known = known[~mask]
                add_legs(known, ledger.sums)
        custody.conclude()
        self._owners = custody.owners.tolist()
        return doubted

    def _judge_replay(self, ledger: Ledger, *, quiet: bool) -> None:
        self.audit.returned, self.audit.returned_minor = (int(sum_) for sum_ in ledger.returned)
        for name, which in (
            ("log_gap", GAP), ("log_repeat", REPEAT), ("overdraft", OVERDRAFT), ("dead_letter", DEAD_LETTER), ("alarm", ALARM),
        ):  # fmt: skip
            if ledger.finds[which]:
                ids = ledger.example_ids[which]
                self.audit.find(name, *ids[ids > 0], count=int(ledger.finds[which]))
        if ledger.finds[ASTRAY]:
            ids = ledger.example_ids[ASTRAY]
            self.audit.find("invented", *ids[ids > 0], count=int(ledger.finds[ASTRAY]))
            self.audit.reasons.append(
                f"{int(ledger.finds[ASTRAY])} records book on an account that their shard does not have"
            )
        if ledger.finds[DEAD_LETTER]:
            self.audit.reasons.append(
                f"{int(ledger.finds[DEAD_LETTER])} credits are dead letters: {int(ledger.dead.sum())} minor units stand on "
                "transit accounts for them; journal/node-*.dead-letters.jsonl says why"
            )
        level = ledger.transit_out == ledger.transit_in.T + ledger.dead.T
        if quiet and not level.all():
            for near, far in np.argwhere(~level):
                arrived = ledger.transit_in[far, near] + ledger.dead[far, near]
                difference = int(ledger.transit_out[near, far] - arrived)
                self.audit.reasons.append(f"transit from shard {near} to shard {far} holds {difference} at rest")
            self.audit.find("torn", count=int((~level).sum()))

    def _sheets(self, nodes: int) -> list[dict[str, Any] | None]:
        sheets: list[dict[str, Any] | None] = []
        for node in range(nodes):
            try:
                sheets.append(json.loads(closing_path(self.journals, node).read_text("utf-8")))
            except (OSError, ValueError):
                sheets.append(None)
        return sheets

    def _judge_sheets(self, ledger: Ledger, sheets: list[dict[str, Any] | None], opening: int) -> None:
        """The nodes' own memory against the replay, and the sum of everything against the opening."""
        shards = len(ledger.lsn)
        held = 0
        seen: set[int] = set()
        for node, sheet in enumerate(sheets):
            if sheet is None:
                continue
            for shard in sheet["shards"]:
                s = shard["shard"]
                if s in seen or (not self.memory_only and self._owners[s] != node):
                    self.audit.find("two_writers", count=1)
                    owner = "another node does too" if s in seen else f"node {self._owners[s]} does by the journals"
                    self.audit.reasons.append(f"node {node} closed the books of shard {s}, but {owner}")
                seen.add(s)
                held += shard["available_minor"] + shard["reserved_minor"]
                held += sum(shard["transit_out_minor"]) - sum(shard["transit_in_minor"])
                if self.memory_only:
                    continue
                rows = ledger.accounts[s::shards]
                replayed = (
                    int(rows[:, AVAILABLE].sum()), int(rows[:, RESERVED].sum()),
                    ledger.transit_out[s].tolist(), ledger.transit_in[s].tolist(), int(ledger.lsn[s]),
                )  # fmt: skip
                own = (
                    shard["available_minor"], shard["reserved_minor"],
                    shard["transit_out_minor"], shard["transit_in_minor"], shard["lsn"],
                )  # fmt: skip
                if replayed != own:
                    self.audit.find("not_conserved", count=1)
                    self.audit.reasons.append(
                        f"shard {s}: its node held {own[0]} available and {own[1]} reserved at position {own[4]}, "
                        f"its journal adds up to {replayed[0]} and {replayed[1]} at {replayed[4]}"
                    )
        if all(sheet is not None for sheet in sheets):
            self.audit.conservation_minor = held - opening
        else:
            net = int(ledger.transit_out.sum() - ledger.transit_in.sum())
            self.audit.conservation_minor = int(ledger.accounts.sum()) + net - opening
        if self.audit.conservation_minor and not self.audit.anomalies["not_conserved"]:
            self.audit.find("not_conserved", count=1)

    def _judge_digest(
        self, acknowledged: NDArray[np.uint64], ledger: Ledger, unknown: dict[int, int], *, quiet: bool
    ) -> None:
        differ = np.flatnonzero((acknowledged != ledger.sums).any(axis=1))
        if not len(differ):
            return
        if self.memory_only and unknown:
            self.audit.doubt(
                f"{len(unknown)} transactions ended in doubt, and `durability: memory` leaves nothing to look them up in"
            )
            return
        if self.memory_only:
            self.audit.find("lost", count=len(differ))
            self.audit.reasons.append(
                f"`durability: memory` writes no journal: {len(differ)} of {BUCKETS} buckets differ, but nothing can be named"
            )
            return
        if len(differ) > _LISTED_BUCKETS:
            self.audit.reasons.append(
                "more than could be listed is wrong: counts of lost, phantom, invented, altered, duplicated are at least these"
            )
        wanted = np.zeros(BUCKETS, np.bool_)
        wanted[differ[:_LISTED_BUCKETS]] = True
        before = self._explained()
        self._list(wanted, unknown, quiet=quiet)
        if self._explained() == before:
            self.audit.find("unexplained", count=len(differ))

    def _explained(self) -> int:
        return self.audit.anomalies.total() + self.audit.in_transit + self.dead_letters_listed

    def _select(self, chunks: Iterator[NDArray[np.void]], wanted: NDArray[np.bool_]) -> NDArray[np.void]:
        found = []
        for chunk in chunks:
            mask = np.zeros(len(chunk), np.bool_)
            in_buckets(np.ascontiguousarray(chunk["id"]), wanted, mask)
            found.append(chunk[mask])
        return np.concatenate(found) if found else np.zeros(0, RECORD)

    def _list(self, wanted: NDArray[np.bool_], unknown: dict[int, int], *, quiet: bool) -> None:
        """Names what is wrong with each transaction of the buckets that differ."""
        rows = self._select(read_history(self.run), wanted)
        nodes = len(list(self.journals.glob("node-*.journal")))
        records = self._select((r for node in range(nodes) for r in self._frames(node)), wanted)
        doubted = np.isin(records["id"], np.array(sorted(unknown), np.uint64))
        moves = records["leg"] >= Custody.MOVE_OUT
        records = as_asked(records, self.split)
        records = records[~np.isin(records["leg"], SILENT) & ~moves & ~doubted]
        prints = np.zeros(len(records), np.uint64)
        fingerprints(records, prints)
        applied: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for key, leg, print_, place in zip(
            records["id"].tolist(), records["leg"].tolist(), prints.tolist(), places(records).tolist(), strict=True
        ):
            applied[key].append((leg, print_, place))
        told: dict[int, list[Any]] = defaultdict(list)
        for row in rows:
            told[int(row["id"])].append(row)
        missing = []
        for key in sorted(applied.keys() | told.keys()):
            name = wrong(told.get(key, []), applied.get(key, []))
            if name == "half" and not quiet:
                self.audit.in_transit += 1
            elif name == "half":
                self.audit.find("torn", key)
            elif name == "dead_letter":
                self.dead_letters_listed += 1  # counted by the replay
            elif name == "absent":
                missing.append(told[key][0])
            elif name:
                self.audit.find(name, key)
        self._name_missing(missing, nodes)

    def _name_missing(self, missing: list[Any], nodes: int) -> None:
        """An acknowledged transaction that is nowhere: phantom if something else stands at its position, else lost."""
        if not missing:
            return
        told = {int(row["id"]): (int(row["shard"]) << 32) | int(row["lsn"]) for row in missing}
        wanted = np.array(sorted(set(told.values())), np.int64)
        taken: set[int] = set()
        for node in range(nodes):
            for records in self._frames(node):
                at = places(records[records["leg"] < Custody.MOVE_OUT])
                taken.update(at[np.isin(at, wanted)].tolist())
        for key, place in told.items():
            self.audit.find("phantom" if place in taken else "lost", key)

    def _judge_doubted(self, doubted: list[NDArray[np.void]], unknown: dict[int, int], *, quiet: bool) -> None:
        """Transactions that ended unknown: applied in full or not at all is lawful."""
        legs: dict[int, list[int]] = defaultdict(list)
        altered = set()
        for records in doubted:
            prints = np.zeros(len(records), np.uint64)
            fingerprints(records, prints)
            for key, leg, print_ in zip(records["id"].tolist(), records["leg"].tolist(), prints.tolist(), strict=True):
                if leg not in SILENT:
                    legs[key].append(leg)
                    if print_ != unknown[key]:
                        altered.add(key)
        self.audit.find("altered", *sorted(altered))
        ends = {key: end_of(found) for key, found in legs.items()}
        applied = [key for key, end in ends.items() if end not in ("none", "undecided")]
        self.audit.unknown_applied = len(applied)
        self.audit.undecided = sum(end == "undecided" for end in ends.values())
        for key, end in ends.items():
            if end == "half" and not quiet:
                self.audit.in_transit += 1
            elif end in ("half", "torn", "duplicated"):  # dead letters are counted by the replay
                self.audit.find("duplicated" if end == "duplicated" else "torn", key)
        if len(unknown):
            self.audit.reasons.append(
                f"{len(unknown)} transactions ended in doubt; the journals settle them: {len(applied)} were applied"
            )
        if self.audit.undecided:
            self.audit.reasons.append(
                f"{self.audit.undecided} of them are begun and not decided: their money is set aside until they are"
            )


def audit_run(run: Path, observe: Callable[[Frames], None] | None = None) -> Audit:
    """Audits a run from its folder alone; `observe` is shown every frame once, for whoever measures something in passing."""
    return Auditor(run, observe).check()
