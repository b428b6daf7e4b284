"""What the reference gateway says beside its status: where a transaction stands in the ledger, and why it was refused.

Only a run whose ledger is its own reads it, for the audit: a client that was told a place can have it looked up there. It is
found by pattern, not by parsing: it is the gateway's own writing, a few fields in a fixed order, and this is on the way of
every answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from simulator.transaction import Reason, Status

_PLACE = re.compile(rb'"shard": ?(\d{1,5}), ?"lsn": ?(\d{1,10})')
_TYPE = re.compile(rb'"type": ?"/problems/([a-z_-]{1,40})"')
_FAILED = b'"outcome": "failed"'
_REASONS = {reason.name.lower().encode(): reason for reason in Reason if reason is not Reason.NONE}
_GATEWAY: dict[bytes, tuple[Status, Reason]] = {
    b"busy": (Status.REJECTED, Reason.OVERFLOW),
    b"rate-limit": (Status.REJECTED, Reason.OVERFLOW),
    b"stopping": (Status.REJECTED, Reason.OVERFLOW),
    b"in-doubt": (Status.UNKNOWN, Reason.TIMEOUT),
    b"internal": (Status.UNKNOWN, Reason.HTTP),
}


class Receipt(NamedTuple):
    """What an answer tells of its transaction."""

    shard: int
    lsn: int  # 0: it tells no place
    status: Status
    reason: Reason


def read(body: bytes, status: Status, reason: Reason) -> Receipt:
    """The receipt in a body; `status` and `reason` are what HTTP said, and stay where the body says nothing."""
    place = _PLACE.search(body)
    shard, lsn = (int(place.group(1)), int(place.group(2))) if place is not None else (0, 0)
    if status is Status.OK:
        return Receipt(shard, lsn, status, reason)
    kind = _TYPE.search(body)
    if kind is not None:
        name = kind.group(1)
        if name in _GATEWAY:
            status, reason = _GATEWAY[name]
        elif name in _REASONS:
            reason = _REASONS[name]
            status = Status.FAILED if _FAILED in body else Status.REJECTED
    return Receipt(shard, lsn, status, reason)
