from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.shard.journal import Journal, JournalError, JournalReader, journal_path, read_header
from simulator.shard.layout import FILE_HEADER, FILE_MAGIC, FRAME, NO_LIMIT, RECORD, Durability, Protocol, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = Shape(nodes=3, shards=8, customers=1_000, merchants=50, opening_minor=12_345, remember=64)


def records_of(count: int, first: int = 1) -> NDArray[Any]:
    """Records in which every field differs from record to record."""
    records = np.zeros(count, RECORD)
    numbers = np.arange(first, first + count)
    for name in RECORD.names or ():
        records[name] = (numbers * 7 + len(name)).astype(RECORD[name])
    records["amount_minor"] = -numbers
    return records


def written(folder: Path, counts: Sequence[int]) -> Path:
    """A journal of one frame for each count."""
    journal = Journal.create(folder, 2, SHAPE, Durability.OS, run=77)
    first = 1
    for number, count in enumerate(counts, 1):
        assert journal.append(records_of(count, first), 1_000 * number) == FRAME.itemsize + count * RECORD.itemsize
        first += count
    journal.close()
    return journal_path(folder, 2)


def read(path: Path) -> tuple[list[list[Any]], int]:
    """(the records of each frame, torn bytes)."""
    reader = JournalReader(path)
    frames = [records.tolist() for _, records in reader]
    assert reader.frames == len(frames)
    return frames, reader.torn_bytes


def frames_of(counts: Sequence[int]) -> list[list[Any]]:
    firsts = np.cumsum([1, *counts])
    return [records_of(count, int(first)).tolist() for count, first in zip(counts, firsts, strict=False)]


def sealed(header: NDArray[Any], body: bytes = b"") -> bytes:
    """A header with the checksum that the format asks for: xxh3-64 of all that comes after it."""
    header["checksum"] = xxhash.xxh3_64(header.tobytes()[8:] + body).intdigest()
    return header.tobytes() + body


def renumbered(raw: bytes, number: int) -> bytes:
    """A whole frame under another number, soundly sealed."""
    header = np.frombuffer(raw[: FRAME.itemsize], FRAME).copy()
    header["number"] = number
    return sealed(header, raw[FRAME.itemsize :])


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(0, 70), max_size=12))
def test_what_was_appended_is_read_back_frame_by_frame(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    path = written(tmp_path_factory.mktemp("journal"), counts)
    assert read(path) == (frames_of(counts), 0)


def test_a_frame_says_when_it_was_committed(tmp_path: Path) -> None:
    said = [(committed_ns, len(records)) for committed_ns, records in JournalReader(written(tmp_path, [3, 1, 4]))]
    assert said == [(1_000, 3), (2_000, 1), (3_000, 4)]


def test_a_frame_longer_than_a_stretch_of_reading_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [1, 40, 0, 3]
    path = written(tmp_path, counts)
    for stretch in (1, 31, 32, 33, 72, 1_000):
        monkeypatch.setattr("simulator.shard.journal._STRETCH", stretch)
        assert read(path) == (frames_of(counts), 0)


def test_reading_may_begin_behind_a_frame(tmp_path: Path) -> None:
    path = written(tmp_path, [2, 3, 1])
    first = FILE_HEADER.itemsize + FRAME.itemsize + 2 * RECORD.itemsize
    reader = JournalReader(path, start=first, frames=1)
    assert [records.tolist() for _, records in reader] == frames_of([2, 3, 1])[1:]
    assert (reader.frames, reader.end, reader.torn_bytes) == (3, path.stat().st_size, 0)


def test_a_resumed_journal_cuts_the_torn_tail_off_and_goes_on(tmp_path: Path) -> None:
    counts = [2, 3, 1]
    path = written(tmp_path, counts)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    reader = JournalReader(path)
    assert len(list(reader)) == 2
    journal = Journal.resume(reader, Durability.OS)
    assert (journal.frames, journal.size) == (2, len(raw) - FRAME.itemsize - RECORD.itemsize)
    journal.append(records_of(1, 6), 3_000)
    assert (journal.frames, journal.size) == (3, len(raw))
    journal.close()
    assert path.read_bytes() == raw


def test_the_file_header_says_all_that_an_audit_needs(tmp_path: Path) -> None:
    path = written(tmp_path, [])
    header = read_header(path)
    assert path.stat().st_size == FILE_HEADER.itemsize == 80
    said = {name: int(header[name]) for name in FILE_HEADER.names or () if name not in ("checksum", "_")}
    assert said == {
        "magic": FILE_MAGIC, "version": 2, "node": 2, "nodes": 3, "shards": 8, "accounts": 1_050,
        "opening_minor": 12_345, "customers": 1_000, "durability": Durability.OS, "run": 77,
        "hot_accounts": 0, "hot_split": 1, "remember": 64, "balance_limit_minor": NO_LIMIT, "protocol": Protocol.OUTBOX,
    }  # fmt: skip


def test_a_journal_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, [2])
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path, 2, SHAPE, Durability.OS, run=78)
    assert path.read_bytes() == before


def test_a_tail_torn_at_any_byte_is_passed_over_and_the_frames_before_it_stand(tmp_path: Path) -> None:
    counts = [2, 3, 2]
    path = written(tmp_path, counts)
    raw = path.read_bytes()
    last = FRAME.itemsize + counts[-1] * RECORD.itemsize
    for kept in range(last):
        path.write_bytes(raw[: len(raw) - last + kept])
        assert read(path) == (frames_of(counts)[:2], kept)


def test_a_last_frame_with_any_byte_flipped_is_a_torn_tail(tmp_path: Path) -> None:
    counts = [2, 3, 2]
    path = written(tmp_path, counts)
    raw = bytearray(path.read_bytes())
    last = FRAME.itemsize + counts[-1] * RECORD.itemsize
    for offset in range(len(raw) - last, len(raw)):
        raw[offset] ^= 0x10
        path.write_bytes(raw)
        assert read(path) == (frames_of(counts)[:2], last)
        raw[offset] ^= 0x10


def test_a_tail_of_zeroes_is_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, [2])
    with path.open("ab") as file:
        file.write(bytes(5_000))
    assert read(path) == (frames_of([2]), 5_000)


def test_a_byte_flipped_in_the_middle_is_refused_and_the_place_named(tmp_path: Path) -> None:
    counts = [2, 3, 2]
    path = written(tmp_path, counts)
    raw = bytearray(path.read_bytes())
    begin = FILE_HEADER.itemsize + FRAME.itemsize + 2 * RECORD.itemsize
    end = begin + FRAME.itemsize + 3 * RECORD.itemsize
    for offset in range(begin, end):
        raw[offset] ^= 0x10
        path.write_bytes(raw)
        reader = JournalReader(path)
        frames = iter(reader)
        assert next(frames)[1].tolist() == frames_of(counts)[0]
        with pytest.raises(JournalError) as error:
            next(frames, None)
        assert str(path) in str(error.value)
        assert f"damaged at byte {begin}, in frame 2;" in str(error.value)
        assert f"stands at byte {end}," in str(error.value)
        raw[offset] ^= 0x10


def test_a_frame_missing_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [1, 1, 1, 1])
    raw = path.read_bytes()
    size = FRAME.itemsize + RECORD.itemsize
    path.write_bytes(raw[: FILE_HEADER.itemsize + size] + raw[FILE_HEADER.itemsize + 2 * size :])
    with pytest.raises(JournalError, match="in frame 2"):
        read(path)


@pytest.mark.parametrize("number", [1, 2, 4, 2**63])
def test_a_sound_last_frame_with_a_wrong_number_is_no_torn_tail(tmp_path: Path, number: int) -> None:
    path = written(tmp_path, [1, 1, 1])
    raw = path.read_bytes()
    last = len(raw) - FRAME.itemsize - RECORD.itemsize
    path.write_bytes(raw[:last] + renumbered(raw[last:], number))
    # Its checksum holds, so it was written whole: a frame before it is gone, or this one was written twice.
    with pytest.raises(JournalError, match=f"byte {last}"):
        read(path)


def test_a_frame_sealed_by_the_formats_own_rule_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, [1, 1])
    raw = path.read_bytes()
    last = len(raw) - FRAME.itemsize - RECORD.itemsize
    path.write_bytes(raw[:last] + renumbered(raw[last:], 2))
    assert path.read_bytes() == raw
    assert read(path) == (frames_of([1, 1]), 0)


@pytest.mark.parametrize("content", [b"", b"SIM", bytes(64), b"x" * 200], ids=["empty", "short", "zeroes", "letters"])
def test_what_is_not_a_journal_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node-0.journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=f"{path}: not a journal"):
        JournalReader(path)


def test_a_file_header_with_any_byte_flipped_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [1])
    raw = bytearray(path.read_bytes())
    for offset in range(FILE_HEADER.itemsize):
        raw[offset] ^= 1
        path.write_bytes(raw)
        with pytest.raises(JournalError, match=r"not a journal, or its first 80 bytes are damaged"):
            read_header(path)
        raw[offset] ^= 1


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [1])
    raw = path.read_bytes()
    header = np.frombuffer(raw[: FILE_HEADER.itemsize], FILE_HEADER).copy()
    header["version"] += 1
    path.write_bytes(sealed(header) + raw[FILE_HEADER.itemsize :])
    with pytest.raises(JournalError, match="version"):
        JournalReader(path)


def test_a_journal_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read: No such file"):
        JournalReader(tmp_path / "node-9.journal")


@pytest.mark.parametrize("most", [1, 7, 31, 32, 33, 71, 72, 150])
def test_short_writes_still_make_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    journal = Journal.create(tmp_path, 2, SHAPE, Durability.OS, run=77)
    calls = []

    def write_less(fd: int, parts: Sequence[bytes | memoryview]) -> int:
        calls.append(len(parts))
        return os.write(fd, b"".join(bytes(part) for part in parts)[:most])

    real_write = os.write
    monkeypatch.setattr(os, "writev", write_less)
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:most]))
    for first in (1, 3):
        assert journal.append(records_of(2, first), 5) == FRAME.itemsize + 2 * RECORD.itemsize
    journal.close()
    assert len(calls) == 2
    assert read(journal_path(tmp_path, 2)) == (frames_of([2, 2]), 0)


@pytest.mark.parametrize("call", ["writev", "write"])
def test_a_full_disk_is_told_as_the_error_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    journal = Journal.create(tmp_path, 2, SHAPE, Durability.OS, run=77)
    journal.append(records_of(2), 1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_write = os.write
    monkeypatch.setattr(os, "writev", lambda fd, parts: real_write(fd, bytes(parts[0])))
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as error:
        journal.append(records_of(3), 2)
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    journal.close()
    frames, torn = read(journal_path(tmp_path, 2))
    assert frames == frames_of([2])
    assert torn == (0 if call == "writev" else FRAME.itemsize)


@pytest.mark.parametrize("durability", Durability)
def test_closing_syncs_unless_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    journal = Journal.create(tmp_path, 0, SHAPE, durability, run=1)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal.sync()
    journal.close()
    assert len(synced) == (1 if durability == Durability.MEMORY else 2)


def test_a_sync_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(tmp_path, 0, SHAPE, Durability.GROUP, run=1)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.sync()
    journal.close()
