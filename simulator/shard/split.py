"""Hot accounts, split: a merchant who is paid more than one shard can bear gets sub-accounts in several shards.

A hot key caps at the rate of its one shard. Split into `ways` sub-accounts ("parts"), its payments spread over that many
shards; its balance is the sum of its parts, integers all, so they merge exactly. Clients know nothing of it: they name the
merchant, and the platform's door (`simulator.backend.embedded`) puts the part in its place. Behind the door a part is an
account like any other, so shards, journals, restarts and the audit need no second kind of account.

Layout: clients know the accounts 0 … clients - 1. Part j of the hot merchant of rank h is account clients + h · ways + j. A
merchant's parts are consecutive numbers, hence in `ways` different shards, hence spread over the nodes. The merchant's own
number stays empty.

The law: which part, is a function of the two parties' numbers alone. So a repeated id, the post of a hold, the refund of a
payment and whatever is asked again after a restart find the part that the first one found. It prefers the payer's own shard,
then the payer's own node: what would have crossed shards or nodes then does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from simulator.kernel import inlined, int64, kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAST_NUMBER = 2**32 - 1  # an account number has 32 bits; this one is never an account


class Split(NamedTuple):
    """Which accounts are split, and how; all integers, so that a kernel takes it whole. Make one with `split_of`."""

    customers: int  # the account of the merchant of rank 0
    clients: int  # accounts that clients know
    hot: int  # how many merchants are split, the most popular first; 0: none
    ways: int  # parts of each
    shards: int
    step: int  # parts this far apart live on one node, as nodes own shards at the start; 1: on any

    @property
    def extra(self) -> int:
        """Accounts that it adds."""
        return self.hot * self.ways


def split_of(customers: int, merchants: int, shards: int, nodes: int, hot: int, ways: int) -> Split:
    """The split of the `hot` most popular merchants into `ways` parts each; fewer than two ways is none.

    A part on the payer's node can be had where the parts come evenly to the nodes: `ways` and `shards` multiples of `nodes`.

    Raises:
        ValueError: for more parts than shards (two would share one), or more split merchants than merchants.
    """
    if ways < 2 or hot == 0:  # noqa: PLR2004  one part is the whole
        return Split(customers, customers + merchants, 0, 1, shards, 1)
    if ways > shards:
        raise ValueError(f"{ways} parts need as many shards; there are {shards}")
    if not 0 < hot <= merchants:
        raise ValueError(f"{hot} merchants cannot be split; there are {merchants}")
    step = nodes if ways % nodes == 0 and shards % nodes == 0 else 1
    return Split(customers, customers + merchants, hot, ways, shards, step)


def unsplit(shards: int) -> Split:
    """Nothing is split: every account is booked on itself."""
    return Split(0, 0, 0, 1, shards, 1)


@inlined
def booked_account(split: Split, account: int, other: int) -> int:
    """The account that a client's `account` is booked on when the other party is `other` (both in the client's words).

    Of a split merchant: part d, if that is the part in the other party's shard; else one that the other party's number picks
    evenly, `step` apart from there. Numbers that clients do not know stay unknown: they are moved past the parts.
    """
    account = int64(account)
    if account >= split.customers:
        rank = account - split.customers
        if rank < split.hot:
            other = int64(other)
            first = split.clients + rank * split.ways
            part = (other - first) % split.shards
            if part >= split.ways:
                part = (part + split.step * (other // split.shards)) % split.ways
            return first + part
        if split.hot > 0 and account >= split.clients:
            return min(account + split.hot * split.ways, _LAST_NUMBER)
    return account


@inlined
def client_account(split: Split, account: int) -> int:
    """The account that clients know a booked one by: of a part its merchant, of any other itself."""
    account = int64(account)
    part = account - split.clients
    if 0 <= part < split.hot * split.ways:
        return split.customers + part // split.ways
    return account


@inlined
def home_of(split: Split, payer: int, payee: int) -> int:
    """The shard that decides what a client asks for: the one of the account that the payer is booked on."""
    return booked_account(split, payer, payee) % split.shards


@kernel
def to_booked(asked: NDArray[np.void], booked: NDArray[np.void], split: Split) -> None:
    """Copies what clients ask for (TRANSACTION[n]) into `booked` (at least n), with the accounts that it is booked on."""
    for i in range(asked.shape[0]):
        booked[i] = asked[i]
        payer = asked[i]["payer"]
        payee = asked[i]["payee"]
        booked[i]["payer"] = booked_account(split, payer, payee)
        booked[i]["payee"] = booked_account(split, payee, payer)


@kernel
def to_asked(records: NDArray[np.void], split: Split) -> None:
    """Puts merchants in the place of their parts, in records (RECORD) or transactions."""
    for i in range(records.shape[0]):
        records[i]["payer"] = client_account(split, records[i]["payer"])
        records[i]["payee"] = client_account(split, records[i]["payee"])


def as_asked(records: NDArray[np.void], split: Split) -> NDArray[np.void]:
    """The records in the words of the clients; the same array where nothing is split, else a copy."""
    if split.hot == 0:
        return records
    copied = records.copy()
    to_asked(copied, split)
    return copied


@kernel
def homes(asked: NDArray[np.void], split: Split, shards: NDArray[np.int64]) -> None:
    """shards[i]: the home of asked[i] (TRANSACTION)."""
    for i in range(asked.shape[0]):
        shards[i] = home_of(split, asked[i]["payer"], asked[i]["payee"])


def parts_of(split: Split, rank: int) -> range:
    """The accounts that the split merchant of this rank is booked on."""
    first = split.clients + rank * split.ways
    return range(first, first + split.ways)
