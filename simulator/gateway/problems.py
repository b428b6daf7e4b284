"""What the gateway says when it says no: one table of problems (RFC 9457), each with a stable type.

A type is a path below /problems/, its last word the ledger's own reason where the ledger decided. Clients tell problems apart
by it, and whether the transaction may have happened by the status: 4xx and 503 say no, 500 with the outcome `failed` that it did
not happen, and 504 that nobody knows yet, so ask again with the same key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from simulator.gateway.ledger_client import Decision

CONTENT_TYPE = "application/problem+json"


class Problem(NamedTuple):
    """A kind of problem."""

    status: int
    title: str
    retry_after_s: int = 0  # 0: waiting does not help


PROBLEMS: dict[str, Problem] = {
    # The request itself.
    "malformed": Problem(400, "The body is not what this request takes"),
    "idempotency-key": Problem(400, "The Idempotency-Key header is missing or malformed"),
    "no-such-path": Problem(404, "Nothing is served at this path"),
    "method": Problem(405, "This path does not take this method"),
    "too-large": Problem(413, "The body is larger than this gateway takes"),
    "media-type": Problem(415, "The body must be application/json"),
    # The gateway.
    "rate-limit": Problem(429, "More requests a second than this gateway takes", 1),
    "busy": Problem(429, "As many requests are in flight as this gateway takes", 1),
    "stopping": Problem(503, "This gateway is shutting down", 1),
    "internal": Problem(500, "The gateway failed; whether anything was booked is not known"),
    "in-doubt": Problem(504, "The ledger did not answer in time; ask again with the same key"),
    # The ledger.
    "funds": Problem(402, "The payer's available balance is below the amount"),
    "not_found": Problem(404, "There is no such transaction or account, or it is too long ago"),
    "duplicate": Problem(409, "This idempotency key was used for something else"),
    "exceeds": Problem(422, "The amount is more than what is left of the original"),
    "state": Problem(422, "The hold is already posted, voided or expired"),
    "account": Problem(422, "There is no such account, or payer and payee are the same"),
    "amount": Problem(422, "The amount is not positive"),
    "currency": Problem(422, "This gateway keeps its books in another currency"),
    "poison": Problem(500, "It could not be booked, try after try, and never will be"),
    "overflow": Problem(503, "The platform has no room now", 1),
    "limit": Problem(503, "The platform is at a stated bound", 1),
}


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(self, name: str, detail: str = "", **more: Any) -> None:  # noqa: ANN401  members of the problem
        super().__init__(name)
        self.name = name
        self.detail = detail
        self.more = more


def body_of(name: str, detail: str = "", **more: Any) -> bytes:  # noqa: ANN401  as above
    """The JSON of a problem."""
    problem = PROBLEMS[name]
    told = {"type": f"/problems/{name}", "title": problem.title, "status": problem.status}
    if detail:
        told["detail"] = detail
    return json.dumps({**told, **more}).encode()


def of_decision(decision: Decision) -> str:
    """The problem that a decision of the ledger other than OK is."""
    name = Reason(decision.reason).name.lower()
    return name if name in PROBLEMS else "internal"


def ledger_status(decision: Decision) -> str:
    """Rejected or failed, as answers write it."""
    return Status(decision.status).name.lower()
