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

from simulator.measure.recorder import HISTORY
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
