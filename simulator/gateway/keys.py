"""Idempotency keys and the ids of the ledger: one stable function, so that every gateway and the auditor agree on it.

A key's id is 63 bits of its BLAKE2b digest. Two of n keys have the same id with probability below n² / 2⁶⁴: 5·10⁻⁸ for a
million keys, 5·10⁻⁴ for a hundred million.

The ledger knows an id in its payer's shard only. There two such keys that name different payments never mix: the second is
refused as a duplicate. The same key, or one with the same id, for payers in two shards is two ids to the ledger, and both may be
booked; across payers only the gateway that has answered the first one can refuse the second, as long as it remembers it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_MAX = 255  # characters
_KEY = re.compile(rf"[!-~]{{1,{KEY_MAX}}}")  # what may stand in a header without escapes: visible ASCII
_ID = re.compile(r"tx_([0-7][0-9a-f]{15})")
_MASK = (1 << 63) - 1


def id_of(key: str) -> int:
    """The ledger's id of an idempotency key: 1 … 2⁶³ - 1, the same in every process and version."""
    return int.from_bytes(blake2b(key.encode("ascii"), digest_size=8).digest(), "big") & _MASK or 1


def written(number: int) -> str:
    """An id as answers write it: tx_ and 16 hexadecimal digits."""
    return f"tx_{number:016x}"


def is_key(text: str) -> bool:
    """Whether a text may be an idempotency key: 1 … 255 visible ASCII characters, and not the form of our own ids."""
    return _KEY.fullmatch(text) is not None and _ID.fullmatch(text) is None


def referred(text: str) -> int | None:
    """The id that a client names a transaction by: its idempotency key, or what the answer called it. None: neither."""
    found = _ID.fullmatch(text)
    if found is not None:
        return int(found.group(1), 16) or None
    return id_of(text) if _KEY.fullmatch(text) else None


def ids_of(prefix: str, count: int) -> NDArray[np.uint64]:
    """The ledger's ids of the keys prefix1 … prefix`count`, uint64[count]."""
    return np.fromiter((id_of(f"{prefix}{number}") for number in range(1, count + 1)), np.uint64, count)
