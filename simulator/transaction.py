"""The records that travel: what a client asks for, what comes back, and the life-cycle between the two.

A `TRANSACTION` is what a client asks for, an `OUTCOME` what the backend answers. Both are NumPy structured dtypes of a
fixed, asserted size, so that batches of them move through shared memory and Numba kernels without a Python object each.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

TRANSACTION = np.dtype(
    [
        ("id", "<u8"),  # 1, 2, 3 … in order of intended time; 0 is no transaction
        ("intended_ns", "<i8"),  # since the start of the run
        ("fired_ns", "<i8"),  # since the start of the run; stamped by the dispatcher
        ("amount_minor", "<i8"),  # fen
        ("related", "<u8"),  # the id this refunds, posts or voids; 0: none
        ("payer", "<u4"),  # account numbers: customers first, merchants behind them
        ("payee", "<u4"),
        ("slot", "<u4"),  # the dispatcher's in-flight slot, echoed in the outcome; in a VOTE its Reason
        ("kind", "u1"),  # Kind
        ("message", "u1"),  # what a ring record is: simulator.shard.layout.Message
        ("node", "<u2"),  # the node it entered
        ("sequence", "<u8"),  # numbers the messages of one shard pair; 0 between client and platform
    ]
)

OUTCOME = np.dtype(
    [
        ("id", "<u8"),
        ("lsn", "<u4"),  # position in the shard's log; 0: nothing was logged
        ("epoch", "<u4"),  # raised when the logs may have lost positions, and only then are positions given out again
        (
            "answered_ns",
            "<i8",
        ),  # since the start of the run, where a backend knows better than the poll; 0: the poll
        ("slot", "<u4"),
        ("shard", "<u2"),
        ("status", "u1"),  # Status
        ("reason", "u1"),  # Reason
    ]
)

assert TRANSACTION.itemsize == 64, TRANSACTION.itemsize  # noqa: PLR2004, S101  one cache line, at import: a wrong layout must not run
assert OUTCOME.itemsize == 32, OUTCOME.itemsize  # noqa: PLR2004, S101  two to a cache line


class Kind(IntEnum):
    """What a client asks for."""

    PAYMENT = 1
    REFUND = 2  # the payee of an earlier payment gives it back: payer is the merchant, related the payment
    AUTHORIZE = 3  # hold the amount: available → reserved
    POST = 4  # settle a held amount: reserved → payee; related is the authorize
    VOID = 5  # release a held amount: reserved → available; related is the authorize
    LOOKUP = 6  # what became of the transaction `related` of this payer; changes and logs nothing


class Status(IntEnum):
    """How a transaction ended, as its client sees it."""

    PENDING = 0  # sent, no answer yet; none is left at the end of a run
    OK = 1  # applied, as durable as the scenario asks
    REJECTED = 2  # the platform said no, with a reason; nothing moved
    FAILED = 3  # it did not happen, and we know it
    UNKNOWN = 4  # in doubt at the end, after every way to find out
    DROPPED = 5  # never sent: the generator could not


class Reason(IntEnum):
    """Why a transaction was not `OK`; each is counted."""

    NONE = 0
    FUNDS = 1  # the payer's available balance is below the amount
    DUPLICATE = 2  # the id is known with other parameters
    OVERFLOW = 3  # a bounded queue was full
    NOT_FOUND = 4  # the related id is not in the shard's window
    EXCEEDS = 5  # a refund or post beyond what is left of its original
    STATE = 6  # the life-cycle does not allow it: the hold is already posted, voided or expired
    ACCOUNT = 7  # no such account, or payer and payee are the same
    AMOUNT = 8  # not a positive amount
    NODE_DOWN = 9  # the node stopped before it answered; or, rejected: before it had decided (protocol tcc)
    TIMEOUT = 10  # no answer when the drain ended
    IN_FLIGHT = 11  # dropped: the dispatcher's in-flight table was full
    LATE = 12  # dropped: too late to send
    LIMIT = 13  # a stated bound: open holds or undecided transfers of a shard, positions in its log, what an account may hold
    CIRCUIT = 14  # the balancer had no node that may take it: a circuit limit, or none is available
    POISON = 15  # failed: it could not be booked, try after try; see simulator.shard.dead_letters
    DEPENDENCY = 16  # booked here, but the dependency said error or was at its limit
    RESET = 20  # the connection ended before the answer
    GARBAGE = 21  # what came back was no HTTP
    HTTP = 22  # an HTTP status that says no more
    GENERATOR = 23  # the process that was to send it, or had sent it, ended before its time


# A history row has three bits for the kind and five for the reason.
assert max(Kind) < 8, max(Kind)  # noqa: PLR2004, S101  as above
assert max(Reason) < 32, max(Reason)  # noqa: PLR2004, S101  as above
