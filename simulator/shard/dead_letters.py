"""The dead-letter file of a node: one line of JSON for each operation that could not be booked, try after try.

It is for people. What counts stands in the journal, which has a record for each (`Reason.POISON`): the line is written after
that record is as durable as asked, and one that a crash has prevented is written by the restart, from the journal. The file is
bounded in lines and in bytes; beyond, dead letters are only counted, and so is a line that finds no room on the disk.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from simulator.shard.layout import Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from pathlib import Path

BYTES_MAX = 8 << 20
_WHY_MAX = 200  # characters of a reason
_LINE_MAX = 2_048  # bytes: more than a line with the longest reason takes
LOST_LINE = "its line was lost when the node stopped; this one was written from the journal"


def dead_letters_path(folder: Path, node: int) -> Path:
    """Where a node keeps its dead letters within the folder of the journals."""
    return folder / f"node-{node}.dead-letters.jsonl"


def letter(message: Any, *, what: str, lsn: int, shard: int, t_ns: int, tries: int | None, why: str) -> dict[str, Any]:  # noqa: ANN401  one TRANSACTION or RECORD
    """A dead letter; `what` is request, far_leg or expiry. `lsn` 0: nothing was logged; `tries` None: not known any more."""
    kind = int(message["kind"])
    return {
        "id": int(message["id"]),
        "what": what,
        "kind": Kind(kind).name.lower() if kind in set(Kind) else kind,
        "payer": int(message["payer"]),
        "payee": int(message["payee"]),
        "amount_minor": int(message["amount_minor"]),
        "related": int(message["related"]),
        "reason": "".join(c if c.isprintable() else " " for c in why)[:_WHY_MAX],
        "tries": tries,
        "shard": shard,
        "lsn": lsn,
        "t_s": round(t_ns / 1e9, 6),
    }


class DeadLetters:
    """Appends to one node's file, which is made with the first letter, and goes on with one that is there.

    `lines_max` bounds the lines, `bytes_max` the bytes of the file, over all lives of the node.
    """

    def __init__(self, path: Path, *, lines_max: int, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._fd = -1
        self._known: set[tuple[int, int, int]] = set()  # (shard, lsn, id)
        self.lines = 0
        self.size = 0
        with suppress(FileNotFoundError):
            self._take_up(path.read_bytes())

    def _take_up(self, raw: bytes) -> None:
        """Counts what is there; a last line that is not whole is cut off."""
        self.size = raw.rfind(b"\n") + 1
        if self.size < len(raw):
            os.truncate(self._path, self.size)
        for line in raw[: self.size].splitlines():
            self.lines += 1
            with suppress(ValueError, KeyError, TypeError):
                found = json.loads(line)
                self._known.add((found["shard"], found["lsn"], found["id"]))

    def knows(self, shard: int, lsn: int, key: int) -> bool:
        """Whether a line for this transaction at this position was there when the file was opened."""
        return (shard, lsn, key) in self._known

    def drop_beyond(self, last: dict[int, int]) -> None:
        """Takes away the lines of positions beyond the `last` of their shard; what is not there is left as it is.

        A line is written when its record is as durable as asked, which may be less than synced: a power loss takes the record
        and leaves the line, and the position is given to something else.
        """
        if all(lsn <= last.get(shard, lsn) for shard, lsn, _ in self._known):
            return
        kept = []
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                found = json.loads(line)
                keep = found["lsn"] <= last.get(found["shard"], found["lsn"])
            except (ValueError, KeyError, TypeError):
                keep = True  # whatever it is, it is not ours to judge
            if keep:
                kept.append(line)
        self.close()
        unfinished = self._path.with_name(f"{self._path.name}.part")
        with suppress(OSError):  # a full disk: stale lines are for people only, and what counts stands in the journal
            unfinished.write_bytes(b"".join(kept))
            unfinished.rename(self._path)
            self.lines, self.size = len(kept), sum(map(len, kept))

    @property
    def full(self) -> bool:
        """Whether it is at its bound: then what is not in it may have been left out."""
        return self.lines >= self._lines_max or self.size + _LINE_MAX > self._bytes_max

    def write(self, letter: dict[str, Any]) -> bool:
        """Appends a line; False if the file is at its bound or the disk is full."""
        if self.full:
            return False
        line = json.dumps(letter, separators=(",", ":")).encode() + b"\n"
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, self.size)  # half a line helps nobody
                return False
        except OSError:
            return False
        self.lines += 1
        self.size += len(line)
        return True

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# Records with Reason.POISON that say of an operation that it has died. (An ABORT says of its try that it did.)
DEAD_LEGS = (Leg.NONE, Leg.DEAD, Leg.REFUSED, Leg.ALARM)


def what_of(record: Any) -> str:  # noqa: ANN401  one RECORD
    """What a record with Reason.POISON says has died."""
    return "request" if int(record["leg"]) == Leg.NONE else "far_leg"
