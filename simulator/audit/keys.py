"""Transactions of a run over HTTP and the ids that the gateway's ledger knows them by.

A client numbers its transactions 1, 2, 3 …; the ledger knows each by a digest of its idempotency key. The file beside the
history says how keys are made, so the journals can be read in the words of the client. What no client of this run asked for
keeps its ledger's id.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from simulator.audit.history import read_history
from simulator.gateway.keys import ids_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_METHOD = "blake2b-63"


def keys_path(run: Path) -> Path:
    """Where a run over HTTP with a ledger of its own says how its keys are made."""
    return run / "keys.json"


def write_keys(run: Path, prefix: str) -> None:
    """Notes that the key of transaction n is the prefix and n."""
    keys_path(run).write_text(json.dumps({"prefix": prefix, "id": _METHOD}) + "\n", "utf-8")


class KeyMap:
    """The ledger's ids of transactions 1 … `count`.

    Raises:
        ValueError: if two of them have the same id; the odds are below count² / 2⁶⁴.
    """

    def __init__(self, prefix: str, count: int) -> None:
        ids = ids_of(prefix, count)
        order = np.argsort(ids)
        self._ids = ids[order]
        self._numbers = order.astype(np.uint64) + np.uint64(1)
        if (self._ids[1:] == self._ids[:-1]).any():
            raise ValueError("two idempotency keys of this run have the same id in the ledger")

    def numbers(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The client's number of each ledger id; an id that is none of its own stays."""
        if not len(self._ids):
            return ids.copy()
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._numbers[at], ids)

    def in_clients_words(self, records: NDArray[np.void]) -> NDArray[np.void]:
        """Records (RECORD) with the client's numbers as `id` and `related`; a copy."""
        told = records.copy()
        told["id"] = self.numbers(np.ascontiguousarray(records["id"]))
        told["related"] = self.numbers(np.ascontiguousarray(records["related"]))
        return told


def read_keys(run: Path) -> KeyMap | None:
    """The map of a run for every transaction of its history; None where ids are the clients' own.

    Raises:
        ValueError: for a file that says something else than this version writes.
    """
    try:
        said = json.loads(keys_path(run).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(said, dict) or said.get("id") != _METHOD or not isinstance(said.get("prefix"), str):
        raise ValueError(f"{keys_path(run)} does not say how keys were made")
    return KeyMap(said["prefix"], max((int(rows["id"].max(initial=0)) for rows in read_history(run)), default=0))
