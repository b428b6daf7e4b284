"""The journal of one node: frames of booked legs, appended, synced in groups, and read back.

A frame is one commit: a header, then its records, under one checksum, so it is there entirely or not at all. Frames are
numbered from 1 without gaps. Reading stops at the first frame that is not whole; that is a torn tail (the last write before
a crash) if nothing valid follows, and damage if something does.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from simulator.errors import SimError
from simulator.shard.layout import FILE_HEADER, FILE_MAGIC, FRAME, FRAME_MAGIC, RECORD, Durability, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

VERSION = 1
_CHECKSUM_BYTES = 8
_HEADER = struct.Struct("<QIIQq")  # FRAME's fields, for reading one at a time
_STRETCH = 8 << 20  # bytes read at a time
_STRETCH_RECORDS = 1 << 18
_SCAN = 64 << 20  # how far behind a broken frame a sound one is looked for
_FRAME_RECORDS_MAX = 1 << 22  # a header that claims more is not a header; a node's turn makes far fewer
assert _HEADER.size == FRAME.itemsize  # noqa: S101  two descriptions of one layout


class JournalError(SimError):
    """A journal that cannot be read; the text says which file and where."""


def journal_path(folder: Path, node: int) -> Path:
    """Where a node keeps its journal within the run's folder."""
    return folder / f"node-{node}.journal"


def _sealed(header: NDArray[np.void], body: memoryview | bytes = b"") -> bytes:
    digest = xxhash.xxh3_64(header.tobytes()[_CHECKSUM_BYTES:])
    digest.update(body)
    header["checksum"] = digest.intdigest()
    return header.tobytes()


def _is_sealed(header: NDArray[np.void]) -> bool:
    return bool(header["checksum"][0] == xxhash.xxh3_64_intdigest(header.tobytes()[_CHECKSUM_BYTES:]))


class Journal:
    """Appends frames to a node's journal.

    An error while writing or syncing is final: the caller stops and never retries, because after a failed sync the kernel
    may have dropped the very pages that were not written (see `docs/design.md`).
    """

    def __init__(self, fd: int, durability: Durability, *, size: int, frames: int) -> None:
        self._fd = fd
        self._durability = durability
        self._frame = np.zeros(1, FRAME)
        self._frame["magic"] = FRAME_MAGIC
        self._frame["number"] = frames
        self.size = size

    @classmethod
    def create(cls, folder: Path, node: int, shape: Shape, durability: Durability, run: int) -> Journal:
        """A new journal. Raises OSError, FileExistsError among them."""
        header = np.zeros(1, FILE_HEADER)
        header["magic"] = FILE_MAGIC
        header["version"] = VERSION
        header["node"] = node
        header["nodes"] = shape.nodes
        header["shards"] = shape.shards
        header["accounts"] = shape.accounts
        header["customers"] = shape.customers
        header["opening_minor"] = shape.opening_minor
        header["durability"] = durability
        header["run"] = run
        fd = os.open(journal_path(folder, node), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        journal = cls(fd, durability, size=0, frames=0)
        journal._write([_sealed(header)])
        os.fsync(fd)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return journal

    @classmethod
    def resume(cls, reader: JournalReader, durability: Durability) -> Journal:
        """Goes on behind the last whole frame that `reader` (which must have been read to its end) found.

        A torn tail is cut off, and what was read is synced: it may have been written by a process that was killed before
        it could sync, and from here on it is built upon.
        """
        fd = os.open(reader.path, os.O_WRONLY | os.O_CLOEXEC)
        os.ftruncate(fd, reader.end)
        os.lseek(fd, reader.end, os.SEEK_SET)
        os.fdatasync(fd)
        return cls(fd, durability, size=reader.end, frames=reader.frames)

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return int(self._frame["number"][0])

    def append(self, records: NDArray[np.void], now_ns: int) -> int:
        """Writes one frame of `records` (RECORD, contiguous), not synced; returns its bytes. Raises OSError."""
        self._frame["number"] += 1
        self._frame["count"] = len(records)
        self._frame["committed_ns"] = now_ns
        body = records.view(np.uint8).data
        return self._write([_sealed(self._frame, body), body])

    def sync(self) -> None:
        """Makes all that was appended survive a power loss. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Syncs and closes."""
        if self._durability != Durability.MEMORY:
            os.fdatasync(self._fd)
        os.close(self._fd)

    def _write(self, parts: list[bytes | memoryview]) -> int:
        total = sum(len(part) for part in parts)
        written = os.writev(self._fd, parts)
        if written < total:
            # A short write is lawful (a nearly full disk); the rest either fits or raises.
            rest = b"".join(bytes(part) for part in parts)[written:]
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        self.size += total
        return total


def read_header(path: Path) -> Any:  # noqa: ANN401  one FILE_HEADER record; numpy's scalar records are untyped
    """The file header of a journal. Raises JournalError if it is not one."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_HEADER.itemsize)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
    header = np.frombuffer(raw, FILE_HEADER, 1) if len(raw) == FILE_HEADER.itemsize else np.zeros(1, FILE_HEADER)
    if header["magic"][0] != FILE_MAGIC or not _is_sealed(header):
        raise JournalError(f"{path}: not a journal, or its first {FILE_HEADER.itemsize} bytes are damaged")
    if header["version"][0] != VERSION:
        raise JournalError(
            f"{path}: written in version {header['version'][0]} of the format; this reads version {VERSION}"
        )
    return header[0]


class JournalReader:
    """Reads the frames of a journal in order, in bounded memory (one stretch of the file at a time).

    `start` and `frames` say where to begin: behind a snapshot, the byte and how many frames lie before it. After iteration
    `end` is the byte behind the last whole frame and `torn_bytes` how much follows it. Raises JournalError when a damaged
    frame is followed by a sound one: then the damage is not a torn tail, and nothing behind it can be trusted.
    """

    def __init__(self, path: Path, *, start: int = FILE_HEADER.itemsize, frames: int = 0) -> None:
        self.path = path
        self.header = read_header(path)
        self.frames = frames
        self.end = start
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yields (committed_ns, RECORD array) of each frame."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            stretch = b""
            while True:
                used = 0
                while (frame := self._frame(stretch, used)) is not None:
                    committed_ns, records = frame
                    size = FRAME.itemsize + records.nbytes
                    used += size
                    self.end += size
                    self.frames += 1
                    yield committed_ns, records
                stretch = stretch[used:]
                if not self._may_go_on(stretch):
                    break
                more = file.read(_STRETCH)
                if not more:
                    break
                stretch += more
            self.torn_bytes = self.path.stat().st_size - self.end
            if self.torn_bytes:
                self._judge_tail(stretch + file.read(_SCAN))

    def stretches(self) -> Iterator[NDArray[np.void]]:
        """The records of many frames at a time, up to about a quarter of a million."""
        held: list[NDArray[np.void]] = []
        size = 0
        for _, records in self:
            held.append(records)
            size += len(records)
            if size >= _STRETCH_RECORDS:
                yield np.concatenate(held)
                held, size = [], 0
        if held:
            yield np.concatenate(held)

    def _frame(self, stretch: bytes, at: int) -> tuple[int, NDArray[np.void]] | None:
        """The frame at this place, or None if no whole one with the next number stands there."""
        if at + FRAME.itemsize > len(stretch):
            return None
        checksum, magic, count, number, committed_ns = _HEADER.unpack_from(stretch, at)
        end = at + FRAME.itemsize + count * RECORD.itemsize
        if magic != FRAME_MAGIC or number != self.frames + 1 or end > len(stretch):
            return None
        if xxhash.xxh3_64_intdigest(memoryview(stretch)[at + _CHECKSUM_BYTES : end]) != checksum:
            return None
        return committed_ns, np.frombuffer(stretch, RECORD, count, at + FRAME.itemsize)

    @staticmethod
    def _may_go_on(rest: bytes) -> bool:
        """Whether a sound frame may begin here, of which only a part was read."""
        if len(rest) < FRAME.itemsize:
            return True
        _, magic, count, _, _ = _HEADER.unpack_from(rest)
        return bool(
            magic == FRAME_MAGIC
            and count <= _FRAME_RECORDS_MAX
            and len(rest) < FRAME.itemsize + count * RECORD.itemsize
        )

    def _judge_tail(self, rest: bytes) -> None:
        """A torn tail is lawful; damage in the middle, with something sound behind it, raises."""
        magic = FRAME_MAGIC.to_bytes(4, "little")
        found = rest.find(magic)
        while found >= 0:
            at = found - _CHECKSUM_BYTES
            if at >= 0 and at + FRAME.itemsize <= len(rest):
                checksum, _, count, number, _ = _HEADER.unpack_from(rest, at)
                end = at + FRAME.itemsize + count * RECORD.itemsize
                sealed = memoryview(rest)[at + _CHECKSUM_BYTES : end]
                if end <= len(rest) and xxhash.xxh3_64_intdigest(sealed) == checksum:
                    raise JournalError(
                        f"{self.path}: damaged at byte {self.end}, in frame {self.frames + 1}; "
                        f"a sound frame, number {number}, stands at byte {self.end + at}, so this is no torn tail"
                    )
            found = rest.find(magic, found + 1)
