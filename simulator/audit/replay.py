"""Replays journals from the opening balances, independently of the kernels that booked them.

That it repeats what debits and credits mean is on purpose: the auditor must not share a mistake with what it audits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulator.audit.findings import EXAMPLES
from simulator.kernel import inlined, kernel
from simulator.ledger.books import AVAILABLE, RESERVED
from simulator.shard.layout import NO_LIMIT, Leg, Protocol
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRANSFER, _DEBIT, _CREDIT, _RESERVE, _RELEASE, _EXPIRE = (
    int(leg) for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE)
)
_DEAD = int(Leg.DEAD)
_BEGIN, _COMMIT, _ABORT, _CONFIRMED = (int(leg) for leg in (Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.CONFIRMED))
_SEND_BACK, _TAKE_BACK, _PASSED, _ALARM = (int(leg) for leg in (Leg.SEND_BACK, Leg.TAKE_BACK, Leg.PASSED, Leg.ALARM))
# Legs that are booked at the payee's shard, and those that may stand at either.
_FAR_LEGS = np.array(
    [
        leg in (Leg.CREDIT, Leg.TRIED, Leg.REFUSED, Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED, Leg.SEND_BACK)
        for leg in range(max(Leg) + 1)
    ]
)
# Legs that only one protocol writes, and those that also need a limit to what an account may hold.
_OF_TCC = (
    Leg.BEGIN, Leg.COMMIT, Leg.ABORT, Leg.TRIED, Leg.REFUSED, Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED,
)  # fmt: skip
_OF_A_LIMIT = (Leg.SEND_BACK, Leg.TAKE_BACK)
_POST = int(Kind.POST)
_AVAILABLE, _RESERVED = AVAILABLE, RESERVED

# Rows of `Ledger.finds` and `Ledger.example_ids`.
GAP, REPEAT, OVERDRAFT, ASTRAY, DEAD_LETTER, ALARM, UNLAWFUL, OVER_LIMIT = 0, 1, 2, 3, 4, 5, 6, 7
_FINDS = 8
# Entries of `Ledger.returned`.
RETURNED, RETURNED_MINOR = 0, 1


@dataclass
class Ledger:
    """What a replay adds up to."""

    accounts: NDArray[np.int64]  # (accounts, 2)
    lsn: NDArray[np.int64]  # (shards,)
    transit_out: NDArray[np.int64]  # (shards, shards) [near, far]
    transit_in: NDArray[np.int64]  # (shards, shards) [far, near]
    sums: NDArray[np.uint64]
    dead: NDArray[np.int64]  # (shards, shards) [to, from] what stands on transit for far legs that could not be booked
    returned: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    finds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_FINDS, np.int64))
    example_ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((_FINDS, EXAMPLES), np.uint64))


def lawful_legs(protocol: int, limit_minor: int) -> NDArray[np.bool_]:
    """Which legs a platform of this protocol and balance limit can write, by number."""
    tcc, returns = protocol == Protocol.TCC, protocol == Protocol.OUTBOX and limit_minor != NO_LIMIT
    return np.array(
        [(leg not in _OF_TCC or tcc) and (leg not in _OF_A_LIMIT or returns) for leg in range(max(Leg) + 1)]
    )


@inlined
def note_example(examples: NDArray[np.uint64], which: int, key: np.uint64) -> None:
    """Keeps the first ids of each find, each once."""
    for k in range(examples.shape[1]):
        if examples[which, k] == 0 or examples[which, k] == key:
            examples[which, k] = key
            break


@kernel
def replay_exchange(
    r: np.void, near: int, far: int, accounts: NDArray[np.int64], transit_out: NDArray[np.int64],
    transit_in: NDArray[np.int64], returned: NDArray[np.int64],
) -> None:  # fmt: skip
    """Books a leg of a transfer that may be refused at its far side; those not named here move nothing."""
    leg = np.int64(r["leg"])
    payer = np.int64(r["payer"])
    payee = np.int64(r["payee"])
    amount = r["amount_minor"]
    if leg == _BEGIN and r["kind"] != _POST:
        accounts[payer, _AVAILABLE] -= amount
        accounts[payer, _RESERVED] += amount
    elif leg == _ABORT and r["kind"] != _POST:
        accounts[payer, _RESERVED] -= amount
        accounts[payer, _AVAILABLE] += amount
    elif leg == _COMMIT:
        accounts[payer, _RESERVED] -= amount
        transit_out[near, far] += amount
    elif leg == _CONFIRMED:
        transit_in[far, near] += amount
        accounts[payee, _AVAILABLE] += amount
    elif leg == _SEND_BACK:
        transit_in[far, near] += amount
        transit_out[far, near] += amount
    elif leg == _TAKE_BACK:
        transit_in[near, far] += amount
        accounts[payer, _AVAILABLE] += amount
        returned[RETURNED] += 1
        returned[RETURNED_MINOR] += amount


@kernel
def replay(  # noqa: C901, PLR0912, PLR0915  a kernel is long but straight
    records: NDArray[np.void], accounts: NDArray[np.int64], lsn: NDArray[np.int64], transit_out: NDArray[np.int64],
    transit_in: NDArray[np.int64], dead: NDArray[np.int64], returned: NDArray[np.int64], finds: NDArray[np.int64],
    examples: NDArray[np.uint64], lawful: NDArray[np.bool_], limit_minor: int,
) -> None:  # fmt: skip
    """Books every record on `accounts`; counts gaps, repeats, overdrafts, alarms, dead far legs, and records that are astray.

    Also legs that are not `lawful` on this platform, money sent back though its payee had room for it, and credits beyond the
    limit (negative: there is none) to what an account may hold.
    """
    shards = lsn.shape[0]
    for i in range(records.shape[0]):
        r = records[i]
        shard = np.int64(r["shard"])
        position = np.int64(r["lsn"])
        payer = np.int64(r["payer"])
        payee = np.int64(r["payee"])
        leg = np.int64(r["leg"])
        found = -1
        if shard >= shards:
            finds[ASTRAY] += 1
            note_example(examples, ASTRAY, r["id"])
            continue
        if position > lsn[shard] + 1:
            found = GAP
            finds[GAP] += position - lsn[shard] - 1
        elif position <= lsn[shard]:
            found = REPEAT
            finds[REPEAT] += 1
        if found >= 0:
            note_example(examples, found, r["id"])
        lsn[shard] = max(lsn[shard], position)
        if leg == 0:
            continue
        near = payer % shards
        far = payee % shards
        if leg == _DEAD:  # it moves nothing, and what it names may be no account
            to, origin = (near, far) if shard == near else (far, near)
            dead[to, origin] += r["amount_minor"]
            finds[DEAD_LETTER] += 1
            note_example(examples, DEAD_LETTER, r["id"])
            continue
        if leg >= _FAR_LEGS.shape[0]:
            finds[ASTRAY] += 1
            note_example(examples, ASTRAY, r["id"])
            continue
        at_far = _FAR_LEGS[leg]
        if leg == _PASSED or leg == _ALARM:
            at_far = shard == far
        here = far if at_far else near
        if (
            r["amount_minor"] <= 0
            or here != shard
            or (leg == _TRANSFER and near != far)
            or (leg >= _BEGIN and near == far)
            or payer >= accounts.shape[0]
            or payee >= accounts.shape[0]
        ):
            finds[ASTRAY] += 1
            note_example(examples, ASTRAY, r["id"])
            continue
        amount = r["amount_minor"]
        if leg == _ALARM:
            finds[ALARM] += 1
            note_example(examples, ALARM, r["id"])
        if not lawful[leg] or (
            leg == _SEND_BACK and accounts[payee, _AVAILABLE] + accounts[payee, _RESERVED] <= limit_minor - amount
        ):
            finds[UNLAWFUL] += 1
            note_example(examples, UNLAWFUL, r["id"])
        if leg >= _BEGIN:
            replay_exchange(r, near, far, accounts, transit_out, transit_in, returned)
        if leg == _TRANSFER or leg == _DEBIT:
            accounts[payer, _RESERVED if r["kind"] == _POST else _AVAILABLE] -= amount
        elif leg == _RESERVE:
            accounts[payer, _AVAILABLE] -= amount
            accounts[payer, _RESERVED] += amount
        elif leg == _RELEASE or leg == _EXPIRE:
            accounts[payer, _RESERVED] -= amount
            accounts[payer, _AVAILABLE] += amount
        if leg == _TRANSFER or leg == _CREDIT:
            accounts[payee, _AVAILABLE] += amount
        if (
            limit_minor >= 0
            and (leg == _TRANSFER or leg == _CREDIT or leg == _CONFIRMED)
            and accounts[payee, _AVAILABLE] + accounts[payee, _RESERVED] > limit_minor
        ):
            finds[OVER_LIMIT] += 1
            note_example(examples, OVER_LIMIT, r["id"])
        if leg == _DEBIT:
            transit_out[near, far] += amount
        if leg == _CREDIT:
            transit_in[far, near] += amount
        if not at_far and (accounts[payer, _AVAILABLE] < 0 or accounts[payer, _RESERVED] < 0):
            finds[OVERDRAFT] += 1
            note_example(examples, OVERDRAFT, r["id"])
