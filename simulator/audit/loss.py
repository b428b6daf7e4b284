"""Holds what power losses took against what the mode allows: which acknowledged transactions may be gone, and which not.

A power loss leaves a record and the frames that were not synced (`simulator.fault.loss`). A transaction that its client was
told is at a place which was taken is *lost within the allowance* if its frame may have been answered unsynced:

    group      never
    os,        its commit began after the last sync, by less than the mode's longest time between two syncs: a later commit
    interval   ends in a sync before anything of it is answered, an earlier one was synced
    memory     always: there was nothing on the disk

The law is about the times of commits, so a node that stood still, or a slow machine, neither widens nor breaks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.id_set import IdSet
from simulator.audit.naming import AT_HOME, REFUSALS, fingerprints, place_of, places
from simulator.fault.loss import read_losses, read_tail
from simulator.shard.layout import FRAME, RECORD, Custody, Durability
from simulator.transaction import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.fault.loss import Loss

RECORDS_MAX = (
    4_000_000  # unsynced records followed one by one, about 90 bytes each; beyond, the audit says that it cannot tell
)

# A record that was not synced when the power went.
_UNSYNCED = np.dtype(
    [
        ("record", RECORD),
        ("fingerprint", "<u8"),
        ("place", "<i8"),
        ("committed_ns", "<i8"),
        ("loss", "<i4"),  # index of the loss
        ("dropped", "?"),
        ("lawful", "?"),  # its frame may have been answered unsynced
    ]
)


# Legs whose position a client is told: of success, and of any decision.
_OF_SUCCESS = tuple(int(leg) for leg in AT_HOME)
_TOLD = (*_OF_SUCCESS, *(int(leg) for leg in REFUSALS))


@dataclass
class Taken:
    """What one power loss took from one node."""

    loss: Loss
    allowed_transactions: int = 0  # acknowledged, not synced, and lawfully so
    allowed_records: int = 0
    dropped_bytes: int = 0
    lost_allowed: int = 0  # acknowledged, gone, and lawfully so
    lost_beyond: int = 0
    from_ns: int = field(default=2**62)  # when the commits of what was lost began: the first and the last
    to_ns: int = -1

    def note(self, committed_ns: int, *, lawful: bool) -> None:
        """Counts an acknowledged transaction as lost."""
        self.lost_allowed += lawful
        self.lost_beyond += not lawful
        self.from_ns = min(self.from_ns, committed_ns)
        self.to_ns = max(self.to_ns, committed_ns)

    def to_dict(self) -> dict[str, Any]:
        """Allowed against observed; times in milliseconds of acknowledged work. None: all there was."""
        loss = self.loss
        everything = loss.durability == Durability.MEMORY.name.lower()
        # From the last sync to the last commit that is lost; earlier than the sync only if the disk had not kept its word.
        observed_ns = self.to_ns - min(loss.synced_ns, self.from_ns) if self.to_ns >= 0 else 0
        return {
            "at_s": round(loss.at_ns / 1e9, 6),
            "node": loss.node,
            "allowed": {
                "ms": None if everything else round(loss.unsynced_ns_max / 1e6, 6),
                "transactions": None if everything else self.allowed_transactions,
                "records": None if everything else self.allowed_records,
                "bytes": None if everything else loss.written_bytes - loss.synced_bytes,
            },
            "observed": {
                "ms": None if everything else round(observed_ns / 1e6, 6),
                "transactions": None if everything else self.lost_allowed + self.lost_beyond,
                "records": loss.dropped_records,
                "bytes": loss.written_bytes - loss.cut_bytes,
            },
            "synced_bytes": loss.synced_bytes,
            "cut_bytes": loss.cut_bytes,
            "positions": {
                shard: {"kept": kept, "written": written} for shard, (kept, written) in loss.positions.items()
            },
        }


class PowerLosses:
    """The power losses of a run. Raises LossError if their records cannot be read.

    Attributes:
        taken: one for each node of each loss, in order.
        dropped: the ids of which a record was taken; a digest cannot judge these, `explain` helps to.
        unsynced: the ids that had a record which was not synced, taken or not.
        too_many: whether there was more than can be followed; `dropped` and `unsynced` are then not complete.
    """

    def __init__(self, journals: Path, in_clients_words: Callable[[NDArray[np.void]], NDArray[np.void]]) -> None:
        """`in_clients_words` turns records as they were booked into records as they were asked for."""
        self.taken = [Taken(loss) for loss in read_losses(journals)]
        self._in_clients_words = in_clients_words
        self.too_many = False
        self._room = RECORDS_MAX
        found = [self._unsynced(journals, index, taken.loss) for index, taken in enumerate(self.taken)]
        every = np.concatenate(found) if found else np.zeros(0, _UNSYNCED)
        self._records = every[np.argsort(every["record"]["id"], kind="stable")]
        self.dropped = IdSet(self._records["record"]["id"][self._records["dropped"]])
        self.unsynced = IdSet(self._records["record"]["id"])
        for index, taken in enumerate(self.taken):
            lawful = every["lawful"] & (every["loss"] == index)
            taken.allowed_records = int(lawful.sum())

    def __len__(self) -> int:
        return len(self.taken)

    @property
    def lost_allowed(self) -> int:
        """Acknowledged transactions that are gone, and lawfully so."""
        return sum(taken.lost_allowed for taken in self.taken)

    def _unsynced(self, journals: Path, index: int, loss: Loss) -> NDArray[np.void]:
        parts: list[NDArray[np.void]] = []
        group = loss.durability == Durability.GROUP.name.lower()
        for end, committed_ns, records in read_tail(journals, loss):
            self._room -= len(records)
            if self._room < 0:
                self.too_many = True
                break
            begins = end - FRAME.itemsize - len(records) * RECORD.itemsize
            records = records[records["leg"] < Custody.MOVE_OUT]  # noqa: PLW2901  a shard's move is no transaction's
            part = np.zeros(len(records), _UNSYNCED)
            part["record"] = self._in_clients_words(records)
            part["place"] = places(records)
            fingerprints(np.ascontiguousarray(part["record"]), part["fingerprint"])
            part["committed_ns"] = committed_ns
            part["loss"] = index
            part["dropped"] = end > loss.cut_bytes
            since_sync_ns = committed_ns - loss.synced_ns  # 0: of the commit that was synced
            unsynced = begins >= loss.synced_bytes and 0 < since_sync_ns < loss.unsynced_ns_max
            part["lawful"] = unsynced and not group
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, _UNSYNCED)

    def count_allowed(self, told: NDArray[np.void]) -> None:
        """Counts what might have been lost, given the history rows of all `unsynced` ids."""
        ok = np.sort(told[told["status"] == Status.OK], order="id")
        if not len(ok):
            return
        at = places(ok)
        near = self._records[self._records["lawful"] & np.isin(self._records["record"]["leg"], _OF_SUCCESS)]
        row = np.minimum(np.searchsorted(ok["id"], near["record"]["id"]), len(ok) - 1)
        acknowledged = (ok["id"][row] == near["record"]["id"]) & (at[row] == near["place"])
        for index, count in zip(*np.unique(near["loss"][acknowledged], return_counts=True), strict=True):
            self.taken[int(index)].allowed_transactions = int(count)

    def took(self, row: Any) -> bool:  # noqa: ANN401  one HISTORY row
        """Whether a loss took a record of this id at the place that a client was told."""
        mine = self._of(row["id"])
        return bool((mine["dropped"] & (mine["place"] == place_of(row))).any())

    def _of(self, key: np.uint64) -> NDArray[np.void]:
        ids = self._records["record"]["id"]
        return self._records[np.searchsorted(ids, key, "left") : np.searchsorted(ids, key, "right")]

    def explain(self, row: Any) -> tuple[Taken, int, bool] | None:  # noqa: ANN401  one HISTORY row
        """(which loss took it, when its commit began, whether lawfully): of what this client was told; None: none did."""
        mine = self._of(row["id"])
        here = (mine["place"] == place_of(row)) & (mine["fingerprint"] == row["fingerprint"])
        mine = mine[mine["dropped"] & here & np.isin(mine["record"]["leg"], _TOLD)]
        if not len(mine):
            return None
        last = mine[-1]
        return self.taken[int(last["loss"])], int(last["committed_ns"]), bool(last["lawful"])
