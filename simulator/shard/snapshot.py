"""Snapshots of a node's books: what bounds how much of the journal a restart must replay.

A snapshot is written by a forked copy of the node, whose memory stands still while the node itself goes on; the kernel copies
only the pages that the node touches meanwhile. It becomes the node's snapshot by a rename, after the journal up to its point
and then the file itself were synced. So there is always at most one, and it is whole. One that fails to be written (a full
disk) is no loss: the one before, or none, and a longer replay.

    header   64 bytes: checksum (xxh3-64 of all that follows), magic, version, journal bytes and frames at that point, size, node,
             where the last of those frames begins and its checksum
    books    every array of `Books`, raw; of shards that are not owned nothing, of `entries` only the rows in use
    outbox   count and messages (TRANSACTION) for each peer that had not acknowledged them
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from simulator.ledger.books import BY_ACCOUNT, BY_PLACE, BY_SHARD, rows_of
from simulator.shard.journal import checksum_at
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.ledger.books import Books

_HEADER = np.dtype(
    [
        ("checksum", "<u8"),
        ("magic", "<u8"),
        ("version", "<u4"),
        ("node", "<u4"),
        ("journal_bytes", "<u8"),
        ("journal_frames", "<u8"),
        ("payload_bytes", "<u8"),
        ("last_at", "<u8"),
        ("last_checksum", "<u8"),
    ]
)
_MAGIC = 0x5350414E53_4D4953  # "SIMSNAPS"
_VERSION = 3
assert _HEADER.itemsize == 64, _HEADER.itemsize  # noqa: PLR2004, S101  an on-disk format


class Point(NamedTuple):
    """Where in the journal a snapshot stands, and which journal that is: one that a power loss cut may have grown again."""

    journal_bytes: int
    journal_frames: int
    last_at: int = 0  # where the last of these frames begins; 0: there is none, and what counts is the file header
    last_checksum: int = 0


def snapshot_path(folder: Path, node: int) -> Path:
    """Where a node keeps its snapshot within the folder of the journals."""
    return folder / f"node-{node}.snapshot"


def _parts(books: Books) -> Iterator[NDArray[Any]]:
    """The arrays of some books, in order; of the entries only those in use, and nothing of shards that are not owned.

    Counts and places come first: what follows depends on them, also while it is being filled.
    """
    yield books.used
    yield books.base
    yield books.place
    owned = [int(shard) for shard in np.flatnonzero(books.place >= 0)]
    for name in BY_ACCOUNT:
        for shard in owned:
            yield getattr(books, name)[rows_of(books, shard)]
    for shard in owned:
        place = int(books.place[shard])
        for generation in range(2):
            yield books.entries[place, generation, : books.used[place, generation]]
        for name in BY_PLACE:
            if name not in ("entries", "used"):
                yield getattr(books, name)[place : place + 1]
    for name in (*BY_SHARD, "undecided", "incoming", "owner", "now_ns"):
        yield getattr(books, name)


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write(path: Path, node: int, books: Books, outbox: list[NDArray[Any]], point: Point, journal_fd: int) -> None:
    """Writes a snapshot in place of the one before. `outbox` has, for each peer, what is not acknowledged. Raises OSError."""
    parts = [_raw(part) for part in _parts(books)]
    for messages in outbox:
        parts += [_raw(np.array([len(messages)], np.int64)), _raw(messages)]
    header = np.zeros(1, _HEADER)
    header["magic"], header["version"], header["node"] = _MAGIC, _VERSION, node
    header["journal_bytes"], header["journal_frames"], header["last_at"], header["last_checksum"] = point
    header["payload_bytes"] = sum(len(part) for part in parts)
    digest = xxhash.xxh3_64(header.tobytes()[8:])
    for part in parts:
        digest.update(part)
    header["checksum"] = digest.intdigest()
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        file.write(header.tobytes())
        for part in parts:
            file.write(part)
        file.flush()
        os.fdatasync(journal_fd)  # a snapshot must not know more than the journal on the disk
        os.fsync(file.fileno())
    unfinished.rename(path)


def _is_of(header: Any, journal: Path) -> bool:  # noqa: ANN401  one _HEADER record
    """Whether the journal still has what it had when the snapshot was written. A longer one may be of another course of things.

    A power loss may cut a journal below its snapshot (whose writer was in the middle of it), and then it grows again.
    """
    return bool(
        header["journal_bytes"] <= journal.stat().st_size
        and checksum_at(journal, int(header["last_at"])) == header["last_checksum"]
    )


def synced_bytes(path: Path, journal: Path) -> int:
    """How much of its journal was synced for a snapshot's sake; 0 if there is none that is whole, and of this journal."""
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER.itemsize)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return 0
    if len(raw) < _HEADER.itemsize:
        return 0
    header = np.frombuffer(raw, _HEADER, 1)[0]
    whole = (
        header["magic"] == _MAGIC
        and header["version"] == _VERSION
        and header["payload_bytes"] == size - _HEADER.itemsize
        and _is_of(header, journal)
    )
    return int(header["journal_bytes"]) if whole else 0


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def into(self, array: NDArray[Any]) -> None:
        """Fills an array with what comes next."""
        found = np.frombuffer(self._payload, array.dtype, array.size, self._at)
        array[...] = found.reshape(array.shape)
        self._at += array.nbytes

    def messages(self) -> NDArray[Any]:
        count = int(np.frombuffer(self._payload, np.int64, 1, self._at)[0])
        found = np.frombuffer(
            self._payload, TRANSACTION, count, self._at + 8
        ).copy()  # or kernels would see another type
        self._at += 8 + found.nbytes
        return found


def read(path: Path, node: int, books: Books, peers: int, journal: Path) -> tuple[Point, list[NDArray[Any]]] | None:
    """Fills fresh `books` from a snapshot and returns its point and outboxes.

    None, with the books untouched, if there is none that is whole, no newer than the journal, and of this journal. Such a one
    must be thrown away (`discard`) before the journal grows.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if len(raw) < _HEADER.itemsize:
        return None
    header = np.frombuffer(raw, _HEADER, 1)[0]
    sound = (
        header["magic"] == _MAGIC
        and header["version"] == _VERSION
        and header["node"] == node
        and header["payload_bytes"] == len(raw) - _HEADER.itemsize
        and _is_of(header, journal)
        and header["checksum"] == xxhash.xxh3_64_intdigest(memoryview(raw)[8:])
    )
    if not sound:
        return None
    reader = _Reader(raw[_HEADER.itemsize :])
    for part in _parts(books):
        reader.into(part)
    outbox = [reader.messages() for _ in range(peers)]
    point = Point(*(int(header[name]) for name in ("journal_bytes", "journal_frames", "last_at", "last_checksum")))
    return point, outbox


def discard(path: Path) -> None:
    """Takes away a snapshot that `read` did not accept, so that nothing is ever built upon it. Raises OSError."""
    path.unlink(missing_ok=True)
