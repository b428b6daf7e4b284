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
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.kernel import inlined, kernel
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.ledger.digest import BUCKETS, add_acknowledged, add_legs, bucket_of, fingerprint, position
from simulator.measure.recorder import HISTORY, REORDERED
from simulator.seeds import mix
from simulator.shard.journal import JournalError, JournalReader, journal_path
from simulator.shard.layout import RECORD, Durability, Leg
from simulator.shard.worker import closing_path
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

EXAMPLES = 20  # ids named for each anomaly
_LISTED_BUCKETS = 256  # more than that, and the list is a sample: the counts say "at least"
_CHUNK_ROWS = 1 << 20

_TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE, _EXPIRE = (
    int(leg) for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_POST = int(Kind.POST)
_AVAILABLE, _RESERVED = AVAILABLE, RESERVED

ANOMALIES = {
    "lost": "acknowledged, and its place in the log is gone",
    "phantom": "acknowledged, but its place in the log holds something else",
    "invented": "applied, though nobody asked for it",
    "altered": "applied with other parties, amount or kind than asked for",
    "failed_but_applied": "the client was told that it did not happen",
    "duplicated": "applied more than once",
    "torn": "one side applied without the other, or a transit account that is not level at rest",
    "overdraft": "an account below zero",
    "log_gap": "positions missing from a shard's log",
    "log_repeat": "positions that a shard's log holds twice, or out of order",
    "not_conserved": "a shard's books at the end differ from what its journal adds up to",
    "reordered": "answered at a log position that was already acknowledged when it was asked",
    "idempotency": "one id, two answers to its client",
    "unexplained": "what was acknowledged and what was applied differ in sum, though no single transaction shows why",
    "damaged": "a journal that cannot be read to its end",
}


@dataclass
class Audit:
    """What the auditor found."""

    anomalies: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reasons: list[str] = field(default_factory=list)  # why the verdict is unknown, and what a human should know
    doubts: int = 0  # how many of the reasons stand in the way of a verdict
    conservation_minor: int = 0
    transactions: int = 0
    records: int = 0
    shards: int = 0
    unknown_applied: int = 0
    in_transit: int = 0

    @property
    def verdict(self) -> str:
        """clean, anomalies or unknown."""
        if self.anomalies.total():
            return "anomalies"
        return "unknown" if self.doubts else "clean"

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
            "anomalies": {name: count for name, count in sorted(self.anomalies.items()) if count},
            "conservation_minor": self.conservation_minor,
            "checked": {"transactions": self.transactions, "records": self.records, "shards": self.shards},
            "unknown_but_applied": self.unknown_applied,
            "in_transit": self.in_transit,
            "examples": {name: ids for name, ids in sorted(self.examples.items()) if ids},
            "looked_for": ANOMALIES,
            "reasons": self.reasons,
        }


@dataclass
class _Ledger:
    """What a replay adds up to."""

    accounts: NDArray[np.int64]  # (accounts, 2)
    lsn: NDArray[np.int64]  # (shards,)
    transit_out: NDArray[np.int64]  # (shards, shards) [near, far]
    transit_in: NDArray[np.int64]  # (shards, shards) [far, near]
    sums: NDArray[np.uint64]
    finds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    example_ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((4, EXAMPLES), np.uint64))


_GAP, _REPEAT, _OVERDRAFT, _ASTRAY = 0, 1, 2, 3


@inlined
def note_example(examples: NDArray[np.uint64], which: int, key: np.uint64) -> None:
    """Keeps the first ids of each find, each once."""
    for k in range(examples.shape[1]):
        if examples[which, k] == 0 or examples[which, k] == key:
            examples[which, k] = key
            break


@kernel
def replay(  # noqa: C901, PLR0912  a kernel is long but straight
    records: NDArray[np.void], accounts: NDArray[np.int64], lsn: NDArray[np.int64], transit_out: NDArray[np.int64],
    transit_in: NDArray[np.int64], finds: NDArray[np.int64], examples: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Books every record on `accounts`; counts gaps, repeats, overdrafts and records in the wrong shard or for no account."""
    shards = lsn.shape[0]
    for i in range(records.shape[0]):
        r = records[i]
        shard = np.int64(r["shard"])
        position = np.int64(r["lsn"])
        payer = np.int64(r["payer"])
        payee = np.int64(r["payee"])
        leg = np.int64(r["leg"])
        found = -1
        if shard >= shards:
            finds[_ASTRAY] += 1
            note_example(examples, _ASTRAY, r["id"])
            continue
        if position > lsn[shard] + 1:
            found = _GAP
            finds[_GAP] += position - lsn[shard] - 1
        elif position <= lsn[shard]:
            found = _REPEAT
            finds[_REPEAT] += 1
        if found >= 0:
            note_example(examples, found, r["id"])
        lsn[shard] = max(lsn[shard], position)
        if leg == 0:
            continue
        near = payer % shards
        far = payee % shards
        here = far if leg == _CREDIT else near
        if (
            r["amount_minor"] <= 0
            or here != shard
            or (leg == _TRANSFER and near != far)
            or payer >= accounts.shape[0]
            or payee >= accounts.shape[0]
        ):
            finds[_ASTRAY] += 1
            note_example(examples, _ASTRAY, r["id"])
            continue
        amount = r["amount_minor"]
        if leg == _TRANSFER or leg == _DEBIT:
            accounts[payer, _RESERVED if r["kind"] == _POST else _AVAILABLE] -= amount
        elif leg == _RESERVE:
            accounts[payer, _AVAILABLE] -= amount
            accounts[payer, _RESERVED] += amount
        elif leg == _RELEASE or leg == _EXPIRE:
            accounts[payer, _RESERVED] -= amount
            accounts[payer, _AVAILABLE] += amount
        if leg == _TRANSFER or leg == _CREDIT:
            accounts[payee, _AVAILABLE] += amount
        if leg == _DEBIT:
            transit_out[near, far] += amount
        if leg == _CREDIT:
            transit_in[far, near] += amount
        if leg != _CREDIT and (accounts[payer, _AVAILABLE] < 0 or accounts[payer, _RESERVED] < 0):
            finds[_OVERDRAFT] += 1
            note_example(examples, _OVERDRAFT, r["id"])


@kernel
def add_history(
    rows: NDArray[np.void], ok: int, sums: NDArray[np.uint64], statuses: NDArray[np.int64], ids: NDArray[np.uint64]
) -> None:
    """Adds the sides that the acknowledged rows must have to `sums`; counts rows by status, sums their hashed ids."""
    for i in range(rows.shape[0]):
        row = rows[i]
        statuses[row["status"]] += 1
        ids[0] += mix(row["id"])
        if row["status"] == ok:
            add_acknowledged(
                sums, row["id"], row["fingerprint"], row["kind_reason"] & 7, position(row["shard"], row["lsn"])
            )


@kernel
def sum_of_ids(count: int) -> np.uint64:
    """The sum of the hashed ids 1 … count, mod 2⁶⁴."""
    total = np.uint64(0)
    for i in range(1, count + 1):
        total += mix(np.uint64(i))
    return total


@kernel
def in_buckets(ids: NDArray[np.uint64], wanted: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """out[i]: whether ids[i] falls into a wanted bucket."""
    for i in range(ids.shape[0]):
        out[i] = wanted[bucket_of(ids[i])]


@kernel
def fingerprints(records: NDArray[np.void], out: NDArray[np.uint64]) -> None:
    """The fingerprint of what each record booked."""
    for i in range(records.shape[0]):
        r = records[i]
        out[i] = fingerprint(r["id"], r["amount_minor"], r["related"], r["payer"], r["payee"], r["kind"])


def history_path(run: Path) -> Path:
    """Where a run keeps how each transaction ended."""
    return run / "history.bin"


def history_rest_path(run: Path) -> Path:
    """Where the rows are that found no room there; most runs have no such file."""
    return run / "history-rest.bin"


def read_history(run: Path) -> Iterator[NDArray[np.void]]:
    """The history in chunks."""
    for path in (history_path(run), history_rest_path(run)):
        if path.exists():
            with path.open("rb") as file:
                while raw := file.read(_CHUNK_ROWS * HISTORY.itemsize):
                    yield np.frombuffer(raw[: len(raw) - len(raw) % HISTORY.itemsize], HISTORY)


class Auditor:
    """Audits one run's folder."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.journals = run / "journal"
        self.audit = Audit()
        self.memory_only = False

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
        ledger = _Ledger(
            accounts, np.zeros(shards, np.int64), np.zeros((shards, shards), np.int64),
            np.zeros((shards, shards), np.int64), np.zeros((BUCKETS, 2), np.uint64),
        )  # fmt: skip
        acknowledged, unknown = self._read_history()
        sheets = self._sheets(len(nodes))
        quiet = all(sheet is not None for sheet in sheets)
        doubted = self._replay(ledger, unknown, len(nodes))
        if self.memory_only:
            for sheet in sheets:
                if sheet is not None:
                    low_high = np.array(sheet["sums"], np.uint64)
                    before = ledger.sums[:, 0].copy()
                    ledger.sums[:, 0] += low_high[:, 0]
                    ledger.sums[:, 1] += low_high[:, 1] + (ledger.sums[:, 0] < before)
        self._judge_replay(ledger, quiet=quiet)
        self._judge_sheets(ledger, sheets, int(header["opening_minor"]) * int(header["customers"]))
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
        names = ("nodes", "shards", "accounts", "customers", "opening_minor", "durability", "run")
        if any(header[name] != headers[0][name] for header in headers for name in names):
            self.audit.doubt("the journals are not of one run: their headers differ")
            return None
        if len(headers) != int(headers[0]["nodes"]):
            self.audit.doubt(f"{int(headers[0]['nodes'])} nodes took part, but only {len(headers)} journals are here")
            return None
        self.memory_only = int(headers[0]["durability"]) == Durability.MEMORY
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
        """The records of a node's journal, several frames at a time; damage is counted and ends it."""
        reader = JournalReader(journal_path(self.journals, node))
        try:
            yield from reader.stretches()
        except JournalError as error:
            if str(error) not in self.audit.reasons:  # it is read more than once
                self.audit.find("damaged", count=1)
                self.audit.reasons.append(str(error))
            return
        note = f"node {node}'s journal ends in a torn write of {reader.torn_bytes} bytes, which was passed over"
        if reader.torn_bytes and note not in self.audit.reasons:
            self.audit.reasons.append(note)

    def _replay(self, ledger: _Ledger, unknown: dict[int, int], nodes: int) -> list[NDArray[np.void]]:
        """Replays every journal; returns the records of transactions in doubt, which the digest leaves out."""
        doubted = []
        unknown_ids = np.array(sorted(unknown), np.uint64)
        for node in range(nodes):
            for records in self._frames(node):
                self.audit.records += len(records)
                replay(
                    records, ledger.accounts, ledger.lsn, ledger.transit_out, ledger.transit_in, ledger.finds,
                    ledger.example_ids,
                )  # fmt: skip
                known = records
                if unknown:
                    mask = np.isin(records["id"], unknown_ids)
                    doubted.append(records[mask])
                    known = records[~mask]
                add_legs(known, ledger.sums)
        return doubted

    def _judge_replay(self, ledger: _Ledger, *, quiet: bool) -> None:
        for name, which in (("log_gap", _GAP), ("log_repeat", _REPEAT), ("overdraft", _OVERDRAFT)):
            if ledger.finds[which]:
                ids = ledger.example_ids[which]
                self.audit.find(name, *ids[ids > 0], count=int(ledger.finds[which]))
        if ledger.finds[_ASTRAY]:
            ids = ledger.example_ids[_ASTRAY]
            self.audit.find("invented", *ids[ids > 0], count=int(ledger.finds[_ASTRAY]))
            self.audit.reasons.append(
                f"{int(ledger.finds[_ASTRAY])} records book on an account that their shard does not have"
            )
        level = ledger.transit_out == ledger.transit_in.T
        if quiet and not level.all():
            for near, far in np.argwhere(~level):
                difference = int(ledger.transit_out[near, far] - ledger.transit_in[far, near])
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

    def _judge_sheets(self, ledger: _Ledger, sheets: list[dict[str, Any] | None], opening: int) -> None:
        """The nodes' own memory against the replay, and the sum of everything against the opening."""
        shards = len(ledger.lsn)
        held = 0
        for sheet in sheets:
            if sheet is None:
                continue
            for shard in sheet["shards"]:
                s = shard["shard"]
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
        self, acknowledged: NDArray[np.uint64], ledger: _Ledger, unknown: dict[int, int], *, quiet: bool
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
        before = self.audit.anomalies.total() + self.audit.in_transit
        self._list(wanted, unknown, quiet=quiet)
        if self.audit.anomalies.total() + self.audit.in_transit == before:
            self.audit.find("unexplained", count=len(differ))

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
        records = records[(records["leg"] != Leg.NONE) & (records["leg"] != _EXPIRE) & ~doubted]
        prints = np.zeros(len(records), np.uint64)
        fingerprints(records, prints)
        applied: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        places = _places(records).tolist()
        for key, *leg in zip(records["id"].tolist(), records["leg"].tolist(), prints.tolist(), places, strict=True):
            applied[key].append((leg[0], leg[1], leg[2]))
        told: dict[int, list[Any]] = defaultdict(list)
        for row in rows:
            told[int(row["id"])].append(row)
        missing = []
        for key in sorted(applied.keys() | told.keys()):
            name = _wrong(told.get(key, []), applied.get(key, []))
            if name == "half" and not quiet:
                self.audit.in_transit += 1
            elif name == "half":
                self.audit.find("torn", key)
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
                at = _places(records)
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
                if leg not in (Leg.NONE, _EXPIRE):
                    legs[key].append(leg)
                    if print_ != unknown[key]:
                        altered.add(key)
        self.audit.find("altered", *sorted(altered))
        self.audit.unknown_applied = len(legs)
        for key, found in legs.items():
            sides = sorted(found)
            if sides in ([_TRANSFER], [_DEBIT, _CREDIT], [_RESERVE], [_RELEASE]):
                continue
            if sides == [_DEBIT] and not quiet:
                self.audit.in_transit += 1
            else:
                self.audit.find("duplicated" if len(set(sides)) < len(sides) else "torn", key)
        if len(unknown):
            self.audit.reasons.append(
                f"{len(unknown)} transactions ended in doubt; the journals settle them: {len(legs)} were applied"
            )


def _places(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """The place in a shard's log of each history row or record, as one number."""
    places: NDArray[np.int64] = (rows["shard"].astype(np.int64) << 32) | rows["lsn"].astype(np.int64)
    return places


def _wrong(rows: list[Any], legs: list[tuple[int, int, int]]) -> str:  # noqa: C901, PLR0911  a table
    """What is wrong with one transaction, of which `legs` (leg, fingerprint, place) were applied.

    "" if nothing, "half" for a debit without its credit, "absent" for none at all.
    """
    if not rows:
        return "invented"
    if len(rows) > 1:
        return "idempotency"
    row = rows[0]
    if int(row["kind_reason"]) & 7 == Kind.LOOKUP:
        return "invented" if legs else ""
    status = int(row["status"])
    if status != Status.OK:
        return "failed_but_applied" if legs and status != Status.UNKNOWN else ""
    kinds = sorted(leg for leg, _, _ in legs)
    if not kinds:
        return "absent"
    if len(set(kinds)) < len(kinds) or (_TRANSFER in kinds and len(kinds) > 1):
        return "duplicated"
    if any(print_ != int(row["fingerprint"]) for _, print_, _ in legs):
        return "altered"
    if kinds == [_DEBIT]:
        return "half"
    kind = int(row["kind_reason"]) & 7
    lawful: list[list[int]] = [[_TRANSFER], [_DEBIT, _CREDIT]]
    if kind == Kind.AUTHORIZE:
        lawful = [[_RESERVE]]
    elif kind == Kind.VOID:
        lawful = [[_RELEASE]]
    if kinds not in lawful:
        return "torn"
    told = (int(row["shard"]) << 32) | int(row["lsn"])
    return "" if all(place == told for leg, _, place in legs if leg != _CREDIT) else "phantom"


def audit_run(run: Path) -> Audit:
    """Audits a run from its folder alone."""
    return Auditor(run).check()
