"""The record of a power loss: what each disk had synced, what it had written, and what was taken from it.

Whoever cuts the power writes it, before the journals are cut, into the folder of the journals: so an audit finds it with
nothing else at hand, and a node cannot know better than its own disk.

    losses.jsonl             one line for each node of each power loss: a `Loss`
    loss-1-node-0.tail       the journal's header, and its frames from the synced byte on, those that were taken among them

The tails are evidence: they name every record that was taken, so an auditor need not guess which transactions a loss
explains. They are as large as what was written and not synced.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from simulator.errors import SimError
from simulator.shard.journal import journal_path, open_tail, write_tail
from simulator.shard.layout import FRAME, RECORD, Custody, Durability

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_PIECE = 1 << 20


class LossError(SimError):
    """A record of a power loss that cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What one power loss did to one node.

    Attributes:
        number: 1, 2, 3 … within the run; the nodes of one loss share it.
        node: whose journal.
        at_ns: when, since the start of the run.
        durability: the node's mode, in lower case.
        unsynced_ns_max: how long after a sync the mode acknowledges without another one.
        synced_bytes: how much of the journal was synced; a frame ends there.
        synced_ns: when that sync began, since the start of the run.
        written_bytes: how long the journal was.
        kept_bytes: what the cut left; a torn frame may stand at its end.
        cut_bytes: where the last whole frame of that ends.
        dropped_records: whole records behind the cut.
        positions: by shard that lost something, the last position that is left and the last that was there.
        tail: the file, beside the journals, with the frames from `synced_bytes` on.
        tail_xxh3: its checksum.
    """

    number: int
    node: int
    at_ns: int
    durability: str
    unsynced_ns_max: int
    synced_bytes: int
    synced_ns: int
    written_bytes: int
    kept_bytes: int
    cut_bytes: int
    dropped_records: int
    positions: dict[str, list[int]]
    tail: str
    tail_xxh3: str


def losses_path(folder: Path) -> Path:
    """Where the power losses of a run are recorded, in the folder of its journals."""
    return folder / "losses.jsonl"


def record_loss(
    folder: Path, number: int, node: int, at_ns: int, *,
    durability: Durability, unsynced_ns_max: int, synced_bytes: int, synced_ns: int, kept_bytes: int,
) -> Loss:  # fmt: skip
    """Writes down what the power loss is about to take from a node's journal, synced; the journal itself stays as it is.

    `synced_bytes` ≤ `kept_bytes` ≤ the size of the journal, and a frame ends at the first. Raises OSError.
    """
    journal = journal_path(folder, node)
    tail = folder / f"loss-{number}-node-{node}.tail"
    write_tail(journal, synced_bytes, tail)
    cut, dropped = synced_bytes, 0
    positions: dict[str, list[int]] = {}
    for end, _, records in tail_frames(tail, synced_bytes):
        if end <= kept_bytes:
            cut = end
            continue
        dropped += len(records)
        legs = records[records["leg"] < Custody.MOVE_OUT]
        for shard in np.unique(legs["shard"]).tolist():
            lsn = legs["lsn"][legs["shard"] == shard]
            before = positions.setdefault(str(shard), [int(lsn[0]) - 1, 0])
            before[1] = int(lsn[-1])
    loss = Loss(
        number, node, at_ns, durability.name.lower(), unsynced_ns_max, synced_bytes, synced_ns, journal.stat().st_size,
        kept_bytes, cut, dropped, positions, tail.name, _checksum(tail),
    )  # fmt: skip
    with losses_path(folder).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(loss)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return loss


def read_losses(folder: Path) -> list[Loss]:
    """What was recorded, in order; nothing if no power was lost. Raises LossError for a line that is none."""
    path = losses_path(folder)
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise LossError(f"{path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Loss(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise LossError(f"{path}, line {number}: is no record of a power loss: {error}") from error
    return found


def read_tail(folder: Path, loss: Loss) -> Iterator[tuple[int, int, NDArray[np.void]]]:
    """As `tail_frames`, of a recorded loss. Raises LossError if the tail is gone or not the one that was recorded."""
    path = folder / loss.tail
    try:
        sound = path.parent == folder and _checksum(path) == loss.tail_xxh3
    except OSError as error:
        raise LossError(f"{path}: cannot be read: {error.strerror}") from error
    if not sound:
        raise LossError(f"{path}: is not what was recorded when the power was lost")
    yield from tail_frames(path, loss.synced_bytes)


def tail_frames(path: Path, start: int) -> Iterator[tuple[int, int, NDArray[np.void]]]:
    """(byte of the journal at which it ends, committed_ns, records) of each whole frame of a tail that began at `start`."""
    end = start
    for committed_ns, records in open_tail(path):
        end += FRAME.itemsize + len(records) * RECORD.itemsize
        yield end, committed_ns, records


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
