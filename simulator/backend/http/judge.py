"""What an HTTP answer means for a transaction: status classes, and where asked a field of its JSON body."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulator.backend.http.connection import Cause
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

Verdict = tuple[Status, Reason]

_STATUSES = 600

# Where a scenario says nothing: what these statuses mean in RFC 9110 and RFC 6585, asked of a payment.
_REASONS: dict[int, Reason] = {
    402: Reason.FUNDS,
    404: Reason.NOT_FOUND,
    409: Reason.DUPLICATE,
    413: Reason.AMOUNT,
    422: Reason.STATE,
    429: Reason.OVERFLOW,
    503: Reason.OVERFLOW,
}

_CAUSES: dict[Cause, Verdict] = {
    # It may have been booked before the connection went; only the platform knows.
    Cause.RESET: (Status.UNKNOWN, Reason.RESET),
    Cause.GARBAGE: (Status.UNKNOWN, Reason.GARBAGE),
    Cause.TIMEOUT: (Status.UNKNOWN, Reason.TIMEOUT),
}


def _default(status: int) -> Verdict:
    """2xx it is done · 4xx and 503 it was refused · everything else nobody knows: a 500 may come after the booking."""
    if 200 <= status < 300:  # noqa: PLR2004  HTTP's classes
        return Status.OK, Reason.NONE
    if 400 <= status < 500 or status == 503:  # noqa: PLR2004  HTTP's classes
        return Status.REJECTED, _REASONS.get(status, Reason.HTTP)
    return Status.UNKNOWN, Reason.HTTP


@dataclass(frozen=True)
class Judge:
    """Turns endings into outcomes.

    `statuses` overrides what a status means; `path` leads to a JSON field, whose text `values` maps; where the field or its value
    is not there, the status decides.
    """

    statuses: Mapping[int, Status] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    values: Mapping[str, Status] = field(default_factory=dict)

    def table(self) -> list[Verdict]:
        """The meaning of each status, by number."""
        table = [_default(status) for status in range(_STATUSES)]
        for status, meant in self.statuses.items():
            reason = Reason.NONE if meant is Status.OK else _REASONS.get(status, Reason.HTTP)
            table[status] = (meant, reason)
        return table

    def of_body(self, body: bytes, otherwise: Verdict) -> Verdict:
        """What a body says, else what its status said."""
        try:
            value = json.loads(body)
            for name in self.path:
                value = value[name]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return otherwise
        meant = self.values.get(str(value).lower() if isinstance(value, bool) else str(value))
        if meant is None:
            return otherwise
        if meant is otherwise[0]:
            return otherwise
        return meant, Reason.NONE if meant is Status.OK else Reason.HTTP


def of_cause(cause: Cause) -> Verdict:
    """What an ending without an answer means."""
    return _CAUSES[cause]
