"""Plants anomalies in a finished run: reads its books whole, and writes them again with sound checksums.

The seals, the renumbering and the closing sheets are made here from the file format alone, not by the simulator's own writer,
so that a bug there cannot hide itself.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from simulator.ledger.digest import fingerprint
from simulator.measure.recorder import ASKED, HISTORY, SECOND
from simulator.shard.layout import FILE_HEADER, FRAME, FRAME_MAGIC, RECORD, Leg
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FRAME_RECORDS = 64  # of the frames that are written again
# What clients are not told the position of.
ELSEWHERE = (
    Leg.CREDIT, Leg.EXPIRE, Leg.BEGIN, Leg.TRIED, Leg.REFUSED, Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED, Leg.PASSED,
    Leg.ALARM, Leg.SEND_BACK, Leg.TAKE_BACK,
)  # fmt: skip
_SEAL_BYTES = 8


@dataclass
class Books:
    """Everything an audit reads: of each node the header and the records, and what clients were told."""

    folder: Path
    headers: list[bytes]
    records: list[NDArray[np.void]]
    history: NDArray[np.void]

    @classmethod
    def copy(cls, run: Path, to: Path) -> Books:
        """Copies what an audit needs, and reads it."""
        to.mkdir()
        shutil.copytree(run / "journal", to / "journal")
        for name in ("history.bin", "summary.json"):
            shutil.copy(run / name, to / name)
        return cls.read(to)

    @classmethod
    def read(cls, run: Path) -> Books:
        """Reads a run's books; it must be a sound one."""
        nodes = len(list(run.glob("journal/node-*.journal")))
        raw = [(run / "journal" / f"node-{node}.journal").read_bytes() for node in range(nodes)]
        return cls(
            run,
            [journal[: FILE_HEADER.itemsize] for journal in raw],
            [_records(journal) for journal in raw],
            np.fromfile(run / "history.bin", HISTORY),
        )

    @property
    def header(self) -> Any:  # noqa: ANN401  one FILE_HEADER record
        """The header of the first journal."""
        return np.frombuffer(self.headers[0], FILE_HEADER)[0]

    def declare(self, **fields: int) -> None:
        """Changes what every header says, and seals it again."""
        for node, raw in enumerate(self.headers):
            header = np.frombuffer(raw, FILE_HEADER).copy()
            for name, value in fields.items():
                header[name] = value
            header["checksum"] = xxhash.xxh3_64_intdigest(header.tobytes()[_SEAL_BYTES:])
            self.headers[node] = header.tobytes()

    @property
    def shards(self) -> int:
        """How many shards the platform has."""
        return int(self.header["shards"])

    def places(self, key: int) -> list[tuple[int, int]]:
        """(node, position) of each record of a transaction."""
        return [(n, int(at)) for n, found in enumerate(self.records) for at in np.flatnonzero(found["id"] == key)]

    def some(self, leg: Leg, kind: Kind = Kind.PAYMENT, *, number: int = 100) -> int:
        """The id of a transaction that has such a leg: neither the first nor the last of its shard."""
        found = np.concatenate([r[(r["leg"] == leg) & (r["kind"] == kind)]["id"] for r in self.records])
        return int(found[number % len(found)])

    def drop(self, node: int, at: int) -> None:
        """Takes a record out."""
        self.records[node] = np.delete(self.records[node], at)

    def repeat(self, node: int, at: int) -> None:
        """Puts a record in a second time, right behind the first."""
        self.records[node] = np.insert(self.records[node], at, self.records[node][at])

    def append(self, record: NDArray[np.void]) -> None:
        """Puts a record at the end of its shard's log, at the position that is next there."""
        node = int(record["shard"][0]) % len(self.records)
        record["lsn"] = self.last_lsn(int(record["shard"][0])) + 1
        self.records[node] = np.concatenate([self.records[node], record])

    def last_lsn(self, shard: int) -> int:
        """The last position of a shard's log."""
        found = self.records[shard % len(self.records)]
        return int(found["lsn"][found["shard"] == shard].max(initial=0))

    def new_record(self, leg: Leg, kind: Kind, *, payer: int, payee: int, amount: int) -> NDArray[np.void]:
        """A record with an id that nobody has asked for; its position is given when it is put in."""
        record = np.zeros(1, RECORD)
        record["id"] = int(self.history["id"].max()) + 1_000
        record["leg"], record["kind"], record["amount_minor"] = leg, kind, amount
        record["payer"], record["payee"] = payer, payee
        record["shard"] = (payee if leg in (Leg.CREDIT, Leg.ALARM) else payer) % self.shards
        return record

    def book(self, leg: Leg, kind: Kind, *, payer: int, payee: int, amount: int, related: int = 0) -> int:
        """Puts a record at the end of its shard's log that was asked for and answered as it says: returns its id."""
        record = self.new_record(leg, kind, payer=payer, payee=payee, amount=amount)
        record["id"] = self.next_id()
        record["related"] = related
        self.append(record)
        self.tell_row(record, Status.REJECTED if leg == Leg.NONE else Status.OK)
        return int(record["id"][0])

    def refuse(self) -> int:
        """Books a refusal: returns its id."""
        return self.book(Leg.NONE, Kind.PAYMENT, payer=6, payee=7, amount=10**15)

    def next_id(self) -> int:
        """The id after the last one that was asked for."""
        return int(self.history["id"].max()) + 1

    def tell_row(self, record: NDArray[np.void], status: Status) -> None:
        """Adds the row of a client that was told `status` of what a record books, at its position."""
        row = np.zeros(1, HISTORY)
        r = record[0]
        asked = (r["id"], r["amount_minor"], r["related"], r["payer"], r["payee"], r["kind"])
        row["id"], row["fingerprint"] = r["id"], fingerprint(*asked)
        row["lsn"] = r["lsn"]
        row["shard"], row["status"], row["kind_reason"] = r["shard"], status, r["kind"]
        self.history = np.concatenate([self.history, row])

    def row(self, key: int) -> NDArray[np.void]:
        """A copy of what the client of a transaction was told."""
        found: NDArray[np.void] = self.history[self.history["id"] == key][:1].copy()
        return found

    def answer_again(self, key: int, **changed: int) -> None:
        """Adds a second answer to an id: what the first said, but for what is changed."""
        row = self.row(key)
        row["flags"], row["fingerprint"] = SECOND, 0
        row["kind_reason"] &= 0xF8
        for name, value in changed.items():
            row[name] = value
        self.history = np.concatenate([self.history, row])

    def look_up(self, about: int, *, payer: int, asked_at: int, **answer: int) -> int:
        """Adds a lookup asked when `asked_at` rows of the history were there; returns its id."""
        rows = np.zeros(2, HISTORY)
        rows["id"], rows["shard"], rows["kind_reason"] = self.next_id(), payer % self.shards, Kind.LOOKUP
        asked, answered = rows[:1], rows[1:]
        asked["fingerprint"], asked["lsn"], asked["flags"] = about, payer, ASKED
        for name, value in answer.items():
            answered[name] = value
        self.history = np.concatenate([self.history[:asked_at], asked, self.history[asked_at:], answered])
        return int(rows["id"][0])

    def record(self, key: int, *legs: Leg) -> Any:  # noqa: ANN401  one RECORD
        """The first record of a transaction that is one of these legs."""
        every = np.concatenate(self.records)
        return every[(every["id"] == key) & np.isin(every["leg"], legs)][0]

    def renumber(self) -> None:
        """Gives every shard positions 1, 2, 3 … in the order of its records, and tells clients so: no gap is left to see."""
        for found in self.records:
            for shard in np.unique(found["shard"]):
                mine = found["shard"] == shard
                found["lsn"][mine] = np.arange(1, int(mine.sum()) + 1)
        # A client is told the position of the leg at its home; the first one, if there are two.
        home = np.concatenate([found[~np.isin(found["leg"], ELSEWHERE)] for found in self.records])[::-1]
        told = dict(zip(home["id"].tolist(), home["lsn"].tolist(), strict=True))
        kept = zip(self.history["id"].tolist(), self.history["lsn"].tolist(), strict=True)
        self.history["lsn"] = [told.get(key, lsn) for key, lsn in kept]

    def tell(self, key: int, status: Status) -> None:
        """Changes what the client of a transaction was told."""
        self.history["status"][self.history["id"] == key] = status

    def set_header(self, **fields: int) -> None:
        """Changes what the journals say of the platform, and seals it."""
        for node, raw in enumerate(self.headers):
            header = np.frombuffer(raw, FILE_HEADER).copy()
            for name, value in fields.items():
                header[name] = value
            header["checksum"] = xxhash.xxh3_64_intdigest(header.tobytes()[_SEAL_BYTES:])
            self.headers[node] = header.tobytes()

    def save(self, *, sheets: bool = False) -> None:
        """Writes journals and history; `sheets`: also the closing sheets, as if the nodes' memory agreed with them."""
        for node, (header, found) in enumerate(zip(self.headers, self.records, strict=True)):
            parts = [found[at : at + FRAME_RECORDS] for at in range(0, len(found), FRAME_RECORDS)]
            frames = [_frame(number, part) for number, part in enumerate(parts, start=1)]
            self.journal(node).write_bytes(b"".join([header, *frames]))
        self.history.tofile(self.folder / "history.bin")
        if sheets:
            for node in range(len(self.records)):
                sheet = json.loads(self.sheet(node).read_text("utf-8"))
                sheet["shards"] = [self.sums(entry["shard"]) for entry in sheet["shards"]]
                self.sheet(node).write_text(json.dumps(sheet), "utf-8")

    def journal(self, node: int) -> Path:
        """The file of a node's journal."""
        return self.folder / "journal" / f"node-{node}.journal"

    def sheet(self, node: int) -> Path:
        """The file of a node's closing sheet."""
        return self.folder / "journal" / f"node-{node}.closing.json"

    def sums(self, shard: int) -> dict[str, Any]:
        """What the journal of a shard adds up to, in the words of a closing sheet."""
        every = self.records[shard % len(self.records)]
        mine = every[every["shard"] == shard]
        amount, leg = mine["amount_minor"], mine["leg"]
        out, into = np.zeros(self.shards, np.int64), np.zeros(self.shards, np.int64)
        leaves, arrives = np.isin(leg, (Leg.DEBIT, Leg.COMMIT)), np.isin(leg, (Leg.CREDIT, Leg.CONFIRMED))
        sent_back, taken_back = leg == Leg.SEND_BACK, leg == Leg.TAKE_BACK
        np.add.at(out, mine["payer"][sent_back] % self.shards, amount[sent_back])
        np.add.at(into, mine["payer"][sent_back] % self.shards, amount[sent_back])
        np.add.at(into, mine["payee"][taken_back] % self.shards, amount[taken_back])
        np.add.at(out, mine["payee"][leaves] % self.shards, amount[leaves])
        np.add.at(into, mine["payer"][arrives] % self.shards, amount[arrives])
        taken = (leg == Leg.TRANSFER) | leaves
        post = mine["kind"] == Kind.POST
        settled = taken & (post | (leg == Leg.COMMIT))  # from what was reserved
        held = (leg == Leg.RESERVE) | ((leg == Leg.BEGIN) & ~post)
        freed = np.isin(leg, (Leg.RELEASE, Leg.EXPIRE)) | ((leg == Leg.ABORT) & ~post)
        customers = len(range(shard, int(self.header["customers"]), self.shards))
        available = customers * int(self.header["opening_minor"])
        available += _sum(amount, arrives | (leg == Leg.TRANSFER)) - _sum(amount, taken & ~settled)
        available += _sum(amount, freed) - _sum(amount, held) + _sum(amount, taken_back)
        return {
            "shard": shard,
            "lsn": int(mine["lsn"].max(initial=0)),
            "available_minor": available,
            "reserved_minor": _sum(amount, held) - _sum(amount, freed) - _sum(amount, settled),
            "transit_out_minor": out.tolist(),
            "transit_in_minor": into.tolist(),
        }


def _sum(amount: NDArray[np.int64], mask: NDArray[np.bool_]) -> int:
    return int(amount[mask].sum())


def _records(journal: bytes) -> NDArray[np.void]:
    """The records of a journal that is known to be sound, seals unseen."""
    found = []
    at = FILE_HEADER.itemsize
    while at < len(journal):
        count = int(np.frombuffer(journal, FRAME, 1, at)["count"][0])
        found.append(np.frombuffer(journal, RECORD, count, at + FRAME.itemsize))
        at += FRAME.itemsize + count * RECORD.itemsize
    return np.concatenate(found) if found else np.zeros(0, RECORD)


def _frame(number: int, records: NDArray[np.void]) -> bytes:
    header = np.zeros(1, FRAME)
    header["magic"], header["number"], header["count"] = FRAME_MAGIC, number, len(records)
    body = records.tobytes()
    header["checksum"] = xxhash.xxh3_64_intdigest(header.tobytes()[_SEAL_BYTES:] + body)
    return header.tobytes() + body
