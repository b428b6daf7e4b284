"""The image of one shard: everything that its books hold, in a file, for the node that takes the shard over.

The old owner writes it before it logs that the shard has left, and it is synced and renamed by then; so whoever reads of the
move in a journal finds the image whole. It is kept until the run ends: a restart of the new owner whose snapshot is older
than the move, or damaged, needs it again.

    header     64 bytes: checksum (xxh3-64 of all that follows), magic, version, number of the move, shard, lsn, messages, size
    books      every array of `Books` that is the shard's, raw; of `entries` only the rows in use
    messages   (TRANSACTION) that the shard has sent to shards of other nodes and that are not acknowledged
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from simulator.errors import SimError
from simulator.ledger.books import BY_ACCOUNT, BY_PLACE, BY_SHARD, Books, rows_of
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER = np.dtype(
    [
        ("checksum", "<u8"),
        ("magic", "<u8"),
        ("version", "<u4"),
        ("shard", "<u4"),
        ("number", "<u8"),
        ("lsn", "<i8"),
        ("messages", "<u8"),
        ("payload_bytes", "<u8"),
        ("_", "<u8"),
    ]
)
_MAGIC = 0x444D4953_47414D49  # "IMAGSIMD"
_VERSION = 1
_MADV_DONTNEED = 4
assert _HEADER.itemsize == 64, _HEADER.itemsize  # noqa: PLR2004, S101  an on-disk format


class ImageError(SimError):
    """An image that cannot be read; the text says which file and why."""


class Image(NamedTuple):
    """An image that was read and found whole."""

    shard: int
    lsn: int
    payload: memoryview
    messages: NDArray[np.void]


def image_path(folder: Path, number: int) -> Path:
    """Where the image of a run's move number … is, beside the journals."""
    return folder / f"move-{number}.image"


def _parts(books: Books, shard: int, place: int) -> Iterator[NDArray[Any]]:
    """A shard's part of each array, in order; the counts of entries come before the entries that they count."""
    yield books.used[place]
    for name in BY_ACCOUNT:
        yield getattr(books, name)[rows_of(books, shard)]
    for name in BY_SHARD:
        yield getattr(books, name)[shard : shard + 1]
    for name in BY_PLACE:
        if name == "entries":
            for generation in range(2):
                yield books.entries[place, generation, : books.used[place, generation]]
        elif name != "used":
            yield getattr(books, name)[place : place + 1]


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write(path: Path, number: int, books: Books, shard: int, messages: NDArray[np.void], *, durable: bool) -> int:
    """Writes the image of a shard that these books own; returns its bytes. `durable`: synced. Raises OSError."""
    parts = [_raw(part) for part in _parts(books, shard, int(books.place[shard]))]
    parts.append(_raw(messages))
    header = np.zeros(1, _HEADER)
    header["magic"], header["version"], header["shard"], header["number"] = _MAGIC, _VERSION, shard, number
    header["lsn"], header["messages"] = books.lsn[shard], len(messages)
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
        if durable:
            os.fsync(file.fileno())
    unfinished.rename(path)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    return _HEADER.itemsize + int(header["payload_bytes"][0])


def read(path: Path, number: int, shard: int) -> Image:
    """Reads the image of a move. Raises ImageError if it is not whole, or another's."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    header = np.frombuffer(raw, _HEADER, 1) if len(raw) >= _HEADER.itemsize else np.zeros(1, _HEADER)
    sound = (
        header["magic"][0] == _MAGIC
        and header["version"][0] == _VERSION
        and header["payload_bytes"][0] == len(raw) - _HEADER.itemsize
        and header["checksum"][0] == xxhash.xxh3_64_intdigest(memoryview(raw)[8:])
    )
    if not sound:
        raise ImageError(f"{path}: damaged, or cut short at {len(raw)} bytes; shard {shard} cannot be taken over")
    if header["number"][0] != number or header["shard"][0] != shard:
        raise ImageError(
            f"{path}: is the image of shard {header['shard'][0]} for move {header['number'][0]}, not of {shard} for {number}"
        )
    payload = memoryview(raw)[_HEADER.itemsize :]
    count = int(header["messages"][0])
    messages = np.frombuffer(payload, TRANSACTION, count, len(payload) - count * TRANSACTION.itemsize).copy()
    return Image(shard, int(header["lsn"][0]), payload, messages)


def load(image: Image, books: Books) -> None:
    """Puts a shard into books that have room for any; they own it afterwards."""
    at = 0
    for part in _parts(books, image.shard, image.shard):
        part[...] = np.frombuffer(image.payload, part.dtype, part.size, at).reshape(part.shape)
        at += part.nbytes
    books.place[image.shard] = image.shard


def sequence_out(image: Image, books: Books) -> NDArray[np.int64]:
    """The last message number that the shard had sent to each other one; `books` only tells the layout."""
    at = books.used[0].nbytes + books.accounts[rows_of(books, image.shard)].nbytes
    for name in BY_SHARD:
        row = getattr(books, name)[:1]
        if name == "sequence_out":
            break
        at += row.nbytes
    return np.frombuffer(image.payload, np.int64, books.shards, at)


def make_room(books: Books, shard: int) -> None:
    """Touches the memory that a shard will need, before it is stopped for its move: a first touch may cost a millisecond."""
    remembered = books.slots.shape[2] // 2
    parts: list[NDArray[Any]] = [books.entries[shard, generation, :remembered] for generation in range(2)]
    parts += [
        books.accounts[rows_of(books, shard)],
        books.slots[shard],
        books.hold_ids[shard],
        books.hold_made_ns[shard],
    ]
    for part in parts:
        part.reshape(-1).view(np.uint8)[:] = 0


def drop(books: Books, shard: int) -> None:
    """Takes a shard out of books that have room for any: they do not own it afterwards, and its memory goes back."""
    books.place[shard] = -1
    for name in BY_ACCOUNT:
        _give_back(getattr(books, name)[rows_of(books, shard)])
    for name in BY_SHARD:
        getattr(books, name)[shard] = 0
    for name in BY_PLACE:
        _give_back(getattr(books, name)[shard : shard + 1])


def _give_back(array: NDArray[Any]) -> None:
    """Zeroes an array by giving its whole pages back to the kernel, which hands out zeroed ones at the next touch."""
    address, size = array.ctypes.data, array.nbytes
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    raw = array.reshape(-1).view(np.uint8)
    if last <= first or ctypes.CDLL(None).madvise(
        ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED
    ):
        raw[:] = 0
        return
    raw[: first - address] = 0
    raw[last - address :] = 0
