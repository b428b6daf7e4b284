"""The journal of one node: frames of booked legs, appended, synced in groups, and read back.

A frame is one commit: a header, then its records, under one checksum, so it is there entirely or not at all. Frames are
numbered from 1 without gaps. Reading stops at the first frame that is not whole; that is a torn tail (the last write before
a crash) if nothing valid follows, and damage if something does.
"""

from __future__ import annotations

import os
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
_FRAME_RECORDS_MAX = 1 << 24  # a header that claims more is not a header


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


def _is_sealed(header: NDArray[np.void], body: memoryview | bytes = b"") -> bool:
    digest = xxhash.xxh3_64(header.tobytes()[_CHECKSUM_BYTES:])
    digest.update(body)
    return bool(header["checksum"][0] == digest.intdigest())


class Journal:
    """Appends frames to a node's journal.

    An error while writing or syncing is final: the caller stops and never retries, because after a failed sync the kernel
    may have dropped the very pages that were not written (see `docs/design.md`).
    """

    def __init__(self, folder: Path, node: int, shape: Shape, durability: Durability, run: int) -> None:
        self._durability = durability
        self._frame = np.zeros(1, FRAME)
        self._frame["magic"] = FRAME_MAGIC
        self._fd = os.open(journal_path(folder, node), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
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
        self._write([_sealed(header)])
        os.fsync(self._fd)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

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
        return total


def read_header(path: Path) -> Any:  # noqa: ANN401  one FILE_HEADER record; numpy's scalar records are untyped
    """The file header of a journal. Raises JournalError if it is not one."""
    try:
        raw = path.open("rb").read(FILE_HEADER.itemsize)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
    header = np.frombuffer(raw, FILE_HEADER, 1) if len(raw) == FILE_HEADER.itemsize else np.zeros(1, FILE_HEADER)
    if header["magic"][0] != FILE_MAGIC or not _is_sealed(header):
        raise JournalError(f"{path}: not a journal, or its first {FILE_HEADER.itemsize} bytes are damaged")
    return header[0]


class JournalReader:
    """Reads the frames of a journal in order, in bounded memory (one frame at a time).

    After iteration `torn_bytes` says how much of the tail was not a whole frame. Raises JournalError when a damaged frame
    is followed by a sound one: then the damage is not a torn tail, and nothing behind it can be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        self.torn_bytes = 0
        self.frames = 0

    def __iter__(self) -> Iterator[tuple[Any, NDArray[np.void]]]:
        """Yields (FRAME record, RECORD array)."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            offset = file.seek(FILE_HEADER.itemsize)
            while offset < size:
                header = np.frombuffer(file.read(FRAME.itemsize).ljust(FRAME.itemsize, b"\0"), FRAME, 1)
                count = int(header["count"][0])
                sound = header["magic"][0] == FRAME_MAGIC and count <= _FRAME_RECORDS_MAX
                body = file.read(count * RECORD.itemsize) if sound else b""
                if (
                    not sound
                    or len(body) < count * RECORD.itemsize
                    or header["number"][0] != self.frames + 1
                    or not _is_sealed(header, body)
                ):
                    self._judge_tail(offset, size)
                    return
                self.frames += 1
                offset += FRAME.itemsize + len(body)
                yield header[0], np.frombuffer(body, RECORD)

    def _judge_tail(self, offset: int, size: int) -> None:
        """A torn tail is remembered; damage in the middle raises."""
        self.torn_bytes = size - offset
        magic = FRAME_MAGIC.to_bytes(4, "little")
        at = FRAME.fields["magic"][1] if FRAME.fields else 0
        with self.path.open("rb") as file:
            file.seek(offset + 1)
            rest = file.read()
        found = rest.find(magic)
        while found >= 0:
            start = found - at
            header = np.frombuffer(rest[start : start + FRAME.itemsize].ljust(FRAME.itemsize, b"\0"), FRAME, 1)
            count = int(header["count"][0])
            body = rest[start + FRAME.itemsize : start + FRAME.itemsize + count * RECORD.itemsize]
            if start >= 0 and len(body) == count * RECORD.itemsize and _is_sealed(header, body):
                raise JournalError(
                    f"{self.path}: damaged at byte {offset}, in frame {self.frames + 1}; "
                    f"sound frames follow at byte {offset + 1 + start}, so this is no torn tail"
                )
            found = rest.find(magic, found + 1)
