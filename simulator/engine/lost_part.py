"""What became of the transactions of a generator that ended before its time: told from what it left behind.

Left are its history (a file, and the rows of its buffer), its tallies, and how far it came. Its part of the schedule is a
function of the seed, so every transaction that it should have sent is known, and each ends in one of three ways:

* it has a row in the history: that is how it ended;
* it has none, and the generator had begun to release it: it may have been sent, and so is `unknown`;
* it has none, and the generator had not come so far: it was never sent, and so is `dropped`.

The rows that are missing are written, and the tallies made to agree with the rows: a process can be killed between two
counts of one transaction, and what was in doubt was counted nowhere. Such corrections stand in the second of its death.
Histograms by second, kind and node were in its own memory and are lost; those of the whole run are in the tallies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.dispatcher import write_history
from simulator.engine.generators import Word
from simulator.measure.recorder import ASKED, HISTORY, KINDS, REASONS, SECOND, STATUSES
from simulator.shard.split import homes
from simulator.transaction import TRANSACTION, Reason, Status

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.engine.generators import Shared
    from simulator.engine.wall import Source
    from simulator.measure.recorder import Tallies
    from simulator.shard.split import Split
    from simulator.workload.hot_keys import HotKeys

_CHUNK_ROWS = 1 << 16
_NO_ROW = 0  # in a table of statuses by id, which are kept one higher
_NS_PER_S = 1_000_000_000


class Lost(NamedTuple):
    """What a generator that ended early leaves open."""

    unknown: int  # may have been sent
    dropped: int  # never was


def recover_history(path: Path, shared: Shared) -> None:
    """Makes a killed generator's file hold every row that it had noted, each once, and nothing else."""
    written, flushing = int(shared.words[Word.WRITTEN]), int(shared.words[Word.FLUSHING])
    buffered = shared.rows[: flushing or int(shared.row_count[0])]
    with path.open("r+b") as file:
        file.truncate(written * HISTORY.itemsize)  # room was reserved behind it, and a write may have been cut short
        sound = _sound_rows(path, written)
        if sound < written:  # its disk was full: what it then kept in memory is lost
            file.truncate(sound * HISTORY.itemsize)
        if flushing and sound >= flushing:
            file.seek((sound - flushing) * HISTORY.itemsize)
            if file.read(flushing * HISTORY.itemsize) == buffered.tobytes():
                return  # it was killed after these were written and before it could say so
        file.seek(0, 2)
        file.write(buffered.tobytes())


def _sound_rows(path: Path, rows: int) -> int:
    """How many rows there are before the first that was never written."""
    at = 0
    with path.open("rb") as file:
        while raw := file.read(_CHUNK_ROWS * HISTORY.itemsize):
            chunk = np.frombuffer(raw[: len(raw) - len(raw) % HISTORY.itemsize], HISTORY)
            blank = np.flatnonzero(chunk["id"] == 0)
            if len(blank):
                return min(at + int(blank[0]), rows)
            at += len(chunk)
    return min(at, rows)


def account_for(
    path: Path, source: Source, shared: Shared, *, before: int | None, split: Split, hot: HotKeys, died_ns: int
) -> Lost:
    """Accounts for every transaction of a part that its generator should have released.

    Args:
        path: its history, as `recover_history` leaves it; the rows that are missing are appended.
        source: its part of the schedule, from the beginning.
        shared: what it left; its tallies are corrected.
        before: the first transaction that nobody releases any more; None: the run came to its end.
        split: which accounts the backend splits.
        hot: whose transactions are counted apart.
        died_ns: when it ended, on the run's clock.
    """
    ended, by_kind, by_reason = _told(path)
    tallies = shared.tallies
    begun = int(tallies.by_kind[:, Status.PENDING].sum())
    seconds = len(tallies.offered)
    died = min(max(died_ns, 0) // _NS_PER_S, seconds - 1)
    offered, offered_minor = np.zeros_like(tallies.offered), np.zeros_like(tallies.offered_minor)
    dropped_by_second = np.zeros_like(tallies.offered)
    hot_by_status = np.zeros_like(tallies.hot_by_status)
    lost = {Status.UNKNOWN: 0, Status.DROPPED: 0}
    batch, position = np.zeros(4_096, TRANSACTION), 0
    with path.open("ab") as file:
        while made := source.fill(batch):
            part = batch[:made] if before is None else batch[:made][batch["id"][:made] < np.uint64(before)]
            ids = part["id"].astype(np.int64)
            known = ids < len(ended)
            status = np.where(known, ended[np.where(known, ids, 0)], _NO_ROW).astype(np.int64) - 1
            missing = status < 0
            may_be_sent = position + np.arange(len(part)) < begun
            status[missing] = np.where(may_be_sent[missing], Status.UNKNOWN, Status.DROPPED)
            second = np.clip(part["intended_ns"] // _NS_PER_S, 0, seconds - 1)
            offered += np.bincount(second, minlength=seconds)
            np.add.at(offered_minor, second, part["amount_minor"])
            for which in lost:
                these = missing & (status == which)
                lost[which] += int(these.sum())
                np.add.at(by_kind[:, which], part["kind"][these].astype(np.int64) - 1, 1)
                by_reason[which, Reason.GENERATOR] += int(these.sum())
                file.write(_rows(part[these], split, which))
            never = missing & (status == Status.DROPPED)
            dropped_by_second += np.bincount(np.maximum(second[never], died), minlength=seconds)
            np.add.at(by_kind[:, Status.PENDING], part["kind"].astype(np.int64) - 1, 1)
            is_hot = _among(hot, part["payee"]) | _among(hot, part["payer"])
            hot_by_status += np.bincount(status[is_hot], minlength=len(hot_by_status))
            hot_by_status[Status.PENDING] += int(is_hot.sum())
            position += len(part)
            if len(part) < made:
                break
    tallies.offered[:] = offered
    tallies.offered_minor[:] = offered_minor
    tallies.by_kind[:] = by_kind
    tallies.by_reason[:] = by_reason
    tallies.hot_by_status[:] = hot_by_status
    tallies.answered[:, Status.DROPPED] += dropped_by_second
    _agree(tallies, died)
    return Lost(lost[Status.UNKNOWN], lost[Status.DROPPED])


def _told(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """(the status of each id, one higher; counts by kind and status; by status and reason) that the history tells of."""
    by_kind, by_reason = np.zeros((KINDS, STATUSES), np.int64), np.zeros((STATUSES, REASONS), np.int64)
    ids, statuses = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
    with path.open("rb") as file:
        while raw := file.read(_CHUNK_ROWS * HISTORY.itemsize):
            rows = np.frombuffer(raw, HISTORY)
            rows = rows[(rows["flags"] & (SECOND | ASKED)) == 0]
            ids.append(rows["id"].copy())
            statuses.append(rows["status"].copy())
            np.add.at(by_kind, ((rows["kind_reason"] & 7).astype(np.int64) - 1, rows["status"].astype(np.int64)), 1)
            np.add.at(by_reason, (rows["status"].astype(np.int64), (rows["kind_reason"] >> 3).astype(np.int64)), 1)
    every = np.concatenate(ids).astype(np.int64)
    ended = np.zeros(int(every.max(initial=0)) + 1, np.uint8)
    ended[every] = np.concatenate(statuses) + 1
    return ended, by_kind, by_reason


def _rows(part: NDArray[np.void], split: Split, status: Status) -> bytes:
    """History rows of transactions that ended so for want of their generator."""
    rows, count = np.zeros(len(part), HISTORY), np.zeros(1, np.int64)
    shards = np.zeros(len(part), np.int64)
    homes(part, split, shards)
    for transaction, shard in zip(part, shards.tolist(), strict=True):
        write_history(rows, count, transaction, 0, shard, 0, int(status), int(Reason.GENERATOR))
    return rows.tobytes()


def _among(hot: HotKeys, account: NDArray[np.uint32]) -> NDArray[np.bool_]:
    rank = account.astype(np.int64) - hot.first
    found: NDArray[np.bool_] = (rank >= 0) & (rank < hot.accounts)
    return found


def _agree(tallies: Tallies, died: int) -> None:
    """Makes the counts by second add up to those of the rows, and nothing be in flight any more."""
    by_status = tallies.by_kind.sum(axis=0)
    for status in Status:
        if status is not Status.PENDING:
            correct(tallies.answered[:, status], int(by_status[status]), died)
    correct(tallies.sent, int(by_status[Status.PENDING] - by_status[Status.DROPPED]), died)
    tallies.in_flight[:] = 0
    tallies.shard_in_flight[:] = 0


def correct(counts: NDArray[np.int64], total: int, at: int) -> None:
    """Makes counts (≥ 0) add up to `total`: what is missing is added at `at`, what is too much taken from the last ones."""
    missing = total - int(counts.sum())
    if missing > 0:
        counts[at] += missing
    for window in np.flatnonzero(counts)[::-1] if missing < 0 else ():
        taken = min(-missing, int(counts[window]))
        counts[window] -= taken
        missing += taken
        if not missing:
            return
