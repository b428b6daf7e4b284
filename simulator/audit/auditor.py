"""The auditor: holds what clients were told against what the journals say, in few passes and in bounded memory.

Six independent looks, so that no single bug can hide itself (docs/audit.md says what each finds and costs):

1. *Replay.* Every journal is replayed from the opening balances: positions without gap or repeat, no account below zero at any
   position, transit accounts level once all is quiet.
2. *Digest.* What was decided, as clients were told and as the logs have it, is summed by hash in 4,096 buckets
   (`simulator.ledger.digest`). Only if a bucket differs are its transactions listed, and then each is named with what is wrong.
3. *Closing sheets.* What the nodes' own memory held at the end is compared with the replay, shard by shard.
4. *Life-cycles.* Every refund, post, void and expiry is followed to its original.
5. *Answers.* Second answers are held against the first, lookups against what was acknowledged before they were asked.
6. *Doubt and loss.* Transactions that ended `unknown` are looked up: applied in full or not at all is lawful, in part is torn.
   Those of which a power loss took a record are judged one by one, by what the durability allows.

The verdict is `clean`, `anomalies`, or `unknown` when something needed for a judgement is missing; an anomaly outranks a doubt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.answers import Answers
from simulator.audit.clients import audit_clients
from simulator.audit.custody import Custodians
from simulator.audit.findings import Audit, Books
from simulator.audit.history import add_history, history_path, read_history, sum_of_ids
from simulator.audit.hot_accounts import SplitLedger, split_in
from simulator.audit.id_set import IdSet
from simulator.audit.keys import read_keys
from simulator.audit.life_cycle import LifeCycles
from simulator.audit.loss import RECORDS_MAX, PowerLosses
from simulator.audit.naming import SILENT, end_of, fingerprints, in_buckets, place_of, places, wrong
from simulator.audit.replay import (
    ALARM,
    ASTRAY,
    DEAD_LETTER,
    GAP,
    OVER_LIMIT,
    OVERDRAFT,
    REPEAT,
    UNLAWFUL,
    Ledger,
    lawful_legs,
    replay,
)
from simulator.fault.loss import LossError
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.ledger.digest import BUCKETS, add_legs
from simulator.measure.recorder import ASKED, HISTORY, REORDERED, SECOND
from simulator.shard.journal import JournalError, JournalReader, OtherVersionError, closing_path, journal_path
from simulator.shard.layout import NO_LIMIT, RECORD, Custody, Durability, Leg, Protocol
from simulator.shard.split import as_asked, unsplit
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.audit.keys import KeyMap
    from simulator.shard.journal import Frames

_LISTED_BUCKETS = 256  # more than that, and the list is a sample: the counts say "at least"
_LISTED_TRANSACTIONS = 50_000  # listed at once, about: their rows and records are Python objects, some 2 KB each


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
        self.keys: KeyMap | None = None
        self._observe = observe
        self._owners: list[int] = []  # of each shard, at the end of the journals
        self.mode = ""
        self._lawful = lawful_legs(Protocol.OUTBOX, NO_LIMIT)
        self._limit_minor = NO_LIMIT
        self.others = 0  # rows of the history that are no transaction's end
        self.acknowledged = 0

    def check(self) -> Audit:
        """All looks. Never raises for what it finds; what it cannot read becomes a doubt or `damaged`."""
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
        try:
            self.keys = read_keys(self.run)
        except (ValueError, OSError) as error:
            audit.doubt(f"the ids of the ledger cannot be told from the clients': {error}")
            return audit
        losses = self._losses()
        if losses is None:
            return audit
        acknowledged, unknown, told = self._read_history(losses)
        sheets = self._sheets(len(nodes))
        quiet = all(sheet is not None for sheet in sheets)
        cycles = LifeCycles()
        aside = IdSet(np.concatenate([np.fromiter(unknown, np.uint64, len(unknown)), losses.dropped.ids]))
        doubted = self._replay(ledger, parts, aside, cycles, len(nodes))
        if self.memory_only:
            _add_sheets(ledger, sheets)
        self._judge_replay(ledger, quiet=quiet)
        self._judge_sheets(ledger, sheets, int(header["opening_minor"]) * int(header["customers"]))
        parts.judge(audit, None if self.memory_only else ledger.accounts, sheets)
        self._judge_digest(acknowledged, ledger, aside, len(unknown), quiet=quiet)
        of_unknown = IdSet(unknown)
        self._judge_doubted([of_unknown.among(records) for records in doubted], unknown, quiet=quiet)
        self._judge_losses(losses, told, doubted, len(nodes), quiet=quiet)
        if not self.memory_only:
            cycles.check(lambda: self._all_frames(len(nodes)), audit)
        if self.others:
            answers = Answers(self.run, audit, losses, lambda: self._all_frames(len(nodes)))
            answers.check(ledger.lsn, int(header["remember"]))
        if not quiet and not (self.memory_only and losses):
            missing = [n for n, sheet in enumerate(sheets) if sheet is None]
            audit.doubt(
                f"node {', '.join(map(str, missing))} did not close its books: {audit.in_transit} transfers "
                "are under way between shards and would be delivered when it returns"
            )
        return audit

    def _losses(self) -> PowerLosses | None:
        """What was recorded of power losses; None, with a doubt, if it cannot be read or is more than can be followed."""
        try:
            losses = PowerLosses(self.journals, self._in_clients_words)
        except (LossError, JournalError) as error:
            self.audit.doubt(str(error))
            return None
        if losses.too_many:
            self.audit.doubt(f"power losses left more than {RECORDS_MAX:,} unsynced records, more than can be followed")
            return None
        return losses

    def _in_clients_words(self, records: NDArray[np.void]) -> NDArray[np.void]:
        """Records as they were booked, as they were asked for."""
        return as_asked(records if self.keys is None else self.keys.in_clients_words(records), self.split)

    def _headers(self) -> list[Any] | None:
        paths = sorted(self.journals.glob("node-*.journal")) if self.journals.is_dir() else []
        if not paths:
            self.audit.doubt(
                "no journals are here: this backend keeps none, or they were deleted; its books cannot be checked"
            )
            return None
        try:
            headers = [JournalReader(journal_path(self.journals, node)).header for node in range(len(paths))]
        except OtherVersionError as error:
            self.audit.doubt(str(error))
            return None
        except JournalError as error:
            self.audit.find("damaged", count=1)
            self.audit.reasons.append(str(error))
            return None
        return headers if self._are_of_one_run(headers) else None

    def _are_of_one_run(self, headers: list[Any]) -> bool:
        """Whether the journals belong together; if so, what they say of the platform is taken over."""
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
            "protocol",
            "balance_limit_minor",
        )
        if any(header[name] != headers[0][name] for header in headers for name in names):
            self.audit.doubt("the journals are not of one run: their headers differ")
            return False
        if len(headers) != int(headers[0]["nodes"]):
            self.audit.doubt(f"{int(headers[0]['nodes'])} nodes took part, but only {len(headers)} journals are here")
            return False
        self.memory_only = int(headers[0]["durability"]) == Durability.MEMORY
        try:
            self.split = split_in(headers[0])
        except ValueError as error:
            self.audit.doubt(f"the journals' headers contradict themselves: {error}")
            return False
        self.mode = Durability(int(headers[0]["durability"])).name.lower()
        self._limit_minor = int(headers[0]["balance_limit_minor"])
        self._lawful = lawful_legs(int(headers[0]["protocol"]), self._limit_minor)
        return True

    def _read_history(self, losses: PowerLosses) -> tuple[NDArray[np.uint64], dict[int, int], NDArray[np.void]]:
        """(sums of what was told, the fingerprint of each transaction in doubt, rows of those a power loss took a record of)."""
        sums = np.zeros((BUCKETS, 2), np.uint64)
        nowhere = np.zeros_like(sums)
        statuses = np.zeros(256, np.int64)
        ids = np.zeros(1, np.uint64)
        others = np.zeros(1, np.int64)
        unknown: dict[int, int] = {}
        unsynced = [np.zeros(0, HISTORY)]  # a run that was stopped before its start has no row at all
        for rows in read_history(self.run):
            dropped, known = losses.dropped.split(rows)
            add_history(known, sums, statuses, ids, others)
            add_history(dropped, nowhere, statuses, ids, others)
            unsynced.append(_ends(losses.unsynced.among(rows)))
            doubted = rows[rows["status"] == Status.UNKNOWN]
            unknown.update(zip(doubted["id"].tolist(), doubted["fingerprint"].tolist(), strict=True))
            reordered = rows["id"][(rows["flags"] & REORDERED) != 0]
            if len(reordered):
                self.audit.find("reordered", *reordered.tolist())
        self.audit.transactions = int(statuses.sum())
        self.acknowledged = int(statuses[Status.OK])
        self.others = int(others[0])
        if ids[0] != sum_of_ids(self.audit.transactions):
            # Ids are 1, 2, 3 … in the order of intended time, and each ends once.
            self.audit.doubt("the history does not have one row for each of the transactions 1, 2, 3 …")
        told = np.concatenate(unsynced)
        losses.count_allowed(told)
        return sums, unknown, losses.dropped.among(told)

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
            keys = self.keys
            if keys is None:
                yield from reader.runs()
            else:
                yield from (f._replace(records=keys.in_clients_words(f.records)) for f in reader.runs())
        except JournalError as error:
            if str(error) not in self.audit.reasons:  # it is read more than once
                self.audit.find("damaged", count=1)
                self.audit.reasons.append(str(error))
            return
        note = f"node {node}'s journal ends in a torn write of {reader.torn_bytes} bytes, which was passed over"
        if reader.torn_bytes and note not in self.audit.reasons:
            self.audit.reasons.append(note)

    def _all_frames(self, nodes: int) -> Iterator[NDArray[np.void]]:
        """The legs in every journal, in the clients' words: merchants, not their sub-accounts; shards' moves left out."""
        for node in range(nodes):
            for records in self._frames(node):
                moves = records["leg"] >= Custody.MOVE_OUT
                yield as_asked(records[~moves] if moves.any() else records, self.split)

    def _replay(
        self, ledger: Ledger, parts: SplitLedger, aside: IdSet, cycles: LifeCycles, nodes: int
    ) -> list[NDArray[np.void]]:
        """Replays every journal; returns the records of transactions `aside`, which the digest leaves out.

        Those, as the digest, are in the clients' words.
        """
        doubted = [np.zeros(0, RECORD)]
        custody = Custodians(nodes, ledger.lsn, self.audit)
        for node, records in custody.in_order([self._observed(node) for node in range(nodes)]):
            if len(records):
                self.audit.records += len(records)
                custody.check(node, records)
                replay(
                    records, ledger.accounts, ledger.lsn, ledger.transit_out, ledger.transit_in, ledger.dead, ledger.returned,
                    ledger.finds, ledger.example_ids, self._lawful, self._limit_minor,
                )  # fmt: skip
                parts.add(records)
                asked = as_asked(records, self.split)
                cycles.add(asked)
                found, known = aside.split(asked)
                doubted.append(found)
                add_legs(known, ledger.sums)
        custody.conclude()
        self._owners = custody.owners.tolist()
        return doubted

    def _judge_replay(self, ledger: Ledger, *, quiet: bool) -> None:
        self.audit.returned, self.audit.returned_minor = (int(sum_) for sum_ in ledger.returned)
        for name, which in (
            ("log_gap", GAP), ("log_repeat", REPEAT), ("overdraft", OVERDRAFT), ("dead_letter", DEAD_LETTER), ("alarm", ALARM),
            ("unlawful", UNLAWFUL), ("over_limit", OVER_LIMIT),
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
        self, acknowledged: NDArray[np.uint64], ledger: Ledger, aside: IdSet, unknown: int, *, quiet: bool
    ) -> None:
        differ = np.flatnonzero((acknowledged != ledger.sums).any(axis=1))
        if not len(differ) or (self.memory_only and not quiet):
            return  # without their closing sheets, nothing is left of nodes that kept all in memory
        if self.memory_only and unknown:
            self.audit.doubt(
                f"{unknown} transactions ended in doubt, and `durability: memory` leaves nothing to look them up in"
            )
            return
        if self.memory_only:
            self.audit.find("lost", count=len(differ))
            self.audit.reasons.append(
                f"`durability: memory` writes no journal: {len(differ)} of {BUCKETS} buckets differ, but nothing can be named"
            )
            return
        most = listed_buckets(self.audit.transactions)
        if len(differ) > most:
            self.audit.reasons.append(
                "more than could be listed is wrong: counts of lost, phantom, invented, altered, duplicated are at least these"
            )
        wanted = np.zeros(BUCKETS, np.bool_)
        wanted[differ[:most]] = True
        before = self._explained()
        self._list(wanted, aside, quiet=quiet)
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

    def _list(self, wanted: NDArray[np.bool_], aside: IdSet, *, quiet: bool) -> None:
        """Names what is wrong with each transaction of the buckets that differ."""
        nodes = len(list(self.journals.glob("node-*.journal")))
        rows = aside.split(_ends(self._select(read_history(self.run), wanted)))[1]
        records = aside.split(self._select(self._all_frames(nodes), wanted))[1]
        told, applied = _by_id(rows), _legs_by_id(records)
        missing = []
        for key in sorted(applied.keys() | told.keys()):
            name = wrong(told.get(key, []), applied.get(key, []))
            if name == "absent":
                missing.append(told[key][0])
            else:
                self._name(name, key, quiet=quiet)
        self._name_missing(missing, nodes)

    def _name(self, name: str, key: int, *, quiet: bool) -> None:
        """Notes what `wrong` found of a transaction that stands somewhere."""
        if name == "half" and not quiet:
            self.audit.in_transit += 1
        elif name == "dead_letter":
            self.dead_letters_listed += 1  # counted by the replay
        elif name:
            self.audit.find("torn" if name == "half" else name, key)

    def _judge_losses(
        self, losses: PowerLosses, rows: NDArray[np.void], doubted: list[NDArray[np.void]], nodes: int, *, quiet: bool
    ) -> None:
        """Transactions of which a power loss took a record: what they lost must be what the durability allows.

        What was asked again may stand at another place than its client was told, and then it is not lost.
        """
        audit = self.audit
        told, applied = _by_id(rows), _legs_by_id(losses.dropped.among(np.concatenate(doubted)))
        missing = []
        for key in losses.dropped.ids.tolist():
            name = wrong(told.get(key, []), applied.get(key, []))
            explained = losses.explain(told[key][0]) if name in ("absent", "phantom") else None
            if explained is None and name == "absent":
                missing.append(told[key][0])
            elif explained is None:
                self._name(name, key, quiet=quiet)
            else:
                taken, committed_ns, lawful = explained
                if not lawful:
                    audit.find("lost", key)
                if int(told[key][0]["status"]) == Status.OK and not (lawful and name == "phantom"):
                    taken.note(committed_ns, lawful=lawful)
        self._name_missing(missing, nodes)
        audit.lost_allowed = losses.lost_allowed
        if losses and self.memory_only:
            audit.lost_allowed = self.acknowledged
            audit.doubt(
                "the power was lost and `durability: memory` keeps nothing: all that was acknowledged is gone, as it allows"
            )
        audit.durability = {
            "mode": self.mode,
            "power_losses": [taken.to_dict() for taken in losses.taken],
            "lost_allowed": audit.lost_allowed,
            "lost_beyond": audit.anomalies["lost"],
        }

    def _name_missing(self, missing: list[Any], nodes: int) -> None:
        """An acknowledged transaction that is nowhere: phantom if something else stands at its position, else lost."""
        if not missing:
            return
        told = {int(row["id"]): place_of(row) for row in missing}
        wanted = np.array(sorted(set(told.values())), np.int64)
        taken: set[int] = set()
        for records in self._all_frames(nodes):
            at = places(records)
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
        for key, end in ends.items():
            if end == "half" and not quiet:
                self.audit.in_transit += 1
            elif end in ("half", "torn", "duplicated"):  # dead letters are counted by the replay
                self.audit.find("duplicated" if end == "duplicated" else "torn", key)
        if len(unknown):
            self.audit.reasons.append(
                f"{len(unknown)} transactions ended in doubt; the journals settle them: {len(applied)} were applied"
            )
        self._judge_undecided([key for key, end in ends.items() if end == "undecided"], quiet=quiet)

    def _judge_undecided(self, ids: list[int], *, quiet: bool) -> None:
        """Transfers that were begun and not decided: lawful only while a node that could decide them is missing."""
        self.audit.undecided = len(ids)
        if quiet:
            self.audit.find("undecided", *ids)
        if ids:
            self.audit.reasons.append(
                f"{len(ids)} of them are begun and not decided: their money is set aside "
                + ("for good: all is at rest" if quiet else "until they are")
            )


def listed_buckets(transactions: int) -> int:
    """How many buckets may be listed, so that the list has room in memory however long the run was: one at least."""
    return max(1, min(_LISTED_BUCKETS, _LISTED_TRANSACTIONS * BUCKETS // max(transactions, 1)))


def _ends(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The rows that tell how a transaction ended."""
    ends: NDArray[np.void] = rows[(rows["flags"] & (SECOND | ASKED)) == 0]
    return ends


def _add_sheets(ledger: Ledger, sheets: list[dict[str, Any] | None]) -> None:
    """Adds what nodes without a journal booked, as their closing sheets have it."""
    sums = ledger.sums
    for sheet in sheets:
        if sheet is not None:
            low_high = np.array(sheet["sums"], np.uint64)
            before = sums[:, 0].copy()
            sums[:, 0] += low_high[:, 0]
            sums[:, 1] += low_high[:, 1] + (sums[:, 0] < before)
            ledger.finds[ALARM] += sheet["alarms"]
            ledger.returned += sheet["returned"]


def _by_id(rows: NDArray[np.void]) -> dict[int, list[Any]]:
    told: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        told[int(row["id"])].append(row)
    return told


def _legs_by_id(records: NDArray[np.void]) -> dict[int, list[tuple[int, int, int]]]:
    """(leg, fingerprint, place) of each record by its transaction, refusals among them, without what is silent."""
    records = records[~np.isin(records["leg"], SILENT) | (records["leg"] == Leg.NONE)]
    prints = np.zeros(len(records), np.uint64)
    fingerprints(records, prints)
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for key, leg, print_, place in zip(
        records["id"].tolist(), records["leg"].tolist(), prints.tolist(), places(records).tolist(), strict=True
    ):
        found[key].append((leg, print_, place))
    return found


def audit_run(run: Path, observe: Callable[[Frames], None] | None = None, *, books: Books = Books.HERE) -> Audit:
    """Audits a run from its folder alone; `observe` is shown every frame once, for whoever measures something in passing.

    `books` says who keeps them: where the run does not, what clients were told is held against itself only.
    """
    return Auditor(run, observe).check() if books is Books.HERE else audit_clients(run, books)
