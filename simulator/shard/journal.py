"""The journal of one node: frames of booked legs, appended, synced in groups, and read back.

A frame is one commit: a header, then its records, under one checksum, so it is there entirely or not at all. Frames are
numbered from 1 without gaps. Reading stops at the first frame that is not whole; that is a torn tail (the last write before
a crash) if nothing valid follows, and damage if something does.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from simulator.errors import SimError
from simulator.kernel import int64, kernel
from simulator.shard.layout import FILE_HEADER, FILE_MAGIC, FRAME, FRAME_MAGIC, RECORD, Durability, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

VERSION = 2  # 2: the protocol and the balance limit stand in the header
_CHECKSUM_BYTES = 8
_HEADER = struct.Struct("<QIIQq")  # FRAME's fields, for reading one at a time
_STRETCH = 8 << 20  # bytes read at a time
_WORD = 8  # headers and records are whole words, and start at one
_FRAME_WORDS = FRAME.itemsize // _WORD
_RECORD_WORDS = RECORD.itemsize // _WORD
_MAGIC = int(FRAME_MAGIC)
_SCAN = 64 << 20  # how far behind a broken frame a sound one is looked for
_FRAME_RECORDS_MAX = 1 << 22  # a header that claims more is not a header; a node's turn makes far fewer
assert _HEADER.size == FRAME.itemsize  # noqa: S101  two descriptions of one layout


class JournalError(SimError):
    """A journal that cannot be read; the text says which file and where."""


class OtherVersionError(JournalError):
    """A journal in another version of the format: nothing is wrong with it, but this release cannot read it."""


def journal_path(folder: Path, node: int) -> Path:
    """Where a node keeps its journal within the run's folder."""
    return folder / f"node-{node}.journal"


def closing_path(folder: Path, node: int) -> Path:
    """Where a node writes its closing sheet, beside its journal."""
    return folder / f"node-{node}.closing.json"


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

    def __init__(self, fd: int, durability: Durability, *, size: int, frames: int, last_at: int) -> None:
        self._fd = fd
        self._last_at = last_at
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
        header["hot_accounts"] = shape.split.hot
        header["hot_split"] = shape.split.ways
        header["remember"] = shape.remember
        header["balance_limit_minor"] = shape.balance_limit_minor
        header["protocol"] = shape.protocol
        fd = os.open(journal_path(folder, node), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        journal = cls(fd, durability, size=0, frames=0, last_at=0)
        journal._write([_sealed(header)])
        journal._frame["checksum"] = header["checksum"]
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
        journal = cls(fd, durability, size=reader.end, frames=reader.frames, last_at=reader.last_at)
        journal._frame["checksum"] = checksum_at(reader.path, reader.last_at)
        return journal

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return int(self._frame["number"][0])

    @property
    def last(self) -> tuple[int, int]:
        """(where its last frame begins, the checksum of that): two journals that agree in both are the same up to there."""
        return self._last_at, int(self._frame["checksum"][0])

    def append(self, records: NDArray[np.void], now_ns: int) -> int:
        """Writes one frame of `records` (RECORD, contiguous), not synced; returns its bytes. Raises OSError."""
        self._frame["number"] += 1
        self._frame["count"] = len(records)
        self._frame["committed_ns"] = now_ns
        self._last_at = self.size
        body = records.view(np.uint8).data
        return self._write([_sealed(self._frame, body), body])

    def fileno(self) -> int:
        """The open file, for whoever must sync it as well."""
        return self._fd

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
    """The file header of a journal. Raises JournalError if it is not one, OtherVersionError for one of another version."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_HEADER.itemsize)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
    header = np.frombuffer(raw, FILE_HEADER, 1) if len(raw) == FILE_HEADER.itemsize else np.zeros(1, FILE_HEADER)
    if header["magic"][0] != FILE_MAGIC or not _is_sealed(header):
        raise JournalError(f"{path}: not a journal, or its first {FILE_HEADER.itemsize} bytes are damaged")
    if header["version"][0] != VERSION:
        raise OtherVersionError(
            f"{path}: written in version {header['version'][0]} of the format; this reads version {VERSION}"
        )
    return header[0]


def checksum_at(path: Path, at: int) -> int | None:
    """The checksum that a frame beginning at this byte carries (at 0: the file header); None if nothing is there."""
    try:
        with path.open("rb") as file:
            raw = os.pread(file.fileno(), _CHECKSUM_BYTES, at)
    except OSError:
        return None
    return int.from_bytes(raw, "little") if len(raw) == _CHECKSUM_BYTES else None


def write_tail(source: Path, start: int, to: Path) -> None:
    """Copies a journal's header and everything from byte `start` (where a frame begins) on, and syncs the copy.

    What comes out is read by `open_tail`. Raises OSError.
    """
    with source.open("rb") as journal, to.open("xb") as copy:
        for begin, count in ((0, FILE_HEADER.itemsize), (start, os.fstat(journal.fileno()).st_size - start)):
            at, end = begin, begin + max(count, 0)
            while at < end and (sent := os.sendfile(copy.fileno(), journal.fileno(), at, end - at)):
                at += sent
        os.fsync(copy.fileno())


def open_tail(path: Path) -> JournalReader:
    """Reads what `write_tail` wrote: the first frame gives the number from which the others count on.

    Raises JournalError if its header is damaged.
    """
    with path.open("rb") as file:
        file.seek(FILE_HEADER.itemsize)
        raw = file.read(FRAME.itemsize)
    first = _HEADER.unpack(raw)[3] if len(raw) == FRAME.itemsize else 1
    return JournalReader(path, frames=max(first - 1, 0))


class Frames(NamedTuple):
    """Some frames of a journal, one behind the other."""

    size: int  # bytes
    committed_ns: NDArray[np.int64]
    counts: NDArray[np.int64]  # records of each
    records: NDArray[np.void]  # of all of them


@kernel
def walk(words: NDArray[np.uint64], number: int, starts: NDArray[np.int64]) -> int:
    """Finds frames that follow each other and lie whole within `words`; their checksums are not looked at.

    `words` begins at a frame, which should have this number. Writes the word that each frame starts at; returns how many.
    """
    at = 0
    found = 0
    while at + _FRAME_WORDS <= words.shape[0]:
        count = int64(words[at + 1] >> np.uint64(32))
        if (words[at + 1] & np.uint64(0xFFFFFFFF)) != np.uint64(_MAGIC) or int64(words[at + 2]) != number + found:
            break
        if count > _FRAME_RECORDS_MAX or at + _FRAME_WORDS + count * _RECORD_WORDS > words.shape[0]:
            break
        starts[found] = at
        found += 1
        at += _FRAME_WORDS + count * _RECORD_WORDS
    return found


@kernel
def gather(
    words: NDArray[np.uint64], starts: NDArray[np.int64], counts: NDArray[np.int64], records: NDArray[np.uint64]
) -> None:
    """Copies the records of the frames at `starts` behind each other."""
    to = 0
    for i in range(starts.shape[0]):
        begin = starts[i] + _FRAME_WORDS
        for k in range(begin, begin + counts[i] * _RECORD_WORDS):
            records[to] = words[k]
            to += 1


class JournalReader:
    """Reads the frames of a journal in order, in bounded memory (one stretch of the file at a time).

    `start` and `frames` say where to begin: behind a snapshot, the byte and how many frames lie before it, and `last_at` where
    the last of those begins (0: the file header). After iteration `end` is the byte behind the last whole frame, `last_at`
    where that begins, and `torn_bytes` how much follows it. Raises JournalError when a damaged frame is followed by a sound one:
    then the damage is not a torn tail, and nothing behind it can be trusted.
    """

    def __init__(self, path: Path, *, start: int = FILE_HEADER.itemsize, frames: int = 0, last_at: int = 0) -> None:
        self.path = path
        self.header = read_header(path)
        self.frames = frames
        self.end = start
        self.last_at = last_at
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yields (committed_ns, RECORD array) of each frame."""
        for run in self.runs():
            ends = np.cumsum(run.counts)
            for committed_ns, count, end in zip(
                run.committed_ns.tolist(), run.counts.tolist(), ends.tolist(), strict=True
            ):
                yield committed_ns, run.records[end - count : end]

    def stretches(self) -> Iterator[NDArray[np.void]]:
        """The records of many frames at a time, up to about 200,000."""
        for run in self.runs():
            yield run.records

    def runs(self) -> Iterator[Frames]:
        """Whole frames that stand one behind the other, as many as a stretch of the file has."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            stretch = b""
            while True:
                run = self._run(stretch)
                if run is not None:
                    stretch = stretch[run.size :]
                    self.end += run.size
                    self.last_at = self.end - FRAME.itemsize - int(run.counts[-1]) * RECORD.itemsize
                    self.frames += len(run.counts)
                    yield run
                    continue
                if not self._may_go_on(stretch):
                    break
                more = file.read(_STRETCH)
                if not more:
                    break
                stretch += more
            self.torn_bytes = self.path.stat().st_size - self.end
            if self.torn_bytes:
                self._judge_tail(stretch + file.read(_SCAN))

    def _run(self, stretch: bytes) -> Frames | None:
        """The whole frames at the beginning of a stretch; None if there is not even one."""
        words = np.frombuffer(stretch, np.uint64, len(stretch) // _WORD)
        starts = np.empty(len(stretch) // FRAME.itemsize, np.int64)
        found = int(walk(words, self.frames + 1, starts))
        view = memoryview(stretch)
        sound = 0
        for start, count, checksum in zip(
            (starts[:found] * _WORD).tolist(),
            (words[starts[:found] + 1] >> np.uint64(32)).tolist(),
            words[starts[:found]].tolist(),
            strict=True,
        ):
            end = start + FRAME.itemsize + count * RECORD.itemsize
            if xxhash.xxh3_64_intdigest(view[start + _CHECKSUM_BYTES : end]) != checksum:
                break
            sound += 1
        if sound == 0:
            return None
        starts = starts[:sound]
        counts = (words[starts + 1] >> np.uint64(32)).astype(np.int64)
        records = np.empty(int(counts.sum()), RECORD)
        gather(words, starts, counts, records.view(np.uint64))
        size = int(starts[-1]) * _WORD + FRAME.itemsize + int(counts[-1]) * RECORD.itemsize
        return Frames(size, words[starts + 3].astype(np.int64), counts, records)

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
